//! Limits on Topic Names and Topic Filters that are narrower than the standard's.

use crate::{TopicFilter, TopicName};

/// Which limit a Topic Name or a Topic Filter exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TopicLimitError {
    /// More levels than [`TopicLimits::levels_max`].
    #[error("more topic levels than allowed")]
    Levels,
    /// More bytes than [`TopicLimits::bytes_max`].
    #[error("more bytes than allowed")]
    Bytes,
    /// More `+` levels than [`TopicLimits::plus_levels_max`].
    #[error("more '+' wildcards than allowed")]
    PlusLevels,
}

/// What a server or client accepts of what the standard allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TopicLimits {
    /// Topic levels, wildcards included. 128 by default, the most for which wildcard filters are
    /// matched by hash; deeper ones share the short overflow list of a
    /// [`FilterTree`](crate::FilterTree).
    pub levels_max: u16,
    /// Bytes of UTF-8. 65,535 by default, the standard's own limit.
    pub bytes_max: u16,
    /// `+` levels in one filter. 16 by default: each costs every match of its shape one operation.
    pub plus_levels_max: u8,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            levels_max: 128,
            bytes_max: u16::MAX,
            plus_levels_max: 16,
        }
    }
}

impl TopicLimits {
    /// Checks a Topic Name.
    pub fn check_name(&self, name: TopicName<'_>) -> Result<(), TopicLimitError> {
        self.check(name.as_str())
    }

    /// Checks a Topic Filter; of a Shared Subscription, pass the filter behind the Share Name.
    pub fn check_filter(&self, filter: TopicFilter<'_>) -> Result<(), TopicLimitError> {
        self.check(filter.as_str())?;
        if count(filter.as_str(), b'+') > usize::from(self.plus_levels_max) {
            return Err(TopicLimitError::PlusLevels);
        }
        Ok(())
    }

    fn check(&self, s: &str) -> Result<(), TopicLimitError> {
        if s.len() > usize::from(self.bytes_max) {
            return Err(TopicLimitError::Bytes);
        }
        let levels_max = usize::from(self.levels_max);
        // Each level but the last takes a byte.
        if s.len() >= levels_max && count(s, b'/') >= levels_max {
            return Err(TopicLimitError::Levels);
        }
        Ok(())
    }
}

fn count(s: &str, wanted: u8) -> usize {
    s.bytes().filter(|&byte| byte == wanted).count()
}
