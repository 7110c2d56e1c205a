//! What strangers and clients do that nobody should. Each attack is a bounded piece of work, and ends
//! with an error wherever the broker ends it.

use std::io::{self, Read, Write};

use avocet_codec::{
    Connect, Delivery, Frame, Packet, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter,
    TopicName, Version,
};

use crate::common::{Client, id};
use crate::doors::{Door, Doors, Duplex};

/// Numbers that differ and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn byte(&mut self) -> u8 {
        self.roll(256) as u8
    }

    /// Changes some bytes, and perhaps cuts.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.roll(4) {
            if !bytes.is_empty() {
                let at = self.roll(bytes.len());
                bytes[at] = self.byte();
            }
        }
        if self.roll(4) == 0 {
            bytes.truncate(self.roll(bytes.len() + 1));
        }
    }
}

pub(crate) type Attack = fn(&Doors, Door, &mut Dice) -> io::Result<()>;

pub(crate) const ATTACKS: [(&str, Attack); 9] = [
    ("bytes", strange_bytes),
    ("half open", half_open),
    ("claims at the door", claims_at_the_door),
    ("claims of packets", claims_of_packets),
    ("mutated packets", mutated_packets),
    ("CONNECT", floods_of_connects),
    ("SUBSCRIBE", hostile_filters),
    ("PUBLISH", floods_of_publishes),
    ("slow reader", slow_reader),
];

/// Reads until the broker closes, or loses patience.
fn read_out(stream: &mut Box<dyn Duplex>) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
}

fn connect(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.keep_alive = 1;
    connect
}

pub(crate) fn login(
    doors: &Doors,
    door: Door,
    client_id: &str,
) -> io::Result<Client<Box<dyn Duplex>>> {
    let mut client = Client::over(doors.enter(door)?, Version::V5);
    let connected = client.try_send(&Packet::Connect(connect(client_id)));
    let frame = if connected {
        client.receive_or_fail()
    } else {
        None
    };
    let accepted = |frame: &Frame| matches!(frame.packet(), Packet::Connack(connack) if !connack.reason_code.is_error());
    frame.filter(accepted).ok_or_else(gone)?;
    Ok(client)
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// A beginning that the listener may expect, with some bytes changed, or no beginning at all.
fn strange_bytes(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    for _ in 0..20 {
        let mut bytes = if dice.roll(4) == 0 {
            (0..dice.roll(2_000)).map(|_| dice.byte()).collect()
        } else {
            doors.hello(door)
        };
        dice.change(&mut bytes);
        let mut stream = doors.knock(door)?;
        // The broker may have closed already.
        let _ = stream.write_all(&bytes);
        if dice.roll(4) == 0 {
            read_out(&mut stream);
        }
    }
    Ok(())
}

/// More sockets than there may be handshakes, each silent after a part of what it should send.
fn half_open(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..60 {
        let hello = doors.hello(door);
        let mut stream = doors.knock(door)?;
        for byte in &hello[..dice.roll(hello.len())] {
            // One byte for each segment.
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        streams.push(stream);
    }
    streams.iter_mut().for_each(read_out);
    Ok(())
}

/// Lengths of frames, records and headers that nobody can mean.
fn claims_at_the_door(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let claims: [&[u8]; 6] = [
        b"\x10\xff\xff\xff\x7f\0\x04MQTT\x05",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff\x03\x03",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n",
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
        b"GET /mqtt",
    ];
    for claim in claims {
        let mut stream = doors.knock(door)?;
        let _ = stream.write_all(claim);
        let filling = [b'a'; 4096];
        for _ in 0..dice.roll(8) {
            let _ = stream.write_all(&filling);
        }
        read_out(&mut stream);
    }
    Ok(())
}

/// The same behind the door.
fn claims_of_packets(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let before_connect: [&[u8]; 4] = [
        b"\x10\xff\xff\xff\x7f\0\x04MQTT\x05",
        b"\x10\x0f\0\x04MQTT\x05\x02\0\0\xff\xff\xff\x7f\0",
        b"\x10\x10\0\x04MQTT\x05\x02\0\0\0\xff\xffab",
        b"\x10\x80\x80\x80\x80\x01",
    ];
    let after_connect: [&[u8]; 4] = [
        b"\x30\xff\xff\xff\x7f\0\x01a",
        b"\x30\x06\xff\xffabcd",
        b"\x82\x08\0\x01\xff\xff\xff\x7f\0\0",
        b"\x32\x09\0\x01a\0\x01\xff\xff\xff\x7f",
    ];
    for bytes in before_connect {
        let mut stream = doors.enter(door)?;
        let _ = stream.write_all(bytes);
        let _ = stream.flush();
        if dice.roll(2) == 0 {
            read_out(&mut stream);
        }
    }
    for bytes in after_connect {
        let mut client = login(doors, door, "claims")?;
        let _ = client.socket.write_all(bytes);
        let _ = client.socket.flush();
        if dice.roll(2) == 0 {
            read_out(&mut client.socket);
        }
    }
    Ok(())
}

/// What a client may send, with some bytes changed.
fn mutated_packets(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let encode = |packet: &Packet<'_>| {
        let frame = Frame::encode(packet, Version::V5).unwrap();
        frame.bytes().to_vec()
    };
    let filters = [SubscribeFilter::new(
        TopicFilter::new("mutated/+/#").unwrap(),
        QoS::ExactlyOnce,
    )];
    let name = TopicName::new("mutated/a/b").unwrap();
    let publish = |delivery| encode(&Packet::Publish(Publish::new(name, delivery, b"payload")));
    let packets = [
        encode(&Packet::Connect(connect("mutated"))),
        encode(&Packet::Subscribe(Subscribe::new(id(1), &filters))),
        publish(Delivery::AtMostOnce),
        publish(Delivery::AtLeastOnce(id(2))),
        publish(Delivery::ExactlyOnce(id(3))),
        b"\x40\x02\0\x01".to_vec(),
        b"\x50\x02\0\x01".to_vec(),
        b"\x62\x02\0\x03".to_vec(),
        b"\x70\x02\0\x01".to_vec(),
        b"\xa2\x07\0\x04\0\0\x02a/".to_vec(),
        b"\xc0\0".to_vec(),
        b"\xf0\x02\x19\0".to_vec(),
    ];
    for _ in 0..10 {
        let mut client = login(doors, door, "mutated")?;
        for _ in 0..30 {
            let mut bytes = packets[dice.roll(packets.len())].clone();
            if dice.roll(3) == 0 {
                dice.change(&mut bytes);
            }
            if client.socket.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = client.socket.flush();
    }
    Ok(())
}

/// Connections that come and go, all with one Client Identifier: each takes over from the last one.
fn floods_of_connects(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut client = Client::over(doors.enter(door)?, Version::V5);
        client.try_send(&Packet::Connect(connect("everybody")));
        if dice.roll(2) == 0 {
            waiting.push(client);
        }
    }
    Ok(())
}

/// Filters that are costly to match, more than one client may have.
fn hostile_filters(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let mut client = login(doors, door, &format!("filters {}", dice.roll(1_000)))?;
    for _ in 0..20 {
        let filters: Vec<String> = (0..30)
            .map(|_| {
                let level = |dice: &mut Dice| ["+", "a", "flood", "pair", "0", ""][dice.roll(6)];
                let levels: Vec<_> = (0..1 + dice.roll(30)).map(|_| level(dice)).collect();
                let end = ["", "/#"][dice.roll(2)];
                let share = ["", "$share/g/"][dice.roll(2)];
                format!("{share}{}{end}", levels.join("/"))
            })
            .collect();
        let filters: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .filter_map(|filter| TopicFilter::new(filter).ok())
            .map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce))
            .collect();
        if filters.is_empty() {
            continue;
        }
        let subscribe = Packet::Subscribe(Subscribe::new(id(7), &filters));
        if !client.try_send(&subscribe) {
            return Ok(());
        }
    }
    // They match what others publish meanwhile, which nobody acknowledges.
    for _ in 0..200 {
        client.receive_or_fail().ok_or_else(gone)?;
    }
    Ok(())
}

/// As much as TCP takes, to topics of all kinds, retained or not, of every QoS.
fn floods_of_publishes(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let mut client = login(doors, door, &format!("flood {}", dice.roll(1_000)))?;
    let payload = vec![b'x'; 1_000];
    for number in 1..=1_000 {
        let name = format!("flood/{}/{number}", dice.roll(100));
        let delivery = match dice.roll(4) {
            0 => Delivery::AtLeastOnce(id(number)),
            1 => Delivery::ExactlyOnce(id(number)),
            _ => Delivery::AtMostOnce,
        };
        let mut publish = Publish::new(TopicName::new(&name).unwrap(), delivery, &payload);
        publish.retain = dice.roll(4) == 0;
        if !client.try_send(&Packet::Publish(publish)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks for everything, is sent a lot by itself and others, and reads nothing.
fn slow_reader(doors: &Doors, door: Door, dice: &mut Dice) -> io::Result<()> {
    let mut client = login(doors, door, &format!("slow {}", dice.roll(1_000)))?;
    let filter = [SubscribeFilter::new(
        TopicFilter::new("#").unwrap(),
        QoS::AtLeastOnce,
    )];
    client.try_send(&Packet::Subscribe(Subscribe::new(id(1), &filter)));
    floods_of_publishes(doors, door, dice)?;
    for _ in 0..100 {
        let name = TopicName::new("flood/itself").unwrap();
        let publish = Publish::new(name, Delivery::AtMostOnce, &[0; 10_000]);
        if !client.try_send(&Packet::Publish(publish)) {
            break;
        }
    }
    Ok(())
}
