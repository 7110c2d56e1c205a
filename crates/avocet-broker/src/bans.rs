//! The file that says who is banned.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use avocet_access::Bans;
use avocet_transport::Network;
use toml::de::{DeTable, DeValue};

use crate::access::{AccessError, read, wrong};

/// Who is banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BanList {
    pub(crate) clients: Arc<Bans>,
    pub(crate) addresses: Vec<Network>,
}

impl BanList {
    pub(crate) fn load(path: &Path) -> Result<Self, AccessError> {
        let text = read("access.bans", path)?;
        Self::parse(&text).map_err(|(line, problem)| wrong(path, line, problem))
    }

    /// Reads a file; an error has its line, from 1.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let line_at = |at: usize| {
            let before = text.get(..at).unwrap_or_default();
            before.bytes().filter(|byte| *byte == b'\n').count() + 1
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = error.message().lines().next().unwrap_or_default();
            (line_at(at), problem.to_owned())
        })?;
        let mut addresses = Vec::new();
        let mut clients = Bans::default();
        for (key, value) in table.get_ref() {
            let line = line_at(key.span().start);
            let values: Vec<_> = if let DeValue::Array(values) = value.get_ref() {
                values.iter().collect()
            } else {
                vec![value]
            };
            for value in values {
                let line = line_at(value.span().start);
                let DeValue::String(text) = value.get_ref() else {
                    return Err((line, "allowed is a text, or a list of texts".to_owned()));
                };
                match key.get_ref().as_ref() {
                    "address" => match text.parse() {
                        Ok(network) => addresses.push(network),
                        Err(error) => return Err((line, format!("{text:?}: {error}"))),
                    },
                    "client_id" => drop(clients.client_ids.insert(text.as_ref().into())),
                    "user" => drop(clients.users.insert(text.as_ref().into())),
                    _ => {}
                }
            }
            if !["address", "client_id", "user"].contains(&key.get_ref().as_ref()) {
                let problem = format!(
                    "unknown key {:?}; known are address, client_id and user",
                    key.get_ref()
                );
                return Err((line, problem));
            }
        }
        Ok(Self {
            clients: Arc::new(clients),
            addresses,
        })
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let mut networks = self.addresses.iter();
        networks.any(|network| network.contains(address))
    }

    /// How many are banned.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len() + self.clients.client_ids.len() + self.clients.users.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn addresses_clients_and_users_are_read() {
        let text =
            "address = [\"192.0.2.0/24\", \"2001:db8::1\"]\nclient_id = \"c\"\nuser = [\"eve\"]\n";
        let bans = BanList::parse(text).unwrap();
        for (address, banned) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.3.7", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            assert_eq!(
                bans.has_address(address.parse().unwrap()),
                banned,
                "{address}"
            );
        }
        assert!(bans.clients.has("c", None));
        assert!(bans.clients.has("d", Some("eve")));
        assert!(!bans.clients.has("d", Some("ann")));
        assert_eq!(bans.len(), 4);
        assert_eq!(BanList::parse("").unwrap(), BanList::default());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, said) in [
            ("user = \"a\"\naddress = [\"a\"]", 2, "IP address"),
            ("\nuser = 1", 2, "a text"),
            ("users = \"a\"", 1, "known are"),
            ("user = [", 1, ""),
        ] {
            let (at, problem) = BanList::parse(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            assert!(problem.contains(said), "{problem}");
        }
    }
}
