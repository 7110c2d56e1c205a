//! Bytes that change on the disk: what cannot be read is lost alone.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

use std::sync::Arc;

use avocet_codec::QoS;
use avocet_engine::{Fetched, MessageId, Record, SessionKey};
use avocet_journal::Journal;
use avocet_session::{FetchFrom, Message};
use avocet_store::{LogOptions, LogStore, SimVfs, Vfs, VfsFile};
use avocet_topic::TopicName;

const MESSAGES: u64 = 12;

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 4 << 10;
    options.resident_value_bytes = 8;
    options
}

fn message(number: u64) -> Message {
    let topic = TopicName::new("t").unwrap();
    Message::new(topic, &[number as u8; 30]).with_qos(QoS::AtLeastOnce)
}

/// A store with a session that has twelve messages, of which the second and the last but one are
/// finished.
fn written(session: &Arc<SessionKey>) -> SimVfs {
    let disk = SimVfs::new();
    let mut journal = Journal::open(LogStore::open(disk.clone(), options()).unwrap()).unwrap();
    let put = Record::SessionPut {
        session: Arc::clone(session),
        expiry_interval: 1,
        expires_at: None,
        sent: 0,
        window: 0,
    };
    journal.apply(&[put]).unwrap();
    for number in 0..MESSAGES {
        let id = MessageId::new(number + 1);
        let stored = Record::MessageStored {
            id,
            message: message(number),
        };
        let enqueued = Record::Enqueued {
            session: Arc::clone(session),
            sequence: number,
            id,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Vec::new(),
            group: None,
        };
        journal.apply(&[stored, enqueued]).unwrap();
    }
    for sequence in [1, MESSAGES - 2] {
        let session = Arc::clone(session);
        let finished = Record::Finished { session, sequence };
        journal.apply(&[finished]).unwrap();
    }
    journal.sync().unwrap();
    journal.into_store().close().unwrap();
    disk
}

#[test]
fn a_page_has_all_messages_but_those_that_cannot_be_read() {
    let session = Arc::new(SessionKey::new("", "away"));
    let whole = written(&session);
    let (mut lost_some, mut read_all) = (0, 0);
    for name in whole.list().unwrap() {
        let size = whole.open(&name).unwrap().size().unwrap();
        for offset in 0..size {
            let disk = whole.cut(|_| 0);
            disk.flip(&name, offset, (offset % 8) as u8);
            // Other damage keeps the store from being opened, or the journal from knowing the session.
            let Ok(Ok(mut journal)) = LogStore::open(disk, options()).map(Journal::open) else {
                continue;
            };
            let mut lost = Vec::new();
            let mut sequences = Vec::new();
            let mut next = 0;
            while next < MESSAGES {
                let from = FetchFrom {
                    sequence: next,
                    max_messages: 5,
                    max_bytes: 1_000,
                };
                let (to, page) = journal.fetch(&session, from).unwrap();
                assert!(to > next);
                next = to;
                for fetched in page {
                    sequences.push(fetched.sequence);
                    match fetched.message {
                        Some(found) => assert_eq!(found, message(fetched.sequence)),
                        None => lost.push(fetched.sequence),
                    }
                }
            }
            let all = (0..MESSAGES).filter(|sequence| ![1, MESSAGES - 2].contains(sequence));
            assert_eq!(sequences, all.collect::<Vec<_>>());
            if lost.is_empty() {
                read_all += 1;
            } else {
                lost_some += 1;
                assert!(
                    lost.len() < MESSAGES as usize - 2,
                    "{name} {offset}: {lost:?}"
                );
            }
            // The session is done with them, and the store takes that.
            for sequence in lost {
                let session = Arc::clone(&session);
                let finished = Record::Finished { session, sequence };
                journal.apply(&[finished]).unwrap();
            }
        }
    }
    assert!(lost_some > 100 && read_all > 100, "{lost_some} {read_all}");
}

/// A record about a message that was never stored costs that message, and none behind it.
#[test]
fn a_message_that_is_not_stored_is_unreadable_and_later_ones_are_not() {
    let session = Arc::new(SessionKey::new("", "away"));
    let put = Record::SessionPut {
        session: Arc::clone(&session),
        expiry_interval: 1,
        expires_at: None,
        sent: 0,
        window: 0,
    };
    let enqueued = |sequence| Record::Enqueued {
        session: Arc::clone(&session),
        sequence,
        id: MessageId::new(sequence + 1),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        group: None,
    };
    let stored = |number| Record::MessageStored {
        id: MessageId::new(number + 1),
        message: message(number),
    };
    let finished = |sequence| Record::Finished {
        session: Arc::clone(&session),
        sequence,
    };
    let page = |journal: &Journal<LogStore<SimVfs>>| {
        let from = FetchFrom {
            sequence: 0,
            max_messages: 5,
            max_bytes: 1_000,
        };
        let (next, page) = journal.fetch(&session, from).unwrap();
        assert_eq!(next, 3);
        let read = |fetched: Fetched| (fetched.sequence, fetched.message);
        page.into_iter().map(read).collect::<Vec<_>>()
    };
    let disk = SimVfs::new();
    let mut journal = Journal::open(LogStore::open(disk.clone(), options()).unwrap()).unwrap();
    journal.apply(&[put, stored(0), enqueued(0)]).unwrap();
    journal.apply(&[enqueued(1)]).unwrap();
    assert_eq!(journal.ignored(), 1);
    journal.apply(&[stored(2), enqueued(2)]).unwrap();
    assert_eq!(journal.ignored(), 1);
    let all = [(0, Some(message(0))), (1, None), (2, Some(message(2)))];
    assert_eq!(page(&journal), all);
    journal.sync().unwrap();
    let store = LogStore::open(disk.cut(|_| 0), options()).unwrap();
    let mut journal = Journal::open(store).unwrap();
    assert_eq!(page(&journal), all);
    journal.apply(&[finished(1)]).unwrap();
    assert_eq!(page(&journal), [all[0].clone(), all[2].clone()]);
    journal.apply(&[finished(0), finished(2)]).unwrap();
    assert_eq!(page(&journal), []);
    assert_eq!(journal.ignored(), 0);
}
