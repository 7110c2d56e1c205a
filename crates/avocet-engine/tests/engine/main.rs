//! The engine from outside: scripted clients speak bytes to one shard and to three, by the same
//! code.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails may panic"
)]

mod access;
mod authorization;
mod bounds;
mod cluster;
mod connect;
mod counters;
mod crash;
mod durability;
mod forward;
mod hooks;
mod limits;
mod model;
mod names;
mod order;
mod publish;
mod queues;
mod quick;
mod retained;
mod run;
mod sessions;
mod shared;
mod store;
mod subscribe;
mod sys;
mod tenants;
mod wills;
