//! Queued messages, read back in pages.

use avocet_codec::QoS;
use avocet_engine::{Fetched, MessageId, SessionKey};
use avocet_session::FetchFrom;
use avocet_store::{BlobId, Entry, PageLimit, QueueId, Store};
use bytes::Bytes;

use crate::journal::{Journal, JournalError, Session, sequence_of};
use crate::value::{EntryValue, Kind, part_key, sequence_key};

/// Entries read at once.
const ENTRIES: usize = 256;

struct Page {
    messages: Vec<Fetched>,
    max_messages: usize,
    /// How many bytes of messages may still come.
    bytes_left: u64,
}

impl Page {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.max_messages.max(1)
    }

    fn room(&self) -> usize {
        self.max_messages.max(1).saturating_sub(self.messages.len())
    }
}

impl<S: Store> Journal<S> {
    /// Messages in the queue of a session, in order, without those it is done with; and the first
    /// sequence not looked at. One that cannot be read has no message.
    ///
    /// # Errors
    ///
    /// Nothing of it can be read.
    pub fn fetch(
        &self,
        session: &SessionKey,
        from: FetchFrom,
    ) -> Result<(u64, Vec<Fetched>), JournalError> {
        let Some(known) = self.sessions.get(session) else {
            return Ok((u64::MAX, Vec::new()));
        };
        let mut page = Page {
            messages: Vec::new(),
            max_messages: from.max_messages,
            bytes_left: from.max_bytes,
        };
        let mut at = from.sequence;
        if at < known.first {
            if let Some(next) = self.fetch_lifted(known, at, &mut page)? {
                return Ok((next, page.messages));
            }
            at = known.first;
        }
        while at < known.end && !page.is_full() {
            if let Some((_, end)) = known.finished.range(..=at).next_back()
                && *end > at
            {
                at = *end;
                continue;
            }
            let finished = known.finished.range(at..).next();
            let live = finished.map_or(known.end, |(start, _)| *start) - at;
            let items = usize::try_from(live).unwrap_or(ENTRIES);
            let entries = self.entries(known, at, items.min(ENTRIES).min(page.room()));
            let Some(entries) = entries else {
                page.messages.push(self.unreadable(known, at));
                at += 1;
                continue;
            };
            for entry in entries {
                let sequence = known.base.wrapping_add(entry.sequence);
                if !self.add(known, sequence, &entry.value, entry.blob, &mut page) {
                    return Ok((sequence, page.messages));
                }
                at = sequence + 1;
            }
        }
        Ok((at, page.messages))
    }

    /// Entries from this sequence on, at least one; none if that cannot be read.
    fn entries(&self, known: &Session, at: u64, items: usize) -> Option<Vec<Entry>> {
        let place = at.wrapping_sub(known.base);
        let queue = QueueId(known.number);
        let read = |items| {
            let bytes = usize::MAX;
            let limit = PageLimit { items, bytes };
            self.store.read_queue(queue, place, limit).ok()
        };
        // A damaged one among others must not take them along.
        let entries = read(items).or_else(|| read(1))?;
        (!entries.is_empty()).then_some(entries)
    }

    /// Adds what was taken out of the queue; the first sequence not looked at if the page is full.
    fn fetch_lifted(
        &self,
        known: &Session,
        from: u64,
        page: &mut Page,
    ) -> Result<Option<u64>, JournalError> {
        if known.lifted == 0 {
            return Ok(None);
        }
        let prefix = part_key(Kind::Lifted, known.number, &[]);
        let mut after = from
            .checked_sub(1)
            .map(|before| sequence_key(Kind::Lifted, known.number, before));
        while !page.is_full() {
            let limit = PageLimit {
                items: page.room(),
                bytes: 1 << 20,
            };
            let found = self.store.scan(&prefix, after.as_deref(), limit)?;
            let Some(last) = found.last() else {
                return Ok(None);
            };
            after = Some(last.key.clone());
            for key in found {
                let sequence = sequence_of(Kind::Lifted, &key.key)?;
                if !self.add(known, sequence, &key.value, key.blob, page) {
                    return Ok(Some(sequence));
                }
            }
        }
        let last = page.messages.last();
        Ok(last.map(|last| last.sequence + 1))
    }

    /// Adds an entry; false if there is no room.
    fn add(
        &self,
        known: &Session,
        sequence: u64,
        value: &Bytes,
        blob: Option<BlobId>,
        page: &mut Page,
    ) -> bool {
        let mut fetched = self.unreadable(known, sequence);
        if let (Ok(value), Some(id)) = (EntryValue::decode(value), blob) {
            let len = u64::from(value.len);
            if len > page.bytes_left && !page.messages.is_empty() {
                return false;
            }
            page.bytes_left = page.bytes_left.saturating_sub(len);
            fetched = Fetched {
                id: MessageId::new(id.0),
                message: self.message(id).or_else(|_| self.message(id)).ok(),
                qos: value.qos,
                retain: value.retain,
                subscription_ids: value.subscription_ids,
                ..fetched
            };
        }
        page.messages.push(fetched);
        true
    }

    /// What is known of a message without reading it.
    fn unreadable(&self, known: &Session, sequence: u64) -> Fetched {
        let pubrec = || sequence_key(Kind::Pubrec, known.number, sequence);
        let pubrec_received =
            known.pubrecs > 0 && self.store.key(&pubrec()).is_ok_and(|found| found.is_some());
        Fetched {
            sequence,
            id: MessageId::new(0),
            message: None,
            qos: QoS::ExactlyOnce,
            retain: false,
            subscription_ids: Vec::new(),
            pubrec_received,
        }
    }
}
