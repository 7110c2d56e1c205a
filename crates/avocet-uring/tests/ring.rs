//! Batches on real sockets.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use avocet_uring::Ring;

/// None where this system permits no ring, which is not what is tested here.
fn ring(capacity: u32) -> Option<Ring> {
    match Ring::new(capacity) {
        Ok(ring) => Some(ring),
        Err(error) => {
            let known = [libc::EPERM, libc::ENOSYS, libc::ENOMEM].map(Some);
            assert!(known.contains(&error.raw_os_error()), "{error}");
            None
        }
    }
}

/// Pairs of sockets, of which the first one is written.
fn pairs(count: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..count)
        .map(|_| {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            (near, far)
        })
        .collect()
}

#[test]
fn each_socket_gets_its_own_bytes_and_results_keep_the_order() {
    let Some(mut ring) = ring(64) else { return };
    let mut pairs = pairs(64);
    let outputs: Vec<_> = (0..64)
        .map(|index| vec![index; 1 + index as usize])
        .collect();
    // More often than the rings of the kernel have places.
    for _ in 0..10 {
        let mut batch = ring.batch();
        for ((near, _), output) in pairs.iter().zip(&outputs) {
            assert!(batch.send(near.as_fd(), output));
        }
        assert!(batch.is_full());
        let sent: Vec<_> = batch.finish().map(Result::unwrap).collect();
        assert_eq!(sent, (1..=64).collect::<Vec<_>>());
        for ((_, far), output) in pairs.iter_mut().zip(&outputs) {
            let mut received = [0; 65];
            let n = far.read(&mut received).unwrap();
            assert_eq!(&received[..n], output);
        }
    }
}

#[test]
fn what_is_there_is_received_into_its_own_room() {
    let Some(mut ring) = ring(4) else { return };
    let mut pairs = pairs(3);
    pairs[0].1.write_all(b"first").unwrap();
    pairs[2].1.write_all(b"third, cut").unwrap();
    let mut rooms = [[0; 5]; 3];
    let mut batch = ring.batch();
    for ((near, _), room) in pairs.iter().zip(&mut rooms) {
        assert!(batch.receive(near.as_fd(), room));
    }
    let received: Vec<_> = batch
        .finish()
        .map(|result| result.map_err(|error| error.kind()))
        .collect();
    assert_eq!(received, [Ok(5), Err(ErrorKind::WouldBlock), Ok(5)]);
    assert_eq!(rooms, [*b"first", [0; 5], *b"third"]);
}

#[test]
fn a_full_socket_takes_a_part_and_then_nothing_and_does_not_wait() {
    let Some(mut ring) = ring(2) else { return };
    let mut pairs = pairs(2);
    let bytes: Vec<u8> = (0..4 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let mut batch = ring.batch();
    assert!(batch.send(pairs[0].0.as_fd(), &bytes));
    assert!(batch.send(pairs[1].0.as_fd(), b"not held up"));
    let sent: Vec<_> = batch.finish().map(Result::unwrap).collect();
    assert!(sent[0] > 0 && sent[0] < bytes.len(), "{sent:?}");
    assert_eq!(sent[1], 11);

    // A send may have ended early: fill it by plain calls.
    let mut filled = sent[0];
    while let Ok(n) = pairs[0].0.write(&bytes[filled..]) {
        filled += n;
    }
    let mut batch = ring.batch();
    assert!(batch.send(pairs[0].0.as_fd(), &bytes[filled..]));
    let result = batch.finish().next().unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);

    let mut received = vec![0; filled];
    pairs[0].1.read_exact(&mut received).unwrap();
    assert_eq!(received, bytes[..filled]);
}

#[test]
fn a_blocking_socket_does_not_block_a_batch() {
    let Some(mut ring) = ring(1) else { return };
    let (near, _far) = UnixStream::pair().unwrap();
    let mut room = [0; 8];
    let mut batch = ring.batch();
    assert!(batch.receive(near.as_fd(), &mut room));
    let result = batch.finish().next().unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_peer_that_is_gone_is_an_error_of_its_own_operation() {
    let Some(mut ring) = ring(3) else { return };
    let pairs = pairs(1);
    let (gone, _) = UnixStream::pair().unwrap();
    let mut room = [0; 8];
    let mut batch = ring.batch();
    assert!(batch.send(pairs[0].0.as_fd(), b"a"));
    assert!(batch.send(gone.as_fd(), b"b"));
    assert!(batch.receive(gone.as_fd(), &mut room));
    let results: Vec<_> = batch
        .finish()
        .map(|result| result.map_err(|error| error.kind()))
        .collect();
    // No signal either: the process still runs.
    assert_eq!(results, [Ok(1), Err(ErrorKind::BrokenPipe), Ok(0)]);
}

#[test]
fn a_full_batch_takes_no_more() {
    let Some(mut ring) = ring(1) else { return };
    let pairs = pairs(1);
    let mut batch = ring.batch();
    assert!(batch.send(pairs[0].0.as_fd(), b"a"));
    assert!(!batch.send(pairs[0].0.as_fd(), b"b"));
    assert_eq!(batch.finish().map(Result::unwrap).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_batch_that_is_not_finished_does_nothing() {
    let Some(mut ring) = ring(4) else { return };
    let mut pairs = pairs(1);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let bytes = b"dropped with the batch".to_vec();
        let mut batch = ring.batch();
        assert!(batch.send(pairs[0].0.as_fd(), &bytes));
        panic!("before it was finished");
    }));
    assert!(unwound.is_err());
    let mut batch = ring.batch();
    assert!(batch.send(pairs[0].0.as_fd(), b"only this"));
    assert_eq!(batch.finish().map(Result::unwrap).collect::<Vec<_>>(), [9]);
    let mut received = [0; 64];
    assert_eq!(pairs[0].1.read(&mut received).unwrap(), 9);
    assert_eq!(&received[..9], b"only this");
}

#[test]
fn a_ring_of_another_thread_does_nothing_and_says_so() {
    let Some(mut ring) = ring(4) else { return };
    let mut pairs = pairs(1);
    let socket = pairs[0].0.try_clone().unwrap();
    let (ring, results) = thread::spawn(move || {
        let mut batch = ring.batch();
        assert!(batch.send(socket.as_fd(), b"abc"));
        let results: Vec<_> = batch
            .finish()
            .map(|result| result.map_err(|error| error.kind()))
            .collect();
        (ring, results)
    })
    .join()
    .unwrap();
    let mut received = [0; 8];
    let came = pairs[0].1.read(&mut received).map_err(|error| error.kind());
    // Older kernels let any thread use it.
    if ring.is_open() {
        assert_eq!((results, came), (vec![Ok(3)], Ok(3)));
    } else {
        let not_begun = Err(ErrorKind::Interrupted);
        assert_eq!(
            (results, came),
            (vec![not_begun], Err(ErrorKind::WouldBlock))
        );
    }
}
