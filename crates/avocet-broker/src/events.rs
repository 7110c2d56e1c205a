//! What the operator reads: one line per connect and one per disconnect.

use avocet_engine::Event;
use avocet_session::CloseReason;
use tracing::{error, info, warn};

use crate::arrivals::Arrival;

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
            user = session.user(),
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
        } => info!(
            client_id,
            address = peer,
            connection = %id,
            closed_by = "broker",
            reason = %reason,
            "refused"
        ),
        Event::Disconnected {
            id,
            peer,
            session,
            version,
            reason,
        } => match session {
            Some(session) => info!(
                client_id = session.client_id(),
                version = %version,
                address = peer,
                connection = %id,
                closed_by = closed_by(*reason),
                reason = %reason,
                "disconnected"
            ),
            None => info!(
                address = peer,
                connection = %id,
                closed_by = closed_by(*reason),
                reason = %reason,
                "closed before it was connected"
            ),
        },
        Event::Unreadable { session, messages } => error!(
            client_id = session.client_id(),
            messages, "queued messages cannot be read: they are not delivered"
        ),
        Event::Flapping {
            peer,
            session,
            connects,
        } => warn!(
            client_id = session.client_id(),
            user = session.user(),
            address = peer,
            connects,
            "connects too often: it is banned for a while"
        ),
        Event::ManySessions {
            disconnected,
            most,
            example,
        } => warn!(
            disconnected,
            user = most.0.user(),
            of_user = most.1,
            client_id = example.client_id(),
            "many sessions have no connection; clients that come with another client identifier each \
             time leave such behind"
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

/// Where an arrival comes from, as the other lines say it.
pub(crate) fn peer(arrival: &Arrival) -> String {
    let address = arrival.handshake.peer();
    address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

/// A socket that was closed before it was a connection.
pub(crate) fn handshake_failed(arrival: &Arrival, reason: &str) {
    arrival_refused(&peer(arrival), arrival.listener, reason);
}

/// The same of one from there.
pub(crate) fn arrival_refused(address: &str, listener: u16, reason: &str) {
    info!(
        address,
        listener,
        closed_by = "broker",
        reason,
        "refused within its handshake"
    );
}
