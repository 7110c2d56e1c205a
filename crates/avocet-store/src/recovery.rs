//! Opening: footers are read, segments without one are read through, a torn tail is cut.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::active::{Active, Pending};
use crate::blobs::HELD;
use crate::cache::Cache;
use crate::chore::{Chores, SPARE};
use crate::index::{Index, Key};
use crate::log::{LogOptions, LogStore, Segment, Tables, file_name, read_error};
use crate::lost::{Losses, Lost};
use crate::queue::{Queue, Run};
use crate::record::{
    HEADER_LEN, Header, Record, VERSION, durable_beyond, extent, own, record_len, records,
};
use crate::summary::{Footer, Place, Summary, TRAILER_LEN, Trailer};
use crate::tail::write_tail;
use crate::vfs::{Vfs, VfsFile};
use crate::{BlobId, Map, Position, QueueId, ReadError};

/// Why a store cannot be opened. What is stored was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another store has the directory open.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The file system failed.
    #[error("{file}: {kind}")]
    Io {
        /// The file or directory.
        file: String,
        /// What went wrong.
        kind: io::ErrorKind,
    },
    /// What was durable is not as it was written.
    #[error(
        "{file} is damaged at offset {offset}: restore the data directory from a backup, or check it to learn what is lost"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The first byte that is not as it was written.
        offset: u64,
    },
    /// A file of the log is not there.
    #[error("{file} is missing: restore it, or the data directory, from a backup")]
    Missing {
        /// The file.
        file: String,
    },
    /// An import into the directory did not come to its end.
    #[error("an import into the data directory did not finish: empty it, and import again")]
    Unfinished,
    /// The file was written by another version, whose format this one does not read.
    #[error("{file} has format {version}, which this program does not read: use one that does")]
    Version {
        /// The file.
        file: String,
        /// Its format.
        version: u32,
    },
}

pub(crate) fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    let id = digits.parse().ok()?;
    // No log grows as long: a file that is called so is somebody else's, and others have a next.
    (file_name(id) == name && id < u32::MAX / 2).then_some(id)
}

/// Fills a buffer from `offset` on with at most `len` bytes.
pub(crate) fn read(file: &impl VfsFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let left = file.size()?.saturating_sub(offset);
    let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    let mut bytes = vec![0; len];
    let read = file.read_at(offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn read_trailer(file: &impl VfsFile, place: Place) -> io::Result<Option<Trailer>> {
    let size = file.size()?;
    let Some(at) = size.checked_sub(TRAILER_LEN as u64) else {
        return Ok(None);
    };
    let trailer = Trailer::decode(&read(file, at, TRAILER_LEN)?, place);
    let ends = |trailer: &Trailer| u64::from(trailer.data_end) + trailer.len() as u64 == at;
    Ok(trailer.filter(ends))
}

/// The footer of a file, if it has one that is whole.
pub(crate) fn read_footer(
    file: &impl VfsFile,
    place: Place,
) -> io::Result<Option<(Trailer, Footer)>> {
    let Some(trailer) = read_trailer(file, place)? else {
        return Ok(None);
    };
    let bytes = read(file, trailer.data_end.into(), trailer.len())?;
    Ok(Footer::decode(&bytes, &trailer).map(|footer| (trailer, footer)))
}

/// A segment and what it says.
type Read<F> = (Segment<F>, Footer);

struct Found<F> {
    file: F,
    header: Header,
}

/// The files of a log as they are found.
struct Files<F> {
    found: BTreeMap<u32, Found<F>>,
    /// Files whose header is not whole.
    broken: BTreeSet<u32>,
    highest: u32,
}

pub(crate) fn io_error(file: &str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io {
        file: file.to_owned(),
        kind: error.kind(),
    }
}

fn corrupt(segment: u32, offset: impl Into<u64>) -> OpenError {
    OpenError::Corrupt {
        file: file_name(segment),
        offset: offset.into(),
    }
}

pub(crate) fn lock<V: Vfs>(vfs: &V) -> Result<V::Lock, OpenError> {
    vfs.lock().map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            return OpenError::Locked;
        }
        io_error("lock")(error)
    })
}

/// The name of the file that is there while an import is not complete.
pub(crate) const IMPORTING: &str = "importing";

pub(crate) fn refuse_unfinished<V: Vfs>(vfs: &V) -> Result<(), OpenError> {
    let names = vfs.list().map_err(io_error("."))?;
    if names.iter().any(|name| name == IMPORTING) {
        return Err(OpenError::Unfinished);
    }
    Ok(())
}

fn find_files<V: Vfs>(vfs: &V) -> Result<Files<V::File>, OpenError> {
    let names = vfs.list().map_err(io_error("."))?;
    let mut files = Files {
        found: BTreeMap::new(),
        broken: BTreeSet::new(),
        highest: 0,
    };
    let mut headless = Vec::new();
    for id in names.iter().filter_map(|name| segment_of(name)) {
        let name = file_name(id);
        let file = vfs.open(&name).map_err(io_error(&name))?;
        let head = read(&file, 0, HEADER_LEN as usize).map_err(io_error(&name))?;
        // Every segment has successors.
        if id > u32::MAX / 2 {
            return Err(corrupt(id, 0u32));
        }
        files.highest = files.highest.max(id);
        match Header::decode(&head) {
            Some(header) if header.version != VERSION => {
                let version = header.version;
                return Err(OpenError::Version {
                    file: name,
                    version,
                });
            }
            Some(header) if header.segment == id => {
                files.found.insert(id, Found { file, header });
            }
            Some(_) => return Err(corrupt(id, 0u32)),
            None => headless.push((id, file)),
        }
    }
    let salt = files.found.values().next().map(|found| found.header.salt);
    for (id, file) in headless {
        let name = file_name(id);
        if was_durable(id, &file, salt).map_err(io_error(&name))? {
            return Err(corrupt(id, 0u32));
        }
        files.broken.insert(id);
    }
    Ok(files)
}

/// Whether a file whose header is not whole held anything durable, as far as can be told.
pub(crate) fn was_durable(id: u32, file: &impl VfsFile, salt: Option<u64>) -> io::Result<bool> {
    let bytes = read(file, 0, usize::MAX)?;
    Ok(match salt {
        Some(salt) => {
            let segment = id;
            read_trailer(file, Place { salt, segment })?.is_some()
                || durable_beyond(&bytes, salt, id, 0)
        }
        // The header of the first segment is durable before anything is written behind it.
        None => {
            let rest = bytes.get(HEADER_LEN as usize..).unwrap_or_default();
            rest.iter().any(|byte| *byte != 0)
        }
    })
}

/// What segment after segment tells.
#[derive(Debug, Default)]
struct Told {
    queues: Map<u64, ToldQueue>,
    keys: Vec<ToldKey>,
}

/// That a key was put or deleted.
#[derive(Debug)]
struct ToldKey {
    name: Bytes,
    segment: u32,
    offset: Option<u32>,
}

impl ToldKey {
    fn into_key(self) -> (Bytes, Key) {
        let key = Key {
            value: None,
            blob: None,
            segment: self.segment,
            offset: self.offset.unwrap_or(0),
        };
        (self.name, key)
    }
}

/// Records of segments, read in their order.
#[derive(Debug, Default)]
struct Frames {
    segment: u32,
    /// Where `bytes` begins in the segment.
    start: u32,
    bytes: Vec<u8>,
}

impl Frames {
    /// The record at a place of a segment that ends at `end`.
    fn read(
        &mut self,
        segment: u32,
        file: &impl VfsFile,
        end: u32,
        offset: u32,
    ) -> Result<&[u8], ReadError> {
        /// What is read at once.
        const PIECE: usize = 1 << 20;
        let left = end.checked_sub(offset).ok_or(ReadError::Corrupt)? as usize;
        let mut wanted = PIECE;
        loop {
            let at = offset.checked_sub(self.start).map(|at| at as usize);
            let known = at.filter(|_| segment == self.segment);
            let rest = known
                .and_then(|at| self.bytes.get(at..))
                .unwrap_or_default();
            let len = record_len(rest);
            if let (Some(at), Some(len)) = (known, len.filter(|len| *len <= rest.len())) {
                return self.bytes.get(at..at + len).ok_or(ReadError::Corrupt);
            }
            // What was read from there on is all there is, or the record is longer.
            if known == Some(0) && rest.len() >= wanted.min(left) {
                wanted = len
                    .filter(|len| *len <= left && *len > rest.len())
                    .ok_or(ReadError::Corrupt)?;
            }
            let bytes = read(file, offset.into(), wanted.min(left));
            self.bytes = bytes.map_err(|error| read_error(&error))?;
            if self.bytes.len() < wanted.min(left) {
                return Err(ReadError::Corrupt);
            }
            (self.segment, self.start) = (segment, offset);
        }
    }
}

/// A queue as segment after segment tells of it.
#[derive(Debug, Default)]
struct ToldQueue {
    first: u64,
    end: u64,
    begun: u32,
    /// By the sequences they begin with, without overlap.
    runs: Vec<(u64, Run)>,
}

impl ToldQueue {
    /// Puts a run in place of what was known of its sequences.
    fn place(&mut self, first: u64, run: Run) {
        let end = first + u64::from(run.count);
        let start = self
            .runs
            .partition_point(|(at, old)| at + u64::from(old.count) <= first);
        let stop = self.runs.partition_point(|(at, _)| *at < end);
        let mut pieces = Vec::new();
        if let Some((at, old)) = self.runs.get(start).filter(|_| start < stop)
            && *at < first
        {
            pieces.push((*at, old.take((first - at) as u32)));
        }
        pieces.push((first, run));
        if let Some((at, old)) = stop.checked_sub(1).and_then(|last| self.runs.get(last))
            && start < stop
            && at + u64::from(old.count) > end
        {
            pieces.push((end, old.skip((end - at) as u32)));
        }
        self.runs.splice(start..stop.max(start), pieces);
    }

    /// The queue as far as it is whole from its end back, and the entries that are missing.
    fn into_queue(self, mut missing: impl FnMut(u32, Range<u64>)) -> Queue {
        let mut queue = Queue {
            first: self.first,
            end: self.end,
            begun: self.begun,
            ..Queue::default()
        };
        let mut next = self.first;
        for (first, run) in self.runs {
            let skip = self.first.saturating_sub(first).min(run.count.into()) as u32;
            let run = run.skip(skip);
            if run.count == 0 {
                continue;
            }
            let start = first + u64::from(skip);
            if start != next {
                missing(run.segment, next..start);
                queue.runs.clear();
                queue.first = start;
            }
            next = start + u64::from(run.count);
            queue.runs.push_back(run);
        }
        if next != self.end {
            missing(self.begun, next..self.end);
            queue.runs.clear();
            queue.first = self.end;
        }
        queue.runs.shrink_to_fit();
        queue
    }
}

/// A segment of the log on its way into memory.
#[derive(Debug)]
pub(crate) struct Link<F> {
    pub(crate) id: u32,
    pub(crate) file: F,
    pub(crate) header: Header,
    /// Where it ends, if that is known.
    pub(crate) end: Option<u32>,
}

/// What the segments say about the log.
#[derive(Debug, Default)]
struct Loaded {
    /// The last segment that counts and its end.
    previous: u32,
    previous_end: u32,
    trim: u32,
    /// Segments that hold nothing.
    empty: Vec<u32>,
}

impl<V: Vfs> LogStore<V> {
    /// Opens the store in a directory, an empty one if there is none.
    pub fn open(vfs: V, options: LogOptions) -> Result<Self, OpenError> {
        let lock = lock(&vfs)?;
        refuse_unfinished(&vfs)?;
        Self::open_locked(vfs, lock, options)
    }

    pub(crate) fn open_locked(
        vfs: V,
        lock: V::Lock,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let mut files = find_files(&vfs)?;
        let (mut links, missing) = chain(&mut files)?;
        let highest = files.highest;
        let mut strays: Vec<_> = files.found.into_keys().chain(files.broken).collect();
        let tail = write_tail(&vfs, &mut links, highest + 1, &mut strays)?;
        let salt = links.last().map(|link| link.header.salt);
        let salt = salt.unwrap_or_else(|| vfs.random());
        let next = tail.unwrap_or(highest) + 1;
        let mut store = Self::empty(vfs, options, Some(lock), salt, next);
        match store.recover(links, missing) {
            Ok(dead) => strays.extend(dead),
            Err(error) => {
                if let Some(tail) = tail {
                    let _ = store.vfs.remove(&file_name(tail));
                }
                return Err(error);
            }
        }
        for id in strays {
            // What stays is found and removed the next time.
            let _ = store.vfs.remove(&file_name(id));
        }
        let _ = store.vfs.remove(SPARE);
        Ok(store)
    }

    /// Takes in what the segments hold, and returns those that hold nothing.
    fn recover(
        &mut self,
        links: Vec<Link<V::File>>,
        missing: Option<u32>,
    ) -> Result<Vec<u32>, OpenError> {
        let mut losses = Losses::default();
        let (mut loaded, told) = self.load(links, &mut losses)?;
        if let Some(missing) = missing.filter(|missing| loaded.trim <= *missing) {
            let file = file_name(missing);
            return Err(OpenError::Missing { file });
        }
        self.complete(told, &mut losses)?;
        let (id, previous_end) = (self.active.id, loaded.previous_end);
        self.active = Active::new(id, self.salt, loaded.previous, previous_end, self.last);
        let trimmed = self.segments.range(..loaded.trim).map(|(id, _)| *id);
        let trimmed: Vec<_> = trimmed.collect();
        for id in &trimmed {
            self.segments.remove(id);
            self.index.blobs.forget(*id);
        }
        loaded.empty.extend(trimmed);
        Ok(loaded.empty)
    }

    /// What segments of a log hold, to be read only, and the first segment that counts.
    pub(crate) fn view(
        vfs: V,
        options: LogOptions,
        links: Vec<Link<V::File>>,
        losses: &mut Losses,
    ) -> Result<(Self, u32), OpenError> {
        let salt = links.last().map_or(0, |link| link.header.salt);
        let next = links.last().map_or(0, |link| link.id) + 1;
        let mut store = Self::empty(vfs, options, None, salt, next);
        let (loaded, told) = store.load(links, losses)?;
        store.complete(told, losses)?;
        Ok((store, loaded.trim))
    }

    fn empty(vfs: V, options: LogOptions, lock: Option<V::Lock>, salt: u64, next: u32) -> Self {
        Self {
            salt,
            _lock: lock,
            options,
            last: Position(0),
            written: Position(0),
            durable: Position(0),
            index: Index::default(),
            segments: BTreeMap::new(),
            active: Active::new(next, salt, 0, 0, Position(0)),
            left: None,
            named: false,
            syncs_begun: 0,
            footers: VecDeque::new(),
            change: Default::default(),
            forgotten: VecDeque::new(),
            cache: RefCell::new(Cache::default()),
            cleaning: None,
            dead: Vec::new(),
            removable: VecDeque::new(),
            chores: Chores::Own,
            spare: None,
            read: Arc::default(),
            vfs,
        }
    }

    /// Reads what the segments say.
    fn load(
        &mut self,
        links: Vec<Link<V::File>>,
        losses: &mut Losses,
    ) -> Result<(Loaded, Told), OpenError> {
        let mut loaded = Loaded::default();
        let mut told = Told::default();
        for link in links {
            let (id, header) = (link.id, link.header);
            self.last = self.last.max(Position(header.position));
            let Some((segment, footer)) = self.read_segment(link, losses)? else {
                loaded.empty.push(id);
                (loaded.previous, loaded.previous_end) = (header.previous, header.previous_end);
                continue;
            };
            (loaded.previous, loaded.previous_end) = (id, segment.end);
            self.last = self.last.max(Position(footer.position));
            loaded.trim = loaded.trim.max(footer.trim);
            self.segments.insert(id, segment);
            self.fold(id, footer, &mut told);
        }
        (self.written, self.durable) = (self.last, self.last);
        Ok((loaded, told))
    }

    /// Finds out what lives.
    fn complete(&mut self, told: Told, losses: &mut Losses) -> Result<(), OpenError> {
        for (name, queue) in told.queues {
            let mut refused = Ok(());
            let queue = queue.into_queue(|segment, sequences| {
                let queue = QueueId(name);
                let lost = Lost::Entries { queue, sequences };
                refused = losses.accept(corrupt(segment, HEADER_LEN), lost);
            });
            refused?;
            self.index.queues.insert(name, queue);
        }
        self.load_keys(told.keys, losses)?;
        self.count_references(losses)?;
        self.count_living();
        Ok(())
    }

    /// The segment and what it says; `None` for the last one when nothing was written to it.
    fn read_segment(
        &mut self,
        link: Link<V::File>,
        losses: &mut Losses,
    ) -> Result<Option<Read<V::File>>, OpenError> {
        let Link {
            id,
            file,
            header,
            end: known_end,
        } = link;
        let name = file_name(id);
        let place = Place {
            salt: self.salt,
            segment: id,
        };
        let footer = read_footer(&file, place).map_err(io_error(&name))?;
        let whole = |trailer: &Trailer| known_end.is_none_or(|known| known == trailer.data_end);
        if let Some((trailer, footer)) = footer.filter(|(trailer, _)| whole(trailer)) {
            let segment = Segment {
                file,
                failed: false,
                end: trailer.data_end,
                tables: Tables::File(trailer.data_end),
                items: trailer.items,
                puts: footer.puts(),
                live: 0,
            };
            return Ok(Some((segment, footer)));
        }
        let len = known_end.map_or(usize::MAX, |end| end as usize);
        let bytes = read(&file, 0, len).map_err(io_error(&name))?;
        let extent = extent(&bytes, self.salt, id);
        let end = extent.end;
        if extent.damaged || known_end.is_some_and(|known| end != known) {
            let offset = extent.bad.unwrap_or(end);
            let lost = Lost::Rest {
                file: name,
                offset: end.into(),
            };
            losses.accept(corrupt(id, offset), lost)?;
        }
        if end == HEADER_LEN && known_end.is_none() {
            return Ok(None);
        }
        let mut summary = Summary::new(header.position);
        records(&bytes, HEADER_LEN, end, |decoded, offset| {
            summary.record(decoded, offset);
        });
        drop(bytes);
        let (footer, items, offsets) = summary.into_footer();
        let encoded = footer.encode(place, end, &items, &offsets);
        let segment = Segment {
            file,
            failed: false,
            end,
            tables: Tables::Memory(encoded.slice(..items.len() + offsets.len())),
            items: items.len() as u32,
            puts: footer.puts(),
            live: 0,
        };
        self.footers.push_back(Pending::new(id, encoded));
        Ok(Some((segment, footer)))
    }

    fn fold(&mut self, id: u32, footer: Footer, told: &mut Told) {
        for blob in &footer.released {
            self.index.blobs.release(*blob);
        }
        let blobs = footer.blobs.iter();
        let blobs = blobs.map(|(blob, held)| (*blob, if *held { HELD } else { 0 }));
        self.index.blobs.seal(id, blobs);
        let mut index = 0;
        for (name, summary) in footer.queues {
            if summary.reset {
                told.queues.remove(&name);
            }
            if !summary.exists {
                continue;
            }
            let queue = told.queues.entry(name).or_default();
            for (first, count) in summary.runs {
                let run = Run {
                    segment: id,
                    index,
                    count,
                };
                queue.place(first, run);
                index += count;
            }
            // What is copied says the same again, and counts from then on.
            if summary.first > 0 && summary.first >= queue.first {
                queue.begun = id;
            }
            queue.first = queue.first.max(summary.first);
            queue.end = queue.end.max(summary.end);
        }
        let keys = footer.keys.into_iter();
        told.keys.extend(keys.map(|(name, offset)| ToldKey {
            name,
            segment: id,
            offset,
        }));
    }

    fn load_keys(&mut self, mut told: Vec<ToldKey>, losses: &mut Losses) -> Result<(), OpenError> {
        // Segments tell of keys in order: sorting merges them, and what is said last counts.
        told.sort_by(|one, other| one.name.cmp(&other.name));
        told.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                mem::swap(later, kept);
            }
            same
        });
        told.retain(|key| key.offset.is_some());
        let mut keys: Vec<_> = told.into_iter().map(ToldKey::into_key).collect();
        let mut order: Vec<_> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|at| keys.get(*at).map(|(_, key)| (key.segment, key.offset)));
        let mut frames = Frames::default();
        for at in order {
            let Some((name, key)) = keys.get_mut(at) else {
                continue;
            };
            match self.read_key(&mut frames, key, name) {
                Ok((value, blob)) => (key.value, key.blob) = (value, blob),
                Err(error) => {
                    let key_lost = Lost::Key { key: name.clone() };
                    losses.accept(damage(error, key.segment, key.offset), key_lost)?;
                    // No record is there.
                    key.offset = 0;
                }
            }
        }
        keys.retain(|(_, key)| key.offset > 0);
        // What is sorted becomes a tree without a search for each key.
        self.index.keys = keys.into_iter().collect();
        Ok(())
    }

    /// The value of a key, if it is small enough to be kept, and what it refers to.
    fn read_key(
        &self,
        frames: &mut Frames,
        known: &Key,
        name: &Bytes,
    ) -> Result<(Option<Bytes>, Option<u64>), ReadError> {
        let segment = self.segments.get(&known.segment);
        let segment = segment.ok_or(ReadError::Corrupt)?;
        let frame = frames.read(known.segment, &segment.file, segment.end, known.offset)?;
        match Record::decode(frame).map(|decoded| decoded.record) {
            Some(Record::PutKey { key, blob, value }) if key == name => {
                let small = value.len() <= self.options.resident_value_bytes;
                Ok((small.then(|| own(value)), blob))
            }
            _ => Err(ReadError::Corrupt),
        }
    }

    /// A blob is referred to by what lives of queues and keys.
    fn count_references(&mut self, losses: &mut Losses) -> Result<(), OpenError> {
        /// What is read at once.
        const ITEMS: u32 = 1024;
        let queues = mem::take(&mut self.index.queues);
        for (id, queue) in &queues {
            for (first, run) in queue.from(queue.first) {
                let (mut first, mut rest) = (first, run);
                while rest.count > 0 {
                    let part = rest.take(ITEMS);
                    let end = first + u64::from(part.count);
                    match self.items(part) {
                        Ok(items) => {
                            for item in &items {
                                self.count_reference(
                                    item.blob(),
                                    run.segment,
                                    item.offset,
                                    losses,
                                )?;
                            }
                        }
                        Err(error) => {
                            let lost = Lost::Entries {
                                queue: QueueId(*id),
                                sequences: first..end,
                            };
                            losses.accept(damage(error, run.segment, 0), lost)?;
                        }
                    }
                    first = end;
                    rest = rest.skip(ITEMS);
                }
            }
        }
        self.index.queues = queues;
        let keys = mem::take(&mut self.index.keys);
        for key in keys.values() {
            self.count_reference(key.blob, key.segment, key.offset, losses)?;
        }
        self.index.keys = keys;
        Ok(())
    }

    fn count_reference(
        &mut self,
        blob: Option<u64>,
        segment: u32,
        offset: u32,
        losses: &mut Losses,
    ) -> Result<(), OpenError> {
        if let Some(id) = blob.filter(|id| !self.index.blobs.count(*id)) {
            let lost = Lost::Blob { id: BlobId(id) };
            losses.accept(corrupt(segment, offset), lost)?;
        }
        Ok(())
    }

    fn count_living(&mut self) {
        let mut living: BTreeMap<_, _> = self.index.blobs.living().collect();
        for queue in self.index.queues.values() {
            if queue.first > 0 {
                *living.entry(queue.begun).or_default() += 1;
            }
            for run in &queue.runs {
                *living.entry(run.segment).or_default() += u64::from(run.count);
            }
        }
        for key in self.index.keys.values() {
            *living.entry(key.segment).or_default() += 1;
        }
        for (id, segment) in &mut self.segments {
            segment.live = living.get(id).copied().unwrap_or(0);
        }
    }
}

fn damage(error: ReadError, segment: u32, offset: u32) -> OpenError {
    match error {
        ReadError::Io(kind) => OpenError::Io {
            file: file_name(segment),
            kind,
        },
        ReadError::Corrupt => corrupt(segment, offset),
    }
}

/// The segments of the log from the first to the last, taken out of the files, and the one that is
/// missing before them.
fn chain<F>(files: &mut Files<F>) -> Result<(Vec<Link<F>>, Option<u32>), OpenError> {
    let mut links = Vec::new();
    let mut at = files.found.keys().next_back().copied();
    let mut end = None;
    let mut missing = None;
    while let Some(id) = at {
        let Some(found) = files.found.remove(&id) else {
            if files.broken.contains(&id) {
                return Err(corrupt(id, 0u32));
            }
            missing = Some(id);
            break;
        };
        let header = found.header;
        if header.previous >= id {
            return Err(corrupt(id, 0u32));
        }
        links.push(Link {
            id,
            file: found.file,
            header,
            end,
        });
        end = Some(header.previous_end);
        at = (header.previous > 0).then_some(header.previous);
    }
    links.reverse();
    Ok((links, missing))
}
