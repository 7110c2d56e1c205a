//! `avocet-broker store`: looking at, copying and making data directories.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use avocet_broker::{BackupError, backup};
use avocet_engine::{Restored, SessionKey};
use avocet_journal::Journal;
use avocet_store::{LogOptions, LogStore, OpenError, check};

use crate::arguments::StoreAction;

/// Does what was asked for, and says what came of it.
pub(crate) fn run(action: &StoreAction) -> ExitCode {
    let (dir, result) = match action {
        StoreAction::Check { dir } => (dir, read_through(dir)),
        StoreAction::Tenants { dir } => (dir, tenants(dir).map(|()| true)),
        StoreAction::Export { dir } => (dir, export(dir).map(|()| true)),
        StoreAction::Import { dir } => (dir, import(dir).map(|()| true)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("avocet-broker: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// Opening makes what is missing: not what is only to be read.
fn expect_folder(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        Ok(())
    } else {
        anyhow::bail!("not a folder")
    }
}

/// Tells what is in a data directory, file by file; true if all of it is sound.
fn read_through(dir: &Path) -> anyhow::Result<bool> {
    expect_folder(dir)?;
    let report = match check(dir) {
        Err(error @ OpenError::Locked) => anyhow::bail!("{error}: stop it first"),
        checked => checked?,
    };
    for segment in &report.segments {
        let footer = if segment.footer { "" } else { ", no footer" };
        println!(
            "{}: {} records, {} bytes{footer}",
            segment.file, segment.records, segment.data_bytes
        );
        for problem in &segment.problems {
            println!("{}: {problem}", segment.file);
        }
    }
    for lost in &report.lost {
        println!("lost: {lost}");
    }
    if report.is_sound() {
        println!("the data directory is sound");
    } else {
        println!("the data directory is damaged: restore it from a backup");
    }
    Ok(report.is_sound())
}

/// What is stored of a tenant.
#[derive(Default)]
struct Stored {
    sessions: u64,
    subscriptions: u64,
    queued: u64,
    retained: u64,
}

/// Tells how much is stored of each tenant, those without one first.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "nothing else is counted by tenant"
)]
fn tenants(dir: &Path) -> anyhow::Result<()> {
    expect_folder(dir)?;
    let store = LogStore::open_dir(dir, LogOptions::default()).map_err(advise)?;
    let journal = Journal::open(store)?;
    let mut tenants: BTreeMap<String, Stored> = BTreeMap::new();
    journal.recover(|restored| {
        let mut of = |key: Option<&SessionKey>, count: fn(&mut Stored) -> &mut u64, more: u64| {
            let tenant = key.map_or("", SessionKey::tenant).to_owned();
            *count(tenants.entry(tenant).or_default()) += more;
        };
        match &restored {
            Restored::Session { session, queue, .. } => {
                of(Some(session), |it| &mut it.sessions, 1);
                let queued = queue.end.saturating_sub(queue.start);
                of(Some(session), |it| &mut it.queued, queued);
            }
            Restored::Subscription { session, .. } => {
                of(Some(session), |it| &mut it.subscriptions, 1);
            }
            Restored::Retained { publisher, .. } => {
                of(publisher.as_deref(), |it| &mut it.retained, 1);
            }
            _ => {}
        }
    })?;
    journal.into_store().close()?;
    for (tenant, stored) in tenants {
        let name = if tenant.is_empty() {
            "no tenant"
        } else {
            &tenant
        };
        println!(
            "{name}: {} sessions, {} subscriptions, {} queued messages, {} retained messages",
            stored.sessions, stored.subscriptions, stored.queued, stored.retained
        );
    }
    Ok(())
}

fn export(dir: &Path) -> anyhow::Result<()> {
    expect_folder(dir)?;
    let out = io::stdout().lock();
    if out.is_terminal() {
        anyhow::bail!("an export is not for a terminal; send it to a file");
    }
    let mut out = BufWriter::new(out);
    let exported = match backup(dir, &mut out) {
        // Nobody uses the directory.
        Err(BackupError::NoBroker) => {
            let opened = LogStore::open_dir(dir, LogOptions::default());
            let mut store = opened.map_err(advise)?;
            let exported = store.snapshot()?.export(&mut out)?;
            out.flush()?;
            exported
        }
        answered => answered?,
    };
    eprintln!(
        "exported {} keys, {} queues with {} entries, {} messages",
        exported.keys, exported.queues, exported.entries, exported.blobs
    );
    Ok(())
}

fn advise(error: OpenError) -> anyhow::Error {
    if error == OpenError::Locked {
        return anyhow::anyhow!(
            "{error}, which does not answer: if it is a broker that starts, try again when it listens; \
             else stop it, and export again"
        );
    }
    error.into()
}

fn import(dir: &Path) -> anyhow::Result<()> {
    let input = BufReader::new(io::stdin().lock());
    let store = LogStore::import_dir(dir, LogOptions::default(), input)?;
    store.close()?;
    Ok(())
}
