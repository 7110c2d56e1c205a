//! A load over QUIC: a thread of its own carries the bytes of each client between its connection and a
//! Unix socket, which the load treats as any other.

use std::fmt;
use std::future::pending;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use avocet_transport::Endpoint;
use tokio::io::copy_bidirectional;
use tokio::runtime::{Builder, Handle};

use crate::bench::open::allow_all_files;

/// How clients connect.
#[derive(Clone, Debug)]
pub(crate) struct Quic {
    endpoint: Endpoint,
    deadline: Duration,
    runtime: Handle,
    /// It was told why a connection failed.
    told: Arc<AtomicBool>,
}

impl fmt::Display for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint.place)
    }
}

impl Quic {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn start(endpoint: Endpoint, deadline: Duration) -> io::Result<Self> {
        // Each client has three.
        allow_all_files();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("quic".to_owned())
            .spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(Self {
            endpoint,
            deadline,
            runtime: handle,
            told: Arc::default(),
        })
    }

    /// A socket whose bytes go over a new connection. It closes when that cannot be made, or ends.
    pub(crate) fn connect(&self) -> io::Result<mio::net::UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let quic = self.clone();
        self.runtime.spawn(async move {
            let Ok(mut socket) = tokio::net::UnixStream::from_std(theirs) else {
                return;
            };
            match quic.endpoint.connect(quic.deadline).await {
                // Who loses it is told by the socket.
                Ok(mut stream) => drop(copy_bidirectional(&mut socket, &mut stream).await),
                Err(error) if !quic.told.swap(true, Ordering::Relaxed) => {
                    eprintln!("avocet: {error}");
                }
                Err(_) => {}
            }
        });
        Ok(mio::net::UnixStream::from_std(ours))
    }
}
