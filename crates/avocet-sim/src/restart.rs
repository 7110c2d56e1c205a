//! What the store holds when everything has settled is what the shards hold: other shards, of
//! another number, are given it and compared.

use avocet_engine::Engine;

use crate::boot::{restore, run_to_rest};
use crate::rng::Rng;
use crate::world::World;

impl World {
    pub(crate) fn check_restart(&self) -> Result<(), String> {
        if !self.plan.system.stored {
            return Ok(());
        }
        let shards = Rng::new(self.plan.seed, "restart", 0).range(1, 3) as u16;
        let now = self.now();
        let mut engines = self.new_engines(shards, u64::MAX >> 16);
        restore(&self.store.journal, &mut engines, now).map_err(|error| error.to_string())?;
        let mut rng = Rng::new(self.plan.seed, "restart", u64::MAX);
        run_to_rest(&mut engines, now, &mut rng, |_| true)?;
        let sum = |engines: &[Engine], count: fn(&Engine) -> u64| -> u64 {
            engines.iter().map(count).sum()
        };
        let retained = sum(&self.engines, |it| it.counters().retained_messages);
        let after = sum(&engines, |it| it.counters().retained_messages);
        // The wills of those who were connected are published.
        if !(retained..=retained + self.retained_wills()).contains(&after) {
            return Err(format!("{retained} retained messages became {after}"));
        }
        let counts: [(&str, u64, u64); 2] = [
            (
                "sessions",
                self.lasting_sessions().count() as u64,
                sum(&engines, |it| it.counters().sessions_disconnected),
            ),
            (
                "subscriptions",
                self.lasting_sessions()
                    .map(|session| {
                        let subs = self.model.subs.iter();
                        subs.filter(|sub| sub.session == session && sub.ended.is_none())
                            .count() as u64
                    })
                    .sum(),
                sum(&engines, |it| it.counters().subscriptions),
            ),
        ];
        for (what, before, after) in counts {
            if before != after {
                return Err(format!("{before} {what} became {after} on {shards} shards"));
            }
        }
        Ok(())
    }

    /// Wills with RETAIN of the connections that stand.
    fn retained_wills(&self) -> u64 {
        let live = self.model.conns.values().filter(|info| info.is_live());
        let wills = live.filter_map(|info| info.connect.as_ref()?.will);
        wills
            .filter(|will| self.model.messages[will].retain)
            .count() as u64
    }

    /// Sessions that outlive their connections.
    fn lasting_sessions(&self) -> impl Iterator<Item = usize> + '_ {
        let sessions = self.model.sessions.iter().enumerate();
        let lasting = sessions.filter(|(_, it)| it.ended.is_none() && it.expiry > 0);
        lasting.map(|(session, _)| session)
    }
}
