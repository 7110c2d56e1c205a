//! Two clients with storages, and a broker, of which each fails at moments that a seed draws: a
//! process is killed while it stores, so that what it stores is lost or is there though nobody was
//! told, and the broker loses all connections and what was on its way. The clients, their drivers
//! and the engine are the real ones.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_client::{
    Backoff, Client, Config, MemoryStorage, Message, QoS, Reconnection, Record, Storage, Stored,
    TopicFilter, TopicName,
};
use avocet_testing::Broker;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::SECOND;

/// What the publisher's processes publish, all together.
const MESSAGES: u64 = 24;
const SEEDS: u64 = 100;
const END: &str = "end";

/// What happens when something is stored.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The process is killed before.
    KilledBefore,
    /// The process is killed after, and does not learn that it is stored.
    KilledAfter,
    /// The broker loses all connections.
    Cut,
}

/// A storage that survives the processes that use it.
#[derive(Clone)]
struct Disk {
    stored: MemoryStorage,
    state: Arc<Mutex<State>>,
    broker: Broker,
}

#[derive(Default)]
struct State {
    /// What happens at which call.
    faults: BTreeMap<u64, Fault>,
    calls: u64,
    /// What is stored, in order.
    records: Vec<Record>,
    /// Whether it says that something is stored which a kill takes back: a bug.
    lies: bool,
    /// Of a storage that lies.
    unsynced: Vec<Record>,
    /// To be killed; none if the process is over.
    process: Option<Arc<Notify>>,
}

impl Disk {
    fn new(broker: &Broker, faults: BTreeMap<u64, Fault>, lies: bool) -> Self {
        let state = State {
            faults,
            lies,
            ..State::default()
        };
        Self {
            stored: MemoryStorage::new(),
            state: Arc::new(Mutex::new(state)),
            broker: broker.clone(),
        }
    }

    /// Another process; what kills it.
    fn begin(&self) -> Arc<Notify> {
        let process = Arc::new(Notify::new());
        let mut state = self.state.lock().unwrap();
        state.process = Some(Arc::clone(&process));
        process
    }

    fn texts(&self, text: impl FnMut(&Record) -> Option<String>) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.records.iter().filter_map(text).collect()
    }

    /// What the publisher has stored.
    fn queued(&self) -> Vec<String> {
        self.texts(|record| match record {
            Record::Queued { message, .. } => Some(text(message.payload())),
            _ => None,
        })
    }

    /// What has entered the inbox.
    fn received(&self) -> Vec<String> {
        self.texts(|record| match record {
            Record::Received {
                message: Some(stored),
                ..
            } => Some(text(stored.message.payload())),
            _ => None,
        })
    }

    /// What the application has acknowledged.
    fn taken(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let mut places = BTreeMap::new();
        let mut taken = Vec::new();
        for record in &state.records {
            match record {
                Record::Received {
                    message: Some(stored),
                    ..
                } => {
                    places.insert(stored.place, text(stored.message.payload()));
                }
                Record::Taken { place } => taken.extend(places.remove(place)),
                _ => {}
            }
        }
        taken
    }
}

/// The storage as one process has it.
struct Life {
    disk: Disk,
    process: Arc<Notify>,
}

impl Storage for Life {
    fn load(&mut self) -> Result<Stored, Box<dyn Error + Send + Sync>> {
        self.disk.stored.load()
    }

    fn store(&mut self, records: &[Record]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut state = self.disk.state.lock().unwrap();
        let lives = state
            .process
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &self.process));
        if !lives {
            return Err("this process was killed".into());
        }
        state.calls += 1;
        let calls = state.calls;
        let fault = state.faults.remove(&calls);
        if let Some(Fault::KilledBefore | Fault::KilledAfter) = fault {
            state.process = None;
            state.unsynced.clear();
            self.process.notify_one();
        }
        if let Some(Fault::KilledBefore) = fault {
            return Err("killed".into());
        }
        state.unsynced.extend_from_slice(records);
        if !state.lies || calls.is_multiple_of(3) {
            let synced = std::mem::take(&mut state.unsynced);
            self.disk.stored.store(&synced)?;
            state.records.extend(synced);
        }
        drop(state);
        match fault {
            Some(Fault::KilledAfter) => Err("killed".into()),
            Some(Fault::Cut) => {
                self.disk.broker.cut();
                Ok(())
            }
            Some(Fault::KilledBefore) | None => Ok(()),
        }
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

fn message(payload: &str) -> Message {
    Message::new(TopicName::new("t").unwrap(), payload.as_bytes()).with_qos(QoS::ExactlyOnce)
}

fn config(broker: &Broker, client_id: &str) -> Config {
    let mut config = broker.config(client_id);
    config.connection.session_expiry_interval = 3600;
    config.manual_acknowledge = true;
    config.reconnect = Some(Reconnection {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(4)),
        ..Reconnection::default()
    });
    config
}

/// Runs a process until it ends or is killed; none if it was killed.
async fn process<T: Send + 'static>(
    disk: &Disk,
    mut config: Config,
    run: impl AsyncFnOnce(Config) -> T + Send + 'static,
) -> Option<T> {
    let killed = disk.begin();
    config.storage = Some(Box::new(Life {
        disk: disk.clone(),
        process: Arc::clone(&killed),
    }));
    let ended = spawn_blocking(move || {
        // With its runtime everything of the process ends, in the middle of whatever it does.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            tokio::select! {
                () = killed.notified() => None,
                value = run(config) => Some(value),
            }
        })
    });
    let ended = ended.await.unwrap();
    disk.state.lock().unwrap().process = None;
    ended
}

/// Publishes the numbers that no process has tried before; which ones are stored, it was told.
async fn publish_all(broker: &Broker, disk: &Disk) -> Vec<String> {
    let next = Arc::new(Mutex::new(0));
    let told = Arc::new(Mutex::new(Vec::new()));
    loop {
        let (next, known) = (Arc::clone(&next), Arc::clone(&told));
        let published = process(disk, config(broker, "p"), async move |config| {
            let (client, _messages) = Client::start(config).unwrap();
            loop {
                let number = *next.lock().unwrap();
                if number == MESSAGES {
                    break;
                }
                *next.lock().unwrap() += 1;
                let pending = client.start_publish(message(&number.to_string())).await;
                let pending = pending.unwrap();
                // Now and then several of them are on their way.
                if number % 3 != 0 && pending.stored().await.is_ok() {
                    known.lock().unwrap().push(number.to_string());
                }
            }
            client.disconnect(60 * SECOND).await;
        });
        if published.await.is_some() {
            return told.lock().unwrap().clone();
        }
    }
}

/// Takes and acknowledges messages until the end comes; everything that was handed out.
async fn receive_all(broker: &Broker, disk: &Disk) -> Result<Vec<String>, String> {
    let handed = Arc::new(Mutex::new(Vec::new()));
    loop {
        let done = disk.taken();
        let out = Arc::clone(&handed);
        let received = process(disk, config(broker, "s"), async move |config| {
            let (client, mut messages) = Client::start(config).unwrap();
            loop {
                let mut message = messages.receive().await.unwrap();
                let payload = text(message.payload());
                if done.contains(&payload) {
                    return Err(format!("{payload} was acknowledged, and came again"));
                }
                // What was told by now may be lost with this process.
                let _ = message.acknowledge();
                let is_end = payload == END;
                out.lock().unwrap().push(payload);
                if is_end {
                    client.disconnect(60 * SECOND).await;
                    return Ok(());
                }
            }
        });
        if let Some(ended) = received.await {
            return ended.map(|()| handed.lock().unwrap().clone());
        }
        // Killed while it stored that the end was acknowledged.
        if disk.taken().iter().any(|it| it == END) {
            return Ok(handed.lock().unwrap().clone());
        }
    }
}

/// Numbers that are as good as any, one after the other.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)) % end
    }

    fn faults(&mut self) -> BTreeMap<u64, Fault> {
        let mut faults = BTreeMap::new();
        for _ in 0..self.below(5) {
            let fault = match self.below(3) {
                0 => Fault::KilledBefore,
                1 => Fault::KilledAfter,
                _ => Fault::Cut,
            };
            faults.insert(1 + self.below(2 * MESSAGES), fault);
        }
        faults
    }
}

/// One system; what it broke, if anything.
async fn play(seed: u64, lies: bool) -> Result<(), String> {
    let mut draw = Draw(seed);
    let broker = Broker::start();
    let outbox = Disk::new(&broker, draw.faults(), lies);
    let inbox = Disk::new(&broker, draw.faults(), false);
    {
        let config = config(&broker, "s");
        let (subscriber, _messages) = Client::connect(config).await.unwrap();
        let filter = TopicFilter::new("t").unwrap();
        let subscribed = subscriber.subscribe(filter, QoS::ExactlyOnce).await;
        subscribed.unwrap();
        subscriber.disconnect(SECOND).await;
    }
    let all = async {
        let published = async {
            let told = publish_all(&broker, &outbox).await;
            let (last, _messages) = Client::start(broker.config("last")).unwrap();
            last.publish(message(END)).await.unwrap();
            told
        };
        tokio::join!(published, receive_all(&broker, &inbox))
    };
    let Ok((told, handed)) = timeout(60 * SECOND, all).await else {
        return Err("it hangs".into());
    };
    let handed = handed?;
    let mut received = inbox.received();
    received.retain(|it| it != END);
    if let Some(lost) = told.iter().find(|it| !received.contains(it)) {
        return Err(format!("{lost} was stored, and is not in the inbox"));
    }
    let queued = outbox.queued();
    if received != queued {
        return Err(format!("stored {queued:?}, but in the inbox {received:?}"));
    }
    match received.iter().find(|it| !handed.contains(it)) {
        Some(kept) => Err(format!("{kept} was never handed out")),
        None => Ok(()),
    }
}

/// With `AVOCET_CLIENT_SEED` it begins there, and with `AVOCET_CLIENT_SEEDS` it runs as many. A seed
/// decides what fails when something is stored; how threads take turns is not its own.
#[tokio::test]
async fn what_is_stored_enters_the_inbox_once_whoever_fails_and_when() {
    let given = |name, default| {
        let given = std::env::var(name).ok();
        given.map_or(default, |it| it.parse().unwrap())
    };
    let first = given("AVOCET_CLIENT_SEED", 1);
    for seed in first..first + given("AVOCET_CLIENT_SEEDS", SEEDS) {
        let outcome = play(seed, false).await;
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

#[tokio::test]
async fn a_storage_that_says_too_early_that_it_has_stored_is_found() {
    for seed in 1..=SEEDS {
        if let Err(broken) = play(seed, true).await {
            println!("found with seed {seed}: {broken}");
            return;
        }
    }
    panic!("the bug is not found in {SEEDS} seeds");
}
