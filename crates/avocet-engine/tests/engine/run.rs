//! Clients that go on where they were, around a broker that crashes and is started again from what its
//! log holds, with any number of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use avocet_codec::{AckType, Connect, Delivery, Packet, PacketId, Version};
use avocet_engine::EngineConfig;
use avocet_session::Now;

use crate::cluster::{Client, Cluster, ack, describe};

/// A message that a client publishes until the broker has it.
pub(crate) struct Publication {
    topic: &'static str,
    payload: String,
    qos: u8,
    retain: bool,
    packet_id: PacketId,
    sent: bool,
    pubrec_received: bool,
    pub(crate) done: bool,
}

/// A client that keeps its Session State across connections.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) client: Option<Client>,
    pub(crate) expiry_interval: u32,
    next_packet_id: u16,
    pub(crate) publications: Vec<Publication>,
    filters: BTreeMap<&'static str, u8>,
    /// Whether the broker has said that it has the session, or something of it.
    pub(crate) confirmed: bool,
    /// Whether the broker has said that it has its subscriptions.
    pub(crate) subscribed: bool,
    /// Whether its last CONNECT was answered.
    pub(crate) connected: bool,
    pub(crate) unsubscribed: bool,
    /// QoS 2 messages without PUBREL.
    received: BTreeSet<PacketId>,
    /// QoS 2 messages, by Packet Identifier, that came and whose PUBREC may have been lost.
    seen: BTreeMap<PacketId, String>,
    /// Payloads with the QoS that they came with, duplicates of QoS 2 left out.
    pub(crate) got: Vec<(String, u8)>,
}

#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) shards: u16,
    /// Of the order in which shards have their turns.
    pub(crate) seed: Option<u64>,
    pub(crate) configure: fn(&mut EngineConfig),
}

/// Clients around a broker.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) peers: BTreeMap<&'static str, Peer>,
}

pub(crate) type Story = fn(&mut Run);

impl Run {
    pub(crate) fn new(world: World, reported_max: usize) -> Self {
        let mut cluster = Cluster::new(world.shards, world.seed, world.configure);
        cluster.reported_max = reported_max;
        cluster.store = Some(crate::store::Store::default());
        Self {
            cluster,
            peers: BTreeMap::new(),
        }
    }

    /// The broker is gone, and with it what it had not stored; another one takes over.
    pub(crate) fn restart(&mut self, world: World, stored: usize, reported_max: usize, now: Now) {
        self.look();
        let mut log = std::mem::take(&mut self.cluster.log);
        log.truncate(stored);
        self.cluster = Cluster::restored(world.shards, world.configure, log, reported_max, now);
        for peer in self.peers.values_mut() {
            peer.client = None;
        }
    }

    pub(crate) fn restart_at_once(&mut self, world: World) {
        let now = self.cluster.now;
        self.restart(world, usize::MAX, usize::MAX, now);
    }

    pub(crate) fn connect(&mut self, name: &'static str, expiry_interval: u32) {
        self.connect_with(name, expiry_interval, |_| {});
    }

    pub(crate) fn connect_with<'a>(
        &mut self,
        name: &'a str,
        expiry_interval: u32,
        change: impl FnOnce(&mut Connect<'a>),
    ) where
        'a: 'static,
    {
        let mut connect = Connect::new(Version::V5, name);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = expiry_interval;
        change(&mut connect);
        let clean_start = connect.clean_start;
        let client = self.cluster.connect(&connect);
        let peer = self.peers.entry(name).or_default();
        peer.client = Some(client);
        peer.expiry_interval = expiry_interval;
        peer.connected = false;
        if clean_start {
            *peer = Peer {
                client: Some(client),
                expiry_interval,
                got: std::mem::take(&mut peer.got),
                ..Peer::default()
            };
        }
        self.look();
    }

    pub(crate) fn subscribe(&mut self, name: &'static str, filter: &'static str, qos: u8) {
        let peer = self.peers.get_mut(name).unwrap();
        peer.filters.insert(filter, qos);
        let client = peer.client.unwrap();
        self.cluster
            .send_subscribe(client, filter, qos, None, |_| {});
        self.cluster.run();
        self.look();
    }

    pub(crate) fn publish(
        &mut self,
        name: &'static str,
        topic: &'static str,
        payload: &str,
        qos: u8,
    ) {
        self.publish_with(name, topic, payload, qos, false);
    }

    pub(crate) fn publish_with(
        &mut self,
        name: &'static str,
        topic: &'static str,
        payload: &str,
        qos: u8,
        retain: bool,
    ) {
        let peer = self.peers.get_mut(name).unwrap();
        peer.next_packet_id += 1;
        peer.publications.push(Publication {
            topic,
            payload: payload.into(),
            qos,
            retain,
            packet_id: PacketId::new(peer.next_packet_id).unwrap(),
            sent: false,
            pubrec_received: false,
            done: false,
        });
        self.send_publications(name);
    }

    /// Sends what is not sent, or, on a new connection, what is not acknowledged.
    pub(crate) fn send_publications(&mut self, name: &'static str) {
        let peer = self.peers.get_mut(name).unwrap();
        let Some(client) = peer.client else {
            return;
        };
        for publication in &mut peer.publications {
            if publication.done || publication.sent {
                continue;
            }
            publication.sent = true;
            let packet_id = publication.packet_id;
            if publication.pubrec_received {
                let pubrel = ack(AckType::Pubrel, packet_id);
                self.cluster.send(client, &pubrel);
                continue;
            }
            let (topic, payload) = (publication.topic, publication.payload.clone());
            let (qos, retain) = (publication.qos, publication.retain);
            self.cluster
                .publish_with(client, topic, &payload, qos, |publish| {
                    publish.retain = retain;
                    publish.delivery = match qos {
                        2 => Delivery::ExactlyOnce(packet_id),
                        _ => Delivery::AtLeastOnce(packet_id),
                    };
                });
        }
        self.cluster.run();
        self.look();
    }

    pub(crate) fn cut(&mut self, name: &'static str) {
        self.look();
        if let Some(client) = self.peers.get_mut(name).and_then(|peer| peer.client.take()) {
            self.cluster.cut(client);
            self.cluster.run();
        }
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        self.peers[name].client.unwrap()
    }

    pub(crate) fn set_acks(&mut self, name: &'static str, acks: bool) {
        let client = self.client(name);
        self.cluster.set_acks(client, acks);
    }

    pub(crate) fn send_ack(&mut self, name: &'static str, ack_type: AckType, packet_id: u16) {
        let packet_id = PacketId::new(packet_id).unwrap();
        let client = self.client(name);
        self.cluster.send(client, &ack(ack_type, packet_id));
        self.cluster.run();
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.cluster.advance(Duration::from_secs(seconds));
        self.cluster.run();
        self.look();
    }

    pub(crate) fn packets(&mut self, name: &str) -> Vec<String> {
        let client = self.client(name);
        self.cluster.packets(client)
    }

    /// Whether the session is there; the client goes on with it, or begins anew.
    pub(crate) fn reconnect(&mut self, name: &'static str) -> bool {
        self.cut(name);
        let peer = self.peers.get_mut(name).unwrap();
        let mut connect = Connect::new(Version::V5, name);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = peer.expiry_interval;
        peer.connected = false;
        let client = self.cluster.connect(&connect);
        peer.client = Some(client);
        let frames = self.cluster.frames(client);
        // The CONNACK may wait for a commit that is never reported.
        let connack = frames.first().map(describe).unwrap_or_default();
        if connack.is_empty() {
            return false;
        }
        assert!(connack.starts_with("connack 0x00"), "{name}: {connack}");
        let present = connack.contains("present");
        let peer = self.peers.get_mut(name).unwrap();
        for publication in &mut peer.publications {
            publication.sent = false;
            publication.pubrec_received &= present;
        }
        if !present {
            assert!(!peer.confirmed, "{name}: the broker has lost the session");
            peer.received.clear();
            peer.seen.clear();
            peer.subscribed = false;
        }
        if !peer.subscribed {
            for (filter, qos) in peer.filters.clone() {
                self.subscribe(name, filter, qos);
            }
        }
        self.read(name, &frames);
        self.send_publications(name);
        present
    }

    /// Lets all clients read what came.
    pub(crate) fn look(&mut self) {
        let names: Vec<_> = self.peers.keys().copied().collect();
        for name in names {
            if let Some(client) = self.peers[name].client {
                let frames = self.cluster.frames(client);
                self.read(name, &frames);
            }
        }
    }

    pub(crate) fn read(&mut self, name: &'static str, frames: &[avocet_codec::Frame]) {
        let peer = self.peers.get_mut(name).unwrap();
        for frame in frames {
            match frame.packet() {
                Packet::Publish(publish) => {
                    let payload = String::from_utf8_lossy(publish.payload).into_owned();
                    match publish.delivery {
                        Delivery::ExactlyOnce(packet_id) => {
                            if let Some(before) = peer.seen.insert(packet_id, payload.clone()) {
                                assert_eq!(before, payload, "{name}: another message");
                                assert!(publish.dup, "{name}: sent before, and DUP is 0");
                            }
                            if peer.received.insert(packet_id) {
                                peer.got.push((payload, 2));
                            }
                        }
                        delivery => {
                            let qos = delivery.qos() as u8;
                            peer.got.push((payload, qos));
                        }
                    }
                }
                Packet::Pubrel(ack) => {
                    peer.received.remove(&ack.packet_id);
                    peer.seen.remove(&ack.packet_id);
                }
                Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                    peer.confirmed |= peer.expiry_interval > 0;
                    let mut all = peer.publications.iter_mut();
                    let found = all.find(|it| it.packet_id == ack.packet_id && !it.done);
                    if let Some(publication) = found {
                        publication.done = true;
                    }
                }
                Packet::Pubrec(ack) => {
                    peer.confirmed |= peer.expiry_interval > 0;
                    let mut all = peer.publications.iter_mut();
                    let found = all.find(|it| it.packet_id == ack.packet_id && !it.done);
                    if let Some(publication) = found {
                        publication.pubrec_received = true;
                    }
                }
                Packet::Suback(_) => {
                    peer.subscribed = true;
                    peer.confirmed |= peer.expiry_interval > 0;
                }
                Packet::Connack(connack) => {
                    assert!(!connack.reason_code.is_error());
                    peer.connected = true;
                    peer.confirmed |= connack.session_present && peer.expiry_interval > 0;
                }
                _ => {}
            }
        }
    }

    pub(crate) fn got(&self, name: &str, payload: &str) -> usize {
        let got = self.peers[name].got.iter();
        got.filter(|(it, _)| it == payload).count()
    }
}

/// Runs a story, crashes after each of its commits, whether reported or not, and checks what
/// clients see of any other number of shards.
pub(crate) fn crash_everywhere(
    configure: fn(&mut EngineConfig),
    story: Story,
    check: fn(&mut Run),
) {
    let cases = [(1, None), (2, None), (3, None), (2, Some(1)), (3, Some(2))];
    for (shards, seed) in cases {
        let world = World {
            shards,
            seed,
            configure,
        };
        let mut whole = Run::new(world, usize::MAX);
        story(&mut whole);
        let commits = whole.cluster.log.len();
        for (stored, reported) in (0..=commits).flat_map(|at| [(at, at), (at, at.max(1) - 1)]) {
            // Another number of shards each time.
            let then = World {
                shards: 1 + (shards + stored as u16) % 3,
                seed: None,
                configure,
            };
            eprintln!(
                "{shards} shards, order {seed:?}, {stored} of {commits} commits stored, {reported} \
                 reported, then {} shards",
                then.shards
            );
            let mut run = Run::new(world, reported);
            story(&mut run);
            let now = run.cluster.now + Duration::from_secs(1);
            run.restart(then, stored, usize::MAX, now);
            check(&mut run);
        }
    }
}

pub(crate) fn reconnect_all(run: &mut Run) {
    let names: Vec<_> = run.peers.keys().copied().collect();
    for name in names {
        run.reconnect(name);
    }
    run.cluster.run();
    run.look();
}

/// Nothing is left behind that nobody needs.
pub(crate) fn assert_nothing_is_left(run: &Run) {
    let store = run.cluster.store.as_ref().unwrap();
    assert_eq!(store.holds().0, 0, "messages are left");
    assert_eq!(store.holds().2, 0, "messages of groups are left");
    assert_eq!(run.cluster.counters().queued_messages, 0);
}
