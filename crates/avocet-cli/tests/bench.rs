//! `avocet bench` against a server in this process that keeps what it promises, or does not.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

use std::collections::BTreeMap;
#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
#[cfg(unix)]
use std::process::Stdio;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::spawn;
use std::time::Duration;

use avocet_codec::{
    Ack, Connack, ConnackProperties, Connect, Delivery, Packet, PacketId, Publish, QoS, ReasonCode,
    Suback, TopicFilter, TopicName, Version,
};
use serde_json::Value;

const VERSION: Version = Version::V5;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    Nothing,
    /// Every tenth delivery does not happen.
    Loses,
    /// Every tenth delivery happens twice.
    Repeats,
    /// The same, and the second one says so.
    RepeatsAndSaysSo,
    /// Every tenth delivery comes after the next.
    Swaps,
    /// Every tenth delivery has another payload.
    Garbles,
    /// Every tenth message is refused.
    Refuses,
    /// Every tenth acknowledgement comes twice.
    AcknowledgesTwice,
    /// The tenth message ends the connection.
    HangsUp,
    /// No connection is accepted.
    RefusesConnections,
    /// No subscription is accepted.
    RefusesSubscriptions,
    /// The message of this number finds the server asleep, and so does all that comes meanwhile.
    Stalls(u64),
}

/// How long a server that stalls does nothing.
const STALL: Duration = Duration::from_millis(1_200);

#[derive(Default)]
struct State {
    subscriptions: Vec<Subscription>,
    /// The next member of a group that gets a message.
    turn: usize,
    retained: BTreeMap<String, Vec<u8>>,
    messages: u64,
    deliveries: u64,
    held: Option<(Arc<Mutex<Peer>>, Vec<u8>)>,
}

struct Subscription {
    filter: String,
    maximum_qos: QoS,
    client_id: String,
    peer: Arc<Mutex<Peer>>,
}

struct Peer {
    client_id: String,
    /// None while the client is away.
    stream: Option<TcpStream>,
    /// What is queued for it then.
    queue: Vec<u8>,
    last_id: u16,
}

impl Peer {
    fn write(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            // The program may have gone.
            Some(stream) => drop(stream.write_all(bytes)),
            None => self.queue.extend_from_slice(bytes),
        }
    }
}

fn send(peer: &Mutex<Peer>, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(VERSION, &mut bytes).unwrap();
    peer.lock().unwrap().write(&bytes);
}

/// Serves whoever connects, for as long as the test runs; the port.
fn serve(fault: Fault) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = Arc::new(Mutex::new(State::default()));
    spawn(move || {
        for stream in listener.incoming() {
            let state = Arc::clone(&state);
            spawn(move || serve_one(stream.unwrap(), &state, fault));
        }
    });
    port
}

fn serve_one(mut stream: TcpStream, state: &Mutex<State>, fault: Fault) {
    let mut peer = Arc::new(Mutex::new(Peer {
        client_id: String::new(),
        stream: Some(stream.try_clone().unwrap()),
        queue: Vec::new(),
        last_id: 0,
    }));
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..length]);
        let mut rest = input.as_slice();
        while let Some(packet) = Packet::decode_next(&mut rest, VERSION, u32::MAX).unwrap() {
            if let Packet::Connect(connect) = &packet {
                peer = known(connect, &peer, &mut state.lock().unwrap());
            }
            if !on_packet(&packet, &peer, state, fault) {
                return leave(&stream, &peer);
            }
            if matches!(packet, Packet::Connect(_)) {
                let queue = std::mem::take(&mut peer.lock().unwrap().queue);
                peer.lock().unwrap().write(&queue);
            }
        }
        input = rest.to_vec();
    }
}

/// The client goes, unless it has come back already.
fn leave(stream: &TcpStream, peer: &Mutex<Peer>) {
    let mut peer = peer.lock().unwrap();
    let address = stream.peer_addr().ok();
    peer.stream.take_if(|own| own.peer_addr().ok() == address);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// Who this is: with a Session, the one it had been.
fn known(connect: &Connect<'_>, peer: &Arc<Mutex<Peer>>, state: &mut State) -> Arc<Mutex<Peer>> {
    peer.lock().unwrap().client_id = connect.client_id.into();
    let is_own = |subscription: &Subscription| subscription.client_id == connect.client_id;
    if connect.clean_start {
        state
            .subscriptions
            .retain(|subscription| !is_own(subscription));
    }
    match state
        .subscriptions
        .iter()
        .find(|subscription| is_own(subscription))
    {
        Some(Subscription { peer: old, .. }) => {
            old.lock().unwrap().stream = peer.lock().unwrap().stream.take();
            Arc::clone(old)
        }
        None => Arc::clone(peer),
    }
}

/// Says whether the connection goes on.
fn on_packet(
    packet: &Packet<'_>,
    peer: &Arc<Mutex<Peer>>,
    state: &Mutex<State>,
    fault: Fault,
) -> bool {
    let reply = |packet: &Packet<'_>| send(peer, packet);
    match packet {
        Packet::Connect(_) => {
            let reason_code = match fault {
                Fault::RefusesConnections => ReasonCode::NotAuthorized,
                _ => ReasonCode::Success,
            };
            reply(&Packet::Connack(Connack {
                session_present: false,
                reason_code,
                properties: ConnackProperties::default(),
            }));
        }
        Packet::Subscribe(subscribe) => {
            let mut state = state.lock().unwrap();
            let mut codes = Vec::new();
            for filter in subscribe.filters {
                let qos = filter.options.maximum_qos;
                state.subscriptions.push(Subscription {
                    filter: filter.topic_filter.to_string(),
                    maximum_qos: qos,
                    client_id: peer.lock().unwrap().client_id.clone(),
                    peer: Arc::clone(peer),
                });
                fetch(filter.topic_filter, qos, peer, &mut state, fault);
                codes.push(match fault {
                    Fault::RefusesSubscriptions => ReasonCode::NotAuthorized,
                    _ => ReasonCode::from_u8(qos as u8).unwrap(),
                });
            }
            reply(&Packet::Suback(Suback::new(subscribe.packet_id, &codes)));
        }
        Packet::Publish(publish) => {
            return on_publish(publish, peer, &mut state.lock().unwrap(), fault);
        }
        Packet::Pubrel(ack) => reply(&Packet::Pubcomp(Ack::new(ack.packet_id))),
        Packet::Pubrec(ack) => reply(&Packet::Pubrel(Ack::new(ack.packet_id))),
        Packet::Pingreq => reply(&Packet::Pingresp),
        Packet::Puback(_) | Packet::Pubcomp(_) => {}
        Packet::Disconnect(_) => return false,
        other => panic!("{other:?}"),
    }
    true
}

/// Sends the retained messages of a new subscription.
fn fetch(filter: TopicFilter<'_>, qos: QoS, peer: &Mutex<Peer>, state: &mut State, fault: Fault) {
    for (topic, payload) in &state.retained {
        let topic_name = TopicName::new(topic).unwrap();
        if !avocet_topic::matches(filter, topic_name) {
            continue;
        }
        state.deliveries += 1;
        let times = match (fault, state.deliveries.is_multiple_of(10)) {
            (Fault::Loses, true) => 0,
            (Fault::Repeats, true) => 2,
            _ => 1,
        };
        for _ in 0..times {
            let mut peer = peer.lock().unwrap();
            let mut bytes = delivery(&mut peer, topic_name, qos, payload, false);
            // RETAIN
            bytes[0] |= 1;
            peer.write(&bytes);
        }
    }
}

/// Whoever holds the state meanwhile keeps it from all others. Nothing ends it: that is the fault.
fn stall() {
    let (_end, ended) = mpsc::channel::<()>();
    let _ = ended.recv_timeout(STALL);
}

fn on_publish(
    publish: &Publish<'_>,
    peer: &Arc<Mutex<Peer>>,
    state: &mut State,
    fault: Fault,
) -> bool {
    state.messages += 1;
    let is_tenth = state.messages.is_multiple_of(10);
    if fault == Fault::Stalls(state.messages) {
        stall();
    }
    let is_refused = is_tenth && fault == Fault::Refuses;
    if is_tenth && fault == Fault::HangsUp {
        return false;
    }
    if let Some(id) = publish.packet_id() {
        let ack = if is_refused {
            Ack::with_reason(id, ReasonCode::QuotaExceeded)
        } else {
            Ack::new(id)
        };
        let packet = match publish.qos() {
            QoS::ExactlyOnce => Packet::Pubrec(ack),
            _ => Packet::Puback(ack),
        };
        let times = if is_tenth && fault == Fault::AcknowledgesTwice {
            2
        } else {
            1
        };
        for _ in 0..times {
            send(peer, &packet);
        }
    }
    if is_refused {
        return true;
    }
    let topic_name = publish.topic_name.unwrap();
    if publish.retain {
        let topic = topic_name.to_string();
        match publish.payload {
            [] => state.retained.remove(&topic),
            payload => state.retained.insert(topic, payload.to_vec()),
        };
    }
    state.turn += 1;
    let turn = state.turn % state.subscriptions.len().max(1);
    let State {
        subscriptions,
        deliveries,
        held,
        ..
    } = state;
    for (number, subscription) in subscriptions.iter().enumerate() {
        let Subscription {
            filter,
            maximum_qos,
            peer,
            ..
        } = subscription;
        // One of the members gets it.
        let (filter, is_chosen) = match filter.strip_prefix("$share/bench/") {
            Some(filter) => (filter, number == turn),
            None => (filter.as_str(), true),
        };
        let filter = TopicFilter::new(filter).unwrap();
        if !is_chosen || !avocet_topic::matches(filter, topic_name) {
            continue;
        }
        *deliveries += 1;
        let is_tenth = deliveries.is_multiple_of(10);
        let qos = publish.qos().min(*maximum_qos);
        let mut payload = publish.payload.to_vec();
        if is_tenth && fault == Fault::Garbles {
            *payload.last_mut().unwrap() ^= 1;
        }
        let mut bytes = delivery(&mut peer.lock().unwrap(), topic_name, qos, &payload, false);
        match fault {
            Fault::Loses if is_tenth => continue,
            Fault::Repeats | Fault::RepeatsAndSaysSo if is_tenth => {
                let dup = fault == Fault::RepeatsAndSaysSo;
                let again = delivery(&mut peer.lock().unwrap(), topic_name, qos, &payload, dup);
                bytes.extend(again);
            }
            Fault::Swaps if is_tenth => {
                *held = Some((Arc::clone(peer), bytes));
                continue;
            }
            _ => {}
        }
        peer.lock().unwrap().write(&bytes);
        if held.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, peer)) {
            let (peer, bytes) = held.take().unwrap();
            peer.lock().unwrap().write(&bytes);
        }
    }
    true
}

fn delivery(
    peer: &mut Peer,
    topic_name: TopicName<'_>,
    qos: QoS,
    payload: &[u8],
    dup: bool,
) -> Vec<u8> {
    peer.last_id = peer.last_id % 60_000 + 1;
    let id = PacketId::new(peer.last_id).unwrap();
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
    };
    let mut publish = Publish::new(topic_name, delivery, payload);
    publish.dup = dup && qos != QoS::AtMostOnce;
    let mut bytes = Vec::new();
    publish.encode(VERSION, &mut bytes).unwrap();
    bytes
}

fn avocet(arguments: &str, port: u16) -> Output {
    Command::new(env!("CARGO_BIN_EXE_avocet"))
        .arg("bench")
        .args(arguments.split(' '))
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .output()
        .unwrap()
}

/// The exit code, the result, and what stands on standard error when the progress is left out.
fn run(arguments: &str, fault: Fault) -> (i32, Value, String) {
    let output = avocet(&format!("{arguments} --json -"), serve(fault));
    let errors = String::from_utf8(output.stderr).unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let said = errors.lines().filter(|line| line.starts_with("avocet: "));
    (
        output.status.code().unwrap(),
        result,
        said.collect::<Vec<_>>().join("\n"),
    )
}

fn counts(result: &Value) -> [u64; 3] {
    ["sent", "received", "unsent"].map(|name| result[name].as_u64().unwrap())
}

fn faults(result: &Value) -> [u64; 4] {
    ["lost", "duplicates", "out_of_order", "corrupt"]
        .map(|name| result["faults"][name].as_u64().unwrap())
}

const PAIR: &str = "pairs --pairs 1 --count 200 --window 50 --drain 1";

#[test]
fn every_message_of_every_workload_is_counted_once() {
    for (workload, deliveries) in [
        ("pairs --pairs 3", 1),
        ("fan-in --publishers 5 --subscribers 2", 1),
        ("fan-out --publishers 2 --subscribers 4", 4),
        ("shared --publishers 3 --subscribers 4", 1),
    ] {
        for options in [
            "-q 0",
            "-q 1",
            "-q 2",
            "-q 2 --sub-qos 1",
            "--threads 2 -q 1",
            "-q 1 -c -x 60",
        ] {
            let arguments = format!("{workload} --count 301 --topics 3 {options}");
            let (code, result, errors) = run(&arguments, Fault::Nothing);
            assert_eq!((code, errors.as_str()), (0, ""), "{arguments}");
            assert_eq!(counts(&result), [301, 301 * deliveries, 0], "{arguments}");
            assert_eq!(faults(&result), [0; 4], "{arguments}");
            let latencies = &result["latency_us"];
            assert_eq!(latencies["count"], 301 * deliveries, "{arguments}");
            let acknowledged = if options.contains("-q 0") { 0 } else { 301 };
            assert_eq!(result["acknowledged_us"]["count"], acknowledged);
            let is_number = result["acknowledged_us"]["p99"].is_number();
            assert_eq!(is_number, acknowledged > 0, "{arguments}");
        }
    }
}

#[test]
fn payloads_may_be_larger_than_what_is_written_at_once() {
    for bytes in ["4096", "100000", "1000000"] {
        let arguments = format!("pairs --pairs 2 --count 140 --payload {bytes} --drain 2");
        let (code, result, errors) = run(&arguments, Fault::Nothing);
        assert_eq!((code, errors.as_str()), (0, ""));
        assert_eq!(counts(&result), [140, 140, 0]);
    }
}

#[test]
fn lost_messages_are_reported_at_qos_0_and_an_error_above() {
    let (code, result, errors) = run(&format!("{PAIR} -q 0"), Fault::Loses);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(faults(&result), [20, 0, 0, 0]);
    assert_eq!(counts(&result), [200, 180, 0]);
    for qos in ["1", "2"] {
        let (code, result, errors) = run(&format!("{PAIR} -q {qos}"), Fault::Loses);
        assert_eq!(code, 1);
        assert_eq!(errors, format!("avocet: messages at QoS {qos}: 20 lost"));
        assert_eq!(faults(&result), [20, 0, 0, 0]);
        let stream = &result["streams"][0];
        assert_eq!(
            (&stream["publisher"], &stream["lost"]),
            (&0.into(), &20.into())
        );
    }
}

#[test]
fn repeated_messages_are_an_error_unless_qos_1_says_so() {
    for (qos, fault, expected) in [
        (0, Fault::Repeats, 1),
        (1, Fault::Repeats, 1),
        (2, Fault::Repeats, 1),
        (1, Fault::RepeatsAndSaysSo, 0),
        (2, Fault::RepeatsAndSaysSo, 1),
    ] {
        let (code, result, errors) = run(&format!("{PAIR} -q {qos}"), fault);
        assert_eq!(code, expected, "{qos} {fault:?}: {errors}");
        assert_eq!(errors.contains("20 duplicate"), expected == 1, "{errors}");
        assert_eq!(faults(&result), [0, 20, 0, 0]);
    }
}

#[test]
fn messages_that_overtake_each_other_are_an_error() {
    let arguments = "pairs --pairs 1 --count 205 --window 50";
    let (code, result, errors) = run(arguments, Fault::Swaps);
    assert_eq!(code, 1);
    assert_eq!(errors, "avocet: messages at QoS 0: 20 out of order");
    assert_eq!(faults(&result), [0, 0, 20, 0]);
    // Between topics there is no order.
    let (code, result, _) = run(&format!("{arguments} --topics 2"), Fault::Swaps);
    assert_eq!((code, faults(&result)), (0, [0; 4]));
}

#[test]
fn garbled_payloads_are_an_error() {
    let (code, result, errors) = run(PAIR, Fault::Garbles);
    assert_eq!(code, 1);
    assert!(
        errors.contains("20 with a payload that nobody sent"),
        "{errors}"
    );
    assert_eq!(faults(&result), [20, 0, 0, 20]);
}

#[test]
fn refused_messages_are_an_error_with_the_reason_code() {
    for qos in ["1", "2"] {
        let (code, result, errors) = run(&format!("{PAIR} -q {qos}"), Fault::Refuses);
        assert_eq!(code, 1);
        assert!(
            errors.contains("20 refused (0x97 (quota exceeded))"),
            "{errors}"
        );
        assert_eq!(faults(&result), [0; 4]);
        assert_eq!(result["faults"]["refused"], 20);
    }
}

#[test]
fn acknowledgements_of_nothing_are_an_error() {
    let (code, result, errors) = run(&format!("{PAIR} -q 1"), Fault::AcknowledgesTwice);
    assert_eq!(code, 1);
    assert!(
        errors.contains("20 acknowledgements of nothing sent"),
        "{errors}"
    );
    assert_eq!(result["faults"]["stray_acknowledgements"], 20);
}

#[test]
fn a_lost_connection_ends_the_run_with_its_name() {
    let (code, _, errors) = run(PAIR, Fault::HangsUp);
    assert_eq!(code, 1);
    assert!(
        errors.starts_with("avocet: publisher 0 at 127.0.0.1:"),
        "{errors}"
    );
}

#[test]
fn a_refusal_tells_who_was_refused_by_whom_and_why() {
    let (code, _, errors) = run(PAIR, Fault::RefusesConnections);
    assert_eq!(code, 0x87);
    let expected = " refused the connection: 0x87 (not authorized)";
    assert!(errors.contains(" 0: 127.0.0.1:"), "{errors}");
    assert!(errors.ends_with(expected), "{errors}");
    let (code, _, errors) = run(PAIR, Fault::RefusesSubscriptions);
    assert_eq!(code, 1);
    assert!(
        errors.contains("the subscription of avocet-bench/"),
        "{errors}"
    );
    assert!(errors.ends_with("with 0x87 (not authorized)"), "{errors}");
}

#[test]
fn messages_at_a_fixed_rate_are_due_whatever_the_server_does() {
    let arguments = "pairs --pairs 2 --rate 2000 --duration 0.5 --warm-up 0.1 -q 1";
    let (code, result, errors) = run(arguments, Fault::Nothing);
    assert_eq!((code, errors.as_str()), (0, ""));
    let due = result["latency_us"]["count"].as_u64().unwrap();
    assert!((999..=1001).contains(&due), "{due}");
    assert_eq!(faults(&result), [0; 4]);
}

/// A stall of 1.2 s in 2 s of a fixed rate: of all messages, three of five were due in it, evenly, and the first waited
/// longest. A generator that did not send meanwhile, or counted from when it sent, would show the few that were
/// on their way, and short times for the others.
#[test]
fn a_stall_shows_in_the_percentiles_of_all_messages_that_were_due() {
    for qos in ["0", "1", "2"] {
        let arguments = format!("pairs --pairs 2 --rate 1000 --duration 2 --warm-up 0 -q {qos}");
        let (code, result, errors) = run(&arguments, Fault::Stalls(200));
        assert_eq!((code, errors.as_str()), (0, ""));
        assert_eq!(faults(&result), [0; 4]);
        let latency = &result["latency_us"];
        let due = latency["count"].as_u64().unwrap();
        assert!((1_998..=2_001).contains(&due), "{due}");
        // Of 2 s of messages, those above a share are the first (1 - share) * 2 s of the stall. A slow machine only
        // makes them later; a tenth of a second is for what was due before the server fell asleep.
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let expected = STALL.as_secs_f64() - (1.0 - share) * 2.0;
            let seconds = latency[name].as_f64().unwrap() / 1e6;
            assert!(seconds >= expected - 0.1, "QoS {qos}, {name}: {latency}");
        }
    }
}

fn phases(result: &Value) -> Vec<(&str, u64)> {
    let phases = result["phases"].as_array().unwrap();
    let count = |phase: &Value| phase["count"].as_u64().unwrap();
    phases
        .iter()
        .map(|phase| (phase["name"].as_str().unwrap(), count(phase)))
        .collect()
}

/// How many latencies each phase has counted.
fn latencies(result: &Value) -> Vec<u64> {
    let phases = result["phases"].as_array().unwrap().iter();
    let count = |phase: &Value| phase["latency_us"]["count"].as_u64().unwrap();
    phases.map(count).collect()
}

#[test]
fn clients_connect_and_stay() {
    for options in ["--hold 0.2", "--hold 0.1 --rate 1000"] {
        let arguments = format!("connect --clients 30 {options}");
        let (code, result, errors) = run(&arguments, Fault::Nothing);
        assert_eq!((code, errors.as_str()), (0, ""));
        let expected = [("connected", 30), ("held", 30), ("left", 30)];
        assert_eq!(phases(&result), expected);
        assert_eq!(result["phases"][0]["latency_us"]["count"], 30);
    }
    let (code, _, errors) = run("connect --clients 3", Fault::RefusesConnections);
    assert_eq!(code, 0x87);
    assert!(errors.contains("client "), "{errors}");
}

#[test]
fn many_subscriptions_match_one_or_two_each() {
    let arguments = "subscriptions --subscriptions 100 --clients 7 --messages 500 --drain 1";
    for qos in 0..3 {
        let arguments = format!("{arguments} -q {qos}");
        let (code, result, errors) = run(&arguments, Fault::Nothing);
        assert_eq!((code, errors.as_str()), (0, ""));
        assert_eq!(phases(&result), [("subscribed", 100), ("matched", 500)]);
        assert_eq!(faults(&result), [0; 4]);
        let deliveries = result["deliveries"].as_u64().unwrap();
        assert!((600..900).contains(&deliveries), "{deliveries}");
        assert_eq!(latencies(&result), [0, deliveries]);
        let (code, result, errors) = run(&arguments, Fault::Loses);
        let [lost, others @ ..] = faults(&result);
        assert_eq!((code, others), (i32::from(qos > 0), [0; 3]), "{errors}");
        assert!((60..90).contains(&lost), "{lost}");
        let (code, result, errors) = run(&arguments, Fault::Repeats);
        let [lost, duplicates, ..] = faults(&result);
        assert_eq!((code, lost), (1, 0), "{errors}");
        assert!((60..90).contains(&duplicates), "{duplicates}");
    }
    // With as many lost as may be on their way, no more are sent.
    let narrow = format!("{arguments} --window 5");
    let (_, result, errors) = run(&narrow, Fault::Loses);
    let ([lost, ..], matched) = (faults(&result), phases(&result)[1].1);
    assert!(
        matched < 100 && (5..8).contains(&lost),
        "{lost} of {matched}: {errors}"
    );
    let (code, _, errors) = run(arguments, Fault::RefusesSubscriptions);
    assert_eq!(code, 1);
    assert!(errors.contains("a subscription with 0x87"), "{errors}");
}

#[test]
fn retained_messages_are_stored_fetched_and_deleted() {
    for qos in 0..3 {
        let arguments =
            format!("retained --messages 131 --publishers 3 --subscribers 2 -q {qos} --drain 1");
        let (code, result, errors) = run(&arguments, Fault::Nothing);
        assert_eq!((code, errors.as_str()), (0, ""));
        let expected = [("stored", 131), ("fetched", 262), ("deleted", 131)];
        assert_eq!(phases(&result), expected);
        let acknowledged = if qos == 0 { 0 } else { 131 };
        assert_eq!(latencies(&result), [acknowledged, 262, 0]);
        assert_eq!(faults(&result), [0; 4]);
    }
    let arguments = "retained --messages 100 -q 1 --drain 1";
    let (code, result, errors) = run(arguments, Fault::Loses);
    assert_eq!((code, faults(&result)), (1, [10, 0, 0, 0]), "{errors}");
    let (code, result, errors) = run(arguments, Fault::Repeats);
    assert_eq!((code, faults(&result)), (1, [0, 10, 0, 0]), "{errors}");
    let (code, _, errors) = run(arguments, Fault::Refuses);
    assert_eq!(code, 1);
    assert!(
        errors.contains("refused 10 retained messages: 0x97"),
        "{errors}"
    );
}

#[test]
fn messages_wait_for_clients_that_are_away() {
    for qos in 1..3 {
        let arguments = format!("offline --messages 205 --pairs 4 -q {qos} --drain 1");
        let (code, result, errors) = run(&arguments, Fault::Nothing);
        assert_eq!((code, errors.as_str()), (0, ""));
        let expected = [("left", 4), ("queued", 205), ("drained", 205)];
        assert_eq!(phases(&result), expected);
        assert_eq!(latencies(&result), [0, 205, 205]);
        let drained = &result["phases"][2];
        let longest = drained["latency_us"]["max"].as_f64().unwrap() / 1e6;
        assert!(longest <= drained["time_s"].as_f64().unwrap(), "{drained}");
        assert!(result["phases"][0]["latency_us"]["p99"].is_null());
        assert_eq!(faults(&result), [0; 4]);
        let (code, result, errors) = run(&arguments, Fault::Loses);
        assert_eq!((code, faults(&result)), (1, [20, 0, 0, 0]), "{errors}");
        let (code, result, errors) = run(&arguments, Fault::Repeats);
        assert_eq!((code, faults(&result)), (1, [0, 20, 0, 0]), "{errors}");
    }
}

#[test]
fn the_table_and_the_progress_are_for_people() {
    let output = avocet("pairs --count 100 --seed 7 -q 1", serve(Fault::Nothing));
    let (table, progress) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    for expected in [
        "50 publishers, 50 subscribers, QoS 1, 64 bytes, MQTT 5.0 at 127.0.0.1:",
        "seed 7",
        "\nend to end ",
        "\nPUBACK ",
        "\nlost 0, duplicate 0, out of order 0, corrupt 0\n",
    ] {
        assert!(table.contains(expected), "{table}");
    }
    assert!(progress.contains(" received "), "{progress}");
    let output = avocet("pairs --count 100 --quiet", serve(Fault::Nothing));
    assert_eq!(output.stderr, b"");
}

#[test]
fn the_picture_needs_nothing_else() {
    for (ending, expected) in [("svg", "<svg "), ("html", "<!DOCTYPE html>")] {
        let path = std::env::temp_dir().join(format!("avocet-{}.{ending}", std::process::id()));
        let arguments = format!("pairs --count 100 -q 1 --chart {}", path.display());
        let output = avocet(&arguments, serve(Fault::Nothing));
        assert_eq!(output.status.code(), Some(0));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with(expected));
        for part in [
            "latency over time",
            "latency by percentile",
            ">p99<",
            ">PUBACK, max ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // But for the name of the format.
        assert_eq!(text.matches("http").count(), 1, "{text}");
    }
}

#[test]
fn says_what_is_wrong_before_it_connects() {
    for (arguments, expected) in [
        ("pairs --pairs 0", "--pairs"),
        ("pairs --payload 8", "--payload"),
        ("pairs --rate 5 --window 5", "--window"),
        ("pairs --rate 0", "--rate"),
        ("pairs --count 5 --duration 5", "--duration"),
        ("pairs -q 3", "--qos"),
        ("fan-in --publishers 2 --subscribers 3", "--subscribers"),
        (
            "fan-out --publishers 5000 --subscribers 5000",
            "--subscribers",
        ),
        (
            "pairs --cafile /does/not/exist",
            "cannot read /does/not/exist: ",
        ),
        ("pairs --chart x.png", "--chart"),
        ("pairs -V 311 -x 5", "-x: the session expiry interval"),
        ("offline -q 0", "--qos"),
        ("retained --messages 0", "--messages"),
        ("connect --clients none", "--clients"),
        ("connect --hold soon", "--hold"),
        ("nothing", "nothing"),
    ] {
        let output = avocet(arguments, 1);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
        assert!(errors.contains(expected), "{arguments}: {errors}");
    }
}

/// Sends SIGINT once a line of the progress begins with a word; the exit code and the result.
#[cfg(unix)]
fn interrupt(arguments: &str, word: &str) -> (i32, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_avocet"))
        .arg("bench")
        .args(arguments.split(' '))
        .args(["--json", "-", "-h", "127.0.0.1", "-p"])
        .arg(serve(Fault::Nothing).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.trim_start().starts_with(word)));
    let killed = Command::new("sh")
        .args(["-c", "kill -INT \"$1\"", "sh"])
        .arg(child.id().to_string())
        .status();
    assert!(killed.unwrap().success());
    // It may still tell how far it is.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), result)
}

#[test]
#[cfg(unix)]
fn a_run_that_is_cut_short_tells_what_there_is() {
    let traffic = "pairs --pairs 2 --window 10 --duration 600 --warm-up 0 -q 1";
    let (code, result) = interrupt(traffic, "1.0 s");
    assert_eq!((code, faults(&result)), (0, [0; 4]));
    assert!(result["received"].as_u64().unwrap() > 0, "{result}");
    assert!(result["measured_s"].as_f64().unwrap() < 500.0, "{result}");

    for phases in [
        "connect --clients 3 --hold 600",
        "subscriptions --subscriptions 5 --clients 2 --messages 10 --hold 600",
        "retained --messages 3 --hold 600",
    ] {
        let (code, result) = interrupt(phases, "held");
        assert_eq!((code, &result["interrupted"]), (1, &Value::Bool(true)));
        let names = result["phases"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|phase| phase["name"].as_str().unwrap()).collect();
        assert_eq!(names.last(), Some(&"held"), "{phases}: {names:?}");
    }
}
