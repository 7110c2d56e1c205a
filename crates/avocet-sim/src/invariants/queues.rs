//! Queues stay within their limits.

use avocet_engine::Counters;

use crate::plan::System;

/// What a shard says it holds, against what its sessions may hold.
pub(crate) fn check(counters: &Counters, system: &System) -> Result<(), String> {
    let sessions = counters.sessions_connected + counters.sessions_disconnected;
    let most = sessions * system.queued_messages_max as u64;
    if counters.queued_messages > most {
        return Err(format!(
            "{} messages wait in {sessions} sessions of at most {}",
            counters.queued_messages, system.queued_messages_max
        ));
    }
    Ok(())
}
