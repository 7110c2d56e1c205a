//! The simulator with a plan of the fuzzer's choices: the system, its clients and what they do when.
//! All of its invariants hold.
//!
//! The first byte is the seed of everything that is not planned: faults, latencies, the order of
//! turns. Each other byte, or few together, is the next choice of the plan.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let outcome = avocet_sim::run_bytes(input, false);
    if let Some(failure) = outcome.failure {
        for line in avocet_sim::run_bytes(input, true).history {
            eprintln!("{line}");
        }
        panic!("{failure}");
    }
});
