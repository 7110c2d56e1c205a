//! From a data directory to engines that know what they knew.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc;
use std::{mem, thread};

use avocet_engine::{Command, Engine, Record, Restored, ShardId, ShardMessage};
use avocet_journal::{Journal, JournalError};
use avocet_session::{Now, UnixTime};
use avocet_store::{LogOptions, LogStore, OpenError, SyncError};

use crate::events;
use crate::refusals::Refusals;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the data directory {}: {reason}", dir.display())]
pub struct DataError {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    pub reason: DataErrorReason,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataErrorReason {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What it holds could not be read.
    #[error(transparent)]
    Read(#[from] JournalError),
    /// Nothing could be written to it.
    #[error(transparent)]
    Write(#[from] SyncError),
}

/// How much was restored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amounts {
    pub(crate) sessions: usize,
    pub(crate) subscriptions: usize,
    pub(crate) queued: u64,
    pub(crate) retained: usize,
    pub(crate) wills: usize,
}

impl Amounts {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the operator does not ask for the others"
    )]
    fn count(&mut self, restored: &Restored) {
        match restored {
            Restored::Session { queue, .. } => {
                self.sessions += 1;
                self.queued += queue.end.saturating_sub(queue.start);
            }
            Restored::Subscription { .. } => self.subscriptions += 1,
            Restored::Retained { .. } => self.retained += 1,
            Restored::Will { .. } => self.wills += 1,
            _ => {}
        }
    }
}

/// Opens the store in a directory, which is made when it is missing.
pub(crate) fn open(dir: &PathBuf) -> Result<Journal<LogStore>, DataErrorReason> {
    let store = LogStore::open_dir(dir, LogOptions::default())?;
    Ok(Journal::open(store)?)
}

/// Values that a shard is given at once, and how often before it has taken them.
const VALUES: usize = 512;
const AHEAD: usize = 8;

/// Reads what is stored on this thread, while each engine takes what is its own on another. Returns the
/// last time that was recorded too.
fn give_back(
    journal: &Journal<LogStore>,
    engines: &mut [Engine],
) -> Result<(Amounts, Option<UnixTime>), JournalError> {
    let shards = u16::try_from(engines.len()).unwrap_or(u16::MAX);
    let mut amounts = Amounts::default();
    let mut last = None;
    thread::scope(|scope| {
        let mut takers: Vec<_> = engines
            .iter_mut()
            .map(|engine| {
                let (sender, receiver) = mpsc::sync_channel::<Vec<Restored>>(AHEAD);
                scope.spawn(move || {
                    for restored in receiver.into_iter().flatten() {
                        engine.restore(restored);
                    }
                });
                (sender, Vec::new())
            })
            .collect();
        let give = |(sender, values): &mut (mpsc::SyncSender<_>, Vec<_>), restored| {
            values.push(restored);
            if values.len() >= VALUES {
                // One that is gone has panicked, and this thread does so at the end of the scope.
                let _ = sender.send(mem::take(values));
            }
        };
        journal.recover(|restored| {
            amounts.count(&restored);
            if let Restored::Time { at } = restored {
                last = Some(at);
            }
            match restored.shard(shards) {
                Some(shard) => {
                    if let Some(taker) = takers.get_mut(shard.index()) {
                        give(taker, restored);
                    }
                }
                None => {
                    for taker in &mut takers {
                        give(taker, restored.clone());
                    }
                }
            }
        })?;
        for (sender, values) in takers {
            let _ = sender.send(values);
        }
        Ok((amounts, last))
    })
}

/// Gives what is stored to the engines of all shards, and lets them agree on it.
pub(crate) fn restore(
    journal: &mut Journal<LogStore>,
    engines: &mut [Engine],
    now: Now,
) -> Result<Amounts, DataErrorReason> {
    let (amounts, last) = give_back(journal, engines)?;
    let last = last.map_or(now.unix, |last| last.max(now.unix));
    for engine in &mut *engines {
        engine.finish_restore(now);
    }
    settle(journal, engines, now)?;
    // A directory that cannot be written is refused before anybody relies on it.
    journal.apply(&[Record::Time { at: last }])?;
    journal.sync()?;
    Ok(amounts)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others are about connections, of which there are none"
)]
/// Runs what engines have for each other and for the store, until there is nothing more.
fn settle(
    journal: &mut Journal<LogStore>,
    engines: &mut [Engine],
    now: Now,
) -> Result<(), DataErrorReason> {
    let mut values: VecDeque<(usize, ShardId, ShardMessage)> = VecDeque::new();
    loop {
        let mut committed = vec![None; engines.len()];
        for (index, engine) in engines.iter_mut().enumerate() {
            let from = ShardId::new(u16::try_from(index).unwrap_or(u16::MAX));
            while let Some(command) = engine.poll_command() {
                match command {
                    Command::Commit { id, records, .. } => {
                        journal.apply(&records)?;
                        if let Some(committed) = committed.get_mut(index) {
                            *committed = Some(id);
                        }
                    }
                    Command::Fetch { session, from } => {
                        let (next, messages) = journal.fetch(&session, from)?;
                        engine.handle_fetched(&session, next, messages, now);
                    }
                    Command::ToShard { to, value } => values.push_back((to.index(), from, value)),
                    Command::Log(event) => events::log(&event, &Refusals::default(), now.instant),
                    _ => {}
                }
            }
        }
        if committed.iter().any(Option::is_some) {
            journal.sync()?;
        }
        let mut idle = true;
        for (engine, id) in engines.iter_mut().zip(committed) {
            if let Some(id) = id {
                engine.handle_committed(id, now);
                idle = false;
            }
        }
        for (to, from, value) in values.drain(..) {
            idle = false;
            if let Some(engine) = engines.get_mut(to) {
                engine.handle_from_shard(from, value, now);
            }
        }
        if idle {
            return Ok(());
        }
    }
}
