//! Clients that are not let in, and those that the driver disconnects.

use alloc::sync::Arc;
use alloc::vec::Vec;

use avocet_access::Bans;
use avocet_codec::ReasonCode;
use avocet_session::{Details, Now};

use crate::{ConnectionId, Engine, Peer, SessionKey};

/// A Network Connection as the driver knows it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientInfo<'a> {
    /// The connection.
    pub id: ConnectionId,
    /// Where it comes from, as [`Opened`](crate::Opened) said.
    pub peer: &'a Peer,
    /// Its session, none before its CONNECT is accepted.
    pub key: Option<&'a SessionKey>,
    /// Its user, as far as that is kept.
    pub user: Option<&'a str>,
}

impl Engine {
    /// Who is refused from here on with 0x8A (banned); those who are connected stay so.
    pub fn set_bans(&mut self, bans: Arc<Bans>) {
        self.bans = bans;
    }

    /// Disconnects the clients that are `wanted`, in 5.0 with a code of DISCONNECT. It looks at all
    /// connections of the shard.
    pub fn disconnect_where(
        &mut self,
        reason_code: ReasonCode,
        now: Now,
        wanted: impl Fn(&ClientInfo<'_>) -> bool,
    ) {
        let now = self.clock.read(now);
        let mut ids = Vec::new();
        for (id, entry) in &self.connections {
            let key = entry.key.as_deref();
            let slot = entry.session.and_then(|session| self.sessions.get(session));
            let access = slot.and_then(|slot| slot.access.as_ref());
            let client = ClientInfo {
                id: *id,
                peer: &entry.opened.peer,
                key,
                user: key
                    .and_then(SessionKey::user)
                    .or_else(|| access.and_then(|access| access.user())),
            };
            if wanted(&client) {
                ids.push(*id);
            }
        }
        ids.sort_unstable();
        for id in ids {
            self.counters.disconnected_by_driver += 1;
            self.end_connection(id, reason_code, Details::default(), now);
            self.settle(now);
        }
    }

    /// Ends a connection whose last packet says why.
    pub(crate) fn end_connection(
        &mut self,
        id: ConnectionId,
        reason_code: ReasonCode,
        details: Details<'_>,
        now: Now,
    ) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.server.disconnect(reason_code, details, now);
        self.poll_connection_events(id, now);
        self.need_flush(id);
        self.update_timer(id);
    }
}
