//! TLS and WebSocket between a socket that does not block and those who read and write it.

use std::io::{self, IoSlice, Read, Write};

use rustls::Connection;

use crate::tls::CertificateNames;
use crate::websocket::frames::WebSocket;
use crate::websocket::upgrade::Asked;

/// Bytes read from the socket at once, where they must be decrypted.
const READ_BYTES: usize = 16 << 10;

/// Reads of the socket before somebody else has his turn.
const READS: usize = 16;

/// Bytes taken at once that are to be encrypted or framed.
const WRITE_BYTES: usize = 64 << 10;

/// A socket with TLS, WebSocket, or one over the other on top of it. Reading and writing give and
/// take the bytes that these carry.
///
/// It behaves like a socket that does not block and that tells of changes by edges: after
/// `WouldBlock` the socket's next event says when to try again. What is beyond that:
/// [`Self::has_more`] after reading, [`Self::has_unsent`] after both.
#[derive(Debug)]
pub struct Layered<S> {
    pub(crate) socket: S,
    /// Apart, as it is large and WebSocket alone needs none.
    pub(crate) tls: Option<Box<Connection>>,
    pub(crate) websocket: Option<WebSocket>,
    /// A client's request for WebSocket, until it is answered.
    asking: Option<Box<Asking>>,
    /// Bytes of the socket that were read ahead.
    pub(crate) raw: Vec<u8>,
    /// Bytes for the socket, where there is no TLS; `sent` of them are gone.
    out: Vec<u8>,
    sent: usize,
    more: bool,
    pub(crate) ended: bool,
}

/// What a client has asked, and what has come since.
#[derive(Debug)]
struct Asking {
    asked: Asked,
    head: Vec<u8>,
    /// What was written meanwhile.
    held: Vec<u8>,
}

impl<S: Read + Write> Layered<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            tls: None,
            websocket: None,
            asking: None,
            raw: Vec::new(),
            out: Vec::new(),
            sent: 0,
            more: false,
            ended: false,
        }
    }

    /// Puts TLS on top of the socket.
    pub(crate) fn secure(&mut self, mut tls: Connection) {
        // What is taken at once is bounded here.
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
    }

    /// Asks for WebSocket. What is written until the answer comes waits for it.
    pub(crate) fn ask(&mut self, asked: Asked) -> io::Result<()> {
        self.put(asked.request.as_bytes())?;
        self.asking = Some(Box::new(Asking {
            asked,
            head: Vec::new(),
            held: Vec::new(),
        }));
        Ok(())
    }

    /// Takes a part of the answer; how much of `room` then holds what came behind it.
    fn take_answer(&mut self, room: &mut [u8], len: usize) -> io::Result<usize> {
        let Some(asking) = &mut self.asking else {
            return Ok(len);
        };
        let bytes = room.get(..len).unwrap_or_default();
        asking.head.extend_from_slice(bytes);
        let answer = asking.asked.answer(&asking.head);
        let answer = answer.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let Some(end) = answer else {
            return Ok(0);
        };
        let behind = asking.head.len() - end;
        let held = std::mem::take(&mut asking.held);
        self.asking = None;
        self.websocket = Some(WebSocket::client());
        if !held.is_empty() {
            self.put_data(&[IoSlice::new(&held)])?;
        }
        // It came with these bytes, or there would have been an answer before.
        room.copy_within(len.saturating_sub(behind)..len, 0);
        Ok(behind)
    }

    /// The socket, to be watched.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whom the peer's certificate names, if it presented one: nobody if its names cannot be read.
    #[must_use]
    pub fn peer_names(&self) -> Option<CertificateNames> {
        let chain = self.tls.as_ref()?.peer_certificates()?;
        Some(CertificateNames::read(chain.first()?).unwrap_or_default())
    }

    /// Whether the last read left something that no event of the socket will tell of.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Whether something that was taken has not reached the socket: [`Self::flush`] goes on once the
    /// socket takes more.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        let tls = self.tls.as_ref();
        self.sent < self.out.len() || tls.is_some_and(|tls| tls.wants_write())
    }

    /// Reads what is there, 0 bytes at the end.
    ///
    /// # Errors
    ///
    /// `Interrupted` when there may be more and nothing has come of a lot of bytes. `InvalidData` when
    /// the peer breaks the rules of TLS or WebSocket, of which it is told.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.more = false;
        for _ in 0..READS {
            if self.ended {
                return Ok(0);
            }
            if let Some(error) = self.websocket.as_ref().and_then(WebSocket::failed) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            let n = match self.read_carried(room) {
                Ok(0) if !room.is_empty() => {
                    self.ended = true;
                    return Ok(0);
                }
                Ok(n) => n,
                Err(error) => {
                    // Answers to what came before.
                    self.flush()?;
                    return Err(error);
                }
            };
            let filled = n == room.len();
            let n = self.take_answer(room, n)?;
            if n == 0 {
                self.flush()?;
                continue;
            }
            let Some(websocket) = &mut self.websocket else {
                self.more |= filled;
                return Ok(n);
            };
            let payload = websocket.decode(room.get_mut(..n).unwrap_or_default());
            let failed = websocket.failed().is_some();
            self.ended |= websocket.is_closed();
            // Where answers cannot be sent, what came before is still read. Who writes next is told.
            let _ = self.flush();
            if payload > 0 {
                // What is left in TLS, and the end, are told of by nobody else.
                self.more |= filled || self.ended || failed;
                return Ok(payload);
            }
        }
        self.more = true;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Reads what TLS carries, or what the socket has where there is none.
    pub(crate) fn read_carried(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.decrypt(room);
        }
        if self.raw.is_empty() {
            return self.socket.read(room);
        }
        let n = self.raw.len().min(room.len());
        for (to, from) in room.iter_mut().zip(self.raw.drain(..n)) {
            *to = from;
        }
        // Nobody has asked the socket yet.
        self.more = true;
        if self.raw.is_empty() {
            self.raw = Vec::new();
        }
        Ok(n)
    }

    fn decrypt(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut drained = false;
        for _ in 0..READS {
            filled += self.take_plain(room.get_mut(filled..).unwrap_or_default())?;
            if self.ended || filled == room.len() {
                // The end is told by the next read.
                self.more = true;
                return Ok(filled);
            }
            let rest = room.get_mut(filled..).unwrap_or_default();
            if !self.raw.is_empty() {
                let raw = std::mem::take(&mut self.raw);
                filled += self.feed(&raw, rest)?;
                continue;
            }
            if drained {
                break;
            }
            let read = if rest.len() >= 2 * READ_BYTES {
                // What comes of it is shorter: there is room for both.
                let (rest, raw) = rest.split_at_mut(rest.len() / 2);
                self.read_encrypted(raw, rest)
            } else {
                self.read_encrypted(&mut [0; READ_BYTES], rest)
            };
            match read {
                Ok((decrypted, all)) => {
                    filled += decrypted;
                    drained = all;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.more |= !drained;
        match (filled, drained) {
            (0, true) => Err(io::ErrorKind::WouldBlock.into()),
            (0, false) => Err(io::ErrorKind::Interrupted.into()),
            (filled, _) => Ok(filled),
        }
    }

    /// Reads once into `raw`, and decrypts into `room`: how much, and whether the socket has no more.
    fn read_encrypted(&mut self, raw: &mut [u8], room: &mut [u8]) -> io::Result<(usize, bool)> {
        let n = self.socket.read(raw)?;
        if n == 0 {
            if let Some(tls) = &mut self.tls {
                tls.read_tls(&mut io::empty())?;
            }
            return Ok((0, false));
        }
        let drained = n < raw.len();
        let decrypted = self.feed(raw.get(..n).unwrap_or_default(), room)?;
        Ok((decrypted, drained))
    }

    /// Takes what is decrypted.
    fn take_plain(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return Ok(0);
        };
        let mut filled = 0;
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match tls.reader().read(rest) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The socket ended without a goodbye. MQTT knows its own ends.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Decrypts into `room`, and says how much. What has no room is kept.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while !bytes.is_empty() {
            let Some(tls) = &mut self.tls else { break };
            if tls.read_tls(&mut bytes)? == 0 {
                // Behind the peer's goodbye.
                return Ok(filled);
            }
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert that says why.
                    let _ = self.flush();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            let taken = self.take_plain(room.get_mut(filled..).unwrap_or_default())?;
            filled += taken;
            if state.plaintext_bytes_to_read() > taken {
                break;
            }
        }
        self.raw.extend_from_slice(bytes);
        Ok(filled)
    }

    /// Takes as much as it can send soon; `WouldBlock` as long as the socket has not taken what it has
    /// taken before.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let holds = self.asking.as_ref().is_some_and(|it| !it.held.is_empty());
        if !self.flush()? || holds {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut len = 0;
        let mut count = 0;
        for slice in slices {
            if len + slice.len() > WRITE_BYTES {
                break;
            }
            len += slice.len();
            count += 1;
        }
        match slices.get(..count) {
            Some(whole) if len > 0 => self.put_data(whole)?,
            _ => {
                // The first one that is not empty is larger than what is taken at once.
                let large = slices.iter().find(|slice| !slice.is_empty());
                let part = large.and_then(|slice| slice.get(..WRITE_BYTES));
                let Some(part) = part else {
                    return Ok(0);
                };
                len = part.len();
                self.put_data(&[IoSlice::new(part)])?;
            }
        }
        self.flush()?;
        Ok(len)
    }

    fn put_data(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        if let Some(asking) = &mut self.asking {
            let held = &mut asking.held;
            slices
                .iter()
                .for_each(|slice| held.extend_from_slice(slice));
            return Ok(());
        }
        if let Some(websocket) = &mut self.websocket {
            let mut framed = Vec::new();
            websocket.encode(slices, &mut framed);
            return self.put(&framed);
        }
        match &mut self.tls {
            Some(tls) => {
                let taken = tls.writer().write_vectored(slices)?;
                debug_assert_eq!(taken, slices.iter().map(|slice| slice.len()).sum());
            }
            None => slices
                .iter()
                .for_each(|slice| self.out.extend_from_slice(slice)),
        }
        Ok(())
    }

    /// Puts bytes behind those that wait for the socket, as they are.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Gives the socket what waits for it; whether it took all.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn flush(&mut self) -> io::Result<bool> {
        if !self.flush_taken()? {
            return Ok(false);
        }
        // Only once the socket takes them, so that pings of a peer that does not read gather nothing.
        let websocket = self.websocket.as_mut();
        let answers = websocket.map(WebSocket::take_answers).unwrap_or_default();
        self.put(&answers)?;
        self.flush_taken()
    }

    fn flush_taken(&mut self) -> io::Result<bool> {
        while self.has_unsent() {
            let written = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut self.socket),
                None => self
                    .socket
                    .write(self.out.get(self.sent..).unwrap_or_default()),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) if self.tls.is_none() => self.sent += n,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out = Vec::new();
        self.sent = 0;
        Ok(true)
    }

    /// Asks a peer over WebSocket to show that it is there, so that those on the way do not take the
    /// connection for dead.
    pub fn ping(&mut self) {
        if self.has_unsent() {
            // It is not idle.
            return;
        }
        if let Some(websocket) = &mut self.websocket {
            websocket.ping();
        }
        // What does not leave, or fails, does so for the next one who writes too.
        let _ = self.flush();
    }

    /// Says that nothing more is sent, as far as the socket takes it.
    pub fn say_goodbye(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            websocket.say_goodbye();
            let goodbye = websocket.take_answers();
            let _ = self.put(&goodbye);
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        let _ = self.flush();
    }
}
