#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(target_os = "linux"),
    doc = "Calls of Linux that no library offers. Empty on this system."
)]
#![allow(
    unsafe_code,
    reason = "these settings of threads and sockets can be had only by calls into the C library"
)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod socket;

#[cfg(target_os = "linux")]
pub use policy::wait_when_woken;
#[cfg(target_os = "linux")]
pub use socket::set_receive_low_water;
