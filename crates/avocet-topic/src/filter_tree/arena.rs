//! The texts of all filters of a tree in one buffer, each ended by U+0000, which no filter holds.

use alloc::string::String;

/// Texts in the order they came, with gaps where texts were removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    texts: String,
    gap_bytes: usize,
}

impl Arena {
    /// Whether a text of this length would still have a position.
    pub(super) fn has_room(&self, text: &str) -> bool {
        u32::try_from(self.texts.len() + text.len()).is_ok_and(|end| end < u32::MAX)
    }

    /// Appends a text and returns its position; the caller asked [`has_room`](Self::has_room).
    pub(super) fn push(&mut self, text: &str) -> u32 {
        debug_assert!(self.has_room(text), "the caller asks first");
        let position = self.texts.len();
        let wanted = text.len() + 1;
        if self.texts.capacity() - position < wanted {
            // A quarter instead of a doubling: a little more copying, far less idle memory.
            self.texts.reserve_exact(wanted.max(position / 4));
        }
        self.texts.push_str(text);
        self.texts.push('\0');
        position as u32
    }

    /// Everything from a position on: the text, its end mark, and other texts.
    pub(super) fn from(&self, position: u32) -> &[u8] {
        self.texts
            .as_bytes()
            .get(position as usize..)
            .unwrap_or_default()
    }

    /// The text at a position.
    pub(super) fn text(&self, position: u32) -> &str {
        let from = self.texts.get(position as usize..).unwrap_or_default();
        from.split_once('\0').map_or(from, |(text, _)| text)
    }

    /// Whether this is the text at a position.
    pub(super) fn is(&self, position: u32, text: &str) -> bool {
        self.from(position)
            .split_at_checked(text.len())
            .is_some_and(|(head, tail)| head == text.as_bytes() && tail.first() == Some(&0))
    }

    /// Notes that a text is no longer wanted, and says whether it is time to compact.
    pub(super) fn forget(&mut self, text: &str) -> bool {
        self.gap_bytes += text.len() + 1;
        self.gap_bytes > GAP_BYTES_MIN && self.gap_bytes > self.texts.len() / 2
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.texts.capacity()
    }

    /// An empty arena with room for all texts that are still wanted.
    pub(super) fn successor(&self) -> Self {
        let live = self.texts.len().saturating_sub(self.gap_bytes);
        Self {
            texts: String::with_capacity(live),
            gap_bytes: 0,
        }
    }
}

/// Below this, compacting would cost more than the gaps do.
const GAP_BYTES_MIN: usize = 4_096;
