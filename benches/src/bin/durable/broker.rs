//! A broker that runs as a process of its own, and what Linux says that it used.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

pub(crate) struct Broker {
    child: Child,
    pub(crate) port: u16,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) cpu: f64,
    pub(crate) rss_mib: f64,
    pub(crate) written: u64,
}

impl Used {
    /// Of the process with this id, or `self`.
    pub(crate) fn of(process: &str) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
        let ticks = |at: usize| -> Option<f64> { fields.split_whitespace().nth(at)?.parse().ok() };
        let field = |text: &str, name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Ok(Self {
            cpu: ticks(11)
                .zip(ticks(12))
                .map_or(0.0, |(u, s)| (u + s) / 100.0),
            rss_mib: field(&read("status")?, "VmRSS:").unwrap_or(0) as f64 / 1024.0,
            written: field(&read("io")?, "write_bytes:").unwrap_or(0),
        })
    }
}

impl Broker {
    /// Starts a broker, with all in memory unless it has a data directory, and waits until it accepts connections.
    /// Returns how long that took too.
    pub(crate) fn start(program: &Path, dir: Option<&Path>) -> Result<(Self, Duration)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let start = Instant::now();
        let mut command = Command::new(program);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        if let Some(dir) = dir {
            command.arg("--data-dir").arg(dir);
        }
        let child = command
            .env("AVOCET_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the broker does not start")?;
        let mut broker = Self { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(broker.child.try_wait()?.is_none(), "the broker ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok((broker, start.elapsed()))
    }

    pub(crate) fn used(&self) -> Result<Used> {
        Used::of(&self.child.id().to_string())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the broker ended with {ended}");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
