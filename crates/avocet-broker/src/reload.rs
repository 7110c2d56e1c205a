//! Reading files again while the broker runs: on SIGHUP, and when the command line asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use avocet_broker::{ReloadError, Reloader};
use tracing::{error, info};

use crate::notify::Manager;

/// One reload at a time, which the log and the service manager hear of.
pub(crate) struct Reload {
    reloader: Reloader,
    manager: Arc<Manager>,
    turn: Mutex<()>,
}

impl Reload {
    pub(crate) fn new(reloader: Reloader, manager: Arc<Manager>) -> Self {
        Self {
            reloader,
            manager,
            turn: Mutex::default(),
        }
    }

    /// Says what was done.
    pub(crate) fn run(&self) -> Result<&'static str, ReloadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.manager.reloading();
        let result = self.reloader.reload().map(|count| match count {
            0 => "nothing to read again: no users, rules or certificates",
            _ => "users, rules and certificates were read again",
        });
        match &result {
            Ok(done) => info!("{done}"),
            Err(error) => error!("{error}"),
        }
        self.manager.ready();
        result
    }
}
