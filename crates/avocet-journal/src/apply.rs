//! Records in, one batch out.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use avocet_codec::{QoS, SubscriptionId};
use avocet_engine::{GroupName, GroupPlace, MessageId, Record, SessionKey};
use avocet_session::{Message, UnixTime};
use avocet_store::{BlobId, PageLimit, Position, QueueId, Store};
use avocet_topic::TopicFilterBuf;
use bytes::Bytes;

use crate::change::{Change, NewKey};
use crate::journal::{Held, Journal, JournalError, Session};
use crate::value::{
    self, BESIDE_MESSAGE, EntryValue, FORMAT, Kind, OfGroupValue, SessionValue, SubscriptionValue,
    WillValue, arrived_key, group_key, id_key, key, part_key, sequence_key, session_key, text_key,
};

/// Message ids are reserved in steps of this many.
const COUNT_STEP: u64 = 1 << 20;

/// Entries in front of finished ones are taken out of the queue when that frees this many times
/// as many, and this many beside.
const LIFT_RATIO: u64 = 4;
const LIFT_MIN: u64 = 64;

impl<S: Store> Journal<S> {
    /// Stores what the records of one commit say, as one batch: all of it or, with an error,
    /// nothing. It is durable with the next [`Journal::sync`].
    pub fn apply(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.apply_batch(records).map(drop)
    }

    fn apply_batch(&mut self, records: &[Record]) -> Result<Option<Position>, JournalError> {
        let mut change = Change {
            next_number: self.next_number,
            message_count: self.message_count,
            bytes: Vec::with_capacity(records.iter().map(bytes_of).sum()),
            ..Change::default()
        };
        for record in records {
            self.record(&mut change, record)?;
        }
        let batch = change.take_batch();
        let position = if batch.is_empty() {
            None
        } else {
            let mut batch = batch;
            if self.next_number == 1 && self.store.key(&key(Kind::Format))?.is_none() {
                batch.put_key(key(Kind::Format), value::int(FORMAT), None);
            }
            Some(self.store.commit(batch)?)
        };
        self.install(change);
        Ok(position)
    }

    fn install(&mut self, change: Change) {
        for (key, session) in change.sessions {
            match session {
                Some(session) => self.sessions.insert(key, session),
                None => self.sessions.remove(&key),
            };
        }
        for (name, number) in change.groups {
            match number {
                Some(number) => self.groups.insert(name, number),
                None => self.groups.remove(&name),
            };
        }
        for (id, mut held) in change.held {
            held.new = false;
            if held.holds > 0 {
                self.held.insert(id, held);
            } else {
                self.held.remove(&id);
            }
        }
        self.next_number = change.next_number;
        self.message_count = change.message_count;
        self.ignored += change.ignored;
    }

    fn record(&self, change: &mut Change, record: &Record) -> Result<(), JournalError> {
        match record {
            Record::SessionPut {
                session,
                expiry_interval,
                expires_at,
                sent,
                window,
            } => {
                let number = self.begin(change, session);
                let value = SessionValue {
                    number,
                    expiry_interval: *expiry_interval,
                    expires_at: *expires_at,
                    sent: *sent,
                    window: *window,
                };
                change.put(session_key(Kind::Session, session), value.encode(), None);
                Ok(())
            }
            Record::SessionDeleted { session } => self.end(change, session),
            Record::SubscriptionPut {
                session,
                filter,
                options,
                subscription_id,
            } => {
                let value = SubscriptionValue {
                    options: *options,
                    subscription_id: *subscription_id,
                };
                let name = filter.as_str().as_bytes();
                self.put_part(change, session, Kind::Subscription, name, value.encode());
                Ok(())
            }
            Record::SubscriptionDeleted { session, filter } => {
                let name = filter.as_str().as_bytes();
                self.delete_part(change, session, Kind::Subscription, name);
                self.end_awaited(change, session, filter)
            }
            Record::RetainedAwaited {
                session,
                filter,
                queued,
            } => {
                let name = filter.as_str().as_bytes();
                self.put_part(change, session, Kind::Awaited, name, value::awaited(queued));
                Ok(())
            }
            Record::RetainedQueued { session, filter } => self.end_awaited(change, session, filter),
            Record::MessageStored { id, message } => {
                self.store_message(change, *id, message);
                Ok(())
            }
            Record::MessageAccepted { id, publisher } => {
                let publisher = value::publisher(publisher.as_deref());
                let held = self.held(change, *id).is_some();
                let name = id_key(Kind::Unrouted, id.get());
                if held && !self.has(change, &name)? {
                    self.add_hold(change, *id);
                    change.put(name, publisher, Some(BlobId(id.get())));
                } else {
                    change.ignored += u64::from(!held);
                }
                Ok(())
            }
            Record::MessageArrived { id, part, unwanted } => {
                if self.has(change, &id_key(Kind::Unrouted, id.get()))? {
                    let name = arrived_key(id.get(), part.shard.get(), part.shards);
                    // It may arrive there again after a restart.
                    let before = self.new_or_stored(change, &name)?;
                    let before = before.map(|(value, _)| value).unwrap_or_default();
                    change.put(name, value::shards(before, unwanted), None);
                }
                Ok(())
            }
            Record::MessageRouted { id } => self.end_routing(change, *id),
            Record::Enqueued {
                session,
                sequence,
                id,
                qos,
                retain,
                subscription_ids,
                group,
            } => {
                let entry = NewEntry {
                    sequence: *sequence,
                    id: *id,
                    qos: *qos,
                    retain: *retain,
                    subscription_ids,
                    group: group.as_deref(),
                };
                self.enqueue(change, session, &entry);
                Ok(())
            }
            Record::Finished { session, sequence } => self.finish(change, session, *sequence, true),
            Record::Returned { session, sequence } => {
                self.finish(change, session, *sequence, false)
            }
            Record::PubrecReceived { session, sequence } => {
                self.receive_pubrec(change, session, *sequence)
            }
            Record::GroupEnqueued {
                place,
                id,
                publisher,
            } => {
                if self.held(change, *id).is_none() {
                    change.ignored += 1;
                    return Ok(());
                }
                let number = self.begin_group(change, &place.group);
                let name = sequence_key(Kind::GroupMessage, number, place.sequence);
                if !self.has(change, &name)? {
                    self.add_hold(change, *id);
                    let publisher = value::publisher(publisher.as_deref());
                    change.put(name, publisher, Some(BlobId(id.get())));
                }
                Ok(())
            }
            Record::GroupFinished { place } => match self.group(change, &place.group) {
                Some(group) => self.finish_in_group(change, group, place.sequence),
                None => Ok(()),
            },
            Record::GroupDeleted { group } => self.end_group(change, group),
            Record::PublishReceived { session, packet_id } => {
                let part = packet_id.get().to_be_bytes();
                self.put_part(change, session, Kind::Received, &part, Bytes::new());
                Ok(())
            }
            Record::PublishReleased { session, packet_id } => {
                let part = packet_id.get().to_be_bytes();
                self.delete_part(change, session, Kind::Received, &part);
                Ok(())
            }
            Record::RetainedPut { message, publisher } => {
                let tenant = publisher.as_deref().map_or("", SessionKey::tenant);
                let topic_name = message.topic_name();
                let name = text_key(Kind::Retained, tenant, topic_name.as_str());
                let value = value::retained(message, publisher.as_deref());
                change.put(name, value, None);
                Ok(())
            }
            Record::RetainedDeleted { tenant, topic_name } => {
                let name = text_key(Kind::Retained, tenant.as_str(), topic_name.as_str());
                change.delete(name);
                Ok(())
            }
            Record::WillPut {
                session,
                message,
                message_expiry_interval,
                delay_interval,
                publish_at,
            } => {
                let value = WillValue {
                    message_expiry_interval: *message_expiry_interval,
                    delay_interval: *delay_interval,
                    publish_at: *publish_at,
                    message: message.clone(),
                };
                change.put(session_key(Kind::Will, session), value.encode(), None);
                Ok(())
            }
            Record::WillDeleted { session } => {
                change.delete(session_key(Kind::Will, session));
                Ok(())
            }
            Record::Time { at } => {
                let at = UnixTime::as_millis(*at);
                change.put(key(Kind::Time), value::int(at), None);
                Ok(())
            }
            // One that a later engine may emit is a bug of this program, not of its data.
            _ => {
                debug_assert!(false, "a record that the journal does not know");
                change.ignored += 1;
                Ok(())
            }
        }
    }

    /// What will be under a key.
    fn new_or_stored(&self, change: &Change, name: &Bytes) -> Result<NewKey, JournalError> {
        match change.keys.get(name) {
            Some(new) => Ok(new.clone()),
            None => Ok(self.store.key(name)?.map(|found| (found.value, found.blob))),
        }
    }

    /// Whether a key will be there.
    fn has(&self, change: &Change, name: &Bytes) -> Result<bool, JournalError> {
        Ok(self.new_or_stored(change, name)?.is_some())
    }

    /// Deletes every key with a prefix, and gives what was there to `take`.
    fn delete_all(
        &self,
        change: &mut Change,
        prefix: &Bytes,
        mut take: impl FnMut(&mut Change, Bytes, Option<BlobId>),
    ) -> Result<(), JournalError> {
        let mut found: BTreeMap<Bytes, (Bytes, Option<BlobId>)> = BTreeMap::new();
        self.for_each_key(prefix, |key| {
            found.insert(key.key.clone(), (key.value.clone(), key.blob));
            Ok(())
        })?;
        let new = change.keys.range(prefix.clone()..);
        for (name, new) in new.take_while(|(name, _)| name.starts_with(prefix)) {
            match new {
                Some(new) => found.insert(name.clone(), new.clone()),
                None => found.remove(name),
            };
        }
        for (name, (value, blob)) in found {
            take(change, value, blob);
            change.delete(name);
        }
        Ok(())
    }

    fn session_mut<'a>(
        &self,
        change: &'a mut Change,
        key: &Arc<SessionKey>,
    ) -> Option<&'a mut Session> {
        match change.sessions.entry(Arc::clone(key)) {
            Entry::Occupied(changed) => changed.into_mut().as_mut(),
            Entry::Vacant(new) => {
                let known = self.sessions.get(key)?.clone();
                new.insert(Some(known)).as_mut()
            }
        }
    }

    /// The number of a session, which begins unless it is there.
    fn begin(&self, change: &mut Change, key: &Arc<SessionKey>) -> u64 {
        if let Some(known) = self.session_mut(change, key) {
            return known.number;
        }
        let number = change.next_number;
        change.next_number += 1;
        let session = Session::new(number);
        change.sessions.insert(Arc::clone(key), Some(session));
        number
    }

    fn end(&self, change: &mut Change, key: &Arc<SessionKey>) -> Result<(), JournalError> {
        let Some(session) = self.session_mut(change, key) else {
            change.ignored += 1;
            return Ok(());
        };
        let (number, exists) = (session.number, session.end != session.base);
        let mut places = Vec::new();
        let of_group = part_key(Kind::OfGroup, number, &[]);
        self.delete_all(change, &of_group, |_, value, _| places.push(value))?;
        for place in places {
            let place = OfGroupValue::decode(&place)?;
            self.finish_in_group(change, place.group, place.sequence)?;
        }
        if exists {
            change.advanced.remove(&number);
            change.dropped.push(number);
        }
        for kind in [
            Kind::Subscription,
            Kind::Awaited,
            Kind::Received,
            Kind::Finished,
            Kind::Pubrec,
            Kind::Lifted,
        ] {
            self.delete_all(change, &part_key(kind, number, &[]), |_, _, _| {})?;
        }
        change.delete(part_key(Kind::Base, number, &[]));
        change.delete(session_key(Kind::Session, key));
        change.sessions.insert(Arc::clone(key), None);
        Ok(())
    }

    fn put_part(
        &self,
        change: &mut Change,
        session: &Arc<SessionKey>,
        kind: Kind,
        part: &[u8],
        value: Bytes,
    ) {
        match self.session_mut(change, session).map(|known| known.number) {
            Some(number) => change.put(part_key(kind, number, part), value, None),
            None => change.ignored += 1,
        }
    }

    fn delete_part(&self, change: &mut Change, session: &Arc<SessionKey>, kind: Kind, part: &[u8]) {
        match self.session_mut(change, session).map(|known| known.number) {
            Some(number) => change.delete(part_key(kind, number, part)),
            None => change.ignored += 1,
        }
    }

    /// A subscription does not wait for retained messages any more, if it did.
    fn end_awaited(
        &self,
        change: &mut Change,
        session: &Arc<SessionKey>,
        filter: &TopicFilterBuf,
    ) -> Result<(), JournalError> {
        if let Some(number) = self.session_mut(change, session).map(|known| known.number) {
            let name = part_key(Kind::Awaited, number, filter.as_str().as_bytes());
            if self.has(change, &name)? {
                change.delete(name);
            }
        }
        Ok(())
    }

    fn store_message(&self, change: &mut Change, id: MessageId, message: &Message) {
        if self.held(change, id).is_some() {
            // It is there already.
            change.ignored += 1;
            return;
        }
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let held = Held {
            len,
            holds: 0,
            new: true,
        };
        change.held.insert(id.get(), held);
        change.put_blob(id.get(), message);
        if id.count() > change.message_count {
            change.message_count = id.count() + COUNT_STEP;
            let count = value::int(change.message_count);
            change.put(key(Kind::MessageCount), count, None);
        }
    }

    /// What is known of a message that something new may refer to.
    fn held(&self, change: &Change, id: MessageId) -> Option<Held> {
        let known = change.held.get(&id.get());
        let known = known.or_else(|| self.held.get(&id.get())).copied()?;
        // It may have lost its last holder in this batch.
        (known.holds > 0 || known.new).then_some(known)
    }

    fn add_hold(&self, change: &mut Change, id: MessageId) {
        if let Some(mut held) = self.held(change, id) {
            held.holds += 1;
            change.held.insert(id.get(), held);
        }
    }

    fn remove_hold(&self, change: &mut Change, id: u64) {
        let known = change.held.get(&id).or_else(|| self.held.get(&id));
        if let Some(mut held) = known.copied() {
            held.holds = held.holds.saturating_sub(1);
            change.held.insert(id, held);
        }
    }

    fn end_routing(&self, change: &mut Change, id: MessageId) -> Result<(), JournalError> {
        let name = id_key(Kind::Unrouted, id.get());
        if !self.has(change, &name)? {
            change.ignored += 1;
            return Ok(());
        }
        change.delete(name);
        self.remove_hold(change, id.get());
        self.delete_all(change, &id_key(Kind::Arrived, id.get()), |_, _, _| {})
    }

    fn enqueue(&self, change: &mut Change, session: &Arc<SessionKey>, entry: &NewEntry<'_>) {
        // Without its message an entry can be finished, and not read: a later one has its place.
        let held = self.held(change, entry.id);
        let (len, blob) = held.map_or((0, None), |held| (held.len, Some(BlobId(entry.id.get()))));
        let group = entry.group.filter(|_| held.is_some()).and_then(|place| {
            let number = self.group(change, &place.group)?;
            Some((number, place))
        });
        change.ignored += u64::from(held.is_none());
        let Some(known) = self.session_mut(change, session) else {
            change.ignored += u64::from(held.is_some());
            return;
        };
        let number = known.number;
        let mut rebased = None;
        if entry.sequence != known.end {
            // Only a session that was not stored for a while goes on elsewhere; then what it had
            // is gone. A sequence that is there says nothing new.
            if known.first != known.end || entry.sequence < known.end {
                change.ignored += u64::from(held.is_some());
                return;
            }
            let skipped = entry.sequence - known.end;
            known.base = known.base.wrapping_add(skipped);
            known.first = entry.sequence;
            known.end = entry.sequence;
            rebased = Some(known.base);
        }
        if known.first == known.end {
            known.bytes = 0;
        }
        let value = EntryValue {
            qos: entry.qos,
            retain: entry.retain,
            len,
            before: known.bytes,
            subscription_ids: entry.subscription_ids.to_vec(),
        };
        known.end += 1;
        known.bytes = known.bytes.saturating_add(len.into());
        known.of_groups += u64::from(group.is_some());
        change.append(number, &value, blob);
        if let Some(base) = rebased {
            change.put(part_key(Kind::Base, number, &[]), value::int(base), None);
        }
        if let Some((group, place)) = group {
            let value = OfGroupValue {
                qos: entry.qos,
                id: entry.id.get(),
                group,
                sequence: place.sequence,
            };
            let name = sequence_key(Kind::OfGroup, number, entry.sequence);
            change.put(name, value.encode(), None);
        }
    }

    fn finish(
        &self,
        change: &mut Change,
        key: &Arc<SessionKey>,
        sequence: u64,
        in_group: bool,
    ) -> Result<(), JournalError> {
        let Some(known) = self.session_mut(change, key) else {
            change.ignored += 1;
            return Ok(());
        };
        let number = known.number;
        if sequence < known.first {
            let name = sequence_key(Kind::Lifted, number, sequence);
            if known.lifted == 0 || !self.has(change, &name)? {
                change.ignored += 1;
                return Ok(());
            }
            change.delete(name);
            if let Some(known) = self.session_mut(change, key) {
                known.lifted -= 1;
            }
        } else if known.has(sequence) {
            self.finish_in_queue(change, key, sequence)?;
        } else {
            change.ignored += 1;
            return Ok(());
        }
        let name = sequence_key(Kind::Pubrec, number, sequence);
        if let Some(known) = self.session_mut(change, key)
            && known.pubrecs > 0
            && self.has(change, &name)?
        {
            change.delete(name);
            if let Some(known) = self.session_mut(change, key) {
                known.pubrecs -= 1;
            }
        }
        self.finish_of_group(change, key, sequence, in_group)
    }

    /// Forgets what a finished message is to a group; the group may be done with it too.
    fn finish_of_group(
        &self,
        change: &mut Change,
        key: &Arc<SessionKey>,
        sequence: u64,
        in_group: bool,
    ) -> Result<(), JournalError> {
        let Some(known) = self.session_mut(change, key) else {
            return Ok(());
        };
        if known.of_groups == 0 {
            return Ok(());
        }
        let name = sequence_key(Kind::OfGroup, known.number, sequence);
        let Some((value, _)) = self.new_or_stored(change, &name)? else {
            return Ok(());
        };
        change.delete(name);
        if let Some(known) = self.session_mut(change, key) {
            known.of_groups -= 1;
        }
        if in_group {
            let place = OfGroupValue::decode(&value)?;
            self.finish_in_group(change, place.group, place.sequence)?;
        }
        Ok(())
    }

    fn receive_pubrec(
        &self,
        change: &mut Change,
        key: &Arc<SessionKey>,
        sequence: u64,
    ) -> Result<(), JournalError> {
        if let Some(known) = self.session_mut(change, key) {
            let number = known.number;
            let name = sequence_key(Kind::Pubrec, number, sequence);
            let queued = known.has(sequence);
            let lifted = sequence < known.first
                && known.lifted > 0
                && self.has(change, &sequence_key(Kind::Lifted, number, sequence))?;
            if (queued || lifted) && !self.has(change, &name)? {
                change.put(name, Bytes::new(), None);
                if let Some(known) = self.session_mut(change, key) {
                    known.pubrecs += 1;
                }
                return Ok(());
            }
        }
        change.ignored += 1;
        Ok(())
    }

    /// Finishes an entry that is in the queue and not finished.
    fn finish_in_queue(
        &self,
        change: &mut Change,
        key: &Arc<SessionKey>,
        sequence: u64,
    ) -> Result<(), JournalError> {
        let Some(known) = self.session_mut(change, key) else {
            return Ok(());
        };
        let number = known.number;
        // The finished ones before and behind it become one run with it.
        let (mut start, mut end) = (sequence, sequence + 1);
        let mut merged = Vec::new();
        if let Some((&from, &to)) = known.finished.range(..sequence).next_back()
            && to == sequence
        {
            start = from;
            merged.push(from);
        }
        if let Some(to) = known.finished.remove(&end) {
            merged.push(end);
            end = to;
        }
        let ahead = start - known.first;
        if ahead == 0 {
            known.first = end;
            let to = end.wrapping_sub(known.base);
            change.advanced.insert(number, to);
            for old in merged {
                change.delete(sequence_key(Kind::Finished, number, old));
            }
            return Ok(());
        }
        known.finished.insert(start, end);
        for old in merged {
            change.delete(sequence_key(Kind::Finished, number, old));
        }
        let name = sequence_key(Kind::Finished, number, start);
        change.put(name, value::int(end), None);
        if end - start >= ahead.saturating_mul(LIFT_RATIO).saturating_add(LIFT_MIN) {
            self.lift(change, key, start)?;
        }
        Ok(())
    }

    /// Takes what is in front of a long run of finished entries out of the queue, so that the
    /// space of these can be given back.
    fn lift(
        &self,
        change: &mut Change,
        key: &Arc<SessionKey>,
        run: u64,
    ) -> Result<(), JournalError> {
        let Some(known) = self.session_mut(change, key) else {
            return Ok(());
        };
        let (number, base, first) = (known.number, known.base, known.first);
        let finished = known.finished.clone();
        let stored = self
            .store
            .queue(QueueId(number))
            .map_or(0, |range| range.end);
        if run.wrapping_sub(base) > stored {
            // Part of it is in this batch only; another time.
            return Ok(());
        }
        let mut lifted = Vec::new();
        let mut at = first;
        while at < run {
            let limit = PageLimit {
                items: usize::try_from(run - at).unwrap_or(usize::MAX),
                bytes: 1 << 20,
            };
            let place = at.wrapping_sub(base);
            // What cannot be read stays where it is.
            let Ok(entries) = self.store.read_queue(QueueId(number), place, limit) else {
                return Ok(());
            };
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                at = base.wrapping_add(entry.sequence);
                let before = finished.range(..=at).next_back();
                if before.is_none_or(|(_, end)| *end <= at) {
                    lifted.push((at, entry.value, entry.blob));
                }
                at += 1;
            }
        }
        let Some(known) = self.session_mut(change, key) else {
            return Ok(());
        };
        let Some(&end) = known.finished.get(&run) else {
            return Ok(());
        };
        let behind = known.finished.split_off(&end);
        let gone = std::mem::replace(&mut known.finished, behind);
        known.first = end;
        known.lifted += lifted.len() as u64;
        for start in gone.into_keys() {
            change.delete(sequence_key(Kind::Finished, number, start));
        }
        change.advanced.insert(number, end.wrapping_sub(base));
        for (sequence, value, blob) in lifted {
            change.put(sequence_key(Kind::Lifted, number, sequence), value, blob);
        }
        Ok(())
    }

    fn group(&self, change: &Change, name: &GroupName) -> Option<u64> {
        match change.groups.get(name) {
            Some(new) => *new,
            None => self.groups.get(name).copied(),
        }
    }

    fn begin_group(&self, change: &mut Change, name: &GroupName) -> u64 {
        if let Some(number) = self.group(change, name) {
            return number;
        }
        let number = change.next_number;
        change.next_number += 1;
        change.groups.insert(name.clone(), Some(number));
        change.put(group_key(name), value::int(number), None);
        number
    }

    /// Ends a message of the group with this number, if it has it.
    fn finish_in_group(
        &self,
        change: &mut Change,
        group: u64,
        sequence: u64,
    ) -> Result<(), JournalError> {
        let name = sequence_key(Kind::GroupMessage, group, sequence);
        if let Some((_, blob)) = self.new_or_stored(change, &name)? {
            if let Some(id) = blob {
                self.remove_hold(change, id.0);
            }
            change.delete(name);
        }
        Ok(())
    }

    fn end_group(&self, change: &mut Change, name: &GroupName) -> Result<(), JournalError> {
        let Some(number) = self.group(change, name) else {
            return Ok(());
        };
        let prefix = part_key(Kind::GroupMessage, number, &[]);
        self.delete_all(change, &prefix, |change, _, blob| {
            if let Some(id) = blob {
                self.remove_hold(change, id.0);
            }
        })?;
        change.delete(group_key(name));
        change.groups.insert(name.clone(), None);
        Ok(())
    }
}

/// What a record adds to [`Change::bytes`], about.
fn bytes_of(record: &Record) -> usize {
    if let Record::MessageStored { message, .. } = record {
        return message.len() + BESIDE_MESSAGE;
    }
    16
}

struct NewEntry<'a> {
    sequence: u64,
    id: MessageId,
    qos: QoS,
    retain: bool,
    subscription_ids: &'a [SubscriptionId],
    group: Option<&'a GroupPlace>,
}

impl Session {
    /// Whether an entry is in the queue and not finished.
    pub(crate) fn has(&self, sequence: u64) -> bool {
        let before = self.finished.range(..=sequence).next_back();
        (self.first..self.end).contains(&sequence) && before.is_none_or(|(_, end)| *end <= sequence)
    }
}
