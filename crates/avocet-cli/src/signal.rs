//! The signals that end a command in order.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use tokio::runtime::Builder;

/// Waits for SIGINT or SIGTERM, on Windows for Ctrl-C.
pub(crate) async fn interrupted() {
    Interrupts::new().next().await;
}

/// Those signals, from when this is made.
#[cfg(unix)]
struct Interrupts([Option<tokio::signal::unix::Signal>; 2]);

#[cfg(unix)]
impl Interrupts {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        // Without, the signal ends the process as it does by default.
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok()))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            () = next_of(interrupt) => {}
            () = next_of(terminate) => {}
        }
    }
}

#[cfg(unix)]
async fn next_of(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
struct Interrupts;

#[cfg(not(unix))]
impl Interrupts {
    const fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether the process was asked to end since [`watch`].
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets a thread wait for being asked to end: once, for [`is_interrupted`], and a second time to end
/// at once.
///
/// # Errors
///
/// What the system says.
pub(crate) fn watch() -> std::io::Result<()> {
    let (listens, listening) = channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            // Without a runtime signals do what they do by default.
            let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let mut interrupts = Interrupts::new();
                // Who started the thread waits for this, unless it has ended.
                let _ = listens.send(());
                interrupts.next().await;
                IS_INTERRUPTED.store(true, Relaxed);
                interrupts.next().await;
            });
            std::process::exit(1);
        })?;
    // A signal that comes from here on is not missed. Without a runtime none is waited for.
    let _ = listening.recv();
    Ok(())
}

/// Whether the process was asked to end.
pub(crate) fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Relaxed)
}
