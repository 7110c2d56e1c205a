//! Exhaustive small worlds: two messages in flight, and every position at which the connection can
//! be lost, and lost again while the exchange goes on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

mod world;

use avocet_codec::{QoS, Version};

use crate::world::{
    COMMIT, Case, Fate, Notices, Piece, Position, Role, TO_CLIENT, TO_SERVER, World,
};

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];
const ROLES: [Role; 2] = [Role::Client, Role::Server];
const FATES: [Fate; 3] = [Fate::Kept, Fate::ClientLost, Fate::ServerLost];
const NOTICES: [Notices; 3] = [Notices::Both, Notices::ClientOnly, Notices::ServerOnly];

/// Who is ahead of whom.
const ORDERS: [[usize; 3]; 3] = [
    [TO_SERVER, TO_CLIENT, COMMIT],
    [TO_CLIENT, TO_SERVER, COMMIT],
    [COMMIT, TO_CLIENT, TO_SERVER],
];

/// One of the two losses.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// How much has moved in each direction.
    position: Position,
    notices: Notices,
    /// Of the Sessions, before the connection after it.
    fate: Fate,
}

/// What the worlds of a case differ in.
struct Space {
    case: Case,
    orders: &'static [[usize; 3]],
    /// What the first loss cuts apart; the second comes between packets.
    piece: Piece,
    notices: &'static [Notices],
    fates: &'static [Fate],
}

impl Space {
    /// Plays every world; how many there are.
    fn enumerate(&self) -> usize {
        self.orders
            .iter()
            .map(|&order| self.with_order(order))
            .sum()
    }

    fn with_order(&self, order: [usize; 3]) -> usize {
        let mut worlds = 0;
        for first in positions(World::new(self.case).run(self.piece)) {
            if !World::new(self.case).run_to(first, order, self.piece) {
                continue;
            }
            for first in self.losses(first) {
                let resumed = || {
                    let mut world = World::new(self.case);
                    assert!(world.run_to(first.position, order, self.piece));
                    world.cut(first.notices);
                    world.reconnect(first.fate);
                    world
                };
                for second in positions(resumed().run(Piece::Packet)) {
                    for second in self.losses(second) {
                        let mut world = resumed();
                        if !world.run_to(second.position, order, Piece::Packet) {
                            break;
                        }
                        world.cut(second.notices);
                        world.reconnect(second.fate);
                        check(world, (self.case, order, first, second));
                        worlds += 1;
                    }
                }
            }
        }
        worlds
    }

    fn losses(&self, position: Position) -> impl Iterator<Item = Loss> + '_ {
        self.notices.iter().flat_map(move |&notices| {
            self.fates.iter().map(move |&fate| Loss {
                position,
                notices,
                fate,
            })
        })
    }
}

/// Every position up to this one; not all can be reached.
fn positions(last: Position) -> impl Iterator<Item = Position> {
    (0..=last[0])
        .flat_map(move |a| (0..=last[1]).flat_map(move |b| (0..=last[2]).map(move |c| [a, b, c])))
}

/// A failure says in which world it is.
fn check(world: World, which: impl std::fmt::Debug) {
    struct Which<T: std::fmt::Debug>(T);
    impl<T: std::fmt::Debug> Drop for Which<T> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("in the world {:?}", self.0);
            }
        }
    }
    let _which = Which(which);
    world.finish();
}

fn case(version: Version, qos: QoS, sender: Role) -> Case {
    Case {
        version,
        qos,
        sender,
        stored: false,
    }
}

/// Nobody loses anything but bytes.
fn at_every_byte(qos: QoS) -> usize {
    let cases = VERSIONS
        .into_iter()
        .flat_map(|version| ROLES.map(|sender| case(version, qos, sender)));
    let worlds = cases.map(|case| {
        let space = Space {
            case,
            orders: &ORDERS[..1],
            piece: Piece::Byte,
            notices: &NOTICES[..1],
            fates: &FATES[..1],
        };
        space.enumerate()
    });
    worlds.sum()
}

/// Sessions are lost too, and losses noticed by one side only.
fn at_every_packet(qos: QoS, sender: Role) -> usize {
    let worlds = VERSIONS.map(|version| {
        let space = Space {
            case: case(version, qos, sender),
            orders: &ORDERS[..2],
            piece: Piece::Packet,
            notices: &NOTICES,
            fates: &FATES,
        };
        space.enumerate()
    });
    worlds.into_iter().sum()
}

/// The server waits for commits, which come late.
fn at_every_commit(qos: QoS, sender: Role) -> usize {
    let worlds = VERSIONS.map(|version| {
        let space = Space {
            case: Case {
                stored: true,
                ..case(version, qos, sender)
            },
            orders: &ORDERS,
            piece: Piece::Packet,
            notices: &NOTICES[..1],
            fates: &FATES[..1],
        };
        space.enumerate()
    });
    worlds.into_iter().sum()
}

// The numbers are those of docs/simulation.md. One that changes with the code says that packets do.

/// [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.2-4] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1]
/// [MQTT311-4.3.2-1] [MQTT311-4.3.2-2] [MQTT311-4.4.0-1]
#[test]
fn qos_1_is_at_least_once_whatever_bytes_are_lost() {
    assert_eq!(at_every_byte(QoS::AtLeastOnce), 2_652);
}

/// [MQTT5-4.3.3-1] [MQTT5-4.3.3-2] [MQTT5-4.3.3-8] [MQTT5-4.3.3-10] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1]
/// [MQTT311-4.3.3-1] [MQTT311-4.3.3-2] [MQTT311-4.4.0-1]
#[test]
fn qos_2_is_exactly_once_whatever_bytes_are_lost() {
    assert_eq!(at_every_byte(QoS::ExactlyOnce), 8_208);
}

/// [MQTT5-3.2.2-5] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn qos_1_of_a_client_survives_lost_sessions_and_half_open_connections() {
    assert_eq!(at_every_packet(QoS::AtLeastOnce, Role::Client), 13_572);
}

/// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn qos_1_of_a_server_survives_lost_sessions_and_half_open_connections() {
    assert_eq!(at_every_packet(QoS::AtLeastOnce, Role::Server), 13_572);
}

/// [MQTT5-3.2.2-5] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn qos_2_of_a_client_survives_lost_sessions_and_half_open_connections() {
    assert_eq!(at_every_packet(QoS::ExactlyOnce, Role::Client), 43_596);
}

/// [MQTT5-3.2.2-5] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn qos_2_of_a_server_survives_lost_sessions_and_half_open_connections() {
    assert_eq!(at_every_packet(QoS::ExactlyOnce, Role::Server), 43_596);
}

#[test]
fn qos_1_leaves_a_server_once_it_is_stored() {
    let worlds = ROLES.map(|sender| at_every_commit(QoS::AtLeastOnce, sender));
    assert_eq!(worlds, [1_218, 1_068]);
}

#[test]
fn qos_2_leaves_a_server_once_it_is_stored() {
    let worlds = ROLES.map(|sender| at_every_commit(QoS::ExactlyOnce, sender));
    assert_eq!(worlds, [4_410, 4_308]);
}
