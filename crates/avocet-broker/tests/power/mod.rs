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

    /// Nothing more is written, not even what the file system's own log holds in memory.
    pub(crate) fn cut_power(&self) -> Result<(), String> {
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
