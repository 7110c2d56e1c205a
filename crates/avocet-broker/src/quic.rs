//! QUIC listeners: a thread with a runtime of its own shakes hands, and gives each connection to a
//! shard as a pipe.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use avocet_engine::RefuseReason;
use avocet_transport::quic::{QuicArrival, QuicListener, QuicStream};
use avocet_transport::{HandshakeError, TlsAcceptor};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use crate::admission::Admission;
use crate::clock::Clock;
use crate::inbox::{Inbox, Mail};
use crate::refusals::Refused;
use crate::stream::{InProcessStream, Stream, pipe};

/// Bytes given to a shard at once.
const CHUNK: usize = 16 << 10;

/// How long a client that the broker closes may take to acknowledge what was sent.
const LINGER: Duration = Duration::from_secs(2);

/// A socket, and what is spoken there.
pub(crate) struct QuicDoor {
    /// The place of its listener in the configuration.
    pub(crate) listener: u16,
    pub(crate) socket: UdpSocket,
    pub(crate) tls: Arc<TlsAcceptor>,
    pub(crate) handshake_timeout: Duration,
    /// How long a client may give no sign of life.
    pub(crate) idle_timeout: Option<Duration>,
}

/// What all listeners share.
pub(crate) struct Shared {
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clock: Clock,
    pub(crate) handshakes_max: usize,
    pub(crate) stop_timeout: Duration,
    /// Says when the broker stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves all sockets until the broker stops; `end` is dropped when this ends.
pub(crate) fn start(
    bound: Vec<QuicDoor>,
    shared: Shared,
    end: impl Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let doors = match open(&runtime, bound, &shared) {
        Ok(doors) => doors,
        Err(error) => {
            // Waiting for its end is not allowed within another runtime.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let stop = shared.stop;
    let most = shared.stop_timeout + LINGER;
    thread::Builder::new()
        .name("quic".to_owned())
        .spawn(move || {
            let _end = end;
            runtime.block_on(serve(doors, stop, most));
            runtime.shutdown_background();
        })
}

fn open(
    runtime: &Runtime,
    bound: Vec<QuicDoor>,
    shared: &Shared,
) -> io::Result<Vec<(QuicListener, Arc<Door>)>> {
    let _within = runtime.enter();
    let next_shard = Arc::new(AtomicUsize::new(0));
    let handshakes = Arc::new(Semaphore::new(shared.handshakes_max));
    let open = |bound: QuicDoor| {
        let (max, silence) = (shared.handshakes_max, bound.idle_timeout);
        let listener = QuicListener::new(bound.socket, bound.tls, max, silence)?;
        let door = Door {
            listener: bound.listener,
            handshake_timeout: bound.handshake_timeout,
            handshakes: Arc::clone(&handshakes),
            handshakes_max: shared.handshakes_max,
            inboxes: Arc::clone(&shared.inboxes),
            admission: Arc::clone(&shared.admission),
            clock: shared.clock,
            next_shard: Arc::clone(&next_shard),
        };
        Ok((listener, Arc::new(door)))
    };
    bound.into_iter().map(open).collect()
}

async fn serve(
    doors: Vec<(QuicListener, Arc<Door>)>,
    mut stop: watch::Receiver<bool>,
    most: Duration,
) {
    let mut tasks: JoinSet<()> = doors
        .into_iter()
        .map(|(listener, door)| listen(listener, door, stop.clone(), most))
        .collect();
    tokio::select! {
        biased;
        // Fails when the broker is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        Some(_) = tasks.join_next() => {
            error!("a QUIC listener has ended by itself: the broker stops");
            return;
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn listen(
    mut listener: QuicListener,
    door: Arc<Door>,
    mut stop: watch::Receiver<bool>,
    most: Duration,
) {
    loop {
        let arrival = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            arrival = listener.accept() => arrival,
        };
        match arrival {
            Some(Ok(arrival)) => door.admit(arrival),
            Some(Err(error)) => error!("QUIC: {error}"),
            None => break,
        }
    }
    listener.close();
    let _ = timeout(most, listener.idle()).await;
}

struct Door {
    listener: u16,
    handshake_timeout: Duration,
    handshakes: Arc<Semaphore>,
    handshakes_max: usize,
    inboxes: Arc<[Arc<Inbox>]>,
    admission: Arc<Admission>,
    clock: Clock,
    next_shard: Arc<AtomicUsize>,
}

impl Door {
    fn admit(self: &Arc<Self>, arrival: QuicArrival) {
        // Datagrams that come from elsewhere than they say can keep nobody out.
        let free = self.handshakes.available_permits();
        if free <= self.handshakes_max / 2 && !arrival.is_validated() {
            return arrival.validate();
        }
        let Ok(handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            let now = self.clock.now().instant;
            let (admission, peer) = (&self.admission, arrival.peer());
            admission.too_many_handshakes(&peer, self.listener, now);
            return arrival.refuse();
        };
        let door = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(stream) = door.establish(arrival).await {
                door.hand_over(stream, handshake).await;
            }
        });
    }

    async fn establish(&self, arrival: QuicArrival) -> Option<QuicStream> {
        let peer = arrival.peer();
        let established = timeout(self.handshake_timeout, arrival.establish()).await;
        let (reason, text): (_, &dyn Display) = match &established {
            Ok(Err(HandshakeError::Closed)) => {
                debug!(address = %peer, "closed within its handshake");
                return None;
            }
            Ok(Err(error)) => (RefuseReason::Handshake, error),
            Err(_) => (RefuseReason::HandshakeTimeout, &"it took too long"),
            Ok(Ok(_)) => return established.ok()?.ok(),
        };
        let refused = Refused {
            reason,
            address: &peer,
            listener: self.listener,
            client_id: "",
            connection: None,
            text,
        };
        let now = self.clock.now().instant;
        self.admission.refusals.count_and_tell(&refused, now);
        None
    }

    async fn hand_over(&self, stream: QuicStream, handshake: OwnedSemaphorePermit) {
        // Before the handshake nobody knows whether the address is its client's.
        let (peer, now) = (stream.peer(), self.clock.now().instant);
        let arrived = self.admission.arrive(self.listener, Some(peer.ip()), now);
        let pass = arrived.or_else(|refusal| {
            self.admission.tell(refusal, &peer, self.listener, now);
            self.admission.refuse(refusal).ok_or(())
        });
        let Ok(pass) = pass else {
            return;
        };
        let (ours, theirs) = pipe(stream.peer_names());
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let Some(inbox) = self.inboxes.get(shard % self.inboxes.len().max(1)) else {
            return;
        };
        inbox.send(Mail::Accepted {
            stream: Stream::Pipe(theirs),
            peer: peer.into(),
            listener: self.listener,
            pass,
        });
        carry(stream, ours, handshake).await;
    }
}

/// Moves bytes between a client and its shard until either closes. A direction that is idle holds no
/// buffer. Its handshake counts as one until the broker has answered: no descriptor bounds those who
/// connect and say nothing.
async fn carry(stream: QuicStream, pipe: InProcessStream, handshake: OwnedSemaphorePermit) {
    let (mut reader, mut writer) = stream.split();
    let inwards = async {
        while let Ok(Some(bytes)) = reader.read(CHUNK).await {
            if pipe.give(&bytes).await.is_err() {
                break;
            }
        }
        pipe.end();
        // The broker closes when its client does, so the end of the other direction is the end.
        pending::<()>().await;
    };
    let outwards = async {
        let mut handshake = Some(handshake);
        while let Some(bytes) = pipe.take().await {
            drop(handshake.take());
            let late = async {
                pipe.closed().await;
                sleep(LINGER).await;
            };
            tokio::select! {
                biased;
                written = writer.write(bytes.into()) => if written.is_err() {
                    return;
                },
                // A client that takes nothing keeps nothing here.
                () = late => return,
            }
        }
        let _ = timeout(LINGER, writer.finish()).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}
