//! The engine of the broker, with a task instead of sockets and threads.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use avocet_client::{Address, ByteStream, ClientConfig, Config, ConnectError, Connector, Version};
use avocet_engine::{
    Accepted, Command, ConnectionId, Engine, EngineConfig, Opened, ShardId, Verdict,
};
use avocet_session::{Demand, TransmitBuf};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::clock::Clock;

/// Bytes on their way in each direction.
const STREAM_LEN: usize = 64 * 1024;
/// Bytes read at once.
const READ_LEN: usize = 4096;
/// Entropy of the engine: always the same, so that a test is.
const SEED: u64 = 1;

/// A broker in memory: a cheap handle, clones of which are the same broker. It ends with the last
/// one, and with it all connections.
#[derive(Clone, Debug)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
}

struct State {
    engine: Engine,
    config: Arc<EngineConfig>,
    clock: Clock,
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
    reachable: bool,
    /// The task, if it sleeps.
    task: Option<Waker>,
}

struct Connection {
    stream: DuplexStream,
    input: Vec<u8>,
    output: TransmitBuf,
    /// The engine has more to send.
    more: bool,
    /// The engine takes nothing for now.
    paused: bool,
    /// What was read has been offered to the engine.
    offered: bool,
    /// To be closed when everything is written.
    closing: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a broker in the runtime of the caller. It takes every client, and has neither limits
    /// nor `$SYS` topics that a test would notice.
    #[must_use]
    pub fn start() -> Self {
        let mut config = EngineConfig::default();
        config.sys_interval = None;
        Self::start_with(config)
    }

    /// Starts a broker with this configuration. Nothing it holds is stored, whatever that says.
    #[must_use]
    pub fn start_with(mut config: EngineConfig) -> Self {
        config.durability = avocet_engine::Durability::Memory;
        let config = Arc::new(config);
        let clock = Clock::new();
        let state = State {
            engine: engine(&config, clock),
            config,
            clock,
            connections: BTreeMap::new(),
            next: 1,
            reachable: true,
            task: None,
        };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
        });
        let weak = Arc::downgrade(&inner);
        let mut alarm: Pin<Box<Sleep>> = Box::pin(sleep_until(tokio::time::Instant::now()));
        tokio::spawn(poll_fn(move |context| turn(&weak, &mut alarm, context)));
        Self { inner }
    }

    /// A configuration of a client that connects to this broker, and connects again: 5.0, with this
    /// Client Identifier.
    #[must_use]
    pub fn config(&self, client_id: impl Into<String>) -> Config {
        Config {
            host: "broker".into(),
            connector: Some(Box::new(self.connector())),
            ..Config::with_connection(ClientConfig::new(Version::V5, client_id))
        }
    }

    /// Connects clients to this broker.
    #[must_use]
    pub fn connector(&self) -> BrokerConnector {
        BrokerConnector {
            broker: self.clone(),
        }
    }

    /// A stream to the broker, for any client.
    ///
    /// # Errors
    ///
    /// The broker cannot be reached.
    pub fn stream(&self) -> io::Result<DuplexStream> {
        let mut state = self.lock();
        if !state.reachable {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(STREAM_LEN);
        let id = ConnectionId::new(ShardId::new(0), state.next);
        state.next += 1;
        let now = state.clock.now();
        let opened = Opened::new(format!("in memory {}", id.get()), 0);
        state.engine.handle_opened(id, opened, now);
        let connection = Connection {
            stream: far,
            input: Vec::new(),
            output: TransmitBuf::new(STREAM_LEN),
            more: false,
            paused: false,
            offered: true,
            closing: false,
        };
        state.connections.insert(id, connection);
        wake(state);
        Ok(near)
    }

    /// Breaks all connections, as a network does: no DISCONNECT is sent, and Wills are published.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.cut();
        wake(state);
    }

    /// Whether clients can reach the broker. If not, all connections break too.
    pub fn set_reachable(&self, reachable: bool) {
        let mut state = self.lock();
        state.reachable = reachable;
        if !reachable {
            state.cut();
        }
        wake(state);
    }

    /// Restarts the broker, and nothing is left: no Session, no retained message.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.connections.clear();
        state.engine = engine(&state.config, state.clock);
        wake(state);
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.inner)
    }
}

fn engine(config: &Arc<EngineConfig>, clock: Clock) -> Engine {
    Engine::new(Arc::clone(config), ShardId::new(0), 1, SEED, clock.now())
}

fn lock(inner: &Inner) -> MutexGuard<'_, State> {
    inner.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(mut state: MutexGuard<'_, State>) {
    let task = state.task.take();
    drop(state);
    if let Some(task) = task {
        task.wake();
    }
}

/// The last handle: the task looks, and ends.
impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }
}

/// Connects clients to a [`Broker`].
#[derive(Clone, Debug)]
pub struct BrokerConnector {
    broker: Broker,
}

impl Connector for BrokerConnector {
    fn connect<'a>(
        &'a mut self,
        _server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async {
            let stream = self.broker.stream()?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

fn turn(inner: &Weak<Inner>, alarm: &mut Pin<Box<Sleep>>, context: &mut Context<'_>) -> Poll<()> {
    let Some(inner) = inner.upgrade() else {
        return Poll::Ready(());
    };
    let mut state = lock(&inner);
    state.task = Some(context.waker().clone());
    while state.turn(context) || state.rings(alarm, context) {}
    Poll::Pending
}

impl State {
    /// What every connection can do now; whether that was anything.
    fn turn(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            progress |= self.serve(id, context);
            progress |= self.poll_commands();
        }
        progress | self.poll_commands()
    }

    fn serve(&mut self, id: ConnectionId, context: &mut Context<'_>) -> bool {
        let now = self.clock.now();
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let mut progress = false;
        loop {
            match connection.write(context) {
                Poll::Ready(Err(_)) => {
                    self.connections.remove(&id);
                    self.engine.handle_closed(id, now);
                    return true;
                }
                Poll::Ready(Ok(())) if connection.more => {
                    let output = &mut connection.output;
                    connection.more = self.engine.poll_transmit(id, now, output);
                    progress = true;
                }
                Poll::Ready(Ok(())) => break,
                Poll::Pending => return progress,
            }
        }
        if connection.closing {
            // Everything is written.
            self.connections.remove(&id);
            return true;
        }
        if connection.paused {
            return progress;
        }
        if connection.offered {
            match connection.read(context) {
                Poll::Pending => return progress,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.connections.remove(&id);
                    self.engine.handle_closed(id, now);
                    return true;
                }
            }
        }
        let (consumed, demand) = self.engine.handle_input(id, &connection.input, now);
        connection.input.drain(..consumed);
        connection.offered = demand != Demand::Again;
        connection.paused = demand == Demand::Paused;
        true
    }

    fn poll_commands(&mut self) -> bool {
        let mut progress = false;
        let now = self.clock.now();
        while let Some(command) = self.engine.poll_command() {
            progress = true;
            match command {
                Command::Commit { id, .. } => self.engine.handle_committed(id, now),
                Command::Authenticate { id, .. } => {
                    let verdict = Verdict::Accept(Accepted::default());
                    self.engine.handle_authenticated(id, verdict, now);
                }
                // What clients may do is not asked.
                Command::Authorize { .. } => {}
                Command::Resume(id) => self.change(id, |connection| {
                    connection.paused = false;
                    connection.offered = false;
                }),
                Command::Flush(id) => self.change(id, |connection| connection.more = true),
                Command::Close(id) => self.change(id, |connection| connection.closing = true),
                // One shard, and nothing stored.
                Command::Fetch { .. }
                | Command::ToShard { .. }
                | Command::Move { .. }
                | Command::Log(_)
                | _ => {}
            }
        }
        progress
    }

    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.get_mut(&id) {
            change(connection);
        }
    }

    fn cut(&mut self) {
        let now = self.clock.now();
        for id in std::mem::take(&mut self.connections).into_keys() {
            self.engine.handle_closed(id, now);
        }
        self.poll_commands();
    }

    /// Whether a timer of the engine is due; if not, the task is woken then.
    fn rings(&mut self, alarm: &mut Pin<Box<Sleep>>, context: &mut Context<'_>) -> bool {
        let Some(at) = self.engine.poll_timeout() else {
            return false;
        };
        let now = self.clock.now();
        if at <= now.instant {
            self.engine.handle_timeout(now);
            return true;
        }
        alarm.as_mut().reset(self.clock.deadline(at));
        alarm.as_mut().poll(context).is_ready()
    }
}

impl Connection {
    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let slice = self.output.slices().next().unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(context, slice) {
                Poll::Ready(Ok(written)) => self.output.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0; READ_LEN];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
        read.map_ok(|()| {
            self.input.extend_from_slice(buffer.filled());
            buffer.filled().len()
        })
    }
}
