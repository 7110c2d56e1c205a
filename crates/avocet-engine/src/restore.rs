//! What a restart gives back, and how a shard takes it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;
use core::time::Duration;

use avocet_codec::{PacketId, QoS, SubscriptionId, SubscriptionOptions};
use avocet_session::{Message, Now, Session, UnixTime};
use avocet_topic::TopicFilterBuf;

use crate::Engine;
use crate::member::{Membership, SharedMark, SharedPlace};
use crate::publish::Origin;
use crate::record::{GroupPlace, MessageId, Record, RetainedPlace};
use crate::routes::{SessionSubscriber, Subscriber, Waiter};
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::{GroupChange, Lane, MembershipId, Part, Published, ShardId, Value};
use crate::subscriptions::Subscription;
use crate::timer::Deadline;
use crate::will::Will;

/// What all [`Record`](crate::Record)s of earlier runs amount to, in pieces.
///
/// [`Restored::Time`] and [`Restored::MessageCount`] come first, a session before what belongs to
/// it, its subscriptions before [`Restored::OfGroup`], messages of a group in their order, and
/// those of [`Restored::Unrouted`] by their [`MessageId::count`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Restored {
    /// The last [`Record::Time`](crate::Record::Time): the clock does not go back behind it.
    Time {
        /// The time.
        at: UnixTime,
    },
    /// No message that was ever stored has a greater [`MessageId::count`].
    MessageCount {
        /// The count.
        count: u64,
    },
    /// A session. The messages in its queue stay in the store until they are fetched.
    Session {
        /// The session.
        session: Arc<SessionKey>,
        /// As in its last [`Record::SessionPut`](crate::Record::SessionPut).
        expiry_interval: u32,
        /// As there.
        expires_at: Option<UnixTime>,
        /// As there.
        sent: u64,
        /// As there.
        window: u32,
        /// From the first message that is not finished to the sequence that the next message gets.
        queue: Range<u64>,
        /// Bytes of the messages that are not finished: topics, properties and payloads, as well as
        /// is known.
        queued_bytes: u64,
    },
    /// A subscription of a session.
    Subscription {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet, with `$share/`.
        filter: TopicFilterBuf,
        /// With the granted QoS as maximum.
        options: SubscriptionOptions,
        /// The Subscription Identifier.
        subscription_id: Option<SubscriptionId>,
    },
    /// A subscription waits for retained messages.
    RetainedAwaited {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet.
        filter: TopicFilterBuf,
        /// As in [`Record::RetainedAwaited`](crate::Record::RetainedAwaited).
        queued: Vec<RetainedPlace>,
    },
    /// A QoS 2 PUBLISH came from the client of a session, and no PUBREL.
    PublishReceived {
        /// The session.
        session: Arc<SessionKey>,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// A message in the queue of a session came from a shared subscription that is not done with it.
    OfGroup {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in its queue.
        sequence: u64,
        /// The message.
        id: MessageId,
        /// The QoS of the delivery.
        qos: QoS,
        /// What it is to the group.
        place: GroupPlace,
    },
    /// A Will Message. Its session is there too, unless it was not to survive.
    Will {
        /// The session.
        session: Arc<SessionKey>,
        /// As in [`Record::WillPut`](crate::Record::WillPut).
        message: Message,
        /// As there.
        message_expiry_interval: Option<u32>,
        /// As there.
        delay_interval: u32,
        /// As there.
        publish_at: Option<UnixTime>,
    },
    /// A message of a shared subscription, those included that members have.
    GroupMessage {
        /// Its place.
        place: GroupPlace,
        /// What it is in the store.
        id: MessageId,
        /// The message.
        message: Message,
        /// Who published it.
        publisher: Option<Arc<SessionKey>>,
    },
    /// A retained message.
    Retained {
        /// The message.
        message: Message,
        /// Who published it.
        publisher: Option<Arc<SessionKey>>,
    },
    /// A message that was accepted and not routed.
    Unrouted {
        /// What it is in the store.
        id: MessageId,
        /// The message.
        message: Message,
        /// Who published it.
        publisher: Option<Arc<SessionKey>>,
        /// Who has had it.
        arrived: Vec<Part>,
    },
}

impl Restored {
    /// The shard, of so many, that takes it; none if each of them does.
    #[must_use]
    pub fn shard(&self, shards: u16) -> Option<ShardId> {
        let of_session = |session: &SessionKey| ShardId::of_session(session, shards);
        Some(match self {
            Self::Time { .. } | Self::MessageCount { .. } => return None,
            Self::Session { session, .. }
            | Self::Subscription { session, .. }
            | Self::RetainedAwaited { session, .. }
            | Self::PublishReceived { session, .. }
            | Self::OfGroup { session, .. }
            | Self::Will { session, .. } => of_session(session),
            Self::GroupMessage { place, .. } => ShardId::of_group(&place.group, shards),
            Self::Retained { message, publisher } => {
                let tenant = publisher.as_deref().map_or("", SessionKey::tenant);
                ShardId::of_topic(tenant, message.topic_name(), shards)
            }
            // Messages of one client keep their order.
            Self::Unrouted { publisher, .. } => publisher
                .as_deref()
                .map_or_else(ShardId::default, of_session),
        })
    }
}

/// What a restart has yet to do.
#[derive(Default)]
pub(crate) struct Restoring {
    /// Sessions that had a connection, and end some time after it.
    connected: Vec<SessionHandle>,
    /// Sessions with a will whose connection was there.
    wills: Vec<SessionHandle>,
    /// What members of groups have.
    held: BTreeMap<MembershipId, Vec<u64>>,
    unrouted: Vec<Published>,
    /// Shards that have said what they have, for the first and for the second time.
    told: (u16, u16),
}

impl Engine {
    /// Takes back what an earlier run stored. All of it comes before
    /// [`finish_restore`](Self::finish_restore), and before anything else.
    ///
    /// Limits on sessions and queues do not apply; a subscription that the table of filters has no
    /// room for is counted in
    /// [`Counters::subscriptions_not_restored`](crate::Counters::subscriptions_not_restored).
    pub fn restore(&mut self, restored: Restored) {
        match restored {
            Restored::Time { at } => {
                self.clock.not_before(at);
                self.recorded_time = at;
            }
            Restored::MessageCount { count } => self.messages = self.messages.max(count),
            Restored::Session {
                session,
                expiry_interval,
                expires_at,
                sent,
                window,
                queue,
                queued_bytes,
            } => {
                let handle = self.find_or_begin(session);
                if expires_at.is_none() && expiry_interval < u32::MAX {
                    self.restoring().connected.push(handle);
                }
                if let Some(slot) = self.sessions.get_mut(handle) {
                    slot.expiry_interval = expiry_interval;
                    slot.durable = true;
                    slot.expires_at = expires_at;
                    let state = slot.session.get_or_insert_default();
                    state.set_expiry_interval(expiry_interval);
                    let sent = if window > 0 { queue.end } else { sent };
                    state.restore_queue(queue, queued_bytes, sent);
                    let counted = (state.queued(), state.queued_bytes());
                    self.counters.count_queue(&mut slot.counted, counted);
                }
                if let Some(at) = expires_at {
                    self.timers.set_session(handle, Deadline::Expiry, at);
                }
            }
            Restored::Subscription {
                session,
                filter,
                options,
                subscription_id,
            } => self.restore_subscription(&session, filter, options, subscription_id),
            Restored::RetainedAwaited {
                session,
                filter,
                queued,
            } => self.restore_awaited(&session, filter, queued),
            Restored::PublishReceived { session, packet_id } => {
                if !planted!(PubrecForgotten)
                    && let Some(state) = self.restored_state(&session)
                {
                    state.restore_received(packet_id);
                }
            }
            Restored::OfGroup {
                session,
                sequence,
                qos,
                place,
                ..
            } => self.restore_of_group(&session, sequence, qos, &place),
            Restored::Will {
                session,
                message,
                message_expiry_interval,
                delay_interval,
                publish_at,
            } => {
                let handle = self.find_or_begin(session);
                match publish_at {
                    Some(at) => self.timers.set_session(handle, Deadline::Will, at),
                    None => self.restoring().wills.push(handle),
                }
                if let Some(slot) = self.sessions.get_mut(handle) {
                    slot.will = Some(Box::new(Will {
                        message,
                        message_expiry_interval,
                        delay_interval,
                        publish_at,
                        is_changed: false,
                    }));
                }
            }
            Restored::GroupMessage {
                place,
                id,
                message,
                publisher,
            } => {
                let published = Published {
                    message,
                    publisher,
                    id: Some(id),
                    stored: true,
                    accepted: false,
                    level: self.config.levels.default,
                    arrived: None,
                };
                self.restore_group_message(place, published);
            }
            Restored::Retained { message, publisher } => {
                let tenant = publisher.as_deref().map_or("", SessionKey::tenant);
                let space = self.spaces.find_or_begin(tenant);
                self.insert_retained(space, message, publisher);
            }
            Restored::Unrouted {
                id,
                message,
                publisher,
                arrived,
            } => {
                let published = Published {
                    message,
                    publisher,
                    id: Some(id),
                    stored: true,
                    accepted: true,
                    level: self.config.levels.default,
                    arrived: Some(arrived.into()),
                };
                self.restoring().unrouted.push(published);
            }
        }
    }

    /// Everything was given back to this shard: it tells the others what it wants. When all have
    /// done so, messages and wills that an earlier run left behind go on their way.
    ///
    /// Sessions and wills whose connections the end of that run cut off go by `now`: they wait for
    /// their clients as long as if these had gone a moment ago.
    pub fn finish_restore(&mut self, now: Now) {
        let now = self.clock.read(now);
        for handle in mem::take(&mut self.restoring().connected) {
            let Some(slot) = self.sessions.get_mut(handle) else {
                continue;
            };
            let expiry_interval = slot.expiry_interval;
            let at = self.clock.unix() + Duration::from_secs(expiry_interval.into());
            slot.expires_at = Some(at);
            self.timers.set_session(handle, Deadline::Expiry, at);
            self.set_expiry_interval(handle, expiry_interval, false);
        }
        for (membership, sequences) in mem::take(&mut self.restoring().held) {
            if let Some(group) = self.memberships.group(membership).cloned() {
                self.tell_group(group, membership, GroupChange::Holds { sequences });
            }
        }
        self.settle(now);
        if self.shards == 1 {
            self.end_restore(now);
            return;
        }
        self.tell_restored(false);
    }

    /// Whether clients must wait, because a restart is not finished in all shards.
    #[must_use]
    pub const fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    fn restoring(&mut self) -> &mut Restoring {
        self.restoring.get_or_insert_default()
    }

    fn tell_restored(&mut self, second: bool) {
        for shard in self.other_shards() {
            self.send(shard, Lane::Owners, Value::Restored { second });
        }
    }

    pub(crate) fn on_restored(&mut self, second: bool, now: Now) {
        let others = self.shards - 1;
        let told = &mut self.restoring().told;
        if second {
            told.1 += 1;
        } else {
            told.0 += 1;
        }
        let told = *told;
        if !second && told.0 == others {
            self.tell_restored(true);
        }
        if told == (others, others) {
            self.end_restore(now);
        }
    }

    /// All shards know what the others want.
    fn end_restore(&mut self, now: Now) {
        let Some(restoring) = self.restoring.take() else {
            return;
        };
        self.end_restore_of_groups();
        for mut published in restoring.unrouted {
            let publisher = published.publisher.as_deref();
            let origin = Origin {
                session: publisher.and_then(|publisher| self.sessions.find(publisher)),
                unrouted: published.id,
                ..Origin::SERVER
            };
            self.publish(&origin, &mut published, now);
            self.settle(now);
        }
        for handle in restoring.wills {
            let survives = self.sessions.get(handle).is_some_and(|it| it.is_durable());
            if survives {
                self.begin_will(handle, now);
            } else {
                self.end_session(handle, now);
            }
            self.settle(now);
        }
    }

    fn find_or_begin(&mut self, session: Arc<SessionKey>) -> SessionHandle {
        match self.sessions.find(&session) {
            Some(handle) => handle,
            None => {
                let space = self.spaces.find_or_begin(session.tenant());
                self.begin_session(session, space)
            }
        }
    }

    fn restored_state(&mut self, session: &SessionKey) -> Option<&mut Session> {
        let handle = self.sessions.find(session)?;
        self.sessions.get_mut(handle)?.session.as_deref_mut()
    }

    fn restore_subscription(
        &mut self,
        session: &SessionKey,
        filter: TopicFilterBuf,
        options: SubscriptionOptions,
        subscription_id: Option<SubscriptionId>,
    ) {
        let Some(handle) = self.sessions.find(session) else {
            return;
        };
        let Some(space) = self.sessions.get(handle).map(|slot| slot.space) else {
            return;
        };
        let shared = matches!(filter.as_filter().share(), Ok(Some(_)));
        let mut subscription = Subscription {
            membership: None,
            suback: None,
            cursor: 0,
            maximum_qos: options.maximum_qos,
            subscription_id,
            no_local: options.no_local,
        };
        if shared {
            let membership = self.new_membership();
            subscription.membership = Some(membership);
            let member = Membership {
                session: handle,
                group: self.group_name(space, filter.clone()),
                maximum_qos: options.maximum_qos,
                subscription_id,
                retain_as_published: options.retain_as_published,
            };
            let change = GroupChange::Join {
                maximum_qos: options.maximum_qos,
                online: false,
                durable: true,
            };
            self.join(membership, member, None, change);
        } else {
            let subscriber = SessionSubscriber::new(handle, options, subscription_id);
            let subscriber = Subscriber::Session(subscriber);
            let added = self.add_subscriber(space, &filter, subscriber, true, Waiter::Nobody);
            if added.is_err() {
                self.counters.subscriptions_not_restored += 1;
                return;
            }
        }
        self.counters.subscriptions += 1;
        self.spaces.count(space, |it| it.subscriptions += 1);
        self.counters.shared_subscriptions += u64::from(shared);
        if let Some(slot) = self.sessions.get_mut(handle) {
            slot.shapes.insert(&filter);
            slot.subscriptions
                .insert(filter, subscription, self.spaces.routes(space));
        }
    }

    fn restore_awaited(
        &mut self,
        session: &SessionKey,
        filter: TopicFilterBuf,
        queued: Vec<RetainedPlace>,
    ) {
        let handle = self.sessions.find(session);
        let slot = handle.and_then(|handle| self.sessions.get(handle));
        let (Some(handle), Some(space)) = (handle, slot.map(|slot| slot.space)) else {
            return;
        };
        let (number, cursor) = self.retained_cursor(space, filter, queued);
        if let Some(mut subscription) = self.subscription(handle, &cursor.filter)
            && let Some(slot) = self.sessions.get_mut(handle)
        {
            subscription.cursor = number;
            let filter = cursor.filter.clone();
            slot.subscriptions
                .insert(filter, subscription, self.spaces.routes(space));
            slot.cursors.insert(number, cursor);
        }
    }

    /// A copy that a group gave to a session. The client has gone, so it goes back, unless it is of
    /// QoS 2 and may have been sent [MQTT5-4.8.2-4].
    fn restore_of_group(
        &mut self,
        session: &Arc<SessionKey>,
        sequence: u64,
        qos: QoS,
        place: &GroupPlace,
    ) {
        let handle = self.sessions.find(session);
        let Some(slot) = handle.and_then(|handle| self.sessions.get_mut(handle)) else {
            return;
        };
        let subscription = slot.subscriptions.open().get(&place.group.filter);
        let Some(membership) = subscription.and_then(|subscription| subscription.membership) else {
            // Who has left the group keeps what it had.
            return;
        };
        let sent = slot.session.as_deref().map_or(0, Session::sent);
        if qos < QoS::ExactlyOnce || sequence >= sent {
            let session = Arc::clone(session);
            self.record(Record::Returned { session, sequence });
            return;
        }
        let mark = slot.marks.insert(SharedMark {
            place: SharedPlace {
                membership,
                sequence: place.sequence,
                group: None,
            },
            publisher: None,
            gone: false,
        });
        slot.stored_marks.insert(sequence, mark);
        let held = &mut self.restoring().held;
        held.entry(membership).or_default().push(place.sequence);
    }
}
