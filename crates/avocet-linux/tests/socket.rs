//! When a real socket tells that it can be read.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroU8;
use std::os::fd::AsFd as _;

use avocet_linux::set_receive_low_water;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn set(socket: &TcpStream, bytes: u8) {
    set_receive_low_water(socket.as_fd(), NonZeroU8::new(bytes).unwrap()).unwrap();
}

/// Whether a socket can be read, within so many milliseconds.
fn is_readable(socket: &TcpStream, millis: i64) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: millis / 1_000,
        tv_nsec: millis % 1_000 * 1_000_000,
    };
    poll(&mut sockets, Some(&limit)).unwrap() == 1
}

#[test]
fn fewer_bytes_are_not_told_and_read_all_the_same() {
    let (mut near, mut far) = pair();
    set(&near, 5);
    far.write_all(b"1234").unwrap();
    assert!(!is_readable(&near, 100));
    far.write_all(b"5").unwrap();
    assert!(is_readable(&near, 60_000));
    let mut room = [0; 3];
    assert_eq!(near.read(&mut room).unwrap(), 3);
    assert!(!is_readable(&near, 0));
    near.set_nonblocking(true).unwrap();
    assert_eq!(near.read(&mut room).unwrap(), 2);
}

#[test]
fn what_is_there_already_is_told_once_it_is_enough() {
    let (near, mut far) = pair();
    set(&near, 5);
    far.write_all(b"1234").unwrap();
    assert!(!is_readable(&near, 100));
    set(&near, 1);
    assert!(is_readable(&near, 60_000));
}

#[test]
fn the_end_is_told_in_any_case() {
    let (near, far) = pair();
    set(&near, 5);
    drop(far);
    assert!(is_readable(&near, 60_000));
}

#[test]
fn what_is_no_socket_is_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(set_receive_low_water(file.as_fd(), NonZeroU8::MIN).is_err());
}
