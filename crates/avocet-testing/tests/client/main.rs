//! The client against the engine, with tokio's time paused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

mod crash;
mod cuts;
mod helpers;
mod seeds;
mod stories;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Virtual time passes.
async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
