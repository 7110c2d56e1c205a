//! How much memory the process uses, and whether that is too much for new load.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::inbox::{Inbox, Mail};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the memory until it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryWatch(#[expect(dead_code, reason = "its drop ends the thread")] Sender<()>);

impl MemoryWatch {
    /// None where the system does not tell how much memory the process has.
    pub(crate) fn start(max: u64, inboxes: &Arc<[Arc<Inbox>]>) -> io::Result<Option<Self>> {
        let max = if max > 0 { Some(max) } else { four_fifths() };
        let (Some(max), Some(_)) = (max, used()) else {
            return Ok(None);
        };
        let inboxes = Arc::clone(inboxes);
        let (stop, stopped) = channel();
        thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || {
                let mut gauge = Gauge {
                    max,
                    overloaded: false,
                };
                loop {
                    if let Some(overloaded) = used().and_then(|used| gauge.read(used)) {
                        for inbox in &*inboxes {
                            inbox.send(Mail::Overloaded(overloaded));
                        }
                    }
                    if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Some(Self(stop)))
    }
}

/// Where the line is, with some way back.
struct Gauge {
    max: u64,
    overloaded: bool,
}

impl Gauge {
    /// Whether there is too little memory, if that has changed.
    fn read(&mut self, used: u64) -> Option<bool> {
        let line = if self.overloaded {
            self.max / 10 * 9
        } else {
            self.max
        };
        let overloaded = used > line;
        if overloaded == self.overloaded {
            return None;
        }
        self.overloaded = overloaded;
        let (used, max) = (used >> 20, self.max >> 20);
        if overloaded {
            warn!("{used} MiB of memory are used, {max} MiB may be: new load is refused");
        } else {
            info!("{used} MiB of memory are used: new load is taken again");
        }
        Some(overloaded)
    }
}

/// Bytes of memory that the process uses, as far as the system tells.
fn used() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Four fifths of what the machine has, or its container.
fn four_fifths() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kibibytes(&text, "MemTotal:"));
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok());
    let all = machine.into_iter().chain(container).min()?;
    Some(all / 5 * 4)
}

/// The value of a line such as `VmRSS:  1234 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number = line.trim().strip_suffix("kB")?;
    number.trim().parse::<u64>().ok().map(|count| count << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_taken_again_once_there_is_some_room() {
        let mut gauge = Gauge {
            max: 1_000,
            overloaded: false,
        };
        for (used, changed) in [
            (1_000, None),
            (1_001, Some(true)),
            (2_000, None),
            (950, None),
            (901, None),
            (900, Some(false)),
            (1_000, None),
        ] {
            assert_eq!(gauge.read(used), changed, "{used}");
        }
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let text = "Name:\tavocet\nVmRSS:\t   12 kB\nThreads: 3\n";
        assert_eq!(kibibytes(text, "VmRSS:"), Some(12 << 10));
        assert_eq!(kibibytes(text, "Threads:"), None);
        assert_eq!(kibibytes("", "VmRSS:"), None);
    }
}
