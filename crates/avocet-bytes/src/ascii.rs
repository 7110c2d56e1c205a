//! Text in one pass: most of what MQTT calls a string is ASCII, and what it must not hold can be looked
//! for in the same bytes at the same time.

use core::str;

/// The bytes as text, if they are ASCII and hold none of these. `None` does not say which it is.
///
/// Some bytes are looked at twice: those behind whole pieces of 16 are in the last piece.
#[inline(always)]
#[must_use]
pub fn ascii_without<const N: usize>(bytes: &[u8], unwanted: [u8; N]) -> Option<&str> {
    if has::<true, N>(bytes, unwanted) {
        return None;
    }
    // SAFETY: `has` finds each byte that is not ASCII, and ASCII is UTF-8.
    Some(unsafe { str::from_utf8_unchecked(bytes) })
}

/// Whether one of these ASCII characters is among the bytes, which may be of any kind.
#[inline(always)]
#[must_use]
pub fn has_any<const N: usize>(bytes: &[u8], unwanted: [u8; N]) -> bool {
    has::<false, N>(bytes, unwanted)
}

/// The bytes as text, if they are at least eight, all ASCII, and in no word of eight there is anything
/// wrong. `None` does not say which it is.
///
/// A word comes with its place, and has its first byte lowest. The last one may share bytes with the one
/// before.
#[inline(always)]
#[must_use]
pub fn ascii_by_words(bytes: &[u8], mut is_well: impl FnMut(usize, u64) -> bool) -> Option<&str> {
    let last = u64::from_le_bytes(*bytes.last_chunk()?);
    let mut at = 0;
    for word in bytes.as_chunks().0 {
        let word = u64::from_le_bytes(*word);
        if word & HIGHEST != 0 || !is_well(at, word) {
            return None;
        }
        at += size_of::<u64>();
    }
    if at != bytes.len() && (last & HIGHEST != 0 || !is_well(bytes.len() - size_of::<u64>(), last))
    {
        return None;
    }
    // SAFETY: each byte is in one of the words, no byte of them has its highest bit, and so all are
    // ASCII, which is UTF-8.
    Some(unsafe { str::from_utf8_unchecked(bytes) })
}

/// The highest bit of each byte.
const HIGHEST: u64 = repeat(0x80);

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether one of these is among the bytes, or with `ASCII` one that is not ASCII.
#[inline(always)]
fn has<const ASCII: bool, const N: usize>(bytes: &[u8], unwanted: [u8; N]) -> bool {
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return has_shortly::<ASCII, N>(bytes, unwanted);
    };
    if bytes.len() <= 2 * first.len() {
        return is_in::<ASCII, N>(first, last, unwanted);
    }
    let (pieces, _) = bytes.as_chunks();
    for piece in pieces {
        if is_in::<ASCII, N>(piece, last, unwanted) {
            return true;
        }
    }
    false
}

/// Without a branch for each byte, so that the compiler looks at all of them at once.
#[inline(always)]
fn is_in<const ASCII: bool, const N: usize>(
    one: &[u8; 16],
    other: &[u8; 16],
    unwanted: [u8; N],
) -> bool {
    let mut found = 0;
    for (&one, &other) in one.iter().zip(other) {
        found |= is::<ASCII, N>(one, unwanted) | is::<ASCII, N>(other, unwanted);
    }
    found != 0
}

/// 1 if the byte is one of these, or with `ASCII` not ASCII.
#[inline(always)]
fn is<const ASCII: bool, const N: usize>(byte: u8, unwanted: [u8; N]) -> u8 {
    let mut found = ASCII & !byte.is_ascii();
    for it in unwanted {
        found |= byte == it;
    }
    found.into()
}

/// The same for less than 16 bytes: two words that may overlap.
#[inline(always)]
fn has_shortly<const ASCII: bool, const N: usize>(bytes: &[u8], unwanted: [u8; N]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let first = marks::<ASCII, N>(u64::from_ne_bytes(*first), unwanted);
        return first | marks::<ASCII, N>(u64::from_ne_bytes(*last), unwanted) != 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let first = u64::from(u32::from_ne_bytes(*first));
        let both = first << 32 | u64::from(u32::from_ne_bytes(*last));
        return marks::<ASCII, N>(both, unwanted) != 0;
    }
    bytes
        .iter()
        .any(|byte| (ASCII && !byte.is_ascii()) || unwanted.contains(byte))
}

/// Not 0 if one of these is among the eight bytes, or with `ASCII` one that is not ASCII.
#[inline(always)]
fn marks<const ASCII: bool, const N: usize>(word: u64, unwanted: [u8; N]) -> u64 {
    let mut marks = if ASCII { word } else { 0 };
    for it in unwanted {
        // The borrow of a byte that is zero sets its highest bit; bytes that have it were none.
        let bytes = word ^ repeat(it);
        marks |= bytes.wrapping_sub(repeat(1)) & !bytes;
    }
    marks & HIGHEST
}
