//! A queue of bounded length that is fair between those it is for: each has a turn, and when it is
//! full, the one that fills it gives way.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The end into which items are put. Once all clones are gone, the others end.
pub(crate) struct Giver<K, T>(Arc<Shared<K, T>>);

/// The end from which items are taken, each by one.
pub(crate) struct Taker<K, T>(Arc<Shared<K, T>>);

struct Shared<K, T> {
    state: Mutex<State<K, T>>,
    filled: Condvar,
}

/// Items by their keys, first in first out for each key.
struct State<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
    /// Those with waiting items, in the order of their turns.
    turns: VecDeque<K>,
    /// The same, each with how many items it has: when the queue is full, which is when it is attacked, the
    /// one with most of them is found at once.
    lens: BTreeSet<(usize, K)>,
    len: usize,
    max: usize,
    givers: usize,
}

/// A queue of at most so many items.
pub(crate) fn fair<K, T>(max: usize) -> (Giver<K, T>, Taker<K, T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            lens: BTreeSet::new(),
            len: 0,
            max,
            givers: 1,
        }),
        filled: Condvar::new(),
    });
    (Giver(Arc::clone(&shared)), Taker(shared))
}

impl<K: Copy + Ord + Hash, T> Giver<K, T> {
    /// Puts an item behind others of its key. If there is no room, the one that came last for the key
    /// with most items is given back: this one, or another.
    pub(crate) fn put(&self, key: K, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.len < state.max {
            state.put(key, item);
            drop(state);
            self.0.filled.notify_one();
            return Ok(());
        }
        let own = state.waiting.get(&key).map_or(0, VecDeque::len);
        // One that waits alone stays.
        let longest = state.lens.last().filter(|(len, _)| *len > own + 1);
        let Some((_, longest)) = longest.copied() else {
            return Err(item);
        };
        let Some(last) = state.take_last(longest) else {
            return Err(item);
        };
        state.put(key, item);
        Err(last)
    }
}

impl<K: Copy + Ord + Hash, T> Taker<K, T> {
    /// Waits for an item. None once nobody is left to put any.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.take() {
                return Some(item);
            }
            if state.givers == 0 {
                return None;
            }
            let waited = self.0.filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<K, T> Clone for Giver<K, T> {
    fn clone(&self) -> Self {
        self.0.lock().givers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Drop for Giver<K, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.givers -= 1;
        if state.givers == 0 {
            self.0.filled.notify_all();
        }
    }
}

impl<K, T> Clone for Taker<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Shared<K, T> {
    fn lock(&self) -> MutexGuard<'_, State<K, T>> {
        // Nothing that holds the lock leaves the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Ord + Hash, T> State<K, T> {
    fn put(&mut self, key: K, item: T) {
        let items = self.waiting.entry(key).or_default();
        if items.is_empty() {
            self.turns.push_back(key);
        }
        items.push_back(item);
        self.len += 1;
        let len = items.len();
        self.recount(key, len - 1, len);
    }

    fn take(&mut self) -> Option<T> {
        let key = self.turns.pop_front()?;
        let items = self.waiting.get_mut(&key)?;
        let item = items.pop_front()?;
        self.len -= 1;
        let len = items.len();
        if len == 0 {
            self.waiting.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        self.recount(key, len + 1, len);
        Some(item)
    }

    fn take_last(&mut self, key: K) -> Option<T> {
        // It has others before it, so its turn stays.
        let items = self.waiting.get_mut(&key)?;
        let item = items.pop_back()?;
        self.len -= 1;
        let len = items.len();
        self.recount(key, len + 1, len);
        Some(item)
    }

    /// A key has another number of items.
    fn recount(&mut self, key: K, before: usize, len: usize) {
        self.lens.remove(&(before, key));
        if len > 0 {
            self.lens.insert((len, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_turn() {
        let (giver, taker) = fair(10);
        for (key, item) in [('a', 1), ('a', 2), ('a', 3), ('b', 4), ('c', 5), ('b', 6)] {
            assert_eq!(giver.put(key, item), Ok(()));
        }
        drop(giver);
        let taken: Vec<_> = std::iter::from_fn(|| taker.take()).collect();
        assert_eq!(taken, [1, 4, 5, 2, 6, 3]);
    }

    #[test]
    fn who_fills_it_gives_way() {
        let (giver, taker) = fair(4);
        for item in 0..4 {
            assert_eq!(giver.put('a', item), Ok(()));
        }
        assert_eq!(giver.put('a', 4), Err(4), "it is full");
        assert_eq!(giver.put('b', 10), Err(3));
        assert_eq!(giver.put('b', 11), Err(2));
        assert_eq!(giver.put('b', 12), Err(12), "both have as many");
        assert_eq!(giver.put('a', 5), Err(5));
        drop(giver);
        let taken: Vec<_> = std::iter::from_fn(|| taker.take()).collect();
        assert_eq!(taken, [0, 10, 1, 11]);
    }

    /// Also when it is full, with one item of each.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "it measures")]
    fn a_queue_of_many_costs_no_more_than_one_of_few() {
        let put = |count: u32| {
            let (giver, taker) = fair(count as usize);
            for key in 0..count {
                assert_eq!(giver.put(key, key), Ok(()));
            }
            // The least of some rounds: whatever else the machine does takes nothing of it.
            let rounds = (0..20).map(|round| {
                let start = std::time::Instant::now();
                for key in 0..50 {
                    let key = count + 50 * round + key;
                    assert_eq!(giver.put(key, key), Err(key));
                }
                start.elapsed()
            });
            let least = rounds.min();
            drop(taker);
            least.unwrap_or_default()
        };
        let (few, many) = (put(100), put(10_000));
        println!("{few:?} with 100, {many:?} with 10,000");
        assert!(many < few * 10, "{few:?} with 100, {many:?} with 10,000");
    }

    #[test]
    fn what_is_known_of_each_stays_true() {
        let (giver, taker) = fair(20);
        let mut random = 7_u64;
        for item in 0..10_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if giver.0.lock().len > 0 && random >> 62 == 0 {
                taker.take();
            } else {
                let _ = giver.put((random >> 40) % 6, item);
            }
            let state = giver.0.lock();
            let lens = state.waiting.iter().map(|(key, items)| (items.len(), *key));
            assert_eq!(state.lens, lens.collect());
            let sum: usize = state.lens.iter().map(|(len, _)| len).sum();
            assert_eq!((sum, state.turns.len()), (state.len, state.lens.len()));
        }
    }

    #[test]
    fn it_ends_with_those_who_fill_it() {
        let (giver, taker) = fair::<u8, u8>(1);
        let other = giver.clone();
        let taking = std::thread::spawn(move || taker.take());
        drop(giver);
        drop(other);
        assert_eq!(taking.join().ok(), Some(None));
    }
}
