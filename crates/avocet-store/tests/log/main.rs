//! The store on disk, on a simulated one and a real one.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

mod damage;
mod export;
mod faults;
mod files;
mod formats;
mod oracle;
mod power;
mod reclaim;
mod size;
mod support;
