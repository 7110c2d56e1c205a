//! The file that says who is banned.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use avocet_access::Bans;
use avocet_engine::Peer;
use avocet_transport::Network;
use foldhash::fast::FixedState;
use toml::de::DeValue;

use crate::access::{AccessError, line_at, read, table, wrong};

/// Who is banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BanList {
    pub(crate) clients: Arc<Bans>,
    addresses: Networks,
}

/// Networks by the number of bits that their addresses have in common. Asking for an address takes one
/// look for each number that there is, however many networks have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Networks {
    v4: Family,
    v6: Family,
}

/// What the addresses of each network begin with.
type Family = BTreeMap<u8, HashSet<u128, FixedState>>;

impl Networks {
    fn insert(&mut self, network: Network) {
        let (first, bits) = (network.address(), network.bits());
        // IPv4 addresses within IPv6 are what they are.
        let inner = first.to_canonical();
        let (first, bits) = if first.is_ipv6() && inner.is_ipv4() && bits >= 96 {
            (inner, bits - 96)
        } else {
            (first, bits)
        };
        let family = if first.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        let set = family.entry(bits).or_default();
        set.insert(beginning(first, bits));
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let family = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let mut sets = family.iter();
        sets.any(|(bits, set)| set.contains(&beginning(address, *bits)))
    }

    fn len(&self) -> usize {
        let sets = self.v4.values().chain(self.v6.values());
        sets.map(HashSet::len).sum()
    }
}

/// The first bits of an address, and zeros.
fn beginning(address: IpAddr, bits: u8) -> u128 {
    let all = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits));
    all & mask.unwrap_or(0)
}

impl BanList {
    pub(crate) fn load(path: &Path) -> Result<Self, AccessError> {
        let text = read("access.bans", path)?;
        Self::parse(&text).map_err(|(line, problem)| wrong(path, line, problem))
    }

    /// Reads a file; an error has its line, from 1.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let line_at = |at| line_at(text, at);
        let table = table(text)?;
        let mut addresses = Networks::default();
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
                        Ok(network) => addresses.insert(network),
                        Err(error) => return Err((line, format!("{text:?}: {error}"))),
                    },
                    "client_id" => clients.ban_client_id(text),
                    "user" => clients.ban_user(text),
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
        self.addresses.contains(address)
    }

    /// The same of where a connection comes from.
    pub(crate) fn has_peer(&self, peer: &Peer) -> bool {
        peer.ip().is_some_and(|address| self.has_address(address))
    }

    /// How many are banned.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len() + self.clients.len()
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
    fn networks_hold_what_each_of_them_holds() {
        let texts = [
            "10.1.2.3/8",
            "192.0.2.7",
            "192.0.2.128/25",
            "::ffff:198.51.100.0/120",
            "2001:db8:1::/48",
            "2001:db8::7",
            "fd00::/8",
        ];
        let each: Vec<Network> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let mut networks = Networks::default();
        each.iter().for_each(|network| networks.insert(*network));
        assert_eq!(networks.len(), texts.len());
        for address in [
            "10.0.0.0",
            "10.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.7",
            "192.0.2.127",
            "192.0.2.128",
            "2001:db8:1:2::",
            "2001:db8:2::",
            "2001:db8::7",
            "2001:db8::8",
            "::ffff:10.0.0.1",
            "fdff::1",
            "fe00::",
            "::",
        ] {
            let address = address.parse().unwrap();
            let expected = each.iter().any(|network| network.contains(address));
            assert_eq!(networks.contains(address), expected, "{address}");
        }
        // As clients come whose sockets are of IPv6.
        for (address, expected) in [("198.51.100.7", true), ("198.51.101.0", false)] {
            assert_eq!(networks.contains(address.parse().unwrap()), expected);
        }
        for all in ["0.0.0.0/0", "::/0"] {
            networks.insert(all.parse().unwrap());
        }
        assert!(networks.contains("1.2.3.4".parse().unwrap()));
        assert!(networks.contains("4::".parse().unwrap()));
    }

    /// With 100,000 of each kind, and networks of every size.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "it measures")]
    fn asking_takes_no_longer_for_many_bans_than_for_few() {
        let mut list = BanList::default();
        let mut clients = Bans::default();
        for number in 0..100_000_u32 {
            let address = IpAddr::from((number | 10 << 24).to_be_bytes());
            list.addresses.insert(address.into());
            clients.ban_client_id(&format!("client {number}"));
            clients.ban_user(&format!("user {number}"));
        }
        for bits in 8..32 {
            let network = format!("192.168.0.0/{bits}");
            list.addresses.insert(network.parse().unwrap());
        }
        list.clients = Arc::new(clients);
        assert_eq!(list.len(), 300_024);
        let asked: Vec<_> = (0..1_000_u32)
            .map(|number| {
                let address = IpAddr::from(((number * 7_919) | (11 << 24)).to_be_bytes());
                (
                    address,
                    format!("client -{number}"),
                    format!("user -{number}"),
                )
            })
            .collect();
        // The least of many short rounds: whatever else the machine does takes nothing of it.
        let rounds = asked.chunks(10).map(|asked| {
            let start = std::time::Instant::now();
            for (address, client_id, user) in asked {
                assert!(!list.has_address(*address));
                assert!(!list.clients.has(client_id, Some(user)));
            }
            start.elapsed() / 10
        });
        let least = rounds.min().unwrap();
        println!("{least:?} for an address, a Client Identifier and a user");
        // One after the other would take milliseconds where nothing is optimized.
        let most = if cfg!(debug_assertions) { 200 } else { 1 };
        assert!(least < std::time::Duration::from_micros(most), "{least:?}");
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
