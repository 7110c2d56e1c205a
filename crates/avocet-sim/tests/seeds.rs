//! A few seeds in every test run; `cargo xtask ci` runs more.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

/// The seed in `AVOCET_SIM_SEED`, or the first twenty.
#[test]
fn every_invariant_holds_in_the_first_seeds() {
    let chosen = std::env::var("AVOCET_SIM_SEED").ok();
    let seeds = match chosen {
        Some(seed) => vec![seed.parse().unwrap()],
        None => (1..=20).collect(),
    };
    for seed in seeds {
        let outcome = avocet_sim::run(seed, false);
        assert_eq!(
            outcome.failure, None,
            "replay with: cargo run -p avocet-sim -- --seed {seed}"
        );
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 2, 3] {
        let first = avocet_sim::run(seed, true);
        let second = avocet_sim::run(seed, true);
        assert_eq!(first.history, second.history);
        assert_eq!(first.digest, avocet_sim::run(seed, false).digest);
        assert!(first.events > 100);
    }
    assert_ne!(
        avocet_sim::run(1, false).digest,
        avocet_sim::run(2, false).digest
    );
}
