//! What a kernel seldom does: it takes a part of a batch, refuses the rest, completes late, or lets
//! nobody wait. A filter of system calls (seccomp) of the thread has it do so.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::{env, thread};

use super::*;

/// None where this system permits no ring, which is not what is tested here.
fn ring() -> Option<Ring> {
    Ring::new(4).ok()
}

/// A ring of older kernels: an operation that is refused ends a call, and what is behind it is left.
fn stopping_ring() -> Option<Ring> {
    let ring = ring()?;
    let uring = IoUring::new(4).unwrap();
    Some(Ring {
        uring: Some(Uring(uring)),
        ..ring
    })
}

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

fn send(socket: &UnixStream, bytes: &'static [u8]) -> squeue::Entry {
    let socket = types::Fd(socket.as_raw_fd());
    opcode::Send::new(socket, bytes.as_ptr(), len(bytes))
        .flags(libc::MSG_DONTWAIT)
        .build()
}

/// What the kernel refuses before it looks at what it is for.
fn refused() -> squeue::Entry {
    let nothing = opcode::Nop::new().build();
    nothing.flags(squeue::Flags::BUFFER_SELECT)
}

/// Carries out three operations, of which the kernel refuses the second one. What it says of each,
/// and how many bytes come to the socket of the third.
fn run_around_a_refused_one(ring: &mut Ring) -> (Vec<i32>, Result<usize, ErrorKind>) {
    let ((first, _far), (third, mut far)) = (pair(), pair());
    let operations = [send(&first, b"a"), refused(), send(&third, b"ccc")];
    ring.operations = operations
        .into_iter()
        .zip(0..)
        .map(|(operation, index)| operation.user_data(index))
        .collect();
    // SAFETY: the sockets are open, and the bytes are there for ever.
    unsafe { ring.run() };
    let came = far.read(&mut [0; 8]).map_err(|error| error.kind());
    (ring.results.clone(), came)
}

/// From here on this thread gets `EPERM` when it enters a ring to submit so many.
fn refuse_to_submit(count: u32) {
    let instruction = |code: u32, k, jt, jf| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless = |value, skipped| {
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            value,
            0,
            skipped,
        )
    };
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // The number of the call lies first, its second argument behind 24 bytes, in eight.
    let argument = 24 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut filter = [
        load(0),
        skip_unless(libc::SYS_io_uring_enter as u32, 3),
        load(argument),
        skip_unless(count, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let [none, yes, mode]: [libc::c_ulong; 3] = [0, 1, libc::SECCOMP_MODE_FILTER.into()];
    // SAFETY: the kernel copies the program, and looks whether it is one.
    let refuses = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0
    };
    assert!(refuses, "{}", io::Error::last_os_error());
}

#[test]
fn what_the_kernel_has_not_taken_is_offered_again() {
    let Some(mut ring) = stopping_ring() else {
        return;
    };
    // Often enough for what is left in the ring of the kernel to go round.
    for _ in 0..10 {
        let (results, came) = run_around_a_refused_one(&mut ring);
        assert_eq!((results, came), (vec![1, -libc::EOPNOTSUPP, 3], Ok(3)));
        assert!(ring.is_open());
    }
}

#[test]
fn what_the_kernel_takes_no_more_is_not_begun_and_closes_the_ring() {
    let unaffected = thread::spawn(|| {
        let Some(mut ring) = stopping_ring() else {
            return;
        };
        refuse_to_submit(1);
        let (results, came) = run_around_a_refused_one(&mut ring);
        let expected = vec![1, -libc::EOPNOTSUPP, NOT_DONE];
        assert_eq!((results, came), (expected, Err(ErrorKind::WouldBlock)));
        assert!(!ring.is_open());
        let (results, came) = run_around_a_refused_one(&mut ring);
        assert_eq!(
            (results, came),
            (vec![NOT_DONE; 3], Err(ErrorKind::WouldBlock))
        );
    });
    unaffected.join().unwrap();
}

#[test]
fn what_is_completed_late_is_waited_for() {
    let Some(mut ring) = ring() else { return };
    let (near, mut far) = pair();
    let soon = types::Timespec::new().nsec(1_000_000);
    for _ in 0..3 {
        ring.operations = vec![
            opcode::Timeout::new(&raw const soon).build().user_data(0),
            send(&near, b"at once").user_data(1),
        ];
        // SAFETY: the socket is open, and the time and the bytes are there until this returns.
        unsafe { ring.run() };
        assert_eq!(ring.results, [-libc::ETIME, 7]);
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 7);
    }
    assert!(ring.is_open());
}

/// Nobody could tell when the kernel lets go of what is borrowed.
#[test]
fn a_wait_that_is_refused_ends_the_process() {
    const THIS: &str = "ring::tests::a_wait_that_is_refused_ends_the_process";
    const ENDS: &str = "AVOCET_URING_TEST_ENDS";
    let Some(mut ring) = ring() else { return };
    if env::var_os(ENDS).is_none() {
        let mut ends = Command::new(env::current_exe().unwrap());
        ends.args([THIS, "--exact", "--nocapture"]).env(ENDS, "");
        let output = ends.output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        return;
    }
    let late = types::Timespec::new().sec(3_600);
    ring.operations = vec![opcode::Timeout::new(&raw const late).build()];
    let none: libc::c_ulong = 0;
    // SAFETY: nothing is pointed to; no picture of the process is left behind.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, none, none, none, none) };
    refuse_to_submit(0);
    // SAFETY: the time is there until this returns, which it does not.
    unsafe { ring.run() };
}
