//! Reading a log through without changing it.

use std::io;
use std::path::PathBuf;

use crate::log::file_name;
use crate::lost::Losses;
use crate::record::{HEADER_LEN, Header, VERSION, extent, records};
use crate::recovery::{Link, lock, read, read_footer, refuse_unfinished, segment_of, was_durable};
use crate::summary::Place;
use crate::vfs::{DirVfs, Vfs, VfsFile};
use crate::{BlobId, LogOptions, LogStore, Lost, OpenError, PageLimit, Position, QueueId, Store};

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The files of the log in their order.
    pub segments: Vec<SegmentReport>,
    /// What cannot be read, by name as far as names are left.
    pub lost: Vec<Lost>,
}

impl Report {
    /// Whether every file is as it was written. A torn tail is no damage.
    pub fn is_sound(&self) -> bool {
        let torn = |problem: &Problem| matches!(problem, Problem::TornTail { .. });
        let mut problems = self.segments.iter().flat_map(|s| &s.problems);
        problems.all(torn) && self.lost.is_empty()
    }
}

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its name.
    pub file: String,
    /// Bytes of whole batches, with the header.
    pub data_bytes: u64,
    /// Whole records.
    pub records: u64,
    /// The last position in it.
    pub position: Position,
    /// Whether it has a footer.
    pub footer: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is not there, and nothing says that it need not be.
    #[error("the file is missing")]
    Missing,
    /// Its header is not whole.
    #[error("the header is damaged")]
    Header,
    /// It has a format this program does not know.
    #[error("the format {0} is unknown")]
    Version(u32),
    /// A record that was durable is not as it was written; those behind it are lost.
    #[error("damaged at offset {offset}")]
    Damaged {
        /// The first byte of the record or group.
        offset: u64,
    },
    /// The last group is not whole. Nothing of it was reported durable.
    #[error("torn at offset {offset}")]
    TornTail {
        /// The first byte of the record or group.
        offset: u64,
    },
}

/// Reads every record of the log in a directory. Nothing is changed.
pub fn check(dir: impl Into<PathBuf>) -> Result<Report, OpenError> {
    let dir = dir.into();
    let failed = |error: io::Error| OpenError::Io {
        file: dir.display().to_string(),
        kind: error.kind(),
    };
    if !dir.is_dir() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    let vfs = DirVfs::new(dir.clone()).map_err(failed)?;
    check_vfs(&vfs)
}

fn check_vfs<V: Vfs + Clone>(vfs: &V) -> Result<Report, OpenError> {
    let error = |file: &str, error: &io::Error| OpenError::Io {
        file: file.to_owned(),
        kind: error.kind(),
    };
    let _lock = lock(vfs)?;
    refuse_unfinished(vfs)?;
    let names = vfs.list().map_err(|e| error(".", &e))?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut salt = None;
    for id in &ids {
        let name = file_name(*id);
        let file = vfs.open(&name).map_err(|e| error(&name, &e))?;
        let head = read(&file, 0, HEADER_LEN as usize).map_err(|e| error(&name, &e))?;
        if let Some(header) = Header::decode(&head) {
            salt = Some(header.salt);
            break;
        }
    }
    let mut report = Report::default();
    let mut links = Vec::new();
    let mut losses = Losses::listed();
    // The segment that the later one names, if its header is whole, and where that one ends.
    let mut expected = None;
    for id in ids.into_iter().rev() {
        let name = file_name(id);
        let known_end = match expected {
            // One that the next segment does not continue is no part of the log.
            Some((previous, _)) if previous < id => continue,
            Some((previous, end)) if previous == id => Some(end),
            Some((previous, _)) if previous > 0 => {
                report.segments.push(missing(previous));
                None
            }
            Some(_) => continue,
            None => None,
        };
        let file = vfs.open(&name).map_err(|e| error(&name, &e))?;
        let (segment, header) =
            check_segment(id, &file, known_end, salt).map_err(|e| error(&name, &e))?;
        expected = header.map(|header| (header.previous, header.previous_end));
        match header {
            Some(header) => links.push(Link {
                id,
                file,
                header,
                end: known_end,
            }),
            None if segment.problems.iter().any(is_damage) => {
                let offset = 0;
                losses.list(Lost::Rest { file: name, offset });
            }
            None => {}
        }
        report.segments.push(segment);
    }
    links.reverse();
    let (view, trim) = LogStore::view(vfs.clone(), LogOptions::default(), links, &mut losses)?;
    if let Some((previous, _)) = expected
        && previous > 0
        && trim <= previous
    {
        report.segments.push(missing(previous));
    }
    for segment in &report.segments {
        if segment.problems.iter().any(is_damage)
            && let Some(id) = segment_of(&segment.file)
        {
            view.list_unreadable(id, &mut losses);
        }
    }
    report.lost = losses.into_list();
    report.segments.reverse();
    Ok(report)
}

fn is_damage(problem: &Problem) -> bool {
    !matches!(problem, Problem::TornTail { .. })
}

fn missing(id: u32) -> SegmentReport {
    SegmentReport {
        problems: vec![Problem::Missing],
        ..SegmentReport::new(id)
    }
}

impl SegmentReport {
    fn new(id: u32) -> Self {
        Self {
            file: file_name(id),
            data_bytes: 0,
            records: 0,
            position: Position(0),
            footer: false,
            problems: Vec::new(),
        }
    }
}

impl<V: Vfs> LogStore<V> {
    /// Lists what lives in a segment and cannot be read.
    fn list_unreadable(&self, segment: u32, losses: &mut Losses) {
        let mut blobs: Vec<_> = self.index.blobs.of(segment).collect();
        blobs.retain(|id| self.blob(BlobId(*id)).is_err());
        for id in blobs.into_iter().map(BlobId) {
            losses.list(Lost::Blob { id });
        }
        let one = PageLimit {
            items: 1,
            bytes: usize::MAX,
        };
        let mut queues: Vec<_> = self.index.queues.iter().collect();
        queues.sort_unstable_by_key(|(id, _)| **id);
        for (id, queue) in queues {
            let queue_id = QueueId(*id);
            for (first, run) in queue.from(queue.first) {
                if run.segment != segment {
                    continue;
                }
                for sequence in first..first + u64::from(run.count) {
                    if self.read_queue(queue_id, sequence, one).is_err() {
                        losses.list(Lost::Entries {
                            queue: queue_id,
                            sequences: sequence..sequence + 1,
                        });
                    }
                }
            }
        }
    }
}

fn check_segment(
    id: u32,
    file: &impl VfsFile,
    known_end: Option<u32>,
    salt: Option<u64>,
) -> io::Result<(SegmentReport, Option<Header>)> {
    let mut report = SegmentReport::new(id);
    let segment = id;
    let footer = match salt {
        Some(salt) => read_footer(file, Place { salt, segment })?,
        None => None,
    };
    report.footer = footer.is_some();
    let end = known_end.or_else(|| footer.map(|(trailer, _)| trailer.data_end));
    let bytes = read(file, 0, end.map_or(usize::MAX, |end| end as usize))?;
    let header = match Header::decode(&bytes) {
        Some(header) if header.version != VERSION => {
            report.problems.push(Problem::Version(header.version));
            return Ok((report, None));
        }
        Some(header) => header,
        None => {
            let torn = known_end.is_none() && !was_durable(id, file, salt)?;
            report.problems.push(if torn {
                Problem::TornTail { offset: 0 }
            } else {
                Problem::Header
            });
            return Ok((report, None));
        }
    };
    report.position = Position(header.position);
    let extent = extent(&bytes, header.salt, id);
    report.data_bytes = extent.end.into();
    records(&bytes, HEADER_LEN, extent.end, |decoded, _| {
        report.records += 1;
        report.position.0 += u64::from(decoded.last);
    });
    let short = end.is_some_and(|end| extent.end != end);
    let offset = extent.bad.unwrap_or(extent.end).into();
    if short || extent.damaged {
        report.problems.push(Problem::Damaged { offset });
    } else if extent.bad.is_some() && bytes.get(offset as usize..).is_some_and(not_zero) {
        report.problems.push(Problem::TornTail { offset });
    }
    Ok((report, Some(header)))
}

fn not_zero(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != 0)
}
