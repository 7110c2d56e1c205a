//! Which messages came: exactly what is missing, came twice, or came out of order.

use std::ops::AddAssign;

/// The messages of one publisher as one subscriber sees them, numbered from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that did not come, as ascending ranges: from, and up to but without.
    missing: Vec<(u64, u64)>,
    /// Numbers that were missing when their range was forgotten.
    forgotten: u64,
    /// Messages that came for the first time.
    pub(crate) unique: u64,
}

/// What a message is to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The first of this number, and higher than all before it.
    New,
    /// The first of this number, after a higher one.
    Late,
    /// Not the first of this number.
    Again,
}

impl Stream {
    /// A message came. At most `ranges` gaps are remembered: the oldest is given up as lost for
    /// a further one, and what comes of it nevertheless counts as come again.
    #[inline]
    pub(crate) fn see(&mut self, number: u64, ranges: usize) -> Seen {
        if number == self.next {
            self.next += 1;
            self.unique += 1;
            return Seen::New;
        }
        self.see_unexpected(number, ranges)
    }

    #[inline(never)]
    fn see_unexpected(&mut self, number: u64, ranges: usize) -> Seen {
        if number > self.next {
            if self.missing.len() >= ranges.max(1) {
                let (from, to) = self.missing.remove(0);
                self.forgotten += to - from;
            }
            self.missing.push((self.next, number));
            self.next = number + 1;
            self.unique += 1;
            return Seen::New;
        }
        let position = self.missing.partition_point(|&(_, to)| to <= number);
        let Some(range) = self.missing.get_mut(position) else {
            return Seen::Again;
        };
        let (from, to) = *range;
        if number < from {
            return Seen::Again;
        }
        match (number == from, number + 1 == to) {
            (true, true) => {
                self.missing.remove(position);
            }
            (true, false) => range.0 = number + 1,
            (false, true) => range.1 = number,
            (false, false) => {
                range.1 = number;
                self.missing.insert(position + 1, (number + 1, to));
            }
        }
        self.unique += 1;
        Seen::Late
    }

    /// How many of the first `count` messages did not come.
    pub(crate) const fn lost(&self, count: u64) -> u64 {
        count.saturating_sub(self.unique)
    }
}

/// What was wrong with the messages of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Messages that never came.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) duplicates: u64,
    /// Those of them with the DUP flag, which QoS 1 allows.
    pub(crate) duplicates_marked: u64,
    /// Messages that came after a later one of their publisher and topic.
    pub(crate) out_of_order: u64,
    /// Messages whose payload is not what was sent.
    pub(crate) corrupt: u64,
    /// Acknowledgements of messages that were not to be acknowledged.
    pub(crate) stray_acks: u64,
    /// Messages the server refused.
    pub(crate) refused: u64,
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.duplicates_marked += other.duplicates_marked;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.stray_acks += other.stray_acks;
        self.refused += other.refused;
    }
}

impl Faults {
    /// What the server promised and did not keep, in words; empty if it kept everything. At QoS 0
    /// it does not promise to deliver, and at QoS 1 it may repeat what it marks as repeated.
    pub(crate) fn broken(&self, qos: u8) -> Vec<String> {
        let unmarked = self.duplicates - self.duplicates_marked.min(self.duplicates);
        let duplicates = if qos == 1 { unmarked } else { self.duplicates };
        let lost = if qos == 0 { 0 } else { self.lost };
        [
            (lost, "lost"),
            (duplicates, "duplicate"),
            (self.out_of_order, "out of order"),
            (self.corrupt, "with a payload that nobody sent"),
            (self.refused, "refused"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .chain(
            (self.stray_acks > 0)
                .then(|| format!("{} acknowledgements of nothing sent", self.stray_acks)),
        )
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ROOM: usize = 1 << 20;

    #[test]
    fn a_stream_in_order_is_all_new() {
        let mut stream = Stream::default();
        assert!((0..100).all(|number| stream.see(number, ROOM) == Seen::New));
        assert_eq!((stream.lost(100), stream.lost(103)), (0, 3));
    }

    #[test]
    fn tells_lost_late_and_repeated_messages_apart() {
        let mut stream = Stream::default();
        let seen: Vec<_> = [0, 1, 5, 5, 3, 3, 2, 6, 0, 6]
            .map(|number| stream.see(number, ROOM))
            .into();
        use Seen::{Again, Late, New};
        assert_eq!(
            seen,
            [New, New, New, Again, Late, Again, Late, New, Again, Again]
        );
        assert_eq!(stream.lost(7), 1);
    }

    /// Against a set of numbers, for all kinds of disorder.
    #[test]
    fn agrees_with_a_set_of_all_that_came() {
        let mut state = 1_u64;
        for spread in [1, 2, 7, 40, 300] {
            let (mut stream, mut set, mut highest) = (Stream::default(), HashSet::new(), None);
            for step in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
                let number = step / 2 + (state >> 33) % spread;
                let expected = if !set.insert(number) {
                    Seen::Again
                } else if highest > Some(number) {
                    Seen::Late
                } else {
                    Seen::New
                };
                highest = highest.max(Some(number));
                assert_eq!(stream.see(number, ROOM), expected);
            }
            assert_eq!(stream.unique, set.len() as u64);
            assert_eq!(stream.lost(5_000), 5_000 - set.len() as u64);
        }
    }

    #[test]
    fn remembers_no_more_gaps_than_it_may() {
        let mut stream = Stream::default();
        for number in (1..2_000).step_by(2) {
            assert_eq!(stream.see(number, 10), Seen::New);
        }
        assert_eq!(stream.missing.len(), 10);
        assert_eq!((stream.forgotten, stream.lost(2_000)), (990, 1_000));
        assert_eq!(stream.see(1_998, 10), Seen::Late);
        assert_eq!(stream.see(0, 10), Seen::Again);
    }

    #[test]
    fn each_qos_promises_something_else() {
        let faults = Faults {
            lost: 1,
            duplicates: 2,
            duplicates_marked: 1,
            ..Faults::default()
        };
        assert_eq!(faults.broken(0), ["2 duplicate"]);
        assert_eq!(faults.broken(1), ["1 lost", "1 duplicate"]);
        assert_eq!(faults.broken(2), ["1 lost", "2 duplicate"]);
        assert!(Faults::default().broken(2).is_empty());
    }
}
