//! Reads the language of the golden vectors, which `tests/vectors/README.md` describes.

use std::path::Path;

use avocet_codec::Version;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Packet(String),
    Refused(Option<u8>),
    Incomplete,
}

pub(crate) struct Vector {
    pub(crate) place: String,
    pub(crate) versions: Vec<Version>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

/// The vectors of the text files of a folder, in the order of their names.
pub(crate) fn vectors(folder: &Path) -> Vec<Vector> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let mut vectors = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                vectors.push(parse_line(format!("{name}:{}", number + 1), line));
            }
        }
    }
    vectors
}

fn parse_line(place: String, line: &str) -> Vector {
    let (versions, rest) = line
        .split_once(": ")
        .unwrap_or_else(|| panic!("{place}: no version"));
    let versions = match versions {
        "all" => vec![Version::V3_1, Version::V3_1_1, Version::V5],
        list => list
            .split(", ")
            .map(|name| parse_version(&place, name))
            .collect(),
    };
    // None of the three marks is a token of the bytes.
    let mark = rest
        .match_indices([' '])
        .map(|(at, _)| at + 1)
        .find(|&at| rest[at..].starts_with(['=', '!', '~']) && !inside_quotes(&rest[..at]))
        .unwrap_or_else(|| panic!("{place}: no expectation"));
    let (bytes, expectation) = rest.split_at(mark);
    let expected = match expectation.split_at(1) {
        ("=", text) => Expected::Packet(text.trim().to_owned()),
        ("~", "") => Expected::Incomplete,
        ("!", "") => Expected::Refused(None),
        ("!", code) => {
            let code = code
                .trim()
                .strip_prefix("0x")
                .unwrap_or_else(|| panic!("{place}: code"));
            Expected::Refused(Some(u8::from_str_radix(code, 16).unwrap()))
        }
        _ => panic!("{place}: unknown expectation {expectation:?}"),
    };
    let mut parser = BytesParser {
        place: &place,
        rest: bytes,
    };
    let bytes = parser.sequence(None);
    Vector {
        versions,
        bytes,
        expected,
        place,
    }
}

fn inside_quotes(text: &str) -> bool {
    text.matches('\'').count() % 2 == 1
}

fn parse_version(place: &str, name: &str) -> Version {
    [Version::V3_1, Version::V3_1_1, Version::V5]
        .into_iter()
        .find(|version| version.to_string() == name)
        .unwrap_or_else(|| panic!("{place}: unknown version {name:?}"))
}

struct BytesParser<'a> {
    place: &'a str,
    rest: &'a str,
}

impl BytesParser<'_> {
    /// Reads up to the closing character, or to the end.
    fn sequence(&mut self, until: Option<char>) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            let Some(next) = self.rest.chars().next() else {
                assert_eq!(until, None, "{}: a bracket is open", self.place);
                return bytes;
            };
            if Some(next) == until {
                self.rest = &self.rest[1..];
                return bytes;
            }
            let unit = self.unit(next);
            let times = self.repetitions();
            for _ in 0..times {
                bytes.extend_from_slice(&unit);
            }
        }
    }

    fn unit(&mut self, next: char) -> Vec<u8> {
        match next {
            '[' => {
                self.rest = &self.rest[1..];
                let inner = self.sequence(Some(']'));
                let mut bytes = variable_byte_integer(inner.len());
                bytes.extend(inner);
                bytes
            }
            '{' => {
                self.rest = &self.rest[1..];
                let inner = self.sequence(Some('}'));
                length_prefixed(&inner)
            }
            '\'' => self.quoted(),
            's' => {
                self.rest = &self.rest[1..];
                let inner = self.quoted();
                length_prefixed(&inner)
            }
            _ => {
                let digits = self
                    .rest
                    .find(|c: char| !c.is_ascii_hexdigit())
                    .unwrap_or(self.rest.len());
                assert!(
                    digits > 0 && digits % 2 == 0,
                    "{}: not bytes: {:?}",
                    self.place,
                    self.rest
                );
                let (hex, rest) = self.rest.split_at(digits);
                self.rest = rest;
                (0..digits)
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect()
            }
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        let text = self
            .rest
            .strip_prefix('\'')
            .unwrap_or_else(|| panic!("{}: quote", self.place));
        let (text, rest) = text
            .split_once('\'')
            .unwrap_or_else(|| panic!("{}: quote is open", self.place));
        self.rest = rest;
        text.as_bytes().to_vec()
    }

    fn repetitions(&mut self) -> usize {
        let Some(rest) = self.rest.strip_prefix('*') else {
            return 1;
        };
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (times, rest) = rest.split_at(digits);
        self.rest = rest;
        times
            .parse()
            .unwrap_or_else(|_| panic!("{}: repetitions", self.place))
    }
}

fn length_prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return out;
        }
    }
}
