//! The way from the command line to a broker that runs: a Unix socket, for its user only.
//!
//! A client writes [`RELOAD`]. The answer is a line that begins with `ok ` or `error `, and the end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use avocet_transport::UnixListener;
use mio::{Events, Interest, Poll, Token};
use tracing::{error, warn};

use crate::reload::Reload;

/// What a client asks for.
const RELOAD: &[u8; 7] = b"reload\n";

/// How long a client may take to say what it asks for, while the next one waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a client waits for its answer: longer than files take to be read.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The file of the socket, which goes when this is dropped.
pub(crate) struct Control {
    path: PathBuf,
}

impl Control {
    /// Opens the socket and serves it on a thread of its own.
    pub(crate) fn start(path: &Path, reload: Arc<Reload>) -> anyhow::Result<Self> {
        let mut listener = UnixListener::open(path, 0o600)?;
        let mut poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut listener, Token(0), Interest::READABLE)?;
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let mut events = Events::with_capacity(1);
                loop {
                    if let Err(error) = poll.poll(&mut events, None)
                        && error.kind() != io::ErrorKind::Interrupted
                    {
                        error!("`avocet-broker reload` does not work any more: {error}");
                        return;
                    }
                    // One after the other.
                    while let Ok(stream) = listener.accept() {
                        if let Err(error) = serve(stream.into(), &reload) {
                            warn!("`avocet-broker reload` was not answered: {error}");
                        }
                    }
                }
            })?;
        let path = path.to_owned();
        Ok(Self { path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(mut stream: UnixStream, reload: &Reload) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; RELOAD.len()];
    stream.read_exact(&mut request)?;
    if request != *RELOAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let answer = match reload.run() {
        Ok(done) => format!("ok {done}\n"),
        Err(error) => format!("error {}\n", error.to_string().replace('\n', " ")),
    };
    stream.write_all(answer.as_bytes())
}

/// Has the broker behind a socket read its files again, and gives back what it says of it.
pub(crate) fn ask(path: &Path) -> anyhow::Result<String> {
    let asked = UnixStream::connect(path).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(RELOAD)?;
        Ok(stream)
    });
    let place = path.display();
    let stream = asked.map_err(|error| anyhow::anyhow!("no broker answers at {place}: {error}"))?;
    let mut answer = String::new();
    let read = BufReader::new(stream).read_line(&mut answer);
    read.map_err(|error| anyhow::anyhow!("the broker at {place} does not answer: {error}"))?;
    let Some((word, told)) = answer.strip_suffix('\n').and_then(|it| it.split_once(' ')) else {
        anyhow::bail!("the broker at {place} ended before it answered; its log says why");
    };
    if word == "ok" {
        Ok(told.to_owned())
    } else {
        anyhow::bail!("{told}")
    }
}
