use core::str;

use ascii::AsciiStr;
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

    /// Everything that is left.
    #[inline]
    pub(crate) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
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

    #[inline]
    fn utf8(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        // Most strings are ASCII, which takes a fraction of the time to find out.
        if let Ok(string) = AsciiStr::from_ascii(bytes) {
            return Ok(string.as_str());
        }
        str::from_utf8(bytes).map_err(|_| DecodeError::IllFormedUtf8(field))
    }

    /// A UTF-8 Encoded String [MQTT5-1.5.4].
    #[inline]
    pub(crate) fn string(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let string = self.utf8(field)?;
        if has_null(string) {
            return Err(DecodeError::NullCharacter(field));
        }
        Ok(string)
    }

    #[inline]
    pub(crate) fn topic_name(&mut self, field: Field) -> Result<TopicName<'a>, DecodeError> {
        match TopicName::new(self.utf8(field)?) {
            Ok(topic_name) => Ok(topic_name),
            Err(TopicNameError::Nul) => Err(DecodeError::NullCharacter(field)),
            Err(_) => Err(DecodeError::TopicName(field)),
        }
    }

    #[inline]
    pub(crate) fn topic_filter(&mut self) -> Result<TopicFilter<'a>, DecodeError> {
        match TopicFilter::new(self.utf8(Field::TopicFilter)?) {
            Ok(topic_filter) => Ok(topic_filter),
            Err(TopicFilterError::Nul) => Err(DecodeError::NullCharacter(Field::TopicFilter)),
            Err(_) => Err(DecodeError::TopicFilter),
        }
    }

    /// A Variable Byte Integer in its shortest form [MQTT5-1.5.5-1].
    #[inline]
    pub(crate) fn variable_byte_integer(&mut self, field: Field) -> Result<u32, DecodeError> {
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
    #[inline]
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

/// Whether the null character is in it; looks at eight bytes at a time, at some twice.
#[inline]
pub(crate) fn has_null(string: &str) -> bool {
    let bytes = string.as_bytes();
    let Some(last) = bytes.last_chunk() else {
        return bytes.contains(&0);
    };
    let zeros = bytes
        .as_chunks()
        .0
        .iter()
        .fold(zeros(*last), |found, word| found | zeros(*word));
    zeros != 0
}

/// Not 0 if one of eight bytes is: the borrow of a zero byte sets its highest bit.
#[inline]
const fn zeros(word: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(word);
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
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
        match *bytes {
            [byte @ ..0x80, ..] => Ok(Some(Self {
                value: byte.into(),
                len: 1,
            })),
            [low, high @ ..0x80, ..] => Ok(Some(Self {
                value: u32::from(low & 0x7f) | u32::from(high) << 7,
                len: 2,
            })),
            _ => Self::read_long(bytes),
        }
    }

    #[inline(never)]
    fn read_long(bytes: &[u8]) -> Result<Option<Self>, TooLong> {
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                let len = index + 1;
                return Ok(Some(Self { value, len }));
            }
        }
        if bytes.len() < 4 {
            Ok(None)
        } else {
            Err(TooLong)
        }
    }

    /// True when no shorter form has the same value.
    #[inline]
    pub(crate) const fn minimal(self) -> bool {
        // The last byte of a longer form has no bits of the value.
        self.len == 1 || self.value >> (7 * (self.len - 1)) != 0
    }
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
