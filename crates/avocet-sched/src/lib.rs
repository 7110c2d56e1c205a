#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(target_os = "linux"),
    doc = "How the kernel schedules a thread, on Linux. Empty on this system."
)]
#![allow(
    unsafe_code,
    reason = "the policy of a thread can be had only by calls into the C library"
)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[cfg(target_os = "linux")]
mod policy;

#[cfg(target_os = "linux")]
pub use policy::wait_when_woken;
