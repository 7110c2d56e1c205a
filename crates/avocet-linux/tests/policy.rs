//! The policy of real threads.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    unsafe_code,
    reason = "a policy is chosen by a call into the C library"
)]

use std::fs;
use std::thread;

use avocet_linux::wait_when_woken;

/// Policy and nice value of the calling thread, as the system counts them.
fn policy() -> (u32, i32) {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name of the thread may have blanks in it; the state behind it is the third field.
    let behind_name: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let nice = behind_name[19 - 3].parse().unwrap();
    (behind_name[41 - 3].parse().unwrap(), nice)
}

/// In a thread of its own, whose policy it may change.
fn in_a_thread(test: fn()) {
    thread::spawn(test).join().unwrap();
}

/// Whether the policy may be changed here: some sandboxes refuse, and whoever runs the tests may have chosen one.
fn waits_when_woken(before: (u32, i32)) -> bool {
    match wait_when_woken() {
        Ok(changed) => {
            assert_eq!(changed, before.0 == 0, "the usual one, and no other");
            changed
        }
        Err(error) => {
            let known = [libc::EPERM, libc::EINVAL, libc::ENOSYS].map(Some);
            assert!(known.contains(&error.raw_os_error()), "{error}");
            false
        }
    }
}

#[test]
fn a_thread_waits_when_woken_and_so_do_those_that_it_starts() {
    let usual = policy();
    in_a_thread(|| {
        let before = policy();
        let after = match waits_when_woken(before) {
            true => (3, before.1),
            false => before,
        };
        assert_eq!(policy(), after);
        assert_eq!(thread::spawn(policy).join().unwrap(), after);
        assert!(!waits_when_woken(after), "it is done");
        assert_eq!(policy(), after);
    });
    assert_eq!(policy(), usual, "other threads stay as they are");
}

#[test]
fn a_policy_that_was_chosen_is_kept() {
    in_a_thread(|| {
        // SAFETY: it holds nothing but integers, for which all bits may be zero.
        let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the calling thread exists, and the parameters may be read while the call lasts.
        let chosen = unsafe {
            let thread = libc::pthread_self();
            libc::pthread_setschedparam(thread, libc::SCHED_IDLE, &raw const parameters)
        };
        let before = policy();
        assert_eq!(before.0 == 5, chosen == 0);
        if chosen == 0 {
            assert!(!wait_when_woken().unwrap());
            assert_eq!(policy(), before);
        }
    });
}
