//! A header and bytes that many hold, in one piece of memory.

use alloc::alloc::{alloc, dealloc, handle_alloc_error};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicU32, Ordering};

/// A header and bytes behind it, in one allocation that all clones share; a clone takes the space of one pointer.
///
/// The standard library's `Arc<[u8]>` takes that of two, counts weak references too, and is filled
/// by a copy of what is in one piece already.
pub struct SharedBytes<H: Copy> {
    head: NonNull<Head<H>>,
    holds: PhantomData<Head<H>>,
}

/// What is in front of the bytes.
#[repr(C)]
struct Head<H> {
    /// How many values share it.
    holders: AtomicU32,
    /// How many bytes there are.
    len: u32,
    header: H,
}

/// So many threads would have to clone at once for the count to go round.
const HOLDERS_MAX: u32 = u32::MAX / 2;

// SAFETY: all that holders share is the count, which is atomic, and what they may only read; the one
// who changes or frees it is the only one.
unsafe impl<H: Copy + Send + Sync> Send for SharedBytes<H> {}

// SAFETY: as above.
unsafe impl<H: Copy + Send + Sync> Sync for SharedBytes<H> {}

impl<H: Copy> SharedBytes<H> {
    /// These parts one after the other, behind a header.
    ///
    /// # Panics
    ///
    /// If they have 4 GiB or more.
    #[inline]
    #[must_use]
    pub fn new<const N: usize>(header: H, parts: [&[u8]; N]) -> Self {
        let len = parts.iter().map(|part| part.len());
        let shared = Self::allocate(header, len.fold(0, usize::saturating_add));
        let mut to = shared.start();
        for part in parts {
            // SAFETY: the parts take `len` bytes together, for which there is room from `start` on; nobody
            // else knows of this memory.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
        shared
    }

    /// So many bytes behind a header, set by `fill`, which gets them as zeros.
    ///
    /// # Panics
    ///
    /// If they are 4 GiB or more.
    #[must_use]
    pub fn filled(header: H, len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let shared = Self::allocate(header, len);
        // SAFETY: there is room for `len` bytes from `start` on, and nobody else knows of them.
        fill(unsafe {
            ptr::write_bytes(shared.start(), 0, len);
            slice::from_raw_parts_mut(shared.start(), len)
        });
        shared
    }

    /// The bytes are not set.
    #[inline]
    fn allocate(header: H, len: usize) -> Self {
        let (Ok(bytes), Some(layout)) = (u32::try_from(len), layout::<H>(len)) else {
            too_long();
        };
        // SAFETY: the layout has the size of a `Head` at least, which is not zero.
        let memory = unsafe { alloc(layout) };
        let Some(head) = NonNull::new(memory.cast::<Head<H>>()) else {
            handle_alloc_error(layout);
        };
        let value = Head {
            holders: AtomicU32::new(1),
            len: bytes,
            header,
        };
        // SAFETY: the memory has the size and the alignment of a `Head`, and is nobody else's.
        unsafe { head.write(value) };
        Self {
            head,
            holds: PhantomData,
        }
    }

    /// Where the bytes begin.
    #[inline]
    fn start(&self) -> *mut u8 {
        // SAFETY: the memory is that of a `Head` and the bytes behind it.
        unsafe { self.head.add(1).as_ptr().cast() }
    }

    #[inline]
    fn holders(&self) -> &AtomicU32 {
        // SAFETY: the memory lives as long as a value that shares it, and the count is only used as
        // the atomic it is.
        unsafe { &(*self.head.as_ptr()).holders }
    }

    /// How many bytes there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: the memory lives as long as a value that shares it; the length never changes.
        unsafe { (*self.head.as_ptr()).len as usize }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header.
    #[inline]
    #[must_use]
    pub fn header(&self) -> &H {
        // SAFETY: the memory lives as long as a value that shares it; the header changes only by
        // `header_mut`, whose caller holds the only one of them, which is not borrowed.
        unsafe { &(*self.head.as_ptr()).header }
    }

    /// The header, to be changed; `None` if others share it.
    #[inline]
    #[must_use]
    pub fn header_mut(&mut self) -> Option<&mut H> {
        if !self.is_only() {
            return None;
        }
        // SAFETY: this is the only value that shares the memory, and it is borrowed for as long.
        Some(unsafe { &mut (*self.head.as_ptr()).header })
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` and `filled` have set so many bytes from `start` on, and nothing sets them again.
        unsafe { slice::from_raw_parts(self.start(), self.len()) }
    }

    /// Whether both are the same memory.
    #[inline]
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.head == other.head
    }

    /// Whether nobody else shares the memory. As others come only of one who does, it stays so
    /// as long as this value is not cloned; what those did who have gone comes before.
    #[inline]
    fn is_only(&self) -> bool {
        self.holders().load(Ordering::Acquire) == 1
    }
}

impl<H: Copy> Clone for SharedBytes<H> {
    #[inline]
    fn clone(&self) -> Self {
        // As there is a holder here, the memory stays; nothing is read that another one has to have
        // written before.
        if self.holders().fetch_add(1, Ordering::Relaxed) >= HOLDERS_MAX {
            self.holders().fetch_sub(1, Ordering::Relaxed);
            too_many();
        }
        Self {
            head: self.head,
            holds: PhantomData,
        }
    }
}

impl<H: Copy> Drop for SharedBytes<H> {
    #[inline]
    fn drop(&mut self) {
        // The only holder, as most last ones are, needs no locked operation.
        if !self.is_only() && self.holders().fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let size = size_of::<Head<H>>() + self.len();
        // SAFETY: this was the last holder, and the layout is that of `allocate`, where it was
        // checked; a `Head` of what is `Copy` needs no drop.
        unsafe {
            let layout = Layout::from_size_align_unchecked(size, align_of::<Head<H>>());
            dealloc(self.head.as_ptr().cast(), layout);
        }
    }
}

impl<H: Copy + PartialEq> PartialEq for SharedBytes<H> {
    fn eq(&self, other: &Self) -> bool {
        self.header() == other.header() && self.bytes() == other.bytes()
    }
}

impl<H: Copy + Eq> Eq for SharedBytes<H> {}

impl<H: Copy + fmt::Debug> fmt::Debug for SharedBytes<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes")
            .field("header", self.header())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// What a head with so many bytes behind it takes.
#[inline]
fn layout<H>(len: usize) -> Option<Layout> {
    let size = size_of::<Head<H>>().checked_add(len)?;
    Layout::from_size_align(size, align_of::<Head<H>>()).ok()
}

#[cold]
#[inline(never)]
fn too_long() -> ! {
    panic!("4 GiB or more in one piece");
}

#[cold]
#[inline(never)]
fn too_many() -> ! {
    panic!("two thousand million values share the same bytes");
}
