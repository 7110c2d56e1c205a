//! The signals that end a command in order.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::runtime::Builder;

/// Waits for SIGINT or SIGTERM.
#[cfg(unix)]
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};

    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Then the signal ends the process as it does by default.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
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
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(|| {
            // Without a runtime signals do what they do by default.
            let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(interrupted());
            IS_INTERRUPTED.store(true, Relaxed);
            runtime.block_on(interrupted());
            std::process::exit(1);
        })?;
    Ok(())
}

/// Whether the process was asked to end.
pub(crate) fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Relaxed)
}
