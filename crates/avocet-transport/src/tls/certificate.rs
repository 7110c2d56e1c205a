//! What an X.509 certificate says of its owner and its time: a reader of the few fields that
//! identities and expiry need. Whether to trust it is decided elsewhere.

use std::fmt::Write as _;

/// Whom a certificate names, and until when.
///
/// Texts of the certificate that are not UTF-8 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateNames {
    /// The Common Name of its subject; the last one if there are several, as it is the most
    /// specific.
    pub common_name: Option<String>,
    /// Its Subject Alternative Names: DNS names, mail addresses, URIs and IP addresses, in order.
    pub alternative_names: Vec<String>,
    /// The Distinguished Name of its subject as RFC 4514 writes it: `CN=pump 7,O=Plant,C=DE`.
    pub distinguished_name: String,
    /// The first second in which it is not valid any more, in UTC since 1970.
    pub not_after: i64,
}

impl CertificateNames {
    /// Reads the names out of a certificate in DER; `None` if it is not one.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut file = Der(der);
        let mut certificate = Der(file.expect(SEQUENCE)?);
        let mut fields = Der(certificate.expect(SEQUENCE)?);
        if fields.peek() == Some(VERSION) {
            fields.next()?;
        }
        let _serial_number = fields.expect(INTEGER)?;
        let _signature = fields.expect(SEQUENCE)?;
        let _issuer = fields.expect(SEQUENCE)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let _not_before = validity.next()?;
        let (tag, not_after) = validity.next()?;
        let mut names = Self {
            not_after: time(tag, not_after)?.saturating_add(1),
            ..Self::default()
        };
        names.read_subject(fields.expect(SEQUENCE)?)?;
        let _public_key = fields.expect(SEQUENCE)?;
        while let Some((tag, value)) = fields.next() {
            if tag == EXTENSIONS {
                let mut extensions = Der(Der(value).expect(SEQUENCE)?);
                while let Some(extension) = extensions.expect(SEQUENCE) {
                    names.read_extension(extension)?;
                }
            }
        }
        Some(names)
    }

    fn read_subject(&mut self, subject: &[u8]) -> Option<()> {
        let mut parts = Vec::new();
        let mut sets = Der(subject);
        while let Some(set) = sets.expect(SET) {
            let mut joined = String::new();
            let mut attributes = Der(set);
            while let Some(attribute) = attributes.expect(SEQUENCE) {
                let mut attribute = Der(attribute);
                let kind = attribute.expect(OBJECT_ID)?;
                let (tag, value) = attribute.next()?;
                let Some(value) = text(tag, value) else {
                    continue;
                };
                if !joined.is_empty() {
                    joined.push('+');
                }
                match KINDS.iter().find(|(id, _)| *id == kind) {
                    Some((_, name)) => joined.push_str(name),
                    None => write_object_id(&mut joined, kind),
                }
                joined.push('=');
                escape(&mut joined, &value);
                if kind == COMMON_NAME {
                    self.common_name = Some(value);
                }
            }
            if !joined.is_empty() {
                parts.push(joined);
            }
        }
        parts.reverse();
        self.distinguished_name = parts.join(",");
        Some(())
    }

    fn read_extension(&mut self, extension: &[u8]) -> Option<()> {
        let mut extension = Der(extension);
        if extension.expect(OBJECT_ID)? != SUBJECT_ALTERNATIVE_NAME {
            return Some(());
        }
        let (mut tag, mut value) = extension.next()?;
        if tag == BOOLEAN {
            (tag, value) = extension.next()?;
        }
        if tag != OCTET_STRING {
            return None;
        }
        let mut names = Der(Der(value).expect(SEQUENCE)?);
        while let Some((tag, value)) = names.next() {
            let name = match tag {
                MAIL | DNS | URI => std::str::from_utf8(value).ok().map(str::to_owned),
                IP => address(value),
                _ => None,
            };
            self.alternative_names.extend(name);
        }
        Some(())
    }
}

/// When a certificate revocation list in DER is over, in seconds since 1970; `None` if it does not say,
/// or is none.
pub(crate) fn next_update(der: &[u8]) -> Option<i64> {
    let mut file = Der(der);
    let mut list = Der(file.expect(SEQUENCE)?);
    let mut fields = Der(list.expect(SEQUENCE)?);
    let _version = fields.expect(INTEGER);
    let _signature = fields.expect(SEQUENCE)?;
    let _issuer = fields.expect(SEQUENCE)?;
    let _this_update = fields.next()?;
    let (tag, next_update) = fields.next()?;
    Some(time(tag, next_update)?.saturating_add(1))
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The attributes that RFC 4514 has names for.
const KINDS: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        "DC",
    ),
];

/// Values that stand one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (len, rest) = match usize::from(*first) {
            short @ 0..=0x7f => (short, rest),
            // Three bytes of length are more than a certificate that TLS carries needs.
            long @ 0x81..=0x83 => {
                let (len, rest) = rest.split_at_checked(long - 0x80)?;
                let len = len
                    .iter()
                    .fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((*tag, value))
    }

    /// The next value, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut behind = Der(self.0);
        let (found, value) = behind.next()?;
        (found == tag).then(|| {
            self.0 = behind.0;
            value
        })
    }
}

/// A string of one of the types that names have.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, IA5String: the latter are ASCII.
        0x0c | 0x12 | 0x13 | 0x16 => std::str::from_utf8(value).ok().map(str::to_owned),
        // TeletexString, as it is used: Latin-1.
        0x14 => Some(value.iter().copied().map(char::from).collect()),
        // BMPString: UTF-16.
        0x1e => {
            let units = value
                .chunks_exact(2)
                .filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

fn escape(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let special = match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => index == 0 || index == last,
            '#' => index == 0,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        if character == '\0' {
            out.push_str("\\00");
        } else {
            out.push(character);
        }
    }
}

fn write_object_id(out: &mut String, id: &[u8]) {
    let mut number: u64 = 0;
    let mut is_first = true;
    for byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // Writing to a string does not fail.
        let _ = if is_first {
            let root = (number / 40).min(2);
            write!(out, "{root}.{}", number - root * 40)
        } else {
            write!(out, ".{number}")
        };
        is_first = false;
        number = 0;
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` in seconds since 1970 [RFC 5280, 4.1.2.5].
fn time(tag: u8, value: &[u8]) -> Option<i64> {
    let digits = value.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let mut pairs = rest.chunks_exact(2).map(number);
    let mut next = || pairs.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok()?;
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all_digits)
}

/// Days since 1970 in the Gregorian calendar; a year begins in March here, so that the leap day is
/// its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
