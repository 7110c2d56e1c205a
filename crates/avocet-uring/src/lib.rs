#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(target_os = "linux"),
    doc = "Many sends in one system call, on Linux. Empty on this system."
)]
#![allow(
    unsafe_code,
    reason = "what the kernel does with memory cannot be told the compiler without it"
)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[cfg(target_os = "linux")]
mod ring;

#[cfg(target_os = "linux")]
pub use ring::{Batch, Ring};
