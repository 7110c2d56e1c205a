//! Backups through a socket in the data directory.
//!
//! The client writes [`REQUEST`]. The broker answers with the export in chunks, each behind its length
//! (4 bytes, little endian); an empty one ends it, followed by how much it was (5 numbers of 8 bytes)
//! and nothing else. An answer that ends otherwise is not complete.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use avocet_store::{ExportError, Exported, Position, Snapshot};
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{info, warn};

use super::BackupError;
use crate::store::{Request, StoreInbox};

/// What a client asks for.
const REQUEST: &[u8; 9] = b"export 1\n";

/// Bytes of a chunk at most.
const CHUNK: usize = 1 << 20;

const SOCKET: &str = "backup.sock";
const NEW_SOCKET: &str = "backup.sock.new";

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);

/// How often a client that takes nothing is looked at, and how often at most.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 60;

/// A directory by a path that is short enough for the address of a socket.
struct Short {
    path: PathBuf,
    _dir: Option<File>,
}

impl Short {
    fn new(dir: &Path) -> io::Result<Self> {
        // An address has room for 108 bytes on Linux.
        if cfg!(target_os = "linux") && dir.as_os_str().len() > 80 {
            use std::os::fd::AsRawFd as _;
            let open = File::open(dir)?;
            return Ok(Self {
                path: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())),
                _dir: Some(open),
            });
        }
        Ok(Self {
            path: dir.to_owned(),
            _dir: None,
        })
    }
}

pub(super) fn ask(dir: &Path, out: impl Write) -> Result<Exported, BackupError> {
    let connected = Short::new(dir).and_then(|dir| UnixStream::connect(dir.path.join(SOCKET)));
    let mut stream = connected.map_err(|error| {
        // There is no socket, or nobody behind it since its broker was killed.
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if nobody.contains(&error.kind()) {
            BackupError::NoBroker
        } else {
            BackupError::Connect(error)
        }
    })?;
    stream.write_all(REQUEST).map_err(BackupError::Connect)?;
    copy(stream, out)
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the broker stops")]
    Stopping,
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("cannot write to its client: {0}")]
    Client(#[from] io::Error),
}

/// The thread that gives backups. It ends soon after this is dropped, which removes its socket.
pub(crate) struct Backups {
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    waker: Waker,
}

impl Backups {
    /// Opens the socket, for this user only, and starts the thread.
    pub(crate) fn start(dir: &Path, store: Arc<StoreInbox>) -> io::Result<Self> {
        let socket = dir.join(SOCKET);
        let new = dir.join(NEW_SOCKET);
        // One broker uses the directory: what is there is left over from one that was killed.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(Short::new(dir)?.path.join(NEW_SOCKET))?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, &socket)?;
        listener.set_nonblocking(true)?;
        let mut listener = mio::net::UnixListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            listener,
            poll,
            store,
            stopping: Arc::clone(&stopping),
        };
        thread::Builder::new()
            .name("backup".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self {
            socket,
            stopping,
            waker,
        })
    }
}

impl Drop for Backups {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
    }
}

struct Thread {
    listener: mio::net::UnixListener,
    poll: Poll,
    store: Arc<StoreInbox>,
    stopping: Arc<AtomicBool>,
}

impl Thread {
    fn run(mut self) {
        let mut events = Events::with_capacity(2);
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!("no more backups: waiting for events failed: {error}");
                return;
            }
            // One after the other.
            while !self.stopping.load(Ordering::Relaxed) {
                let Ok((stream, _)) = self.listener.accept() else {
                    break;
                };
                self.serve(stream.into());
            }
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn serve(&self, stream: UnixStream) {
        match self.export(stream) {
            Ok(Some(exported)) => info!(
                keys = exported.keys,
                queues = exported.queues,
                entries = exported.entries,
                messages = exported.blobs,
                "a backup was written"
            ),
            Ok(None) => {}
            Err(error) => warn!("a backup was not written: {error}"),
        }
    }

    /// What is stored once everything that waits is.
    fn snapshot(&self) -> Result<Snapshot, Refused> {
        let (reply, snapshot) = sync_channel(1);
        self.store.push(Request::Snapshot(reply), 0);
        let snapshot = snapshot.recv().map_err(|_| Refused::Stopping)?;
        Ok(snapshot?)
    }

    /// None if the client asked for nothing.
    fn export(&self, mut stream: UnixStream) -> Result<Option<Exported>, Refused> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let mut request = [0; REQUEST.len()];
        if stream.read_exact(&mut request).is_err() || request != *REQUEST {
            return Ok(None);
        }
        let snapshot = self.snapshot()?;
        info!("a backup begins");
        let stopping = &self.stopping;
        let mut out = Chunks(Patient { stream, stopping });
        let exported = snapshot.export(&mut out)?;
        out.end(&exported)?;
        Ok(Some(exported))
    }
}

/// Waits for a client that takes its time, unless the broker stops.
struct Patient<'a> {
    stream: UnixStream,
    stopping: &'a AtomicBool,
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for _ in 0..LOOKS {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Makes chunks of what is written.
struct Chunks<W>(W);

impl<W: Write> Write for Chunks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..CHUNK).unwrap_or(bytes);
        if !bytes.is_empty() {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.0.write_all(&len.to_le_bytes())?;
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Chunks<W> {
    fn end(mut self, exported: &Exported) -> io::Result<()> {
        self.0.write_all(&[0; 4])?;
        let Exported {
            position,
            blobs,
            queues,
            entries,
            keys,
            ..
        } = exported;
        for number in [position.0, *blobs, *queues, *entries, *keys] {
            self.0.write_all(&number.to_le_bytes())?;
        }
        self.0.flush()
    }
}

/// Writes what is in chunks, to their end.
fn copy(mut input: impl Read, mut out: impl Write) -> Result<Exported, BackupError> {
    let incomplete = |error: io::Error| BackupError::Incomplete(error.kind());
    let mut chunk = Vec::new();
    loop {
        let mut len = [0; 4];
        input.read_exact(&mut len).map_err(incomplete)?;
        let len = u32::from_le_bytes(len) as usize;
        if len == 0 {
            break;
        }
        if len > CHUNK {
            return Err(BackupError::Incomplete(io::ErrorKind::InvalidData));
        }
        chunk.resize(len, 0);
        input.read_exact(&mut chunk).map_err(incomplete)?;
        out.write_all(&chunk).map_err(BackupError::Write)?;
    }
    out.flush().map_err(BackupError::Write)?;
    let mut number = || {
        let mut number = [0; 8];
        let read = input.read_exact(&mut number).map_err(incomplete);
        read.map(|()| u64::from_le_bytes(number))
    };
    let mut exported = Exported::default();
    exported.position = Position(number()?);
    exported.blobs = number()?;
    exported.queues = number()?;
    exported.entries = number()?;
    exported.keys = number()?;
    Ok(exported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut chunks = Chunks(&mut stream);
        chunks.write_all(bytes).unwrap();
        let mut exported = Exported::default();
        exported.keys = 7;
        chunks.end(&exported).unwrap();
        stream
    }

    #[test]
    fn chunks_are_put_together_again() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut out = Vec::new();
            let exported = copy(&*chunked(&bytes), &mut out).unwrap();
            assert_eq!(exported.keys, 7);
            assert!(out == bytes, "of {len} bytes");
        }
    }

    #[test]
    fn a_stream_without_its_end_is_not_complete() {
        let stream = chunked(b"some bytes");
        for len in 0..stream.len() {
            let copied = copy(&stream[..len], io::sink());
            assert!(matches!(copied, Err(BackupError::Incomplete(_))), "{len}");
        }
        let copied = copy(&[0xFF; 100][..], io::sink());
        assert!(matches!(copied, Err(BackupError::Incomplete(_))));
    }
}
