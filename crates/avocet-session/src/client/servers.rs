//! Which server to try next.

use alloc::vec::Vec;

/// In which order servers are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerOrder {
    /// As they are listed: the first one is preferred whenever it can be reached.
    #[default]
    Listed,
    /// In another order in each round, so that many clients spread over the servers.
    Random,
}

/// Goes through a list of servers in rounds: in each round every server is tried once, without a
/// wait in between; [`Reconnect`](crate::client::Reconnect) says how long to wait for the next
/// round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    order: ServerOrder,
    /// Places in the list, in the order of the round.
    round: Vec<usize>,
    tried: usize,
}

impl Servers {
    /// Before the first round through a list of `count` servers; `entropy` is a uniformly
    /// distributed number.
    #[must_use]
    pub fn new(count: usize, order: ServerOrder, entropy: u64) -> Self {
        let mut servers = Self {
            order,
            round: (0..count).collect(),
            tried: 0,
        };
        servers.begin_round(entropy);
        servers
    }

    /// Begins a round; `entropy` is a uniformly distributed number.
    pub fn begin_round(&mut self, mut entropy: u64) {
        self.tried = 0;
        if self.order == ServerOrder::Random {
            // Fisher and Yates, from the back.
            for end in (1..self.round.len()).rev() {
                let other = below(next(&mut entropy), end + 1);
                self.round.swap(end, other);
            }
        }
    }

    /// The place of the next server in the list; none when all were tried in this round.
    pub fn next_server(&mut self) -> Option<usize> {
        let place = self.round.get(self.tried).copied()?;
        self.tried += 1;
        Some(place)
    }

    /// Whether a server that is listed before this one should be tried again while this one serves.
    #[must_use]
    pub fn has_better_than(&self, place: usize) -> bool {
        self.order == ServerOrder::Listed && place > 0
    }
}

/// The next of a sequence of well mixed numbers (`SplitMix64`).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn below(number: u64, end: usize) -> usize {
    let end = u128::try_from(end).unwrap_or(u128::MAX);
    // Less than `end`, which was a usize.
    usize::try_from((u128::from(number) * end) >> 64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(servers: &mut Servers) -> Vec<usize> {
        core::iter::from_fn(|| servers.next_server()).collect()
    }

    #[test]
    fn listed_servers_are_tried_in_order_in_each_round() {
        let mut servers = Servers::new(3, ServerOrder::Listed, 7);
        assert_eq!(round(&mut servers), [0, 1, 2]);
        assert_eq!(servers.next_server(), None);
        servers.begin_round(8);
        assert_eq!(round(&mut servers), [0, 1, 2]);
        assert!(!servers.has_better_than(0) && servers.has_better_than(1));
    }

    #[test]
    fn a_random_round_has_each_server_once_and_every_server_comes_first() {
        let mut first = [0_u32; 4];
        let mut servers = Servers::new(4, ServerOrder::Random, 0);
        for entropy in 0..4000 {
            servers.begin_round(entropy);
            let mut round = round(&mut servers);
            first[round[0]] += 1;
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3]);
        }
        assert!(
            first.iter().all(|&count| (900..1100).contains(&count)),
            "{first:?}"
        );
        assert!(!servers.has_better_than(3));
    }

    #[test]
    fn no_server_is_a_round_without_any() {
        assert_eq!(Servers::new(0, ServerOrder::Random, 1).next_server(), None);
    }
}
