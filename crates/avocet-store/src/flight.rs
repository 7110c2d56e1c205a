//! Syncs that others do while the log goes on.
//!
//! Each has the file open for itself: a failure of the disk is told once to everybody who has a file open, and so
//! nobody's success can hide what somebody else was told.

use std::io;

use crate::active::sync_error;
use crate::chore::Dead;
use crate::log::{LogStore, file_name};
use crate::vfs::{Vfs, VfsFile};
use crate::{Position, SyncError};

/// How many syncs of a [`LogStore`] may be under way at once. It does more itself.
pub const SYNCS_MAX: usize = 4;

/// A sync of what a [`LogStore`] has written, which may be done on another thread while the store goes on. See
/// [`LogStore::begin_sync`].
#[derive(Debug)]
pub struct GroupSync<F> {
    file: F,
    segment: u32,
    /// What it makes durable ends here, and with this position.
    end: u32,
    position: Position,
    /// Segments of which it makes durable that they are dead.
    dead: Vec<Dead>,
}

/// What came of a [`GroupSync`].
#[derive(Debug)]
pub struct GroupSynced<F> {
    sync: GroupSync<F>,
    result: io::Result<()>,
}

impl<F: VfsFile> GroupSync<F> {
    /// The last position that it makes durable.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Does it, and comes back when it is done.
    pub fn run(self) -> GroupSynced<F> {
        let result = self.file.sync_data();
        GroupSynced { sync: self, result }
    }
}

impl<V: Vfs> LogStore<V> {
    /// Writes every batch committed so far, and gives the sync that makes them durable; `None` if they are: what
    /// cannot be left to others, as the first sync of a segment, is done at once. [`LogStore::end_sync`] takes what
    /// comes of it; syncs may end in any order. None may be dropped, or others will have to be waited for.
    pub fn begin_sync(&mut self) -> Result<Option<GroupSync<V::File>>, SyncError> {
        self.write_group()?;
        let file = if self.named && !self.must_sync() && self.active.unsynced() {
            self.open_again()
        } else {
            None
        };
        let Some(file) = file else {
            self.sync_groups()?;
            return Ok(None);
        };
        Ok(Some(GroupSync {
            file,
            segment: self.active.id,
            end: self.active.written_end(),
            position: self.written,
            dead: std::mem::take(&mut self.dead),
        }))
    }

    /// Takes what came of a sync: what it covers is durable, or the next sync writes it to another file.
    pub fn end_sync(&mut self, done: GroupSynced<V::File>) -> Result<Position, SyncError> {
        let GroupSynced { sync, result } = done;
        // Of another segment all is durable, or was written to this one.
        let failed = sync.segment == self.active.id && {
            if result.is_ok() {
                self.active.synced(sync.end);
                self.durable = self.durable.max(sync.position);
                self.active.others.push(sync.file);
            }
            result.is_err()
        };
        if failed {
            self.give_up();
        }
        if sync.position <= self.durable {
            self.removable.extend(sync.dead);
        } else {
            self.dead.extend(sync.dead);
        }
        match result {
            Err(error) if failed => Err(sync_error(&error)),
            Ok(()) | Err(_) => {
                self.do_chore();
                Ok(self.durable)
            }
        }
    }

    /// The file of the active segment, open once more, unless there is none left. All are opened before the first is
    /// used: one that is opened later is not told of what failed before.
    fn open_again(&mut self) -> Option<V::File> {
        if !self.active.opened {
            self.active.opened = true;
            let name = file_name(self.active.id);
            for _ in 0..SYNCS_MAX {
                // With fewer the store does more itself.
                self.active.others.extend(self.vfs.open(&name));
            }
        }
        self.active.others.pop()
    }
}
