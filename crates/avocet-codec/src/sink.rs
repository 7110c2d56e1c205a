//! A packet describes its fields once, to a [`Sink`]: to an array on the stack if it is short, and
//! else first to one that measures and checks, then to one that writes.

use bytes::BufMut;

use crate::REMAINING_LENGTH_MAX;
use crate::error::{EncodeError, Field};
use crate::packet::PacketType;
use crate::property::Property;
use crate::reader::{has_null, variable_byte_integer_len};
use crate::reason_code::ReasonCode;
use crate::version::Version;

pub(crate) trait Sink: Sized {
    fn put(&mut self, bytes: &[u8]);

    /// A section of properties behind its length.
    #[inline(always)]
    fn section(&mut self, properties: &impl Section) {
        if properties.is_plainly_empty() {
            self.u8(0);
        } else {
            self.long_section(properties);
        }
    }

    fn long_section(&mut self, properties: &impl Section);

    /// What is wrong with the packet; the first one counts.
    fn fail(&mut self, error: EncodeError);

    fn check_string(&mut self, field: Field, string: &str);

    fn check_binary(&mut self, field: Field, binary: &[u8]);

    #[inline]
    fn require(&mut self, condition: bool, error: EncodeError) {
        if !condition {
            self.fail(error);
        }
    }

    #[inline]
    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    fn binary(&mut self, field: Field, binary: &[u8]) {
        self.check_binary(field, binary);
        self.u16(binary.len() as u16);
        self.put(binary);
    }

    /// A string of which is known that it is one of MQTT.
    #[inline]
    fn text(&mut self, text: &str) {
        self.u16(text.len() as u16);
        self.put(text.as_bytes());
    }

    #[inline]
    fn string(&mut self, field: Field, string: &str) {
        self.check_string(field, string);
        self.u16(string.len() as u16);
        self.put(string.as_bytes());
    }

    #[inline]
    fn variable_byte_integer(&mut self, value: u32) {
        if let 0..0x80 = value {
            self.u8(value as u8);
            return;
        }
        let [a, b, c, d] = variable_byte_integer(value);
        match variable_byte_integer_len(value) {
            1 | 2 => self.put(&[a, b]),
            3 => self.put(&[a, b, c]),
            _ => self.put(&[a, b, c, d]),
        }
    }

    #[inline]
    fn reason_code(&mut self, code: ReasonCode, packet_type: PacketType) {
        self.require(
            code.is_allowed_in(packet_type),
            EncodeError::ReasonCode(code),
        );
        self.u8(code as u8);
    }

    #[inline(always)]
    fn property(&mut self, property: Property<'_>) {
        property.write(self);
    }
}

/// Properties, without their length.
pub(crate) trait Section {
    /// What can be seen without reading through properties; false says nothing.
    fn is_plainly_empty(&self) -> bool;

    fn write_properties(&self, sink: &mut impl Sink);
}

/// A Control Packet without its fixed header.
pub(crate) trait Encode {
    /// Packet type and flags.
    fn first_byte(&self, version: Version) -> u8;

    fn write_body(&self, version: Version, sink: &mut impl Sink);

    #[inline(always)]
    fn remaining_len(&self, version: Version) -> Measure {
        let mut measure = Measure::default();
        self.write_body(version, &mut measure);
        measure
    }

    #[inline(always)]
    fn frame_len(&self, version: Version) -> usize {
        self.remaining_len(version).frame_len()
    }

    #[inline(always)]
    fn write(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let mut bytes = SHORT;
        let mut short = Short::new(&mut bytes);
        self.write_body(version, &mut short);
        match short.finish() {
            Some(body) => write_short(self.first_byte(version), body, &[], out),
            None => self.write_measured(version, out),
        }
    }

    /// In two steps, for packets that are long or cannot be written.
    #[inline(never)]
    fn write_measured(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let measure = self.remaining_len(version);
        write_fixed_header(self.first_byte(version), measure, measure.frame_len(), out)?;
        self.write_body(version, &mut Writer::new(measure, out));
        Ok(())
    }
}

/// Writes a packet of which all between the fixed header and the payload is there.
#[inline(always)]
pub(crate) fn write_short(
    first_byte: u8,
    body: &[u8],
    payload: &[u8],
    out: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let measure = Measure::of(body.len() + payload.len());
    write_fixed_header(first_byte, measure, measure.frame_len(), out)?;
    out.put_slice(body);
    out.put_slice(payload);
    Ok(())
}

/// Writes a packet that needs no measuring.
#[inline]
pub(crate) fn write_packet(bytes: &[u8], out: &mut impl BufMut) -> Result<(), EncodeError> {
    if out.remaining_mut() < bytes.len() {
        return Err(EncodeError::OutputFull);
    }
    out.put_slice(bytes);
    Ok(())
}

/// Writes the first two to five bytes, once everything is known to be well.
#[inline(always)]
pub(crate) fn write_fixed_header(
    first_byte: u8,
    measure: Measure,
    room: usize,
    out: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let remaining_len = measure.finish()?;
    if out.remaining_mut() < room {
        return Err(EncodeError::OutputFull);
    }
    match remaining_len {
        0..0x80 => out.put_slice(&[first_byte, remaining_len as u8]),
        0x80..0x4000 => {
            let [low, high, ..] = variable_byte_integer(remaining_len);
            out.put_slice(&[first_byte, low, high]);
        }
        _ => write_long_fixed_header(first_byte, remaining_len, out),
    }
    Ok(())
}

#[inline(never)]
fn write_long_fixed_header(first_byte: u8, remaining_len: u32, out: &mut impl BufMut) {
    let [a, b, c, d] = variable_byte_integer(remaining_len);
    match variable_byte_integer_len(remaining_len) {
        1 | 2 => out.put_slice(&[first_byte, a, b]),
        3 => out.put_slice(&[first_byte, a, b, c]),
        _ => out.put_slice(&[first_byte, a, b, c, d]),
    }
}

/// Most packets are shorter than this, payloads aside.
const SHORT_MAX: usize = 256;

/// Writes a short packet in one step, to where its length can be seen before it leaves.
pub(crate) struct Short<'b> {
    // Elsewhere, so that the length can stay in a register.
    bytes: &'b mut [u8; SHORT_MAX],
    len: usize,
    /// False once it is too long, or cannot be written.
    well: bool,
}

/// Where a short packet is written.
pub(crate) const SHORT: [u8; SHORT_MAX] = [0; SHORT_MAX];

impl<'b> Short<'b> {
    #[inline(always)]
    pub(crate) const fn new(bytes: &'b mut [u8; SHORT_MAX]) -> Self {
        Self {
            bytes,
            len: 0,
            well: true,
        }
    }

    /// The bytes; none if it takes another way to write them, or to say why not.
    #[inline(always)]
    pub(crate) fn finish(self) -> Option<&'b [u8]> {
        if self.well {
            self.bytes.get(..self.len)
        } else {
            None
        }
    }
}

impl Sink for Short<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..) {
            Some(room) if room.len() >= bytes.len() => {
                copy(bytes, room);
                self.len += bytes.len();
            }
            _ => self.well = false,
        }
    }

    #[inline(always)]
    fn long_section(&mut self, properties: &impl Section) {
        let at = self.len;
        self.u8(0);
        let start = self.len;
        properties.write_properties(self);
        match (self.bytes.get_mut(at), self.len - start) {
            (Some(len), value @ 0..0x80) => *len = value as u8,
            _ => self.well = false,
        }
    }

    #[inline]
    fn fail(&mut self, _error: EncodeError) {
        self.well = false;
    }

    #[inline(always)]
    fn check_string(&mut self, _field: Field, string: &str) {
        if has_null(string) {
            self.well = false;
        }
    }

    // What fits is not too long for its field.
    #[inline(always)]
    fn check_binary(&mut self, _field: Field, _binary: &[u8]) {}
}

/// Copies to the front of what is large enough. Most strings are two pieces that may overlap, which
/// takes less than to call for a copy of any length.
#[inline(always)]
fn copy(bytes: &[u8], room: &mut [u8]) {
    let Some(room) = room.get_mut(..bytes.len()) else {
        return;
    };
    let both = (8..=32).contains(&bytes.len());
    let copied = both && (copy_ends::<16>(bytes, room) || copy_ends::<8>(bytes, room));
    if !copied {
        room.copy_from_slice(bytes);
    }
}

/// Copies the first and the last `N` bytes; false if there are fewer.
#[inline(always)]
fn copy_ends<const N: usize>(bytes: &[u8], room: &mut [u8]) -> bool {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return false;
    };
    if let Some(room) = room.first_chunk_mut() {
        *room = *first;
    }
    if let Some(room) = room.last_chunk_mut() {
        *room = *last;
    }
    true
}

/// Adds up lengths and keeps the first error.
#[derive(Clone, Copy, Default)]
pub(crate) struct Measure {
    len: usize,
    error: Option<EncodeError>,
    /// The lengths of the sections in their order; only a CONNECT has two.
    sections: (u32, u32),
    has_section: bool,
}

impl Measure {
    /// What was measured elsewhere.
    #[inline]
    pub(crate) const fn of(len: usize) -> Self {
        Self {
            len,
            error: None,
            sections: (0, 0),
            has_section: false,
        }
    }

    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn frame_len(self) -> usize {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.len.saturating_add(1 + variable_byte_integer_len(len))
    }

    /// Nothing is lost when it wraps: no payload, and no number of fields that memory can hold, is
    /// so long, and a longer field is an error of its own.
    #[inline]
    pub(crate) const fn add(&mut self, len: usize) {
        self.len = self.len.wrapping_add(len);
    }

    #[inline]
    pub(crate) fn finish(self) -> Result<u32, EncodeError> {
        match (self.error, u32::try_from(self.len)) {
            (Some(error), _) => Err(error),
            (None, Ok(len @ 0..=REMAINING_LENGTH_MAX)) => Ok(len),
            (None, _) => Err(EncodeError::TooLarge),
        }
    }
}

impl Sink for Measure {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.add(bytes.len());
    }

    #[inline(always)]
    fn long_section(&mut self, properties: &impl Section) {
        let section = measure_section(properties);
        let len = u32::try_from(section.len).unwrap_or(u32::MAX);
        if self.has_section {
            self.sections.1 = len;
        } else {
            self.sections.0 = len;
            self.has_section = true;
        }
        self.add(variable_byte_integer_len(len));
        self.add(section.len);
        if let Some(error) = section.error {
            self.fail(error);
        }
    }

    #[inline]
    fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    #[inline]
    fn check_string(&mut self, field: Field, string: &str) {
        self.check_binary(field, string.as_bytes());
        if has_null(string) {
            self.fail(EncodeError::NullCharacter(field));
        }
    }

    #[inline]
    fn check_binary(&mut self, field: Field, binary: &[u8]) {
        if binary.len() > usize::from(u16::MAX) {
            self.fail(EncodeError::FieldTooLong(field));
        }
    }
}

/// Apart, so that what most packets are without takes no space in between.
#[inline(never)]
fn measure_section(properties: &impl Section) -> Measure {
    let mut measure = Measure::default();
    properties.write_properties(&mut measure);
    measure
}

/// Writes what was measured before.
pub(crate) struct Writer<'o, B> {
    out: &'o mut B,
    /// The lengths of the sections to come.
    sections: (u32, u32),
}

impl<'o, B: BufMut> Writer<'o, B> {
    #[inline]
    pub(crate) const fn new(measure: Measure, out: &'o mut B) -> Self {
        Self {
            out,
            sections: measure.sections,
        }
    }
}

impl<B: BufMut> Sink for Writer<'_, B> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    #[inline(never)]
    fn long_section(&mut self, properties: &impl Section) {
        let (len, next) = self.sections;
        self.sections.0 = next;
        self.variable_byte_integer(len);
        properties.write_properties(self);
    }

    #[inline]
    fn fail(&mut self, error: EncodeError) {
        debug_assert!(false, "written although it was measured as {error:?}");
    }

    #[inline]
    fn check_string(&mut self, _field: Field, _string: &str) {}

    #[inline]
    fn check_binary(&mut self, _field: Field, _binary: &[u8]) {}
}

/// The bytes of the shortest form, and zeros behind them.
#[inline]
const fn variable_byte_integer(value: u32) -> [u8; 4] {
    const fn group(rest: u32) -> u8 {
        let more = if rest >= 0x80 { 0x80 } else { 0 };
        (rest & 0x7f) as u8 | more
    }
    [
        group(value),
        group(value >> 7),
        group(value >> 14),
        group(value >> 21),
    ]
}

/// The public face of [`Encode`].
macro_rules! encode_methods {
    ($packet:ident) => {
        impl $packet<'_> {
            /// How many bytes [`encode`](Self::encode) writes, fixed header included.
            pub fn encoded_len(&self, version: crate::Version) -> usize {
                crate::sink::Encode::frame_len(self, version)
            }

            /// Writes the whole packet; on an error, nothing.
            #[inline(never)]
            pub fn encode(
                &self,
                version: crate::Version,
                out: &mut impl bytes::BufMut,
            ) -> Result<(), crate::EncodeError> {
                crate::sink::Encode::write(self, version, out)
            }
        }
    };
}

pub(crate) use encode_methods;
