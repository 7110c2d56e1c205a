//! Topic Names: what a PUBLISH is addressed to.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::str;

use avocet_bytes::{ascii_without, has_any};

/// The largest length of a UTF-8 Encoded String, in bytes [MQTT5-4.7.3-3] [MQTT311-4.7.3-3].
pub(crate) const BYTES_MAX: usize = 65_535;

/// What is wrong with a string that was to be a Topic Name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// It has no character [MQTT5-4.7.3-1] [MQTT311-4.7.3-1].
    #[error("topic name is empty")]
    Empty,
    /// It takes more than 65,535 bytes [MQTT5-4.7.3-3] [MQTT311-4.7.3-3].
    #[error("topic name is longer than 65,535 bytes")]
    TooLong,
    /// It holds U+0000 [MQTT5-4.7.3-2] [MQTT311-4.7.3-2].
    #[error("topic name contains the null character U+0000")]
    Nul,
    /// It holds `+` or `#` [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT311-3.3.2-2] [MQTT311-4.7.1-1].
    #[error("topic name contains a wildcard character ('+' or '#')")]
    Wildcard,
}

/// What no Topic Name holds: U+0000 and the wildcard characters.
pub(crate) const SPECIAL: [u8; 3] = [0, b'+', b'#'];

/// A Topic Name: at least one character, at most 65,535 bytes, no U+0000 and no wildcard character.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a string against the rules for Topic Names
    /// [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3].
    #[inline(always)]
    pub fn new(s: &'a str) -> Result<Self, TopicNameError> {
        if !s.is_empty() && s.len() <= BYTES_MAX && !has_any(s.as_bytes(), SPECIAL) {
            Ok(Self(s))
        } else {
            Err(Self::refuse(s))
        }
    }

    /// The Topic Name that these bytes are, if they are UTF-8 and keep the rules. What is wrong otherwise,
    /// [`new`](Self::new) says of the string.
    #[inline(always)]
    #[must_use]
    pub fn from_utf8(bytes: &'a [u8]) -> Option<Self> {
        Self::from_ascii(bytes).or_else(|| Self::from_other(bytes))
    }

    /// The same for what most names are; `None` may also mean that they are not ASCII.
    #[inline(always)]
    #[must_use]
    pub fn from_ascii(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > BYTES_MAX {
            return None;
        }
        ascii_without(bytes, SPECIAL).map(Self)
    }

    #[inline(never)]
    fn from_other(bytes: &'a [u8]) -> Option<Self> {
        let s = str::from_utf8(bytes).ok();
        s.and_then(|s| Self::new(s).ok())
    }

    #[cold]
    fn refuse(s: &str) -> TopicNameError {
        if s.is_empty() {
            TopicNameError::Empty
        } else if s.len() > BYTES_MAX {
            TopicNameError::TooLong
        } else if s.as_bytes().contains(&0) {
            TopicNameError::Nul
        } else {
            TopicNameError::Wildcard
        }
    }

    /// Wraps a string that is known to keep the rules.
    pub(crate) fn trusted(s: &'a str) -> Self {
        debug_assert!(Self::new(s).is_ok(), "not a topic name: {s:?}");
        Self(s)
    }

    /// The name as it stood in the packet.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The Topic Levels between the separators; at least one, each may be empty.
    pub fn levels(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split('/')
    }

    /// Whether the name is hidden from filters that begin with a wildcard
    /// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1].
    #[must_use]
    pub fn starts_with_dollar(self) -> bool {
        self.0.starts_with('$')
    }

    /// An owned copy.
    #[must_use]
    pub fn to_buf(self) -> TopicNameBuf {
        TopicNameBuf(Arc::from(self.0))
    }
}

/// An owned Topic Name, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicNameBuf(Arc<str>);

impl TopicNameBuf {
    /// Checks a string as [`TopicName::new`] does, and keeps it.
    pub fn new(s: impl Into<Arc<str>>) -> Result<Self, TopicNameError> {
        let s = s.into();
        TopicName::new(&s)?;
        Ok(Self(s))
    }

    /// The borrowed form.
    #[must_use]
    pub fn as_name(&self) -> TopicName<'_> {
        TopicName(&self.0)
    }

    /// The name as it stood in the packet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<TopicName<'_>> for TopicNameBuf {
    fn from(name: TopicName<'_>) -> Self {
        name.to_buf()
    }
}

text_impls!(TopicName, TopicNameBuf, TopicNameError, "a topic name");
