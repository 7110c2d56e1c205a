//! Topic Aliases of one Network Connection, both ways [MQTT5-3.3.2.3.4].

use alloc::boxed::Box;
use alloc::vec::Vec;
use avocet_topic::{TopicName, TopicNameBuf};
use core::num::NonZeroU16;

use crate::Violation;

/// The aliases the peer has set.
#[derive(Debug, Default)]
pub(crate) struct IncomingAliases(Vec<Option<TopicNameBuf>>);

impl IncomingAliases {
    /// Sets an alias, anew if it was set before.
    pub(crate) fn set(
        &mut self,
        alias: NonZeroU16,
        topic_name: TopicName<'_>,
        maximum: u16,
    ) -> Result<(), Violation> {
        let index = Self::index(alias, maximum)?;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if let Some(slot) = self.0.get_mut(index)
            && slot
                .as_ref()
                .is_none_or(|old| old.as_str() != topic_name.as_str())
        {
            *slot = Some(topic_name.to_buf());
        }
        Ok(())
    }

    /// The name for which an alias stands.
    pub(crate) fn resolve(
        &self,
        alias: NonZeroU16,
        maximum: u16,
    ) -> Result<TopicNameBuf, Violation> {
        let index = Self::index(alias, maximum)?;
        let topic_name = self.0.get(index).cloned().flatten();
        topic_name.ok_or(Violation::TopicAliasUnknown)
    }

    fn index(alias: NonZeroU16, maximum: u16) -> Result<usize, Violation> {
        if alias.get() > maximum {
            return Err(Violation::TopicAliasInvalid);
        }
        Ok(usize::from(alias.get()) - 1)
    }
}

/// The aliases this side has set: for names that came twice within a short while.
#[derive(Debug, Default)]
pub(crate) struct OutgoingAliases {
    maximum: u16,
    /// Alias n stands at index n - 1.
    entries: Vec<Entry>,
    /// The alias that is set anew when all are taken.
    next: u16,
    /// Hashes of names seen without an alias, as a ring.
    seen: Vec<u32>,
    seen_next: u8,
}

#[derive(Debug)]
struct Entry {
    hash: u32,
    topic: Box<[u8]>,
}

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AliasUse {
    /// By name.
    None,
    /// By name, and the alias is set.
    Set(NonZeroU16),
    /// By alias.
    Known(NonZeroU16),
}

/// Names remembered to find those that repeat.
const SEEN_MAX: usize = 16;

/// A name of this many bytes or fewer takes no more than its alias.
const SHORT: usize = 3;

impl OutgoingAliases {
    pub(crate) fn new(maximum: u16) -> Self {
        Self {
            maximum,
            ..Self::default()
        }
    }

    /// Whether the peer takes any.
    pub(crate) const fn are_allowed(&self) -> bool {
        self.maximum > 0
    }

    /// What to write for this name; `fits` says whether the packet may grow by an alias.
    pub(crate) fn choose(&mut self, topic: &[u8], fits: bool) -> AliasUse {
        if self.maximum == 0 || topic.len() <= SHORT {
            return AliasUse::None;
        }
        let hash = fnv1a(topic);
        let known = |entry: &Entry| entry.hash == hash && *entry.topic == *topic;
        if let Some(index) = self.entries.iter().position(known) {
            return alias(index).map_or(AliasUse::None, AliasUse::Known);
        }
        if !fits || !self.seen.contains(&hash) {
            self.remember(hash);
            return AliasUse::None;
        }
        let entry = Entry {
            hash,
            topic: topic.into(),
        };
        let index = if self.entries.len() < usize::from(self.maximum) {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let index = usize::from(self.next);
            self.next = (self.next + 1) % self.maximum;
            if let Some(slot) = self.entries.get_mut(index) {
                *slot = entry;
            }
            index
        };
        alias(index).map_or(AliasUse::None, AliasUse::Set)
    }

    fn remember(&mut self, hash: u32) {
        if self.seen.len() < SEEN_MAX {
            self.seen.push(hash);
        } else if let Some(slot) = self.seen.get_mut(usize::from(self.seen_next)) {
            *slot = hash;
            self.seen_next = (self.seen_next + 1) % SEEN_MAX as u8;
        }
    }
}

fn alias(index: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(index + 1).ok()?)
}

/// Few names are compared, so a peer that finds collisions gains nothing.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
