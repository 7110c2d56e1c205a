#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

mod aliases;
pub mod client;
mod demand;
mod error;
mod event;
mod exchange;
mod limits;
mod message;
mod outgoing;
mod receiver;
mod sender;
mod server;
mod session;
mod time;
mod transmit;

pub use demand::{CommitId, Demand};
pub use error::{AckError, CloseReason, ConnectionError, Violation};
pub use event::ConnectionEvent;
pub use exchange::IncomingPublish;
pub use limits::{Limits, Overflow};
pub use message::{Expiry, Message};
pub use outgoing::{DropReason, Dropped, Enqueued, Outgoing, SubscriptionIds};
pub use receiver::AckToken;
pub use sender::FetchFrom;
pub use server::{
    Accept, Authentication, Details, ServerConfig, ServerConnection, ServerEvent, ServerInput,
};
pub use session::Session;
pub use time::{Instant, Now, Timeout, Timer, UnixTime};
pub use transmit::TransmitBuf;
