//! A packet describes its fields once, to a [`Sink`]: first to one that adds up lengths, then to one that
//! fills so much room. If that cannot be, it describes them to one that finds out why, and to one that
//! writes piece by piece.

use avocet_bytes::{Fill, Room, append};
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

    /// Bytes as many as the compiler knows of.
    #[inline(always)]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.put(&bytes);
    }

    /// Takes a length in place of so many bytes, if all it wants is lengths; else false.
    #[inline(always)]
    fn take_len(&mut self, _len: usize) -> bool {
        false
    }

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
        self.array([value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.array(value.to_be_bytes());
    }

    #[inline]
    fn binary(&mut self, field: Field, binary: &[u8]) {
        self.check_binary(field, binary);
        self.bytes(binary);
    }

    /// A string of which is known that it is one of MQTT.
    #[inline]
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes behind their length.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.u16(bytes.len() as u16);
        self.put(bytes);
    }

    #[inline]
    fn string(&mut self, field: Field, string: &str) {
        self.check_string(field, string);
        self.bytes(string.as_bytes());
    }

    #[inline]
    fn variable_byte_integer(&mut self, value: u32) {
        if let 0..0x80 = value {
            self.u8(value as u8);
            return;
        }
        let [a, b, c, d] = variable_byte_integer(value);
        match variable_byte_integer_len(value) {
            1 | 2 => self.array([a, b]),
            3 => self.array([a, b, c]),
            _ => self.array([a, b, c, d]),
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
pub(crate) trait Encode: Sized {
    /// Packet type and flags.
    fn first_byte(&self, version: Version) -> u8;

    fn write_body(&self, version: Version, sink: &mut impl Sink);

    #[inline(always)]
    fn measure<const CHECKED: bool>(&self, version: Version) -> Measure<CHECKED> {
        let mut measure = Measure::default();
        self.write_body(version, &mut measure);
        measure
    }

    #[inline(always)]
    fn frame_len(&self, version: Version) -> usize {
        self.measure::<false>(version).frame_len()
    }

    #[inline(always)]
    fn write(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let measure = self.measure::<false>(version);
        let whole = Whole {
            packet: self,
            version,
            measure,
        };
        if append(out, measure.frame_len(), whole) {
            Ok(())
        } else {
            self.write_apart(version, out)
        }
    }

    /// For packets that cannot be written, and for buffers of many pieces.
    #[cold]
    #[inline(never)]
    fn write_apart(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let measure = self.measure::<true>(version);
        write_fixed_header(self.first_byte(version), measure, measure.frame_len(), out)?;
        self.write_body(version, &mut Writer::new(measure, out));
        Ok(())
    }
}

/// A measured packet.
struct Whole<'p, P> {
    packet: &'p P,
    version: Version,
    measure: Measure<false>,
}

impl<P: Encode> Fill for Whole<'_, P> {
    #[inline(always)]
    fn fill(self, room: &mut Room<'_>) {
        let mut filler = Filler::new(self.measure, room);
        filler.fixed_header(self.packet.first_byte(self.version), self.measure.len());
        self.packet.write_body(self.version, &mut filler);
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
#[inline(never)]
pub(crate) fn write_fixed_header(
    first_byte: u8,
    measure: Measure<true>,
    room: usize,
    out: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let remaining_len = measure.finish()?;
    if out.remaining_mut() < room {
        return Err(EncodeError::OutputFull);
    }
    let [a, b, c, d] = variable_byte_integer(remaining_len);
    match variable_byte_integer_len(remaining_len) {
        1 => out.put_slice(&[first_byte, a]),
        2 => out.put_slice(&[first_byte, a, b]),
        3 => out.put_slice(&[first_byte, a, b, c]),
        _ => out.put_slice(&[first_byte, a, b, c, d]),
    }
    Ok(())
}

/// Fills the room that was measured before.
pub(crate) struct Filler<'f, 'r> {
    room: &'f mut Room<'r>,
    /// The lengths of the sections to come.
    sections: (u32, u32),
}

impl<'f, 'r> Filler<'f, 'r> {
    #[inline(always)]
    pub(crate) const fn new(measure: Measure<false>, room: &'f mut Room<'r>) -> Self {
        Self {
            room,
            sections: measure.sections,
        }
    }

    #[inline(always)]
    pub(crate) fn fixed_header(&mut self, first_byte: u8, remaining_len: usize) {
        match remaining_len {
            0..0x80 => self.array([first_byte, remaining_len as u8]),
            0x80..0x4000 => {
                let [low, high, ..] = variable_byte_integer(remaining_len as u32);
                self.array([first_byte, low, high]);
            }
            _ if remaining_len > REMAINING_LENGTH_MAX as usize => self.room.refuse(),
            _ => {
                self.u8(first_byte);
                self.variable_byte_integer(remaining_len as u32);
            }
        }
    }
}

impl Sink for Filler<'_, '_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.room.put(bytes);
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.room.put_array(bytes);
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.room.put_with_len(bytes);
    }

    #[inline(always)]
    fn string(&mut self, _field: Field, string: &str) {
        self.room.put_text_with_len(string);
    }

    #[inline(always)]
    fn long_section(&mut self, properties: &impl Section) {
        let (len, next) = self.sections;
        self.sections.0 = next;
        self.variable_byte_integer(len);
        properties.write_properties(self);
    }

    #[inline(always)]
    fn fail(&mut self, _error: EncodeError) {
        self.room.refuse();
    }

    // What cannot be put is left out.
    #[inline(always)]
    fn check_string(&mut self, _field: Field, _string: &str) {}

    #[inline(always)]
    fn check_binary(&mut self, _field: Field, _binary: &[u8]) {}
}

/// Adds up lengths, and with `CHECKED` keeps the first error.
#[derive(Clone, Copy, Default)]
pub(crate) struct Measure<const CHECKED: bool> {
    len: usize,
    error: Option<EncodeError>,
    /// The lengths of the sections in their order; only a CONNECT has two.
    sections: (u32, u32),
    has_section: bool,
}

impl<const CHECKED: bool> Measure<CHECKED> {
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

    /// What is longer than memory, because its fields share their bytes, is too long in any case. No
    /// packet can be described that reaches the end of 64 bits.
    #[inline]
    pub(crate) const fn add(&mut self, len: usize) {
        self.len = if cfg!(target_pointer_width = "64") {
            self.len.wrapping_add(len)
        } else {
            self.len.saturating_add(len)
        };
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

impl<const CHECKED: bool> Sink for Measure<CHECKED> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.add(bytes.len());
    }

    #[inline(always)]
    fn take_len(&mut self, len: usize) -> bool {
        if !CHECKED {
            self.add(len);
        }
        !CHECKED
    }

    #[inline(always)]
    fn long_section(&mut self, properties: &impl Section) {
        let section = if CHECKED {
            measure_section(properties)
        } else {
            let mut section = Self::default();
            properties.write_properties(&mut section);
            section
        };
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
        if CHECKED {
            self.error.get_or_insert(error);
        }
    }

    #[inline]
    fn check_string(&mut self, field: Field, string: &str) {
        self.check_binary(field, string.as_bytes());
        if CHECKED && has_null(string) {
            self.fail(EncodeError::NullCharacter(field));
        }
    }

    #[inline]
    fn check_binary(&mut self, field: Field, binary: &[u8]) {
        if CHECKED && binary.len() > usize::from(u16::MAX) {
            self.fail(EncodeError::FieldTooLong(field));
        }
    }
}

/// Apart, so that what most packets are without takes no space in between.
#[inline(never)]
fn measure_section<const CHECKED: bool>(properties: &impl Section) -> Measure<CHECKED> {
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
    pub(crate) const fn new(measure: Measure<true>, out: &'o mut B) -> Self {
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
