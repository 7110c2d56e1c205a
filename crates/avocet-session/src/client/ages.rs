//! How long a client's messages wait to be sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_codec::QoS;

use crate::client::offline::publish_id;
use crate::client::{ClientNotice, NotPublished, PublishId};
use crate::{DropReason, Instant, Now, Session, UnixTime};

/// The shortest time between two looks through a queue for messages that have expired.
const LOOK: Duration = Duration::from_secs(1);

/// Ends the wait of messages that are older than a limit, or whose Message Expiry Interval has
/// passed, whether there is a connection or not. What is in flight stays: it may have arrived, and
/// is sent until it is acknowledged [MQTT5-4.4.0-1] [MQTT311-4.4.0-1].
///
/// A message of QoS 0 is as old as the one of QoS 1 or 2 behind it.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    max: Option<Duration>,
    /// The sequences of messages, and when they are too old; both rise.
    ends: VecDeque<(u64, Instant)>,
    /// No message expires before.
    expiry: Option<UnixTime>,
    /// When it was last looked for expired messages.
    looked: Option<Instant>,
}

impl Ages {
    /// Messages may wait for so long, or for ever.
    #[must_use]
    pub fn new(max: Option<Duration>) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn are_limited(&self) -> bool {
        self.max.is_some()
    }

    /// Whether no message waits that may go.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.ends.is_empty() && self.expiry.is_none()
    }

    /// A message waits behind the others of this Session: what
    /// [`Session::publish`](Session::publish) returned for it, and its deadline. True if
    /// [`Ages::poll_timeout`] may be earlier than it was.
    pub fn handle_published(
        &mut self,
        id: Option<PublishId>,
        expires_at: Option<UnixTime>,
        session: &Session,
        now: Now,
    ) -> bool {
        let mut first = self.handle_expiry(expires_at);
        if let (Some(max), Some(id)) = (self.max, id) {
            self.forget_sent(session);
            first |= self.ends.is_empty();
            self.ends.push_back((id.sequence(), now.instant + max));
        }
        first
    }

    /// A message that was queued by an earlier process waits: its place, and when it was queued.
    /// Those that came before were queued before.
    pub fn handle_restored(
        &mut self,
        sequence: u64,
        queued_at: UnixTime,
        expires_at: Option<UnixTime>,
        now: Now,
    ) {
        self.handle_expiry(expires_at);
        if let Some(max) = self.max {
            let left = max.saturating_sub(now.unix.duration_since(queued_at));
            let last = self.ends.back().map(|(_, end)| *end);
            // A clock that was set in between does not put them into another order.
            let end = last.unwrap_or_default().max(now.instant + left);
            self.ends.push_back((sequence, end));
        }
    }

    /// Whether this is the first one.
    fn handle_expiry(&mut self, expires_at: Option<UnixTime>) -> bool {
        let before = self.expiry;
        self.expiry = before.into_iter().chain(expires_at).min();
        self.expiry != before
    }

    /// Those that left have no age.
    fn forget_sent(&mut self, session: &Session) {
        let first = session.sent();
        while self.ends.front().is_some_and(|it| it.0 < first) {
            self.ends.pop_front();
        }
    }

    /// When to call [`Ages::handle_timeout`].
    pub fn poll_timeout(&mut self, session: &Session, now: Now) -> Option<Instant> {
        self.forget_sent(session);
        let too_old = self.ends.front().map(|(_, end)| *end);
        let expired = self.expiry.map(|at| {
            let at = now.instant + at.duration_since(now.unix);
            self.looked.map_or(at, |looked| at.max(looked + LOOK))
        });
        too_old.into_iter().chain(expired).min()
    }

    /// Time has passed: messages that have waited too long go, and are told.
    pub fn handle_timeout(
        &mut self,
        session: &mut Session,
        now: Now,
        notices: &mut Vec<ClientNotice>,
    ) {
        self.forget_sent(session);
        let mut end = None;
        while let Some((sequence, _)) = self.ends.pop_front_if(|it| it.1 <= now.instant) {
            end = Some(sequence + 1);
        }
        if let Some(end) = end {
            let dropped = session.sender.drop_before(end);
            notices.extend(told(dropped, NotPublished::TooOld));
        }
        let rested = self.looked.is_none_or(|at| at + LOOK <= now.instant);
        if rested && self.expiry.is_some_and(|at| at <= now.unix) {
            let dropped = session.sender.drop_expired(now.unix);
            let reason = NotPublished::Dropped(DropReason::Expired);
            notices.extend(told(dropped, reason));
            self.expiry = session.sender.next_expiry();
            self.looked = Some(now.instant);
        }
    }
}

fn told(dropped: Vec<(u64, QoS)>, reason: NotPublished) -> impl Iterator<Item = ClientNotice> {
    dropped
        .into_iter()
        .map(move |(sequence, qos)| ClientNotice::NotPublished {
            id: publish_id(qos, sequence),
            reason,
        })
}
