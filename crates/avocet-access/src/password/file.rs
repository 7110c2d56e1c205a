//! `user:hash` lines.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::hash::{Cost, HashError, PasswordHash};

/// A line of a password file is wrong. It never holds what stands there, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct PasswordFileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: PasswordFileProblem,
}

/// What is wrong with a line of a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordFileProblem {
    /// It has no colon.
    #[error("no `:`; a line is `USER:HASH`, as `avocet passwd` writes it")]
    NoColon,
    /// The User Name is refused.
    #[error(transparent)]
    User(#[from] UserError),
    /// The user has two lines.
    #[error("this user has a line already, line {0}")]
    Duplicate(usize),
    /// The hash is refused.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// What is wrong with a User Name that was to stand in a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// It has no character.
    #[error("the user name is empty")]
    Empty,
    /// No CONNECT can carry it.
    #[error("the user name is longer than 65,535 bytes")]
    TooLong,
    /// The file could not be read again.
    #[error("the user name holds `:`, a control character, a space at an end, or begins with `#`")]
    Reserved,
}

/// Whether a User Name may stand in a password file.
pub fn check_user(user: &str) -> Result<(), UserError> {
    if user.is_empty() {
        return Err(UserError::Empty);
    }
    if user.len() > usize::from(u16::MAX) {
        return Err(UserError::TooLong);
    }
    let reserved = |char: char| char == ':' || char.is_control();
    if user.contains(reserved) || user.trim() != user || user.starts_with('#') {
        return Err(UserError::Reserved);
    }
    Ok(())
}

/// What a User Name and a Password came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// They go together.
    Accepted {
        /// Whether the hash should be made anew, with [`PasswordHash::argon2id`].
        outdated: bool,
    },
    /// They do not; which of them is wrong is not said.
    Refused,
}

/// Users and the hashes of their passwords, in the order of the file, with its comments.
///
/// A password file of mosquitto is one of these.
#[derive(Clone, Default)]
pub struct PasswordFile {
    lines: Vec<Line>,
    by_user: BTreeMap<Box<str>, usize>,
}

#[derive(Clone)]
enum Line {
    User(Box<str>, PasswordHash),
    /// A comment, or nothing.
    Other(Box<str>),
}

impl PasswordFile {
    /// Reads a whole file: `USER:HASH` lines, comments that begin with `#`, empty lines.
    pub fn parse(text: &str) -> Result<Self, PasswordFileError> {
        let mut file = Self::default();
        for (index, line) in text.lines().enumerate() {
            let failed = |problem| PasswordFileError {
                line: index + 1,
                problem,
            };
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                file.lines.push(Line::Other(trimmed.into()));
                continue;
            }
            let split = trimmed.split_once(':');
            let (user, hash) = split.ok_or_else(|| failed(PasswordFileProblem::NoColon))?;
            check_user(user).map_err(|error| failed(error.into()))?;
            let hash = hash
                .parse()
                .map_err(|error: HashError| failed(error.into()))?;
            if let Some(before) = file.by_user.insert(user.into(), index) {
                return Err(failed(PasswordFileProblem::Duplicate(before + 1)));
            }
            file.lines.push(Line::User(user.into(), hash));
        }
        Ok(file)
    }

    /// The users, in order of their names.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.by_user.keys().map(|user| &**user)
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Whether nobody can be let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// Users whose hashes should be made anew.
    pub fn outdated(&self) -> impl Iterator<Item = &str> {
        let users = self.users();
        users.filter(|user| self.hash(user).is_some_and(PasswordHash::is_outdated))
    }

    /// The hash of a user.
    #[must_use]
    pub fn hash(&self, user: &str) -> Option<&PasswordHash> {
        self.line(*self.by_user.get(user)?)
    }

    fn line(&self, index: usize) -> Option<&PasswordHash> {
        match self.lines.get(index) {
            Some(Line::User(_, hash)) => Some(hash),
            Some(Line::Other(_)) | None => None,
        }
    }

    /// Adds a user, or changes the hash of one; true if it was known.
    pub fn set(&mut self, user: &str, hash: PasswordHash) -> Result<bool, UserError> {
        check_user(user)?;
        let known = self.by_user.get(user).copied();
        let line = Line::User(user.into(), hash);
        match known.and_then(|index| self.lines.get_mut(index)) {
            Some(place) => *place = line,
            None => {
                self.by_user.insert(user.into(), self.lines.len());
                self.lines.push(line);
            }
        }
        Ok(known.is_some())
    }

    /// Removes a user; false if it was not known.
    pub fn remove(&mut self, user: &str) -> bool {
        let Some(index) = self.by_user.remove(user) else {
            return false;
        };
        self.lines.remove(index);
        for other in self.by_user.values_mut().filter(|it| **it > index) {
            *other -= 1;
        }
        true
    }

    /// Whether a Password is that of a user. It takes as long for users that there are not: their
    /// passwords are compared with the hash of another one, always the same for the same name.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> PasswordVerdict {
        if let Some(hash) = self.hash(user) {
            return if hash.verify(password) {
                PasswordVerdict::Accepted {
                    outdated: hash.is_outdated(),
                }
            } else {
                PasswordVerdict::Refused
            };
        }
        match self.decoy(user) {
            Some(hash) => {
                let _other = hash.verify(password);
            }
            None => {
                let _other = PasswordHash::argon2id(password, [0; 16], Cost::default());
            }
        }
        PasswordVerdict::Refused
    }

    /// The hash that an unknown user is compared with.
    fn decoy(&self, user: &str) -> Option<&PasswordHash> {
        // FNV-1a: it need not be secret, since it does not say which hashes the file holds.
        let seed = 0xcbf2_9ce4_8422_2325_u64;
        let spread = user.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let users = u64::try_from(self.by_user.len()).ok()?;
        let at = usize::try_from(spread.checked_rem(users)?).ok()?;
        self.line(*self.by_user.values().nth(at)?)
    }
}

impl fmt::Display for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::User(user, hash) => writeln!(f, "{user}:{hash}")?,
                Line::Other(text) => writeln!(f, "{text}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile")
            .field("users", &self.by_user.len())
            .finish_non_exhaustive()
    }
}
