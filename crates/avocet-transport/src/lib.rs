#![doc = include_str!("../README.md")]

mod connect;
mod listen;

pub use connect::{ConnectError, connect};
pub use listen::{ListenError, accept, listen};
