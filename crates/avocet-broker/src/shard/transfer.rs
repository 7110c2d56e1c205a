//! Bytes between streams and the engine.

use std::io::{self, IoSlice};

use avocet_engine::Engine;
use avocet_session::{Demand, Instant, Now, TransmitBuf};

use super::READ_BYTES;
use crate::connection::{Connection, Reading};
use crate::stream::Stream;

/// A connection with more unread bytes than this keeps them in a buffer of its own, in which the
/// rest of its large packet gathers.
const UNREAD_IN_PLACE: usize = READ_BYTES / 4;

/// Slices given to one system call. Systems allow more (Linux 1,024); what is beyond goes with the
/// next call.
const SLICES: usize = 64;

/// Reads once, and feeds the engine. The number of bytes read; an error means that the connection
/// is gone.
pub(super) fn read(
    engine: &mut Engine,
    connection: &mut Connection,
    buffer: &mut [u8],
    now: Now,
) -> io::Result<usize> {
    let unread = connection.unread.len();
    if unread > UNREAD_IN_PLACE {
        let n = receive(connection, buffer)?;
        connection.unread.push(buffer.get(..n).unwrap_or_default());
        if n > 0 {
            feed_unread(engine, connection, now);
        }
        return Ok(n);
    }
    // The unread bytes are put in front of those that follow them.
    let Some((front, room)) = buffer.split_at_mut_checked(unread) else {
        return Ok(0);
    };
    front.copy_from_slice(connection.unread.bytes());
    let n = receive(connection, room)?;
    if n == 0 {
        return Ok(0);
    }
    let input = buffer.get(..unread + n).unwrap_or_default();
    let (consumed, demand) = engine.handle_input(connection.id, input, now);
    connection
        .unread
        .set(input.get(consumed..).unwrap_or_default());
    connection.obey(demand, consumed, now);
    Ok(n)
}

pub(super) fn feed_unread(engine: &mut Engine, connection: &mut Connection, now: Now) {
    let (consumed, demand) = engine.handle_input(connection.id, connection.unread.bytes(), now);
    connection.unread.consume(consumed);
    connection.obey(demand, consumed, now);
}

impl Connection {
    fn obey(&mut self, demand: Demand, consumed: usize, now: Now) {
        self.reading = match demand {
            Demand::More => Reading::Stream,
            Demand::Again => Reading::Unread,
            Demand::Paused => Reading::Paused,
        };
        let partial = self.reading == Reading::Stream && self.unread.len() > 0;
        if !partial {
            self.partial_since = Instant::ORIGIN;
        } else if consumed > 0 || !self.is_partial() {
            self.partial_since = now.instant;
        }
    }

    /// Whether it has begun a packet, of which the rest has not come.
    pub(super) fn is_partial(&self) -> bool {
        self.partial_since > Instant::ORIGIN
    }
}

/// Reads what is there, 0 bytes when there is nothing yet. The end of the stream is an error.
pub(super) fn receive(connection: &mut Connection, room: &mut [u8]) -> io::Result<usize> {
    match connection.stream.read(room) {
        Ok(0) => {
            connection.readable = false;
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        Ok(n) => {
            connection.spoke_last = false;
            // A short read has emptied the stream, but the end of it would not be announced again.
            // Windows announces nothing until a read has found nothing.
            connection.readable = n == room.len()
                || connection.read_closed
                || connection.stream.has_more()
                || cfg!(windows);
            Ok(n)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            connection.readable = false;
            Ok(0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => {
            connection.readable = false;
            Err(error)
        }
    }
}

/// Writes until all is written (true) or the stream takes no more.
pub(super) fn send(stream: &mut Stream, output: &mut TransmitBuf) -> io::Result<bool> {
    while !output.is_empty() {
        let written = match output.piece() {
            Some(bytes) => stream.write_vectored(&[IoSlice::new(bytes)]),
            None => write_pieces(stream, output),
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => output.advance(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

/// The same where a first write came to this.
pub(super) fn send_rest(
    stream: &mut Stream,
    output: &mut TransmitBuf,
    written: Option<io::Result<usize>>,
) -> io::Result<bool> {
    match written {
        None => {}
        Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
        Some(Ok(n)) => output.advance(n),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Some(Err(error)) => return Err(error),
    }
    send(stream, output)
}

#[inline(never)]
fn write_pieces(stream: &mut Stream, output: &TransmitBuf) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut used = 0;
    for (slice, bytes) in slices.iter_mut().zip(output.slices()) {
        *slice = IoSlice::new(bytes);
        used += 1;
    }
    stream.write_vectored(slices.get(..used).unwrap_or_default())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Read as _;

    use bytes::BufMut as _;
    use mio::net::UnixStream;

    use super::*;

    /// What becomes of `abcdef` after a first write, what is left of it, and what the peer gets.
    fn rest_after(
        written: Option<io::Result<usize>>,
    ) -> (Result<bool, io::ErrorKind>, usize, Vec<u8>) {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(near);
        let mut output = TransmitBuf::new(64);
        output.frame().put_slice(b"abcdef");
        let result = send_rest(&mut stream, &mut output, written);
        drop(stream);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        (result.map_err(|error| error.kind()), output.len(), received)
    }

    #[test]
    fn what_a_first_write_left_is_written_where_there_may_be_room() {
        assert_eq!(rest_after(None), (Ok(true), 0, b"abcdef".to_vec()));
        assert_eq!(rest_after(Some(Ok(4))), (Ok(true), 0, b"ef".to_vec()));
        assert_eq!(rest_after(Some(Ok(6))), (Ok(true), 0, Vec::new()));
        let not_begun = io::ErrorKind::Interrupted.into();
        let all = (Ok(true), 0, b"abcdef".to_vec());
        assert_eq!(rest_after(Some(Err(not_begun))), all);
    }

    #[test]
    fn what_a_full_socket_did_not_take_is_kept_and_an_error_is_one() {
        let full = io::ErrorKind::WouldBlock.into();
        assert_eq!(rest_after(Some(Err(full))), (Ok(false), 6, Vec::new()));
        let broken = io::ErrorKind::BrokenPipe;
        let (result, _, received) = rest_after(Some(Err(broken.into())));
        assert_eq!((result, received), (Err(broken), Vec::new()));
        let (result, _, received) = rest_after(Some(Ok(0)));
        assert_eq!(
            (result, received),
            (Err(io::ErrorKind::WriteZero), Vec::new())
        );
    }
}
