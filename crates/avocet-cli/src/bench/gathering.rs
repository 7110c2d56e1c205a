//! Messages that are let to gather, in a closed loop.

use std::time::Duration;

use crate::clock::doze;

/// The longest time for which messages gather, in nanoseconds.
const DOZE_MAX: u64 = 2_000_000;

/// The shortest one that is worth it.
const DOZE_MIN: u64 = 20_000;

/// Messages at QoS 1 and 2 that any server sends to a subscriber before it waits for
/// acknowledgements: 20 is mosquitto's limit, and others allow more.
pub(crate) const UNACKNOWLEDGED: u64 = 20;

/// How fast the server is.
#[derive(Default)]
pub(crate) struct Gathering {
    /// When this was last taken, and how much had arrived.
    taken: Option<(u64, u64)>,
    /// Nanoseconds for each message, as they come one behind the other.
    per_message: Option<f64>,
}

impl Gathering {
    /// Lets messages gather, a quarter of the time that the server needs for all that are on their
    /// way: it always has work, and both sides do more with each call of the system. What it holds
    /// back until subscribers acknowledge others is no work for it: it has `work` at most.
    pub(crate) fn wait(&mut self, now: u64, sent: u64, arrived: u64, work: u64) {
        let (at, before) = *self.taken.get_or_insert((now, arrived));
        if now - at > DOZE_MAX && arrived > before {
            let latest = (now - at) as f64 / (arrived - before) as f64;
            let smooth = |before| (3.0 * before + latest) / 4.0;
            self.per_message = Some(self.per_message.map_or(latest, smooth));
            self.taken = Some((now, arrived));
        }
        let Some(per_message) = self.per_message else {
            return;
        };
        let on_their_way = sent.saturating_sub(arrived).min(work) as f64;
        let time = (on_their_way * per_message / 4.0) as u64;
        if time >= DOZE_MIN {
            doze(Duration::from_nanos(time.min(DOZE_MAX)));
        }
    }
}
