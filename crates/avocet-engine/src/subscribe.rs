//! SUBSCRIBE and UNSUBSCRIBE; a SUBACK leaves once all shards know of the subscription.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use avocet_codec::{
    PacketId, PacketType, QoS, ReasonCode, RetainHandling, Subscribe, SubscriptionId,
    SubscriptionOptions, Unsubscribe,
};
use avocet_session::{CommitId, Now};
use avocet_topic::{TopicFilter, TopicFilterBuf};

use crate::member::Membership;
use crate::quotas::Quota;
use crate::record::Record;
use crate::retained::RetainedCursor;
use crate::routes::{SessionSubscriber, Subscriber, Taker, Waiter};
use crate::session_table::SessionHandle;
use crate::shard::GroupChange;
use crate::subscriptions::Subscription;
use crate::{Command, ConnectionId, Durability, Engine, Event};

/// A SUBSCRIBE that outlives its packet.
#[derive(Debug)]
pub(crate) struct SubscribeRequest {
    pub(crate) packet_id: PacketId,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) filters: Vec<(TopicFilterBuf, SubscriptionOptions)>,
}

impl SubscribeRequest {
    pub(crate) fn new(subscribe: &Subscribe<'_>) -> Self {
        Self {
            packet_id: subscribe.packet_id,
            subscription_id: subscribe.subscription_id,
            filters: subscribe
                .filters
                .iter()
                .map(|filter| (filter.topic_filter.to_buf(), filter.options))
                .collect(),
        }
    }
}

/// A subscription that waits until other shards know of it.
#[derive(Clone, Debug)]
pub(crate) struct SubackWaiter {
    session: SessionHandle,
    filter: TopicFilterBuf,
    connection: ConnectionId,
    /// Which SUBACK of the shard, and which of its Reason Codes.
    number: u64,
    index: usize,
}

/// A SUBACK in the making.
#[derive(Debug)]
struct PendingSuback {
    number: u64,
    packet_id: PacketId,
    /// Where the driver is told: those subscribed to.
    filters: Vec<TopicFilterBuf>,
    reason_codes: Vec<ReasonCode>,
    /// Filters that other shards do not know of.
    outstanding: usize,
    /// Retained messages asked for behind the SUBACK, with the index of their filter.
    cursors: Vec<(usize, (u64, RetainedCursor))>,
    gate: Option<CommitId>,
}

/// The SUBACKs of a connection, in the order of their SUBSCRIBEs.
#[derive(Debug, Default)]
pub(crate) struct PendingSubacks {
    queue: VecDeque<PendingSuback>,
}

impl PendingSubacks {
    fn get_mut(&mut self, number: u64) -> Option<&mut PendingSuback> {
        self.queue.iter_mut().find(|suback| suback.number == number)
    }

    /// Whether retained messages will be asked for behind one of them.
    fn has_cursor(&self, number: u64) -> bool {
        let mut cursors = self.queue.iter().flat_map(|suback| &suback.cursors);
        cursors.any(|(_, (cursor, _))| *cursor == number)
    }
}

/// What became of one filter of a SUBSCRIBE.
struct Granted {
    /// Whether other shards have yet to hear of it.
    waits: bool,
    cursor: Option<(u64, RetainedCursor)>,
}

impl Engine {
    /// Subscribes to each filter that `permissions` allow, or to all without them.
    pub(crate) fn subscribe(
        &mut self,
        connection: ConnectionId,
        request: &SubscribeRequest,
        permissions: Option<&[Result<QoS, ReasonCode>]>,
        now: Now,
    ) {
        let session = self.connections.get(&connection);
        let Some(session) = session.and_then(|entry| entry.session) else {
            return;
        };
        let number = self.next_suback;
        self.next_suback += 1;
        let mut suback = PendingSuback {
            number,
            packet_id: request.packet_id,
            filters: Vec::new(),
            reason_codes: Vec::with_capacity(request.filters.len()),
            outstanding: 0,
            cursors: Vec::new(),
            gate: None,
        };
        for (index, (filter, options)) in request.filters.iter().enumerate() {
            let permission = permissions.map_or(Ok(QoS::ExactlyOnce), |permissions| {
                let missing = Err(ReasonCode::NotAuthorized);
                permissions.get(index).copied().unwrap_or(missing)
            });
            let permission =
                permission.map_err(|reason_code| told(reason_code, PacketType::Suback));
            let granted = permission.and_then(|maximum| {
                let maximum_qos = options
                    .maximum_qos
                    .min(maximum)
                    .min(self.config.connection.maximum_qos);
                let waiter = SubackWaiter {
                    session,
                    filter: filter.clone(),
                    connection,
                    number,
                    index,
                };
                let options = SubscriptionOptions {
                    maximum_qos,
                    ..*options
                };
                let granted = self.subscribe_one(waiter, options, request.subscription_id)?;
                Ok((maximum_qos, granted))
            });
            let reason_code = match granted {
                Ok((maximum_qos, granted)) => {
                    suback.outstanding += usize::from(granted.waits);
                    suback
                        .cursors
                        .extend(granted.cursor.map(|cursor| (index, cursor)));
                    granted_qos(maximum_qos)
                }
                Err(reason_code) => reason_code,
            };
            suback.reason_codes.push(reason_code);
        }
        if self.config.subscription_events {
            let filters = request.filters.iter();
            suback.filters = filters.map(|(filter, _)| filter.clone()).collect();
        }
        let recorded = self.is_recorded(session);
        suback.gate = self.gate_if(recorded);
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.subacks.queue.push_back(suback);
        }
        self.send_subacks(connection, now);
    }

    fn subscribe_one(
        &mut self,
        waiter: SubackWaiter,
        mut options: SubscriptionOptions,
        subscription_id: Option<SubscriptionId>,
    ) -> Result<Granted, ReasonCode> {
        let filter = waiter.filter.clone();
        let session = waiter.session;
        let config = &self.config.connection;
        let share = filter.as_filter().share();
        let share = share.map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let matched = share.map_or(filter.as_filter(), |share| share.topic_filter);
        let limits = &self.config.limits;
        let checked = limits.topics.check_filter(matched);
        checked.map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if matched.has_wildcard() && levels_before_wildcard(matched) < limits.wildcard_level_min {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if share.is_some() && !config.shared_subscription_available {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if matched.has_wildcard() && !config.wildcard_subscription_available {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        let entry = self.connections.get(&waiter.connection);
        let bridge = entry.is_some_and(|entry| entry.bridge);
        let space = self.sessions.get(session).map(|slot| slot.space);
        let space = space.ok_or(ReasonCode::UnspecifiedError)?;
        let has_quota = self.has_quota(space, Quota::Subscriptions, 1);
        let slot = self.sessions.get_mut(session);
        let slot = slot.ok_or(ReasonCode::UnspecifiedError)?;
        let routes = self.spaces.routes(space);
        let known = slot.subscriptions.get(&filter, session, routes);
        let full = slot.subscriptions.len() >= limits.subscriptions_per_session_max;
        if known.is_none() && (full || !has_quota) {
            return Err(ReasonCode::QuotaExceeded);
        }
        let shapes_max = limits.shapes_per_session_max;
        if known.is_none()
            && !slot
                .shapes
                .has_room(&filter, &slot.subscriptions, routes, shapes_max)
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        if bridge {
            // A bridge gets nothing back that it brought, and passes RETAIN on.
            options.no_local |= share.is_none();
            options.retain_as_published = true;
        }
        let new = known.is_none();
        let membership = known.and_then(|known| known.membership);
        let cursor = known.map_or(0, |known| known.cursor);
        // The connection that would have asked for them may have ended before its SUBACK.
        let lost = cursor > 0
            && !slot.cursors.contains_key(&cursor)
            && !entry.is_some_and(|entry| entry.subacks.has_cursor(cursor));
        let durable = slot.is_durable();
        let key = Arc::clone(&slot.key);

        let mut granted = Granted {
            waits: true,
            cursor: None,
        };
        let mut subscription = Subscription {
            membership: None,
            suback: Some(waiter.number),
            cursor: if lost { 0 } else { cursor },
            maximum_qos: options.maximum_qos,
            subscription_id,
            no_local: options.no_local,
        };
        if share.is_some() {
            let membership = membership.unwrap_or_else(|| self.new_membership());
            subscription.membership = Some(membership);
            let member = Membership {
                session,
                group: self.group_name(space, filter.clone()),
                maximum_qos: options.maximum_qos,
                subscription_id,
                retain_as_published: options.retain_as_published,
            };
            let change = GroupChange::Join {
                maximum_qos: options.maximum_qos,
                online: true,
                durable,
            };
            self.join(membership, member, Some(waiter), change);
        } else {
            let options = SubscriptionOptions {
                no_local: options.no_local && (new || !planted!(NoLocalOutdated)),
                ..options
            };
            let subscriber = SessionSubscriber::new(session, options, subscription_id);
            let subscriber = Subscriber::Session(subscriber);
            granted.waits = self
                .add_subscriber(space, &filter, subscriber, durable, Waiter::Suback(waiter))
                .map_err(|_full| ReasonCode::QuotaExceeded)?;
            if !granted.waits {
                subscription.suback = None;
            }
            // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
            let wanted = match options.retain_handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendIfNew => new || planted!(RetainHandlingIgnored),
                RetainHandling::DoNotSend => false,
            };
            if wanted && self.may_have_retained(space, filter.as_filter()) {
                let (number, cursor) = self.retained_cursor(space, filter.clone(), Vec::new());
                subscription.cursor = number;
                granted.cursor = Some((number, cursor));
            }
        }
        if new {
            self.counters.subscriptions += 1;
            self.spaces.count(space, |it| it.subscriptions += 1);
            self.counters.shared_subscriptions += u64::from(share.is_some());
        }
        if let Some(slot) = self.sessions.get_mut(session) {
            if subscription.cursor != cursor {
                slot.cursors.remove(&cursor);
            }
            if new {
                slot.shapes.insert(&filter);
            }
            slot.subscriptions
                .insert(filter.clone(), subscription, self.spaces.routes(space));
        }
        if durable && self.config.durability == Durability::Stored {
            let (session, name) = (Arc::clone(&key), filter.clone());
            let awaited = if granted.cursor.is_some() {
                Some(Record::RetainedAwaited {
                    session,
                    filter: name,
                    queued: Vec::new(),
                })
            } else {
                lost.then_some(Record::RetainedQueued {
                    session,
                    filter: name,
                })
            };
            self.record(Record::SubscriptionPut {
                session: key,
                filter,
                options,
                subscription_id,
            });
            if let Some(awaited) = awaited {
                self.record(awaited);
            }
        }
        Ok(granted)
    }

    /// All shards know of a subscription, or one of them has no room for it.
    pub(crate) fn on_subscribed(&mut self, waiter: SubackWaiter, granted: bool, now: Now) {
        // Another SUBSCRIBE may have come meanwhile, which has its own answer.
        let slot = self.sessions.get_mut(waiter.session);
        if let Some(slot) = slot
            && let Some(subscription) = slot.subscriptions.open().get(&waiter.filter)
            && subscription.suback == Some(waiter.number)
        {
            if granted {
                let routes = self.spaces.routes(slot.space);
                slot.subscriptions
                    .update_open(&waiter.filter, routes, |it| it.suback = None);
            } else {
                self.remove_subscription(waiter.session, &waiter.filter);
            }
        }
        let Some(entry) = self.connections.get_mut(&waiter.connection) else {
            return;
        };
        let Some(suback) = entry.subacks.get_mut(waiter.number) else {
            return;
        };
        suback.outstanding = suback.outstanding.saturating_sub(1);
        if !granted {
            suback.cursors.retain(|(index, _)| *index != waiter.index);
            if let Some(reason_code) = suback.reason_codes.get_mut(waiter.index) {
                *reason_code = ReasonCode::QuotaExceeded;
            }
        }
        self.send_subacks(waiter.connection, now);
    }

    /// Sends the SUBACKs that wait for nothing, in order, and asks for retained messages behind.
    fn send_subacks(&mut self, connection: ConnectionId, now: Now) {
        while let Some(entry) = self.connections.get_mut(&connection)
            && let Some(suback) = entry
                .subacks
                .queue
                .pop_front_if(|suback| suback.outstanding == 0)
        {
            let PendingSuback {
                packet_id,
                filters,
                reason_codes,
                gate,
                ..
            } = suback;
            self.counters.count_suback(&reason_codes);
            // A connection that is being closed takes no answers.
            let _closing = entry.server.suback(packet_id, &reason_codes, gate, now);
            let session = entry.session;
            self.wait_for_commit(connection, gate);
            self.need_flush(connection);
            if !filters.is_empty() {
                let filters = filters.into_iter().zip(reason_codes).collect();
                let id = connection;
                self.command(Command::Log(Event::Subscribed { id, filters }));
            }
            let Some(session) = session else {
                continue;
            };
            if let Some(slot) = self.sessions.get_mut(session) {
                for (_, (number, cursor)) in suback.cursors {
                    // An UNSUBSCRIBE or another SUBSCRIBE may have come meanwhile.
                    let subscription = slot.subscriptions.open().get(&cursor.filter);
                    if subscription.is_some_and(|subscription| subscription.cursor == number) {
                        slot.cursors.insert(number, cursor);
                    }
                }
            }
            self.ask_retained(session);
        }
    }

    /// [MQTT5-3.10.4-1] [MQTT5-3.10.4-4] [MQTT5-3.10.4-6] [MQTT311-3.10.4-1]
    pub(crate) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        unsubscribe: &Unsubscribe<'_>,
        now: Now,
    ) {
        let session = self.connections.get(&connection);
        let Some(session) = session.and_then(|entry| entry.session) else {
            return;
        };
        let mut reason_codes = Vec::new();
        for filter in unsubscribe.filters.iter() {
            reason_codes.push(if self.remove_subscription(session, &filter.to_buf()) {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            });
        }
        if self.config.subscription_events {
            let filters = unsubscribe.filters.iter().map(|filter| filter.to_buf());
            let filters = filters.zip(reason_codes.iter().copied()).collect();
            let id = connection;
            self.command(Command::Log(Event::Unsubscribed { id, filters }));
        }
        let recorded = self.is_recorded(session);
        let gate = self.gate_if(recorded);
        if let Some(entry) = self.connections.get_mut(&connection) {
            let packet_id = unsubscribe.packet_id;
            let _closing = entry.server.unsuback(packet_id, &reason_codes, gate, now);
        }
        self.wait_for_commit(connection, gate);
        self.need_flush(connection);
    }

    /// Ends one subscription; false if there was none.
    pub(crate) fn remove_subscription(
        &mut self,
        session: SessionHandle,
        filter: &TopicFilterBuf,
    ) -> bool {
        let Some(slot) = self.sessions.get_mut(session) else {
            return false;
        };
        let space = slot.space;
        let (existed, open) = slot.subscriptions.remove(filter, self.spaces.routes(space));
        if !existed {
            return false;
        }
        slot.shapes.remove(filter);
        if let Some(open) = open {
            slot.cursors.remove(&open.cursor);
        }
        let durable = slot.is_durable() && self.config.durability == Durability::Stored;
        let key = Arc::clone(&slot.key);
        self.counters.subscriptions -= 1;
        self.spaces.count(space, |it| it.subscriptions -= 1);
        match open.and_then(|open| open.membership) {
            Some(membership) => {
                self.counters.shared_subscriptions -= 1;
                self.leave(membership);
            }
            None => {
                self.remove_subscriber(space, filter, Taker::Session(session));
            }
        }
        if durable {
            self.record(Record::SubscriptionDeleted {
                session: key,
                filter: filter.clone(),
            });
        }
        true
    }
}

/// Why something is not allowed: this code, if the packet can say it.
pub(crate) fn told(reason_code: ReasonCode, packet_type: PacketType) -> ReasonCode {
    if reason_code.is_error() && reason_code.is_allowed_in(packet_type) {
        reason_code
    } else {
        ReasonCode::NotAuthorized
    }
}

const fn granted_qos(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::GRANTED_QOS_0,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

fn levels_before_wildcard(filter: TopicFilter<'_>) -> usize {
    let mut levels = filter.as_str().split('/');
    levels
        .position(|level| level == "+" || level == "#")
        .unwrap_or(usize::MAX)
}
