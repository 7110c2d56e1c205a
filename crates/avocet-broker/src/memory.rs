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
