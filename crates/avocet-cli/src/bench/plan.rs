//! Who publishes what, who hears it, and how fast.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use avocet_codec::{QoS, Version};

use crate::bench::client::OUT_MAX;
use crate::bench_args::{OfflineArgs, RunArgs, TrafficArgs, Workload};
use crate::exit::Failure;

/// Which publishers a subscriber hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Its share of all.
    FanIn,
    /// All.
    FanOut,
    /// The one of its number.
    Pairs,
    /// All, and each message goes to one of the subscribers.
    Shared,
}

/// What makes a publisher send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Room: at most `window` messages of each publisher are on their way, and they leave `batch`
    /// at a time.
    Closed { window: u64, batch: u64 },
    /// The time: so many nanoseconds lie between the messages of all publishers.
    Open { interval: f64 },
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many nanoseconds of warm-up, and so many that are measured.
    Time { warm_up: u64, measured: u64 },
    /// So many messages.
    Count(u64),
}

/// A load, in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: &'static str,
    pub(crate) shape: Shape,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
    pub(crate) qos: QoS,
    pub(crate) maximum_qos: QoS,
    pub(crate) payload: usize,
    pub(crate) inflight: u16,
    pub(crate) load: Load,
    pub(crate) length: Length,
    /// Nanoseconds of silence after which no more is expected.
    pub(crate) drain: u64,
    pub(crate) threads: u32,
    pub(crate) names: Names,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_interval: u32,
    /// Gaps that each stream of messages remembers.
    pub(crate) ranges: usize,
}

/// Streams of messages, from one publisher to one subscriber, that are kept apart.
const STREAMS_MAX: u64 = 4_000_000;

/// Gaps that all streams together remember.
const RANGES_MAX: u64 = 1 << 22;

/// Topics of all publishers.
const TOPICS_MAX: u64 = 4_000_000;

/// Deliveries that are on their way at a time, unless a window is asked for.
const DELIVERIES_MAX: u64 = 100_000;

/// Deliveries to one subscriber that are on their way at a time, unless a window is asked for.
const PER_SUBSCRIBER: u64 = 1_000;

/// Messages of one publisher that leave in one write, unless it is asked for.
const BATCH_MAX: u64 = 64;

/// More than a PUBLISH has beside its payload.
const HEAD: usize = 128;

impl Plan {
    /// What the arguments ask for.
    ///
    /// # Errors
    ///
    /// What is more than this program keeps track of, with the options.
    pub(crate) fn new(workload: &Workload) -> Result<Self, Failure> {
        let (name, shape, publishers, subscribers, args) = match workload {
            Workload::FanIn {
                publishers,
                subscribers,
                traffic,
            } => ("fan-in", Shape::FanIn, publishers, subscribers, traffic),
            Workload::FanOut {
                publishers,
                subscribers,
                traffic,
            } => ("fan-out", Shape::FanOut, publishers, subscribers, traffic),
            Workload::Pairs { pairs, traffic } => ("pairs", Shape::Pairs, pairs, pairs, traffic),
            Workload::Shared {
                publishers,
                subscribers,
                traffic,
            } => ("shared", Shape::Shared, publishers, subscribers, traffic),
            Workload::Offline(args) => return Ok(Self::offline(args)),
            Workload::Connect(_) | Workload::Subscriptions(_) | Workload::Retained(_) => {
                return Err(Failure::new(
                    "no messages flow from publishers to subscribers",
                ));
            }
        };
        let (publishers, subscribers) = (publishers.get(), subscribers.get());
        if shape == Shape::FanIn && subscribers > publishers {
            return Err(Failure::new(
                "--subscribers: each needs a publisher (--publishers) that it hears",
            ));
        }
        let TrafficArgs { message, run, .. } = &**args;
        if run.server.protocol_version != Version::V5 && args.session_expiry_interval.is_some() {
            return Err(Failure::new(
                "-x: the session expiry interval needs MQTT 5.0 (-V 5)",
            ));
        }
        let topics = args.topics.get();
        let all_topics = u64::from(publishers) * u64::from(topics);
        if all_topics > TOPICS_MAX {
            return Err(Failure::new(format!(
                "--topics: {all_topics} in all, and no more than {TOPICS_MAX} can be kept apart"
            )));
        }
        let mut plan = Self {
            workload: name,
            shape,
            publishers,
            subscribers,
            topics,
            qos: args.qos,
            maximum_qos: args.sub_qos.unwrap_or(args.qos),
            payload: message.payload as usize,
            inflight: message.inflight.get(),
            load: Load::Open { interval: 0.0 },
            length: match args.count {
                Some(count) => Length::Count(count.get()),
                None => Length::Time {
                    warm_up: nanoseconds(args.warm_up),
                    measured: nanoseconds(args.duration),
                },
            },
            drain: nanoseconds(run.drain),
            threads: u32::from(args.threads),
            names: Names::new(run),
            clean_start: !args.keep_session,
            session_expiry_interval: args.session_expiry_interval.unwrap_or_else(|| {
                if args.keep_session && run.server.protocol_version == Version::V5 {
                    u32::MAX
                } else {
                    0
                }
            }),
            ranges: 0,
        };
        let streams = plan.streams();
        if streams * u64::from(topics) > STREAMS_MAX {
            return Err(Failure::new(format!(
                "--publishers, --subscribers, --topics: {streams} pairs of a publisher and a \
                 subscriber with {topics} topics each, and no more than {STREAMS_MAX} in all can \
                 be kept apart"
            )));
        }
        plan.ranges = usize::try_from(RANGES_MAX / streams).unwrap_or(usize::MAX);
        plan.load = match args.rate {
            Some(rate) => Load::Open {
                interval: 1e9 / rate,
            },
            None => {
                let window = args
                    .window
                    .map_or_else(|| plan.window(), |window| u64::from(window.get()));
                let at_once = match plan.qos {
                    QoS::AtMostOnce => window,
                    QoS::AtLeastOnce | QoS::ExactlyOnce => window.min(plan.inflight.into()),
                };
                let batch = match args.batch {
                    Some(batch) => u64::from(batch.get()).min(at_once),
                    None => (at_once / 2).clamp(1, BATCH_MAX),
                };
                // A batch that does not fit is never sent.
                let fits = (OUT_MAX / 2 / (plan.payload + HEAD)).max(1) as u64;
                let batch = batch.min(fits);
                Load::Closed { window, batch }
            }
        };
        Ok(plan)
    }

    fn offline(args: &OfflineArgs) -> Self {
        let pairs = args.pairs.get();
        Self {
            workload: "offline",
            shape: Shape::Pairs,
            publishers: pairs,
            subscribers: pairs,
            topics: 1,
            qos: args.qos,
            maximum_qos: args.qos,
            payload: args.message.payload as usize,
            inflight: args.message.inflight.get(),
            load: Load::Closed {
                window: u64::MAX,
                batch: 1,
            },
            length: Length::Count(args.messages.get()),
            drain: nanoseconds(args.run.drain),
            threads: 1,
            names: Names::new(&args.run),
            clean_start: true,
            session_expiry_interval: 0,
            ranges: usize::try_from(RANGES_MAX / u64::from(pairs)).unwrap_or(usize::MAX),
        }
    }

    fn window(&self) -> u64 {
        let heard = match self.shape {
            Shape::FanIn => self.publishers.div_ceil(self.subscribers),
            Shape::FanOut => self.publishers,
            Shape::Shared => self.publishers.div_ceil(self.subscribers),
            Shape::Pairs => 1,
        };
        let deliveries = u64::from(self.publishers) * self.fan_out();
        (PER_SUBSCRIBER / u64::from(heard))
            .min(DELIVERIES_MAX / deliveries)
            .max(1)
    }

    /// Pairs of a publisher and a subscriber that hears it.
    pub(crate) fn streams(&self) -> u64 {
        let heard_by = match self.shape {
            Shape::FanIn | Shape::Pairs => 1,
            Shape::FanOut | Shape::Shared => self.subscribers,
        };
        u64::from(self.publishers) * u64::from(heard_by)
    }

    /// How many times each message is delivered.
    pub(crate) fn fan_out(&self) -> u64 {
        match self.shape {
            Shape::FanIn | Shape::Pairs | Shape::Shared => 1,
            Shape::FanOut => self.subscribers.into(),
        }
    }

    /// How many publishers this subscriber hears.
    pub(crate) const fn heard_by(&self, subscriber: u32) -> u32 {
        match self.shape {
            Shape::FanIn => (self.publishers - subscriber).div_ceil(self.subscribers),
            Shape::FanOut | Shape::Shared => self.publishers,
            Shape::Pairs => 1,
        }
    }

    /// Which of those that this subscriber hears the publisher is.
    #[inline]
    pub(crate) const fn place(&self, subscriber: u32, publisher: u32) -> Option<u32> {
        match self.shape {
            Shape::FanIn if publisher % self.subscribers == subscriber => {
                Some(publisher / self.subscribers)
            }
            Shape::FanOut | Shape::Shared => Some(publisher),
            Shape::Pairs if publisher == subscriber => Some(0),
            Shape::FanIn | Shape::Pairs => None,
        }
    }

    /// The publisher at this place of those that this subscriber hears.
    pub(crate) const fn publisher_at(&self, subscriber: u32, place: u32) -> u32 {
        match self.shape {
            Shape::FanIn => place * self.subscribers + subscriber,
            Shape::FanOut | Shape::Shared => place,
            Shape::Pairs => subscriber,
        }
    }

    /// The QoS at which messages arrive.
    pub(crate) fn delivered_qos(&self) -> QoS {
        self.qos.min(self.maximum_qos)
    }

    /// Whether clients leave Sessions behind when they go.
    pub(crate) const fn keeps_sessions(&self) -> bool {
        !self.clean_start || self.session_expiry_interval > 0
    }

    /// How many messages this publisher sends, if that is limited.
    pub(crate) fn quota(&self, publisher: u32) -> Option<u64> {
        let Length::Count(count) = self.length else {
            return None;
        };
        let all = u64::from(self.publishers);
        Some(count / all + u64::from(u64::from(publisher) < count % all))
    }

    /// When a message of a publisher is due in an open loop, in nanoseconds from the start.
    #[inline]
    pub(crate) fn due(&self, interval: f64, publisher: u32, number: u64) -> u64 {
        ((number * u64::from(self.publishers) + u64::from(publisher)) as f64 * interval) as u64
    }

    /// One of the topics of a publisher.
    pub(crate) fn topic(&self, publisher: u32, topic: u32) -> String {
        let Names { seed } = self.names;
        let root = self.names.root();
        let topic = Names { seed: seed ^ 1 }.scatter(topic);
        let own = self.names.scatter(publisher);
        match self.shape {
            Shape::FanIn => {
                let group = Names { seed: seed ^ 2 }.scatter(publisher % self.subscribers);
                format!("{root}/{group:08x}/{own:08x}/{topic:08x}")
            }
            Shape::FanOut => format!("{root}/{topic:08x}"),
            Shape::Pairs | Shape::Shared => format!("{root}/{own:08x}/{topic:08x}"),
        }
    }

    /// What a subscriber subscribes to.
    pub(crate) fn filters(&self, subscriber: u32) -> Vec<String> {
        match self.shape {
            Shape::FanIn => {
                let Names { seed } = self.names;
                let group = Names { seed: seed ^ 2 }.scatter(subscriber);
                vec![format!("{}/{group:08x}/#", self.names.root())]
            }
            Shape::Shared => vec![format!("$share/bench/{}/#", self.names.root())],
            Shape::FanOut | Shape::Pairs => (0..self.topics)
                .map(|topic| self.topic(subscriber, topic))
                .collect(),
        }
    }
}

/// A time as it is counted here.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Names that differ from run to run, so that no server profits from having seen them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) seed: u64,
}

impl Names {
    pub(crate) fn new(run: &RunArgs) -> Self {
        Self {
            // The standard library's maps are seeded by the system; nothing here needs more.
            seed: run
                .seed
                .unwrap_or_else(|| RandomState::new().build_hasher().finish()),
        }
    }

    /// Where all topics of the run are.
    pub(crate) fn root(self) -> String {
        format!("avocet-bench/{:08x}", self.scatter(0))
    }

    /// A Client Identifier, which has room in 3.1 too.
    pub(crate) fn client_id(self, role: char, index: u32) -> String {
        let run = self.scatter(0);
        let own = Self {
            seed: self.seed ^ u64::from(role),
        };
        format!("ab{run:08x}-{role}{:08x}", own.scatter(index))
    }

    /// A number for each number, no two the same.
    pub(crate) fn scatter(self, index: u32) -> u32 {
        let [low, high] = [self.seed as u32, (self.seed >> 32) as u32];
        let mut mixed = index ^ low;
        // Each step can be undone: an odd factor, and a shift that is xored.
        mixed = (mixed ^ mixed >> 16).wrapping_mul(0x7feb_352d);
        mixed = (mixed ^ mixed >> 15).wrapping_add(high);
        mixed = mixed.wrapping_mul(0x846c_a68b);
        mixed ^ mixed >> 16
    }
}
