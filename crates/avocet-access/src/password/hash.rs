//! Hashes of passwords as texts, and what a password has to do with them.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64, Base64Unpadded, Encoding};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use crate::scram::{ScramKeys, ScramPasswordError};

/// The longest Password a CONNECT can carry.
pub const PASSWORD_BYTES_MAX: usize = 65_535;

/// A file cannot make one check cost more than this: KiB, passes, lanes.
const ARGON2_MAX: (u32, u32, u32) = (1 << 20, 100, 64);
const ROUNDS_MAX: u32 = 10_000_000;
const SALT_BYTES: core::ops::RangeInclusive<usize> = 8..=64;
const ARGON2_BYTES: core::ops::RangeInclusive<usize> = 16..=64;
const SHA512_BYTES: usize = 64;
const SCRAM_KEY_BYTES: usize = 32;

/// What argon2id costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes, which are computed one after the other.
    pub lanes: u32,
}

/// 19 MiB and two passes, as OWASP recommends: a few hundredths of a second.
impl Default for Cost {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
            lanes: 1,
        }
    }
}

/// What is wrong with a text that was to be a hash. It never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// It begins as none of those known.
    #[error(
        "not a password hash; known are $argon2id$, SCRAM-SHA-256$, and mosquitto's $7$ (PBKDF2) and $6$ (SHA-512)"
    )]
    Unknown,
    /// It is not complete, or a part of it is not what it should be.
    #[error("a broken {0} hash")]
    Broken(&'static str),
    /// Verifying it would take too long.
    #[error("a {0} hash that costs too much to verify")]
    TooCostly(&'static str),
}

/// What is wrong with a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// It has no byte.
    #[error("the password is empty")]
    Empty,
    /// No CONNECT can carry it.
    #[error("the password is longer than 65,535 bytes")]
    TooLong,
    /// Argon2 refuses this cost.
    #[error("argon2 refuses this cost")]
    Cost,
    /// SCRAM refuses it.
    #[error(transparent)]
    Scram(#[from] ScramPasswordError),
}

/// The hash of a password. `Display` writes it as it stands in a file, `Debug` only its kind.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    salt: Box<[u8]>,
    /// Of SCRAM both keys, one after the other.
    hash: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Argon2id(Cost),
    /// What SCRAM needs, and plain passwords can be compared with.
    ScramSha256 {
        rounds: u32,
    },
    /// mosquitto's `$7$`.
    Pbkdf2Sha512 {
        rounds: u32,
    },
    /// mosquitto's `$6$`, which is not crypt's.
    SaltedSha512,
}

impl PasswordHash {
    /// The argon2id hash of a password. The salt must be fresh and random.
    pub fn argon2id(password: &[u8], salt: [u8; 16], cost: Cost) -> Result<Self, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let mut hash = vec![0; 32];
        argon2id(password, &salt, cost, &mut hash).ok_or(PasswordError::Cost)?;
        Ok(Self {
            kind: Kind::Argon2id(cost),
            salt: salt.into(),
            hash: hash.into(),
        })
    }

    /// What a server keeps of a password for SCRAM-SHA-256, with which plain passwords can be verified too. The salt
    /// must be fresh and random.
    pub fn scram(password: &[u8], salt: [u8; 16]) -> Result<Self, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let keys = ScramKeys::new(password, &salt, ScramKeys::ROUNDS)?;
        Ok(Self {
            kind: Kind::ScramSha256 {
                rounds: keys.rounds,
            },
            salt: keys.salt,
            hash: [keys.stored, keys.server].concat().into(),
        })
    }

    /// The keys for SCRAM, if this is such a hash.
    #[must_use]
    pub fn scram_keys(&self) -> Option<ScramKeys> {
        let Kind::ScramSha256 { rounds } = self.kind else {
            return None;
        };
        let (stored, server) = self.hash.split_first_chunk()?;
        Some(ScramKeys {
            rounds,
            salt: self.salt.clone(),
            stored: *stored,
            server: *server.first_chunk()?,
        })
    }

    /// Whether this is the password. The time it takes tells nothing of the hash.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut computed: Vec<u8> = vec![0; self.hash.len()];
        let known = match self.kind {
            Kind::Argon2id(cost) => argon2id(password, &self.salt, cost, &mut computed).is_some(),
            Kind::ScramSha256 { rounds } => {
                // A password that SCRAM does not take is wrong.
                let keys = ScramKeys::new(password, &self.salt, rounds);
                let keys = keys.map(|keys| [keys.stored, keys.server].concat());
                computed = keys.unwrap_or_default();
                true
            }
            Kind::Pbkdf2Sha512 { rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, rounds, &mut computed);
                true
            }
            Kind::SaltedSha512 => {
                let digest = Sha512::new_with_prefix(password).chain_update(&self.salt);
                computed = digest.finalize().to_vec();
                true
            }
        };
        known & bool::from(computed.ct_eq(&self.hash))
    }

    /// Whether a new hash of the same password would be harder to break: it is neither argon2id nor for SCRAM, or of
    /// less than the default cost.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let wanted = Cost::default();
        match self.kind {
            Kind::Argon2id(cost) => {
                cost.memory_kib.saturating_mul(cost.passes)
                    < wanted.memory_kib.saturating_mul(wanted.passes)
            }
            Kind::ScramSha256 { rounds } => rounds < ScramKeys::ROUNDS,
            Kind::Pbkdf2Sha512 { .. } | Kind::SaltedSha512 => true,
        }
    }

    /// Which hash it is, for people.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Argon2id(_) => "argon2id",
            Kind::ScramSha256 { .. } => "SCRAM-SHA-256",
            Kind::Pbkdf2Sha512 { .. } => "PBKDF2-SHA512",
            Kind::SaltedSha512 => "SHA-512",
        }
    }
}

fn argon2id(password: &[u8], salt: &[u8], cost: Cost, hash: &mut [u8]) -> Option<()> {
    let length = Some(hash.len());
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, length).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password, salt, hash).ok()
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = text.strip_prefix("$argon2id$") {
            return parse_argon2id(rest);
        }
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            return parse_scram(rest);
        }
        if let Some(rest) = text.strip_prefix("$7$") {
            let broken = || HashError::Broken("PBKDF2-SHA512");
            let (rounds, rest) = rest.split_once('$').ok_or_else(broken)?;
            let rounds = number(rounds)
                .filter(|rounds| *rounds > 0)
                .ok_or_else(broken)?;
            if rounds > ROUNDS_MAX {
                return Err(HashError::TooCostly("PBKDF2-SHA512"));
            }
            let [salt, hash] = mosquitto(rest).ok_or_else(broken)?;
            let kind = Kind::Pbkdf2Sha512 { rounds };
            return Ok(Self { kind, salt, hash });
        }
        if let Some(rest) = text.strip_prefix("$6$") {
            let [salt, hash] = mosquitto(rest).ok_or(HashError::Broken("SHA-512"))?;
            let kind = Kind::SaltedSha512;
            return Ok(Self { kind, salt, hash });
        }
        Err(HashError::Unknown)
    }
}

/// Salt and hash as mosquitto writes them.
fn mosquitto(text: &str) -> Option<[Box<[u8]>; 2]> {
    let (salt, hash) = text.split_once('$')?;
    let salt = Base64::decode_vec(salt).ok()?;
    let hash = Base64::decode_vec(hash).ok()?;
    let whole = SALT_BYTES.contains(&salt.len()) && hash.len() == SHA512_BYTES;
    whole.then(|| [salt.into(), hash.into()])
}

/// `v=19$m=19456,t=2,p=1$SALT$HASH`, the PHC string format.
fn parse_argon2id(text: &str) -> Result<PasswordHash, HashError> {
    let broken = || HashError::Broken("argon2id");
    let mut parts = text.split('$');
    let mut next = || parts.next().ok_or_else(broken);
    let (version, costs, salt, hash) = (next()?, next()?, next()?, next()?);
    if version != "v=19" || next().is_ok() {
        return Err(broken());
    }
    let mut costs = costs.split(',');
    let mut cost_of = |name: &str| {
        let value = costs.next().and_then(|cost| cost.strip_prefix(name));
        value.and_then(number).ok_or_else(broken)
    };
    let cost = Cost {
        memory_kib: cost_of("m=")?,
        passes: cost_of("t=")?,
        lanes: cost_of("p=")?,
    };
    if costs.next().is_some() {
        return Err(broken());
    }
    let (memory_max, passes_max, lanes_max) = ARGON2_MAX;
    if cost.memory_kib > memory_max || cost.passes > passes_max || cost.lanes > lanes_max {
        return Err(HashError::TooCostly("argon2id"));
    }
    let salt = Base64Unpadded::decode_vec(salt).map_err(|_| broken())?;
    let hash = Base64Unpadded::decode_vec(hash).map_err(|_| broken())?;
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(hash.len()));
    if !SALT_BYTES.contains(&salt.len()) || !ARGON2_BYTES.contains(&hash.len()) || params.is_err() {
        return Err(broken());
    }
    Ok(PasswordHash {
        kind: Kind::Argon2id(cost),
        salt: salt.into(),
        hash: hash.into(),
    })
}

/// `ROUNDS:SALT$STORED_KEY:SERVER_KEY`, as PostgreSQL writes it too.
fn parse_scram(text: &str) -> Result<PasswordHash, HashError> {
    let broken = || HashError::Broken("SCRAM-SHA-256");
    let (how, keys) = text.split_once('$').ok_or_else(broken)?;
    let (rounds, salt) = how.split_once(':').ok_or_else(broken)?;
    let rounds = number(rounds)
        .filter(|rounds| *rounds > 0)
        .ok_or_else(broken)?;
    if rounds > ROUNDS_MAX {
        return Err(HashError::TooCostly("SCRAM-SHA-256"));
    }
    let (stored, server) = keys.split_once(':').ok_or_else(broken)?;
    let decoded = |text| Base64::decode_vec(text).map_err(|_| broken());
    let (salt, stored, server) = (decoded(salt)?, decoded(stored)?, decoded(server)?);
    let keys = [&stored, &server].map(Vec::len) == [SCRAM_KEY_BYTES; 2];
    if !keys || !SALT_BYTES.contains(&salt.len()) {
        return Err(broken());
    }
    Ok(PasswordHash {
        kind: Kind::ScramSha256 { rounds },
        salt: salt.into(),
        hash: [stored, server].concat().into(),
    })
}

/// A number in its one form, so that a hash that is read and written stays as it was.
fn number(text: &str) -> Option<u32> {
    let canonical = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Argon2id(cost) => write!(
                f,
                "$argon2id$v=19$m={},t={},p={}${}${}",
                cost.memory_kib,
                cost.passes,
                cost.lanes,
                Base64Unpadded::encode_string(&self.salt),
                Base64Unpadded::encode_string(&self.hash),
            ),
            Kind::ScramSha256 { rounds } => {
                let (stored, server) = self.hash.split_at(self.hash.len() / 2);
                write!(
                    f,
                    "SCRAM-SHA-256${rounds}:{}${}:{}",
                    Base64::encode_string(&self.salt),
                    Base64::encode_string(stored),
                    Base64::encode_string(server),
                )
            }
            Kind::Pbkdf2Sha512 { rounds } => write!(
                f,
                "$7${rounds}${}${}",
                Base64::encode_string(&self.salt),
                Base64::encode_string(&self.hash),
            ),
            Kind::SaltedSha512 => write!(
                f,
                "$6${}${}",
                Base64::encode_string(&self.salt),
                Base64::encode_string(&self.hash),
            ),
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash")
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}
