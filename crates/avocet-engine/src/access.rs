//! What clients may do by the rules that the driver gives: judged here, without asking anybody.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use avocet_access::{Identity, Permissions, Request, Rules};
use avocet_codec::{QoS, ReasonCode};
use avocet_session::{Details, Now};
use avocet_topic::{TopicFilterBuf, TopicName};

use crate::counters::DropReason;
use crate::queue::{Tag, state};
use crate::session_table::{SessionHandle, SessionKey};
use crate::{Accepted, Authorization, ConnectionId, Engine};

/// Who the client of a session is, and what the rules are for it.
pub(crate) struct Access {
    identity: Identity,
    permissions: Permissions,
    /// Some of what is queued was judged by other permissions, or by none.
    queue_is_older: bool,
}

impl Access {
    /// The User Name of its client.
    pub(crate) fn user(&self) -> Option<&str> {
        self.identity.user.as_deref()
    }

    /// The permissions by the rules in force. What others left behind is made anew, one session at
    /// a time, so that new rules cost no turn of the shard much.
    fn permissions(&mut self, rules: &Arc<Rules>) -> &Permissions {
        if !Arc::ptr_eq(self.permissions.rules(), rules) {
            self.permissions = Permissions::new(rules, &self.identity);
            self.queue_is_older = true;
        }
        &self.permissions
    }

    /// Whether something may be queued that is not to be sent any more.
    pub(crate) fn has_older_queue(&self, rules: &Arc<Rules>) -> bool {
        self.queue_is_older || !Arc::ptr_eq(self.permissions.rules(), rules)
    }

    pub(crate) fn may_publish(
        &mut self,
        rules: &Arc<Rules>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> bool {
        let request = Request::Publish {
            topic_name,
            qos: of_codec(qos),
            retain,
        };
        self.permissions(rules).decide(&request).is_allowed()
    }

    /// Whether its client may be sent a message.
    pub(crate) fn may_receive(
        &mut self,
        rules: &Arc<Rules>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> bool {
        let permissions = self.permissions(rules);
        if permissions.delivers_all() {
            return true;
        }
        let request = Request::Deliver {
            topic_name,
            qos: of_codec(qos),
            retain,
        };
        permissions.decide(&request).is_allowed()
    }
}

impl Engine {
    /// The rules that hold from here on, for [`Authorization::Rules`]. Sessions keep subscriptions
    /// that they would not get any more, and are sent only what the rules let them have.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    /// Disconnects the clients that are subscribed to what the rules in force do not let them subscribe
    /// to, in 5.0 with 0x98 (administrative action). It looks at all sessions of the shard.
    pub fn disconnect_unauthorized(&mut self, now: Now) {
        let now = self.clock.read(now);
        let mut ids = Vec::new();
        for slot in self.sessions.iter() {
            let (Some(id), Some(access)) = (slot.connection, &slot.access) else {
                continue;
            };
            let permissions = Permissions::new(&self.rules, &access.identity);
            let lowest = avocet_access::QoS::AtMostOnce;
            let mut filters = slot.subscriptions.filters(self.spaces.routes(slot.space));
            if filters.any(|it| permissions.subscribe(it.as_filter(), lowest).is_none()) {
                ids.push(id);
            }
        }
        for id in ids {
            self.counters.disconnected_by_driver += 1;
            let details = Details {
                reason_string: Some("a subscription is not allowed any more"),
                server_reference: None,
            };
            self.end_connection(id, ReasonCode::AdministrativeAction, details, now);
            self.settle(now);
        }
    }

    /// What the rules are for the client of a session; none if no rules are asked for.
    pub(crate) fn access_of(&self, key: &SessionKey, accepted: &Accepted) -> Option<Box<Access>> {
        if self.config.authorization != Authorization::Rules {
            return None;
        }
        let mut identity = accepted.identity.clone();
        identity.client_id = key.client_id().into();
        let permissions = Permissions::new(&self.rules, &identity);
        Some(Box::new(Access {
            identity,
            permissions,
            queue_is_older: true,
        }))
    }

    /// What is known of a client once it has authenticated again; false if it is another one.
    pub(crate) fn renew_access(&mut self, id: ConnectionId, accepted: &Accepted) -> bool {
        let session = self.connections.get(&id).and_then(|entry| entry.session);
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        let Some(access) = slot.and_then(|slot| slot.access.as_mut()) else {
            return true;
        };
        if access.identity.user != accepted.identity.user {
            return false;
        }
        let client_id = mem::take(&mut access.identity.client_id);
        access.identity = accepted.identity.clone();
        access.identity.client_id = client_id;
        access.permissions = Permissions::new(&self.rules, &access.identity);
        access.queue_is_older = true;
        true
    }

    /// Drops what waits for the client of a session and may not be sent to it any more: new rules
    /// came, or it was queued while nobody knew who the client is.
    pub(crate) fn drop_forbidden(&mut self, handle: SessionHandle) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let Some(mut access) = slot.access.take() else {
            return;
        };
        let mut taken = Vec::new();
        let mut counted = None;
        if !access.permissions(&self.rules).delivers_all()
            && let Some(session) = state(slot, &mut self.connections)
        {
            taken = session.take_unsent(|outgoing| {
                let topic_name = outgoing.message.topic_name();
                !access.may_receive(&self.rules, topic_name, outgoing.qos, outgoing.retain)
            });
            counted = Some((session.queued(), session.queued_bytes()));
        }
        access.queue_is_older = false;
        slot.access = Some(access);
        if let Some(counted) = counted {
            self.count_queue(handle, counted);
        }
        for (sequence, outgoing) in taken {
            self.count_dropped(DropReason::NotAuthorized);
            self.on_finished(handle, sequence, Tag::from_u64(outgoing.tag));
        }
    }

    /// Whether the client of a session may publish a message, by the rules if there are some.
    pub(crate) fn may_publish(
        &mut self,
        session: Option<SessionHandle>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> bool {
        if self.config.authorization != Authorization::Rules {
            return true;
        }
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        // A session without its client since a restart leaves what was allowed when it came.
        slot.and_then(|slot| slot.access.as_mut())
            .is_none_or(|access| access.may_publish(&self.rules, topic_name, qos, retain))
    }

    /// What the rules say of each filter: the highest QoS, or an error code.
    pub(crate) fn judge_subscriptions(
        &mut self,
        session: Option<SessionHandle>,
        filters: &[(TopicFilterBuf, QoS)],
    ) -> Vec<Result<QoS, ReasonCode>> {
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        let Some(access) = slot.and_then(|slot| slot.access.as_mut()) else {
            return Vec::new();
        };
        let permissions = access.permissions(&self.rules);
        let judge = |(filter, qos): &(TopicFilterBuf, QoS)| {
            let granted = permissions.subscribe(filter.as_filter(), of_codec(*qos));
            let granted = granted.and_then(|qos| QoS::from_u8(qos as u8));
            granted.ok_or(ReasonCode::NotAuthorized)
        };
        filters.iter().map(judge).collect()
    }
}

const fn of_codec(qos: QoS) -> avocet_access::QoS {
    match qos {
        QoS::AtMostOnce => avocet_access::QoS::AtMostOnce,
        QoS::AtLeastOnce => avocet_access::QoS::AtLeastOnce,
        QoS::ExactlyOnce => avocet_access::QoS::ExactlyOnce,
    }
}
