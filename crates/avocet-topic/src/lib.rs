#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

#[macro_use]
mod text;

mod filter;
mod filter_tree;
mod limits;
mod matching;
mod name;
mod seed;
mod shape;
mod topic_tree;

pub use filter::{
    Share, ShareError, ShareName, ShareNameBuf, ShareNameError, TopicFilter, TopicFilterBuf,
    TopicFilterError,
};
pub use filter_tree::{FilterId, FilterTree, FilterTreeLimits, TreeFull};
pub use limits::{TopicLimitError, TopicLimits};
pub use matching::matches;
pub use name::{TopicName, TopicNameBuf, TopicNameError};
pub use seed::Seed;
pub use shape::{Shape, shape};
pub use topic_tree::{Cursor, Next, TopicTree};
