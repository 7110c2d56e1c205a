#![doc = include_str!("../README.md")]
#![no_std]
#![allow(
    unsafe_code,
    reason = "what is known of bytes here cannot be told the compiler without it"
)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

extern crate alloc;

mod ascii;
mod fill;
mod places;
mod shared;

pub use ascii::{ascii_by_words, ascii_without, has_any};
pub use fill::{Fill, Room, append};
pub use places::places;
pub use shared::SharedBytes;
