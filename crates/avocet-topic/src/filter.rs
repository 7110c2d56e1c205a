//! Topic Filters: what a SUBSCRIBE asks for; and the Share Names within them.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::str;

use avocet_bytes::{ascii_by_words, has_any};

use crate::name::{BYTES_MAX, SPECIAL};

/// What is wrong with a string that was to be a Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TopicFilterError {
    /// It has no character [MQTT5-4.7.3-1] [MQTT311-4.7.3-1].
    #[error("topic filter is empty")]
    Empty,
    /// It takes more than 65,535 bytes [MQTT5-4.7.3-3] [MQTT311-4.7.3-3].
    #[error("topic filter is longer than 65,535 bytes")]
    TooLong,
    /// It holds U+0000 [MQTT5-4.7.3-2] [MQTT311-4.7.3-2].
    #[error("topic filter contains the null character U+0000")]
    Nul,
    /// A `+` shares its level with other characters [MQTT5-4.7.1-2] [MQTT311-4.7.1-3].
    #[error("wildcard '+' must occupy an entire level")]
    SingleLevelWildcard,
    /// A `#` shares its level with other characters [MQTT5-4.7.1-1] [MQTT311-4.7.1-2].
    #[error("wildcard '#' must occupy an entire level")]
    MultiLevelWildcard,
    /// A level follows a `#` [MQTT5-4.7.1-1] [MQTT311-4.7.1-2].
    #[error("wildcard '#' must be the last level")]
    MultiLevelWildcardNotLast,
}

/// What is wrong with a string that was to be a Share Name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ShareNameError {
    /// It has no character [MQTT5-4.8.2-1].
    #[error("share name is empty")]
    Empty,
    /// It takes more than 65,535 bytes.
    #[error("share name is longer than 65,535 bytes")]
    TooLong,
    /// It holds `/`, `+` or `#` [MQTT5-4.8.2-2].
    #[error("share name contains '/', '+' or '#'")]
    Reserved,
    /// It holds U+0000 [MQTT5-1.5.4-2].
    #[error("share name contains the null character U+0000")]
    Nul,
}

/// What is wrong with a Topic Filter that begins with `$share/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The Share Name breaks a rule [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
    #[error(transparent)]
    ShareName(#[from] ShareNameError),
    /// No Topic Filter follows the Share Name [MQTT5-4.8.2-2].
    #[error("no topic filter follows the share name")]
    TopicFilterMissing,
}

/// Whether there is no U+0000 among eight bytes of ASCII at `at`, every wildcard is a whole level, and
/// `#` the last; false means to look again, byte by byte.
#[inline(always)]
fn is_well_at_a_glance(at: usize, word: u64, bytes: &[u8]) -> bool {
    // `+` and `#` differ in one bit.
    let wildcards = word & !0x0808_0808_0808_0808 ^ 0x2323_2323_2323_2323;
    // The borrow of a byte that is zero sets its highest bit, and maybe that of some behind it.
    let less = |word: u64| word.wrapping_sub(0x0101_0101_0101_0101);
    let marked = (less(word) | less(wildcards)) & 0x8080_8080_8080_8080;
    are_whole_levels(marked, at, bytes)
}

/// Whether this is so for those of eight bytes at `at` that are marked.
#[inline(always)]
fn are_whole_levels(mut marked: u64, at: usize, bytes: &[u8]) -> bool {
    while marked != 0 {
        let at = at + marked.trailing_zeros() as usize / 8;
        let follows_level = at == 0 || bytes.get(at - 1) == Some(&b'/');
        let ends_level = matches!(bytes.get(at..), Some([b'+', b'/', ..] | [b'+' | b'#']));
        if !(follows_level && ends_level) {
            return false;
        }
        marked &= marked - 1;
    }
    true
}

/// A Topic Filter: at least one character, at most 65,535 bytes, no U+0000, wildcards only where
/// section 4.7.1 allows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks a string against the rules for Topic Filters
    /// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3].
    #[inline(always)]
    pub fn new(s: &'a str) -> Result<Self, TopicFilterError> {
        match Self::from_ascii(s.as_bytes()) {
            Some(filter) => Ok(filter),
            None => Self::check(s).map(|()| Self(s)),
        }
    }

    /// The Topic Filter that these bytes are, if they are UTF-8 and keep the rules. What is wrong
    /// otherwise, [`new`](Self::new) says of the string.
    #[inline(always)]
    #[must_use]
    pub fn from_utf8(bytes: &'a [u8]) -> Option<Self> {
        Self::from_ascii(bytes).or_else(|| Self::from_other(bytes))
    }

    /// The same for what most are: eight bytes of ASCII or more.
    #[inline(always)]
    fn from_ascii(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let s = ascii_by_words(bytes, |at, word| is_well_at_a_glance(at, word, bytes));
        s.map(Self)
    }

    #[inline(never)]
    fn from_other(bytes: &'a [u8]) -> Option<Self> {
        let s = str::from_utf8(bytes).ok()?;
        Self::check(s).ok().map(|()| Self(s))
    }

    #[inline(never)]
    fn check(s: &str) -> Result<(), TopicFilterError> {
        if s.is_empty() {
            return Err(TopicFilterError::Empty);
        }
        if s.len() > BYTES_MAX {
            return Err(TopicFilterError::TooLong);
        }
        if s.as_bytes().contains(&0) {
            return Err(TopicFilterError::Nul);
        }
        Self::check_wildcards(s)
    }

    fn check_wildcards(s: &str) -> Result<(), TopicFilterError> {
        let mut before = b'/';
        let mut rest = s.as_bytes();
        while let [byte, behind @ ..] = rest {
            let whole_level = before == b'/' && matches!(behind, [] | [b'/', ..]);
            match byte {
                b'+' if !whole_level => return Err(TopicFilterError::SingleLevelWildcard),
                b'#' if !whole_level => return Err(TopicFilterError::MultiLevelWildcard),
                b'#' if !behind.is_empty() => {
                    return Err(TopicFilterError::MultiLevelWildcardNotLast);
                }
                _ => {}
            }
            before = *byte;
            rest = behind;
        }
        Ok(())
    }

    /// Wraps a string that is known to keep the rules.
    pub(crate) fn trusted(s: &'a str) -> Self {
        debug_assert!(Self::new(s).is_ok(), "not a topic filter: {s:?}");
        Self(s)
    }

    /// The filter as it stood in the packet.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels between the separators, wildcards among them; at least one, each may be empty.
    pub fn levels(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split('/')
    }

    /// Whether a level is `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        // A wildcard character in a valid filter is always a whole level, and none holds U+0000.
        has_any(self.0.as_bytes(), SPECIAL)
    }

    /// Whether the first level is `+` or `#`, so that names beginning with `$` are hidden from it
    /// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1].
    #[must_use]
    pub fn starts_with_wildcard(self) -> bool {
        self.0.starts_with(['+', '#'])
    }

    /// The Share Name and the Topic Filter behind it if this is `$share/{ShareName}/{filter}`;
    /// `None` for every other filter [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
    ///
    /// Only 5.0 has Shared Subscriptions; in 3.1.1 such a filter is one like any other.
    pub fn share(self) -> Result<Option<Share<'a>>, ShareError> {
        let Some(rest) = self.0.strip_prefix("$share/") else {
            return Ok(None);
        };
        let (share_name, filter) = match rest.split_once('/') {
            Some((share_name, filter)) => (share_name, Some(filter)),
            None => (rest, None),
        };
        let share_name = ShareName::new(share_name)?;
        match filter {
            None | Some("") => Err(ShareError::TopicFilterMissing),
            // What follows a whole level of a valid filter is itself a valid filter.
            Some(filter) => Ok(Some(Share {
                share_name,
                topic_filter: Self::trusted(filter),
            })),
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_buf(self) -> TopicFilterBuf {
        TopicFilterBuf(Arc::from(self.0))
    }
}

/// An owned Topic Filter, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilterBuf(Arc<str>);

impl TopicFilterBuf {
    /// Checks a string as [`TopicFilter::new`] does, and keeps it.
    pub fn new(s: impl Into<Arc<str>>) -> Result<Self, TopicFilterError> {
        let s = s.into();
        TopicFilter::new(&s)?;
        Ok(Self(s))
    }

    /// The borrowed form.
    #[must_use]
    pub fn as_filter(&self) -> TopicFilter<'_> {
        TopicFilter(&self.0)
    }

    /// The filter as it stood in the packet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<TopicFilter<'_>> for TopicFilterBuf {
    fn from(filter: TopicFilter<'_>) -> Self {
        filter.to_buf()
    }
}

/// Every Topic Name is the Topic Filter that matches this name alone.
impl<'a> From<crate::TopicName<'a>> for TopicFilter<'a> {
    fn from(name: crate::TopicName<'a>) -> Self {
        Self(name.as_str())
    }
}

/// The two parts of the Topic Filter of a Shared Subscription [MQTT5-4.8.2-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share<'a> {
    /// Names the group among which messages are shared.
    pub share_name: ShareName<'a>,
    /// What is matched with Topic Names.
    pub topic_filter: TopicFilter<'a>,
}

/// A Share Name: at least one character, none of `/`, `+`, `#` and U+0000
/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName<'a>(&'a str);

impl<'a> ShareName<'a> {
    /// Checks a string against the rules for Share Names [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
    pub fn new(s: &'a str) -> Result<Self, ShareNameError> {
        if s.is_empty() {
            return Err(ShareNameError::Empty);
        }
        if s.len() > BYTES_MAX {
            return Err(ShareNameError::TooLong);
        }
        if s.contains(['/', '+', '#']) {
            return Err(ShareNameError::Reserved);
        }
        if s.contains('\0') {
            return Err(ShareNameError::Nul);
        }
        Ok(Self(s))
    }

    /// The name as it stood in the filter.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// An owned copy.
    #[must_use]
    pub fn to_buf(self) -> ShareNameBuf {
        ShareNameBuf(Arc::from(self.0))
    }
}

/// An owned Share Name, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareNameBuf(Arc<str>);

impl ShareNameBuf {
    /// Checks a string as [`ShareName::new`] does, and keeps it.
    pub fn new(s: impl Into<Arc<str>>) -> Result<Self, ShareNameError> {
        let s = s.into();
        ShareName::new(&s)?;
        Ok(Self(s))
    }

    /// The borrowed form.
    #[must_use]
    pub fn as_share_name(&self) -> ShareName<'_> {
        ShareName(&self.0)
    }

    /// The name as it stood in the filter.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<ShareName<'_>> for ShareNameBuf {
    fn from(name: ShareName<'_>) -> Self {
        name.to_buf()
    }
}

text_impls!(
    TopicFilter,
    TopicFilterBuf,
    TopicFilterError,
    "a topic filter"
);
text_impls!(ShareName, ShareNameBuf, ShareNameError, "a share name");
