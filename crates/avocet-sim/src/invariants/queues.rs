//! Queues stay within their limits.

use avocet_engine::Counters;

use crate::plan::{Plan, Role, SHARES};

/// What a shard says it holds, against what its sessions and groups may hold.
pub(crate) fn check(counters: &Counters, plan: &Plan) -> Result<(), String> {
    let system = &plan.system;
    let shares = plan.clients.iter().any(|it| it.role == Role::Member);
    let groups = if shares { SHARES.len() as u64 } else { 0 };
    let sessions = counters.sessions_connected + counters.sessions_disconnected;
    let each = system.queued_messages_max as u64;
    let mut most = (sessions + groups) * each;
    if !shares {
        // What a group's member gives back is taken, however much all queues hold.
        most = most.min(system.total_max as u64);
    }
    if counters.queued_messages > most {
        return Err(format!(
            "{} messages wait in {sessions} sessions and {groups} groups of at most {each}",
            counters.queued_messages
        ));
    }
    Ok(())
}
