//! The threads that put questions to [`Hooks`], and those questions on their way.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode};
use avocet_engine::{PublishIn, PublishOut, PublishOutHook, Recipient, ShardId};
use avocet_session::{CloseReason, Instant, Message};
use avocet_topic::TopicFilterBuf;
use tracing::warn;

use super::{
    Authenticate, Authenticated, Authorize, Authorized, Client, HookSettings, Hooks, Interests,
    Publication,
};
use crate::access::{Origin, lock, origin};
use crate::clock::Clock;
use crate::inbox::{Inbox, Mail};
use crate::queue::{Giver, Taker, fair};

/// Events that may wait, whatever the settings say.
const EVENTS_MAX: usize = 1_000_000;

/// How often at most the operator is told of the same trouble.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What became of questions and events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookCounts {
    /// Questions that were put, [`Hooks::publish_out`] apart.
    pub asked: u64,
    /// Questions whose deadline passed.
    pub missed: u64,
    /// Questions whose [`Answer`] was dropped.
    pub unanswered: u64,
    /// Answers that came when nobody waited for them any more.
    pub late: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Calls of [`Hooks::publish_out`] that took longer than they may.
    pub slow: u64,
    /// Events that were dropped, because too many waited.
    pub events_dropped: u64,
}

/// The same while they change.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    asked: AtomicU64,
    missed: AtomicU64,
    unanswered: AtomicU64,
    late: AtomicU64,
    panicked: AtomicU64,
    slow: AtomicU64,
    events_dropped: AtomicU64,
}

impl Counts {
    pub(crate) fn count_late(&self) {
        count(&self.late);
    }

    pub(crate) fn count_unanswered(&self) {
        count(&self.unanswered);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Says something to the operator, and not again for a while.
#[derive(Debug, Default)]
struct Seldom(AtomicU64);

impl Seldom {
    /// Whether it is time to.
    fn may(&self, now: Instant) -> bool {
        let now = now.duration_since(Instant::ORIGIN).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX).max(1);
        let last = self.0.load(Ordering::Relaxed);
        let again = u64::try_from(TELL_AGAIN.as_millis()).unwrap_or(u64::MAX);
        let due = last == 0 || now.saturating_sub(last) >= again;
        let order = Ordering::Relaxed;
        due && self.0.compare_exchange(last, now, order, order).is_ok()
    }
}

/// Hooks, and what is known of how they do.
pub(crate) struct Hooked {
    hooks: Arc<dyn Hooks>,
    pub(crate) interests: Interests,
    budget: Duration,
    clock: Clock,
    pub(crate) counts: Counts,
    told_slow: Seldom,
    told_panic: Seldom,
    told_missed: Seldom,
    told_events: Seldom,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked")
            .field("interests", &self.interests)
            .finish_non_exhaustive()
    }
}

impl Hooked {
    /// None where nothing is asked and nobody is told.
    pub(crate) fn new(settings: &HookSettings, clock: Clock) -> Option<Arc<Self>> {
        let hooks = Arc::clone(settings.hooks.as_ref()?);
        let interests = hooks.interests();
        (interests != Interests::NONE).then(|| {
            Arc::new(Self {
                hooks,
                interests,
                budget: settings.publish_out_budget,
                clock,
                counts: Counts::default(),
                told_slow: Seldom::default(),
                told_panic: Seldom::default(),
                told_missed: Seldom::default(),
                told_events: Seldom::default(),
            })
        })
    }

    pub(crate) fn counts(&self) -> HookCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        HookCounts {
            asked: read(&counts.asked),
            missed: read(&counts.missed),
            unanswered: read(&counts.unanswered),
            late: read(&counts.late),
            panicked: read(&counts.panicked),
            slow: read(&counts.slow),
            events_dropped: read(&counts.events_dropped),
        }
    }

    /// Calls a hook; none if it panics.
    fn call<T>(&self, what: &'static str, hook: impl FnOnce(&dyn Hooks) -> T) -> Option<T> {
        // A program that panics while it holds something of its own sees to that itself.
        let called = catch_unwind(AssertUnwindSafe(|| hook(&*self.hooks)));
        if called.is_err() {
            count(&self.counts.panicked);
            if self.told_panic.may(self.clock.now().instant) {
                warn!("the hook {what} panicked, which counts as a refusal");
            }
        }
        called.ok()
    }

    /// The answer to a question did not come in time.
    pub(crate) fn miss(&self, what: &'static str, now: Instant) {
        count(&self.counts.missed);
        if self.told_missed.may(now) {
            warn!("the hook {what} did not answer in time");
        }
    }

    fn lose_event(&self) {
        count(&self.counts.events_dropped);
        if self.told_events.may(self.clock.now().instant) {
            warn!("hooks are told of events too slowly: some are dropped");
        }
    }

    /// Tells of an event.
    fn tell(&self, told: Told) {
        match told {
            Told::Connected(client) => {
                self.call("connected", |hooks| hooks.connected(&client));
            }
            Told::Disconnected(client, reason) => {
                self.call("disconnected", |hooks| hooks.disconnected(&client, reason));
            }
            Told::Subscribed(client, filters) => {
                for (filter, code) in &filters {
                    let granted = QoS::from_u8(*code as u8);
                    if let Some(granted) = granted {
                        self.call("subscribed", |hooks| {
                            hooks.subscribed(&client, filter, granted);
                        });
                    }
                }
            }
            Told::Unsubscribed(client, filters) => {
                for (filter, code) in &filters {
                    if *code == ReasonCode::Success {
                        self.call("unsubscribed", |hooks| hooks.unsubscribed(&client, filter));
                    }
                }
            }
        }
    }
}

impl PublishOutHook for Hooked {
    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut {
        let began = self.clock.now().instant;
        let out = self.call("publish_out", |hooks| hooks.publish_out(message, to));
        let ended = self.clock.now().instant;
        let took = ended.duration_since(began);
        if took > self.budget {
            count(&self.counts.slow);
            if self.told_slow.may(ended) {
                let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                warn!(
                    client_id = to.session.client_id(),
                    milliseconds, "the hook publish_out is slow, and all its shard waits"
                );
            }
        }
        out.unwrap_or(PublishOut::Refuse)
    }
}

/// What hooks are told.
pub(crate) enum Told {
    Connected(Arc<Client>),
    Disconnected(Arc<Client>, CloseReason),
    Subscribed(Arc<Client>, Vec<(TopicFilterBuf, ReasonCode)>),
    Unsubscribed(Arc<Client>, Vec<(TopicFilterBuf, ReasonCode)>),
}

/// What comes of a question.
pub(crate) enum Reply {
    Authenticated(Authenticated),
    Authorized(Authorized),
    PublishIn(PublishIn),
    /// The answer was dropped.
    Nothing,
    /// By a panic.
    Panicked,
}

/// The place for one answer. Given from any thread, at once or later; dropped, it counts as a missed
/// deadline.
pub struct Answer<T> {
    /// Until it is given.
    asked: Option<Asked>,
    kind: PhantomData<fn(T)>,
}

/// Who waits for an answer.
struct Asked {
    shard: ShardId,
    number: u64,
    until: Instant,
    clock: Clock,
    inboxes: Arc<[Arc<Inbox>]>,
}

impl Asked {
    fn reply(self, reply: Reply) {
        if let Some(inbox) = self.inboxes.get(self.shard.index()) {
            inbox.send(Mail::Hooked(self.number, Box::new(reply)));
        }
    }
}

impl<T> Answer<T> {
    /// Whether the deadline has passed: nobody waits for it any more.
    #[must_use]
    pub fn is_late(&self) -> bool {
        let asked = self.asked.as_ref();
        asked.is_none_or(|asked| asked.until <= asked.clock.now().instant)
    }

    /// Says nothing, not even that it is dropped.
    fn forget(mut self) {
        self.asked = None;
    }
}

impl Answer<Authenticated> {
    /// Answers. Nothing comes of it if the deadline has passed or the client has gone.
    pub fn give(mut self, answer: Authenticated) {
        if let Some(asked) = self.asked.take() {
            asked.reply(Reply::Authenticated(answer));
        }
    }
}

impl Answer<Authorized> {
    /// Answers. Nothing comes of it if the deadline has passed or the client has gone.
    pub fn give(mut self, answer: Authorized) {
        if let Some(asked) = self.asked.take() {
            asked.reply(Reply::Authorized(answer));
        }
    }
}

impl Answer<PublishIn> {
    /// Answers. Nothing comes of it if the deadline has passed or the client has gone.
    pub fn give(mut self, answer: PublishIn) {
        if let Some(asked) = self.asked.take() {
            asked.reply(Reply::PublishIn(answer));
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.reply(if thread::panicking() {
                Reply::Panicked
            } else {
                Reply::Nothing
            });
        }
    }
}

/// A question on its way.
pub(crate) enum Job {
    Authenticate(Authenticate, Answer<Authenticated>),
    Authorize(Authorize, Answer<Authorized>),
    PublishIn(Publication, Answer<PublishIn>),
}

/// A question that waits for its turn; nothing once it was put, or its deadline has passed.
pub(crate) type Waiting = Arc<Mutex<Option<Job>>>;

/// Forgets a question whose deadline has passed, with the message it is about.
pub(crate) fn forget(waiting: &Waiting) {
    let job = lock(waiting).take();
    if let Some(job) = job {
        job.forget();
    }
}

impl Job {
    fn is_late(&self) -> bool {
        match self {
            Self::Authenticate(_, answer) => answer.is_late(),
            Self::Authorize(_, answer) => answer.is_late(),
            Self::PublishIn(_, answer) => answer.is_late(),
        }
    }

    fn forget(self) {
        match self {
            Self::Authenticate(_, answer) => answer.forget(),
            Self::Authorize(_, answer) => answer.forget(),
            Self::PublishIn(_, answer) => answer.forget(),
        }
    }
}

/// Questions that may wait for a thread, those whose deadline has passed included. Beyond, a question counts as
/// missed.
const QUESTIONS_MAX: usize = 1 << 20;

/// Where a shard puts its questions and events.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) hooked: Arc<Hooked>,
    jobs: Giver<Origin, Waiting>,
    events: SyncSender<Told>,
    inboxes: Arc<[Arc<Inbox>]>,
}

impl Asker {
    /// Puts a question about a client from there.
    pub(crate) fn ask<T>(
        &self,
        address: Option<IpAddr>,
        (shard, number, until): (ShardId, u64, Instant),
        job: impl FnOnce(Answer<T>) -> Job,
    ) -> Waiting {
        count(&self.hooked.counts.asked);
        let answer = Answer {
            asked: Some(Asked {
                shard,
                number,
                until,
                clock: self.hooked.clock,
                inboxes: Arc::clone(&self.inboxes),
            }),
            kind: PhantomData,
        };
        let waiting = Arc::new(Mutex::new(Some(job(answer))));
        if let Err(other) = self.jobs.put(origin(address), Arc::clone(&waiting)) {
            // Dropped, it ends its question.
            lock(&other).take();
        }
        waiting
    }

    pub(crate) fn tell(&self, told: Told) {
        if self.events.try_send(told).is_err() {
            self.hooked.lose_event();
        }
    }
}

/// Starts the threads. They end with the shards; the second value is told when the last event is.
pub(crate) fn start(
    hooked: &Arc<Hooked>,
    settings: &HookSettings,
    inboxes: &Arc<[Arc<Inbox>]>,
) -> io::Result<(Asker, Receiver<()>)> {
    let (jobs, asked) = fair(QUESTIONS_MAX);
    for number in 0..settings.threads.max(1) {
        let (hooked, asked) = (Arc::clone(hooked), asked.clone());
        thread::Builder::new()
            .name(format!("hooks-{number}"))
            .spawn(move || put_all(&hooked, &asked))?;
    }
    let tells = hooked.interests.contains(Interests::EVENTS);
    // The room for them is taken at once.
    let events_max = if tells { settings.events_max } else { 0 };
    let (events, told) = sync_channel(events_max.min(EVENTS_MAX));
    let (ended, end) = sync_channel(1);
    let teller = Arc::clone(hooked);
    thread::Builder::new()
        .name("hook-events".to_owned())
        .spawn(move || {
            for event in told {
                teller.tell(event);
            }
            drop(ended);
        })?;
    let asker = Asker {
        hooked: Arc::clone(hooked),
        jobs,
        events,
        inboxes: Arc::clone(inboxes),
    };
    Ok((asker, end))
}

fn put_all(hooked: &Hooked, asked: &Taker<Origin, Waiting>) {
    while let Some(waiting) = asked.take() {
        let Some(job) = lock(&waiting).take() else {
            continue;
        };
        match job {
            // The shard keeps the deadline.
            job if job.is_late() => job.forget(),
            Job::Authenticate(request, answer) => {
                hooked.call("authenticate", |hooks| hooks.authenticate(request, answer));
            }
            Job::Authorize(request, answer) => {
                hooked.call("authorize", |hooks| hooks.authorize(request, answer));
            }
            Job::PublishIn(publication, answer) => {
                hooked.call("publish_in", |hooks| hooks.publish_in(publication, answer));
            }
        }
    }
}
