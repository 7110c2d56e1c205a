//! The texts of all filters of a tree, and their numbers.
//!
//! Filters of the same table with texts of about the same length lie in chunks of their own. So few
//! bytes go to waste, where a text lies is known before anything of it is read, and what a table of
//! few filters has lies close together, however many there are in others.

use alloc::vec::Vec;

/// Bits of a number that say which filter of a chunk it is.
const CHUNK_BITS: u32 = 13;

/// The most filters in a chunk.
const CHUNK: usize = 1 << CHUNK_BITS;

/// The most bytes of texts in a chunk, if it has more than one filter.
const CHUNK_BYTES: usize = 1 << 19;

/// A number has so many bits for the chunk.
const CHUNKS_MAX: usize = 1 << (u32::BITS - CHUNK_BITS);

#[derive(Clone, Debug)]
struct Chunk {
    /// As many bytes for each, of which the last ones are zero, or all if there is no filter: none
    /// holds U+0000.
    texts: Vec<u8>,
    text_bytes: usize,
    /// Places without a filter, some of them twice, or with one, or behind the last.
    vacant: Vec<u16>,
    len: usize,
}

/// The chunks that a table puts its filters into.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    sizes: Vec<Size>,
}

/// Chunks whose texts have the same room.
#[derive(Clone, Debug)]
struct Size {
    text_bytes: usize,
    /// Chunks that are not full.
    open: Vec<u32>,
    /// Filters in all chunks.
    len: usize,
}

/// The room that a text gets: no more than an eighth goes to waste, or seven bytes.
const fn text_bytes(len: usize) -> usize {
    let step = len.next_power_of_two() / 8;
    len.next_multiple_of(if step < 8 { 8 } else { step })
}

/// The most filters of a chunk that gives each text so many bytes.
const fn chunk_len_max(text_bytes: usize) -> usize {
    match CHUNK_BYTES / text_bytes {
        0 => 1,
        len if len > CHUNK => CHUNK,
        len => len,
    }
}

/// Filters that get room when there are none yet: one if it is long.
const fn few(text_bytes: usize) -> usize {
    match 256 / text_bytes {
        0 => 1,
        few if few > 4 => 4,
        few => few,
    }
}

impl Shelf {
    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let open: usize = self.sizes.iter().map(|size| size.open.capacity()).sum();
        open * size_of::<u32>() + self.sizes.capacity() * size_of::<Size>()
    }

    fn size_mut(&mut self, text_bytes: usize) -> Option<&mut Size> {
        let mut sizes = self.sizes.iter_mut();
        sizes.find(|size| size.text_bytes == text_bytes)
    }

    fn size_or_add(&mut self, text_bytes: usize) -> &mut Size {
        let mut sizes = self.sizes.iter();
        let found = sizes.position(|size| size.text_bytes == text_bytes);
        let at = found.unwrap_or_else(|| {
            self.sizes.reserve_exact(1);
            self.sizes.push(Size {
                text_bytes,
                open: Vec::new(),
                len: 0,
            });
            self.sizes.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "it was found or added here")]
        &mut self.sizes[at]
    }
}

#[derive(Clone, Debug)]
pub(super) struct Records {
    chunks: Vec<Chunk>,
    /// Chunks without filters.
    free: Vec<u32>,
}

impl Records {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Whether there is a number for one more filter in any table.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.len() < CHUNKS_MAX || !self.free.is_empty()
    }

    /// The text of a filter, which may be ended by a zero byte.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let Some(chunk) = self.chunks.get(id as usize / CHUNK) else {
            return &[];
        };
        let start = id as usize % CHUNK * chunk.text_bytes;
        let text = chunk.texts.get(start..start + chunk.text_bytes);
        text.unwrap_or_default()
    }

    /// The text of a filter.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let text = self.get(id);
        let end = text.iter().position(|&byte| byte == 0);
        let text = text.get(..end.unwrap_or(text.len()))?;
        str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// Whether this is the text of a filter.
    pub(super) fn is(&self, id: u32, text: &str) -> bool {
        strip(self.get(id), text.as_bytes()).is_some_and(is_end)
    }

    /// Adds a filter to those of a table and names it; the caller asked
    /// [`has_room`](Self::has_room).
    pub(super) fn insert(&mut self, shelf: &mut Shelf, text: &str) -> u32 {
        let size = shelf.size_or_add(text_bytes(text.len()));
        let open = size.open.last().copied();
        let number = open.unwrap_or_else(|| {
            // A quarter of what there is: little idle memory, little copying.
            let number = self.chunk(size.text_bytes, size.len / 4 + few(size.text_bytes));
            size.open.push(number);
            number
        });
        let id = self.insert_into(number, text);
        size.len += 1;
        if self.is_full(number) {
            size.open.pop();
        }
        id
    }

    /// Adds a filter in a chunk of its own and names it; the caller asked
    /// [`has_room`](Self::has_room).
    pub(super) fn insert_alone(&mut self, text: &str) -> u32 {
        let number = self.chunk(text_bytes(text.len()), 1);
        self.insert_into(number, text)
    }

    /// Makes the chunk of a filter that was added alone one of a table.
    pub(super) fn adopt(&mut self, shelf: &mut Shelf, id: u32) {
        let number = id >> CHUNK_BITS;
        if let Some(chunk) = self.chunks.get(number as usize) {
            let size = shelf.size_or_add(chunk.text_bytes);
            size.len += chunk.len;
            if !self.is_full(number) {
                size.open.push(number);
            }
        }
    }

    /// Removes a filter of a table, or one that was added alone.
    pub(super) fn remove(&mut self, shelf: Option<&mut Shelf>, id: u32) {
        let number = id >> CHUNK_BITS;
        let was_full = self.is_full(number);
        let Some(chunk) = self.chunks.get_mut(number as usize) else {
            return;
        };
        chunk.remove(id as usize % CHUNK);
        if let Some(size) = shelf.and_then(|shelf| shelf.size_mut(chunk.text_bytes)) {
            size.len -= 1;
            if was_full {
                size.open.push(number);
            }
            if chunk.len == 0 {
                size.open.retain(|&open| open != number);
            }
        }
        if chunk.len == 0 {
            *chunk = Chunk::new(8, 0);
            self.free.push(number);
        }
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(Chunk::allocated_bytes);
        let own = self.chunks.capacity() * size_of::<Chunk>();
        own + self.free.capacity() * size_of::<u32>() + chunks.sum::<usize>()
    }

    fn is_full(&self, number: u32) -> bool {
        let chunk = self.chunks.get(number as usize);
        chunk.is_some_and(|chunk| chunk.len >= chunk_len_max(chunk.text_bytes))
    }

    /// A chunk without filters.
    fn chunk(&mut self, text_bytes: usize, capacity: usize) -> u32 {
        let chunk = Chunk::new(text_bytes, capacity.min(chunk_len_max(text_bytes)));
        let free = self.free.pop();
        if let Some(number) = free
            && let Some(place) = self.chunks.get_mut(number as usize)
        {
            *place = chunk;
            return number;
        }
        self.chunks.push(chunk);
        (self.chunks.len() - 1) as u32
    }

    /// Puts a filter into a chunk that is not full.
    fn insert_into(&mut self, number: u32, text: &str) -> u32 {
        let chunk = self.chunks.get_mut(number as usize);
        let at = chunk.map_or(0, |chunk| chunk.insert(text));
        number << CHUNK_BITS | at as u32
    }
}

impl Chunk {
    fn new(text_bytes: usize, capacity: usize) -> Self {
        Self {
            texts: Vec::with_capacity(capacity * text_bytes),
            text_bytes,
            vacant: Vec::new(),
            len: 0,
        }
    }

    fn insert(&mut self, text: &str) -> usize {
        self.len += 1;
        while let Some(at) = self.vacant.pop() {
            if let Some(place) = self.place(at.into())
                && place.first() == Some(&0)
                && let Some(head) = place.get_mut(..text.len())
            {
                head.copy_from_slice(text.as_bytes());
                return at.into();
            }
        }
        let at = self.texts.len() / self.text_bytes;
        let end = self.texts.len() + self.text_bytes;
        if end > self.texts.capacity() {
            let more = at / 4 + few(self.text_bytes);
            let more = more.min(chunk_len_max(self.text_bytes) - at);
            self.texts.reserve_exact(more * self.text_bytes);
        }
        self.texts.extend_from_slice(text.as_bytes());
        self.texts.resize(end, 0);
        at
    }

    fn remove(&mut self, at: usize) {
        let Some(place) = self.place(at) else {
            return;
        };
        place.fill(0);
        self.len -= 1;
        self.vacant.push(at as u16);
        let mut end = self.texts.len() / self.text_bytes;
        while end > 0
            && self
                .place(end - 1)
                .is_some_and(|last| last.starts_with(&[0]))
        {
            end -= 1;
            self.texts.truncate(end * self.text_bytes);
        }
        if self.texts.len() < self.texts.capacity() / 4 {
            self.texts.shrink_to(self.texts.len() * 2);
        }
        if self.vacant.len() > end {
            self.vacant.retain(|&at| usize::from(at) < end);
            self.vacant.shrink_to(end);
        }
    }

    /// The room of a text.
    fn place(&mut self, at: usize) -> Option<&mut [u8]> {
        let start = at * self.text_bytes;
        self.texts.get_mut(start..start + self.text_bytes)
    }

    fn allocated_bytes(&self) -> usize {
        self.texts.capacity() + self.vacant.capacity() * size_of::<u16>()
    }
}

/// Whether a text ends where this is what follows.
pub(super) const fn is_end(rest: &[u8]) -> bool {
    matches!(rest, [] | [0, ..])
}

/// What follows in a text that begins so. Heads are short: their words are compared in place.
fn strip<'t>(text: &'t [u8], head: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(head.len())?;
    let same = if head.len() >= 8 {
        let words = start.as_chunks::<8>().0.iter();
        words.eq(head.as_chunks::<8>().0) && start.last_chunk::<8>() == head.last_chunk()
    } else if head.len() >= 4 {
        start.first_chunk::<4>() == head.first_chunk()
            && start.last_chunk::<4>() == head.last_chunk()
    } else {
        start.iter().eq(head)
    };
    same.then_some(rest)
}
