#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

/// Whether a bug is planted; in builds without the feature none is, and nothing is left of this.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_planted($crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod aliases;
pub mod client;
mod demand;
mod error;
mod event;
mod exchange;
mod limits;
mod message;
mod outgoing;
#[cfg(feature = "planted")]
pub mod planted;
mod receiver;
mod sender;
mod server;
mod session;
mod time;
mod transmit;

pub use demand::{CommitId, Demand, Owed};
pub use error::{AckError, CloseReason, ConnectionError, Violation};
pub use event::ConnectionEvent;
pub use exchange::IncomingPublish;
pub use limits::{Limits, Overflow};
pub use message::{Expiry, Message};
pub use outgoing::{DropReason, Dropped, Enqueued, MoreSubscriptionIds, Outgoing, SubscriptionIds};
pub use receiver::AckToken;
pub use sender::{FetchFrom, FetchedMessage, PublishFrame, PublishFrames, RestoredMessage};
pub use server::{
    Accept, Authentication, Details, ServerConfig, ServerConnection, ServerEvent, ServerInput,
};
pub use session::Session;
pub use time::{Instant, Now, Timeout, Timer, UnixTime};
pub use transmit::TransmitBuf;
