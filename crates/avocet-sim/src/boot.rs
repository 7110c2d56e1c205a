//! Crashes, and how the broker comes back: from what the store has kept to shards that have agreed
//! on it.

use std::collections::VecDeque;
use std::sync::Arc;

use avocet_engine::{Command, Engine, Restored, SessionKey, ShardId, ShardMessage};
use avocet_journal::{Journal, JournalError};
use avocet_session::{CommitId, Now};

use crate::broker::Shard;
use crate::coverage::Kind;
use crate::disk::Disk;
use crate::history::{ConnId, What};
use crate::plan::{CHECKER, Crash, MILLI, SECOND};
use crate::rng::Rng;
use crate::survivors::Survivors;
use crate::wire::uid_of;
use crate::world::{Task, World};

/// More turns than a restart needs.
const TURNS_MAX: usize = 100_000;

/// Gives what is stored to the engines that own it.
pub(crate) fn restore(
    journal: &Journal<Disk>,
    engines: &mut [Engine],
    now: Now,
) -> Result<(), JournalError> {
    let shards = engines.len() as u16;
    journal.recover(|restored| match restored.shard(shards) {
        Some(shard) => engines[shard.index()].restore(restored),
        None => engines
            .iter_mut()
            .for_each(|engine| engine.restore(restored.clone())),
    })?;
    for engine in engines {
        engine.finish_restore(now);
    }
    Ok(())
}

/// Lets shards talk until nobody has anything to say. `store` is asked to make everything durable;
/// what a shard wants stored goes to it before what the shard says later.
pub(crate) fn run_to_rest(
    engines: &mut [Engine],
    now: Now,
    rng: &mut Rng,
    mut step: impl FnMut(Step<'_>) -> bool,
) -> Result<(), String> {
    let shards = engines.len();
    let mut values: Vec<VecDeque<(ShardId, ShardMessage)>> =
        (0..shards).map(|_| VecDeque::new()).collect();
    let mut committed: Vec<Option<CommitId>> = vec![None; shards];
    for _ in 0..TURNS_MAX {
        for (shard, engine) in engines.iter_mut().enumerate() {
            let this = ShardId::new(shard as u16);
            while let Some(command) = engine.poll_command() {
                match command {
                    Command::ToShard { to, value } => values[to.index()].push_back((this, value)),
                    Command::Commit { id, records, .. } => {
                        if !step(Step::Commit(shard, id, &records)) {
                            return Ok(());
                        }
                        committed[shard] = Some(id);
                    }
                    _ => {}
                }
            }
        }
        let speaks = values.iter().any(|values| !values.is_empty());
        let waits = committed.iter().any(Option::is_some);
        if waits && (!speaks || rng.one_in(4)) {
            if !step(Step::Sync) {
                return Ok(());
            }
            for (shard, id) in committed.iter_mut().enumerate() {
                if let Some(id) = id.take() {
                    step(Step::Committed(shard, id));
                    engines[shard].handle_committed(id, now);
                }
            }
        } else if speaks {
            let to = rng.index(shards);
            if let Some((from, value)) = values[to].pop_front() {
                engines[to].handle_from_shard(from, value, now);
            }
        } else if engines.iter().any(Engine::is_restoring) {
            return Err("the shards wait for each other".into());
        } else {
            return Ok(());
        }
    }
    Err("the shards never come to rest".into())
}

/// What shards that come to rest need of the store. The broker may crash instead: false.
pub(crate) enum Step<'a> {
    Commit(usize, CommitId, &'a [avocet_engine::Record]),
    Sync,
    Committed(usize, CommitId),
}

impl World {
    pub(crate) fn is_down(&self) -> bool {
        self.engines.is_empty()
    }

    /// Counts down to a crash that is due after some more events.
    pub(crate) fn count_down(&mut self) {
        if let Some((left, crash)) = self.armed {
            if left > 0 {
                self.armed = Some((left - 1, crash));
            } else if !self.is_down() && !self.calm {
                self.armed = None;
                self.crash_now = Some(crash);
            }
        }
    }

    /// The broker is gone, with all that was not stored.
    pub(crate) fn crash(&mut self, crash: Crash) {
        if self.is_down() {
            return;
        }
        let power = crash.power;
        self.record(What::Crashed { power });
        self.seen(if power {
            Kind::PowerLost
        } else {
            Kind::Crashed
        });
        self.add_counters();
        self.engines.clear();
        self.shards.clear();
        self.fetches.clear();
        self.forget_tasks();
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            self.lose(id, crash);
        }
        self.conns.retain(|_, conn| !conn.left);
        self.schedule(self.at + crash.down, Task::Restart(crash));
    }

    /// A connection to a broker that is gone.
    fn lose(&mut self, id: ConnId, crash: Crash) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let whole = conn.ended && conn.rest.is_empty();
        if conn.left || whole {
            return;
        }
        let torn = conn.crash(self.rng.below(101));
        let client = &self.clients[conn.client].profile;
        let silent = client.keep_alive > 0;
        let reliable = conn.client <= CHECKER;
        if torn {
            self.seen(Kind::PacketTorn);
        }
        // The system resets connections of a process; after a loss of power only when it is back.
        let back = crash.down + self.rng.below(SECOND);
        let wait = match self.rng.below(4) {
            _ if reliable => Some(MILLI),
            0 if silent => None,
            1 | 2 if !crash.power => Some(self.rng.below(5 * MILLI)),
            _ => Some(back),
        };
        match wait {
            Some(wait) => self.schedule(self.at + wait, Task::ClientLearns(id)),
            None => self.seen(Kind::ClientHalfOpen),
        }
    }

    /// The broker begins again with what is stored, on another number of shards.
    pub(crate) fn restart(&mut self, crash: Crash) {
        if let Err(problem) = self.store.crash(crash.power) {
            self.fail("a restart brings everything back", problem);
            return;
        }
        self.boots += 1;
        self.booted_at = self.at;
        let now = self.now();
        let boot = u64::from(self.boots);
        let mut engines = self.new_engines(crash.shards, boot);
        if let Err(error) = restore(&self.store.journal, &mut engines, now) {
            self.fail("a restart brings everything back", error.to_string());
            return;
        }
        let mut rng = Rng::new(self.plan.seed, "restart", boot);
        // It may crash again before it is up.
        let mut left = if rng.one_in(4) && crash.again {
            rng.below(6)
        } else {
            u64::MAX
        };
        let rest = run_to_rest(&mut engines, now, &mut rng, |step| {
            if left == 0 {
                return false;
            }
            left -= 1;
            match step {
                Step::Commit(shard, id, records) => {
                    self.apply(shard, id, records);
                }
                Step::Sync => {
                    self.store.journal.sync().expect("the disk works");
                }
                Step::Committed(shard, id) => {
                    let commit = id.get();
                    self.record(What::Committed { shard, commit });
                }
            }
            true
        });
        if let Err(problem) = rest {
            self.fail("a restart brings everything back", problem);
            return;
        }
        if left == 0 {
            self.seen(Kind::CrashedAgain);
            self.record(What::Crashed { power: crash.power });
            let again = Crash {
                again: false,
                ..crash
            };
            self.schedule(self.at + crash.down, Task::Restart(again));
            return;
        }
        self.engines = engines;
        self.shards = (0..crash.shards)
            .map(|shard| {
                let stream = boot << 16 | u64::from(shard);
                Shard::new(Rng::new(self.plan.seed, "shard", stream))
            })
            .collect();
        match self.survivors() {
            Ok(survivors) => self.record(What::Restarted {
                shards: crash.shards,
                survivors: Arc::new(survivors),
            }),
            Err(error) => self.fail("a restart brings everything back", error.to_string()),
        }
        for shard in 0..self.shards.len() {
            self.wake_shard(shard);
        }
    }

    /// What is stored, as far as clients have been told of it.
    fn survivors(&self) -> Result<Survivors, JournalError> {
        let mut survivors = Survivors::default();
        self.store.journal.recover(|restored| match restored {
            Restored::Session { session, .. } => {
                survivors.session(&session);
            }
            Restored::Subscription {
                session,
                filter,
                options,
                subscription_id,
            } => {
                let session = survivors.session(&session);
                let id = subscription_id.map(|id| id.get());
                session.subs.push((filter.as_str().to_owned(), options, id));
            }
            Restored::PublishReceived { session, packet_id } => {
                let session = survivors.session(&session);
                session.received.push(packet_id.get());
            }
            Restored::Retained { message, publisher } => {
                let tenant = publisher
                    .as_deref()
                    .map_or("", SessionKey::tenant)
                    .to_owned();
                let topic = message.topic_name().as_str().to_owned();
                let uid = uid_of(message.payload());
                survivors.retained.insert((tenant, topic), uid);
            }
            _ => {}
        })?;
        Ok(survivors)
    }
}
