use core::str;

use avocet_bytes::{ascii_without, has_any};
use avocet_topic::{TopicFilter, TopicFilterError, TopicName, TopicNameError};

use crate::error::{DecodeError, Field};
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::reason_code::ReasonCode;

/// Takes primitives off the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Everything that is left.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], DecodeError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated(field));
        };
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: Field) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: Field) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: Field) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16(Field::PacketId)?).ok_or(DecodeError::PacketIdZero)
    }

    /// A Reason Code that packets of this type may have.
    #[inline]
    pub(crate) fn reason_code(
        &mut self,
        packet_type: PacketType,
    ) -> Result<ReasonCode, DecodeError> {
        let byte = self.u8(Field::ReasonCode)?;
        match ReasonCode::from_u8(byte) {
            Some(code) if code.is_allowed_in(packet_type) => Ok(code),
            _ => Err(DecodeError::ReasonCode(byte)),
        }
    }

    #[inline]
    fn take(&mut self, len: usize, field: Field) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated(field));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Binary Data [MQTT5-1.5.6].
    #[inline]
    pub(crate) fn binary(&mut self, field: Field) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(field)?;
        self.take(len.into(), field)
    }

    /// A UTF-8 Encoded String [MQTT5-1.5.4].
    #[inline(always)]
    pub(crate) fn string(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        string(bytes).ok_or_else(|| refuse_string(bytes, field))
    }

    #[inline(always)]
    pub(crate) fn topic_name(&mut self, field: Field) -> Result<TopicName<'a>, DecodeError> {
        topic_name(self.binary(field)?, field)
    }

    #[inline(always)]
    pub(crate) fn topic_filter(&mut self) -> Result<TopicFilter<'a>, DecodeError> {
        let bytes = self.binary(Field::TopicFilter)?;
        TopicFilter::from_utf8(bytes).ok_or_else(|| refuse_topic_filter(bytes))
    }

    /// A Variable Byte Integer in its shortest form [MQTT5-1.5.5-1].
    #[inline]
    pub(crate) fn variable_byte_integer(&mut self, field: Field) -> Result<u32, DecodeError> {
        if let [value @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok((*value).into());
        }
        self.long_variable_byte_integer(field)
    }

    #[inline(never)]
    fn long_variable_byte_integer(&mut self, field: Field) -> Result<u32, DecodeError> {
        match VariableByteInteger::read(self.rest) {
            Ok(Some(integer)) if !integer.minimal() => {
                Err(DecodeError::VariableByteIntegerNotMinimal(field))
            }
            Ok(Some(integer)) => {
                self.rest = self.rest.get(integer.len..).unwrap_or_default();
                Ok(integer.value)
            }
            Ok(None) => Err(DecodeError::Truncated(field)),
            Err(TooLong) => Err(DecodeError::VariableByteIntegerTooLong(field)),
        }
    }

    /// The section behind a Property Length.
    #[inline(always)]
    pub(crate) fn properties(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.variable_byte_integer(Field::PropertyLength)?;
        self.take(len as usize, Field::PropertyLength)
    }

    /// Nothing may be left.
    #[inline]
    pub(crate) const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }
}

/// Not inlined, as it takes and returns what fits into registers; what is wrong with the bytes is asked
/// afterwards.
#[inline(never)]
fn string(bytes: &[u8]) -> Option<&str> {
    ascii_without(bytes, [0]).or_else(|| other_string(bytes))
}

/// The same for what is not ASCII.
#[inline(never)]
fn other_string(bytes: &[u8]) -> Option<&str> {
    let string = str::from_utf8(bytes).ok();
    string.filter(|string| !has_null(string))
}

/// Inlined, as there is one in most packets.
#[inline(always)]
pub(crate) fn topic_name(bytes: &[u8], field: Field) -> Result<TopicName<'_>, DecodeError> {
    TopicName::from_utf8(bytes).ok_or_else(|| refuse_topic_name(bytes, field))
}

#[cold]
fn refuse_string(bytes: &[u8], field: Field) -> DecodeError {
    match str::from_utf8(bytes) {
        Ok(_) => DecodeError::NullCharacter(field),
        Err(_) => DecodeError::IllFormedUtf8(field),
    }
}

#[cold]
fn refuse_topic_name(bytes: &[u8], field: Field) -> DecodeError {
    match str::from_utf8(bytes).map(TopicName::new) {
        Err(_) => DecodeError::IllFormedUtf8(field),
        Ok(Err(TopicNameError::Nul)) => DecodeError::NullCharacter(field),
        Ok(_) => DecodeError::TopicName(field),
    }
}

#[cold]
fn refuse_topic_filter(bytes: &[u8]) -> DecodeError {
    match str::from_utf8(bytes).map(TopicFilter::new) {
        Err(_) => DecodeError::IllFormedUtf8(Field::TopicFilter),
        Ok(Err(TopicFilterError::Nul)) => DecodeError::NullCharacter(Field::TopicFilter),
        Ok(_) => DecodeError::TopicFilter,
    }
}

/// Whether the null character is in it.
#[inline(never)]
pub(crate) fn has_null(string: &str) -> bool {
    has_any(string.as_bytes(), [0])
}

/// A Variable Byte Integer as it stands on the wire [MQTT5-1.5.5].
#[derive(Clone, Copy)]
pub(crate) struct VariableByteInteger {
    pub(crate) value: u32,
    /// How many bytes it takes, 1 to 4.
    pub(crate) len: usize,
}

/// More than four bytes.
pub(crate) struct TooLong;

impl VariableByteInteger {
    /// None when the bytes end before the integer does.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, TooLong> {
        let (value, len) = match *bytes {
            [a @ ..0x80, ..] => (bits([a]), 1),
            [a, b @ ..0x80, ..] => (bits([a, b]), 2),
            [a, b, c @ ..0x80, ..] => (bits([a, b, c]), 3),
            [a, b, c, d @ ..0x80, ..] => (bits([a, b, c, d]), 4),
            [_, _, _, _, ..] => return Err(TooLong),
            _ => return Ok(None),
        };
        Ok(Some(Self { value, len }))
    }

    /// True when no shorter form has the same value.
    #[inline]
    pub(crate) const fn minimal(self) -> bool {
        // The last byte of a longer form has no bits of the value.
        self.len == 1 || self.value >> (7 * (self.len - 1)) != 0
    }
}

/// Seven of each byte, the lowest first.
#[inline]
fn bits<const N: usize>(bytes: [u8; N]) -> u32 {
    bytes
        .iter()
        .rfold(0, |bits, byte| bits << 7 | u32::from(byte & 0x7f))
}

/// How many bytes the shortest form takes; 4 for values that have none.
#[inline]
pub(crate) const fn variable_byte_integer_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
