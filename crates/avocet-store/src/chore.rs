//! Work on files that takes a while and that nothing waits for.

use std::io;
use std::sync::Arc;

use crate::log::{LogStore, file_name};
use crate::record::HEADER_LEN;
use crate::vfs::{Vfs, VfsFile};

/// The name of the file that becomes the next segment.
pub(crate) const SPARE: &str = "spare";

/// Work on the files of a [`LogStore`] that takes a while and that nothing waits for: it may be done on another
/// thread while the store goes on. See [`LogStore::chore`].
#[derive(Debug)]
pub struct Chore<V: Vfs> {
    vfs: V,
    task: Task,
}

/// What came of a [`Chore`].
#[derive(Debug)]
pub struct ChoreDone<F> {
    spare: Option<F>,
}

impl<V: Vfs> Chore<V> {
    /// Does it, and comes back when it is done. Whatever fails is made good later.
    pub fn run(self) -> ChoreDone<V::File> {
        let spare = self.task.run(&self.vfs);
        ChoreDone { spare }
    }
}

#[derive(Clone, Copy, Debug)]
enum Task {
    /// Removes the file of a segment.
    Remove { segment: u32 },
    /// Makes it the spare one.
    Reuse { segment: u32, bytes: u64 },
    /// Makes a new spare one.
    Make { bytes: u64 },
}

impl Task {
    /// The spare file, if there is a new one.
    fn run<V: Vfs>(self, vfs: &V) -> Option<V::File> {
        let made = match self {
            Self::Remove { segment } => {
                // What stays is removed when the store is opened.
                let _ = vfs.remove(&file_name(segment));
                return None;
            }
            Self::Reuse { segment, bytes } => reuse(vfs, segment, bytes).inspect_err(|_| {
                let _ = vfs.remove(&file_name(segment));
            }),
            Self::Make { bytes } => vfs.create(SPARE).and_then(|file| prepare(file, bytes)),
        };
        let failed = |_: &io::Error| {
            let _ = vfs.remove(SPARE);
        };
        made.inspect_err(failed).ok()
    }
}

/// A file that was written before takes syncs that need not say where its bytes are, and costs no
/// removal.
fn reuse<V: Vfs>(vfs: &V, segment: u32, bytes: u64) -> io::Result<V::File> {
    vfs.rename(&file_name(segment), SPARE)?;
    // As long as it may have its old name after a crash it has to be what it was.
    vfs.sync_dir()?;
    let file = vfs.open(SPARE)?;
    file.write_at(0, &[0; HEADER_LEN as usize])?;
    prepare(file, bytes)
}

fn prepare<F: VfsFile>(file: F, bytes: u64) -> io::Result<F> {
    if file.size()? < bytes {
        file.preallocate(bytes)?;
    }
    file.sync_data()?;
    Ok(file)
}

/// A segment whose file is not needed any longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dead {
    pub(crate) segment: u32,
    /// Whether it is worth using again.
    pub(crate) useful: bool,
}

/// Who does the chores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chores {
    /// [`crate::Store::maintain`].
    Own,
    /// Somebody who has none.
    Idle,
    /// Somebody who has one.
    Busy,
}

impl<V: Vfs> LogStore<V> {
    /// Something to do, if there is something; [`LogStore::end_chore`] takes what comes of it, and only then
    /// there is more. Who asks for the first time does all from then on; [`crate::Store::maintain`] did. None may be
    /// done after the store is closed.
    pub fn chore(&mut self) -> Option<Chore<V>>
    where
        V: Clone,
    {
        if self.chores == Chores::Busy {
            return None;
        }
        self.chores = Chores::Idle;
        let task = self.next_task()?;
        self.chores = Chores::Busy;
        let vfs = self.vfs.clone();
        Some(Chore { vfs, task })
    }

    /// Takes what came of a chore.
    pub fn end_chore(&mut self, done: ChoreDone<V::File>) {
        self.chores = Chores::Idle;
        self.spare = self.spare.take().or(done.spare);
    }

    /// Does one chore, unless somebody else does them: removing a file may take the system long.
    pub(crate) fn do_chore(&mut self) {
        if self.chores == Chores::Own
            && let Some(task) = self.next_task()
        {
            let spare = task.run(&self.vfs);
            self.spare = self.spare.take().or(spare);
        }
    }

    /// Whether there is one to do for [`crate::Store::maintain`].
    pub(crate) fn has_chore(&self) -> bool {
        self.chores == Chores::Own && !self.removable.is_empty()
    }

    fn next_task(&mut self) -> Option<Task> {
        let bytes = self.options.segment_bytes.into();
        if let Some(Dead { segment, useful }) = self.removable.pop_front() {
            // A snapshot may still read it.
            let useful = useful && self.spare.is_none() && Arc::strong_count(&self.read) == 1;
            return Some(if useful {
                Task::Reuse { segment, bytes }
            } else {
                Task::Remove { segment }
            });
        }
        // Who has no other thread for it makes it when it is needed.
        let wanted = self.chores == Chores::Idle && self.spare.is_none() && self.is_half_full();
        wanted.then_some(Task::Make { bytes })
    }

    /// The spare file, under the name of a segment.
    pub(crate) fn take_spare(&mut self, name: &str) -> Option<V::File> {
        let file = self.spare.take()?;
        if self.vfs.rename(SPARE, name).is_err() {
            let _ = self.vfs.remove(SPARE);
            return None;
        }
        Some(file)
    }
}
