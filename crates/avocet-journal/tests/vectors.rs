//! Every form of key and value, byte by byte: what is on disks must not change unnoticed.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

use std::fmt::Write as _;
use std::sync::Arc;

use avocet_codec::{
    MessageProperties, MessagePropertiesParts, PacketId, PayloadFormat, QoS, SubscriptionId,
    SubscriptionOptions, UserProperty,
};
use avocet_engine::{
    GroupName, GroupPlace, MessageId, Part, Record, Restored, RetainedPlace, SessionKey, ShardId,
    Tenant,
};
use avocet_journal::{Journal, JournalError, check_entry, check_key, check_message};
use avocet_session::{Message, UnixTime};
use avocet_store::{Batch, BlobId, MemoryStore, PageLimit, QueueId, Store};
use avocet_topic::{TopicFilterBuf, TopicName};
use bytes::Bytes;
use proptest::prelude::*;

const VECTORS: &str = include_str!("format-v1.txt");

const EVERYTHING: PageLimit = PageLimit {
    items: usize::MAX,
    bytes: usize::MAX,
};

fn message() -> Message {
    let user = [UserProperty {
        name: "k",
        value: "v",
    }];
    let properties = MessageProperties::new(MessagePropertiesParts {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Some("t"),
        user_properties: &user,
        ..MessagePropertiesParts::default()
    });
    let topic = TopicName::new("a/b").unwrap();
    Message::with_properties(topic, &properties, b"21.5").unwrap()
}

/// One of everything, of a tenant.
fn records(tenant: &str) -> Vec<Record> {
    let session = Arc::new(SessionKey::new(tenant, "client"));
    let tenant = Tenant::new(tenant).unwrap_or_default();
    let group = TopicFilterBuf::new("$share/g/a/+").unwrap();
    let place = |sequence| GroupPlace {
        group: GroupName::new(tenant.clone(), group.clone()),
        sequence,
    };
    let mut options = SubscriptionOptions::new(QoS::ExactlyOnce);
    options.retain_as_published = true;
    let plain = message().with_qos(QoS::AtLeastOnce);
    let expiring = message().with_qos(QoS::ExactlyOnce).with_retain(true);
    let expiring = expiring.with_expires_at(Some(UnixTime::from_millis(1_763_730_000_000)));
    let mut records = vec![
        Record::SessionPut {
            session: Arc::clone(&session),
            expiry_interval: 3_600,
            expires_at: Some(UnixTime::from_millis(1_763_730_000_000)),
            sent: 5,
            // The format has room for any number; engines give 0 and `u32::MAX`.
            window: 300,
        },
        Record::SubscriptionPut {
            session: Arc::clone(&session),
            filter: group.clone(),
            options,
            subscription_id: SubscriptionId::new(200),
        },
        Record::RetainedAwaited {
            session: Arc::clone(&session),
            filter: group.clone(),
            queued: vec![RetainedPlace {
                part: Part {
                    shard: ShardId::new(1),
                    shards: 300,
                },
                topic_name: TopicName::new("a/b").unwrap().to_buf(),
            }],
        },
        Record::PublishReceived {
            session: Arc::clone(&session),
            packet_id: PacketId::new(258).unwrap(),
        },
        Record::MessageStored {
            id: MessageId::new(1),
            message: plain.clone(),
        },
        Record::MessageStored {
            id: MessageId::new(1 << 48 | 2),
            message: expiring.clone(),
        },
        Record::GroupEnqueued {
            place: place(300),
            id: MessageId::new(1),
            publisher: Some(Arc::clone(&session)),
        },
        Record::MessageAccepted {
            id: MessageId::new(1 << 48 | 2),
            publisher: Some(Arc::clone(&session)),
        },
        Record::MessageArrived {
            id: MessageId::new(1 << 48 | 2),
            part: Part {
                shard: ShardId::new(1),
                shards: 2,
            },
            unwanted: Vec::new(),
        },
        Record::RetainedPut {
            message: expiring,
            publisher: Some(Arc::clone(&session)),
        },
        Record::WillPut {
            session: Arc::clone(&session),
            message: plain,
            message_expiry_interval: Some(60),
            delay_interval: 5,
            publish_at: Some(UnixTime::from_millis(1_763_730_000_000)),
        },
        Record::Time {
            at: UnixTime::from_millis(1_763_730_000_000),
        },
    ];
    // One more before them makes the sequences begin elsewhere; the first of them stays, and many
    // behind it are finished, so that it is taken out of the queue.
    let last = 10 + 64 + 4;
    for sequence in 10..=last + 4 {
        records.push(Record::Enqueued {
            session: Arc::clone(&session),
            sequence,
            id: MessageId::new(1),
            qos: QoS::ExactlyOnce,
            retain: sequence % 2 == 0,
            subscription_ids: SubscriptionId::new(200).into_iter().collect(),
            group: (sequence == 10).then(|| Box::new(place(300))),
        });
    }
    for sequence in [10, last + 1] {
        records.push(Record::PubrecReceived {
            session: Arc::clone(&session),
            sequence,
        });
    }
    records
}

/// The same in two batches, so that what is in the second one refers to what is stored.
fn journal(tenant: &str) -> Journal<MemoryStore> {
    let session = Arc::new(SessionKey::new(tenant, "client"));
    let mut journal = Journal::open(MemoryStore::new()).unwrap();
    journal.apply(&records(tenant)).unwrap();
    let finished = (11..=10 + 64 + 4).chain([10 + 64 + 4 + 3]);
    let finished = finished.map(|sequence| Record::Finished {
        session: Arc::clone(&session),
        sequence,
    });
    journal.apply(&finished.collect::<Vec<_>>()).unwrap();
    assert_eq!(journal.ignored(), 0);
    journal
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap();
    }
    out
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn blob_text(blob: Option<BlobId>) -> String {
    blob.map_or_else(|| "-".to_owned(), |id| format!("{:x}", id.0))
}

/// The whole store as text.
fn dump(store: &MemoryStore) -> String {
    let mut out = String::new();
    for key in store.scan(&[], None, EVERYTHING).unwrap() {
        let (name, value) = (hex(&key.key), hex(&key.value));
        writeln!(out, "key {name} [{value}] {}", blob_text(key.blob)).unwrap();
    }
    let range = store.queue(QueueId(1)).unwrap();
    writeln!(out, "queue {} {}", range.start, range.end).unwrap();
    for entry in store.read_queue(QueueId(1), 0, EVERYTHING).unwrap() {
        let (value, blob) = (hex(&entry.value), blob_text(entry.blob));
        writeln!(out, "entry {} [{value}] {blob}", entry.sequence).unwrap();
    }
    for id in [1, 1 << 48 | 2] {
        let blob = store.blob(BlobId(id)).unwrap().unwrap();
        writeln!(out, "blob {id:x} [{}]", hex(&blob)).unwrap();
    }
    out
}

fn values() -> impl Iterator<Item = (&'static str, Bytes, Bytes)> {
    VECTORS.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (kind, name, value) = (words.next()?, words.next()?, words.next()?);
        let value = value.strip_prefix('[')?.strip_suffix(']')?;
        let name = if kind == "key" {
            unhex(name)
        } else {
            Bytes::new()
        };
        Some((kind, name, unhex(value)))
    })
}

fn check(kind: &str, name: &[u8], value: &[u8]) -> bool {
    match kind {
        "key" => check_key(name, value).is_ok(),
        "entry" => check_entry(value).is_ok(),
        _ => check_message(value).is_ok(),
    }
}

#[test]
fn writes_the_bytes_that_were_always_written() {
    let dump = dump(journal("t").store());
    if std::env::var_os("AVOCET_WRITE_VECTORS").is_some() {
        std::fs::write("tests/format-v1.txt", &dump).unwrap();
    }
    assert_eq!(dump, VECTORS);
}

/// Brokers without tenants wrote these, and read them.
#[test]
fn topics_and_filters_of_no_tenant_are_keys_alone() {
    let journal = journal("");
    for key in [
        "72612f62",
        "472473686172652f672f612f2b",
        "730006636c69656e74",
    ] {
        assert!(journal.store().key(&unhex(key)).unwrap().is_some(), "{key}");
    }
}

/// Same topic, same filter, same Client Identifier: everything is there once for each.
#[test]
fn tenants_do_not_share_a_key() {
    let mut journal = Journal::open(MemoryStore::new()).unwrap();
    let mut expected = Vec::new();
    for (n, tenant) in ["", "t", "u"].into_iter().enumerate() {
        let publisher = Some(Arc::new(SessionKey::new(tenant, "client")));
        let message = message().with_retain(true).with_qos(QoS::AtLeastOnce);
        let id = MessageId::new(n as u64 + 1);
        let place = GroupPlace {
            group: GroupName::new(
                Tenant::new(tenant).unwrap_or_default(),
                TopicFilterBuf::new("$share/g/a/+").unwrap(),
            ),
            sequence: 1,
        };
        let retained = Record::RetainedPut {
            message: message.clone(),
            publisher: publisher.clone(),
        };
        let stored = Record::MessageStored {
            id,
            message: message.clone(),
        };
        let enqueued = Record::GroupEnqueued {
            place: place.clone(),
            id,
            publisher: publisher.clone(),
        };
        journal.apply(&[retained, stored, enqueued]).unwrap();
        expected.push(Restored::Retained {
            message: message.clone(),
            publisher: publisher.clone(),
        });
        expected.push(Restored::GroupMessage {
            place,
            id,
            message,
            publisher,
        });
    }
    // One of them loses its own.
    let topic_name = TopicName::new("a/b").unwrap().to_buf();
    let deleted = Record::RetainedDeleted {
        tenant: Tenant::new("t").unwrap(),
        topic_name,
    };
    journal.apply(&[deleted]).unwrap();
    expected.remove(2);
    let journal = Journal::open(journal.into_store()).unwrap();
    let mut restored = Vec::new();
    journal.recover(|it| restored.push(it)).unwrap();
    let what = |it: &&Restored| {
        matches!(
            it,
            Restored::Retained { .. } | Restored::GroupMessage { .. }
        )
    };
    let restored: Vec<_> = restored.iter().filter(what).collect();
    assert_eq!(restored.len(), expected.len());
    for it in &expected {
        assert!(restored.contains(&it), "{it:?}");
    }
}

#[test]
fn reads_the_bytes_that_were_always_written() {
    let mut count = 0;
    for (kind, name, value) in values() {
        assert!(check(kind, &name, &value), "{kind} {}", hex(&name));
        count += 1;
    }
    assert!(count > 15);
}

#[test]
fn refuses_a_value_that_ends_early_or_goes_on() {
    for (kind, name, value) in values() {
        let payload = match (kind, name.first()) {
            ("blob", _) | ("key", Some(b'r' | b'w')) => 4,
            // An entry ends with its Subscription Identifiers.
            ("entry", _) | ("key", Some(b'm')) => 2,
            _ => 0,
        };
        for len in 0..value.len().saturating_sub(payload) {
            // No publisher is a value too.
            let may_be_empty = len == 0 && matches!(name.first(), Some(b'u' | b'g'));
            assert_eq!(
                check(kind, &name, &value[..len]),
                may_be_empty,
                "{len} of {kind} {}",
                hex(&name)
            );
        }
        if payload == 0 {
            let longer = [&value[..], &[1]].concat();
            assert!(!check(kind, &name, &longer), "{kind} {}", hex(&name));
        }
    }
}

#[test]
fn refuses_a_store_of_another_format() {
    let mut store = MemoryStore::new();
    let mut batch = Batch::new();
    batch.put_key(Bytes::from_static(&[0]), Bytes::from_static(&[2]), None);
    store.commit(batch).unwrap();
    assert_eq!(Journal::open(store).unwrap_err(), JournalError::Format(2));
}

#[test]
fn names_what_is_not_understood() {
    let mut store = journal("t").into_store();
    let page = store.scan(b"w", None, EVERYTHING).unwrap();
    let mut batch = Batch::new();
    batch.put_key(page[0].key.clone(), Bytes::from_static(b"?"), None);
    store.commit(batch).unwrap();
    let error = Journal::open(store).unwrap().recover(drop).unwrap_err();
    assert_eq!(error.to_string(), "stored will is not understood");
}

proptest! {
    /// Nothing that a disk may hold makes reading panic.
    #[test]
    fn reads_any_bytes(name in prop::collection::vec(any::<u8>(), 0..40),
                       value in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = check_key(&name, &value);
        let _ = check_entry(&value);
        let _ = check_message(&value);
    }

    #[test]
    fn reads_any_bytes_that_are_nearly_right(which in any::<prop::sample::Index>(),
                                             at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let all: Vec<_> = values().collect();
        let (kind, name, value) = &all[which.index(all.len())];
        let mut value = value.to_vec();
        if !value.is_empty() {
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
        }
        check(kind, name, &value);
    }
}
