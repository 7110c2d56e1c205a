//! The connections of this crate against a client written for the tests, in virtual time.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail loudly"
)]

mod answers;
mod exhaustive;
mod flow;
mod gates;
mod handshake;
mod properties;
mod qos;
mod support;
mod time;
mod violations;
