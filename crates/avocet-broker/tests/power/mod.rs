//! A file system whose power can be cut: what it had not written is gone, as with a disk.

use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_BYTES: &str = "1G";

/// A file system in a file, mounted.
pub(crate) struct Disk {
    image: PathBuf,
    path: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("power cannot be cut here: {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "power cannot be cut here: {program} {arguments:?}: {said}"
    ))
}

impl Disk {
    /// Makes and mounts a file system of a kind: ext4 or xfs.
    pub(crate) fn create(dir: &Path, kind: &str) -> Result<Self, String> {
        let path = dir.join("mounted");
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let disk = Self {
            image: dir.join("image"),
            path,
        };
        run("truncate", &["-s", IMAGE_BYTES, disk.image()])?;
        run(&format!("mkfs.{kind}"), &["-q", disk.image()])?;
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn image(&self) -> &str {
        self.image.to_str().unwrap()
    }

    fn mounted(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", self.image(), self.mounted()])
    }

    /// Nothing more is written, not even what the file system's own log holds in memory. The process that
    /// writes stops before, since nobody lives to hear what a system says that has no power.
    pub(crate) fn cut_power(&self, process: u32) -> Result<(), String> {
        // The shell has `kill` built in.
        run("sh", &["-c", &format!("kill -STOP {process}")])?;
        while runs(process) {
            std::thread::yield_now();
        }
        run("xfs_io", &["-x", "-c", "shutdown", self.mounted()])
    }

    /// What was written is there again.
    pub(crate) fn mount_again(&self) -> Result<(), String> {
        run("umount", &[self.mounted()])?;
        self.mount()
    }

    pub(crate) fn remove(&self) -> Result<(), String> {
        run("umount", &[self.mounted()])
    }
}

/// Whether a thread of a process runs: it is neither stopped nor waits for the disk.
fn runs(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let states = tasks.into_iter().flatten().flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    });
    states.into_iter().any(|state| !matches!(state, 'T' | 'D'))
}
