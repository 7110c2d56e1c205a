//! Reading a log through without changing it.

use std::io;
use std::path::PathBuf;

use crate::log::file_name;
use crate::record::{HEADER_LEN, Header, VERSION, extent, records};
use crate::recovery::{lock, read, read_footer, segment_of};
use crate::vfs::{DirVfs, Vfs, VfsFile};
use crate::{OpenError, Position};

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The files of the log in their order.
    pub segments: Vec<SegmentReport>,
}

impl Report {
    /// Whether every file is as it was written. A torn tail is no damage.
    pub fn is_sound(&self) -> bool {
        let torn = |problem: &Problem| matches!(problem, Problem::TornTail { .. });
        let mut problems = self.segments.iter().flat_map(|s| &s.problems);
        problems.all(torn)
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

fn check_vfs<V: Vfs>(vfs: &V) -> Result<Report, OpenError> {
    let error = |file: &str, error: &io::Error| OpenError::Io {
        file: file.to_owned(),
        kind: error.kind(),
    };
    let _lock = lock(vfs)?;
    let names = vfs.list().map_err(|e| error(".", &e))?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut report = Report::default();
    let mut next: Option<Header> = None;
    for id in ids.into_iter().rev() {
        let name = file_name(id);
        let file = vfs.open(&name).map_err(|e| error(&name, &e))?;
        // One that the next segment does not continue is no part of the log.
        if next.is_some_and(|next| next.previous != id) {
            continue;
        }
        let known_end = next.map(|next| next.previous_end);
        let (segment, header) =
            check_segment(id, &file, known_end).map_err(|e| error(&name, &e))?;
        next = header.or(next);
        report.segments.push(segment);
    }
    report.segments.reverse();
    Ok(report)
}

fn check_segment(
    id: u32,
    file: &impl VfsFile,
    known_end: Option<u32>,
) -> io::Result<(SegmentReport, Option<Header>)> {
    let mut report = SegmentReport {
        file: file_name(id),
        data_bytes: 0,
        records: 0,
        position: Position(0),
        footer: false,
        problems: Vec::new(),
    };
    let footer = read_footer(file)?;
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
            let rest = bytes.get(HEADER_LEN as usize..).unwrap_or_default();
            let unwritten = rest.iter().all(|byte| *byte == 0);
            report.problems.push(if unwritten && end.is_none() {
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
