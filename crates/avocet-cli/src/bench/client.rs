//! One client: a socket, and bytes on their way in and out.

use std::io;
use std::sync::Arc;

use avocet_codec::{Disconnect, Packet, ReasonCode, Version};

use crate::bench::socket::Socket;
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// Bytes that wait for the socket before a client stops reading, or publishing.
pub(crate) const OUT_MAX: usize = 256 * 1024;

/// Reads of one client in one turn; the next one is for the next turn.
const READS_MAX: usize = 8;

/// A client whose Network Connection stands.
#[derive(Debug)]
pub(crate) struct Client {
    /// What people call it: "subscriber 3".
    pub(crate) name: String,
    server: Arc<str>,
    pub(crate) socket: Socket,
    /// The beginning of a packet whose end has not come.
    tail: Vec<u8>,
    /// What is to be written; `written` bytes of it are gone.
    pub(crate) out: Vec<u8>,
    written: usize,
    /// When it last wrote, in nanoseconds.
    pub(crate) wrote_at: u64,
    /// QoS 1 and 2 messages the server takes at a time.
    pub(crate) receive_maximum: u16,
    /// Keep Alive in nanoseconds, as the server may have set it; 0 is none.
    pub(crate) keep_alive: u64,
    has_said_goodbye: bool,
}

/// Whether a socket has more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All that had come is read.
    Drained,
    /// There is more, or may be, and no event will say so.
    Unfinished,
}

impl Client {
    pub(crate) fn new(name: String, server: Arc<str>, socket: Socket) -> Self {
        Self {
            name,
            server,
            socket,
            tail: Vec::new(),
            out: Vec::new(),
            written: 0,
            wrote_at: 0,
            receive_maximum: u16::MAX,
            keep_alive: 0,
            has_said_goodbye: false,
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self, now: u64) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.wrote_at = now;
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.written += length;
                    // A short write means that the socket is full: its event comes.
                    if self.unwritten() > 0 && matches!(self.socket, Socket::Plain(_)) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        if let Socket::Layered(stream) = &mut self.socket {
            // What it took and could not send.
            stream.flush()?;
        }
        Ok(())
    }

    /// Reads what has come, through `buffer`, and gives each packet to `on_packet` with what is
    /// to be written and the time when it was read. The end of the stream, and a packet that does not fit into `buffer`, are
    /// errors.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        version: Version,
        clock: Stopwatch,
        mut on_packet: impl FnMut(&Packet<'_>, &mut Vec<u8>, u64) -> Result<(), Failure>,
    ) -> Result<Reading, Failure> {
        for _ in 0..READS_MAX {
            // A server that sends and never reads makes no answers pile up.
            if self.unwritten() > OUT_MAX {
                return Ok(Reading::Unfinished);
            }
            let kept = self.tail.len();
            let Some((front, room)) = buffer.split_at_mut_checked(kept) else {
                return Err(self.lost("a packet larger than any that was published"));
            };
            front.copy_from_slice(&self.tail);
            let room_len = room.len();
            let length = match self.socket.read(room) {
                Ok(0) => return Err(self.lost("the server closed the connection")),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Reading::Drained);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.lost(error)),
            };
            let now = clock.nanoseconds();
            let limit = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let mut rest = buffer.get(..kept + length).unwrap_or_default();
            while let Some(packet) =
                Packet::decode_next(&mut rest, version, limit).map_err(|error| self.lost(error))?
            {
                if let Packet::Disconnect(disconnect) = packet {
                    let code = disconnect.reason_code;
                    let said = disconnect.reason_string.unwrap_or_default();
                    return Err(self.lost(format!(
                        "the server sent DISCONNECT: {} {said}",
                        reason(code)
                    )));
                }
                on_packet(&packet, &mut self.out, now)?;
            }
            self.tail.clear();
            self.tail.extend_from_slice(rest);
            // All there was fitted in.
            if length < room_len && self.socket.is_at_its_end() {
                return Ok(Reading::Drained);
            }
        }
        Ok(Reading::Unfinished)
    }

    /// Sends DISCONNECT, once, as far as the socket takes it.
    pub(crate) fn say_goodbye(&mut self, version: Version, now: u64) {
        if self.has_said_goodbye {
            return;
        }
        self.has_said_goodbye = true;
        let disconnect = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        // It is one that every version has; and the connection ends in any case.
        let _ = disconnect.encode(version, &mut self.out);
        let _ = self.flush(now);
    }

    /// Whether the server has closed the connection; what it still sends is thrown away.
    pub(crate) fn is_closed(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Why the run cannot go on without this client.
    pub(crate) fn lost(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{} at {}: {why}", self.name, self.server))
    }
}

/// A Reason Code as people look it up.
pub(crate) fn reason(code: ReasonCode) -> String {
    format!("0x{:02x} ({code})", code as u8)
}
