//! Queued messages, read back in pages.

use avocet_engine::{Fetched, MessageId, SessionKey};
use avocet_session::FetchFrom;
use avocet_store::{BlobId, PageLimit, QueueId, Store};
use bytes::Bytes;

use crate::journal::{Journal, JournalError, Session, sequence_of};
use crate::value::{EntryValue, Kind, ValueError, part_key, sequence_key};

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
    /// sequence not looked at.
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
            let limit = PageLimit {
                items: items.min(ENTRIES).min(page.room()),
                bytes: usize::MAX,
            };
            let place = at.wrapping_sub(known.base);
            let entries = self.store.read_queue(QueueId(known.number), place, limit)?;
            if entries.is_empty() {
                return Err(ValueError(Kind::Entry).into());
            }
            for entry in entries {
                let sequence = known.base.wrapping_add(entry.sequence);
                if !self.add(known, sequence, &entry.value, entry.blob, &mut page)? {
                    return Ok((sequence, page.messages));
                }
                at = sequence + 1;
            }
        }
        Ok((at, page.messages))
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
                if !self.add(known, sequence, &key.value, key.blob, page)? {
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
    ) -> Result<bool, JournalError> {
        let value = EntryValue::decode(value)?;
        let len = u64::from(value.len);
        if len > page.bytes_left && !page.messages.is_empty() {
            return Ok(false);
        }
        page.bytes_left = page.bytes_left.saturating_sub(len);
        let id = blob.ok_or(ValueError(Kind::Entry))?;
        let pubrec = || sequence_key(Kind::Pubrec, known.number, sequence);
        let pubrec_received = known.pubrecs > 0 && self.store.key(&pubrec())?.is_some();
        page.messages.push(Fetched {
            sequence,
            id: MessageId::new(id.0),
            message: self.message(id)?,
            qos: value.qos,
            retain: value.retain,
            subscription_ids: value.subscription_ids,
            pubrec_received,
        });
        Ok(true)
    }
}
