//! Records, groups and headers as bytes. All numbers are little endian.

use bytes::Bytes;

/// Length of the header of a segment.
pub(crate) const HEADER_LEN: u32 = 48;
/// Length of the header of a group.
pub(crate) const GROUP_LEN: usize = 20;
/// The format this code reads and writes.
pub(crate) const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"avocetlg";
const GROUP_MAGIC: u32 = 0x5047_4c41;
const RECORD_PREFIX: usize = 5;
/// Sequences and positions that are stored are below.
pub(crate) const COUNT_MAX: u64 = 1 << 63;

/// The kind of a record is in the low bits of its byte; these are beside it.
const KIND: u8 = 0x0f;
/// A blob was put in an earlier segment.
const COPIED: u8 = 0x20;
/// A blob is held.
const HOLDS: u8 = 0x40;
/// The batch ends with this record.
const LAST: u8 = 0x80;

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
    /// Says nothing: ends a batch of nothing, or what was copied, which is no batch.
    End,
    /// Segments before this one hold nothing that lives.
    Trim {
        segment: u32,
    },
}

/// A record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) len: usize,
    /// Whether a batch ends with it.
    pub(crate) last: bool,
}

impl Decoded<'_> {
    /// Whether what precedes it holds from here on.
    pub(crate) fn ends(&self) -> bool {
        self.last || self.record == Record::End
    }
}

impl<'a> Record<'a> {
    /// Appends the record to `out`, with room for the checksum that [`finish`] puts there.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body, tails): (u8, Body, [&[u8]; 2]) = match *self {
            Self::Blob {
                id,
                held,
                copied,
                bytes,
            } => {
                let held = if held { HOLDS } else { 0 };
                let copied = if copied { COPIED } else { 0 };
                (1 | held | copied, Body::new().int(id), [bytes, &[]])
            }
            Self::Release { id } => (2, Body::new().int(id), [&[], &[]]),
            Self::Entry {
                queue,
                sequence,
                blob,
                value,
            } => {
                let body = Body::new().int(queue).int(sequence).reference(blob);
                (3, body, [value, &[]])
            }
            Self::Advance { queue, to } => (4, Body::new().int(queue).int(to), [&[], &[]]),
            Self::DropQueue { queue } => (5, Body::new().int(queue), [&[], &[]]),
            Self::Queue { queue, first, end } => {
                let body = Body::new().int(queue).int(first).int(end);
                (6, body, [&[], &[]])
            }
            Self::PutKey { key, blob, value } => {
                let body = Body::new().reference(blob).int(key.len() as u64);
                (7, body, [key, value])
            }
            Self::DeleteKey { key } => (8, Body::new(), [key, &[]]),
            Self::End => (9, Body::new(), [&[], &[]]),
            Self::Trim { segment } => (10, Body::new().int(segment.into()), [&[], &[]]),
        };
        let [first, second] = tails;
        let body = body.bytes();
        let len = body.len() + first.len() + second.len();
        out.reserve(RECORD_PREFIX + 10 + len);
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        put_int(len as u64, out);
        out.extend_from_slice(body);
        out.extend_from_slice(first);
        out.extend_from_slice(second);
    }

    /// The record at the beginning of `input`; `None` when it is cut short or does not match its
    /// checksum.
    pub(crate) fn decode(input: &'a [u8]) -> Option<Decoded<'a>> {
        let len = record_len(input)?;
        let frame = input.get(..len)?;
        let (crc, rest) = frame.split_first_chunk()?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return None;
        }
        Self::parse(frame)
    }

    /// The record in a frame whose checksum was looked at.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Decoded<'a>> {
        let kind = *frame.get(4)?;
        let mut body = Reader(frame.get(RECORD_PREFIX..)?);
        body.int()?;
        let record = match kind & KIND {
            1 => Self::Blob {
                id: body.int()?,
                held: kind & HOLDS != 0,
                copied: kind & COPIED != 0,
                bytes: body.0,
            },
            2 => Self::Release { id: body.int()? },
            3 => Self::Entry {
                queue: body.int()?,
                sequence: body.count()?,
                blob: body.reference()?,
                value: body.0,
            },
            4 => Self::Advance {
                queue: body.int()?,
                to: body.count()?,
            },
            5 => Self::DropQueue { queue: body.int()? },
            6 => Self::Queue {
                queue: body.int()?,
                first: body.count()?,
                end: body.count()?,
            },
            7 => {
                let blob = body.reference()?;
                let key = usize::try_from(body.int()?).ok()?;
                let (key, value) = body.0.split_at_checked(key)?;
                Self::PutKey { key, blob, value }
            }
            8 => Self::DeleteKey { key: body.0 },
            9 => Self::End,
            10 => Self::Trim {
                segment: u32::try_from(body.int()?).ok()?,
            },
            _ => return None,
        };
        Some(Decoded {
            record,
            len: frame.len(),
            last: kind & LAST != 0,
        })
    }
}

/// Puts checksums into the encoded records that begin at `starts`, and ends a batch with the last one
/// of them if `last` is set.
pub(crate) fn finish(bytes: &mut [u8], starts: &[usize], last: bool) {
    if let Some(kind) = starts.last().and_then(|start| bytes.get_mut(start + 4))
        && last
    {
        *kind |= LAST;
    }
    let mut end = bytes.len();
    for start in starts.iter().rev() {
        if let Some((crc, rest)) = bytes
            .get_mut(*start..end)
            .and_then(<[u8]>::split_first_chunk_mut::<4>)
        {
            *crc = crc32c::crc32c(rest).to_le_bytes();
        }
        end = *start;
    }
}

/// Takes the hold from the blob that begins at `start`, before it has a checksum.
pub(crate) fn unhold(bytes: &mut [u8], start: usize) {
    if let Some(kind) = bytes.get_mut(start + 4) {
        *kind &= !HOLDS;
    }
}

/// The length of the record that begins `input`, from its first ten bytes at most.
pub(crate) fn record_len(input: &[u8]) -> Option<usize> {
    let mut rest = Reader(input.get(RECORD_PREFIX..)?);
    let before = rest.0.len();
    let body = usize::try_from(rest.int()?).ok()?;
    (RECORD_PREFIX + before - rest.0.len()).checked_add(body)
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

    /// A number that can be counted on from without end.
    pub(crate) fn count(&mut self) -> Option<u64> {
        self.int().filter(|count| *count < COUNT_MAX)
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
            position: u64_at(rest, 32).filter(|position| *position < COUNT_MAX)?,
        })
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What the header of a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Length of its records.
    pub(crate) len: u32,
    /// Where what was durable ended when the group was written.
    pub(crate) durable: u32,
    /// Checksum of its records. What stood in the file before may be whole records too: those of
    /// another group.
    pub(crate) records: u32,
}

impl Group {
    /// Writes the header of the group at `open`, which ends where `bytes` do, and is at `offset` of
    /// its segment.
    pub(crate) fn close(
        bytes: &mut [u8],
        open: usize,
        durable: u32,
        salt: u64,
        segment: u32,
        offset: u32,
    ) {
        let group = bytes.get_mut(open..).unwrap_or_default();
        let Some((place, records)) = group.split_at_mut_checked(GROUP_LEN) else {
            return;
        };
        let group = Self {
            len: records.len() as u32,
            durable,
            records: crc32c::crc32c(records),
        };
        let words = [
            GROUP_MAGIC,
            group.len,
            group.durable,
            group.records,
            group.crc(salt, segment, offset),
        ];
        for (place, word) in place.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn crc(&self, salt: u64, segment: u32, offset: u32) -> u32 {
        let mut crc = crc32c::crc32c(&self.len.to_le_bytes());
        for word in [self.durable, self.records] {
            crc = crc32c::crc32c_append(crc, &word.to_le_bytes());
        }
        crc = crc32c::crc32c_append(crc, &salt.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &segment.to_le_bytes());
        crc32c::crc32c_append(crc, &offset.to_le_bytes())
    }

    /// The header of a group that begins `bytes`.
    pub(crate) fn decode(bytes: &[u8], salt: u64, segment: u32, offset: u32) -> Option<Self> {
        let group = Self {
            len: u32_at(bytes, 4)?,
            durable: u32_at(bytes, 8)?,
            records: u32_at(bytes, 12)?,
        };
        let good = u32_at(bytes, 0)? == GROUP_MAGIC
            && u32_at(bytes, 16)? == group.crc(salt, segment, offset);
        good.then_some(group)
    }
}

/// Where reading a segment from its beginning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The end of the last whole group; where a group is damaged, that of the last whole batch.
    pub(crate) end: u32,
    /// The first place that is not as it was written, unless all is good.
    pub(crate) bad: Option<u32>,
    /// Whether a group behind that place says that it was durable.
    pub(crate) damaged: bool,
}

/// Reads through `bytes`, the whole segment up to where it is known or may be thought to end.
pub(crate) fn extent(bytes: &[u8], salt: u64, segment: u32) -> Extent {
    let mut at = HEADER_LEN as usize;
    let mut bad = None;
    // Where the whole batches of the last group end.
    let mut batches = at;
    while at < bytes.len() && bad.is_none() {
        let head = bytes.get(at..).unwrap_or_default();
        let Some(group) = Group::decode(head, salt, segment, at as u32) else {
            bad = Some(at as u32);
            break;
        };
        let start = at + GROUP_LEN;
        let rest = bytes.get(start..).unwrap_or_default();
        let records = rest.get(..group.len as usize).unwrap_or(rest);
        if records.len() == group.len as usize && crc32c::crc32c(records) == group.records {
            at = start + records.len();
            batches = at;
            continue;
        }
        let (whole, read) = whole_batches(records);
        if whole > 0 {
            batches = start + whole;
        }
        // If every record is whole, some are not of this group.
        let all = read == records.len();
        bad = Some(if all { at } else { start + read } as u32);
    }
    let damaged = bad.is_some_and(|bad| durable_beyond(bytes, salt, segment, bad));
    // A group that was not durable may hold anything; one that was holds what it did, but for the damage.
    let end = if damaged { batches } else { at } as u32;
    Extent { end, bad, damaged }
}

/// How many bytes the whole batches take with which `records` begin, and the whole records.
fn whole_batches(records: &[u8]) -> (usize, usize) {
    let (mut whole, mut at) = (0, 0);
    while let Some(decoded) = records.get(at..).and_then(Record::decode) {
        at += decoded.len;
        if decoded.ends() {
            whole = at;
        }
    }
    (whole, at)
}

/// Whether a group behind `bad` says that what is there was durable.
pub(crate) fn durable_beyond(bytes: &[u8], salt: u64, segment: u32, bad: u32) -> bool {
    let magic = GROUP_MAGIC.to_le_bytes();
    let rest = bytes.get(bad as usize + 1..).unwrap_or_default();
    rest.windows(magic.len()).enumerate().any(|(at, window)| {
        let offset = bad as usize + 1 + at;
        let group = || {
            let head = bytes.get(offset..)?;
            Group::decode(head, salt, segment, offset as u32)
        };
        window == magic && group().is_some_and(|group| group.durable > bad)
    })
}

/// Where that ends which groups say to be durable, at most `end`: 0, or the end of the header or of a
/// group.
pub(crate) fn known_durable(bytes: &[u8], salt: u64, segment: u32, end: u32) -> u32 {
    let mut at = HEADER_LEN as usize;
    let mut said = 0;
    let mut ends = vec![0, HEADER_LEN];
    while let Some(group) = bytes
        .get(at..)
        .and_then(|head| Group::decode(head, salt, segment, at as u32))
    {
        said = said.max(group.durable);
        at += GROUP_LEN + group.len as usize;
        ends.push(at as u32);
    }
    ends.retain(|known| *known <= said.min(end));
    ends.pop().unwrap_or(0)
}

/// Writes the headers of all groups again, for a segment of which nothing is durable, and returns where
/// the last one begins. The one that is open ends where the bytes do.
pub(crate) fn reframe(
    bytes: &mut [u8],
    salt: u64,
    segment: u32,
    open: Option<usize>,
) -> Option<usize> {
    let mut at = HEADER_LEN as usize;
    let end = bytes.len();
    let mut last = None;
    while let Some(place) = bytes.get(at..at + GROUP_LEN) {
        let left = end - at - GROUP_LEN;
        let known = u32_at(place, 4).filter(|_| open != Some(at));
        let group_end = at + GROUP_LEN + known.map_or(left, |len| left.min(len as usize));
        if let Some(bytes) = bytes.get_mut(..group_end) {
            Group::close(bytes, at, 0, salt, segment, at as u32);
        }
        last = Some(at);
        at = group_end;
    }
    last
}

/// Calls `each` with the records of whole groups that end at `end`, and their places.
pub(crate) fn records(bytes: &[u8], start: u32, end: u32, mut each: impl FnMut(Decoded<'_>, u32)) {
    let bytes = bytes.get(..end as usize).unwrap_or(bytes);
    let mut at = start as usize;
    while at < bytes.len() {
        let Some(len) = u32_at(bytes.get(at..).unwrap_or_default(), 4) else {
            return;
        };
        let group_end = (at + GROUP_LEN + len as usize).min(bytes.len());
        at += GROUP_LEN;
        while let Some(rest) = bytes.get(at..group_end).filter(|rest| !rest.is_empty()) {
            let Some(len) = record_len(rest) else { return };
            if let Some(decoded) = rest.get(..len).and_then(Record::parse) {
                each(decoded, at as u32);
            }
            at += len;
        }
        at = group_end;
    }
}

/// A copy of bytes that is its own.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 7;

    /// Batches of one record each, all of the same length.
    fn batches(values: [u8; 3]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in values {
            let start = bytes.len();
            let (key, value) = (&b"key"[..], &[value; 40][..]);
            let blob = None;
            Record::PutKey { key, blob, value }.encode(&mut bytes);
            let mut batch = bytes.split_off(start);
            finish(&mut batch, &[0], true);
            bytes.append(&mut batch);
        }
        bytes
    }

    /// A segment of one group with these batches.
    fn segment(id: u32, values: [u8; 3]) -> Vec<u8> {
        let open = HEADER_LEN as usize;
        let mut bytes = vec![0; open + GROUP_LEN];
        bytes.extend(batches(values));
        Group::close(&mut bytes, open, HEADER_LEN, SALT, id, HEADER_LEN);
        bytes
    }

    /// The file of a dead segment becomes the next one, and what a torn write leaves of it may be whole
    /// records of the same lengths.
    #[test]
    fn a_group_in_which_records_of_an_older_one_stand_is_not_taken_for_whole() {
        let (old, new) = (segment(1, [1, 2, 3]), segment(2, [4, 5, 6]));
        let whole = Extent {
            end: new.len() as u32,
            bad: None,
            damaged: false,
        };
        assert_eq!(extent(&new, SALT, 2), whole);
        let record = batches([0; 3]).len() / 3;
        for stale in 0..3 {
            let at = HEADER_LEN as usize + GROUP_LEN + stale * record;
            let mut torn = new.clone();
            torn[at..at + record].copy_from_slice(&old[at..at + record]);
            let mixed = Extent {
                end: HEADER_LEN,
                bad: Some(HEADER_LEN),
                damaged: false,
            };
            assert_eq!(extent(&torn, SALT, 2), mixed, "record {stale} is stale");
        }
    }
}
