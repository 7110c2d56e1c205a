//! What lives as a stream that is read by any version: out of a running store, and into an empty
//! directory.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::blobs::HELD;
use crate::log::{LogOptions, LogStore, file_name};
use crate::lost::Losses;
use crate::record::{
    COUNT_MAX, GROUP_LEN, Group, HEADER_LEN, Header, Record, VERSION, finish, record_len, u32_at,
    u64_at,
};
use crate::recovery::{IMPORTING, Link, lock, read, segment_of};
use crate::vfs::{DirVfs, Vfs, VfsFile};
use crate::{BlobId, OpenError, PageLimit, Position, QueueId, ReadError, Store, SyncError};

const MAGIC: &[u8; 8] = b"avocetex";
const STREAM_VERSION: u32 = 1;
const HEAD_LEN: usize = 24;
/// Written, read or put into one group at once, if nothing that is longer has to be.
const PIECE: usize = 256 << 10;
/// No record is longer: it has to fit into a segment.
const RECORD_MAX: usize = 3 << 30;

const PAGE: PageLimit = PageLimit {
    items: 256,
    bytes: PIECE,
};

/// Why there is no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// What was committed could not be made durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The files of the log could not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A part of what is stored could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The export could not be written.
    #[error("cannot write the export: {0}")]
    Write(io::ErrorKind),
}

/// Why nothing was imported. The directory is left empty, as far as files could be removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// There is a log already.
    #[error("the data directory is not empty")]
    NotEmpty,
    /// The stream is no export.
    #[error("this is no export")]
    Magic,
    /// The export was made by a later version.
    #[error("the export has format {0}, which is newer than this program")]
    Version(u32),
    /// The export is damaged.
    #[error("the export is damaged at offset {0}")]
    Corrupt(u64),
    /// The export ends too early.
    #[error("the export is cut short")]
    Short,
    /// The export could not be read.
    #[error("cannot read the export: {0}")]
    Read(io::ErrorKind),
    /// The log could not be written.
    #[error("cannot write: {0}")]
    Write(io::ErrorKind),
    /// The directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// How much an export holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// The last position it knows of.
    pub position: Position,
    /// Blobs.
    pub blobs: u64,
    /// Queues.
    pub queues: u64,
    /// Entries of all queues.
    pub entries: u64,
    /// Keys.
    pub keys: u64,
}

/// What a store held at one position. It holds files open until it is dropped, and may be sent to
/// another thread while the store goes on.
#[derive(Debug)]
pub struct Snapshot<V: Vfs = DirVfs> {
    vfs: V,
    links: Vec<Link<V::File>>,
    position: Position,
    /// As long as there is one, no file is written again.
    _read: Arc<()>,
}

impl<V: Vfs + Clone> LogStore<V> {
    /// Makes everything durable, and keeps it readable as it is, whatever comes after.
    pub fn snapshot(&mut self) -> Result<Snapshot<V>, ExportError> {
        let position = self.sync()?;
        let sealed = self.segments.iter();
        let mut ends: Vec<_> = sealed.map(|(id, segment)| (*id, segment.end)).collect();
        if self.active.begun() {
            ends.push((self.active.id, self.active.durable));
        }
        let mut links = Vec::with_capacity(ends.len());
        for (id, end) in ends {
            let name = file_name(id);
            let failed = |error: io::Error| OpenError::Io {
                file: name.clone(),
                kind: error.kind(),
            };
            let file = self.vfs.open(&name).map_err(failed)?;
            let head = read(&file, 0, HEADER_LEN as usize).map_err(failed)?;
            let header = Header::decode(&head).ok_or_else(|| OpenError::Corrupt {
                file: name.clone(),
                offset: 0,
            })?;
            links.push(Link {
                id,
                file,
                header,
                end: Some(end),
            });
        }
        Ok(Snapshot {
            vfs: self.vfs.clone(),
            links,
            position,
            _read: Arc::clone(&self.read),
        })
    }
}

/// Gathers records into pieces.
struct Output<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Output<W> {
    fn put(&mut self, record: &Record<'_>) -> Result<(), ExportError> {
        let start = self.buffer.len();
        record.encode(&mut self.buffer);
        finish(&mut self.buffer, &[start], false);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| ExportError::Write(error.kind()))
    }
}

impl<V: Vfs> Snapshot<V> {
    /// The last position that is in it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Writes everything that lives. It reads the log from its beginning and takes as much memory as an
    /// open store without the values of its keys.
    pub fn export(self, out: impl Write) -> Result<Exported, ExportError> {
        let options = LogOptions {
            resident_value_bytes: 0,
            ..LogOptions::default()
        };
        let mut exported = Exported {
            position: self.position,
            ..Exported::default()
        };
        let mut out = Output {
            out,
            buffer: Vec::new(),
        };
        out.buffer.extend_from_slice(MAGIC);
        out.buffer.extend_from_slice(&STREAM_VERSION.to_le_bytes());
        out.buffer.extend_from_slice(&self.position.0.to_le_bytes());
        let crc = crc32c::crc32c(&out.buffer);
        out.buffer.extend_from_slice(&crc.to_le_bytes());

        let (view, _) = LogStore::view(self.vfs, options, self.links, &mut Losses::default())?;
        for segment in view.segments.keys() {
            for id in view.index.blobs.of(*segment) {
                let state = view.index.blobs.find(id).map_or(0, |(_, state)| state);
                let bytes = view.blob(BlobId(id))?.ok_or(ReadError::Corrupt)?;
                exported.blobs += 1;
                out.put(&Record::Blob {
                    id,
                    held: state & HELD != 0,
                    copied: false,
                    bytes: &bytes,
                })?;
            }
        }
        let mut queues: Vec<_> = view.index.queues.iter().collect();
        queues.sort_unstable_by_key(|(id, _)| **id);
        for (id, queue) in queues {
            let (first, end) = (queue.first, queue.end);
            exported.queues += 1;
            out.put(&Record::Queue {
                queue: *id,
                first,
                end,
            })?;
            let mut from = first;
            while from < end {
                let page = view.read_queue(QueueId(*id), from, PAGE)?;
                if page.is_empty() {
                    return Err(ReadError::Corrupt.into());
                }
                from += page.len() as u64;
                exported.entries += page.len() as u64;
                for entry in page {
                    out.put(&Record::Entry {
                        queue: *id,
                        sequence: entry.sequence,
                        blob: entry.blob.map(|blob| blob.0),
                        value: &entry.value,
                    })?;
                }
            }
        }
        let mut last = None;
        loop {
            let page = view.scan(b"", last.as_deref(), PAGE)?;
            for item in &page {
                out.put(&Record::PutKey {
                    key: &item.key,
                    blob: item.blob.map(|blob| blob.0),
                    value: &item.value,
                })?;
            }
            exported.keys += page.len() as u64;
            let Some(item) = page.into_iter().next_back() else {
                break;
            };
            last = Some(item.key);
        }
        out.put(&Record::End)?;
        out.flush()?;
        let flushed = out.out.flush();
        flushed.map_err(|error| ExportError::Write(error.kind()))?;
        Ok(exported)
    }
}

/// Takes records out of pieces.
struct Input<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    /// Where the buffer begins in the stream.
    offset: u64,
}

impl<R: Read> Input<R> {
    /// Lets at least `len` bytes be in the buffer behind `at`, if there are that many.
    fn fill(&mut self, len: usize) -> Result<(), ImportError> {
        let have = self.buffer.len() - self.at;
        if have >= len {
            return Ok(());
        }
        self.offset += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        let more = (len - have).max(PIECE) as u64;
        let read = self.input.by_ref().take(more).read_to_end(&mut self.buffer);
        read.map(|_| ())
            .map_err(|error| ImportError::Read(error.kind()))
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn head(&mut self) -> Result<Position, ImportError> {
        self.fill(HEAD_LEN)?;
        let rest = self.rest();
        if !rest.starts_with(MAGIC) {
            return Err(ImportError::Magic);
        }
        let head = rest.get(..HEAD_LEN).ok_or(ImportError::Short)?;
        let (head, crc) = head.split_last_chunk::<4>().ok_or(ImportError::Short)?;
        if crc32c::crc32c(head) != u32::from_le_bytes(*crc) {
            return Err(ImportError::Corrupt(0));
        }
        let version = u32_at(head, 8).ok_or(ImportError::Short)?;
        if version != STREAM_VERSION {
            return Err(ImportError::Version(version));
        }
        let position = u64_at(head, 12).filter(|position| *position < COUNT_MAX);
        let position = position.ok_or(ImportError::Corrupt(0))?;
        self.at += HEAD_LEN;
        Ok(Position(position))
    }

    /// The next record as it is encoded; `None` at the end of the export.
    fn record(&mut self) -> Result<Option<&[u8]>, ImportError> {
        /// Enough to know how long a record is.
        const LEN: usize = 16;
        self.fill(LEN)?;
        let offset = self.offset + self.at as u64;
        let len = match record_len(self.rest()) {
            Some(len) if len <= RECORD_MAX => len,
            None if self.rest().len() < LEN => return Err(ImportError::Short),
            _ => return Err(ImportError::Corrupt(offset)),
        };
        self.fill(len)?;
        let start = self.at;
        let bytes = self
            .buffer
            .get(start..start + len)
            .ok_or(ImportError::Short)?;
        let decoded = Record::decode(bytes).ok_or(ImportError::Corrupt(offset))?;
        self.at += len;
        match decoded.record {
            Record::Blob { .. }
            | Record::Queue { .. }
            | Record::Entry { .. }
            | Record::PutKey { .. } => Ok(Some(bytes)),
            Record::End => Ok(None),
            Record::Release { .. }
            | Record::Advance { .. }
            | Record::DropQueue { .. }
            | Record::DeleteKey { .. }
            | Record::Trim { .. } => Err(ImportError::Corrupt(offset)),
        }
    }
}

/// Writes segments that hold what is given to it.
struct Writer<'a, V: Vfs> {
    vfs: &'a V,
    salt: u64,
    position: Position,
    file: Option<V::File>,
    segment: u32,
    end: u32,
    segment_bytes: u32,
    group: Vec<u8>,
}

impl<V: Vfs> Writer<'_, V> {
    fn put(&mut self, record: &[u8]) -> io::Result<()> {
        if self.group.is_empty() {
            self.group.resize(GROUP_LEN, 0);
        }
        self.group.extend_from_slice(record);
        if self.group.len() >= PIECE {
            self.write()?;
        }
        Ok(())
    }

    /// Writes the group, and ends the segment when it is full.
    fn write(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let start = self.group.len();
        Record::End.encode(&mut self.group);
        finish(&mut self.group, &[start], false);
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let (previous, previous_end) = (self.segment, self.end);
                self.segment += 1;
                self.end = HEADER_LEN;
                let header = Header {
                    version: VERSION,
                    segment: self.segment,
                    salt: self.salt,
                    previous,
                    previous_end,
                    position: self.position.0,
                };
                let file = self.vfs.create(&file_name(self.segment))?;
                file.write_at(0, &header.encode())?;
                file
            }
        };
        Group::close(&mut self.group, 0, 0, self.salt, self.segment, self.end);
        file.write_at(self.end.into(), &self.group)?;
        self.end += self.group.len() as u32;
        self.group.clear();
        if self.end >= self.segment_bytes {
            file.sync_data()?;
        } else {
            self.file = Some(file);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.segment == 0 {
            // The position has to be known even if nothing lives.
            self.group.resize(self.group.len().max(GROUP_LEN), 0);
        }
        self.write()?;
        if let Some(file) = self.file.take() {
            file.sync_data()?;
        }
        self.vfs.sync_dir()
    }
}

impl LogStore<DirVfs> {
    /// Makes a store of an export, in a directory that is empty or missing.
    pub fn import_dir(
        dir: impl Into<std::path::PathBuf>,
        options: LogOptions,
        input: impl Read,
    ) -> Result<Self, ImportError> {
        let vfs = DirVfs::new(dir.into()).map_err(write_error)?;
        Self::import(vfs, options, input)
    }
}

fn write_error(error: io::Error) -> ImportError {
    ImportError::Write(error.kind())
}

impl<V: Vfs + Clone> LogStore<V> {
    /// Makes a store of an export, in a directory that is empty. Positions go on from those of the
    /// store that was exported. Until all of it is durable the directory cannot be opened.
    pub fn import(vfs: V, options: LogOptions, input: impl Read) -> Result<Self, ImportError> {
        let locked = lock(&vfs)?;
        let names = vfs.list().map_err(write_error)?;
        if names
            .iter()
            .any(|name| segment_of(name).is_some() || name == IMPORTING)
        {
            return Err(ImportError::NotEmpty);
        }
        let result = write_log(&vfs, options, input);
        if let Err(error) = result {
            remove_log(&vfs);
            return Err(error);
        }
        // Opening finds out whether what is referred to is there.
        let opened = Self::open_locked(vfs.clone(), locked, options);
        let store = opened.inspect_err(|_| remove_log(&vfs))?;
        vfs.remove(IMPORTING).map_err(write_error)?;
        vfs.sync_dir().map_err(write_error)?;
        Ok(store)
    }
}

fn write_log<V: Vfs>(vfs: &V, options: LogOptions, input: impl Read) -> Result<(), ImportError> {
    let mut input = Input {
        input,
        buffer: Vec::new(),
        at: 0,
        offset: 0,
    };
    let position = input.head()?;
    vfs.create(IMPORTING).map_err(write_error)?;
    vfs.sync_dir().map_err(write_error)?;
    let mut writer = Writer {
        vfs,
        salt: vfs.random(),
        position,
        file: None,
        segment: 0,
        end: 0,
        segment_bytes: options.segment_bytes,
        group: Vec::new(),
    };
    while let Some(record) = input.record()? {
        writer.put(record).map_err(write_error)?;
    }
    writer.finish().map_err(write_error)
}

/// Removes what an import wrote. What stays keeps the directory from being opened.
fn remove_log<V: Vfs>(vfs: &V) {
    let names = vfs.list().unwrap_or_default();
    let segments = names.iter().filter(|name| segment_of(name).is_some());
    let kept = segments.filter(|name| vfs.remove(name).is_err()).count();
    if kept == 0 && vfs.sync_dir().is_ok() {
        let _ = vfs.remove(IMPORTING);
    }
}
