//! Certificates while the broker runs: files that change are read again, and the operator is told
//! in good time that one expires.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use avocet_session::{Instant, UnixTime};
use avocet_transport::{Expiring, TlsAcceptor, TlsError};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::doors::Doors;

/// How often files are looked at. They are read again once they have stayed the same for so long,
/// so that a certificate and its key may be replaced one after the other.
const LOOK: Duration = Duration::from_secs(1);

/// How long before its end a certificate is told of. A revocation list is told of after its end only: many
/// are made for a few days.
const WARN_DAYS: i64 = 21;

const DAY: i64 = 86_400;

/// How often certificates that end soon are told of.
const TELL: Duration = Duration::from_secs(DAY as u64);

/// Watches the files of all listeners until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _end: Sender<()>,
}

impl Watch {
    /// None when no listener speaks TLS.
    pub(crate) fn start(doors: &Doors, clock: Clock) -> io::Result<Option<Self>> {
        let acceptors = acceptors(doors);
        if acceptors.is_empty() {
            return Ok(None);
        }
        let (end, ended) = channel();
        let mut watched: Vec<_> = acceptors.into_iter().map(Watched::new).collect();
        thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || watch(&mut watched, clock, &ended))?;
        Ok(Some(Self { _end: end }))
    }
}

fn acceptors(doors: &Doors) -> Vec<Arc<TlsAcceptor>> {
    let acceptors = doors.iter().filter_map(|door| door.layers.tls.as_ref());
    acceptors.map(Arc::clone).collect()
}

/// Reads the files of all listeners again; those of a listener hold together, or not at all. Of
/// certificates that have ended, or end soon, it tells at once.
pub(crate) fn reload(doors: &Doors, now: UnixTime) -> Result<usize, TlsError> {
    let acceptors = acceptors(doors);
    let mut first = Ok(());
    for acceptor in &acceptors {
        if let Err(error) = acceptor.reload()
            && let Err(later) = std::mem::replace(&mut first, Err(error))
        {
            first = Err(later);
        }
    }
    tell(acceptors.iter(), now);
    first.map(|()| acceptors.len())
}

/// What tells that a file is another one: when it was changed, its length, and its number.
type Mark = Option<(SystemTime, u64, u64)>;

struct Watched {
    acceptor: Arc<TlsAcceptor>,
    /// The files as they were when they were read.
    read: HashMap<PathBuf, Mark>,
    /// As they were the last time they were looked at.
    seen: HashMap<PathBuf, Mark>,
}

impl Watched {
    fn new(acceptor: Arc<TlsAcceptor>) -> Self {
        let read = marks(&acceptor);
        let seen = read.clone();
        Self {
            acceptor,
            read,
            seen,
        }
    }

    fn look(&mut self, now: UnixTime) {
        let marks = marks(&self.acceptor);
        let settled = marks == self.seen;
        self.seen.clone_from(&marks);
        if !settled || marks == self.read {
            return;
        }
        self.read = marks;
        match self.acceptor.reload() {
            Ok(()) => {
                info!("certificates were read again, as their files have changed");
                tell([&self.acceptor], now);
            }
            Err(error) => error!("certificates stay as they were: {error}"),
        }
    }
}

fn marks(acceptor: &TlsAcceptor) -> HashMap<PathBuf, Mark> {
    let mark = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let number = 0;
        Some((found.modified().ok()?, found.len(), number))
    };
    let files = acceptor.files();
    files.map(|path| (path.clone(), mark(path))).collect()
}

fn watch(watched: &mut [Watched], clock: Clock, ended: &Receiver<()>) {
    let mut daily = Daily(Instant::ORIGIN);
    loop {
        let now = clock.now();
        if daily.is_due(now.instant) {
            tell(watched.iter().map(|it| &it.acceptor), now.unix);
        }
        if ended.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        for watched in &mut *watched {
            watched.look(now.unix);
        }
    }
}

/// When certificates are told of next.
struct Daily(Instant);

impl Daily {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0 <= now;
        if due {
            self.0 = now + TELL;
        }
        due
    }
}

/// Tells of what has ended or ends soon.
fn tell<'a>(acceptors: impl IntoIterator<Item = &'a Arc<TlsAcceptor>>, now: UnixTime) {
    let now = i64::try_from(now.as_millis() / 1_000).unwrap_or(i64::MAX);
    let mut told = Vec::new();
    let acceptors = acceptors.into_iter();
    for expiry in acceptors.flat_map(|acceptor| acceptor.expiries()) {
        if told.contains(&expiry) {
            continue;
        }
        let (path, day) = (expiry.path.display(), date(expiry.end - 1));
        let (what, soon) = match &expiry.of {
            Expiring::Certificate => (format!("the certificate {path}"), WARN_DAYS),
            Expiring::Authority(name) => (format!("the authority {name} in {path}"), WARN_DAYS),
            Expiring::RevocationList => (format!("a revocation list in {path}"), 0),
            _ => continue,
        };
        let left = expiry.end - now;
        if left <= 0 {
            error!("{what} has expired on {day}");
        } else if left <= soon * DAY {
            warn!("{what} expires on {day}, in {} days", left / DAY);
        }
        told.push(expiry);
    }
}

/// The day of a time in seconds since 1970, in UTC and the Gregorian calendar.
fn date(seconds: i64) -> String {
    // A year begins in March here, so that the leap day is its last.
    let days = seconds.div_euclid(DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 {
        (month + 3, year)
    } else {
        (month - 9, year + 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_told_of_once_a_day() {
        let mut daily = Daily(Instant::ORIGIN);
        let start = Instant::ORIGIN + LOOK;
        assert!(daily.is_due(start));
        assert!(!daily.is_due(start + LOOK));
        assert!(!daily.is_due(start + (TELL - LOOK)));
        assert!(daily.is_due(start + TELL));
        assert!(!daily.is_due(start + TELL + LOOK));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_825_600, "2000-02-29"),
            (1_930_089_599, "2031-02-28"),
            (253_402_300_799, "9999-12-31"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
