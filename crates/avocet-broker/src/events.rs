//! What the operator reads: one line per connect and one per disconnect.

use avocet_engine::{Event, Peer, RefuseReason, RefusedBy, SessionKey};
use avocet_session::{CloseReason, Instant};
use tracing::{error, info, warn};

use crate::acceptor::UNIX;
use crate::arrivals::Arrival;
use crate::refusals::{Refusals, Refused};

pub(crate) fn log(event: &Event, refusals: &Refusals, now: Instant) {
    match event {
        Event::Connected {
            id,
            peer,
            listener: _,
            session,
            user,
            version,
            keep_alive,
            session_present,
        } => info!(
            client_id = session.client_id(),
            tenant = tenant(session),
            user = user.as_deref(),
            version = %version,
            address = peer.to_string(),
            connection = %id,
            keep_alive,
            session_present,
            "connected"
        ),
        Event::Refused {
            id,
            peer,
            listener,
            client_id,
            reason,
        } => refusals.tell(
            &Refused {
                reason: (*reason).into(),
                address: peer,
                listener: *listener,
                client_id,
                connection: Some(*id),
                text: reason,
            },
            now,
        ),
        Event::Disconnected {
            id,
            peer,
            listener,
            client_id,
            session,
            version,
            reason,
        } => match (session, RefuseReason::of(*reason)) {
            (Some(session), _) => info!(
                client_id = session.client_id(),
                tenant = tenant(session),
                version = %version,
                address = peer.to_string(),
                connection = %id,
                closed_by = closed_by(*reason),
                reason = %reason,
                "disconnected"
            ),
            (None, Some(kind)) => refusals.tell(
                &Refused {
                    reason: kind,
                    address: peer,
                    listener: *listener,
                    client_id,
                    connection: Some(*id),
                    text: reason,
                },
                now,
            ),
            (None, None) => info!(
                address = peer.to_string(),
                connection = %id,
                closed_by = closed_by(*reason),
                reason = %reason,
                "closed before it was connected"
            ),
        },
        Event::NotAuthorized {
            client,
            action,
            topic,
            by,
            rule,
            omitted,
            ..
        } => info!(
            client_id = client.session.client_id(),
            tenant = tenant(&client.session),
            user = client.identity.user.as_deref(),
            action = action.name(),
            topic = beginning(topic),
            refused_by = refused_by(*by, rule.as_deref()),
            address = client.opened.peer.to_string(),
            connection = %client.id,
            not_told = omitted,
            "not allowed"
        ),
        Event::Unreadable { session, messages } => error!(
            client_id = session.client_id(),
            tenant = tenant(session),
            messages,
            "queued messages cannot be read: they are not delivered"
        ),
        Event::Flapping {
            peer,
            session,
            connects,
        } => warn!(
            client_id = session.client_id(),
            tenant = tenant(session),
            user = session.user(),
            address = peer.to_string(),
            connects,
            "connects too often: it is banned for a while"
        ),
        Event::ManySessions {
            disconnected,
            most,
            example,
        } => warn!(
            disconnected,
            tenant = tenant(&most.0),
            user = most.0.user(),
            of_user = most.1,
            client_id = example.client_id(),
            "many sessions have no connection; clients that come with another client identifier each \
             time leave such behind"
        ),
        Event::TenantRefused {
            peer,
            client_id,
            problem,
        } => warn!(client_id, address = peer.to_string(), "refused: {problem}"),
        // Only programs ask for these.
        Event::Subscribed { .. } | Event::Unsubscribed { .. } => {}
        _ => info!("{event:?}"),
    }
}

fn refused_by(by: RefusedBy, rule: Option<&str>) -> &str {
    match by {
        RefusedBy::Rule(_) | RefusedBy::Default => rule.unwrap_or("a rule"),
        RefusedBy::Answer => "callout",
        // What is not known is not said to be known.
        RefusedBy::Nobody | _ => "callout, which did not answer",
    }
}

/// Whose session it is, if it is a tenant's.
fn tenant(session: &SessionKey) -> Option<&str> {
    Some(session.tenant()).filter(|tenant| !tenant.is_empty())
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
pub(crate) fn peer(arrival: &Arrival) -> Peer {
    arrival.handshake.peer().map_or(UNIX, Peer::Address)
}

/// As much of a topic as is told.
fn beginning(topic: &str) -> &str {
    let end = topic.char_indices().nth(256).map(|(at, _)| at);
    end.and_then(|end| topic.get(..end)).unwrap_or(topic)
}
