//! An allocator for a program that ends soon: it hands out one block of memory, and takes nothing
//! back.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Enough for one small message through every layer.
const SIZE: usize = 4 << 20;

#[global_allocator]
static ALLOCATOR: Bump = Bump {
    memory: Memory(UnsafeCell::new([0; SIZE])),
    used: AtomicUsize::new(0),
};

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; SIZE]>);

struct Bump {
    memory: Memory,
    used: AtomicUsize,
}

// SAFETY: `used` only grows, and atomically, so no two callers ever get the same bytes; the
// allocator itself never reads or writes them.
unsafe impl Sync for Bump {}

// An allocator cannot be written without `unsafe`, and a `no_std` program cannot do without one.
// SAFETY: a block lies within `memory`, starts at a multiple of its alignment (`memory` starts at a
// page, and larger alignments are refused), overlaps no other block, and lives as long as the
// program.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > align_of::<Memory>() {
            return ptr::null_mut();
        }
        let mut start = 0;
        let reserve = |used: usize| {
            start = used.checked_next_multiple_of(layout.align())?;
            start.checked_add(layout.size()).filter(|end| *end <= SIZE)
        };
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve)
        {
            Ok(_) => self.memory.0.get().cast::<u8>().wrapping_add(start),
            Err(_) => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
