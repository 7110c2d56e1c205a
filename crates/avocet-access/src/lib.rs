#![cfg_attr(feature = "toml", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "toml"),
    doc = "Rules for MQTT that explain themselves, and password files; the README says more."
)]
#![no_std]

extern crate alloc;

mod bans;
mod containment;
#[cfg(feature = "serde")]
mod form;
mod identity;
mod mosquitto;
#[cfg(feature = "passwords")]
mod password;
mod pattern;
mod permissions;
mod rule;
mod rules;
#[cfg(feature = "scram")]
mod scram;
mod text;

pub use bans::Bans;
pub use containment::{covers, overlaps};
#[cfg(feature = "toml")]
pub use form::RulesError;
pub use identity::{Field, FieldError, Identity};
pub use mosquitto::{AclError, AclProblem, import_acl};
#[cfg(feature = "passwords")]
pub use password::{
    Cost, HashError, PASSWORD_BYTES_MAX, PasswordError, PasswordFile, PasswordFileError,
    PasswordFileProblem, PasswordHash, PasswordVerdict, UserError, check_user,
};
pub use pattern::{TopicPattern, TopicPatternError};
pub use permissions::Permissions;
pub use rule::{Action, Actions, Condition, Effect, QoS, QosSet, Rule, RuleError};
pub use rules::{DecidedBy, Explanation, Mismatch, Request, Rules, Verdict};
#[cfg(feature = "scram")]
pub use scram::{
    SCRAM_SHA_256, ScramChallenge, ScramClient, ScramClientError, ScramError, ScramKeys,
    ScramPasswordError, ScramServer,
};
