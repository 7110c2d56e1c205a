//! Black-box tests: the built binaries against software that is not part of this workspace.
//!
//! Every test starts its own broker on a port the system chose and its own clients, waits on what
//! they report, and gives up after [`DEADLINE`] with the name of what it waited for and the
//! broker's log. [`provision`] installs the foreign software, so no test is ever skipped.
//!
//! The *scenarios* are written once, in [`scenario`], over a [`client::Client`]; a foreign library
//! takes part as soon as something turns [`client::Command`]s into calls and its callbacks into
//! [`client::Event`]s: `clients/paho/driver.py`, `clients/mqttjs/driver.js`, or a task.

use std::time::Duration;

pub mod broker;
pub mod client;
pub mod conformance;
pub mod cutter;
pub mod mosquitto;
pub mod process;
pub mod provision;
pub mod rumqttd;
pub mod scenario;
pub mod scratch;

/// How long anything that is awaited may take, before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `future` until [`DEADLINE`].
///
/// # Panics
///
/// When the deadline passes, with `awaited` and what `context` says.
pub async fn within<T>(
    awaited: &str,
    future: impl Future<Output = T>,
    context: impl FnOnce() -> String,
) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {awaited}\n{}", context()),
    }
}
