//! A [`Storage`] in a directory.
//!
//! Keys, each with a letter in front: `o` and the sequence of a message on its way, with a byte for
//! how far it is; `r` and the Packet Identifier of one of QoS 2 that came; `i` and the place of one
//! that the application has not acknowledged. Numbers are big endian, so keys are in order. A message is
//! a blob that its key refers to.

use std::error::Error;
use std::num::NonZeroU16;
use std::path::PathBuf;

use avocet_codec::{MessageProperties, PacketId, QoS, SubscriptionId};
use avocet_session::{Message, UnixTime};
use avocet_store::{
    Batch, BlobId, KeyValue, LogOptions, LogStore, OpenError, PageLimit, Store, SyncError,
};
use avocet_topic::TopicName;
use bytes::{Buf, BufMut, Bytes};

use crate::storage::{Record, Storage, Stored, StoredMessage, StoredOutgoing};

const OUTGOING: u8 = b'o';
const RECEIVED: u8 = b'r';
const INCOMING: u8 = b'i';

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const PUBREC: u8 = 2;

/// Bytes that are worth the work of giving back their space, after each store.
const MAINTAINED: usize = 64 << 10;

/// Items read at once.
const PAGE: PageLimit = PageLimit {
    items: 1024,
    bytes: 1 << 20,
};

/// A [`Storage`] in the files of one directory, which no other process may use at the same time. What
/// it has stored survives a loss of power.
#[derive(Debug)]
pub struct FileStorage {
    store: LogStore,
}

/// What is stored is not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored messages cannot be read")]
pub struct Unreadable;

impl FileStorage {
    /// Opens the directory, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let mut options = LogOptions::default();
        options.segment_bytes = 4 << 20;
        options.garbage_bytes = 8 << 20;
        options.cache_bytes = 1 << 20;
        let store = LogStore::open_dir(directory, options)?;
        Ok(Self { store })
    }

    /// Ends the files so that the next opening is quick.
    ///
    /// # Errors
    ///
    /// As any write.
    pub fn close(self) -> Result<(), SyncError> {
        self.store.close().map(drop)
    }

    fn scan(&self, kind: u8) -> Result<Vec<KeyValue>, Box<dyn Error + Send + Sync>> {
        let mut all = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.store.scan(&[kind], after.as_deref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(all);
            };
            after = Some(last.key.clone());
            all.extend(page);
        }
    }

    fn message(
        &self,
        stored: &KeyValue,
    ) -> Result<(Message, UnixTime), Box<dyn Error + Send + Sync>> {
        let blob = stored.blob.ok_or(Unreadable)?;
        let bytes = self.store.blob(blob)?.ok_or(Unreadable)?;
        Ok(decode(&bytes).ok_or(Unreadable)?)
    }
}

impl Storage for FileStorage {
    fn load(&mut self) -> Result<Stored, Box<dyn Error + Send + Sync>> {
        let mut stored = Stored::default();
        for entry in self.scan(OUTGOING)? {
            let state = entry.value.first().copied().ok_or(Unreadable)?;
            let (message, queued_at) = self.message(&entry)?;
            stored.outgoing.push(StoredOutgoing {
                sequence: number(&entry.key).ok_or(Unreadable)?,
                message,
                queued_at,
                sent: state >= SENT,
                pubrec: state >= PUBREC,
            });
        }
        for entry in self.scan(RECEIVED)? {
            let id = number(&entry.key).and_then(|id| u16::try_from(id).ok());
            let id = id.and_then(NonZeroU16::new).ok_or(Unreadable)?;
            stored.received.push(PacketId::from(id));
        }
        for entry in self.scan(INCOMING)? {
            let ids = entry.value.chunks(4).map(|chunk| {
                let id = <[u8; 4]>::try_from(chunk).ok()?;
                SubscriptionId::new(u32::from_be_bytes(id))
            });
            stored.incoming.push(StoredMessage {
                place: number(&entry.key).ok_or(Unreadable)?,
                message: self.message(&entry)?.0,
                subscription_ids: ids.collect::<Option<_>>().ok_or(Unreadable)?,
            });
        }
        Ok(stored)
    }

    fn store(&mut self, records: &[Record]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut batch = Batch::with_capacity(2 * records.len());
        for record in records {
            self.put(record, &mut batch)?;
        }
        self.store.commit(batch)?;
        self.store.sync()?;
        self.store.maintain(MAINTAINED)?;
        Ok(())
    }
}

impl FileStorage {
    fn put(&self, record: &Record, batch: &mut Batch) -> Result<(), Box<dyn Error + Send + Sync>> {
        match record {
            Record::Queued {
                sequence,
                message,
                queued_at,
                sent,
            } => {
                let blob = outgoing_blob(*sequence);
                let how_far = if *sent { SENT } else { QUEUED };
                batch.put_blob(blob, encode(message, *queued_at));
                batch.put_key(key(OUTGOING, *sequence), state(how_far), Some(blob));
                batch.release_blob(blob);
            }
            Record::Sent { sequence } => {
                let blob = outgoing_blob(*sequence);
                batch.put_key(key(OUTGOING, *sequence), state(SENT), Some(blob));
            }
            Record::Pubrec { sequence } => {
                let blob = outgoing_blob(*sequence);
                batch.put_key(key(OUTGOING, *sequence), state(PUBREC), Some(blob));
            }
            Record::Finished { sequence } => {
                batch.delete_key(key(OUTGOING, *sequence));
            }
            Record::Received { packet_id, message } => {
                batch.put_key(key(RECEIVED, packet_id.get().into()), Bytes::new(), None);
                if let Some(stored) = message {
                    let blob = incoming_blob(stored.place);
                    let ids = stored.subscription_ids.iter();
                    let ids: Vec<u8> = ids.flat_map(|id| id.get().to_be_bytes()).collect();
                    batch.put_blob(blob, encode(&stored.message, UnixTime::default()));
                    batch.put_key(key(INCOMING, stored.place), ids.into(), Some(blob));
                    batch.release_blob(blob);
                }
            }
            Record::Released { packet_id } => {
                batch.delete_key(key(RECEIVED, packet_id.get().into()));
            }
            Record::AllReleased => {
                for entry in self.scan(RECEIVED)? {
                    batch.delete_key(entry.key);
                }
            }
            Record::Taken { place } => {
                batch.delete_key(key(INCOMING, *place));
            }
        }
        Ok(())
    }
}

fn key(kind: u8, number: u64) -> Bytes {
    let mut key = Vec::with_capacity(9);
    key.push(kind);
    key.put_u64(number);
    key.into()
}

fn number(key: &[u8]) -> Option<u64> {
    let number = key.get(1..)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

fn state(state: u8) -> Bytes {
    Bytes::copy_from_slice(&[state])
}

/// Blobs of both directions have names of their own.
const fn outgoing_blob(sequence: u64) -> BlobId {
    BlobId(sequence << 1)
}

const fn incoming_blob(place: u64) -> BlobId {
    BlobId(place << 1 | 1)
}

/// QoS and RETAIN, deadline or 0, when it was queued or 0, the lengths of topic and properties, and
/// then these and the payload.
fn encode(message: &Message, queued_at: UnixTime) -> Bytes {
    let mut bytes = Vec::with_capacity(message.len() + 23);
    bytes.put_u8((message.qos() as u8) << 1 | u8::from(message.retain()));
    bytes.put_u64(message.expires_at().map_or(0, UnixTime::as_millis));
    bytes.put_u64(queued_at.as_millis());
    bytes.put_u16(u16::try_from(message.topic_bytes().len()).unwrap_or(u16::MAX));
    bytes.put_u32(u32::try_from(message.properties_bytes().len()).unwrap_or(u32::MAX));
    bytes.put_slice(message.topic_bytes());
    bytes.put_slice(message.properties_bytes());
    bytes.put_slice(message.payload());
    bytes.into()
}

fn decode(mut bytes: &[u8]) -> Option<(Message, UnixTime)> {
    let flags = bytes.try_get_u8().ok()?;
    let expires_at = bytes.try_get_u64().ok()?;
    let queued_at = UnixTime::from_millis(bytes.try_get_u64().ok()?);
    let topic_len = usize::from(bytes.try_get_u16().ok()?);
    let properties_len = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let (topic, rest) = bytes.split_at_checked(topic_len)?;
    let (properties, payload) = rest.split_at_checked(properties_len)?;
    let topic_name = TopicName::new(std::str::from_utf8(topic).ok()?).ok()?;
    let properties = MessageProperties::from_wire(properties).ok()?;
    let qos = match flags >> 1 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return None,
    };
    let expires_at = (expires_at != 0).then_some(UnixTime::from_millis(expires_at));
    let message = Message::with_properties(topic_name, &properties, payload).ok()?;
    let message = message
        .with_qos(qos)
        .with_retain(flags & 1 != 0)
        .with_expires_at(expires_at);
    Some((message, queued_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use avocet_codec::MessagePropertiesParts;

    fn message(payload: &[u8], qos: QoS) -> Message {
        let parts = MessagePropertiesParts {
            content_type: Some("text"),
            correlation_data: Some(b"1"),
            ..MessagePropertiesParts::default()
        };
        let topic_name = TopicName::new("a/b").unwrap();
        let message = Message::with_properties(topic_name, &MessageProperties::new(parts), payload);
        let expires_at = UnixTime::from_millis(1_700_000_000_123);
        let message = message.unwrap().with_qos(qos).with_retain(true);
        message.with_expires_at(payload.is_empty().then_some(expires_at))
    }

    fn stored(place: u64) -> StoredMessage {
        let ids = [1, 8192, 268_435_455];
        StoredMessage {
            place,
            message: message(b"came", QoS::ExactlyOnce),
            subscription_ids: ids.into_iter().filter_map(SubscriptionId::new).collect(),
        }
    }

    fn packet_id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    /// Whatever was stored before the files were closed, or left as they were, comes back.
    #[test]
    fn keeps_what_the_storage_in_memory_keeps() {
        let directory = std::env::temp_dir().join(format!("avocet-storage-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let mut memory = MemoryStorage::new();
        let steps = [
            vec![
                Record::Queued {
                    sequence: 7,
                    message: message(b"", QoS::AtLeastOnce),
                    queued_at: UnixTime::from_millis(1_700_000_000_007),
                    sent: true,
                },
                Record::Queued {
                    sequence: 8,
                    message: message(&[7; 9000], QoS::ExactlyOnce),
                    queued_at: UnixTime::from_millis(1_700_000_000_008),
                    sent: false,
                },
                Record::Queued {
                    sequence: 256,
                    message: message(b"3", QoS::ExactlyOnce),
                    queued_at: UnixTime::from_millis(1_700_000_000_256),
                    sent: false,
                },
            ],
            vec![Record::Sent { sequence: 8 }, Record::Sent { sequence: 256 }],
            vec![
                Record::Received {
                    packet_id: packet_id(9),
                    message: Some(stored(0)),
                },
                Record::Received {
                    packet_id: packet_id(65_535),
                    message: None,
                },
                Record::Received {
                    packet_id: packet_id(3),
                    message: Some(stored(1)),
                },
            ],
            vec![
                Record::Pubrec { sequence: 8 },
                Record::Finished { sequence: 7 },
                Record::Released {
                    packet_id: packet_id(9),
                },
                Record::Taken { place: 1 },
            ],
            vec![Record::AllReleased, Record::Finished { sequence: 8 }],
            vec![
                Record::Taken { place: 0 },
                Record::Finished { sequence: 256 },
            ],
        ];
        for (step, records) in steps.iter().enumerate() {
            let mut files = FileStorage::open(&directory).unwrap();
            files.store(records).unwrap();
            memory.store(records).unwrap();
            let expected = memory.load().unwrap();
            assert_eq!(files.load().unwrap(), expected, "step {step}");
            if step % 2 == 0 {
                files.close().unwrap();
            } else {
                drop(files);
            }
            let mut again = FileStorage::open(&directory).unwrap();
            assert_eq!(again.load().unwrap(), expected, "after step {step}");
        }
        assert_eq!(memory.load().unwrap(), Stored::default());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
