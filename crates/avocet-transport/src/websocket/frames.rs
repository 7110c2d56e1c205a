//! Frames. What is received is unwrapped where it lies, so nothing is gathered but the header of a
//! frame and the few bytes of a control frame.

use std::io::IoSlice;

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// MQTT travels in binary frames [MQTT5-6.0.0-1] [MQTT311-6.0.0-1].
    #[error("a text frame")]
    Text,
    /// Bits or numbers that are for extensions, of which none was agreed on.
    #[error("a reserved bit or kind of frame")]
    Reserved,
    /// Clients must mask what they send, servers must not.
    #[error("a frame of a client without a mask, or of a server with one")]
    Mask,
    /// A length that is not written in the shortest way, or is beyond any.
    #[error("a malformed length")]
    Length,
    /// A control frame in pieces, or of more than 125 bytes.
    #[error("a control frame in pieces or too long")]
    Control,
    /// A piece of a message that has not begun, or a message within another one.
    #[error("a piece of no message, or a message in the middle of another")]
    Order,
}

impl FrameError {
    fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::Reserved | Self::Mask | Self::Length | Self::Control | Self::Order => 1002,
        }
    }
}

/// Why the connection ends, from a server's or client's own decision.
const NORMAL: u16 = 1000;

const CONTROL_MAX: usize = 125;

/// The longest header: two bytes, eight of the length, four of the mask.
const HEADER_MAX: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

/// One end of a WebSocket connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    /// A client's; a server masks nothing.
    masks: Option<Box<Masks>>,
    header: [u8; HEADER_MAX],
    header_len: usize,
    /// What is still to come of the payload of the frame whose header is complete.
    left: u64,
    kind: Kind,
    /// The mask, turned so that its first byte is for the next byte.
    mask: [u8; 4],
    /// A message has begun, and its last frame has not.
    in_message: bool,
    /// The payload of the control frame that is coming.
    control: Vec<u8>,
    /// Frames that are to be sent apart from data.
    answers: Vec<u8>,
    /// The payload of a ping that is to be answered: of several, the last one.
    pong: Option<Vec<u8>>,
    received_close: bool,
    sent_close: bool,
    failed: Option<FrameError>,
}

impl WebSocket {
    pub(crate) fn server() -> Self {
        Self::new(None)
    }

    pub(crate) fn client() -> Self {
        Self::new(Some(Box::default()))
    }

    fn new(masks: Option<Box<Masks>>) -> Self {
        Self {
            masks,
            header: [0; HEADER_MAX],
            header_len: 0,
            left: 0,
            kind: Kind::Data,
            mask: [0; 4],
            in_message: false,
            control: Vec::new(),
            answers: Vec::new(),
            pong: None,
            received_close: false,
            sent_close: false,
            failed: None,
        }
    }

    /// Unwraps `bytes`: what they carry is moved to their beginning, and its length returned. After
    /// the peer's Close, or something wrong, of which it is told, what follows is ignored.
    pub(crate) fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let mut taken = 0;
        if self.failed.is_none()
            && let Err(error) = self.unwrap(bytes, &mut taken)
        {
            self.failed = Some(error);
            self.close(error.close_code());
        }
        taken
    }

    /// What the peer did wrong, behind all that [`Self::decode`] gave.
    pub(crate) fn failed(&self) -> Option<FrameError> {
        self.failed
    }

    fn unwrap(&mut self, bytes: &mut [u8], to: &mut usize) -> Result<(), FrameError> {
        let mut from = 0;
        while from < bytes.len() && !self.received_close {
            if self.left == 0 {
                from += self.read_header(bytes.get(from..).unwrap_or_default())?;
                // A control frame may be empty.
                if self.left == 0 && self.header_len == 0 {
                    self.end_frame()?;
                }
                continue;
            }
            let there = bytes.len() - from;
            let taken = usize::try_from(self.left).map_or(there, |left| left.min(there));
            if let Some(payload) = bytes.get_mut(from..from + taken) {
                apply(&mut self.mask, payload);
            }
            if self.kind == Kind::Data {
                bytes.copy_within(from..from + taken, *to);
                *to += taken;
            } else {
                let payload = bytes.get(from..from + taken).unwrap_or_default();
                self.control.extend_from_slice(payload);
            }
            from += taken;
            self.left -= taken as u64;
            if self.left == 0 {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    /// Takes bytes of a header, up to its end; how many it took.
    fn read_header(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut taken = 0;
        for byte in bytes {
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
            }
            self.header_len += 1;
            taken += 1;
            if self.header_len >= 2 && self.header_len == self.header_end()? {
                self.begin_frame()?;
                self.header_len = 0;
                break;
            }
        }
        Ok(taken)
    }

    /// How long the header is; its first two bytes are there.
    fn header_end(&self) -> Result<usize, FrameError> {
        let [_, second, ..] = self.header;
        let masked = second & 0x80 != 0;
        if masked == self.masks.is_some() {
            return Err(FrameError::Mask);
        }
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        Ok(2 + length + if masked { 4 } else { 0 })
    }

    fn begin_frame(&mut self) -> Result<(), FrameError> {
        let [first, second, rest @ ..] = &self.header;
        let (first, second) = (*first, *second);
        let (len, mask) = match second & 0x7f {
            126 => {
                let [a, b, mask @ ..] = rest;
                (u64::from(u16::from_be_bytes([*a, *b])), mask.first_chunk())
            }
            127 => {
                let [a, b, c, d, e, f, g, h, mask @ ..] = rest;
                let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (len, mask.first_chunk())
            }
            short => (u64::from(short), rest.first_chunk()),
        };
        let shortest = match second & 0x7f {
            126 => len > 125,
            127 => len > 0xffff && len < 1 << 63,
            _ => true,
        };
        if !shortest {
            return Err(FrameError::Length);
        }
        let last = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        self.kind = match first & 0x0f {
            0 | 2 => Kind::Data,
            1 => return Err(FrameError::Text),
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(FrameError::Reserved),
        };
        if self.kind == Kind::Data {
            let continues = first & 0x0f == 0;
            if continues != self.in_message {
                return Err(FrameError::Order);
            }
            self.in_message = !last;
        } else if !last || len > CONTROL_MAX as u64 {
            return Err(FrameError::Control);
        }
        self.left = len;
        self.mask = match (second & 0x80 != 0, mask) {
            (true, Some(mask)) => *mask,
            _ => [0; 4],
        };
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), FrameError> {
        let payload = std::mem::take(&mut self.control);
        match self.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.pong = Some(payload),
            Kind::Close => {
                self.received_close = true;
                if payload.len() == 1 {
                    return Err(FrameError::Control);
                }
                self.close(NORMAL);
            }
        }
        Ok(())
    }

    /// Whether the peer has said that it sends nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.received_close
    }

    /// Appends a frame with these bytes to `out`.
    pub(crate) fn encode(&mut self, slices: &[IoSlice<'_>], out: &mut Vec<u8>) {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.frame(0x82, len, out, |out| {
            for slice in slices {
                out.extend_from_slice(slice);
            }
        });
    }

    /// Asks the peer to show that it is there.
    pub(crate) fn ping(&mut self) {
        self.answer(0x89, &[]);
    }

    /// Says that nothing more is sent, once.
    pub(crate) fn say_goodbye(&mut self) {
        self.close(NORMAL);
    }

    fn close(&mut self, code: u16) {
        if !self.sent_close {
            self.answer(0x88, &code.to_be_bytes());
            self.sent_close = true;
        }
    }

    fn answer(&mut self, first: u8, payload: &[u8]) {
        if !self.sent_close {
            let mut answers = std::mem::take(&mut self.answers);
            let fill = |out: &mut Vec<u8>| out.extend_from_slice(payload);
            self.frame(first, payload.len(), &mut answers, fill);
            self.answers = answers;
        }
    }

    /// Takes the frames that are to be sent apart from data: between two frames of data, as
    /// everything that [`Self::encode`] gives is whole.
    pub(crate) fn take_answers(&mut self) -> Vec<u8> {
        if let Some(payload) = self.pong.take() {
            self.answer(0x8a, &payload);
        }
        std::mem::take(&mut self.answers)
    }

    fn frame(&mut self, first: u8, len: usize, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let masked = if self.masks.is_some() { 0x80 } else { 0 };
        out.push(first);
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ 0..=125), _) => out.push(masked | short),
            (_, Ok(medium)) => {
                out.push(masked | 126);
                out.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let Some(masks) = &mut self.masks else {
            return fill(out);
        };
        let mut mask = masks.next();
        out.extend_from_slice(&mask);
        let start = out.len();
        fill(out);
        apply(&mut mask, out.get_mut(start..).unwrap_or_default());
    }
}

/// Masks or unmasks, and turns the mask by as many bytes.
fn apply(mask: &mut [u8; 4], payload: &mut [u8]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len() % 4);
}

/// Keys that nobody on the way can foresee [RFC 6455, 10.3].
#[derive(Debug)]
struct Masks {
    keys: [[u8; 4]; 64],
    used: usize,
}

impl Default for Masks {
    fn default() -> Self {
        let keys = [[0; 4]; 64];
        Self {
            used: keys.len(),
            keys,
        }
    }
}

impl Masks {
    fn next(&mut self) -> [u8; 4] {
        if self.used >= self.keys.len() {
            // Without random numbers the keys stay as they are, which only proxies could mind that
            // take WebSocket for HTTP.
            let _ = getrandom::fill(self.keys.as_flattened_mut());
            self.used = 0;
        }
        self.used += 1;
        self.keys.get(self.used - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
