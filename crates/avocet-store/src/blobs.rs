//! Where the blobs are, and what refers to them.

use std::collections::BTreeMap;

use crate::Map;

/// The bit of a blob's state that says it is held; the others count references.
pub(crate) const HELD: u32 = 1 << 31;

/// The bit of an active blob's word that says that it was put in an earlier segment.
const COPIED: u32 = 1 << 30;

/// A blob of the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveBlob {
    pub(crate) offset: u32,
    /// Hold and references, and whether it is copied.
    word: u32,
}

impl ActiveBlob {
    pub(crate) fn new(offset: u32, state: u32, copied: bool) -> Self {
        let copied = if copied { COPIED } else { 0 };
        Self {
            offset,
            word: state | copied,
        }
    }

    /// Hold and references, never 0.
    pub(crate) fn state(&self) -> u32 {
        self.word & !COPIED
    }

    /// Whether it was put in an earlier segment.
    pub(crate) fn copied(&self) -> bool {
        self.word & COPIED != 0
    }
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobPlace {
    Active(ActiveBlob),
    Sealed { segment: u32, ordinal: u32 },
}

/// Blobs of one segment whose ids differ in the last six bits only. Their ordinals are neighbours.
#[derive(Clone, Copy, Debug)]
struct Part {
    segment: u32,
    ordinal: u32,
    /// A bit for each id that is there.
    ids: u64,
}

impl Part {
    fn ordinal(&self, id: u64) -> Option<u32> {
        let bit = 1 << (id % 64);
        let below = self.ids & (bit - 1);
        (self.ids & bit != 0).then(|| self.ordinal + below.count_ones())
    }
}

/// What is known of the blobs of a sealed segment.
#[derive(Debug, Default)]
struct Sealed {
    /// By ordinal: a bit for the hold, and references up to [`MANY`]; 0 is dead.
    states: Vec<u8>,
    /// References of those that have more.
    many: Map<u32, u32>,
    /// The first parts of their ids.
    blocks: Vec<u64>,
}

const HELD_BYTE: u8 = 0x80;
const MANY: u8 = 0x7f;

impl Sealed {
    fn state(&self, ordinal: u32) -> u32 {
        let byte = self.states.get(ordinal as usize).copied().unwrap_or(0);
        let few = u32::from(byte & MANY);
        let count = match byte & MANY {
            MANY => self.many.get(&ordinal).copied().unwrap_or(few),
            _ => few,
        };
        if byte & HELD_BYTE != 0 {
            count | HELD
        } else {
            count
        }
    }

    fn set(&mut self, ordinal: u32, state: u32) {
        let count = state & !HELD;
        let held = if state & HELD != 0 { HELD_BYTE } else { 0 };
        let Some(byte) = self.states.get_mut(ordinal as usize) else {
            return;
        };
        if count >= MANY.into() {
            self.many.insert(ordinal, count);
        } else if *byte & MANY == MANY {
            self.many.remove(&ordinal);
        }
        *byte = held | count.min(MANY.into()) as u8;
    }
}

/// The blobs. Once their segment is sealed they take one byte each, and one or two more as far as
/// their ids are not far from each other.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    pub(crate) active: Map<u64, ActiveBlob>,
    /// By all but the last six bits of ids: the part put last.
    blocks: Map<u64, Part>,
    /// Parts with the same first bits put before, in their order.
    older: Map<u64, Vec<Part>>,
    sealed: BTreeMap<u32, Sealed>,
}

impl Blobs {
    fn sealed(&self, id: u64) -> Option<(u32, u32)> {
        let last = self.blocks.get(&(id / 64))?;
        if let Some(ordinal) = last.ordinal(id) {
            return Some((last.segment, ordinal));
        }
        let older = self.older.get(&(id / 64))?;
        let mut parts = older.iter().rev();
        parts.find_map(|part| Some((part.segment, part.ordinal(id)?)))
    }

    /// Where a blob is, and its state; `None` if it is not alive.
    pub(crate) fn find(&self, id: u64) -> Option<(BlobPlace, u32)> {
        if let Some(blob) = self.active.get(&id) {
            return Some((BlobPlace::Active(*blob), blob.state()));
        }
        let (segment, ordinal) = self.sealed(id)?;
        let state = self.sealed.get(&segment)?.state(ordinal);
        (state > 0).then_some((BlobPlace::Sealed { segment, ordinal }, state))
    }

    /// Gives a blob that is alive the state that `to` makes of its state, unless that is `None`, and
    /// says where it is and what its state was.
    pub(crate) fn change(
        &mut self,
        id: u64,
        to: impl FnOnce(u32) -> Option<u32>,
    ) -> Option<(BlobPlace, u32)> {
        use std::collections::hash_map::Entry;
        if let Entry::Occupied(mut entry) = self.active.entry(id) {
            let blob = *entry.get();
            match to(blob.state())? {
                0 => {
                    entry.remove();
                }
                state => entry.get_mut().word = state | blob.word & COPIED,
            }
            return Some((BlobPlace::Active(blob), blob.state()));
        }
        let (segment, ordinal) = self.sealed(id)?;
        let sealed = self.sealed.get_mut(&segment)?;
        let old = sealed.state(ordinal);
        if old == 0 {
            return None;
        }
        sealed.set(ordinal, to(old)?);
        Some((BlobPlace::Sealed { segment, ordinal }, old))
    }

    /// Puts a blob back where it was.
    pub(crate) fn restore(&mut self, id: u64, old: Option<(BlobPlace, u32)>) {
        match old {
            None => {
                self.active.remove(&id);
            }
            Some((BlobPlace::Active(blob), _)) => {
                self.active.insert(id, blob);
            }
            Some((BlobPlace::Sealed { segment, ordinal }, state)) => {
                if let Some(sealed) = self.sealed.get_mut(&segment) {
                    sealed.set(ordinal, state);
                }
            }
        }
    }

    /// Takes the hold from a blob of an earlier segment, alive or not.
    pub(crate) fn release(&mut self, id: u64) {
        if let Some((segment, ordinal)) = self.sealed(id)
            && let Some(sealed) = self.sealed.get_mut(&segment)
        {
            let state = sealed.state(ordinal);
            sealed.set(ordinal, state & !HELD);
        }
    }

    /// Counts a reference to a blob of a sealed segment, alive or not, and says whether it is there.
    pub(crate) fn count(&mut self, id: u64) -> bool {
        let Some((segment, ordinal)) = self.sealed(id) else {
            return false;
        };
        let Some(sealed) = self.sealed.get_mut(&segment) else {
            return false;
        };
        let state = sealed.state(ordinal);
        sealed.set(ordinal, state + 1);
        true
    }

    /// The blobs of a sealed segment that are alive, in the order of their ids.
    pub(crate) fn of(&self, segment: u32) -> impl Iterator<Item = u64> {
        let sealed = self.sealed.get(&segment);
        sealed.into_iter().flat_map(move |sealed| {
            let parts = sealed.blocks.iter().flat_map(move |block| {
                let older = self.older.get(block).into_iter().flatten();
                let parts = older.chain(self.blocks.get(block));
                let parts = parts.filter(move |part| part.segment == segment);
                parts.map(move |part| (*block, *part))
            });
            parts.flat_map(move |(block, part)| {
                let ids = (0..64).map(move |low| block * 64 + low);
                ids.filter(move |id| {
                    let ordinal = part.ordinal(*id);
                    ordinal.is_some_and(|ordinal| sealed.state(ordinal) > 0)
                })
            })
        })
    }

    /// Makes the blobs of a segment known, in the order of their ids. What earlier segments hold
    /// under the same ids is dead.
    pub(crate) fn seal(&mut self, segment: u32, blobs: impl ExactSizeIterator<Item = (u64, u32)>) {
        let mut sealed = Sealed {
            states: vec![0; blobs.len()],
            ..Sealed::default()
        };
        let mut open: Option<(u64, Part)> = None;
        for (ordinal, (id, state)) in (0..).zip(blobs) {
            if let Some((old, at)) = self.sealed(id)
                && let Some(old) = self.sealed.get_mut(&old)
            {
                old.set(at, 0);
            }
            sealed.set(ordinal, state);
            let bit = 1 << (id % 64);
            match &mut open {
                Some((block, part)) if *block == id / 64 => part.ids |= bit,
                _ => {
                    let part = Part {
                        segment,
                        ordinal,
                        ids: bit,
                    };
                    if let Some((block, part)) = open.replace((id / 64, part)) {
                        self.place(block, part, &mut sealed);
                    }
                }
            }
        }
        if let Some((block, part)) = open {
            self.place(block, part, &mut sealed);
        }
        sealed.blocks.shrink_to_fit();
        self.sealed.insert(segment, sealed);
    }

    fn place(&mut self, block: u64, part: Part, sealed: &mut Sealed) {
        sealed.blocks.push(block);
        if let Some(older) = self.blocks.insert(block, part) {
            self.older.entry(block).or_default().push(older);
        }
    }

    /// Forgets a segment that holds nothing that lives.
    pub(crate) fn forget(&mut self, segment: u32) {
        let Some(sealed) = self.sealed.remove(&segment) else {
            return;
        };
        for block in sealed.blocks {
            let mut rest = self.older.remove(&block).unwrap_or_default();
            rest.extend(self.blocks.remove(&block));
            rest.retain(|part| part.segment != segment);
            if let Some(last) = rest.pop() {
                self.blocks.insert(block, last);
            }
            if !rest.is_empty() {
                self.older.insert(block, rest);
            }
        }
    }

    /// How many blobs of sealed segments are alive, by segment.
    pub(crate) fn living(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sealed.iter().map(|(segment, sealed)| {
            let alive = sealed.states.iter().filter(|state| **state > 0);
            (*segment, alive.count() as u64)
        })
    }

    pub(crate) fn len(&self) -> u64 {
        let sealed: u64 = self.living().map(|(_, alive)| alive).sum();
        self.active.len() as u64 + sealed
    }

    /// About how many bytes of memory this takes.
    pub(crate) fn memory(&self) -> usize {
        let sealed = self.sealed.values().map(|sealed| {
            sealed.states.capacity() + sealed.blocks.capacity() * 8 + map_memory(&sealed.many)
        });
        let older = self
            .older
            .values()
            .map(|parts| parts.capacity() * size_of::<Part>());
        map_memory(&self.active)
            + map_memory(&self.blocks)
            + map_memory(&self.older)
            + sealed.sum::<usize>()
            + older.sum::<usize>()
    }
}

/// About how many bytes a map takes: its tables have room for eight where seven are used.
pub(crate) fn map_memory<K, V>(map: &Map<K, V>) -> usize {
    map.capacity() * 8 / 7 * (size_of::<(K, V)>() + 1)
}
