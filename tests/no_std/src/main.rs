//! A program without the standard library that uses each of the pure crates.
//!
//! It brings its own allocator and its own panic handler, so it does not link as soon as one of the
//! crates, or one of their dependencies, pulls in `std`.

#![no_std]
#![no_main]

extern crate alloc;

mod allocator;

use core::ffi::c_int;
use core::panic::PanicInfo;

// The C library starts the program, and has the memory functions that the compiler calls.
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

/// The precompiled `core` refers to this symbol, which nothing calls when a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// 0 when every crate did what it should, or else the number of the first that did not.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let crates = [topic as fn() -> Option<()>];
    for (number, check) in (1..).zip(crates) {
        if check().is_none() {
            return number;
        }
    }
    0
}

fn topic() -> Option<()> {
    use avocet_topic::{TopicFilterBuf, TopicName, matches};
    let filter = TopicFilterBuf::new("sensor/+/temperature").ok()?;
    let name = TopicName::new("sensor/7/temperature").ok()?;
    matches(filter.as_filter(), name).then_some(())
}
