//! What the service manager is told: the datagrams of `sd_notify(3)`.

use std::sync::Arc;
use std::time::Duration;
use std::{env, io, process, thread};

use avocet_broker::Pulse;
use tracing::warn;

/// Longer than a manager that works takes to read a datagram.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager, if one started this process and wants to know.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    #[cfg(unix)]
    socket: Option<std::os::unix::net::UnixDatagram>,
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names.
    #[cfg(unix)]
    pub(crate) fn of_environment() -> Self {
        let Some(place) = env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
            return Self::default();
        };
        let unreachable = |error: &io::Error| {
            warn!(
                "cannot tell the service manager at {}: {error}",
                place.display()
            );
        };
        let socket = connect(&place).inspect_err(unreachable).ok();
        Self { socket }
    }

    #[cfg(not(unix))]
    pub(crate) fn of_environment() -> Self {
        Self::default()
    }

    /// Clients are served.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving clients");
    }

    /// Files are read again, until [`Self::ready`].
    pub(crate) fn reloading(&self) {
        #[cfg(unix)]
        {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    /// Clients are told that the broker stops.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping");
    }

    fn tell(&self, state: &str) {
        #[cfg(unix)]
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            warn!("cannot tell the service manager: {error}");
        }
        #[cfg(not(unix))]
        let _ = state;
    }

    /// If the manager asks for it, tells it again and again that the broker still turns. Should a shard
    /// not turn any more, it is not told, and restarts the broker.
    pub(crate) fn watch(self: Arc<Self>, pulse: Pulse) -> io::Result<()> {
        let Some(interval) = watchdog_interval() else {
            return Ok(());
        };
        // Twice as often as it asks for, as its manual recommends.
        let pause = interval / 2;
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                loop {
                    if pulse.beats(interval) {
                        self.tell("WATCHDOG=1");
                    }
                    thread::park_timeout(pause);
                }
            })?;
        Ok(())
    }
}

/// A path, or a name in Linux's own space of names, written with `@`.
#[cfg(unix)]
fn connect(place: &std::ffi::OsStr) -> io::Result<std::os::unix::net::UnixDatagram> {
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = match place.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How often the manager asks to be told, if it asks this process.
fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && for_us)?;
    Some(Duration::from_micros(micros))
}
