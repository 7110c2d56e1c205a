//! Clients that connect again and again, and are not let in for a while.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use avocet_session::Instant;

use crate::config::Flapping;
use crate::session_table::SessionKey;

/// Clients kept in mind; beyond, those are forgotten whose time is over first.
const CLIENTS_MAX: usize = 65_536;

/// What is known of the clients that have connected of late.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    clients: BTreeMap<Arc<SessionKey>, Recent>,
    ends: BTreeSet<(Instant, Arc<SessionKey>)>,
}

#[derive(Debug)]
struct Recent {
    connects: u32,
    /// Until when its connections are counted, or it is banned.
    until: Instant,
    banned: bool,
}

/// What a connection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flap {
    Fine,
    /// It was one too many: from here on the client is banned.
    TooMany,
    Banned,
}

impl Flaps {
    /// A client is about to be let in.
    pub(crate) fn connects(
        &mut self,
        key: &Arc<SessionKey>,
        limits: &Flapping,
        now: Instant,
    ) -> Flap {
        while let Some((end, _)) = self.ends.first()
            && (*end <= now || self.clients.len() > CLIENTS_MAX)
        {
            if let Some((_, key)) = self.ends.pop_first() {
                self.clients.remove(&key);
            }
        }
        let Some(recent) = self.clients.get_mut(key) else {
            let until = now + limits.window;
            let recent = Recent {
                connects: 1,
                until,
                banned: false,
            };
            self.clients.insert(Arc::clone(key), recent);
            self.ends.insert((until, Arc::clone(key)));
            return Flap::Fine;
        };
        if recent.banned {
            return Flap::Banned;
        }
        recent.connects += 1;
        if recent.connects <= limits.connects_max {
            return Flap::Fine;
        }
        recent.banned = true;
        self.ends.remove(&(recent.until, Arc::clone(key)));
        recent.until = now + limits.ban;
        self.ends.insert((recent.until, Arc::clone(key)));
        Flap::TooMany
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use core::time::Duration;

    use super::*;

    #[test]
    fn what_is_kept_in_mind_is_bounded_and_ends() {
        let limits = Flapping {
            connects_max: 1,
            window: Duration::from_secs(10),
            ban: Duration::from_secs(60),
        };
        let mut flaps = Flaps::default();
        let mut connects = |number: usize, at: u64| {
            let key = Arc::new(SessionKey::new("", &format!("{number}")));
            let flap = flaps.connects(&key, &limits, Instant::ORIGIN + Duration::from_secs(at));
            assert!(flaps.clients.len() <= CLIENTS_MAX + 1);
            assert_eq!(flaps.clients.len(), flaps.ends.len());
            (flap, flaps.clients.len())
        };
        for number in 0..CLIENTS_MAX + 10 {
            connects(number, 0);
        }
        assert_eq!(connects(CLIENTS_MAX, 1).0, Flap::TooMany);
        assert_eq!(connects(CLIENTS_MAX, 60).0, Flap::Banned);
        assert_eq!(connects(CLIENTS_MAX, 61), (Flap::Fine, 1));
    }
}
