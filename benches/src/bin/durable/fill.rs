//! A data directory as a broker would leave it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use avocet_codec::{QoS, SubscriptionOptions};
use avocet_engine::{Record, SessionKey};
use avocet_journal::Journal;
use avocet_session::Message;
use avocet_store::{LogOptions, LogStore, Store};
use avocet_topic::{TopicFilterBuf, TopicName};

fn session(journal: &mut Journal<LogStore>, number: u64, subscriptions: u64) {
    let session = Arc::new(SessionKey::new("", &format!("device-{number:07}")));
    let mut records = vec![Record::SessionPut {
        session: Arc::clone(&session),
        expiry_interval: u32::MAX,
        expires_at: None,
        sent: 0,
        window: 0,
    }];
    for at in 0..subscriptions {
        let filter = match at {
            0 => "announcements/all".to_owned(),
            1 => format!("sites/{}/+/state", number % 1_000),
            _ => format!("devices/{number:07}/channel-{at}/set"),
        };
        records.push(Record::SubscriptionPut {
            session: Arc::clone(&session),
            filter: TopicFilterBuf::new(filter).unwrap(),
            options: SubscriptionOptions::new(QoS::AtLeastOnce),
            subscription_id: None,
        });
    }
    journal.apply(&records).unwrap();
}

fn retained(journal: &mut Journal<LogStore>, number: u64) {
    let name = format!("sites/{}/device-{number:07}/state", number % 1_000);
    let message = Message::new(TopicName::new(&name).unwrap(), &[b'v'; 64]);
    let message = message.with_qos(QoS::AtLeastOnce).with_retain(true);
    let publisher = None;
    journal
        .apply(&[Record::RetainedPut { message, publisher }])
        .unwrap();
}

/// So many sessions without a client have as many subscriptions each, most of them to topics of their
/// own, and so many topics have a retained message of 64 bytes.
pub(crate) fn fill(dir: &Path, sessions: u64, subscriptions: u64, messages: u64) -> Result<()> {
    let mut journal = Journal::open(LogStore::open_dir(dir, LogOptions::default())?)?;
    for at in 0..sessions.max(messages) {
        if at < sessions {
            session(&mut journal, at, subscriptions);
        }
        if at < messages {
            retained(&mut journal, at);
        }
        if at % 1_000 == 999 {
            journal.sync()?;
            journal.store_mut().maintain(1 << 20)?;
        }
    }
    let store = journal.into_store();
    println!("{} bytes", store.disk_bytes());
    store.close()?;
    Ok(())
}
