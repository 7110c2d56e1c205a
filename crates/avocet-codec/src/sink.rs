//! A packet describes its fields once, to a [`Sink`]: first to one that measures and checks, then
//! to one that writes.

use core::mem;

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
    fn section(&mut self, properties: &impl Section);

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
    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    fn binary(&mut self, field: Field, binary: &[u8]) {
        self.check_binary(field, binary);
        self.u16(binary.len() as u16);
        self.put(binary);
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
        let measure = self.remaining_len(version);
        write_fixed_header(self.first_byte(version), measure, measure.frame_len(), out)?;
        self.write_body(version, &mut Writer::new(measure, out));
        Ok(())
    }
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
    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn frame_len(self) -> usize {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.len.saturating_add(1 + variable_byte_integer_len(len))
    }

    #[inline]
    pub(crate) const fn add(&mut self, len: usize) {
        self.len = self.len.saturating_add(len);
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
    fn section(&mut self, properties: &impl Section) {
        let before = mem::take(&mut self.len);
        properties.write_properties(self);
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        if self.has_section {
            self.sections.1 = len;
        } else {
            self.sections.0 = len;
            self.has_section = true;
        }
        self.add(variable_byte_integer_len(len));
        self.add(before);
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

    #[inline]
    fn section(&mut self, properties: &impl Section) {
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
