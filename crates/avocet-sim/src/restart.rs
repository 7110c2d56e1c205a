//! What the store holds when everything has settled is what the shards hold: other shards, of
//! another number, are given it and compared.

use std::collections::VecDeque;

use avocet_engine::{Command, Engine, ShardId};

use crate::rng::Rng;
use crate::world::World;

/// More turns than a restart needs.
const TURNS_MAX: usize = 10_000;

impl World {
    pub(crate) fn check_restart(&self) -> Result<(), String> {
        if !self.plan.system.stored {
            return Ok(());
        }
        let shards = Rng::new(self.plan.seed, "restart", 0).range(1, 3) as u16;
        let now = self.now();
        let config = std::sync::Arc::new(crate::world::config(&self.plan));
        let mut engines: Vec<Engine> = (0..shards)
            .map(|shard| {
                let entropy = Rng::new(self.plan.seed, "restart", shard.into()).next();
                let config = std::sync::Arc::clone(&config);
                Engine::new(config, ShardId::new(shard), shards, entropy, now)
            })
            .collect();
        let recovered = self
            .store
            .journal
            .recover(|restored| match restored.shard(shards) {
                Some(shard) => engines[shard.index()].restore(restored),
                None => engines
                    .iter_mut()
                    .for_each(|engine| engine.restore(restored.clone())),
            });
        recovered.map_err(|error| error.to_string())?;
        for engine in &mut engines {
            engine.finish_restore(now);
        }
        self.run_to_rest(&mut engines)?;
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

    /// Lets shards talk until nobody has anything to say. What they want stored is.
    fn run_to_rest(&self, engines: &mut [Engine]) -> Result<(), String> {
        let now = self.now();
        let mut values = VecDeque::new();
        for _ in 0..TURNS_MAX {
            for (shard, engine) in engines.iter_mut().enumerate() {
                while let Some(command) = engine.poll_command() {
                    match command {
                        Command::ToShard { to, value } => values.push_back((shard, to, value)),
                        Command::Commit { id, .. } => engine.handle_committed(id, now),
                        _ => {}
                    }
                }
            }
            match values.pop_front() {
                Some((from, to, value)) => {
                    let from = ShardId::new(from as u16);
                    engines[to.index()].handle_from_shard(from, value, now);
                }
                None if engines.iter().any(Engine::is_restoring) => {
                    return Err("the shards wait for each other".into());
                }
                None => return Ok(()),
            }
        }
        Err("the shards never come to rest".into())
    }
}
