//! How much memory the process uses, and whether that is too much for new load.

use std::fs;
use std::io;
use std::path::Path;
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
            warn!("the system does not say how much memory there is: load is taken without bound");
            return Ok(None);
        };
        let inboxes = Arc::clone(inboxes);
        let (stop, stopped) = channel();
        thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || {
                let mut gauge = Gauge::new(max);
                loop {
                    let held = inboxes.iter().map(|inbox| inbox.held()).sum();
                    if let Some(overloaded) = used().and_then(|used| gauge.read(used, held)) {
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
///
/// What is given back goes to the allocator, which keeps pages that the system goes on counting. So of what
/// the shards hold no more, that counts as free which the process had grown by when they took it and which
/// the system has not got back: new load takes that first.
struct Gauge {
    max: u64,
    overloaded: bool,
    /// What the process had, and the shards held, the last time.
    last: Option<(u64, u64)>,
    /// What the process has grown by, or had free, for what the shards hold.
    backed: u64,
    /// Bytes of the process that nobody holds.
    free: u64,
}

impl Gauge {
    const fn new(max: u64) -> Self {
        Self {
            max,
            overloaded: false,
            last: None,
            backed: 0,
            free: 0,
        }
    }

    /// Whether there is too little memory, if that has changed. The process has `resident` bytes, of which
    /// the shards hold about `held`.
    fn read(&mut self, resident: u64, held: u64) -> Option<bool> {
        self.estimate(resident, held);
        let used = resident.saturating_sub(self.free);
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

    fn estimate(&mut self, resident: u64, held: u64) {
        let Some((resident_before, held_before)) = self.last.replace((resident, held)) else {
            return;
        };
        let grown = resident.saturating_sub(resident_before);
        let shrunk = resident_before.saturating_sub(resident);
        if held >= held_before {
            // What waits for several clients is held once, and counted for each.
            let more = held - held_before;
            let of_free = more.min(self.free);
            self.backed += more.min(of_free + grown);
            self.free -= of_free;
            // Somebody else has taken the rest of what the process has grown by.
            let rest = grown.saturating_sub(more - of_free);
            self.free = self.free.saturating_sub(rest);
        } else {
            let share = u128::from(self.backed) * u128::from(held_before - held);
            let less = share / u128::from(held_before);
            // What is held still may be what the process has.
            let most = self.backed.saturating_sub(held);
            let less = u64::try_from(less).unwrap_or(u64::MAX).min(most);
            self.backed -= less;
            self.free = (self.free + less).saturating_sub(grown);
        }
        self.free = self.free.saturating_sub(shrunk);
    }
}

/// Bytes of memory that the process uses, as far as the system tells.
fn used() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Four fifths of what the machine has, or the least that a control group around the process may have.
fn four_fifths() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let all = machine().into_iter().chain(group_max(&own)).min()?;
    Some(all / 5 * 4)
}

/// All memory of the machine.
fn machine() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // Also where a service does not see all of /proc.
        let known = rustix::system::sysinfo();
        let unit = u64::from(known.mem_unit).max(1);
        Some((known.totalram as u64).saturating_mul(unit))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The least that one of the control groups of such a list (`0::/a/b`) may have.
fn group_max(list: &str) -> Option<u64> {
    let path = list.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(path.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let max = |group: &Path| -> Option<u64> {
        let text = fs::read_to_string(group.join("memory.max")).ok()?;
        text.trim().parse().ok()
    };
    groups.filter_map(max).min()
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
        let mut gauge = Gauge::new(1_000);
        for (used, changed) in [
            (1_000, None),
            (1_001, Some(true)),
            (2_000, None),
            (950, None),
            (901, None),
            (900, Some(false)),
            (1_000, None),
        ] {
            assert_eq!(gauge.read(used, 0), changed, "{used}");
        }
    }

    /// Whether the process is overloaded after each of these.
    fn readings(readings: &[(u64, u64)]) -> Vec<bool> {
        let mut gauge = Gauge::new(1_000);
        let readings = readings.iter().map(|(resident, held)| {
            gauge.read(*resident, *held);
            gauge.overloaded
        });
        readings.collect()
    }

    #[test]
    fn load_is_taken_again_although_the_allocator_keeps_what_it_got_back() {
        // It grows with its queues, is overloaded, and they are drained while it stays as large.
        let (yes, no) = (true, false);
        let drained = readings(&[
            (100, 0),
            (600, 400),
            (1_100, 800),
            (1_101, 700),
            (1_101, 500),
        ]);
        assert_eq!(drained, [no, no, yes, yes, no]);
        // The next load takes what is free, and then more.
        let again = readings(&[
            (100, 0),
            (1_100, 900),
            (1_100, 0),
            (1_100, 900),
            (1_100, 0),
            (1_200, 950),
        ]);
        assert_eq!(again, [no, yes, no, yes, no, yes]);
        // What was held from the beginning may lie on disk.
        let on_disk = readings(&[(950, 9_000), (950, 1_000), (950, 0), (1_050, 100)]);
        assert_eq!(on_disk, [no, no, no, yes]);
        // What waits for one of many clients is there as long as for all.
        let one_is_left = readings(&[(100, 0), (1_100, 90_000), (1_100, 1_000)]);
        assert_eq!(one_is_left, [no, yes, yes]);
        // What the system gets back is free no more.
        let returned = readings(&[(100, 0), (1_100, 900), (300, 0), (1_050, 0)]);
        assert_eq!(returned, [no, yes, no, yes]);
        // Something else takes what was free.
        let taken = readings(&[(100, 0), (1_100, 900), (1_900, 0)]);
        assert_eq!(taken, [no, yes, yes]);
    }

    #[test]
    fn what_was_held_once_and_counted_often_does_not_count_as_often_when_it_is_gone() {
        // A message for many: the process grows by 50, and 100,000 more are held.
        let counted = readings(&[(900, 0), (950, 100_000), (950, 0), (990, 0), (1_001, 0)]);
        assert_eq!(counted, [false, false, false, false, true]);
        let at_the_start = readings(&[(900, 10_000_000), (2_000, 10_000_000), (2_000, 9_990_000)]);
        assert_eq!(at_the_start, [false, true, true]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn there_is_a_line_without_a_setting() {
        let (used, line) = (used().unwrap(), four_fifths().unwrap());
        assert!(0 < used && used < line, "{used} of {line}");
        assert_eq!(group_max("0::/no/such/group/../../.."), None);
        assert_eq!(group_max("1:cpu:/\n"), None);
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let text = "Name:\tavocet\nVmRSS:\t   12 kB\nThreads: 3\n";
        assert_eq!(kibibytes(text, "VmRSS:"), Some(12 << 10));
        assert_eq!(kibibytes(text, "Threads:"), None);
        assert_eq!(kibibytes("", "VmRSS:"), None);
    }
}
