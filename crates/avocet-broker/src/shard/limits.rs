//! What a shard does about connections beyond a limit, and those that are banned.

use std::cmp::Reverse;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use avocet_access::Rules;
use avocet_codec::{Packet, ReasonCode};
use avocet_engine::{
    AuthenticationRequest, ClientInfo, ConnectionId, Opened, Peer, RefuseReason, Verdict,
};
use avocet_session::Now;

use super::Shard;
use crate::access::refuse;
use crate::admission::{Pass, Refusal};
use crate::arrivals::Arrival;
use crate::bans::BanList;
use crate::config::LostSubscriptions;
use crate::connection::Closing;
use crate::events;
use crate::refusals::Refused;

/// What the least of its kind takes: rather too little than too much.
const CONNECTION_BYTES: u64 = 1_024;
const SESSION_BYTES: u64 = 512;
const SUBSCRIPTION_BYTES: u64 = 64;

impl Shard {
    /// How a connection that was accepted goes on; none if it is to be closed at once.
    pub(super) fn admit(&mut self, peer: &Peer, listener: u16, now: Now) -> Option<Pass> {
        let address = peer.ip().filter(|it| !self.is_proxy(listener, *it));
        match self.admission.arrive(listener, address, now.instant) {
            Ok(pass) => Some(pass),
            Err(refusal) => {
                self.admission.tell(refusal, peer, listener, now.instant);
                let door = self.doors.get(usize::from(listener));
                // To say why would cost a handshake.
                let plain = door.is_none_or(|door| door.layers.is_empty());
                plain.then(|| self.admission.refuse(refusal)).flatten()
            }
        }
    }

    /// The same once a handshake has told where its client is.
    pub(super) fn admit_from(
        &mut self,
        mut pass: Pass,
        address: Option<SocketAddr>,
        listener: u16,
        now: Now,
    ) -> Option<Pass> {
        let from = address.filter(|it| !pass.located && !self.is_proxy(listener, it.ip()));
        let Some(from) = from else {
            return Some(pass);
        };
        let Err(refusal) = self.admission.locate(&mut pass, from.ip(), now.instant) else {
            return Some(pass);
        };
        self.admission.tell(refusal, &from, listener, now.instant);
        self.admission.refuse(refusal)
    }

    /// Why a connection that was taken is refused after all: who is banned may have become known during
    /// its handshake, or on its way between shards. What becomes known later ends it by [`Self::ban`].
    pub(super) fn judge_again(&self, opened: &Opened, now: Now) -> Option<ReasonCode> {
        if opened.refused.is_some() || !self.admission.is_banned(&opened.peer) {
            return opened.refused;
        }
        let (refusal, listener) = (Refusal::Banned, opened.listener);
        self.admission
            .tell(refusal, &opened.peer, listener, now.instant);
        Some(refusal.reason_code())
    }

    /// A socket is closed before there is a connection.
    pub(super) fn fail_handshake(
        &self,
        arrival: &Arrival,
        reason: RefuseReason,
        text: &dyn Display,
        now: Now,
    ) {
        let refused = Refused {
            reason,
            address: &events::peer(arrival),
            listener: arrival.listener,
            client_id: "",
            connection: None,
            text,
        };
        self.admission
            .refusals
            .count_and_tell(&refused, now.instant);
    }

    /// Ends connections that have begun a packet and do not end it.
    pub(super) fn end_partial(&mut self, now: Now) {
        let mut late = Vec::new();
        while let Some(Reverse((at, id))) = self.partial.peek().copied()
            && at <= now.instant
        {
            self.partial.pop();
            let key = self.connections.key(id);
            let connection = key.and_then(|key| self.connections.get_mut(key));
            let Some(connection) = connection else {
                continue;
            };
            connection.partial_watched = false;
            if !connection.is_partial() || connection.closing != Closing::Open {
                continue;
            }
            // What has come and is not read yet is no fault of the client's.
            let since = if connection.readable {
                now.instant
            } else {
                connection.partial_since
            };
            let at = since + self.packet_timeout;
            if at <= now.instant {
                late.push(id);
            } else {
                connection.partial_watched = true;
                self.partial.push(Reverse((at, id)));
            }
        }
        if !late.is_empty() {
            late.sort_unstable();
            let is_late = |client: &ClientInfo<'_>| late.binary_search(&client.id).is_ok();
            let reason_code = ReasonCode::KeepAliveTimeout;
            self.engine.disconnect_where(reason_code, now, is_late);
        }
    }

    /// Says what the shard holds, for those who watch the memory.
    pub(super) fn tell_held(&self) {
        let counters = self.engine.counters();
        let sessions = counters.sessions_connected + counters.sessions_disconnected;
        let held = counters.queued_bytes
            + counters.retained_bytes
            + counters.connections * CONNECTION_BYTES
            + sessions * SESSION_BYTES
            + counters.subscriptions * SUBSCRIPTION_BYTES;
        self.inbox.set_held(held);
    }

    /// Counts what was refused where there is no engine.
    pub(super) fn count_refused(&mut self) {
        // One shard counts for all.
        if self.id.index() == 0
            && let Some(counts) = self.admission.refusals.take_counts()
        {
            for (reason, count) in counts {
                self.engine.count_refused(reason, count);
            }
        }
    }

    fn is_proxy(&self, listener: u16, address: IpAddr) -> bool {
        let door = self.doors.get(usize::from(listener));
        let mut proxies = door.into_iter().flat_map(|it| &it.layers.trusted_proxies);
        proxies.any(|network| network.contains(address))
    }

    /// Keeps in mind what a client calls itself, where the clients of users are counted.
    pub(super) fn name_client(&mut self, id: ConnectionId, request: &AuthenticationRequest) {
        if let AuthenticationRequest::Connect { connect, .. } = request
            && self.admission.counts_users()
            && self.connections.key(id).is_some()
            && let Packet::Connect(connect) = connect.packet()
        {
            let ticket = self.connections.ticket(id);
            match connect.client_id {
                // It will have a name that nobody else has.
                "" => ticket.name(&format!("\0{id}")),
                client_id => ticket.name(client_id),
            }
        }
    }

    /// The verdict on a client, which is another one if its user has too many.
    pub(super) fn judge(&mut self, id: ConnectionId, verdict: Verdict) -> Verdict {
        if let Verdict::Accept(accepted) = &verdict
            && let Some(user) = &accepted.identity.user
            && self.admission.counts_users()
            && self.connections.key(id).is_some()
            && !self.admission.admit_user(self.connections.ticket(id), user)
        {
            return refuse(ReasonCode::QuotaExceeded);
        }
        verdict
    }

    /// Other rules hold from here on.
    pub(super) fn set_rules(&mut self, rules: Arc<Rules>, lost: LostSubscriptions, now: Now) {
        self.engine.set_rules(rules);
        if lost == LostSubscriptions::Disconnect {
            self.engine.disconnect_unauthorized(now);
        }
    }

    /// Others are banned from here on.
    pub(super) fn ban(&mut self, bans: &BanList, now: Now) {
        self.engine.set_bans(Arc::clone(&bans.clients));
        let reason_code = ReasonCode::AdministrativeAction;
        self.engine.disconnect_where(reason_code, now, |client| {
            bans.has_peer(client.peer)
                || client
                    .key
                    .is_some_and(|key| bans.clients.has(key.client_id(), client.user))
        });
    }
}

#[cfg(test)]
mod tests {
    use avocet_codec::PacketType;

    use crate::admission::Refusal;

    #[test]
    fn every_refusal_has_a_code_that_connack_may_carry() {
        for refusal in [
            Refusal::Banned,
            Refusal::Connections,
            Refusal::Listener,
            Refusal::Address,
            Refusal::ListenerRate,
            Refusal::AddressRate,
        ] {
            let code = refusal.reason_code();
            assert!(code.is_error() && code.is_allowed_in(PacketType::Connack));
        }
    }
}
