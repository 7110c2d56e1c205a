//! Unix socket listeners for a `mio` loop.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use mio::Interest;
use mio::event::Source;
use mio::net::{UnixListener as Socket, UnixStream};
use mio::{Registry, Token};

/// Why a Unix socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: {}", path.display(), reason(source))]
pub struct UnixListenError {
    /// The path asked for.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn reason(source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::AddrInUse {
        return "another program answers there already".to_owned();
    }
    if source.kind() == io::ErrorKind::AlreadyExists {
        return "there is a file, which is no socket".to_owned();
    }
    if source.kind() == io::ErrorKind::NotFound {
        return "there is no such folder".to_owned();
    }
    source.to_string()
}

/// A Unix socket that takes connections. Its file goes when it is dropped, unless somebody else has
/// put another one there.
#[derive(Debug)]
pub struct UnixListener {
    socket: Socket,
    path: PathBuf,
    inode: u64,
}

impl UnixListener {
    /// Opens a non-blocking listener at `path`, with a file of this mode from the first moment.
    ///
    /// A socket that is there and nobody answers at is replaced; one that somebody answers at, or a
    /// file of another kind, is left alone.
    pub fn open(path: &Path, mode: u32) -> Result<Self, UnixListenError> {
        open(path, mode).map_err(|source| UnixListenError {
            path: path.to_owned(),
            source,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the next waiting connection. Fails with `WouldBlock` when none is waiting.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        Ok(stream)
    }
}

fn open(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match StdStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => return Err(error),
        }
    }
    // Under another name until its mode is set, so that nobody connects before.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = PathBuf::from(hidden);
    let _ = fs::remove_file(&hidden);
    let socket = StdListener::bind(&hidden)?;
    let shown = fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&hidden, path));
    if let Err(error) = shown {
        let _ = fs::remove_file(&hidden);
        return Err(error);
    }
    socket.set_nonblocking(true)?;
    Ok(UnixListener {
        socket: Socket::from_std(socket),
        path: path.to_owned(),
        inode: fs::symlink_metadata(path)?.ino(),
    })
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Where it cannot be removed, the next start finds that nobody answers.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Source for UnixListener {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket.register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scratch;

    #[test]
    fn has_its_mode_and_leaves_no_file_behind() {
        let dir = scratch();
        let path = dir.path().join("mqtt");
        let listener = UnixListener::open(&path, 0o620).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o620);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let _client = StdStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_is_replaced_only_where_nobody_answers() {
        let dir = scratch();
        let path = dir.path().join("mqtt");
        // The listener is gone, its file stays.
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = UnixListener::open(&path, 0o600).unwrap();
        let error = UnixListener::open(&path, 0o600).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {}: another program answers there already",
                path.display()
            )
        );
        let _client = StdStream::connect(&path).unwrap();
        drop(first);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let dir = scratch();
        let path = dir.path().join("notes");
        fs::write(&path, "keep").unwrap();
        let error = UnixListener::open(&path, 0o600).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {}: there is a file, which is no socket",
                path.display()
            )
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "keep");
        let error = UnixListener::open(&dir.path().join("no/mqtt"), 0o600).unwrap_err();
        assert!(
            error.to_string().ends_with("there is no such folder"),
            "{error}"
        );
    }
}
