//! Records, groups and headers as bytes. All numbers are little endian.

use bytes::Bytes;

/// Length of the header of a segment.
pub(crate) const HEADER_LEN: u32 = 48;
/// Length of the header of a group.
pub(crate) const GROUP_LEN: usize = 12;
/// The format this code writes.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"avocetlg";
const GROUP_MAGIC: u32 = 0x5047_4c41;
const RECORD_PREFIX: usize = 5;

/// What one record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Blob {
        id: u64,
        held: bool,
        /// It was put in an earlier segment.
        copied: bool,
        bytes: &'a [u8],
    },
    Release {
        id: u64,
    },
    Entry {
        queue: u64,
        sequence: u64,
        blob: Option<u64>,
        value: &'a [u8],
    },
    Advance {
        queue: u64,
        to: u64,
    },
    DropQueue {
        queue: u64,
    },
    Queue {
        queue: u64,
        first: u64,
        end: u64,
    },
    PutKey {
        key: &'a [u8],
        blob: Option<u64>,
        value: &'a [u8],
    },
    DeleteKey {
        key: &'a [u8],
    },
    /// Ends a batch: what precedes it holds from here on.
    End {
        position: u64,
    },
    /// Segments before this one hold nothing that lives.
    Trim {
        segment: u32,
    },
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body, tail): (u8, Body, &[u8]) = match *self {
            Self::Blob {
                id,
                held,
                copied,
                bytes,
            } => {
                let flags = u64::from(held) | u64::from(copied) << 1;
                (1, Body::new().int(id).int(flags), bytes)
            }
            Self::Release { id } => (2, Body::new().int(id), &[]),
            Self::Entry {
                queue,
                sequence,
                blob,
                value,
            } => (
                3,
                Body::new().int(queue).int(sequence).reference(blob),
                value,
            ),
            Self::Advance { queue, to } => (4, Body::new().int(queue).int(to), &[]),
            Self::DropQueue { queue } => (5, Body::new().int(queue), &[]),
            Self::Queue { queue, first, end } => {
                (6, Body::new().int(queue).int(first).int(end), &[])
            }
            Self::PutKey { key, blob, value } => {
                let head = Body::new().reference(blob).int(key.len() as u64);
                let len = head.len + key.len() + value.len();
                let start = open(7, len, out);
                out.extend_from_slice(head.bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
                return close(start, out);
            }
            Self::DeleteKey { key } => (8, Body::new(), key),
            Self::End { position } => (9, Body::new().int(position), &[]),
            Self::Trim { segment } => (10, Body::new().int(segment.into()), &[]),
        };
        let start = open(kind, body.len + tail.len(), out);
        out.extend_from_slice(body.bytes());
        out.extend_from_slice(tail);
        close(start, out);
    }

    /// The record at the beginning of `input` and its length; `None` when it is cut short or does
    /// not match its checksum.
    pub(crate) fn decode(input: &'a [u8]) -> Option<(Self, usize)> {
        let len = record_len(input)?;
        let frame = input.get(..len)?;
        let (crc, rest) = frame.split_first_chunk()?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return None;
        }
        Some((Self::parse(frame)?, len))
    }

    /// The record in a frame whose checksum was looked at.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let kind = *frame.get(4)?;
        let mut body = Reader(frame.get(RECORD_PREFIX..)?);
        body.int()?;
        Some(match kind {
            1 => {
                let (id, flags) = (body.int()?, body.int()?);
                Self::Blob {
                    id,
                    held: flags & 1 != 0,
                    copied: flags & 2 != 0,
                    bytes: body.0,
                }
            }
            2 => Self::Release { id: body.int()? },
            3 => Self::Entry {
                queue: body.int()?,
                sequence: body.int()?,
                blob: body.reference()?,
                value: body.0,
            },
            4 => Self::Advance {
                queue: body.int()?,
                to: body.int()?,
            },
            5 => Self::DropQueue { queue: body.int()? },
            6 => Self::Queue {
                queue: body.int()?,
                first: body.int()?,
                end: body.int()?,
            },
            7 => {
                let blob = body.reference()?;
                let key = usize::try_from(body.int()?).ok()?;
                let (key, value) = body.0.split_at_checked(key)?;
                Self::PutKey { key, blob, value }
            }
            8 => Self::DeleteKey { key: body.0 },
            9 => Self::End {
                position: body.int()?,
            },
            10 => Self::Trim {
                segment: u32::try_from(body.int()?).ok()?,
            },
            _ => return None,
        })
    }
}

/// The length of the record that begins `input`, from its first ten bytes at most.
pub(crate) fn record_len(input: &[u8]) -> Option<usize> {
    let mut rest = Reader(input.get(RECORD_PREFIX..)?);
    let before = rest.0.len();
    let body = usize::try_from(rest.int()?).ok()?;
    (RECORD_PREFIX + before - rest.0.len()).checked_add(body)
}

fn open(kind: u8, len: usize, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    put_int(len as u64, out);
    start
}

fn close(start: usize, out: &mut [u8]) {
    if let Some((crc, rest)) = out
        .get_mut(start..)
        .and_then(<[u8]>::split_first_chunk_mut::<4>)
    {
        *crc = crc32c::crc32c(rest).to_le_bytes();
    }
}

/// The integers that begin a record: at most three of ten bytes, and a flag.
struct Body {
    bytes: [u8; 32],
    len: usize,
}

impl Body {
    fn new() -> Self {
        Self {
            bytes: [0; 32],
            len: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn int(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
        self
    }

    fn reference(self, blob: Option<u64>) -> Self {
        match blob {
            Some(id) => self.int(1).int(id),
            None => self.int(0),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Appends an integer in groups of seven bits, the lowest first.
pub(crate) fn put_int(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes values from the beginning of bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn int(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn int32(&mut self) -> Option<u32> {
        u32::try_from(self.int()?).ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.int()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn reference(&mut self) -> Option<Option<u64>> {
        match self.int()? {
            0 => Some(None),
            _ => Some(Some(self.int()?)),
        }
    }
}

/// What the first bytes of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) segment: u32,
    /// Unknown to those whose messages are stored, so that no message can look like a group.
    pub(crate) salt: u64,
    /// The segment before this one, 0 for none.
    pub(crate) previous: u32,
    /// Where the data of that segment ends; what is behind it never counted.
    pub(crate) previous_end: u32,
    /// The last position before this segment.
    pub(crate) position: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_LEN as usize)?;
        let (rest, crc) = bytes.split_last_chunk::<4>()?;
        if !rest.starts_with(MAGIC) || crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return None;
        }
        Some(Self {
            version: u32_at(rest, 8)?,
            segment: u32_at(rest, 12)?,
            salt: u64_at(rest, 16)?,
            previous: u32_at(rest, 24)?,
            previous_end: u32_at(rest, 28)?,
            position: u64_at(rest, 32)?,
        })
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn group_crc(len: u32, salt: u64, segment: u32, offset: u32) -> u32 {
    let mut crc = crc32c::crc32c(&len.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &salt.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &segment.to_le_bytes());
    crc32c::crc32c_append(crc, &offset.to_le_bytes())
}

/// Writes the header of a group over the place that was left for it.
pub(crate) fn write_group(group: &mut [u8], salt: u64, segment: u32, offset: u32) {
    let len = group.len().saturating_sub(GROUP_LEN) as u32;
    let crc = group_crc(len, salt, segment, offset);
    let words = [GROUP_MAGIC, len, crc];
    for (place, word) in group.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The length of the records of the group whose header begins `bytes`.
pub(crate) fn read_group(bytes: &[u8], salt: u64, segment: u32, offset: u32) -> Option<usize> {
    let len = u32_at(bytes, 4)?;
    let good = u32_at(bytes, 0)? == GROUP_MAGIC
        && u32_at(bytes, 8)? == group_crc(len, salt, segment, offset);
    good.then_some(len as usize)
}

/// Where reading a segment from its beginning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The end of the last whole batch.
    pub(crate) end: u32,
    /// The first place that is not as it was written, unless all is good.
    pub(crate) bad: Option<u32>,
    /// Whether a group was begun behind that place, which happens only when all before it is
    /// durable.
    pub(crate) damaged: bool,
}

/// Reads through `bytes`, the whole segment up to where it is known or may be thought to end.
pub(crate) fn extent(bytes: &[u8], salt: u64, segment: u32) -> Extent {
    let mut end = HEADER_LEN;
    let mut at = HEADER_LEN as usize;
    let mut bad = None;
    while at < bytes.len() {
        let head = bytes.get(at..).unwrap_or_default();
        let Some(len) = read_group(head, salt, segment, at as u32) else {
            bad = Some(at as u32);
            break;
        };
        let group_end = at + GROUP_LEN + len;
        at += GROUP_LEN;
        while at < group_end {
            let rest = bytes
                .get(at..group_end.min(bytes.len()))
                .unwrap_or_default();
            let Some((record, len)) = Record::decode(rest) else {
                bad = Some(at as u32);
                break;
            };
            at += len;
            if matches!(record, Record::End { .. }) {
                end = at as u32;
            }
        }
        if bad.is_some() {
            break;
        }
    }
    let damaged = bad.is_some_and(|bad| {
        let magic = GROUP_MAGIC.to_le_bytes();
        let rest = bytes.get(bad as usize + 1..).unwrap_or_default();
        rest.windows(magic.len()).enumerate().any(|(at, window)| {
            let offset = bad as usize + 1 + at;
            let head = bytes.get(offset..).unwrap_or_default();
            window == magic && read_group(head, salt, segment, offset as u32).is_some()
        })
    });
    Extent { end, bad, damaged }
}

/// Calls `each` with the records of whole groups that end at `end`, and their places.
pub(crate) fn records(bytes: &[u8], start: u32, end: u32, mut each: impl FnMut(Record<'_>, u32)) {
    let bytes = bytes.get(..end as usize).unwrap_or(bytes);
    let mut at = start as usize;
    while at < bytes.len() {
        let Some(len) = u32_at(bytes.get(at..).unwrap_or_default(), 4) else {
            return;
        };
        let group_end = (at + GROUP_LEN + len as usize).min(bytes.len());
        let group = bytes.get(..group_end).unwrap_or_default();
        records_of_group(group, at + GROUP_LEN, &mut each);
        at = group_end;
    }
}

/// Calls `each` with the records from `at` to the end of `bytes`, and their places.
pub(crate) fn records_of_group(bytes: &[u8], mut at: usize, mut each: impl FnMut(Record<'_>, u32)) {
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(len) = record_len(rest) else { return };
        if let Some(record) = rest.get(..len).and_then(Record::parse) {
            each(record, at as u32);
        }
        at += len;
    }
}

/// A copy of bytes that is its own.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
