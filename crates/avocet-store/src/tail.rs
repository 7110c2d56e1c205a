//! What a program that did not end well left behind what is known to be durable: it is written again.
//!
//! To sync the file would not do. If that failed before, the system may take what it has for written, and
//! give it to every reader until the power is lost.

use std::io;

use crate::OpenError;
use crate::active::is_full;
use crate::log::file_name;
use crate::record::{HEADER_LEN, Header, extent, known_durable, records, reframe};
use crate::recovery::{Link, io_error, read, read_footer};
use crate::summary::Place;
use crate::vfs::{Vfs, VfsFile};

/// A segment of which an end is not known to be durable.
struct Tail {
    /// What holds, from the header on.
    bytes: Vec<u8>,
    /// The end of what is durable: 0, or the end of the header or of a group.
    known: u32,
    /// The header of the segment that is to follow this one, or to take its place.
    header: Header,
}

/// Writes what the last segment holds and does not name durable to segment `next`, which becomes the last
/// one, and makes that durable. Says whether it did. A segment that is not needed any longer goes to
/// `strays`.
pub(crate) fn write_tail<V: Vfs>(
    vfs: &V,
    links: &mut Vec<Link<V::File>>,
    next: u32,
    strays: &mut Vec<u32>,
) -> Result<Option<u32>, OpenError> {
    let Some(link) = links.last_mut() else {
        return Ok(None);
    };
    let name = file_name(link.id);
    let Some(tail) = find_tail(link, next).map_err(io_error(&name))? else {
        return Ok(None);
    };
    let next_name = file_name(next);
    let file = match write_segment(vfs, &next_name, &tail) {
        Ok(file) => file,
        Err(error) => {
            let _ = vfs.remove(&next_name);
            if !is_full(&error) {
                return Err(io_error(&next_name)(error));
            }
            // There is room where it is.
            write_in_place(vfs, &link.file, &tail).map_err(io_error(&name))?;
            return Ok(None);
        }
    };
    if tail.known > 0 {
        link.end = Some(tail.known);
    } else {
        strays.push(link.id);
        links.pop();
    }
    links.push(Link {
        id: next,
        file,
        header: tail.header,
        end: None,
    });
    Ok(Some(next))
}

fn find_tail(link: &Link<impl VfsFile>, next: u32) -> io::Result<Option<Tail>> {
    let (id, salt) = (link.id, link.header.salt);
    let segment = id;
    // A footer is written when all before it is durable.
    if read_footer(&link.file, Place { salt, segment })?.is_some() {
        return Ok(None);
    }
    let mut bytes = read(&link.file, 0, usize::MAX)?;
    let extent = extent(&bytes, salt, id);
    let mut known = known_durable(&bytes, salt, id, extent.end);
    if link.header.previous == 0 {
        // The header of the first segment is durable before anything is written behind it.
        known = known.max(HEADER_LEN);
    }
    // That a segment is damaged is said when it is read.
    if extent.damaged || known.max(HEADER_LEN) >= extent.end {
        return Ok(None);
    }
    bytes.truncate(extent.end as usize);
    let mut header = Header {
        segment: next,
        ..link.header
    };
    if known > 0 {
        (header.previous, header.previous_end) = (id, known);
        records(&bytes, HEADER_LEN, known, |decoded, _| {
            header.position += u64::from(decoded.last);
        });
    }
    Ok(Some(Tail {
        bytes,
        known,
        header,
    }))
}

fn write_segment<V: Vfs>(vfs: &V, name: &str, tail: &Tail) -> io::Result<V::File> {
    let Tail { bytes, header, .. } = tail;
    let start = tail.known.max(HEADER_LEN) as usize;
    let mut segment = header.encode();
    segment.extend_from_slice(bytes.get(start..).unwrap_or_default());
    reframe(&mut segment, header.salt, header.segment, None);
    let file = vfs.create(name)?;
    file.preallocate(segment.len() as u64)?;
    let (header, groups) = segment.split_at(HEADER_LEN as usize);
    file.write_at(HEADER_LEN.into(), groups)?;
    // What it stands for may be durable where it was: with its header the file counts in place of that.
    file.sync_data()?;
    file.write_at(0, header)?;
    file.sync_data()?;
    vfs.sync_dir()?;
    Ok(file)
}

/// Writes the same bytes where they are, so that the system takes them for new.
fn write_in_place<V: Vfs>(vfs: &V, file: &V::File, tail: &Tail) -> io::Result<()> {
    let bytes = tail.bytes.get(tail.known as usize..).unwrap_or_default();
    file.write_at(tail.known.into(), bytes)?;
    file.sync_data()?;
    vfs.sync_dir()
}
