//! What is appended in one piece beside what is appended piece by piece.

use avocet_bytes::{Fill, Room, append};
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Array([u8; 5]),
    WithLen(Vec<u8>),
    Text(String),
}

struct Pieces<'p>(&'p [Piece]);

impl Fill for Pieces<'_> {
    fn fill(self, room: &mut Room<'_>) {
        for piece in self.0 {
            match piece {
                Piece::Bytes(bytes) => room.put(bytes),
                Piece::Array(bytes) => room.put_array(*bytes),
                Piece::WithLen(bytes) => room.put_with_len(bytes),
                Piece::Text(text) => room.put_text_with_len(text),
            }
        }
    }
}

/// By the letter; none if one of the pieces is refused.
fn expected(pieces: &[Piece]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for piece in pieces {
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes.as_slice(),
            Piece::Array(bytes) => bytes.as_slice(),
            Piece::WithLen(bytes) => bytes.as_slice(),
            Piece::Text(text) if text.contains('\0') => return None,
            Piece::Text(text) => text.as_bytes(),
        };
        if let Piece::WithLen(_) | Piece::Text(_) = piece {
            all.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
        }
        all.extend(bytes);
    }
    Some(all)
}

/// How many bytes the pieces would take, whether they are refused or not.
fn len(pieces: &[Piece]) -> usize {
    let lens = pieces.iter().map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.len(),
        Piece::Array(bytes) => bytes.len(),
        Piece::WithLen(bytes) => 2 + bytes.len(),
        Piece::Text(text) => 2 + text.len(),
    });
    lens.sum()
}

fn check(pieces: &[Piece]) {
    let before = b"before".as_slice();
    let len = len(pieces);
    let expected = expected(pieces);
    let after = [before, expected.as_deref().unwrap_or_default()].concat();

    let mut vec = Vec::with_capacity(before.len() + len);
    vec.extend(before);
    assert_eq!(append(&mut vec, len, Pieces(pieces)), expected.is_some());
    assert_eq!(vec, after);

    let mut bytes = BytesMut::with_capacity(before.len() + len + 3);
    bytes.extend(before);
    assert_eq!(append(&mut bytes, len, Pieces(pieces)), expected.is_some());
    assert_eq!(bytes, after);

    let mut array = vec![b'.'; len + 1];
    let mut slice = array.as_mut_slice();
    assert_eq!(append(&mut slice, len, Pieces(pieces)), expected.is_some());
    let left = if expected.is_some() { 1 } else { len + 1 };
    assert_eq!(slice.len(), left);
    assert_eq!(array.last(), Some(&b'.'), "written behind the room");

    // A byte more than there is room for, and a byte more than is filled.
    let mut limited = Vec::with_capacity(len + 2).limit(len);
    assert!(!append(&mut limited, len + 1, Pieces(pieces)));
    let mut vec = Vec::with_capacity(len + 2);
    assert!(!append(&mut vec, len + 1, Pieces(pieces)));
    assert!(limited.into_inner().is_empty() && vec.is_empty());
}

/// Miri takes long for each byte, and sees the same writes in a few of them.
const STEP: usize = if cfg!(miri) { 7 } else { 1 };

#[test]
fn every_length_is_copied() {
    for len in (0..=140).step_by(STEP) {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8 + 1).collect();
        let text: String = ('!'..='~').cycle().take(len).collect();
        check(&[Piece::Bytes(bytes.clone())]);
        check(&[Piece::WithLen(bytes.clone())]);
        check(&[Piece::Text(text.clone())]);
        check(&[Piece::Text(text), Piece::Array([7; 5]), Piece::Bytes(bytes)]);
    }
}

#[test]
fn a_null_is_found_at_every_place() {
    for len in (1..=80).step_by(STEP) {
        for at in (0..len).step_by(STEP) {
            let text: String = (0..len)
                .map(|place| if place == at { '\0' } else { 'a' })
                .collect();
            check(&[Piece::Text(text.clone())]);
            check(&[Piece::WithLen(text.into_bytes()), Piece::Array([0; 5])]);
        }
    }
}

#[test]
fn what_is_too_long_for_its_length_is_left_out() {
    // Miri takes minutes for each.
    let lens: &[usize] = if cfg!(miri) {
        &[65_536]
    } else {
        &[65_535, 65_536, 65_537]
    };
    for &len in lens {
        check(&[Piece::WithLen(vec![1; len])]);
        check(&[Piece::Text("a".repeat(len))]);
    }
}

#[test]
fn a_buffer_is_as_it_was_once_refused() {
    struct Refused;

    impl Fill for Refused {
        fn fill(self, room: &mut Room<'_>) {
            room.put_array([1, 2]);
            room.refuse();
            room.put(&[3]);
        }
    }

    let mut vec = Vec::with_capacity(3);
    assert!(!append(&mut vec, 3, Refused));
    assert_eq!(vec, []);
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Piece::Bytes),
        any::<[u8; 5]>().prop_map(Piece::Array),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Piece::WithLen),
        "[a-zé\0]{0,40}".prop_map(Piece::Text),
        "[a-zé]{0,80}".prop_map(Piece::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

    #[test]
    fn pieces_lie_behind_each_other(pieces in prop::collection::vec(piece(), 0..6)) {
        check(&pieces);
    }
}
