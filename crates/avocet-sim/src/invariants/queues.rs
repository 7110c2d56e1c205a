//! Queues stay within their limits.

use avocet_engine::Counters;

use crate::plan::{Plan, Role};

/// What a shard says it holds, against what its sessions may hold; groups hold their own.
pub(crate) fn check(counters: &Counters, plan: &Plan) -> Result<(), String> {
    if plan.clients.iter().any(|it| it.role == Role::Member) {
        return Ok(());
    }
    let system = &plan.system;
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
