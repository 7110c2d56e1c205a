//! Messages that wait too long to be sent.

use std::time::Duration;

use avocet_codec::{QoS, Version};
use avocet_session::client::{Ages, ClientConfig, ClientNotice, NotPublished, PublishId};
use avocet_session::{
    DropReason, Instant, Message, Now, Outgoing, RestoredMessage, Session, UnixTime,
};

use crate::pair::message;

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Now {
    Now::new(
        Instant::from_nanos(5_000_000_000),
        UnixTime::from_millis(1_700_000_000_000),
    )
}

/// A queue without a connection.
struct Queue {
    session: Session,
    ages: Ages,
    config: ClientConfig,
}

impl Queue {
    fn new(max_age: Option<Duration>) -> Self {
        let mut config = ClientConfig::new(Version::V5, "c");
        config.limits.queue_qos0 = true;
        Self {
            session: Session::new(),
            ages: Ages::new(max_age),
            config,
        }
    }

    fn publish(&mut self, message: Message, now: Now) -> Option<PublishId> {
        let expires_at = message.expires_at();
        let mut notices = Vec::new();
        let id = self
            .session
            .publish(message, &self.config, None, now, &mut notices)
            .unwrap();
        self.ages
            .handle_published(id, expires_at, &self.session, now);
        id
    }

    /// The messages that go, each with its reason.
    fn look(&mut self, now: Now) -> Vec<(Option<PublishId>, NotPublished)> {
        let mut notices = Vec::new();
        self.ages
            .handle_timeout(&mut self.session, now, &mut notices);
        let told = notices.into_iter().map(|notice| match notice {
            ClientNotice::NotPublished { id, reason } => (id, reason),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn next(&mut self, now: Now) -> Option<Duration> {
        let next = self.ages.poll_timeout(&self.session, now)?;
        Some(next.duration_since(now.instant))
    }
}

#[test]
fn messages_that_wait_too_long_go_in_their_order() {
    let mut queue = Queue::new(Some(10 * SECOND));
    let now = start();
    assert_eq!(queue.next(now), None);
    let first = queue.publish(message("a", "1", QoS::AtLeastOnce), now);
    queue.publish(message("a", "0", QoS::AtMostOnce), now + SECOND);
    let second = queue.publish(message("a", "2", QoS::ExactlyOnce), now + SECOND);
    queue.publish(message("a", "3", QoS::AtLeastOnce), now + 2 * SECOND);
    assert_eq!(queue.next(now + 2 * SECOND), Some(8 * SECOND));
    assert_eq!(queue.look(now + 9 * SECOND), []);
    assert_eq!(
        queue.look(now + 10 * SECOND),
        [(first, NotPublished::TooOld)]
    );
    assert_eq!(queue.next(now + 10 * SECOND), Some(SECOND));
    assert_eq!(
        queue.look(now + 11 * SECOND),
        [(None, NotPublished::TooOld), (second, NotPublished::TooOld)]
    );
    assert_eq!(
        (queue.session.queued(), queue.session.queued_bytes()),
        (1, 2)
    );
    assert_eq!(queue.look(now + 100 * SECOND).len(), 1);
    assert_eq!(
        (queue.session.queued(), queue.session.queued_bytes()),
        (0, 0)
    );
    assert_eq!(queue.next(now + 100 * SECOND), None);
}

/// [MQTT5-3.3.2-5]
#[test]
fn an_expired_message_goes_without_a_connection() {
    let mut queue = Queue::new(None);
    let now = start();
    let expiring = |seconds, qos| {
        let message = Message::clone(&message("a", "x", qos));
        message.with_expiry(Some(seconds), now.unix)
    };
    queue.publish(message("a", "stays", QoS::AtLeastOnce), now);
    let later = queue.publish(expiring(60, QoS::AtLeastOnce), now);
    let sooner = queue.publish(expiring(20, QoS::ExactlyOnce), now);
    queue.publish(expiring(20, QoS::AtMostOnce), now);
    assert_eq!(queue.next(now + 5 * SECOND), Some(15 * SECOND));
    assert_eq!(queue.look(now + 19 * SECOND), []);
    let expired = NotPublished::Dropped(DropReason::Expired);
    let gone = queue.look(now + 20 * SECOND);
    assert_eq!(gone, [(None, expired), (sooner, expired)]);
    assert_eq!(queue.next(now + 20 * SECOND), Some(40 * SECOND));
    assert_eq!(queue.look(now + 61 * SECOND), [(later, expired)]);
    assert_eq!(queue.session.queued(), 1);
    assert_eq!(queue.next(now + 61 * SECOND), None);
}

#[test]
fn a_queue_is_not_looked_through_more_often_than_once_a_second() {
    let mut queue = Queue::new(None);
    let now = start();
    for millis in [1000, 1001, 1900] {
        let expires_at = now.unix + Duration::from_millis(millis);
        let message = Message::clone(&message("a", "x", QoS::AtLeastOnce));
        queue.publish(message.with_expires_at(Some(expires_at)), now);
    }
    assert_eq!(queue.look(now + SECOND).len(), 1);
    let soon = now + Duration::from_millis(1002);
    assert_eq!(queue.look(soon), []);
    assert_eq!(queue.next(soon), Some(Duration::from_millis(998)));
    assert_eq!(queue.look(now + 2 * SECOND).len(), 2);
}

/// What may have been sent by an earlier process is sent again, however old; what was not keeps its
/// age, whatever the monotonic clock of this process says.
#[test]
fn messages_of_an_earlier_process_keep_their_age() {
    let mut queue = Queue::new(Some(60 * SECOND));
    let now = start();
    let ago = |seconds: u64| UnixTime::from_millis(now.unix.as_millis() - 1000 * seconds);
    let stored = [
        (7, true, ago(500)),
        (8, false, ago(61)),
        (9, false, ago(20)),
    ];
    queue
        .session
        .restore_messages(stored.map(|(sequence, sent, _)| RestoredMessage {
            sequence,
            outgoing: Outgoing::new(message("a", "x", QoS::AtLeastOnce)),
            sent,
            pubrec_received: false,
        }));
    for (sequence, _, queued_at) in stored {
        queue.ages.handle_restored(sequence, queued_at, None, now);
    }
    let gone = queue.look(now);
    assert!(matches!(gone[..], [(Some(id), NotPublished::TooOld)] if id.sequence() == 8));
    assert_eq!((queue.session.in_flight(), queue.session.queued()), (1, 1));
    assert_eq!(queue.next(now), Some(40 * SECOND));
}
