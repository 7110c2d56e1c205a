#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

/// Whether a bug is planted; in builds without the feature none is, and nothing is left of this.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        avocet_session::planted::is_planted(avocet_session::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod access;
mod authorization;
mod bans;
mod command;
mod config;
mod connect;
mod connection;
mod counters;
mod engine;
mod flapping;
mod forward;
mod hooks;
mod member;
mod outbox;
mod overload;
mod peer;
mod publish;
mod queue;
mod quotas;
mod rates;
mod recent;
mod record;
mod restore;
mod retained;
mod routes;
mod session_table;
mod sessions;
mod shapes;
mod shard;
mod shared;
mod store;
mod subscribe;
mod subscriptions;
mod sys;
mod tenant;
mod timer;
mod will;

pub use bans::ClientInfo;
pub use command::{
    Accepted, AuthenticationRequest, AuthorizationRequest, Client, Command, ConnectionId, Event,
    Moved, Opened, Permission, PublishIn, QuestionId, RefusedBy, Verdict,
};
pub use config::{
    Authentication, Authorization, ClientIds, Durability, EngineConfig, EngineLimits, Flapping,
    Level, Levels, Overrun, Rate, SharedStrategy, UserPropertyLimits,
};
pub use counters::{Counters, DropReason, RefuseReason};
pub use engine::Engine;
pub use hooks::{PublishOut, PublishOutHook, Recipient};
pub use peer::Peer;
pub use quotas::{TenantProblem, TenantQuotas, TenantUsage, Tenants};
pub use record::{Fetched, GroupPlace, MessageId, Record, RetainedPlace};
pub use restore::Restored;
pub use session_table::SessionKey;
pub use shard::{Part, ShardId, ShardMessage};
pub use store::StoreState;
pub use tenant::{GroupName, Tenant, TenantError};
