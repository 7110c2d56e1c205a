//! Opening: footers are read, segments without one are read through, a torn tail is cut.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use crate::active::{Active, Pending};
use crate::blobs::HELD;
use crate::index::{Index, Key};
use crate::log::{Cache, LogOptions, LogStore, Segment, Tables, file_name};
use crate::queue::{Queue, Run};
use crate::record::{HEADER_LEN, Header, Record, VERSION, durable_beyond, extent, own, records};
use crate::summary::{Footer, Summary, TRAILER_LEN, Trailer};
use crate::vfs::{Vfs, VfsFile};
use crate::{Map, Position, ReadError};

/// Why a store cannot be opened. Nothing was changed.
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
    /// The file was written by a later version.
    #[error("{file} has format {version}, which is newer than this program: use a newer one")]
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
    (file_name(id) == name).then_some(id)
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

fn read_trailer(file: &impl VfsFile) -> io::Result<Option<Trailer>> {
    let size = file.size()?;
    let Some(at) = size.checked_sub(TRAILER_LEN as u64) else {
        return Ok(None);
    };
    let trailer = Trailer::decode(&read(file, at, TRAILER_LEN)?);
    let ends = |trailer: &Trailer| u64::from(trailer.data_end) + trailer.len() as u64 == at;
    Ok(trailer.filter(ends))
}

/// The footer of a file, if it has one that is whole.
pub(crate) fn read_footer(file: &impl VfsFile) -> io::Result<Option<(Trailer, Footer)>> {
    let Some(trailer) = read_trailer(file)? else {
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

fn io_error(file: &str) -> impl Fn(io::Error) -> OpenError {
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
fn was_durable(id: u32, file: &impl VfsFile, salt: Option<u64>) -> io::Result<bool> {
    if read_trailer(file)?.is_some() {
        return Ok(true);
    }
    let bytes = read(file, 0, usize::MAX)?;
    Ok(match salt {
        Some(salt) => durable_beyond(&bytes, salt, id, 0),
        // The header of the first segment is durable before anything is written behind it.
        None => {
            let rest = bytes.get(HEADER_LEN as usize..).unwrap_or_default();
            rest.iter().any(|byte| *byte != 0)
        }
    })
}

/// A queue as segment after segment tells of it.
#[derive(Debug, Default)]
struct Told {
    first: u64,
    end: u64,
    begun: u32,
    /// By the sequences they begin with, without overlap.
    runs: Vec<(u64, Run)>,
}

impl Told {
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

    /// The queue, unless entries are missing.
    fn into_queue(self) -> Option<Queue> {
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
            if first + u64::from(skip) != next {
                return None;
            }
            next += u64::from(run.count);
            queue.runs.push_back(run);
        }
        queue.runs.shrink_to_fit();
        (next == self.end).then_some(queue)
    }
}

impl<V: Vfs> LogStore<V> {
    /// Opens the store in a directory, an empty one if there is none.
    pub fn open(vfs: V, options: LogOptions) -> Result<Self, OpenError> {
        let lock = lock(&vfs)?;
        let mut files = find_files(&vfs)?;
        let salt = files.found.values().next_back();
        let salt = salt.map_or_else(|| vfs.random(), |found| found.header.salt);
        let mut store = Self {
            salt,
            _lock: lock,
            options,
            last: Position(0),
            written: Position(0),
            durable: Position(0),
            index: Index::default(),
            segments: BTreeMap::new(),
            active: Active::new(files.highest + 1, salt, 0, 0, Position(0)),
            named: false,
            footers: VecDeque::new(),
            change: Default::default(),
            forgotten: VecDeque::new(),
            cache: RefCell::new(Cache::default()),
            cleaning: None,
            dead: Vec::new(),
            vfs,
        };
        store.recover(&mut files)?;
        Ok(store)
    }

    fn recover(&mut self, files: &mut Files<V::File>) -> Result<(), OpenError> {
        // What a killed program wrote may be in memory only, and must not be taken back later.
        if let Some((id, newest)) = files.found.iter().next_back() {
            let name = file_name(*id);
            newest.file.sync_data().map_err(io_error(&name))?;
            self.vfs.sync_dir().map_err(io_error("."))?;
        }
        let (chain, missing) = chain(files)?;
        let mut next: Option<Header> = None;
        let mut folded = Vec::new();
        for id in chain.iter().copied() {
            let Some(found) = files.found.remove(&id) else {
                continue;
            };
            folded.push((id, found.file, found.header, None));
        }
        for (_, _, header, end) in &mut folded {
            *end = next.map(|next| next.previous_end);
            next = Some(*header);
        }
        folded.reverse();
        let (mut previous, mut previous_end, mut trim) = (0, 0, 0);
        let mut strays = Vec::new();
        let mut queues: Map<u64, Told> = Map::default();
        for (id, file, header, known_end) in folded {
            self.last = self.last.max(Position(header.position));
            let segment = self.read_segment(id, file, header, known_end)?;
            let Some((segment, footer)) = segment else {
                strays.push(id);
                (previous, previous_end) = (header.previous, header.previous_end);
                continue;
            };
            (previous, previous_end) = (id, segment.end);
            self.last = self.last.max(Position(footer.position));
            trim = trim.max(footer.trim);
            self.segments.insert(id, segment);
            self.fold(id, footer, &mut queues);
        }
        if let Some(missing) = missing.filter(|missing| trim <= *missing) {
            let file = file_name(missing);
            return Err(OpenError::Missing { file });
        }
        (self.written, self.durable) = (self.last, self.last);
        let id = self.active.id;
        self.active = Active::new(id, self.salt, previous, previous_end, self.last);
        for (name, told) in queues {
            let last = told.runs.last().map_or(told.begun, |(_, run)| run.segment);
            let queue = told.into_queue().ok_or_else(|| corrupt(last, HEADER_LEN))?;
            self.index.queues.insert(name, queue);
        }
        self.load_keys()?;
        self.count_references()?;
        self.count_living();
        strays.extend(files.found.keys().chain(&files.broken));
        let dead: Vec<_> = self.segments.range(..trim).map(|(id, _)| *id).collect();
        for id in dead {
            self.segments.remove(&id);
            self.index.blobs.forget(id);
            strays.push(id);
        }
        for id in strays {
            // What stays is found and removed the next time.
            let _ = self.vfs.remove(&file_name(id));
        }
        Ok(())
    }

    /// The segment and what it says; `None` for the last one when nothing was written to it.
    fn read_segment(
        &mut self,
        id: u32,
        file: V::File,
        header: Header,
        known_end: Option<u32>,
    ) -> Result<Option<Read<V::File>>, OpenError> {
        let name = file_name(id);
        let footer = read_footer(&file).map_err(io_error(&name))?;
        let whole = |trailer: &Trailer| known_end.is_none_or(|known| known == trailer.data_end);
        if let Some((trailer, footer)) = footer.filter(|(trailer, _)| whole(trailer)) {
            let segment = Segment {
                file,
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
            return Err(corrupt(id, extent.bad.unwrap_or(end)));
        }
        if end == HEADER_LEN {
            return Ok(None);
        }
        let mut summary = Summary::new(header.position);
        records(&bytes, HEADER_LEN, end, |decoded, offset| {
            summary.record(decoded, offset);
        });
        drop(bytes);
        let (footer, items, offsets) = summary.into_footer();
        let encoded = footer.encode(end, &items, &offsets);
        let segment = Segment {
            file,
            end,
            tables: Tables::Memory(encoded.slice(..items.len() + offsets.len())),
            items: items.len() as u32,
            puts: footer.puts(),
            live: 0,
        };
        self.footers.push_back(Pending::new(id, encoded));
        Ok(Some((segment, footer)))
    }

    fn fold(&mut self, id: u32, footer: Footer, queues: &mut Map<u64, Told>) {
        for blob in &footer.released {
            self.index.blobs.release(*blob);
        }
        let blobs = footer.blobs.iter();
        let blobs = blobs.map(|(blob, held)| (*blob, if *held { HELD } else { 0 }));
        self.index.blobs.seal(id, blobs);
        let mut index = 0;
        for (name, summary) in footer.queues {
            if summary.reset {
                queues.remove(&name);
            }
            if !summary.exists {
                continue;
            }
            let queue = queues.entry(name).or_default();
            for (first, count) in summary.runs {
                let run = Run {
                    segment: id,
                    index,
                    count,
                };
                queue.place(first, run);
                index += count;
            }
            if summary.first > queue.first {
                queue.begun = id;
            }
            queue.first = queue.first.max(summary.first);
            queue.end = queue.end.max(summary.end);
        }
        for (name, offset) in footer.keys {
            match offset {
                Some(offset) => {
                    let key = Key {
                        value: None,
                        blob: None,
                        segment: id,
                        offset,
                    };
                    self.index.keys.insert(name, key);
                }
                None => {
                    self.index.keys.remove(&name);
                }
            }
        }
    }

    fn load_keys(&mut self) -> Result<(), OpenError> {
        let keys = self.index.keys.iter();
        let mut places: Vec<_> = keys
            .map(|(name, key)| (key.segment, key.offset, name.clone()))
            .collect();
        places.sort_unstable();
        for (segment, offset, name) in places {
            let frame = self.read_frame(segment, offset);
            let frame = frame.map_err(|error| damage(error, segment, offset))?;
            let decoded = Record::decode(&frame).map(|decoded| decoded.record);
            let Some(Record::PutKey { key, blob, value }) = decoded else {
                return Err(corrupt(segment, offset));
            };
            if key != name {
                return Err(corrupt(segment, offset));
            }
            let value = (value.len() <= self.options.resident_value_bytes).then(|| own(value));
            if let Some(key) = self.index.keys.get_mut(&name) {
                (key.blob, key.value) = (blob, value);
            }
        }
        Ok(())
    }

    /// A blob is referred to by what lives of queues and keys.
    fn count_references(&mut self) -> Result<(), OpenError> {
        /// What is read at once.
        const ITEMS: u32 = 1024;
        let queues = std::mem::take(&mut self.index.queues);
        for run in queues.values().flat_map(|queue| &queue.runs) {
            let mut rest = *run;
            while rest.count > 0 {
                let items = self.items(rest.take(ITEMS));
                let items = items.map_err(|error| damage(error, run.segment, 0))?;
                for item in &items {
                    self.count_reference(item.blob(), run.segment, item.offset)?;
                }
                rest = rest.skip(ITEMS);
            }
        }
        self.index.queues = queues;
        let keys = std::mem::take(&mut self.index.keys);
        for key in keys.values() {
            self.count_reference(key.blob, key.segment, key.offset)?;
        }
        self.index.keys = keys;
        Ok(())
    }

    fn count_reference(
        &mut self,
        blob: Option<u64>,
        segment: u32,
        offset: u32,
    ) -> Result<(), OpenError> {
        if blob.is_some_and(|blob| !self.index.blobs.count(blob)) {
            return Err(corrupt(segment, offset));
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

/// The segments of the log from the last to the first, and the one that is missing before it.
fn chain<F>(files: &Files<F>) -> Result<(Vec<u32>, Option<u32>), OpenError> {
    let mut chain = Vec::new();
    let mut at = files.found.keys().next_back().copied();
    while let Some(id) = at {
        let Some(found) = files.found.get(&id) else {
            if files.broken.contains(&id) {
                return Err(corrupt(id, 0u32));
            }
            return Ok((chain, Some(id)));
        };
        chain.push(id);
        let previous = found.header.previous;
        if previous >= id {
            return Err(corrupt(id, 0u32));
        }
        at = (previous > 0).then_some(previous);
    }
    Ok((chain, None))
}
