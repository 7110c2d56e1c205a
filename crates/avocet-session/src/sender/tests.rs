use alloc::vec;
use avocet_codec::{Delivery, Publish, Version};
use avocet_topic::TopicName;
use proptest::prelude::*;

use super::*;
use crate::{Message, Overflow, TransmitBuf};

const ROOM: NonZeroU16 = NonZeroU16::MAX;

fn outgoing(qos: QoS) -> Outgoing {
    let message = Message::new(TopicName::new("a/b").unwrap(), b"x").with_qos(qos);
    Outgoing::new(message)
}

fn at_least_once(id: u16) -> Delivery {
    Delivery::AtLeastOnce(PacketId::new(id).unwrap())
}

fn packet(delivery: Delivery, payload: &[u8], dup: bool) -> Vec<u8> {
    let publish = Publish {
        dup,
        ..Publish::new(TopicName::new("a/b").unwrap(), delivery, payload)
    };
    let mut bytes = Vec::new();
    publish.encode(Version::V5, &mut bytes).unwrap();
    bytes
}

struct World {
    sender: Sender,
    limits: Limits,
    events: VecDeque<ConnectionEvent>,
}

impl World {
    fn new(window: NonZeroU16) -> Self {
        let limits = Limits {
            queued_messages_max: 10,
            overflow: Overflow::DropOldest,
            ..Limits::default()
        };
        let mut sender = Sender::default();
        sender.attach(window);
        Self {
            sender,
            limits,
            events: VecDeque::new(),
        }
    }

    fn enqueue(&mut self, qos: QoS) {
        let _ = self
            .sender
            .enqueue(outgoing(qos), &self.limits, Now::default());
    }

    /// Queues a packet of QoS 0, if it is taken as it is.
    fn enqueue_frame(&mut self, payload: &[u8]) -> bool {
        self.enqueue_marked(payload, 0)
    }

    fn enqueue_marked(&mut self, payload: &[u8], tag: u64) -> bool {
        self.enqueue_packet(&packet(Delivery::AtMostOnce, payload, false), tag)
    }

    /// Queues a packet of QoS 1, if it is taken as it is.
    fn enqueue_acknowledged(&mut self, payload: &[u8]) -> bool {
        self.enqueue_packet(&packet(at_least_once(7_777), payload, true), 0)
    }

    fn enqueue_packet(&mut self, bytes: &[u8], tag: u64) -> bool {
        let publish = Publish::decode(bytes, Version::V5).unwrap();
        let frame = PublishFrame::new(bytes, &publish, Version::V5).unwrap();
        self.sender.enqueue_frame(frame.with_tag(tag), &self.limits)
    }

    /// The bytes of all packets that leave as they came, some at a time.
    fn written(&mut self) -> Vec<u8> {
        let mut written = Vec::new();
        let now = Now::default();
        while self
            .sender
            .poll(now, CommitId::ZERO, true, &mut self.events, |next| {
                let Next::Frames(frames) = next else {
                    panic!("{next:?} is a message");
                };
                let mut out = TransmitBuf::new(20);
                assert!(frames.write(&mut out) > 0);
                out.slices().for_each(|it| written.extend_from_slice(it));
                true
            })
        {}
        written
    }

    /// The Packet Identifiers of everything that may leave.
    fn sent(&mut self) -> Vec<u16> {
        let mut sent = Vec::new();
        let now = Now::default();
        while self
            .sender
            .poll(now, CommitId::ZERO, true, &mut self.events, |next| {
                sent.push(match next {
                    Next::Publish { packet_id, .. } => packet_id.map_or(0, PacketId::get),
                    Next::Pubrel { packet_id, .. } => packet_id.get(),
                    Next::Frames(frames) => {
                        let mut out = TransmitBuf::new(1);
                        assert_eq!(frames.write(&mut out), 1);
                        let packet: Vec<u8> = out.slices().flatten().copied().collect();
                        let publish = Publish::decode(&packet, Version::V5).unwrap();
                        publish.delivery.packet_id().map_or(0, PacketId::get)
                    }
                });
                true
            })
        {}
        sent
    }

    fn puback(&mut self, id: u16) {
        let id = PacketId::new(id).unwrap();
        self.sender
            .puback(id, ReasonCode::Success, &mut self.events)
            .unwrap();
    }
}

/// A session that is away may have many messages waiting.
#[test]
fn what_a_queue_keeps_of_a_message_beside_it_is_small() {
    assert_eq!(size_of::<Queued>(), 48);
}

#[test]
fn packets_leave_before_what_came_behind_them() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_frame(b"1"));
    assert!(world.enqueue_frame(b"2"));
    world.enqueue(QoS::AtLeastOnce);
    assert!(!world.enqueue_frame(b"3"), "it would overtake");
    assert_eq!(world.sent(), [0, 0, 1]);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
}

#[test]
fn packets_of_an_ended_connection_become_messages() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_frame(b"1"));
    assert!(world.enqueue_frame(b"2"));
    world.enqueue(QoS::AtLeastOnce);
    world.sender.detach();
    assert!(!world.enqueue_frame(b"3"), "there is no connection");
    assert_eq!(world.sender.queued(), 3);
    world.sender.attach(ROOM);
    let mut payloads = Vec::new();
    while world.sender.poll(
        Now::default(),
        CommitId::ZERO,
        true,
        &mut world.events,
        |next| {
            let Next::Publish { outgoing, .. } = next else {
                panic!("{next:?} is no PUBLISH");
            };
            payloads.push(outgoing.message.payload().to_vec());
            true
        },
    ) {}
    assert_eq!(payloads, [b"1", b"2", b"x"]);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
}

#[test]
fn marks_come_back_with_the_messages_of_packets() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_marked(b"1", 7));
    assert!(world.enqueue_marked(b"2", 7));
    assert!(!world.enqueue_frame(b"3"), "all packets have one mark");
    assert_eq!(
        world.sender.drop_frames(),
        0,
        "they are not for this Session only"
    );
    let taken = world.sender.take_where(|outgoing| outgoing.tag == 7);
    let payloads: Vec<_> = taken
        .iter()
        .map(|(_, it)| it.message.payload().to_vec())
        .collect();
    assert_eq!(payloads, [b"1", b"2"]);
    assert!(world.enqueue_frame(b"3"));
    assert_eq!(world.sent(), [0]);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
}

#[test]
fn the_oldest_packet_goes_first_when_the_queue_is_full() {
    let mut world = World::new(ROOM);
    for n in 0..10 {
        assert!(world.enqueue_frame(&[n]));
    }
    assert!(!world.enqueue_frame(b"10"), "the queue is full");
    let enqueued = world
        .sender
        .enqueue(outgoing(QoS::AtMostOnce), &world.limits, Now::default());
    let Enqueued::Displaced { oldest, .. } = enqueued else {
        panic!("{enqueued:?}");
    };
    let oldest: Vec<_> = oldest.iter().map(|it| (it.qos, it.reason)).collect();
    assert_eq!(oldest, [(QoS::AtMostOnce, DropReason::QueueFull)]);
    assert_eq!(world.sender.queued(), 10);
    assert_eq!(world.sent().len(), 10);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
}

#[test]
fn dropped_packets_are_counted() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_frame(b"1"));
    assert!(world.enqueue_frame(b"2"));
    assert_eq!(world.sender.drop_frames(), 2);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
    assert_eq!(world.sent(), []);
}

#[test]
fn packets_of_qos_1_leave_with_identifiers_of_their_own_and_without_dup() {
    let mut world = World::new(ROOM);
    let mut expected = Vec::new();
    for (id, payload) in (1..).zip([&b"1"[..], &[2; 150], b"3"]) {
        assert!(world.enqueue_frame(b"0"));
        assert!(world.enqueue_acknowledged(payload));
        expected.extend(packet(Delivery::AtMostOnce, b"0", false));
        expected.extend(packet(at_least_once(id), payload, false));
    }
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!((world.sender.queued(), world.sender.in_flight()), (7, 0));
    let next = world.sender.take_unsent(|outgoing| outgoing.gate.is_some());
    assert!(next.is_empty(), "all are messages of this connection");
    assert_eq!(world.sent(), [0, 1, 0, 2, 0, 3, 4]);

    let mut world = World::new(ROOM);
    for payload in [&b"1"[..], &[2; 150], b"3"] {
        assert!(world.enqueue_frame(b"0"));
        assert!(world.enqueue_acknowledged(payload));
    }
    assert_eq!(world.written(), expected);
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
    assert_eq!(world.sender.in_flight(), 3);
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!(world.sent(), [4]);
    for (id, left) in [(2, 3), (1, 2), (4, 1), (3, 0)] {
        world.puback(id);
        assert_eq!(world.sender.in_flight(), left);
    }
    assert!(world.sender.is_empty() && world.events.is_empty());
}

#[test]
fn packets_of_qos_1_keep_to_the_window() {
    let mut world = World::new(NonZeroU16::new(2).unwrap());
    for _ in 1..=4 {
        assert!(world.enqueue_acknowledged(b"1"));
    }
    assert!(!world.enqueue_frame(b"0"), "it would wait for PUBACK");
    world.enqueue(QoS::AtMostOnce);
    assert_eq!(world.sent(), [1, 2, 0]);
    assert_eq!((world.sender.queued(), world.sender.in_flight()), (2, 2));
    world.puback(1);
    assert!(!world.enqueue_frame(b"0"), "it would wait for PUBACK");
    assert_eq!(world.sent(), [3]);
    world.puback(3);
    assert!(world.enqueue_frame(b"0"));
    assert!(world.enqueue_acknowledged(b"5"));
    world.enqueue(QoS::AtLeastOnce);
    assert!(!world.enqueue_acknowledged(b"7"), "it would overtake");
    assert_eq!(world.sent(), [4, 0]);
    for (id, sent) in [(2, 5), (4, 6)] {
        world.puback(id);
        assert_eq!(world.sent(), [sent]);
    }
    world.puback(6);
    world.puback(5);
    assert!(world.sender.is_empty());
    assert_eq!((world.sender.queued(), world.sender.queued_bytes()), (0, 0));
}

#[test]
fn packets_of_qos_1_are_forgotten_once_they_have_left_with_their_connection() {
    let mut world = World::new(ROOM);
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!(world.sent(), [1]);
    assert!(world.enqueue_acknowledged(b"2"));
    assert_eq!(world.written(), packet(at_least_once(2), b"2", false));
    assert!(world.enqueue_frame(b"0"));
    assert!(world.enqueue_acknowledged(b"3"));
    assert!(world.enqueue_frame(b"0"));
    assert_eq!(world.sender.drop_frames(), 0, "one is not of QoS 0");
    world.sender.detach();
    assert_eq!((world.sender.queued(), world.sender.in_flight()), (3, 1));
    let dropped = world
        .sender
        .take_where(|outgoing| outgoing.qos == QoS::AtMostOnce);
    assert_eq!(dropped.len(), 2);
    world.sender.attach(ROOM);
    assert_eq!(world.sent(), [1, 3]);
    world.puback(1);
    world.puback(3);
    assert!(world.sender.is_empty());
}

#[test]
fn a_packet_of_qos_1_may_be_the_oldest_of_a_full_queue() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_acknowledged(b"1"));
    for _ in 0..9 {
        assert!(world.enqueue_acknowledged(b"2"));
    }
    assert!(!world.enqueue_acknowledged(b"3"), "the queue is full");
    let enqueued = world
        .sender
        .enqueue(outgoing(QoS::AtLeastOnce), &world.limits, Now::default());
    let Enqueued::Displaced { oldest, sequence } = enqueued else {
        panic!("{enqueued:?}");
    };
    let oldest: Vec<_> = oldest.iter().map(|it| (it.sequence, it.qos)).collect();
    assert_eq!((oldest, sequence), ([(0, QoS::AtLeastOnce)].into(), 10));
    let expected: Vec<_> = (2..=10)
        .flat_map(|id| packet(at_least_once(id), b"2", false))
        .collect();
    let mut written = Vec::new();
    let mut messages = 0;
    while world.sender.poll(
        Now::default(),
        CommitId::ZERO,
        true,
        &mut world.events,
        |next| {
            if let Next::Frames(frames) = next {
                let mut out = TransmitBuf::new(usize::MAX);
                frames.write(&mut out);
                out.slices().for_each(|it| written.extend_from_slice(it));
            } else {
                messages += 1;
            }
            true
        },
    ) {}
    assert_eq!((written, messages), (expected, 1));
    (2..=11).for_each(|id| world.puback(id));
    assert!(world.sender.is_empty());
}

#[test]
fn only_puback_answers_a_packet_of_qos_1() {
    let mut world = World::new(ROOM);
    assert!(world.enqueue_acknowledged(b"1"));
    assert_eq!(world.sent().len(), 1);
    let id = PacketId::new(1).unwrap();
    let (code, events) = (ReasonCode::Success, &mut world.events);
    let wrong = Err(Violation::WrongAcknowledgement);
    assert_eq!(world.sender.pubrec(id, code, events), wrong);
    assert_eq!(world.sender.pubcomp(id, code, events), wrong);
    world.puback(1);
    assert!(world.sender.is_empty());
}

/// Twenty messages, of which the store alone has ten.
fn half_stored(window: u16) -> World {
    let mut world = World::new(NonZeroU16::new(window).unwrap());
    world.limits.queued_messages_max = 100;
    world.limits.resident_messages = 10;
    for _ in 0..20 {
        world.enqueue(QoS::AtLeastOnce);
    }
    world
}

#[test]
fn the_store_is_asked_when_half_of_what_may_be_resident_is_sent() {
    let mut world = half_stored(4);
    assert_eq!(world.sent(), [1, 2, 3, 4]);
    assert_eq!(world.sender.poll_fetch(&world.limits), None);
    world.puback(1);
    assert_eq!(world.sent(), [5]);
    let page = FetchFrom {
        sequence: 10,
        max_messages: 5,
        max_bytes: 1_048_576,
    };
    assert_eq!(world.sender.poll_fetch(&world.limits), Some(page));
    assert_eq!(world.sender.poll_fetch(&world.limits), None, "asked twice");
}

/// [MQTT5-2.2.1-3]
#[test]
fn a_request_takes_the_identifier_whose_turn_for_a_message_is_farthest_off() {
    let mut world = half_stored(10);
    let request = |world: &mut World| world.sender.take_request_id().map(PacketId::get);
    assert_eq!(request(&mut world), Some(65_535));
    assert_eq!(world.sent().len(), 10);
    for id in 1..=10 {
        world.puback(id);
    }
    // The next is message 11, which the store has.
    assert_eq!(request(&mut world), Some(10));
}

/// [MQTT5-2.2.1-4]
#[test]
fn identifiers_are_found_across_the_gaps_that_drops_leave() {
    let mut world = World::new(NonZeroU16::new(3).unwrap());
    for _ in 0..3 {
        world.enqueue(QoS::AtLeastOnce);
    }
    assert_eq!(world.sent(), [1, 2, 3]);
    // Of 30 that come while the window is full, 20 go.
    for _ in 0..30 {
        world.enqueue(QoS::AtLeastOnce);
    }
    assert_eq!(world.sent(), []);
    for id in [2, 1] {
        world.puback(id);
    }
    assert_eq!(world.sent(), [24, 25]);
    for id in [25, 24, 3, 24] {
        world.puback(id);
    }
    assert_eq!(world.sender.in_flight(), 0);
    assert_eq!(world.sent(), [26, 27, 28]);
}

/// A gap as wide as all identifiers holds messages back until the one before it is acknowledged.
#[test]
fn no_identifier_is_in_use_twice_however_many_messages_were_dropped() {
    let mut world = World::new(NonZeroU16::new(2).unwrap());
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!(world.sent(), [1]);
    for _ in 0..65_534 {
        world.enqueue(QoS::AtLeastOnce);
        world.sender.pop_queued();
    }
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!(world.sent(), []);
    world.puback(1);
    assert_eq!(world.sent(), [1]);
}

/// [MQTT5-2.2.1-3] [MQTT311-2.3.1-2]
#[test]
fn requests_and_messages_share_the_identifiers() {
    let mut world = World::new(ROOM);
    let first = world.sender.take_request_id().unwrap();
    assert_eq!(first.get(), 65_535);
    world.enqueue(QoS::AtLeastOnce);
    assert_eq!(world.sent(), [1]);
    assert_eq!(
        world.sender.take_request_id().map(PacketId::get),
        Some(65_534)
    );
    // Messages as far as the identifiers in use by requests.
    let mut last = 1;
    for _ in 0..65_534 {
        world.enqueue(QoS::AtLeastOnce);
        for id in world.sent() {
            world.puback(id);
            last = id;
        }
    }
    assert_eq!(last, 65_533);
    assert!(
        world
            .sender
            .return_request_id(PacketId::new(65_534).unwrap())
    );
    assert!(
        !world
            .sender
            .return_request_id(PacketId::new(65_534).unwrap())
    );
    assert!(world.sent().contains(&65_534));
    assert!(world.sender.return_request_id(first));
    assert!(world.sent().contains(&65_535));
}

#[derive(Clone, Debug)]
enum Op {
    Enqueue(QoS),
    /// A packet, of QoS 1 or 0.
    Frame(bool),
    Send,
    /// The acknowledgement that the n-th of those in use waits for.
    Acknowledge(usize),
    Request,
    Answer(usize),
    Reconnect(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u8).prop_map(|qos| Op::Enqueue(QoS::from_u8(qos).unwrap())),
        6 => any::<bool>().prop_map(Op::Frame),
        3 => Just(Op::Send),
        6 => any::<usize>().prop_map(Op::Acknowledge),
        1 => Just(Op::Request),
        1 => any::<usize>().prop_map(Op::Answer),
        1 => (1..6u16).prop_map(Op::Reconnect),
    ]
}

/// What the peer is owed for an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Puback,
    Pubrec,
    Pubcomp,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// [MQTT5-2.2.1-4] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
    #[test]
    fn identifiers_are_unique_and_the_window_is_kept(
        window in 1..6u16,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut window = window;
        let mut world = World::new(NonZeroU16::new(window).unwrap());
        let mut in_use: Vec<(u16, Due)> = vec![];
        let mut requests: Vec<PacketId> = vec![];
        let mut counted = 0;
        for op in ops {
            match op {
                Op::Enqueue(qos) => world.enqueue(qos),
                Op::Frame(true) => drop(world.enqueue_acknowledged(b"x")),
                Op::Frame(false) => drop(world.enqueue_frame(b"x")),
                Op::Send => {}
                Op::Acknowledge(n) if !in_use.is_empty() => {
                    let n = n % in_use.len();
                    let (id, due) = in_use[n];
                    let packet_id = PacketId::new(id).unwrap();
                    let success = ReasonCode::Success;
                    let World { sender, events, .. } = &mut world;
                    match due {
                        Due::Puback => sender.puback(packet_id, success, events).unwrap(),
                        Due::Pubrec => sender.pubrec(packet_id, success, events).unwrap(),
                        Due::Pubcomp => sender.pubcomp(packet_id, success, events).unwrap(),
                    }
                    if due == Due::Pubrec {
                        in_use[n].1 = Due::Pubcomp;
                    } else {
                        in_use.remove(n);
                        counted -= 1;
                    }
                }
                Op::Request => requests.extend(world.sender.take_request_id()),
                Op::Answer(n) if !requests.is_empty() => {
                    let id = requests.swap_remove(n % requests.len());
                    prop_assert!(world.sender.return_request_id(id));
                }
                Op::Reconnect(new) => {
                    window = new;
                    in_use.retain(|it| !is_forgotten(&world.sender, it.0));
                    world.sender.detach();
                    world.sender.attach(NonZeroU16::new(new).unwrap());
                    requests.clear();
                    // Everything is acknowledged as it is sent again.
                    let mut resent = vec![];
                    while !in_use.is_empty() {
                        let sent = world.sent();
                        prop_assert!(!sent.is_empty());
                        for id in sent.into_iter().filter(|id| *id != 0) {
                            let Some(n) = in_use.iter().position(|it| it.0 == id) else {
                                // Sent for the first time behind all others.
                                resent.push(id);
                                continue;
                            };
                            let (_, due) = in_use[n];
                            let packet_id = PacketId::new(id).unwrap();
                            let success = ReasonCode::Success;
                            let World { sender, events, .. } = &mut world;
                            match due {
                                Due::Puback => sender.puback(packet_id, success, events).unwrap(),
                                Due::Pubrec => sender.pubrec(packet_id, success, events).unwrap(),
                                Due::Pubcomp => {
                                    sender.pubcomp(packet_id, success, events).unwrap();
                                }
                            }
                            if due == Due::Pubrec {
                                in_use[n].1 = Due::Pubcomp;
                            } else {
                                in_use.remove(n);
                            }
                        }
                    }
                    counted = 0;
                    for id in resent {
                        counted += 1;
                        in_use.push((id, due_of(&world.sender, id)));
                    }
                }
                Op::Acknowledge(_) | Op::Answer(_) => {}
            }
            for id in world.sent().into_iter().filter(|id| *id != 0) {
                if let Some((_, due)) = in_use.iter().find(|it| it.0 == id) {
                    prop_assert_eq!(*due, Due::Pubcomp, "{} is in use", id);
                } else {
                    prop_assert!(requests.iter().all(|it| it.get() != id));
                    counted += 1;
                    in_use.push((id, due_of(&world.sender, id)));
                }
            }
            prop_assert!(counted <= window, "{} of {}", counted, window);
            prop_assert_eq!(world.sender.in_flight(), in_use.len());
        }
    }
}

/// What is done to a sender whose messages have numbers.
#[derive(Clone, Debug)]
enum Step {
    Message(QoS),
    Packet(QoS),
    /// As much as there is room for, once.
    Write(usize),
    Puback(usize),
    /// Of an identifier near those in use, which may have left or not.
    Stray(u16),
    Unpack,
    Reconnect(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let qos = prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)];
    prop_oneof![
        3 => qos.clone().prop_map(Step::Message),
        12 => qos.prop_map(Step::Packet),
        5 => (0..200usize).prop_map(Step::Write),
        6 => any::<usize>().prop_map(Step::Puback),
        1 => (1..90u16).prop_map(Step::Stray),
        1 => Just(Step::Unpack),
        1 => (1..6u16).prop_map(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// [MQTT5-2.2.1-4] [MQTT5-4.6.0-6] [MQTT5-4.9.0-2] What was a packet is not sent again; all else is,
    /// and nothing is sent twice on a connection.
    #[test]
    fn messages_and_packets_leave_in_their_order(
        window in 1..6u16,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut window = window;
        let mut world = World::new(NonZeroU16::new(window).unwrap());
        world.limits.queued_messages_max = 10_000;
        let mut queued: [VecDeque<u8>; 2] = Default::default();
        let mut in_use: Vec<(u16, u8, bool)> = Vec::new();
        let mut resent: Vec<(u16, u8)> = Vec::new();
        let mut numbers = 0..u8::MAX;
        for step in steps.into_iter().chain(core::iter::repeat_n(Step::Write(usize::MAX), 3)) {
            let mut out = TransmitBuf::new(0);
            match step {
                Step::Message(qos) | Step::Packet(qos) => {
                    let Some(n) = numbers.next() else { continue };
                    let payload = [n].repeat(1 + usize::from(n % 3) * 40);
                    let delivery = match qos {
                        QoS::AtMostOnce => Delivery::AtMostOnce,
                        QoS::AtLeastOnce | QoS::ExactlyOnce => at_least_once(7_777),
                    };
                    let taken = matches!(step, Step::Packet(_))
                        && world.enqueue_packet(&packet(delivery, &payload, false), 0);
                    if !taken {
                        let message = Message::new(TopicName::new("a/b").unwrap(), &payload);
                        let outgoing = Outgoing::new(message.with_qos(qos));
                        let World { sender, limits, .. } = &mut world;
                        let enqueued = sender.enqueue(outgoing, limits, Now::default());
                        let is_queued = matches!(enqueued, Enqueued::Queued { .. });
                        prop_assert!(is_queued);
                    }
                    queued[usize::from(qos != QoS::AtMostOnce)].push_back(n);
                    continue;
                }
                Step::Write(limit) => out = TransmitBuf::new(limit.max(1)),
                Step::Puback(n) if !in_use.is_empty() => {
                    let (id, ..) = in_use.swap_remove(n % in_use.len());
                    world.puback(id);
                }
                Step::Puback(_) => {}
                Step::Stray(id) => {
                    if in_use.iter().all(|it| it.0 != id) && resent.iter().all(|it| it.0 != id) {
                        world.puback(id);
                    }
                }
                Step::Unpack => prop_assert!(world.sender.take_unsent(|_| false).is_empty()),
                Step::Reconnect(new) => {
                    window = new;
                    world.sender.detach();
                    world.sender.attach(NonZeroU16::new(new).unwrap());
                    // Those that were packets are gone with their connection.
                    in_use.extend(resent.drain(..).map(|(id, n)| (id, n, true)));
                    let mut kept: Vec<_> = in_use.drain(..).filter(|it| it.2).collect();
                    kept.sort_by_key(|it| it.1);
                    resent.extend(kept.into_iter().map(|it| (it.0, it.1)));
                }
            }
            loop {
                let mut written: Vec<(Option<u16>, u8, bool, bool)> = Vec::new();
                let World { sender, events, .. } = &mut world;
                if out.is_full() {
                    break;
                }
                let polled = sender.poll(Now::default(), CommitId::ZERO, true, events, |next| {
                    match next {
                        Next::Publish { outgoing, packet_id, dup } => {
                            let id = packet_id.map(PacketId::get);
                            let payload = outgoing.message.payload();
                            out.put_shared(payload.to_vec().into());
                            written.push((id, payload[0], dup, true));
                        }
                        Next::Frames(frames) => {
                            let before: usize = out.slices().map(<[u8]>::len).sum();
                            frames.write(&mut out);
                            let all: Vec<u8> = out.slices().flatten().copied().collect();
                            let mut rest = &all[before..];
                            while !rest.is_empty() {
                                let (one, behind) = rest.split_at(frame_len(rest));
                                let publish = Publish::decode(one, Version::V5).unwrap();
                                let id = publish.packet_id().map(PacketId::get);
                                written.push((id, publish.payload[0], publish.dup, false));
                                rest = behind;
                            }
                        }
                        Next::Pubrel { .. } => panic!("nothing is of QoS 2"),
                    }
                    true
                });
                for (id, n, dup, kept) in written {
                    let Some(id) = id else {
                        prop_assert_eq!(queued[0].pop_front(), Some(n));
                        continue;
                    };
                    prop_assert!(in_use.iter().all(|it| it.0 != id), "{} is in use", id);
                    if dup {
                        prop_assert_eq!(resent.remove(0), (id, n));
                    } else {
                        prop_assert!(resent.is_empty());
                        prop_assert_eq!(queued[1].pop_front(), Some(n));
                    }
                    in_use.push((id, n, kept));
                    prop_assert!(in_use.len() <= usize::from(window));
                }
                if !polled {
                    break;
                }
            }
            prop_assert_eq!(world.sender.in_flight(), in_use.len() + resent.len());
            prop_assert_eq!(world.sender.queued(), queued[0].len() + queued[1].len());
        }
        while let Some((id, ..)) = in_use.pop() {
            world.puback(id);
        }
        if resent.is_empty() && queued.iter().all(VecDeque::is_empty) {
            prop_assert!(world.sender.is_empty());
            prop_assert_eq!(world.sender.queued_bytes(), 0);
        }
        prop_assert!(queued[0].is_empty(), "nothing holds QoS 0 back");
    }
}

fn frame_len(packets: &[u8]) -> usize {
    avocet_codec::frame_len(packets, u32::MAX).unwrap().unwrap()
}

fn due_of(sender: &Sender, id: u16) -> Due {
    let index = sender.find(PacketId::new(id).unwrap()).unwrap();
    match &sender.inflight[index].state {
        State::Publish(outgoing) if outgoing.qos == QoS::AtLeastOnce => Due::Puback,
        State::Sent => Due::Puback,
        State::Publish(_) => Due::Pubrec,
        State::Pubrel { .. } | State::Finished => Due::Pubcomp,
    }
}

/// Whether it goes with its connection.
fn is_forgotten(sender: &Sender, id: u16) -> bool {
    let index = sender.find(PacketId::new(id).unwrap()).unwrap();
    matches!(sender.inflight[index].state, State::Sent)
}
