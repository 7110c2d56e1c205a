//! Each function beside the standard library's safe ones.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use avocet_bytes::{ascii_by_words, ascii_without, has_any};
use proptest::prelude::*;

const UNWANTED: [u8; 3] = [0, b'+', b'#'];

/// By the letter.
fn expected(bytes: &[u8]) -> Option<&str> {
    let well = bytes.is_ascii() && !bytes.iter().any(|byte| UNWANTED.contains(byte));
    well.then(|| std::str::from_utf8(bytes).expect("ASCII is UTF-8"))
}

/// The same by words.
fn by_words(bytes: &[u8]) -> Option<&str> {
    ascii_by_words(bytes, |at, word| {
        let word = word.to_le_bytes();
        assert_eq!(bytes[at..at + 8], word, "the word at {at}");
        !word.iter().any(|byte| UNWANTED.contains(byte))
    })
}

fn check(bytes: &[u8]) {
    let expected = expected(bytes);
    assert_eq!(ascii_without(bytes, UNWANTED), expected, "{bytes:?}");
    let words = expected.filter(|text| text.len() >= 8);
    assert_eq!(by_words(bytes), words, "{bytes:?}");
    let unwanted = bytes.iter().any(|byte| UNWANTED.contains(byte));
    assert_eq!(has_any(bytes, UNWANTED), unwanted, "{bytes:?}");
    let null = bytes.contains(&0);
    assert_eq!(has_any(bytes, [0]), null, "{bytes:?}");
    let without_null = ascii_without(bytes, [0]);
    assert_eq!(
        without_null.is_some(),
        bytes.is_ascii() && !null,
        "{bytes:?}"
    );
    assert_eq!(
        ascii_without(bytes, []).is_some(),
        bytes.is_ascii(),
        "{bytes:?}"
    );
}

/// Miri takes long for each byte, and sees the same reads of memory in a few of them.
const STEP: usize = if cfg!(miri) { 37 } else { 1 };
const LENGTH_STEP: usize = if cfg!(miri) { 5 } else { 1 };

#[test]
fn every_byte_is_judged_at_every_place() {
    for len in (0..=36).step_by(LENGTH_STEP) {
        let mut bytes = vec![b'a'; len];
        check(&bytes);
        for at in (0..len).step_by(STEP) {
            for byte in (0..=u8::MAX).step_by(STEP) {
                bytes[at] = byte;
                check(&bytes);
            }
            bytes[at] = b'a';
        }
    }
}

/// A byte that is zero may borrow from the one behind it, where words are looked at.
#[test]
fn every_pair_of_bytes_is_judged_beside_each_other() {
    for len in [2, 4, 7, 9, 16, 17] {
        for at in [0, len / 2 - 1, len - 2] {
            let mut bytes = vec![b'a'; len];
            for pair in (0..=u16::MAX).step_by(if cfg!(miri) { 9_973 } else { 1 }) {
                bytes[at..at + 2].copy_from_slice(&pair.to_be_bytes());
                check(&bytes);
            }
        }
    }
}

#[test]
fn a_word_that_is_refused_ends_the_search() {
    for refused in [0, 8, 16, 17] {
        let mut asked = Vec::new();
        let text = ascii_by_words(&[b'a'; 25], |at, _| {
            asked.push(at);
            at != refused
        });
        assert_eq!(text, None);
        let places = [0, 8, 16, 17];
        let expected: Vec<_> = places.into_iter().filter(|at| *at <= refused).collect();
        assert_eq!(asked, expected);
    }
}

/// Miri takes a thousand times as long, and has no files.
fn config() -> ProptestConfig {
    if cfg!(miri) {
        return ProptestConfig {
            cases: 8,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
    }
    ProptestConfig::default()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_judged_alike(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn text_with_little_wrong_is_judged_alike(
        text in "[ -~]{0,100}",
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = text.into_bytes();
        check(&bytes);
        if !bytes.is_empty() {
            let at = place.index(bytes.len());
            bytes[at] = byte;
            check(&bytes);
        }
    }
}
