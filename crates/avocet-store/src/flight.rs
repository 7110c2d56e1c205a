//! Syncs that others do while the log goes on.
//!
//! One counts once all that began before it have ended well: the flush of a disk that failed is told to nobody but who
//! asked for it. And each has the file open for itself: a write that failed is told once to everybody who has the file
//! open, so nobody's success hides what somebody else was told.

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
    number: u64,
    position: Position,
}

/// What came of a [`GroupSync`].
#[derive(Debug)]
pub struct GroupSynced<F> {
    sync: GroupSync<F>,
    result: io::Result<()>,
}

/// What a sync of the active segment covers that is not durable yet.
#[derive(Debug)]
pub(crate) struct Flight {
    number: u64,
    ended: bool,
    end: u32,
    position: Position,
    /// Segments that may go with it.
    pub(crate) dead: Vec<Dead>,
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
    /// comes of it, of the one that was done first before others; they count in the order in which they began. While any
    /// has not ended, [`Store::sync`](crate::Store::sync) fails with [`SyncError::Begun`].
    pub fn begin_sync(&mut self) -> Result<Option<GroupSync<V::File>>, SyncError> {
        self.write_group()?;
        let alone = self.active.flights.is_empty();
        let file = if self.named && self.active.unsynced() && !(alone && self.must_sync()) {
            self.open_again()
        } else {
            None
        };
        let Some(file) = file else {
            self.sync_groups()?;
            return Ok(None);
        };
        self.syncs_begun += 1;
        let (number, position) = (self.syncs_begun, self.written);
        self.active.flights.push_back(Flight {
            number,
            ended: false,
            end: self.active.written_end(),
            position,
            dead: std::mem::take(&mut self.dead),
        });
        Ok(Some(GroupSync {
            file,
            segment: self.active.id,
            number,
            position,
        }))
    }

    /// Takes what came of a sync: what it covers is durable once those before it are, or the next sync writes it to
    /// another file.
    pub fn end_sync(&mut self, done: GroupSynced<V::File>) -> Result<Position, SyncError> {
        let GroupSynced { sync, result } = done;
        if sync.segment != self.active.id {
            // What it covers was written to this one.
            return Ok(self.durable);
        }
        if let Err(error) = result {
            self.give_up();
            return Err(sync_error(&error));
        }
        self.active.others.push(sync.file);
        let mut flights = self.active.flights.iter_mut();
        if let Some(flight) = flights.find(|flight| flight.number == sync.number) {
            flight.ended = true;
        }
        while let Some(flight) = self.active.flights.pop_front_if(|flight| flight.ended) {
            self.active.synced(flight.end);
            self.durable = flight.position;
            self.removable.extend(flight.dead);
        }
        self.do_chore();
        Ok(self.durable)
    }

    /// Whether the next sync is one that the store does itself, or would rather: the others have to end before.
    pub fn wants_sync_alone(&self) -> bool {
        let none_left = self.active.opened && self.active.others.is_empty();
        !self.named || none_left || self.must_sync()
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
