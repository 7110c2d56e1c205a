//! What a segment amounts to: gathered while it is written or read, and kept as its footer.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Map;
use crate::record::{Reader, Record, own, put_int, u32_at, u64_at};

/// Length of an encoded [`Item`].
pub(crate) const ITEM_LEN: usize = 17;
/// Length of what ends a file that has a footer.
pub(crate) const TRAILER_LEN: usize = 40;
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"avocetft");

/// Where an entry of a queue is in its segment, and what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) offset: u32,
    pub(crate) blob: Option<u64>,
}

impl Item {
    fn encode(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.push(self.blob.is_some().into());
        out.extend_from_slice(&self.blob.unwrap_or_default().to_le_bytes());
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..13)?;
        if crc32c::crc32c(body) != u32_at(bytes, 13)? {
            return None;
        }
        Some(Self {
            offset: u32_at(body, 0)?,
            blob: (*body.get(4)? != 0).then_some(u64_at(body, 5)?),
        })
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobSummary {
    pub(crate) offset: u32,
    pub(crate) held: bool,
    pub(crate) copied: bool,
}

/// Gathers what a segment says, record by record.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) blobs: Map<u64, BlobSummary>,
    pub(crate) released: Vec<u64>,
    pub(crate) queues: Map<u64, QueueSummary>,
    pub(crate) items: Map<u64, Vec<Item>>,
    pub(crate) keys: Map<Bytes, Option<u32>>,
    pub(crate) trim: u32,
    pub(crate) position: u64,
    /// How many blobs, entries and keys were put here.
    pub(crate) puts: u64,
}

impl Summary {
    pub(crate) fn record(&mut self, record: Record<'_>, offset: u32) {
        match record {
            Record::Blob {
                id, held, copied, ..
            } => {
                self.puts += 1;
                let blob = BlobSummary {
                    offset,
                    held,
                    copied,
                };
                self.blobs.insert(id, blob);
            }
            Record::Release { id } => {
                let blob = self.blobs.get_mut(&id);
                // The segment it was copied from may still be there and say that it is held.
                if blob.as_ref().is_none_or(|blob| blob.copied) {
                    self.released.push(id);
                }
                if let Some(blob) = blob {
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
                self.items
                    .entry(queue)
                    .or_default()
                    .push(Item { offset, blob });
                let queue = self.queues.entry(queue).or_default();
                queue.exists = true;
                queue.end = queue.end.max(sequence + 1);
                match queue.runs.last_mut() {
                    Some((first, count)) if *first + u64::from(*count) == sequence => *count += 1,
                    _ => queue.runs.push((sequence, 1)),
                }
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
            Record::End { position } => self.position = self.position.max(position),
            Record::Trim { segment } => self.trim = self.trim.max(segment),
        }
    }

    fn queue(&mut self, id: u64, first: u64, end: u64) {
        let queue = self.queues.entry(id).or_default();
        queue.exists = true;
        queue.first = queue.first.max(first);
        queue.end = queue.end.max(end);
    }

    /// Everything that was gathered, dead or alive.
    pub(crate) fn into_footer(self) -> Footer {
        let queues: BTreeMap<_, _> = self.queues.into_iter().collect();
        let mut items = Vec::new();
        for id in queues.keys() {
            for item in self.items.get(id).into_iter().flatten() {
                item.encode(&mut items);
            }
        }
        let blobs = self.blobs.into_iter();
        let mut blobs: Vec<_> = blobs
            .map(|(id, blob)| (id, blob.offset, blob.held))
            .collect();
        blobs.sort_unstable();
        let mut footer = Footer {
            queues,
            released: self.released,
            keys: self.keys.into_iter().collect(),
            trim: self.trim,
            position: self.position,
            records: self.puts,
            items: items.into(),
            ..Footer::default()
        };
        footer.set_blobs(&blobs);
        footer
    }
}

/// A summary in the shape in which it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) queues: BTreeMap<u64, QueueSummary>,
    /// By id; the place in this list is the blob's ordinal.
    pub(crate) blobs: Vec<(u64, bool)>,
    pub(crate) released: Vec<u64>,
    pub(crate) keys: BTreeMap<Bytes, Option<u32>>,
    pub(crate) trim: u32,
    pub(crate) position: u64,
    /// How many blobs, entries and keys were put here.
    pub(crate) records: u64,
    /// Encoded items, queue by queue, run by run.
    pub(crate) items: Bytes,
    /// Offsets of the blobs, by ordinal.
    pub(crate) offsets: Bytes,
}

impl Footer {
    /// Takes ids, offsets and holds of blobs, in the order of their ids.
    pub(crate) fn set_blobs(&mut self, blobs: &[(u64, u32, bool)]) {
        self.blobs = blobs.iter().map(|(id, _, held)| (*id, *held)).collect();
        let offsets = blobs.iter().flat_map(|(_, offset, _)| offset.to_le_bytes());
        self.offsets = offsets.collect();
    }

    /// How many things the segment holds or held, with the places where queues begin.
    pub(crate) fn puts(&self) -> u64 {
        let begun = self.queues.values().filter(|queue| queue.first > 0);
        self.records + begun.count() as u64
    }

    pub(crate) fn push_item(items: &mut Vec<u8>, item: Item) {
        item.encode(items);
    }

    /// The bytes that follow the data of a segment of `data_end` bytes.
    pub(crate) fn encode(&self, data_end: u32) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.items);
        out.extend_from_slice(&self.offsets);
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
        let crc = crc32c::crc32c(&out);
        let trailer = [
            data_end,
            self.items.len() as u32,
            self.offsets.len() as u32,
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
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The footer in `bytes`, which [`Trailer::decode`] found.
    pub(crate) fn decode(bytes: &Bytes, trailer: &Trailer) -> Option<Self> {
        let body = bytes.get(..trailer.len())?;
        if crc32c::crc32c(body) != trailer.crc {
            return None;
        }
        let items = trailer.items as usize;
        let tables = items + trailer.offsets as usize;
        let mut meta = Reader(body.get(tables..)?);
        let mut footer = Self {
            position: meta.int()?,
            trim: meta.int32()?,
            records: meta.int()?,
            items: bytes.slice(..items),
            offsets: bytes.slice(items..tables),
            ..Self::default()
        };
        let mut last = 0u64;
        for _ in 0..meta.int()? {
            last = last.wrapping_add(meta.int()?);
            footer.blobs.push((last, meta.int()? != 0));
        }
        for _ in 0..meta.int()? {
            footer.released.push(meta.int()?);
        }
        for _ in 0..meta.int()? {
            let id = meta.int()?;
            let flags = meta.int()?;
            let mut queue = QueueSummary {
                reset: flags & 1 != 0,
                exists: flags & 2 != 0,
                first: meta.int()?,
                end: meta.int()?,
                runs: Vec::new(),
            };
            for _ in 0..meta.int()? {
                queue.runs.push((meta.int()?, meta.int32()?));
            }
            footer.queues.insert(id, queue);
        }
        for _ in 0..meta.int()? {
            let key = own(meta.bytes()?);
            let offset = meta.int32()?;
            footer.keys.insert(key, (offset > 0).then_some(offset));
        }
        Some(footer)
    }
}

/// The last bytes of a file with a footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailer {
    pub(crate) data_end: u32,
    items: u32,
    offsets: u32,
    meta: u32,
    crc: u32,
}

impl Trailer {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (rest, crc) = bytes.get(..TRAILER_LEN)?.split_last_chunk::<4>()?;
        let good =
            u64_at(rest, 0)? == TRAILER_MAGIC && crc32c::crc32c(rest) == u32::from_le_bytes(*crc);
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
