//! A header and bytes that many hold, beside a plain pair that each one has for itself.

use std::sync::mpsc;
use std::thread;

use avocet_bytes::SharedBytes;
use proptest::prelude::*;

#[test]
fn parts_lie_behind_the_header_in_their_order() {
    let shared = SharedBytes::new((7_u32, 8_u16), [b"ab", b"", b"cde"]);
    assert_eq!(shared.header(), &(7, 8));
    assert_eq!(shared.bytes(), b"abcde");
    assert_eq!((shared.len(), shared.is_empty()), (5, false));
    let empty = SharedBytes::new((), []);
    assert_eq!((empty.bytes(), empty.is_empty()), (&b""[..], true));
}

#[test]
fn a_value_takes_one_pointer() {
    assert_eq!(size_of::<Option<SharedBytes<u64>>>(), size_of::<usize>());
}

#[test]
fn a_header_keeps_its_alignment() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(64))]
    struct Aligned(u8);

    for len in 0..20 {
        let bytes = vec![len; len.into()];
        let shared = SharedBytes::new(Aligned(len), [&bytes]);
        assert_eq!(shared.header(), &Aligned(len));
        assert_eq!((&raw const *shared.header()).addr() % 64, 0);
        assert_eq!(shared.bytes(), bytes);
    }
}

#[test]
fn bytes_to_fill_are_zeros() {
    let shared = SharedBytes::filled('h', 5, |bytes| {
        assert_eq!(bytes, [0; 5]);
        bytes.copy_from_slice(b"12345");
    });
    assert_eq!((*shared.header(), shared.bytes()), ('h', &b"12345"[..]));
    assert_eq!(shared, SharedBytes::new('h', [b"123", b"45"]));
    let none = SharedBytes::filled(0, 0, |bytes| assert!(bytes.is_empty()));
    assert!(none.is_empty());
}

#[test]
fn only_the_one_holder_changes_the_header() {
    let mut first = SharedBytes::new(1, [b"x"]);
    *first.header_mut().expect("nobody else has it") = 2;
    let second = first.clone();
    assert!(first.is_same(&second));
    assert_eq!(first.header_mut(), None);
    assert_eq!(second.header(), &2);
    drop(second);
    assert_eq!(first.header_mut(), Some(&mut 2));
}

#[test]
fn equality_is_of_header_and_bytes() {
    let shared = SharedBytes::new(1, [b"ab"]);
    assert_eq!(shared, SharedBytes::new(1, [b"a", b"b"]));
    assert!(!shared.is_same(&SharedBytes::new(1, [b"ab"])));
    assert_ne!(shared, SharedBytes::new(2, [b"ab"]));
    assert_ne!(shared, SharedBytes::new(1, [b"ac"]));
    assert_ne!(shared, SharedBytes::new(1, [b"abc"]));
}

/// What one thread wrote is what another one reads and frees, whoever is last; Miri sees a race.
#[test]
fn threads_share_and_let_go_in_any_order() {
    for _ in 0..20 {
        let mut shared = SharedBytes::new(0, [b"shared"]);
        *shared.header_mut().expect("nobody else has it") = 9;
        let (sender, receiver) = mpsc::channel::<SharedBytes<u32>>();
        let reader = thread::spawn(move || {
            let mut bytes = 0;
            for mut shared in receiver {
                bytes += shared.clone().len();
                if let Some(own) = shared.header_mut() {
                    *own += 1;
                }
                assert!(*shared.header() >= 9);
            }
            bytes
        });
        let others: Vec<_> = (0..3)
            .map(|_| {
                let (sender, shared) = (sender.clone(), shared.clone());
                thread::spawn(move || sender.send(shared.clone()).expect("it is read"))
            })
            .collect();
        sender.send(shared).expect("it is read");
        drop(sender);
        for other in others {
            other.join().expect("no thread panics");
        }
        assert_eq!(reader.join().expect("no thread panics"), 4 * 6);
    }
}

#[derive(Clone, Debug)]
enum Step {
    New(u64, Vec<Vec<u8>>),
    Clone(usize),
    Drop(usize),
    Change(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let parts = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 3);
    prop_oneof![
        (any::<u64>(), parts).prop_map(|(header, parts)| Step::New(header, parts)),
        any::<usize>().prop_map(Step::Clone),
        any::<usize>().prop_map(Step::Drop),
        (any::<usize>(), any::<u64>()).prop_map(|(at, header)| Step::Change(at, header)),
    ]
}

/// What a value is, and the allocation that it shares.
type Plain = (u64, Vec<u8>, usize);

proptest! {
    /// A header changes where no other value shares it, and nothing else ever does.
    #[test]
    fn values_are_what_plain_ones_are(steps in prop::collection::vec(step(), 0..40)) {
        let mut values: Vec<(SharedBytes<u64>, Plain)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let at = |at: usize| at.checked_rem(values.len());
            match step {
                Step::New(header, parts) => {
                    let [a, b, c] = parts.try_into().expect("three parts");
                    let shared = SharedBytes::new(header, [&a, &b, &c]);
                    values.push((shared, (header, [a, b, c].concat(), number)));
                }
                Step::Clone(of) => {
                    if let Some(value) = at(of).and_then(|at| values.get(at)).cloned() {
                        values.push(value);
                    }
                }
                Step::Drop(of) => {
                    if let Some(at) = at(of) {
                        values.swap_remove(at);
                    }
                }
                Step::Change(of, header) => {
                    let Some(at) = at(of) else { continue };
                    let id = values[at].1.2;
                    let holders = values.iter().filter(|(_, plain)| plain.2 == id).count();
                    let (shared, plain) = &mut values[at];
                    let own = shared.header_mut();
                    prop_assert_eq!(own.is_some(), holders == 1);
                    if let Some(own) = own {
                        *own = header;
                        plain.0 = header;
                    }
                }
            }
            for (shared, plain) in &values {
                prop_assert_eq!(shared.header(), &plain.0);
                prop_assert_eq!(shared.bytes(), &plain.1);
            }
        }
    }
}
