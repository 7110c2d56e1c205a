//! A proxy whose first connection is cut after a number of bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A running proxy, stopped when dropped. It cuts its first connection, and no other.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    left: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Cutter {
    /// Passes connections on to `server`; after `bytes`, both ways together, the first one ends for
    /// both sides.
    pub async fn start(server: SocketAddr, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("the system has a port");
        let address = listener.local_addr().expect("it is bound");
        let left = Arc::new(AtomicUsize::new(bytes));
        let mut running = JoinSet::new();
        running.spawn(serve(listener, server, Arc::clone(&left)));
        Self {
            address,
            left,
            _running: running,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes the first connection had left: 0 if it was cut.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, left: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    let mut limit = Some(left);
    while let Ok((client, _)) = listener.accept().await {
        let limit = limit.take().unwrap_or_else(|| Arc::new(usize::MAX.into()));
        connections.spawn(async move {
            // A server that has gone is the client's to find out.
            if let Ok(server) = TcpStream::connect(server).await {
                pass(client, server, &limit).await;
            }
        });
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, left: &AtomicUsize) {
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (mut from_client, mut from_server) = (from_client, from_server);
    tokio::select! {
        () = carry(&mut from_client, &mut to_server, left) => {}
        () = carry(&mut from_server, &mut to_client, left) => {}
    }
    // What was passed on arrives: an end of the stream behind it, and no reset that overtakes it.
    let _ = to_client.shutdown().await;
    let _ = to_server.shutdown().await;
    let (mut nowhere, mut nobody) = (sink(), sink());
    let _ = tokio::join!(
        copy(&mut from_client, &mut nowhere),
        copy(&mut from_server, &mut nobody),
    );
}

/// Until either side ends, or no byte is left.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    left: &AtomicUsize,
) {
    let mut buffer = [0; 4096];
    while left.load(Ordering::SeqCst) > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let before = left.load(Ordering::SeqCst);
        let passed = buffer.get(..count.min(before)).unwrap_or_default();
        left.store(before - passed.len(), Ordering::SeqCst);
        if to.write_all(passed).await.is_err() {
            return;
        }
    }
}
