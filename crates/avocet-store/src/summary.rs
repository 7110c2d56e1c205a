//! What a segment amounts to: gathered while it is written or read, and kept as its footer.

use bytes::Bytes;

use crate::Map;
use crate::queue::Item;
use crate::record::{Decoded, Reader, Record, own, put_int, u32_at, u64_at};

/// Length of an encoded [`Item`].
pub(crate) const ITEM_LEN: usize = 17;
/// Length of what ends a file that has a footer.
pub(crate) const TRAILER_LEN: usize = 40;
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"avocetft");

/// Appends an item with its checksum.
pub(crate) fn encode_item(item: Item, out: &mut Vec<u8>) {
    let mut bytes = [0; ITEM_LEN];
    let (body, crc) = bytes.split_at_mut(ITEM_LEN - 4);
    let (offset, rest) = body.split_at_mut(4);
    offset.copy_from_slice(&item.offset.to_le_bytes());
    let (refers, blob) = rest.split_at_mut(1);
    refers.fill(item.refers.into());
    blob.copy_from_slice(&item.blob.to_le_bytes());
    crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The item that begins `bytes`; `None` when it does not match its checksum.
pub(crate) fn decode_item(bytes: &[u8]) -> Option<Item> {
    let body = bytes.get(..ITEM_LEN - 4)?;
    if crc32c::crc32c(body) != u32_at(bytes, ITEM_LEN - 4)? {
        return None;
    }
    let blob = (*body.get(4)? != 0).then_some(u64_at(body, 5)?);
    Some(Item::new(u32_at(body, 0)?, blob))
}

/// The checksum of a footer that begins with so many bytes of items: of their checksums, and of all of it.
/// That of items alone is the same whatever they are, as each ends with its own.
fn checksum(footer: &[u8], items: usize) -> u32 {
    let items = footer.get(..items).unwrap_or_default();
    let checksums = items
        .chunks_exact(ITEM_LEN)
        .map(|item| item.split_at(ITEM_LEN - 4).1);
    let crc = checksums.fold(0, crc32c::crc32c_append);
    crc32c::crc32c_append(crc, footer)
}

/// What a segment says about one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueSummary {
    /// The queue was dropped here: what earlier segments hold of it is gone.
    pub(crate) reset: bool,
    /// It was not dropped after that.
    pub(crate) exists: bool,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// First sequence and number of neighbouring entries, in the order of their items.
    pub(crate) runs: Vec<(u64, u32)>,
}

impl QueueSummary {
    /// Puts a run behind the others.
    pub(crate) fn place(&mut self, first: u64, count: u32) {
        match self.runs.last_mut() {
            Some((before, known)) if *before + u64::from(*known) == first => *known += count,
            _ => self.runs.push((first, count)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlobSummary {
    offset: u32,
    held: bool,
}

/// Gathers what a segment says from its records.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    blobs: Map<u64, BlobSummary>,
    released: Vec<u64>,
    queues: Map<u64, QueueSummary>,
    items: Map<u64, Vec<Item>>,
    keys: Map<Bytes, Option<u32>>,
    trim: u32,
    position: u64,
    puts: u64,
}

impl Summary {
    /// Begins with the last position before the segment.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            position,
            ..Self::default()
        }
    }

    pub(crate) fn record(&mut self, decoded: Decoded<'_>, offset: u32) {
        self.position += u64::from(decoded.last);
        match decoded.record {
            Record::Blob { id, held, .. } => {
                self.puts += 1;
                self.blobs.insert(id, BlobSummary { offset, held });
            }
            Record::Release { id } => {
                // An earlier segment may say that it is held, even if it was copied here.
                self.released.push(id);
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.held = false;
                }
            }
            Record::Entry {
                queue,
                sequence,
                blob,
                ..
            } => {
                self.puts += 1;
                let items = self.items.entry(queue).or_default();
                items.push(Item::new(offset, blob));
                let queue = self.queues.entry(queue).or_default();
                queue.exists = true;
                queue.end = queue.end.max(sequence + 1);
                queue.place(sequence, 1);
            }
            Record::Advance { queue, to } => self.queue(queue, to, to),
            Record::Queue { queue, first, end } => self.queue(queue, first, end),
            Record::DropQueue { queue } => {
                self.items.remove(&queue);
                let reset = QueueSummary {
                    reset: true,
                    ..QueueSummary::default()
                };
                self.queues.insert(queue, reset);
            }
            Record::PutKey { key, .. } => {
                self.puts += 1;
                self.keys.insert(own(key), Some(offset));
            }
            Record::DeleteKey { key } => {
                self.keys.insert(own(key), None);
            }
            Record::End => {}
            Record::Trim { segment } => self.trim = self.trim.max(segment),
        }
    }

    fn queue(&mut self, id: u64, first: u64, end: u64) {
        let queue = self.queues.entry(id).or_default();
        queue.exists = true;
        queue.first = queue.first.max(first);
        queue.end = queue.end.max(end);
    }

    /// Everything that was gathered, dead or alive, and the items and offsets of the footer.
    pub(crate) fn into_footer(self) -> (Footer, Vec<u8>, Vec<u8>) {
        let mut queues: Vec<_> = self.queues.into_iter().collect();
        queues.sort_unstable_by_key(|(id, _)| *id);
        let mut items = Vec::new();
        for (id, _) in &queues {
            for item in self.items.get(id).into_iter().flatten() {
                encode_item(*item, &mut items);
            }
        }
        let mut blobs: Vec<_> = self.blobs.into_iter().collect();
        blobs.sort_unstable_by_key(|(id, _)| *id);
        let offsets = blobs.iter().flat_map(|(_, blob)| blob.offset.to_le_bytes());
        let offsets = offsets.collect();
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        keys.sort_unstable();
        let footer = Footer {
            queues,
            blobs: blobs.iter().map(|(id, blob)| (*id, blob.held)).collect(),
            released: self.released,
            keys,
            trim: self.trim,
            position: self.position,
            records: self.puts,
        };
        (footer, items, offsets)
    }
}

/// A summary in the shape in which it is stored, beside its tables: encoded items, queue by queue and
/// run by run, and offsets of blobs by ordinal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    /// By id.
    pub(crate) queues: Vec<(u64, QueueSummary)>,
    /// By id; the place in this list is the blob's ordinal.
    pub(crate) blobs: Vec<(u64, bool)>,
    pub(crate) released: Vec<u64>,
    /// By name.
    pub(crate) keys: Vec<(Bytes, Option<u32>)>,
    pub(crate) trim: u32,
    pub(crate) position: u64,
    /// How many blobs, entries and keys were put here.
    pub(crate) records: u64,
}

impl Footer {
    /// How many things the segment holds or held, with the places where queues begin.
    pub(crate) fn puts(&self) -> u64 {
        let begun = self.queues.iter().filter(|(_, queue)| queue.first > 0);
        self.records + begun.count() as u64
    }

    /// The bytes that follow the data of a segment of `data_end` bytes, tables first.
    pub(crate) fn encode(
        &self,
        place: Place,
        data_end: u32,
        items: &[u8],
        offsets: &[u8],
    ) -> Bytes {
        let mut out = Vec::with_capacity(items.len() + offsets.len() + self.blobs.len() * 2);
        out.extend_from_slice(items);
        out.extend_from_slice(offsets);
        let tables = out.len();
        put_int(self.position, &mut out);
        put_int(self.trim.into(), &mut out);
        put_int(self.records, &mut out);
        put_int(self.blobs.len() as u64, &mut out);
        let mut last = 0;
        for (id, held) in &self.blobs {
            put_int(id.wrapping_sub(last), &mut out);
            out.push((*held).into());
            last = *id;
        }
        put_int(self.released.len() as u64, &mut out);
        for id in &self.released {
            put_int(*id, &mut out);
        }
        put_int(self.queues.len() as u64, &mut out);
        for (id, queue) in &self.queues {
            put_int(*id, &mut out);
            out.push(u8::from(queue.reset) | u8::from(queue.exists) << 1);
            put_int(queue.first, &mut out);
            put_int(queue.end, &mut out);
            put_int(queue.runs.len() as u64, &mut out);
            for (first, count) in &queue.runs {
                put_int(*first, &mut out);
                put_int((*count).into(), &mut out);
            }
        }
        put_int(self.keys.len() as u64, &mut out);
        for (key, offset) in &self.keys {
            put_int(key.len() as u64, &mut out);
            out.extend_from_slice(key);
            // No record is at offset 0, where the header is.
            put_int(offset.unwrap_or(0).into(), &mut out);
        }
        let crc = checksum(&out, items.len());
        let trailer = [
            data_end,
            items.len() as u32,
            offsets.len() as u32,
            (out.len() - tables) as u32,
            crc,
            0,
            0,
        ];
        let start = out.len();
        out.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
        for word in trailer {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let crc = place.crc(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        out.into()
    }

    /// The footer in `bytes`, which [`Trailer::decode`] found.
    pub(crate) fn decode(bytes: &[u8], trailer: &Trailer) -> Option<Self> {
        let body = bytes.get(..trailer.len())?;
        if checksum(body, trailer.items as usize) != trailer.crc {
            return None;
        }
        let tables = trailer.items as usize + trailer.offsets as usize;
        let mut meta = Reader(body.get(tables..)?);
        let mut footer = Self {
            position: meta.count()?,
            trim: meta.int32()?,
            records: meta.int()?,
            ..Self::default()
        };
        let mut last = None;
        for _ in 0..meta.int()? {
            let id = next_id(last, meta.int()?)?;
            footer.blobs.push((id, meta.int()? != 0));
            last = Some(id);
        }
        for _ in 0..meta.int()? {
            footer.released.push(meta.int()?);
        }
        let mut items = 0;
        for _ in 0..meta.int()? {
            let id = meta.int()?;
            let flags = meta.int()?;
            let mut queue = QueueSummary {
                reset: flags & 1 != 0,
                exists: flags & 2 != 0,
                first: meta.count()?,
                end: meta.count()?,
                runs: Vec::new(),
            };
            for _ in 0..meta.int()? {
                let (first, count) = (meta.count()?, meta.int32()?);
                items += u64::from(count);
                queue.runs.push((first, count));
            }
            footer.queues.push((id, queue));
        }
        for _ in 0..meta.int()? {
            let key = own(meta.bytes()?);
            let offset = meta.int32()?;
            footer.keys.push((key, (offset > 0).then_some(offset)));
        }
        let whole = items * ITEM_LEN as u64 == trailer.items.into()
            && footer.blobs.len() as u64 * 4 == trailer.offsets.into();
        whole.then_some(footer)
    }
}

/// The id that differs from the one before by so much; ids ascend.
fn next_id(last: Option<u64>, difference: u64) -> Option<u64> {
    match last {
        None => Some(difference),
        Some(last) if difference > 0 => last.checked_add(difference),
        Some(_) => None,
    }
}

/// The segment that a trailer is of. No message, and nothing that stood in the file before, can look like
/// its trailer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) salt: u64,
    pub(crate) segment: u32,
}

impl Place {
    fn crc(self, trailer: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(trailer), &self.salt.to_le_bytes());
        crc32c::crc32c_append(crc, &self.segment.to_le_bytes())
    }
}

/// The last bytes of a file with a footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailer {
    pub(crate) data_end: u32,
    pub(crate) items: u32,
    offsets: u32,
    meta: u32,
    crc: u32,
}

impl Trailer {
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let (rest, crc) = bytes.get(..TRAILER_LEN)?.split_last_chunk::<4>()?;
        let good = u64_at(rest, 0)? == TRAILER_MAGIC && place.crc(rest) == u32::from_le_bytes(*crc);
        if !good {
            return None;
        }
        Some(Self {
            data_end: u32_at(rest, 8)?,
            items: u32_at(rest, 12)?,
            offsets: u32_at(rest, 16)?,
            meta: u32_at(rest, 20)?,
            crc: u32_at(rest, 24)?,
        })
    }

    /// Bytes of the footer before its trailer.
    pub(crate) fn len(&self) -> usize {
        self.items as usize + self.offsets as usize + self.meta as usize
    }
}
