//! What a process costs: CPU time and memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The CPU time that processes had used at one moment.
#[derive(Clone, Debug, Default)]
struct Usage {
    /// CPU time of all threads, in user and system mode.
    cpu: Duration,
    /// CPU time of each thread that lives, by its directory: finer than that of the process.
    threads: Vec<(PathBuf, Duration)>,
}

impl Usage {
    /// The CPU time from `earlier` to this moment, in nanoseconds. Threads are added up if they are
    /// the same ones; otherwise the process, which the system counts in steps of 10 ms, knows what
    /// ended threads used.
    fn cpu_since(&self, earlier: &Self) -> u64 {
        let paths = |usage: &Self| -> Vec<PathBuf> {
            usage.threads.iter().map(|(path, _)| path.clone()).collect()
        };
        let sum = |usage: &Self| usage.threads.iter().map(|(_, cpu)| *cpu).sum::<Duration>();
        let time = if !self.threads.is_empty() && paths(self) == paths(earlier) {
            sum(self).saturating_sub(sum(earlier))
        } else {
            self.cpu.saturating_sub(earlier.cpu)
        };
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What everybody had used at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    server: Option<Usage>,
    own: u64,
    machine: Option<u64>,
}

/// What everybody used between two moments: CPU time in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// If the server's processes are known.
    pub(crate) server: Option<u64>,
    pub(crate) own: u64,
    /// What neither the server nor this process used, if both are known.
    pub(crate) other: Option<u64>,
}

impl Moment {
    /// This moment, with the server's processes.
    ///
    /// # Errors
    ///
    /// The process that cannot be read, and why.
    pub(crate) fn now(pids: &[u32]) -> Result<Self, String> {
        Ok(Self {
            server: (!pids.is_empty()).then(|| of_processes(pids)).transpose()?,
            own: own_cpu(),
            machine: of_machine(),
        })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let both = |now: &Self| Some((now.machine?, earlier.machine?));
        let server = self.server.as_ref().zip(earlier.server.as_ref());
        let server = server.map(|(now, earlier)| now.cpu_since(earlier));
        let own = self.own - earlier.own;
        let machine = both(self).map(|(now, earlier)| now.saturating_sub(earlier));
        Used {
            server,
            own,
            other: machine
                .zip(server)
                .map(|(machine, server)| machine.saturating_sub(server + own)),
        }
    }
}

/// The CPU time that these processes have used, added up.
///
/// # Errors
///
/// The process that cannot be read, and why.
fn of_processes(pids: &[u32]) -> Result<Usage, String> {
    let mut usage = Usage::default();
    for pid in pids {
        add_process(&mut usage, *pid).map_err(|why| format!("--broker-pid {pid}: {why}"))?;
    }
    Ok(usage)
}

/// The resident memory of these processes in bytes, added up. Reading it holds a process up for a
/// moment, so it is no business of a measured time.
///
/// # Errors
///
/// The process that cannot be read, and why.
pub(crate) fn resident(pids: &[u32]) -> Result<u64, String> {
    let mut bytes = 0;
    for pid in pids {
        let root = PathBuf::from(format!("/proc/{pid}"));
        bytes += resident_of(&root).map_err(|why| format!("--broker-pid {pid}: {why}"))?;
    }
    Ok(bytes)
}

/// The CPU time in nanoseconds that everything on this machine has used, in steps of 10 ms; nothing
/// where the system does not tell.
fn of_machine() -> Option<u64> {
    busy_ticks(&fs::read_to_string("/proc/stat").ok()?).map(from_ticks)
}

/// User, nice and system time, and that of interrupts, out of `/proc/stat`, in clock ticks.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Option<Vec<u64>> = line.split_whitespace().map(|it| it.parse().ok()).collect();
    match *ticks? {
        [user, nice, system, _idle, _waiting, hard, soft, ..] => {
            Some(user + nice + system + hard + soft)
        }
        _ => None,
    }
}

#[cfg(unix)]
fn from_ticks(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(not(unix))]
fn from_ticks(ticks: u64) -> u64 {
    ticks.saturating_mul(10_000_000)
}

/// CPU time of this process.
#[cfg(unix)]
fn own_cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CPU time of this process: not known here.
#[cfg(not(unix))]
fn own_cpu() -> u64 {
    0
}

#[cfg(target_os = "linux")]
fn add_process(usage: &mut Usage, pid: u32) -> Result<(), String> {
    let root = PathBuf::from(format!("/proc/{pid}"));
    let stat = read(&root.join("stat"))?;
    let ticks = cpu_ticks(&stat).ok_or("/proc has no CPU time")?;
    usage.cpu += Duration::from_nanos(from_ticks(ticks));
    let mut threads: Vec<_> = fs::read_dir(root.join("task"))
        .map_err(|error| error.to_string())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    threads.sort();
    for path in threads {
        // A thread may end meanwhile.
        let nanoseconds = read(&path.join("schedstat"))
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok());
        if let Some(nanoseconds) = nanoseconds {
            usage
                .threads
                .push((path, Duration::from_nanos(nanoseconds)));
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn add_process(_usage: &mut Usage, _pid: u32) -> Result<(), String> {
    Err("only Linux tells what another process uses".into())
}

/// User and system time out of `/proc/PID/stat`, in clock ticks.
#[cfg(any(target_os = "linux", test))]
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory in bytes; exact where the system can add it up, and nearly so elsewhere.
fn resident_of(root: &Path) -> Result<u64, String> {
    let text = read(&root.join("smaps_rollup")).or_else(|_| read(&root.join("status")))?;
    let line = text.lines().find_map(|line| {
        line.strip_prefix("Rss:")
            .or_else(|| line.strip_prefix("VmRSS:"))
    });
    let kilobytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| "/proc has no memory".into())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_time_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 1 0 100 1000 50";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn a_machine_is_busy_when_it_does_not_wait() {
        let stat = "cpu  100 20 30 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(busy_ticks(stat), Some(163));
        assert_eq!(busy_ticks("cpu  1 2"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        assert!(resident(&[pid]).unwrap() > 100_000);
        let before = of_processes(&[pid]).unwrap();
        let started = own_cpu();
        while own_cpu() - started < 20_000_000 {}
        let after = of_processes(&[pid]).unwrap();
        assert!(after.cpu_since(&before) >= 10_000_000);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn says_which_process_is_not_there() {
        let error = of_processes(&[u32::MAX]).unwrap_err();
        assert!(error.starts_with("--broker-pid 4294967295: "), "{error}");
    }
}
