//! When a shard with much to do lets input gather before it reads.
//!
//! To wake up, to look for what is ready and to write cost nearly the same for one message as for a
//! hundred. Left alone, a shard and its clients keep step with each other in the smallest portions:
//! each publisher that has written wakes the shard, which answers it alone. A pause lets the others
//! write too. It is no longer than the shard is late in any case under such load, and there is none
//! while there is little to do, where nothing but the delay would come of it.
//!
//! A client that waits for an answer sends nothing in a pause: it goes to sleep, and has to be woken.
//! So there is none where most clients are sent something before they are read again, such as
//! acknowledgements, or messages that they acknowledge.

use std::mem;
use std::time::Duration;

use avocet_session::Instant;

/// Connections read in each millisecond, here or for this shard by another, from which on a pause
/// may be worth it. A message that comes alone costs about 10 us, so this is a thread that is busy
/// for a sixth of its time.
const INPUT_MIN: u64 = 16;

/// For how long the load is measured.
const WINDOW: Duration = Duration::from_millis(4);

/// With so much input, enough has gathered.
const READY_MAX: usize = 64;

/// How long a pause is, by the time that the last turn took: what comes in one turn is then at least
/// a third of what could.
const WORK_FACTOR: u32 = 2;

/// Turns without a pause after one that brought nothing, at first and at most.
const SKIPPED: (u32, u32) = (1, 16);

/// The load of a shard, and what pauses have brought.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// The longest pause; zero for none.
    max: Duration,
    /// When the window began, and the input in it.
    window: Instant,
    input: u64,
    /// Clients read in it, and how many were sent something after they had been read.
    reads: u64,
    answers: u64,
    /// Whether there was much to do in the last window, for clients that mostly do not wait.
    loaded: bool,
    /// How long the shard has waited in it, but for the pause before this turn, and whether it was busy for more than a quarter
    /// of the last one. To wait for a processor is to wait.
    idle: Duration,
    paused: Duration,
    busy: bool,
    /// When the turn began, and how long the last one took.
    began: Instant,
    ended: Instant,
    work: Duration,
    /// Turns until the next pause, and after the next one that brings nothing.
    skip: u32,
    skip_next: u32,
}

impl Gathering {
    pub(crate) fn new(max: Duration) -> Self {
        // A pause of Windows lasts up to 16 ms.
        let max = if cfg!(windows) { Duration::ZERO } else { max };
        Self {
            max,
            window: Instant::ORIGIN,
            input: 0,
            reads: 0,
            answers: 0,
            loaded: false,
            idle: Duration::ZERO,
            paused: Duration::ZERO,
            busy: false,
            began: Instant::ORIGIN,
            ended: Instant::ORIGIN,
            work: Duration::ZERO,
            skip: 0,
            skip_next: SKIPPED.0,
        }
    }

    /// A turn begins, with so much input: connections to read, which are `reads` of it, and what other
    /// shards read for this one.
    pub(crate) fn begin(&mut self, input: usize, reads: usize, now: Instant) {
        self.began = now;
        let waited = now.duration_since(self.ended);
        self.idle += waited.saturating_sub(mem::take(&mut self.paused));
        let window = now.duration_since(self.window);
        if window >= WINDOW {
            let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            let waits = self.answers > 0 && 2 * self.answers >= self.reads;
            self.loaded = self.input >= INPUT_MIN.saturating_mul(millis) && !waits;
            self.busy = 4 * self.idle < 3 * window;
            self.idle = Duration::ZERO;
            self.window = now;
            (self.input, self.reads, self.answers) = (0, 0, 0);
        }
        self.input += input as u64;
        self.reads += reads as u64;
    }

    /// Another connection is read in this turn.
    pub(crate) fn read_more(&mut self) {
        self.input += 1;
        self.reads += 1;
    }

    /// Whether input may wait at all.
    pub(crate) const fn is_allowed(&self) -> bool {
        !self.max.is_zero()
    }

    /// A client is sent something for the first time since it was read.
    pub(crate) fn answer(&mut self) {
        self.answers += 1;
    }

    /// Whether there may be pauses, so that it matters how long turns are.
    pub(crate) const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether the shard is busy for more than a quarter of the time, as far as it [says](Self::end) when turns are over.
    pub(crate) const fn is_busy(&self) -> bool {
        self.busy
    }

    /// The turn is over.
    pub(crate) fn end(&mut self, now: Instant) {
        self.work = now.duration_since(self.began);
        self.ended = now;
    }

    /// How long to wait before the next turn, with so much input.
    pub(crate) fn pause(&mut self, ready: usize, now: Instant) -> Option<Duration> {
        let stale = now.duration_since(self.window) >= 2 * WINDOW;
        if !self.loaded || stale || ready == 0 || ready >= READY_MAX || self.max.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.longest())
    }

    /// How long the pause before this turn may be.
    fn longest(&self) -> Duration {
        (WORK_FACTOR * self.work).min(self.max)
    }

    /// What a pause came to: so much input was there before it, and so much is after it.
    pub(crate) fn judge(&mut self, before: usize, after: usize) {
        self.paused = self.longest();
        if after >= 2 * before && after >= before + 4 {
            self.skip_next = SKIPPED.0;
        } else {
            self.skip = self.skip_next;
            self.skip_next = (2 * self.skip_next).min(SKIPPED.1);
        }
    }
}

#[cfg(all(test, not(windows)))]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(200);

    /// A shard of which each turn takes so long, and what it does next.
    struct Turns {
        gathering: Gathering,
        now: Instant,
        work: Duration,
        /// Of so many clients one is sent something after it was read; zero: none.
        answers_one_in: usize,
        read: usize,
    }

    impl Turns {
        fn new(max: Duration, work_micros: u64) -> Self {
            Self {
                gathering: Gathering::new(max),
                now: Instant::ORIGIN,
                work: Duration::from_micros(work_micros),
                answers_one_in: 0,
                read: 0,
            }
        }

        /// A turn after some idle time that finds so many ready, and `more` after a pause.
        fn turn(&mut self, idle_micros: u64, ready: usize, more: usize) -> Option<Duration> {
            self.gathering.end(self.now);
            self.now = self.now + Duration::from_micros(idle_micros);
            let pause = self.gathering.pause(ready, self.now);
            let mut after = ready;
            if let Some(pause) = pause {
                self.now = self.now + pause;
                after += more;
                self.gathering.judge(ready, after);
            }
            self.gathering.begin(after, after, self.now);
            for _ in 0..after {
                self.read += 1;
                if self.answers_one_in > 0 && self.read.is_multiple_of(self.answers_one_in) {
                    self.gathering.answer();
                }
            }
            self.now = self.now + self.work;
            pause
        }

        /// Turns of 10 ms, of which each reads one connection; how many had a pause.
        fn pauses(&mut self, idle_micros: u64, more: usize) -> (usize, usize) {
            let end = self.now + Duration::from_millis(10);
            let (mut turns, mut pauses) = (0, 0);
            while self.now < end {
                turns += 1;
                pauses += usize::from(self.turn(idle_micros, 1, more).is_some());
            }
            (turns, pauses)
        }
    }

    #[test]
    fn a_shard_with_little_to_do_does_not_wait() {
        // 5,000 messages a second.
        let mut turns = Turns::new(MAX, 20);
        assert_eq!(turns.pauses(180, 9).1, 0);
    }

    #[test]
    fn a_busy_shard_waits_while_that_brings_more() {
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 9);
        let (all, pauses) = turns.pauses(10, 9);
        assert_eq!(pauses, all);
    }

    #[test]
    fn a_pause_that_brings_nothing_is_seldom_tried_again() {
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 0);
        let (all, pauses) = turns.pauses(10, 0);
        assert!(pauses > 0 && pauses <= all / 16 + 1, "{pauses} of {all}");
    }

    #[test]
    fn a_pause_is_twice_the_last_turn_up_to_its_maximum() {
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 9);
        assert_eq!(turns.turn(10, 1, 9), Some(Duration::from_micros(40)));
        turns.work = Duration::from_millis(1);
        turns.turn(10, 1, 9);
        assert_eq!(turns.turn(10, 1, 9), Some(MAX));
    }

    #[test]
    fn where_much_is_ready_nothing_is_waited_for() {
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 9);
        assert_eq!(turns.turn(10, READY_MAX, 9), None);
        assert_eq!(turns.turn(10, 0, 9), None);
    }

    #[test]
    fn after_a_rest_the_load_of_before_says_nothing() {
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 9);
        assert_eq!(turns.turn(100_000, 1, 9), None);
        assert_eq!(turns.turn(10, 1, 9), None);
    }

    #[test]
    fn clients_that_wait_for_answers_are_not_kept_waiting() {
        for (answers_one_in, waits) in [(1, true), (3, false), (0, false)] {
            let mut turns = Turns::new(MAX, 20);
            turns.answers_one_in = answers_one_in;
            turns.pauses(10, 9);
            let (all, pauses) = turns.pauses(10, 9);
            assert_eq!(pauses, if waits { 0 } else { all }, "{answers_one_in}");
        }
    }

    #[test]
    fn what_other_shards_read_is_input_for_which_no_client_waits_here() {
        let mut gathering = Gathering::new(MAX);
        let mut now = Instant::ORIGIN;
        for _ in 0..1_000 {
            now = now + Duration::from_micros(20);
            gathering.begin(8, 0, now);
        }
        assert!(gathering.pause(1, now).is_some());
    }

    #[test]
    fn a_shard_is_busy_that_waits_for_less_than_three_quarters_of_the_time() {
        for (idle_micros, busy) in [(10, true), (50, true), (70, false), (1_000, false)] {
            let mut turns = Turns::new(MAX, 20);
            turns.pauses(idle_micros, 0);
            assert_eq!(turns.gathering.is_busy(), busy, "{idle_micros}");
        }
        // After a rest the first turn knows.
        let mut turns = Turns::new(MAX, 20);
        turns.pauses(10, 0);
        turns.turn(100_000, 1, 0);
        assert!(!turns.gathering.is_busy());
    }

    #[test]
    fn a_maximum_of_zero_is_never() {
        let mut turns = Turns::new(Duration::ZERO, 20);
        turns.pauses(10, 9);
        assert_eq!(turns.pauses(10, 9).1, 0);
    }
}
