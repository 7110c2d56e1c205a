//! Everything that survived, given back piece by piece.

use std::iter;
use std::sync::Arc;

use avocet_engine::{GroupName, GroupPlace, MessageId, Part, Restored, SessionKey, ShardId};
use avocet_session::UnixTime;
use avocet_store::{BlobId, KeyValue, Store};

use crate::journal::{Journal, JournalError, Map, Session, number_of, read_int, sequence_of};
use crate::value::{
    EntryValue, Kind, OfGroupValue, Reader, SessionValue, SubscriptionValue, ValueError, WillValue,
    decode_awaited, decode_message, decode_publisher, decode_shards, id_key, key, part_key,
};

impl<S: Store> Journal<S> {
    /// Gives everything that is stored to `take`, in the order that [`Restored`] asks for. Messages
    /// in the queues of sessions are not among it: they come by [`Journal::fetch`].
    pub fn recover(&self, mut take: impl FnMut(Restored)) -> Result<(), JournalError> {
        if let Some(at) = self.int(&key(Kind::Time))? {
            let at = UnixTime::from_millis(at);
            take(Restored::Time { at });
        }
        let count = self.message_count;
        take(Restored::MessageCount { count });
        self.for_each_key(&key(Kind::Session), |found| {
            self.recover_session(found, &mut take)
        })?;
        self.recover_parts(&mut take)?;
        self.for_each_key(&key(Kind::Will), |found| {
            let session = Reader::of_key(Kind::Will, &found.key).session_key()?;
            let session = self.shared_key(session);
            let will = WillValue::decode(&found.value)?;
            take(Restored::Will {
                session,
                message: will.message,
                message_expiry_interval: will.message_expiry_interval,
                delay_interval: will.delay_interval,
                publish_at: will.publish_at,
            });
            Ok(())
        })?;
        self.for_each_key(&key(Kind::Group), |found| {
            let group = Reader::of_key(Kind::Group, &found.key).group()?;
            self.recover_group(&group, read_int(Kind::Group, &found.value)?, &mut take)
        })?;
        self.for_each_key(&key(Kind::Retained), |found| {
            let mut name = Reader::of_key(Kind::Retained, &found.key);
            // It is that of the publisher.
            name.tenant()?;
            let topic = name.rest()?;
            let stored = decode_message(Kind::Retained, &found.value, Some(topic))?;
            take(Restored::Retained {
                message: stored.message,
                publisher: stored.publisher.map(|publisher| self.shared_key(publisher)),
            });
            Ok(())
        })?;
        // Their keys are in order by shard.
        let mut unrouted = Vec::new();
        self.for_each_key(&key(Kind::Unrouted), |found| {
            let mut name = Reader::of_key(Kind::Unrouted, &found.key);
            let id = MessageId::new(name.u64()?);
            unrouted.push(name.end((id, decode_publisher(Kind::Unrouted, &found.value)?))?);
            Ok(())
        })?;
        unrouted.sort_by_key(|(id, _)| id.count());
        for (id, publisher) in unrouted {
            take(self.unrouted(id, publisher)?);
        }
        Ok(())
    }

    fn recover_session(
        &self,
        found: &KeyValue,
        take: &mut impl FnMut(Restored),
    ) -> Result<(), JournalError> {
        let session = Reader::of_key(Kind::Session, &found.key).session_key()?;
        let value = SessionValue::decode(&found.value)?;
        let known = self.sessions.get_key_value(&session);
        let (session, known) = known.ok_or(ValueError(Kind::Session))?;
        take(Restored::Session {
            session: Arc::clone(session),
            expiry_interval: value.expiry_interval,
            expires_at: value.expires_at,
            sent: value.sent,
            window: value.window,
            queue: self.first_unfinished(known)?..known.end,
            queued_bytes: self.queued_bytes(known)?,
        });
        Ok(())
    }

    /// What sessions hold beside their queues: one scan of each kind, however many sessions there
    /// are.
    fn recover_parts(&self, take: &mut impl FnMut(Restored)) -> Result<(), JournalError> {
        let sessions = self.sessions.iter();
        let sessions: Map<u64, &Arc<SessionKey>> =
            sessions.map(|(key, known)| (known.number, key)).collect();
        let groups = self.groups.iter().map(|(name, number)| (*number, name));
        let groups: Map<u64, &GroupName> = groups.collect();
        let session = |number: u64| sessions.get(&number).map(|key| Arc::clone(key));
        self.for_each_key(&key(Kind::Subscription), |found| {
            let mut name = Reader::of_key(Kind::Subscription, &found.key);
            let Some(session) = session(name.int()?) else {
                return Ok(());
            };
            let filter = name.filter()?;
            let value = SubscriptionValue::decode(&found.value)?;
            take(Restored::Subscription {
                session,
                filter,
                options: value.options,
                subscription_id: value.subscription_id,
            });
            Ok(())
        })?;
        self.for_each_key(&key(Kind::Awaited), |found| {
            let mut name = Reader::of_key(Kind::Awaited, &found.key);
            let Some(session) = session(name.int()?) else {
                return Ok(());
            };
            take(Restored::RetainedAwaited {
                session,
                filter: name.filter()?,
                queued: decode_awaited(&found.value)?,
            });
            Ok(())
        })?;
        self.for_each_key(&key(Kind::Received), |found| {
            let mut name = Reader::of_key(Kind::Received, &found.key);
            if let Some(session) = session(name.int()?) {
                let packet_id = name.packet_id()?;
                take(Restored::PublishReceived { session, packet_id });
            }
            Ok(())
        })?;
        self.for_each_key(&key(Kind::OfGroup), |found| {
            let sequence = sequence_of(Kind::OfGroup, &found.key)?;
            let value = OfGroupValue::decode(&found.value)?;
            let session = session(number_of(Kind::OfGroup, &found.key)?);
            // Not of a group that has ended.
            if let (Some(session), Some(group)) = (session, groups.get(&value.group)) {
                take(Restored::OfGroup {
                    session,
                    sequence,
                    id: MessageId::new(value.id),
                    qos: value.qos,
                    place: GroupPlace {
                        group: (*group).clone(),
                        sequence: value.sequence,
                    },
                });
            }
            Ok(())
        })
    }

    fn recover_group(
        &self,
        group: &GroupName,
        number: u64,
        take: &mut impl FnMut(Restored),
    ) -> Result<(), JournalError> {
        self.for_each_key(&part_key(Kind::GroupMessage, number, &[]), |found| {
            let id = found.blob.ok_or(ValueError(Kind::GroupMessage))?;
            let publisher = decode_publisher(Kind::GroupMessage, &found.value)?;
            take(Restored::GroupMessage {
                place: GroupPlace {
                    group: group.clone(),
                    sequence: sequence_of(Kind::GroupMessage, &found.key)?,
                },
                id: MessageId::new(id.0),
                message: self.message(id)?,
                publisher: publisher.map(|publisher| self.shared_key(publisher)),
            });
            Ok(())
        })
    }

    fn first_unfinished(&self, known: &Session) -> Result<u64, JournalError> {
        let mut first = known.first;
        if known.lifted > 0 {
            self.for_each_key(&part_key(Kind::Lifted, known.number, &[]), |found| {
                first = first.min(sequence_of(Kind::Lifted, &found.key)?);
                Ok(())
            })?;
        }
        Ok(first)
    }

    fn queued_bytes(&self, known: &Session) -> Result<u64, JournalError> {
        let mut bytes = 0;
        if known.lifted > 0 {
            self.for_each_key(&part_key(Kind::Lifted, known.number, &[]), |found| {
                bytes += u64::from(EntryValue::decode(&found.value)?.len);
                Ok(())
            })?;
        }
        let before = |sequence: u64| {
            if sequence == known.end {
                return Ok(known.bytes);
            }
            let place = sequence.wrapping_sub(known.base);
            self.entry(known.number, place).map(|entry| entry.before)
        };
        let mut at = known.first;
        let ends = [(known.end, known.end)];
        for (start, end) in known.finished.iter().map(|(s, e)| (*s, *e)).chain(ends) {
            if start > at {
                bytes += before(start)?.saturating_sub(before(at)?);
            }
            at = end;
        }
        Ok(bytes)
    }

    fn unrouted(
        &self,
        id: MessageId,
        publisher: Option<SessionKey>,
    ) -> Result<Restored, JournalError> {
        let mut arrived = Vec::new();
        self.for_each_key(&id_key(Kind::Arrived, id.get()), |found| {
            let mut name = Reader::of_key(Kind::Arrived, &found.key);
            name.u64()?;
            let shard = ShardId::new(name.u16()?);
            let shards = name.u16()?;
            name.end(())?;
            let unwanted = decode_shards(Kind::Arrived, &found.value)?;
            let reached = iter::once(shard).chain(unwanted);
            arrived.extend(reached.map(|shard| Part { shard, shards }));
            Ok(())
        })?;
        arrived.sort_unstable();
        arrived.dedup();
        Ok(Restored::Unrouted {
            id,
            message: self.message(BlobId(id.get()))?,
            publisher: publisher.map(|publisher| self.shared_key(publisher)),
            arrived,
        })
    }

    /// The key of a session that is known is in memory once.
    fn shared_key(&self, session: SessionKey) -> Arc<SessionKey> {
        let known = self.sessions.get_key_value(&session);
        known.map_or_else(|| Arc::new(session), |(known, _)| Arc::clone(known))
    }
}
