//! The policy of real threads.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::thread;

use avocet_sched::wait_when_woken;

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

#[test]
fn a_thread_waits_when_woken_and_so_do_those_that_it_starts() {
    thread::spawn(|| {
        let (usual, nice) = policy();
        assert_eq!(usual, 0, "tests are to run as usual");
        assert!(wait_when_woken().unwrap());
        assert_eq!(policy(), (3, nice));
        assert_eq!(thread::spawn(policy).join().unwrap(), (3, nice));
    })
    .join()
    .unwrap();
    assert_eq!(policy().0, 0, "other threads stay as they are");
}

#[test]
fn a_policy_that_was_chosen_is_kept() {
    thread::spawn(|| {
        assert!(wait_when_woken().unwrap());
        assert!(!wait_when_woken().unwrap());
        assert_eq!(policy().0, 3);
    })
    .join()
    .unwrap();
}
