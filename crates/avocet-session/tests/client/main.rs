//! The client role: against the real server role, and against packets made by hand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

mod ages;
mod cuts;
mod hostile;
mod pair;
mod script;
mod stories;
mod subscriptions;
