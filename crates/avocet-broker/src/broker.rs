//! A running broker.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
#[cfg(unix)]
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::Poll as TaskPoll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use avocet_engine::{Engine, PublishOutHook, ShardId};
use avocet_journal::Journal;
use avocet_store::LogStore;
use avocet_topic::Seed;
#[cfg(unix)]
use avocet_transport::UnixListenError;
use avocet_transport::{ListenError, TlsError};
use mio::{Interest, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tracing::info;

use crate::acceptor::{Acceptor, Bound, IN_PROCESS, Socket};
use crate::access::{self, AccessError, Files, Reloader, lock};
use crate::admission::Admission;
#[cfg(unix)]
use crate::backup::Backups;
use crate::certificates::Watch;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ListenAddress};
use crate::doors::{self, Doors};
use crate::heap;
use crate::hooks::{self, HookCounts, Hooked, Interests};
use crate::inbox::{Inbox, Mail};
use crate::memory::MemoryWatch;
use crate::pace::Pace;
use crate::quic::{self, QuicDoor};
use crate::recovery::{self, DataError};
use crate::shard::hooks::Questions;
use crate::shard::{self, Parts};
use crate::store::{StoreHandle, StoreInbox, StoreThread};
use crate::stream::{InProcessStream, Stream, pipe};
use crate::turning::Shards;

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of users or of rules cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A Unix socket could not be opened.
    #[cfg(unix)]
    #[error(transparent)]
    ListenUnix(#[from] UnixListenError),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The system gave no thread, or no way to wait for events.
    #[error("cannot start a shard: {0}")]
    System(#[from] io::Error),
}

/// A shard ended by a panic: a bug of the broker. The other shards were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} failed; the broker has stopped")]
pub struct ShardFailed(pub u16);

/// A broker that serves clients on threads of its own.
///
/// Dropping it asks it to stop and does not wait until it has; [`Broker::stop`] does.
#[derive(Debug)]
pub struct Broker {
    stopper: Stopper,
    reloader: Reloader,
    admission: Arc<Admission>,
    clock: Clock,
    /// It ends when this is dropped.
    watch: Option<Watch>,
    memory: Option<MemoryWatch>,
    threads: Vec<JoinHandle<()>>,
    store: Option<JoinHandle<()>>,
    quic: Option<JoinHandle<()>>,
    hooked: Option<Arc<Hooked>>,
    /// Ends when hooks were told of everything.
    events: Option<Mutex<Receiver<()>>>,
    stop_timeout: Duration,
    local_addrs: Vec<SocketAddr>,
    next_shard: AtomicUsize,
}

/// Asks a broker to stop, from any thread.
#[derive(Clone)]
pub struct Stopper {
    inboxes: Arc<[Arc<Inbox>]>,
    quic: Arc<watch::Sender<bool>>,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").finish_non_exhaustive()
    }
}

/// Asks whether the threads that serve clients still turn, from any thread.
#[derive(Clone)]
pub struct Pulse {
    inboxes: Arc<[Arc<Inbox>]>,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

impl Pulse {
    /// Whether each shard answered, each within `patience` of the one before. Not that of a disk: nothing
    /// durable is acknowledged while it does not answer, and a restart would not help. Blocks the thread.
    #[must_use]
    pub fn beats(&self, patience: Duration) -> bool {
        let (answer, answers) = sync_channel(self.inboxes.len());
        for inbox in &*self.inboxes {
            inbox.send(Mail::Answer(answer.clone()));
        }
        drop(answer);
        let mut shards = self.inboxes.iter();
        shards.all(|_| answers.recv_timeout(patience).is_ok())
    }
}

impl Stopper {
    /// Asks the broker to stop gracefully, as [`Broker::stop`] does, and does not wait for it.
    pub fn stop(&self) {
        for inbox in &*self.inboxes {
            inbox.send(Mail::Stop);
        }
        self.quic.send_replace(true);
    }
}

/// A broker that has taken its ports and read its files of users, rules, certificates and keys: all that may
/// need rights which it does not need later. Nobody is served yet, and there is no thread.
pub struct BoundBroker {
    config: Config,
    files: Files,
    doors: Doors,
    bound: Vec<Bound>,
}

impl std::fmt::Debug for BoundBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundBroker").finish_non_exhaustive()
    }
}

impl BoundBroker {
    /// Restores what the data directory holds, if there is one, opens the listeners and starts one
    /// thread per shard. Clients are served when it returns.
    pub fn start(self) -> Result<Broker, StartError> {
        let Self {
            config,
            files,
            doors,
            bound,
        } = self;
        let shards = config.shards.map_or_else(default_shards, NonZeroU16::get);

        let mut polls = Vec::new();
        let mut inboxes = Vec::new();
        for _ in 0..shards {
            let poll = Poll::new()?;
            inboxes.push(Arc::new(Inbox::new(Waker::new(
                poll.registry(),
                shard::WAKER,
            )?)));
            polls.push(poll);
        }
        let inboxes: Arc<[_]> = inboxes.into();

        let clock = Clock::start();
        let hooked = Hooked::new(&config.hooks, clock);
        let (engines, journal) = engines(&config, &files, shards, hooked.as_ref(), clock)?;
        let has_rules = files.rules.is_some();
        let bans = files.bans.clone().unwrap_or_default();
        let admission = Arc::new(Admission::new(&config, bans));
        let (authenticator, authorizer, reloader) =
            access::start(&config, files, &doors, clock, &admission, &inboxes)?;

        let asking = hooked
            .as_ref()
            .map(|hooked| hooks::start(hooked, &config.hooks, &inboxes))
            .transpose()?;
        let (asker, events) = asking.unzip();

        let mut sockets = Vec::new();
        let mut quic_doors = Vec::new();
        let mut local_addrs = Vec::new();
        let mut addresses = Vec::new();
        for (((index, listener), door), bound) in (0..).zip(&config.listen).zip(&*doors).zip(bound)
        {
            let address = match (bound, &door.layers.tls) {
                (Bound::Udp(socket), Some(tls)) => {
                    let address = ListenAddress::Tcp(socket.local_addr()?);
                    quic_doors.push(QuicDoor {
                        listener: index,
                        socket,
                        tls: Arc::clone(tls),
                        handshake_timeout: door.handshake_timeout,
                        idle_timeout: Some(listener.idle_timeout).filter(|it| !it.is_zero()),
                    });
                    address
                }
                (bound, _) => {
                    let mut socket = Socket::open(bound, listener)?;
                    let address = socket.address()?;
                    if let Some(poll) = polls.first() {
                        let token = shard::listener_token(index.into());
                        let registry = poll.registry();
                        registry.register(socket.source(), token, Interest::READABLE)?;
                    }
                    sockets.push((index, socket));
                    address
                }
            };
            if let ListenAddress::Tcp(address) = address {
                local_addrs.push(address);
            }
            addresses.push(address);
        }
        let mut acceptor = Acceptor::new(sockets);

        let mut broker = Broker {
            stopper: Stopper {
                inboxes: Arc::clone(&inboxes),
                quic: Arc::new(watch::Sender::new(false)),
            },
            reloader,
            admission: Arc::clone(&admission),
            clock,
            watch: None,
            memory: None,
            threads: Vec::new(),
            store: None,
            quic: None,
            hooked,
            events: events.map(Mutex::new),
            stop_timeout: config.stop_timeout,
            local_addrs,
            next_shard: AtomicUsize::new(0),
        };
        let uncommitted = config.engine.limits.uncommitted_bytes_max;
        let uncommitted = uncommitted.saturating_mul(shards.into());
        let store = journal
            .as_ref()
            .map(|_| Arc::new(StoreInbox::new(uncommitted)));
        let mut all_parts = Vec::new();
        let all_shards = Arc::new(Shards::new(shards));
        for ((index, poll), engine) in (0..).zip(polls).zip(engines) {
            let id = ShardId::new(index);
            let parts = Parts {
                id,
                engine,
                store: store.as_ref().map(|inbox| StoreHandle::new(id, inbox)),
                clock,
                registry: poll.registry().try_clone()?,
                inboxes: Arc::clone(&inboxes),
                acceptor: std::mem::take(&mut acceptor),
                doors: Arc::clone(&doors),
                admission: Arc::clone(&admission),
                handshakes_max: config.handshakes_max,
                packet_timeout: config.packet_timeout,
                gather_max: config.gather_max,
                stop_timeout: config.stop_timeout,
                authenticator: authenticator.clone(),
                authorizer: authorizer.clone(),
                questions: asker
                    .clone()
                    .map(|asker| Questions::new(id, asker, &config.hooks, has_rules)),
            };
            all_parts.push((parts, poll));
        }
        if let (Some(journal), Some(inbox)) = (journal, store) {
            let inboxes = Arc::clone(&inboxes);
            let thread = StoreThread {
                #[cfg(unix)]
                backups: config
                    .data_dir
                    .as_ref()
                    .and_then(|dir| backups(dir, &inbox)),
                journal,
                inbox,
                inboxes,
                clock,
                pace: Pace::default(),
            };
            broker.store = Some(spawn_store(thread, broker.stopper.clone())?);
        }
        if !quic_doors.is_empty() {
            let stopper = broker.stopper.clone();
            let shared = quic::Shared {
                inboxes: Arc::clone(&inboxes),
                admission: Arc::clone(&admission),
                clock,
                handshakes_max: config.handshakes_max,
                stop_timeout: config.stop_timeout,
                stop: stopper.quic.subscribe(),
            };
            broker.quic = Some(quic::start(quic_doors, shared, EndOfQuic(stopper))?);
        }
        for (parts, poll) in all_parts {
            // Should starting a later thread fail, dropping the broker stops these.
            let (all, stopper) = (Arc::clone(&all_shards), broker.stopper.clone());
            broker.threads.push(spawn(parts, poll, all, stopper)?);
        }
        for (address, door) in addresses.iter().zip(&*doors) {
            info!("listening on {address}{door}");
        }
        broker.watch = Watch::start(&doors, clock)?;
        broker.memory = MemoryWatch::start(config.memory_max, &inboxes)?;
        Ok(broker)
    }
}

impl Broker {
    /// Restores what the data directory holds, if there is one, opens the listeners and starts one
    /// thread per shard. Clients are served when it returns.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::bind(config)?.start()
    }

    /// Takes the ports and reads the files of users, rules, certificates and keys, which a program may do
    /// before it gives up rights.
    pub fn bind(config: Config) -> Result<BoundBroker, StartError> {
        config.check()?;
        let files = Files::load(&config.access)?;
        let doors = doors::open(&config.listen)?;
        let bound: Result<_, StartError> = config.listen.iter().map(Bound::take).collect();
        Ok(BoundBroker {
            bound: bound?,
            config,
            files,
            doors,
        })
    }

    /// The IP addresses listened on, in the order of the configuration, with the ports the system
    /// chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// A handle that asks this broker to stop.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// A handle that asks whether this broker still turns.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            inboxes: Arc::clone(&self.stopper.inboxes),
        }
    }

    /// A handle that reads the files of users, rules and certificates again.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// What became of the questions to [`Hooks`](crate::Hooks), and of their events.
    pub fn hook_counts(&self) -> HookCounts {
        let hooked = self.hooked.as_ref();
        hooked.map_or_else(HookCounts::default, |hooked| hooked.counts())
    }

    /// Stops gracefully and waits until all is done: listeners close, clients are told (5.0: DISCONNECT
    /// with 0x8B, server shutting down) and get what they were still to get, at most for
    /// [`Config::stop_timeout`]. Blocks the thread: not for async code.
    pub fn stop(self) -> Result<(), ShardFailed> {
        self.stopper.stop();
        self.wait()
    }

    /// Waits until the broker was stopped through a [`Stopper`], or has failed. Blocks the thread.
    pub fn wait(mut self) -> Result<(), ShardFailed> {
        let mut result = Ok(());
        for (index, thread) in (0..).zip(self.threads.drain(..)) {
            if thread.join().is_err() {
                result = Err(ShardFailed(index));
            }
        }
        // It ends with the last shard, once everything is on disk.
        if let Some(store) = self.store.take()
            && store.join().is_err()
            && result.is_ok()
        {
            result = Err(ShardFailed(u16::MAX));
        }
        if let Some(quic) = self.quic.take()
            && quic.join().is_err()
            && result.is_ok()
        {
            result = Err(ShardFailed(u16::MAX));
        }
        if let Some(events) = self.events.take() {
            // Fails when they were, as nothing is ever sent.
            let _ = lock(&events).recv_timeout(self.stop_timeout);
        }
        result
    }

    /// A connection to this broker within the process. It carries the same bytes as a socket.
    ///
    /// Once the broker has stopped, the connection is closed from the start.
    pub fn connect_in_process(&self) -> InProcessStream {
        let (stream, end) = pipe(None);
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let inboxes = &self.stopper.inboxes;
        let now = self.clock.now().instant;
        let arrived = self.admission.arrive(u16::MAX, None, now);
        let pass = match arrived {
            Ok(pass) => Some(pass),
            Err(refusal) => {
                self.admission.tell(refusal, &IN_PROCESS, u16::MAX, now);
                // Where too many wait to be told why, the stream is closed from the start.
                self.admission.refuse(refusal)
            }
        };
        if let (Some(inbox), Some(pass)) = (inboxes.get(shard % inboxes.len().max(1)), pass) {
            inbox.send(Mail::Accepted {
                stream: Stream::Pipe(end),
                peer: IN_PROCESS,
                listener: u16::MAX,
                pass,
            });
        }
        stream
    }

    /// Serves a client over any byte stream, until either side closes. The future does the work:
    /// await or spawn it.
    ///
    /// Fails when reading or writing the stream does.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = io::Result<()>> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broker = self.connect_in_process();
        async move {
            let (mut from_client, mut to_client) = tokio::io::split(stream);
            let (mut from_broker, mut to_broker) = tokio::io::split(broker);
            let mut inwards = pin!(async {
                let copied = tokio::io::copy(&mut from_client, &mut to_broker).await;
                to_broker.shutdown().await?;
                // A broker that has closed takes no more bytes, which is no failure of the stream.
                match copied {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(()),
                }
            });
            let mut outwards = pin!(async {
                tokio::io::copy(&mut from_broker, &mut to_client).await?;
                to_client.shutdown().await
            });
            // The broker closes when its client does, so the end of this direction is the end.
            let mut reading = true;
            std::future::poll_fn(|context| {
                if reading && let TaskPoll::Ready(result) = inwards.as_mut().poll(context) {
                    reading = false;
                    if result.is_err() {
                        return TaskPoll::Ready(result);
                    }
                }
                outwards.as_mut().poll(context)
            })
            .await
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

fn spawn(
    parts: Parts,
    poll: Poll,
    all: Arc<Shards>,
    stopper: Stopper,
) -> io::Result<JoinHandle<()>> {
    let name = format!("shard-{}", parts.id);
    let end = EndOfShard {
        index: parts.id.index(),
        stopper,
    };
    thread::Builder::new().name(name).spawn(move || {
        let _end = end;
        heap::grow_ahead();
        all.run(parts, poll);
    })
}

fn spawn_store(store: StoreThread, stopper: Stopper) -> io::Result<JoinHandle<()>> {
    let inbox = Arc::clone(&store.inbox);
    let end = EndOfStore { stopper, inbox };
    thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _end = end;
            store.run();
        })
}

/// A broker goes on without: not every file system has sockets.
#[cfg(unix)]
fn backups(dir: &Path, inbox: &Arc<StoreInbox>) -> Option<Backups> {
    let started = Backups::start(dir, Arc::clone(inbox));
    let warn = |error: &io::Error| {
        tracing::warn!(
            "`store export` works only while this broker is stopped: no socket in its data directory: {error}"
        );
    };
    started.inspect_err(warn).ok()
}

/// Without a store there is nothing to promise: the broker stops.
struct EndOfStore {
    stopper: Stopper,
    inbox: Arc<StoreInbox>,
}

impl Drop for EndOfStore {
    fn drop(&mut self) {
        self.inbox.close();
        self.stopper.stop();
    }
}

/// A broker without one of its doors stops whole, so that it is noticed.
struct EndOfQuic(Stopper);

impl Drop for EndOfQuic {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The engines of all shards, with what the data directory holds, and its journal.
fn engines(
    config: &Config,
    files: &Files,
    shards: u16,
    hooked: Option<&Arc<Hooked>>,
    clock: Clock,
) -> Result<(Vec<Engine>, Option<Journal<LogStore>>), StartError> {
    let dir = config.data_dir.as_ref().filter(|_| config.is_durable());
    let mut engine = config.engine.clone();
    engine.durability = match dir {
        Some(_) => avocet_engine::Durability::Stored,
        None => avocet_engine::Durability::Memory,
    };
    engine.levels = config.levels();
    // They are counted where they come in, for all shards together.
    engine.limits.connections_max = usize::MAX;
    engine.limits.flapping = Some(config.flapping).filter(|it| it.connects_max > 0);
    engine.authentication = if config.asks_clients() {
        avocet_engine::Authentication::Asked
    } else {
        avocet_engine::Authentication::None
    };
    let asked = files.judge.is_some() || config.hooks.interests().contains(Interests::AUTHORIZE);
    engine.authorization = match (asked, &files.rules) {
        (true, _) => avocet_engine::Authorization::Asked,
        (false, Some(_)) => avocet_engine::Authorization::Rules,
        (false, None) => avocet_engine::Authorization::None,
    };
    // Those who ask give up before.
    let patience = config.access.http_timeout + config.hooks.authorize_timeout;
    engine.authorization_timeout = patience + Duration::from_secs(1);
    if let Some(hooked) = hooked {
        let interests = hooked.interests;
        engine.publish_in = interests.contains(Interests::PUBLISH_IN);
        engine.subscription_events = interests.contains(Interests::EVENTS);
        if interests.contains(Interests::PUBLISH_OUT) {
            let hook: Arc<dyn PublishOutHook> = hooked.clone();
            engine.publish_out = Some(hook);
        }
    }
    let engine = Arc::new(engine);
    let now = clock.now();
    let new = |index| {
        let id = ShardId::new(index);
        let mut engine = Engine::new(Arc::clone(&engine), id, shards, seed(), now);
        if let Some(rules) = &files.rules {
            engine.set_rules(Arc::clone(rules));
        }
        if let Some(bans) = &files.bans {
            engine.set_bans(Arc::clone(&bans.clients));
        }
        if let Some(tenants) = &files.tenants {
            engine.set_tenants(Arc::clone(tenants));
        }
        engine
    };
    let mut engines: Vec<Engine> = (0..shards).map(new).collect();
    let Some(dir) = dir else {
        return Ok((engines, None));
    };
    let failed = |reason| DataError {
        dir: dir.clone(),
        reason,
    };
    let mut journal = recovery::open(dir).map_err(failed)?;
    let amounts = recovery::restore(&mut journal, &mut engines, now).map_err(failed)?;
    let took = clock.now().instant.duration_since(now.instant);
    info!(
        sessions = amounts.sessions,
        subscriptions = amounts.subscriptions,
        queued = amounts.queued,
        retained = amounts.retained,
        wills = amounts.wills,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "restored from {}",
        dir.display()
    );
    Ok((engines, Some(journal)))
}

/// What happens when the thread of a shard ends, also by a panic.
struct EndOfShard {
    index: usize,
    stopper: Stopper,
}

impl Drop for EndOfShard {
    fn drop(&mut self) {
        if let Some(inbox) = self.stopper.inboxes.get(self.index) {
            inbox.close();
        }
        // A broker that has lost a shard has lost a part of its clients' state: it stops whole.
        self.stopper.stop();
        // This thread may have been about to take the turns of others, which nobody has woken then.
        for inbox in &*self.stopper.inboxes {
            inbox.wake();
        }
    }
}

/// Half of the cores: what crosses between shards wakes a thread, which costs more than a message.
fn default_shards() -> u16 {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u16::try_from(cores / 2).unwrap_or(u16::MAX).clamp(1, 256)
}

/// Entropy of the system, by way of the keys of 128 bits that the standard library draws for its hash
/// maps.
fn seed() -> Seed {
    let keys = RandomState::new();
    Seed::new([0_u64, 1, 2, 3].map(|number| keys.hash_one(number)))
}
