//! What the operator reads: one line per connect and one per disconnect.

use avocet_engine::{Event, SessionKey};
use avocet_session::CloseReason;
use tracing::{info, warn};

pub(crate) fn log(event: &Event) {
    match event {
        Event::Connected {
            id,
            peer,
            session,
            version,
            keep_alive,
            session_present,
        } => info!(
            client_id = session.client_id(),
            version = %version,
            address = peer,
            connection = %id,
            keep_alive,
            session_present,
            "connected"
        ),
        Event::Refused {
            id,
            peer,
            client_id,
            reason,
        } => warn!(
            client_id,
            address = peer,
            connection = %id,
            reason = %reason,
            "connection refused"
        ),
        Event::Disconnected {
            id,
            peer,
            session,
            reason,
        } => info!(
            client_id = session.as_deref().map_or("", SessionKey::client_id),
            address = peer,
            connection = %id,
            closed_by = closed_by(*reason),
            reason = %reason,
            "disconnected"
        ),
        _ => info!("{event:?}"),
    }
}

fn closed_by(reason: CloseReason) -> &'static str {
    if reason == CloseReason::ConnectionLost {
        "network"
    } else if reason.is_by_peer() {
        "client"
    } else {
        "broker"
    }
}
