#![doc = include_str!("../README.md")]

mod apply;
mod change;
mod fetch;
mod journal;
mod recover;
mod value;

pub use journal::{Journal, JournalError};
pub use value::{Kind, ValueError, check_entry, check_key, check_message};
