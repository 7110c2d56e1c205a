//! Topic Names: what a PUBLISH is addressed to.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;

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

/// Whether neither U+0000 nor a wildcard character is among these.
///
/// Some bytes may be looked at twice: what is left behind whole chunks is in the last chunk.
#[inline]
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return is_short_plain(bytes);
    };
    if bytes.len() <= 2 * first.len() {
        return are_plain(first, last);
    }
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().all(|chunk| are_plain(chunk, last))
}

/// Without a branch for each byte, so that the compiler looks at all of them at once.
#[inline(always)]
fn are_plain(one: &[u8; 16], other: &[u8; 16]) -> bool {
    let special = |byte: u8| u8::from(byte == 0) | u8::from(byte & !0b1000 == b'#');
    let both = one.iter().zip(other);
    both.fold(0, |found, (&a, &b)| found | special(a) | special(b)) == 0
}

/// The same for less than 16 bytes: two words have eight and more.
#[inline]
fn is_short_plain(bytes: &[u8]) -> bool {
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => special(*first) | special(*last) == 0,
        _ => !bytes.iter().any(|byte| matches!(byte, 0 | b'+' | b'#')),
    }
}

/// Not 0 if U+0000 or a wildcard character is among eight bytes. The highest bit of such a byte is
/// set then, and maybe that of some behind it.
#[inline]
pub(crate) const fn special(word: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(word);
    // `+` and `#` differ in one bit.
    zeros(word) | zeros(word & !0x0808_0808_0808_0808 ^ 0x2323_2323_2323_2323)
}

/// Not 0 if one of eight bytes is.
#[inline]
const fn zeros(word: u64) -> u64 {
    // The borrow of a zero byte sets its highest bit, and may go on into the bytes behind.
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

/// A Topic Name: at least one character, at most 65,535 bytes, no U+0000 and no wildcard character.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a string against the rules for Topic Names
    /// [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3].
    #[inline(always)]
    pub fn new(s: &'a str) -> Result<Self, TopicNameError> {
        if !s.is_empty() && s.len() <= BYTES_MAX && is_plain(s.as_bytes()) {
            Ok(Self(s))
        } else {
            Err(Self::refuse(s))
        }
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
