//! The engine from outside: scripted clients speak bytes to one shard and to three, by the same
//! code.

mod access;
mod cluster;
mod connect;
mod durability;
mod limits;
mod publish;
mod retained;
mod sessions;
mod shared;
mod subscribe;
mod sys;
mod wills;
