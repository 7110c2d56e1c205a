//! Who wants the messages of recent topics: most publishers repeat theirs.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::routes::{Interested, SessionSubscriber};
use crate::shared::GroupHandle;
use crate::tenant::SpaceId;

/// Topics remembered, each at one of the two places that its hash names.
const PLACES: usize = 1024;

/// A longer Topic Name is not remembered.
const TOPIC_BYTES_MAX: usize = 128;

/// Sessions that may want a topic which is remembered.
const TAKERS_MAX: usize = 4;

/// The sessions that want a topic, each once, and the group and the other shard that do.
#[derive(Clone, Copy, Default)]
pub(crate) struct Takers {
    pub(crate) sessions: [Option<SessionSubscriber>; TAKERS_MAX],
    pub(crate) group: Option<GroupHandle>,
    pub(crate) shard: Option<Interested>,
}

/// The takers of topics, as long as no subscription comes or goes.
#[derive(Default)]
pub(crate) struct RecentTopics {
    hasher: FixedState,
    places: Vec<Place>,
}

/// Where a topic is remembered.
#[derive(Default)]
struct Place {
    /// The hash of the last topic that was not remembered here; it is if it comes again.
    missed: u64,
    hash: u64,
    /// Of the subscriptions.
    generation: u64,
    topic: Vec<u8>,
    takers: Takers,
}

/// A topic that is not remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missed {
    hash: u64,
    /// Whether it came before.
    again: bool,
}

impl RecentTopics {
    /// Who wants the messages of a topic; or what [`remember`](Self::remember) wants. The hashes of
    /// a topic in two spaces differ, so that one is never taken for the other.
    pub(crate) fn find(
        &mut self,
        space: SpaceId,
        topic: &[u8],
        generation: u64,
    ) -> Result<&Takers, Missed> {
        let hash = self.hasher.hash_one(topic) ^ space.salt();
        let known = |place: &Place| {
            place.hash == hash && place.generation == generation && place.topic == topic
        };
        let places = places(hash);
        let is_known = |at: &usize| self.places.get(*at).is_some_and(known);
        let found = places.into_iter().find(is_known);
        let again = found.is_none() && self.miss(hash);
        let place = found.and_then(|at| self.places.get(at));
        place
            .map(|place| &place.takers)
            .ok_or(Missed { hash, again })
    }

    /// Notes that a topic is not remembered; whether that was noted before.
    fn miss(&mut self, hash: u64) -> bool {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, Place::default);
        }
        // At both places, so that of two that share one neither hides the other.
        let mut again = false;
        for at in places(hash) {
            if let Some(place) = self.places.get_mut(at) {
                again |= place.missed == hash;
                place.missed = hash;
            }
        }
        again
    }

    /// Remembers who wants a topic that came before.
    pub(crate) fn remember(
        &mut self,
        missed: Missed,
        topic: &[u8],
        generation: u64,
        takers: impl ExactSizeIterator<Item = SessionSubscriber>,
        groups: &[GroupHandle],
        shards: &[Interested],
    ) {
        let many = takers.len() > TAKERS_MAX || groups.len() > 1 || shards.len() > 1;
        if !missed.again || topic.len() > TOPIC_BYTES_MAX || many {
            return;
        }
        let [first, second] = places(missed.hash);
        // So that topics that come in turn do not drive each other out.
        let free = |at: &usize| {
            let place = self.places.get(*at);
            place.is_some_and(|place| place.topic.is_empty() || place.generation != generation)
        };
        let at = if free(&first) || !free(&second) {
            first
        } else {
            second
        };
        if let Some(place) = self.places.get_mut(at) {
            place.hash = missed.hash;
            place.generation = generation;
            place.topic.clear();
            place.topic.extend_from_slice(topic);
            place.takers = Takers {
                group: groups.first().copied(),
                shard: shards.first().copied(),
                ..Takers::default()
            };
            for (to, from) in place.takers.sessions.iter_mut().zip(takers) {
                *to = Some(from);
            }
        }
    }
}

/// Where a topic may be remembered.
const fn places(hash: u64) -> [usize; 2] {
    [hash as usize % PLACES, (hash >> 32) as usize % PLACES]
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::sync::Arc;

    use avocet_codec::QoS;

    use super::*;
    use crate::SessionKey;
    use crate::routes::Mark;
    use crate::session_table::{SessionTable, Slot};

    fn taker() -> SessionSubscriber {
        let slot = Slot::new(Arc::new(SessionKey::new("", "a")), SpaceId::NO_TENANT);
        let session = SessionTable::new(0).insert(slot);
        SessionSubscriber {
            session,
            maximum_qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            mark: Mark::None,
            subscription_id: None,
        }
    }

    /// The group that wants what so many sessions want.
    fn group(takers: usize) -> Option<GroupHandle> {
        (takers % 2 == 1).then(|| GroupHandle::for_test(7))
    }

    /// Publishes to a topic `takers` want; whether they were known.
    fn comes(recent: &mut RecentTopics, topic: &str, generation: u64, takers: usize) -> bool {
        let topic = topic.as_bytes();
        match recent.find(SpaceId::NO_TENANT, topic, generation) {
            Ok(known) => {
                assert_eq!(known.sessions.iter().flatten().count(), takers);
                assert_eq!(known.group, group(takers));
                true
            }
            Err(missed) => {
                let groups = group(takers);
                let takers = core::iter::repeat_n(taker(), takers);
                recent.remember(missed, topic, generation, takers, groups.as_slice(), &[]);
                false
            }
        }
    }

    #[test]
    fn a_topic_is_remembered_when_it_comes_again_until_something_changes() {
        let mut recent = RecentTopics::default();
        for generation in 0..3 {
            // It came at the end of the last one, so once is enough.
            if generation == 0 {
                assert!(!comes(&mut recent, "a/b", generation, 2));
            }
            assert!(!comes(&mut recent, "a/b", generation, 2));
            assert!(comes(&mut recent, "a/b", generation, 2));
            assert!(!comes(&mut recent, "a/c", generation, 1));
        }
    }

    /// A server has some hundred topics in use at a time, most of the time.
    #[test]
    fn topics_that_come_in_turn_are_known() {
        let mut recent = RecentTopics::default();
        let mut known = 0;
        for n in 0..1_000 {
            known += u32::from(comes(&mut recent, &format!("{}", n % 100), 0, 1));
        }
        // Twice each comes for the first time; with one place for each, one in ten has its place
        // taken each time.
        assert!(known >= 780, "{known}");
    }

    #[test]
    fn neither_long_topics_nor_many_takers_are_remembered() {
        let mut recent = RecentTopics::default();
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        for _ in 0..4 {
            assert!(!comes(&mut recent, "a", 0, TAKERS_MAX + 1));
            assert!(!comes(&mut recent, &long, 0, 1));
        }
    }

    #[test]
    fn more_topics_than_places_are_told_apart() {
        let mut recent = RecentTopics::default();
        for n in 0..10 * PLACES {
            let topic = format!("{}", n % (3 * PLACES));
            comes(&mut recent, &topic, 0, n % (3 * PLACES) % (TAKERS_MAX + 1));
        }
        assert_eq!(recent.places.len(), PLACES);
    }
}
