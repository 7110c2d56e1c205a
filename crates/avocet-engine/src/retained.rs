//! Retained messages: each lives in the shard that owns its topic, and is asked for in pages.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use avocet_session::{Expiry, Message, Now, Outgoing, UnixTime};
use avocet_topic::{Cursor, Next, TopicFilter, TopicFilterBuf, TopicNameBuf, TopicTree};

use crate::counters::DropReason;
use crate::quotas::Quota;
use crate::record::{Record, RetainedPlace};
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::{Lane, Part, Published, QueryId, RetainedQuery, ShardId, Value};
use crate::tenant::{Space, SpaceId};
use crate::timer::DUE_MAX;
use crate::{Durability, Engine};

/// A retained message of a topic.
pub(crate) struct Retained {
    message: Message,
    /// For No Local; none for the server's own.
    publisher: Option<Arc<SessionKey>>,
    /// When it is forgotten: at the end of its Message Expiry Interval, or of the longest time that
    /// messages are retained.
    until: UnixTime,
}

/// Until when what has no end is retained.
const FOR_EVER: UnixTime = UnixTime::from_millis(u64::MAX);

/// Names that one query looks at: what a wildcard that matches little may take of a turn.
const STEPS_MAX: usize = 2_000;

/// Names that a SUBSCRIBE looks at before it leaves the search to later turns.
const STEPS_AT_SUBSCRIBE_MAX: usize = 16;

/// Sessions that ask for a page in one turn, beside those whose clients have just read one.
const DEFERRED_MAX: usize = 8;

/// What the retained messages of all spaces have in common.
#[derive(Default)]
pub(crate) struct RetainedMessages {
    /// Sessions whose next page is asked for in another turn.
    deferred: VecDeque<SessionHandle>,
    /// Those that are forgotten some time, by when.
    expiries: BTreeSet<(UnixTime, SpaceId, TopicNameBuf)>,
}

impl RetainedMessages {
    /// Whether sessions wait for another turn.
    pub(crate) fn is_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    pub(crate) fn next_expiry(&self) -> Option<UnixTime> {
        self.expiries.first().map(|(at, ..)| *at)
    }
}

/// The way of a new subscription through the retained messages of all owners, page by page.
#[derive(Debug)]
pub(crate) struct RetainedCursor {
    pub(crate) filter: TopicFilterBuf,
    /// The owner to ask, and the last one.
    owner: ShardId,
    last_owner: ShardId,
    cursor: Cursor,
    /// What was queued before a restart.
    queued: Arc<[RetainedPlace]>,
    /// Whether the answer is on its way.
    asked: bool,
    /// Whether it was asked for without the session's own messages.
    no_local: bool,
}

impl RetainedCursor {
    /// What is queued, when a page of so many shards has been, up to this topic.
    fn queued(&self, shards: u16, topic_name: &TopicNameBuf) -> Vec<RetainedPlace> {
        let before = self.queued.iter().cloned();
        // It has come past where it was with as many shards.
        let others = before.filter(|place| place.part.shards != shards);
        let shard = self.owner;
        let reached = RetainedPlace {
            part: Part { shard, shards },
            topic_name: topic_name.clone(),
        };
        others.chain([reached]).collect()
    }
}

impl Engine {
    /// Keeps or clears the retained message of a topic that this shard owns [MQTT5-3.3.1-5]
    /// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-5] [MQTT311-3.3.1-10]. True if the change
    /// must survive.
    pub(crate) fn retain_message(&mut self, published: &Published, now: Now) -> bool {
        let message = &published.message;
        let topic_name = message.topic_name();
        let own = published.publisher.is_none();
        let stored = self.config.durability == Durability::Stored && !own;
        let Some(space) = self.find_or_begin_space(published.tenant()) else {
            self.count_dropped(DropReason::RetainedFull);
            return false;
        };
        let existed = self.remove_retained(space, &topic_name.to_buf());
        let limits = &self.config.limits;
        let bytes = self.counters.retained_bytes + message.len() as u64;
        let full = self.counters.retained_messages >= limits.retained_messages_max as u64
            || bytes > limits.retained_bytes_max as u64
            || !self.has_quota(space, Quota::RetainedMessages, 1)
            || !self.has_quota(space, Quota::RetainedBytes, message.len() as u64)
            || self.overloaded && !existed;
        let cleared = message.payload().is_empty();
        if full && !cleared {
            self.count_dropped(DropReason::RetainedFull);
        }
        let expired = message.remaining_expiry(now.unix) == Expiry::Expired;
        if cleared || full || expired {
            // What was retained before is in no case the topic's last message any more.
            // An earlier deletion may not be stored yet, and the acknowledgement promises one.
            let recorded = stored && (existed || published.id.is_some() && self.is_behind());
            if recorded {
                let tenant = self.spaces.get(space).tenant.clone();
                let topic_name = topic_name.to_buf();
                self.record(Record::RetainedDeleted { tenant, topic_name });
            }
            return recorded;
        }
        self.insert_retained(space, message.clone(), published.publisher.clone());
        if stored {
            self.record(Record::RetainedPut {
                message: message.clone(),
                publisher: published.publisher.clone(),
            });
        }
        stored
    }

    /// Adds the retained message of a topic that has none.
    pub(crate) fn insert_retained(
        &mut self,
        space: SpaceId,
        message: Message,
        publisher: Option<Arc<SessionKey>>,
    ) {
        let mut until = message.expires_at().unwrap_or(FOR_EVER);
        let age_max = self.config.limits.retained_age_max;
        // What the server says of itself is kept up to date by itself.
        if !age_max.is_zero() && publisher.is_some() {
            until = until.min(self.clock.messages_now() + age_max);
        }
        if until < FOR_EVER {
            let topic_name = message.topic_name().to_buf();
            self.retained.expiries.insert((until, space, topic_name));
        }
        self.counters.retained_messages += 1;
        self.counters.retained_bytes += message.len() as u64;
        self.spaces.count(space, |it| {
            it.retained_messages += 1;
            it.retained_bytes += message.len() as u64;
        });
        let retained = Retained {
            message: message.clone(),
            publisher,
            until,
        };
        let tree = &mut self.spaces.get_mut(space).retained;
        tree.insert(message.topic_name(), retained);
    }

    fn remove_retained(&mut self, space: SpaceId, topic_name: &TopicNameBuf) -> bool {
        let tree = &mut self.spaces.get_mut(space).retained;
        let Some(old) = tree.remove(topic_name.as_name()) else {
            return false;
        };
        if old.until < FOR_EVER {
            let entry = (old.until, space, topic_name.clone());
            self.retained.expiries.remove(&entry);
        }
        self.counters.retained_messages -= 1;
        self.counters.retained_bytes -= old.message.len() as u64;
        self.spaces.count(space, |it| {
            it.retained_messages -= 1;
            it.retained_bytes -= old.message.len() as u64;
        });
        true
    }

    /// Forgets the retained messages whose time has passed [MQTT5-3.3.2-5].
    pub(crate) fn expire_retained(&mut self, now: Now) {
        for _ in 0..DUE_MAX {
            let Some((at, ..)) = self.retained.expiries.first() else {
                return;
            };
            if *at > now.unix {
                return;
            }
            let Some((_, space, topic_name)) = self.retained.expiries.pop_first() else {
                return;
            };
            if self.remove_retained(space, &topic_name) {
                self.count_dropped(DropReason::Expired);
                if self.config.durability == Durability::Stored {
                    let tenant = self.spaces.get(space).tenant.clone();
                    self.record(Record::RetainedDeleted { tenant, topic_name });
                }
            }
        }
    }

    /// Whether retained messages may match a filter: false if a short search in this shard says so.
    /// A client with many subscriptions would else leave many cursors behind that find nothing.
    pub(crate) fn may_have_retained(&self, space: SpaceId, filter: TopicFilter<'_>) -> bool {
        let Space {
            tenant, retained, ..
        } = self.spaces.get(space);
        let owned = self.shards == 1
            || avocet_topic::TopicName::new(filter.as_str())
                .is_ok_and(|it| self.owner_of_topic(tenant.as_str(), it) == self.shard);
        if !owned {
            return true;
        }
        let mut steps = STEPS_AT_SUBSCRIBE_MAX;
        !matches!(
            retained.next_match(filter, &mut Cursor::new(), &mut steps),
            Next::End
        )
    }

    /// A cursor for a new subscription; asked for by [`ask_retained`](Self::ask_retained).
    pub(crate) fn retained_cursor(
        &mut self,
        space: SpaceId,
        filter: TopicFilterBuf,
        queued: Vec<RetainedPlace>,
    ) -> (u64, RetainedCursor) {
        self.next_cursor += 1;
        // Without a wildcard one shard owns all that the filter can match.
        let (owner, last_owner) = match avocet_topic::TopicName::new(filter.as_str()) {
            Ok(topic_name) => {
                let tenant = self.spaces.get(space).tenant.as_str();
                let owner = self.owner_of_topic(tenant, topic_name);
                (owner, owner)
            }
            Err(_wildcard) => (ShardId::new(0), ShardId::new(self.shards - 1)),
        };
        let cursor = RetainedCursor {
            filter,
            owner,
            last_owner,
            cursor: Cursor::default(),
            queued: queued.into(),
            asked: false,
            no_local: false,
        };
        (self.next_cursor, cursor)
    }

    /// Asks for the next page of a session's first cursor, if its queue has room: retained
    /// messages come as fast as the client takes them.
    pub(crate) fn ask_retained(&mut self, handle: SessionHandle) {
        let page = self.config.limits.retained_page_messages;
        let queue = self.config.connection.limits.queued_messages_max;
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        // A page must not push other messages out of the queue.
        let messages_max = page.min(queue.saturating_sub(slot.counted.0));
        if slot.counted.0 >= page || messages_max == 0 || slot.connection.is_none() {
            return;
        }
        let Some(mut first) = slot.cursors.first_entry() else {
            return;
        };
        let number = *first.key();
        let cursor = first.get_mut();
        if cursor.asked {
            return;
        }
        let subscription = slot.subscriptions.open().get(&cursor.filter);
        let no_local = subscription.is_some_and(|subscription| subscription.no_local);
        cursor.asked = true;
        cursor.no_local = no_local;
        let query = RetainedQuery {
            query: QueryId {
                session: handle,
                cursor: number,
            },
            tenant: self.spaces.get(slot.space).tenant.clone(),
            filter: cursor.filter.clone(),
            cursor: cursor.cursor.clone(),
            messages_max,
            no_local: no_local.then(|| Arc::clone(&slot.key)),
            queued: Arc::clone(&cursor.queued),
        };
        let owner = cursor.owner;
        self.send(owner, Lane::Owners, Value::RetainedQuery(query.into()));
    }

    pub(crate) fn on_retained_query(&mut self, from: ShardId, query: RetainedQuery, now: Now) {
        let limits = &self.config.limits;
        let mut cursor = query.cursor;
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        let mut steps = STEPS_MAX;
        let filter = query.filter.as_filter();
        let nothing = TopicTree::new();
        let space = self.spaces.find(query.tenant.as_str());
        let tree = space.map_or(&nothing, |space| &self.spaces.get(space).retained);
        tree.for_each_match(filter, &mut cursor, &mut steps, |topic_name, retained| {
            let mut queued = query.queued.iter();
            let queued = queued.any(|it| it.includes(&query.tenant, topic_name));
            let own = retained.publisher.is_some() && retained.publisher == query.no_local;
            let expired = retained.message.remaining_expiry(now.unix) == Expiry::Expired;
            if !queued && !own && !expired {
                bytes += retained.message.len();
                messages.push(retained.message.clone());
            }
            if messages.len() >= query.messages_max || bytes >= limits.retained_page_bytes {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let page = Value::RetainedPage {
            query: query.query,
            messages,
            next: (!cursor.is_ended()).then_some(cursor),
        };
        let lane = if planted!(RetainedTooLate) {
            Lane::Confirmations
        } else {
            Lane::Subscribers
        };
        self.send(from, lane, page);
    }

    pub(crate) fn on_retained_page(
        &mut self,
        query: QueryId,
        messages: Vec<Message>,
        next: Option<Cursor>,
        now: Now,
    ) {
        let Some(slot) = self.sessions.get_mut(query.session) else {
            return;
        };
        let Some(cursor) = slot.cursors.get_mut(&query.cursor) else {
            return;
        };
        let Some(subscription) = slot.subscriptions.open().get(&cursor.filter) else {
            return;
        };
        let (maximum_qos, subscription_id) =
            (subscription.maximum_qos, subscription.subscription_id);
        cursor.asked = false;
        if subscription.no_local && !cursor.no_local {
            // No Local was set meanwhile: the page may hold what it keeps away [MQTT5-3.8.3-3].
            self.retained.deferred.push_back(query.session);
            return;
        }
        let last = messages.last().map(|last| last.topic_name().to_buf());
        let reached = last.map(|last| cursor.queued(self.shards, &last));
        let filter = cursor.filter.clone();
        match next {
            Some(next) => cursor.cursor = next,
            None if cursor.owner < cursor.last_owner => {
                cursor.owner = ShardId::new(cursor.owner.get() + 1);
                cursor.cursor = Cursor::default();
            }
            None => {
                slot.cursors.remove(&query.cursor);
                slot.subscriptions
                    .update_open(&filter, self.spaces.routes(slot.space), |it| it.cursor = 0);
            }
        }
        let session = Arc::clone(&slot.key);
        let ended = !slot.cursors.contains_key(&query.cursor);
        for message in messages {
            // [MQTT5-3.3.1.3] [MQTT311-3.3.1-8]
            let outgoing = Outgoing {
                qos: message.qos().min(maximum_qos),
                retain: true,
                subscription_id,
                ..Outgoing::new(message.clone())
            };
            let mut published = self.published(message, None);
            self.deliver(query.session, outgoing, &mut published, None, now);
        }
        // With what was queued, so that a restart goes on behind it.
        if self.is_recorded(query.session) {
            if ended {
                self.record(Record::RetainedQueued { session, filter });
            } else if let Some(queued) = reached {
                self.record(Record::RetainedAwaited {
                    session,
                    filter,
                    queued,
                });
            }
        }
        // A search that finds little, or what nobody takes, leaves turns to others.
        self.retained.deferred.push_back(query.session);
    }

    /// Asks for the pages that were left to another turn.
    pub(crate) fn ask_deferred(&mut self) {
        let sessions = self.retained.deferred.len().min(DEFERRED_MAX);
        for session in self.retained.deferred.drain(..sessions).collect::<Vec<_>>() {
            self.ask_retained(session);
        }
    }
}
