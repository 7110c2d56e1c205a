//! Short names of filters, which they keep as long as they are there.

use alloc::vec::Vec;

#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    /// Where the text of each filter lies in the arena; [`FREE`] for numbers that name none.
    texts: Vec<u32>,
    /// Numbers to be given out again, some of them twice or beyond the last one.
    free: Vec<u32>,
}

/// No position of a text.
const FREE: u32 = u32::MAX;

impl Ids {
    /// Where the text of a filter lies.
    pub(super) fn text(&self, id: u32) -> Option<u32> {
        let text = self.texts.get(id as usize).copied();
        text.filter(|&text| text != FREE)
    }

    /// Names a filter. Texts have fewer positions than 2^32, so there are fewer numbers.
    pub(super) fn insert(&mut self, text: u32) -> u32 {
        while let Some(id) = self.free.pop() {
            if let Some(place) = self.texts.get_mut(id as usize)
                && *place == FREE
            {
                *place = text;
                return id;
            }
        }
        if self.texts.len() == self.texts.capacity() {
            self.texts.reserve_exact(self.texts.len() / 4 + 4);
        }
        self.texts.push(text);
        (self.texts.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(place) = self.texts.get_mut(id as usize) {
            *place = FREE;
            self.free.push(id);
        }
        while self.texts.pop_if(|text| *text == FREE).is_some() {}
        let end = self.texts.len();
        if end < self.texts.capacity() / 4 {
            self.texts.shrink_to(end * 2);
        }
        if self.free.len() / 2 > end {
            self.free.retain(|&id| (id as usize) < end);
            self.free.sort_unstable();
            self.free.dedup();
            self.free.shrink_to(end);
        }
    }

    /// The texts of all filters, to move them.
    pub(super) fn texts_mut(&mut self) -> impl Iterator<Item = &mut u32> {
        self.texts.iter_mut().filter(|text| **text != FREE)
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        (self.texts.capacity() + self.free.capacity()) * size_of::<u32>()
    }
}
