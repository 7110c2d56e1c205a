//! Every planted bug is found, by the invariant that it breaks.

#![cfg(feature = "planted")]

#[test]
fn every_planted_bug_is_found() {
    for found in avocet_sim::find_planted(1, 1_000) {
        assert!(found.first.is_some(), "{found:?}");
        assert!(found.by_name.is_some(), "{found:?}");
    }
}
