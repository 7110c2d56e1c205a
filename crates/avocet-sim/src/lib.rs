#![doc = include_str!("../README.md")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "nobody else's input reaches a simulation, and one that fails may panic"
)]

mod boot;
mod broker;
mod client;
mod conn;
mod coverage;
mod disk;
#[cfg(test)]
mod exhaustive;
mod grounds;
mod history;
mod invariants;
mod link;
mod model;
mod plan;
#[cfg(feature = "planted")]
mod planted;
mod restart;
mod rng;
mod run;
mod shrink;
mod store;
mod survivors;
mod wire;
mod world;

pub use coverage::Coverage;
#[cfg(feature = "planted")]
pub use planted::{Found, find_planted};
pub use run::{Outcome, run, run_bytes};
pub use shrink::{Shrunk, shrink};
