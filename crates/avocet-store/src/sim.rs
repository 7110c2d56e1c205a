//! A disk in memory that can lose power, fail syncs and be full.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vfs::{Vfs, VfsFile};

/// A [`Vfs`] whose disk keeps apart what programs see and what a power cut leaves.
///
/// Clones share the disk. Writes, changes of size and changes of names become durable when they
/// are synced; [`SimVfs::cut`] makes the disk that a power cut leaves.
#[derive(Clone, Debug, Default)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
}

/// An open file of a [`SimVfs`].
#[derive(Debug)]
pub struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    /// How many failed syncs of the file it has told of, or were before it was opened.
    told: AtomicU64,
}

/// Holds the lock of a [`SimVfs`] until it is dropped.
#[derive(Debug)]
pub struct SimLock {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    inodes: Vec<Inode>,
    locked: bool,
    /// Calls that change the disk or sync it.
    steps: u64,
    written_bytes: u64,
    syncs: u64,
    power_ends: Option<u64>,
    failing_syncs: u32,
    failing_flushes: u32,
    failing_writes: u32,
    failing_reads: u32,
    /// The number of the call that fails.
    failing_step: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Insert(String, usize),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// What a failed sync left behind: no later sync covers it.
    lost: Vec<Change>,
    failed_syncs: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Size(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = *offset as usize;
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(target) = bytes.get_mut(start..end) {
                    target.copy_from_slice(data);
                }
            }
            Self::Size(size) => bytes.resize(*size as usize, 0),
        }
    }

    /// Whether both write the same byte.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Write(offset, data), Self::Write(other, written)) => {
                *offset < other + written.len() as u64 && *other < offset + data.len() as u64
            }
            (Self::Size(_), _) | (_, Self::Size(_)) => false,
        }
    }

    /// How many ways there are for it to survive a power cut.
    fn fates(&self) -> usize {
        match self {
            Self::Write(..) => 8,
            Self::Size(_) => 2,
        }
    }

    /// What is left of it: all, nothing, its beginning or its end.
    fn survives(&self, fate: usize) -> Option<Self> {
        match (self, fate) {
            (_, 0) => Some(self.clone()),
            (_, 1) | (Self::Size(_), _) => None,
            (Self::Write(offset, data), 2..=4) => {
                let (first, _) = data.split_at(data.len() * (fate - 1) / 4);
                Some(Self::Write(*offset, first.to_vec()))
            }
            (Self::Write(offset, data), _) => {
                let (first, rest) = data.split_at(data.len() * fate.min(7).saturating_sub(4) / 4);
                Some(Self::Write(*offset + first.len() as u64, rest.to_vec()))
            }
        }
    }
}

impl Disk {
    fn step(&mut self) -> io::Result<()> {
        if self.power_ends.is_some_and(|end| self.steps >= end) {
            return Err(io::Error::other("the power is off"));
        }
        self.steps += 1;
        Ok(())
    }

    /// Whether the call that was counted last is the one to fail.
    fn fails(&self) -> bool {
        self.failing_step == Some(self.steps - 1)
    }

    /// Counts a call that only succeeds or fails.
    fn simple_step(&mut self) -> io::Result<()> {
        self.step()?;
        if self.fails() {
            return Err(broken());
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let files = self.names.values();
        let sizes = files.map(|inode| self.inodes.get(*inode).map_or(0, |i| i.live.len() as u64));
        sizes.sum()
    }

    /// Fails when a file that is `now` bytes long may not become `then` bytes long.
    fn room(&self, now: u64, then: u64) -> io::Result<()> {
        let more = then.saturating_sub(now);
        let full = self
            .capacity
            .is_some_and(|capacity| more > 0 && self.used() + more > capacity);
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&mut self, inode: usize) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(inode)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, inode: usize, change: Change) -> io::Result<()> {
        self.step()?;
        let now = self.inode(inode)?.live.len() as u64;
        let then = match &change {
            Change::Write(offset, data) => now.max(offset + data.len() as u64),
            Change::Size(size) => *size,
        };
        self.room(now, then)?;
        if let Change::Write(offset, data) = &change {
            let error = match self.failing_writes {
                0 => self.fails().then(broken),
                _ => Some(io::ErrorKind::StorageFull.into()),
            };
            self.failing_writes = self.failing_writes.saturating_sub(1);
            if let Some(error) = error {
                let partial = Change::Write(*offset, data.split_at(data.len() / 3).0.to_vec());
                let inode = self.inode(inode)?;
                partial.apply(&mut inode.live);
                inode.changes.push(partial);
                return Err(error);
            }
            self.written_bytes += data.len() as u64;
        } else if self.fails() {
            return Err(broken());
        }
        let inode = self.inode(inode)?;
        change.apply(&mut inode.live);
        inode.changes.push(change);
        Ok(())
    }
}

impl SimVfs {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// How many calls so far changed or synced something.
    pub fn steps(&self) -> u64 {
        self.disk().steps
    }

    /// How many bytes were written so far.
    pub fn written_bytes(&self) -> u64 {
        self.disk().written_bytes
    }

    /// How many syncs of files succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// How many bytes all files have together.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used()
    }

    /// Lets every call after the first `steps` fail, as if the power were off.
    pub fn end_power_after(&self, steps: u64) {
        self.disk().power_ends = Some(steps);
    }

    /// Lets the next `count` syncs of files fail. What they should have made durable may be lost
    /// even if a later sync succeeds, as on Linux.
    pub fn fail_syncs(&self, count: u32) {
        self.disk().failing_syncs = count;
    }

    /// Lets the next `count` syncs of files fail, of which nobody else is told who has the file open: the writes succeed,
    /// the flush of the disk does not.
    pub fn fail_flushes(&self, count: u32) {
        self.disk().failing_flushes = count;
    }

    /// Lets the next `count` writes fail for want of space, after a part of them was written.
    pub fn fail_writes(&self, count: u32) {
        self.disk().failing_writes = count;
    }

    /// Lets the next `count` reads fail.
    pub fn fail_reads(&self, count: u32) {
        self.disk().failing_reads = count;
    }

    /// Lets the one call fail that comes after `steps` others that change or sync something: what a sync
    /// should have made durable may be lost, of a write a part is done.
    pub fn fail_step(&self, steps: u64) {
        self.disk().failing_step = Some(steps);
    }

    /// Limits the bytes of all files together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Inverts one bit of a file, live and durable.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) {
        let mut disk = self.disk();
        let Some(inode) = disk.names.get(name).copied() else {
            return;
        };
        if let Ok(inode) = disk.inode(inode) {
            for bytes in [&mut inode.live, &mut inode.durable] {
                if let Some(byte) = bytes.get_mut(offset as usize) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// The disk that a power cut leaves. What was not synced has its fate chosen: `choose(n)` gives
    /// a number below `n` each time it is asked.
    pub fn cut(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let disk = self.disk();
        let mut names = disk.durable_names.clone();
        let kept = choose(disk.name_changes.len() + 1);
        for change in disk.name_changes.iter().take(kept) {
            match change {
                NameChange::Insert(name, inode) => {
                    names.insert(name.clone(), *inode);
                }
                NameChange::Remove(name) => {
                    names.remove(name);
                }
            }
        }
        let mut inodes = disk.inodes.clone();
        for (index, inode) in inodes.iter_mut().enumerate() {
            let mut bytes = std::mem::take(&mut inode.durable);
            if names.values().any(|named| *named == index) {
                for change in inode.lost.iter().chain(&inode.changes) {
                    if let Some(change) = change.survives(choose(change.fates())) {
                        change.apply(&mut bytes);
                    }
                }
            }
            *inode = Inode {
                live: bytes.clone(),
                durable: bytes,
                ..Inode::default()
            };
        }
        let disk = Disk {
            names: names.clone(),
            durable_names: names,
            inodes,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    fn file(&self, inode: usize) -> SimFile {
        let failed = lock(&self.disk)
            .inode(inode)
            .map(|inode| inode.failed_syncs);
        SimFile {
            disk: Arc::clone(&self.disk),
            inode,
            told: failed.unwrap_or(0).into(),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the disk failed")
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vfs for SimVfs {
    type File = SimFile;
    type Lock = SimLock;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.disk();
        disk.simple_step()?;
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), inode);
        disk.name_changes
            .push(NameChange::Insert(name.to_owned(), inode));
        drop(disk);
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.disk().names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.simple_step()?;
        let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), inode);
        disk.name_changes
            .push(NameChange::Insert(to.to_owned(), inode));
        disk.name_changes.push(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.simple_step()?;
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.simple_step()?;
        disk.durable_names = disk.names.clone();
        disk.name_changes.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<SimLock> {
        let mut disk = self.disk();
        if disk.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.locked = true;
        Ok(SimLock {
            disk: Arc::clone(&self.disk),
        })
    }

    fn random(&self) -> u64 {
        0x0005_1ba5_c0de_d00d
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = lock(&self.disk);
        if disk.failing_reads > 0 {
            disk.failing_reads -= 1;
            return Err(broken());
        }
        let live = &disk.inode(self.inode)?.live;
        let rest = live.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        for (target, byte) in buffer.iter_mut().zip(rest) {
            *target = *byte;
        }
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        lock(&self.disk).change(self.inode, Change::Write(offset, bytes.to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.step()?;
        let fails = disk.failing_syncs > 0 || disk.fails();
        disk.failing_syncs = disk.failing_syncs.saturating_sub(1);
        let alone = disk.failing_flushes > 0;
        disk.failing_flushes = disk.failing_flushes.saturating_sub(1);
        let inode = disk.inode(self.inode)?;
        inode.failed_syncs += u64::from(fails);
        // Each open file tells of it once, and writes what follows without a flush when it does.
        let told = self.told.swap(inode.failed_syncs, Ordering::Relaxed);
        let fails = fails || alone || told < inode.failed_syncs;
        let changes = std::mem::take(&mut inode.changes);
        if fails {
            inode.lost.extend(changes);
            return Err(broken());
        }
        for change in changes {
            // What is written again is not what an earlier sync may have lost.
            inode.lost.retain(|lost| !lost.overlaps(&change));
            change.apply(&mut inode.durable);
        }
        disk.syncs += 1;
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.disk).inode(self.inode)?.live.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        lock(&self.disk).change(self.inode, Change::Size(size))
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        lock(&self.disk).change(self.inode, Change::Size(size))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.disk).locked = false;
    }
}
