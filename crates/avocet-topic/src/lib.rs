#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

#[macro_use]
mod text;

mod filter;
mod limits;
mod matching;
mod name;

pub use filter::{
    Share, ShareError, ShareName, ShareNameBuf, ShareNameError, TopicFilter, TopicFilterBuf,
    TopicFilterError,
};
pub use limits::{TopicLimitError, TopicLimits};
pub use matching::matches;
pub use name::{TopicName, TopicNameBuf, TopicNameError};
