//! How often each latency was seen.

/// Each power of two is divided into this many buckets, which is what a value may be off by:
/// less than 0.8 %.
const BUCKETS: u64 = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 7;

/// Longer ones count as this long: more than four hours in nanoseconds.
const VALUE_MAX: u64 = (1 << 44) - 1;

/// Counts of nanoseconds in buckets that grow with the value.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; index(VALUE_MAX) + 1],
            total: 0,
            max: 0,
        }
    }
}

/// Which bucket a value belongs to: below 2 * `BUCKETS` each has its own.
#[inline]
fn index(value: u64) -> usize {
    let shift = value.max(1).ilog2().saturating_sub(BUCKET_BITS);
    (u64::from(shift) * BUCKETS + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn largest(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / BUCKETS).saturating_sub(1);
    ((index - shift * BUCKETS + 1) << shift) - 1
}

impl Histogram {
    /// Counts a value `times` times.
    #[inline]
    pub(crate) fn record(&mut self, nanoseconds: u64, times: u64) {
        let value = nanoseconds.min(VALUE_MAX);
        if let Some(count) = self.counts.get_mut(index(value)) {
            *count += times;
        }
        self.total += times;
        self.max = self.max.max(value);
    }

    /// Takes in what another has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The largest value; 0 without any.
    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    /// The value that this share of all (0 to 1) does not exceed; 0 without any.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return largest(index).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_what_belongs_to_them() {
        let mut before = 0;
        for value in (0..70_000).chain((17..44).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + power / 3, VALUE_MAX]
        })) {
            let index = index(value);
            assert!(largest(index) >= value);
            assert!(largest(index) - value <= value / BUCKETS);
            if value < 70_000 {
                assert!(index == before || index == before + 1);
                before = index;
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        for value in 1..=1000 {
            histogram.record(value * 1000, 1);
        }
        for (share, expected) in [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000)] {
            let value = histogram.quantile(share);
            assert!(value >= expected && value - expected <= expected / BUCKETS);
        }
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        assert_eq!((histogram.total(), histogram.max()), (1000, 1_000_000));
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut one, mut two, mut both) = (
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for value in [1, 77, 5_000, u64::MAX] {
            one.record(value, 2);
            two.record(value / 2, 1);
            both.record(value, 2);
            both.record(value / 2, 1);
        }
        one.merge(&two);
        assert_eq!(one.counts, both.counts);
        assert_eq!((one.total(), one.max()), (both.total(), both.max()));
    }

    #[test]
    fn nothing_counted_is_zero_throughout() {
        let nothing = Histogram::default();
        assert_eq!((nothing.quantile(0.5), nothing.max()), (0, 0));
    }
}
