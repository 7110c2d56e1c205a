//! What a decoder makes of bytes, in a form that the outcomes of all decoders share.

use std::collections::BTreeMap;
use std::fmt::Display;

use avocet_codec::{DecodeError, Version};

/// The bytes that are given to all decoders, on a connection of that version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) version: Version,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<E> {
    Packet(Seen),
    Refused(E),
    /// More bytes are needed.
    Incomplete,
}

pub(crate) type Ours = Outcome<DecodeError>;
pub(crate) type Theirs = Outcome<String>;

/// A packet as name and fields. What the standard says an absent field means is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, Vec<String>>,
}

/// What an absent field means, where being absent and having this value is the same.
const DEFAULTS: &[(&str, &str)] = &[
    ("bridge", "0"),
    ("clean", "0"),
    ("code", "0"),
    ("dup", "0"),
    ("request problem information", "1"),
    ("request response information", "0"),
    ("retain", "0"),
    ("retain available", "1"),
    ("session present", "0"),
    ("shared subscription available", "1"),
    ("subscription identifier available", "1"),
    ("topic alias maximum", "0"),
    ("wildcard subscription available", "1"),
    ("will retain", "0"),
    ("will will delay interval", "0"),
];

impl Seen {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_ascii_lowercase(),
            fields: BTreeMap::new(),
        }
    }

    pub(crate) fn put(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        let is_list = matches!(self.name.as_str(), "suback" | "unsuback") && name == "code";
        let no_expiry = self.name == "connect" && name == "session expiry interval" && value == "0";
        if no_expiry || (!is_list && DEFAULTS.contains(&(name, value.as_str()))) {
            return;
        }
        self.fields.entry(name.to_owned()).or_default().push(value);
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.put(name, u8::from(value));
    }

    pub(crate) fn option(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    pub(crate) fn binary(&mut self, name: &str, value: &[u8]) {
        self.put(name, hex(value));
    }

    /// Forgets the order of User Properties of different names, which not every decoder keeps.
    pub(crate) fn sort_user_properties(&mut self) {
        for name in ["user property", "will user property"] {
            if let Some(values) = self.fields.get_mut(name) {
                values.sort();
            }
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
