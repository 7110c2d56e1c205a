//! Tenants over real connections, with one shard and with three.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use avocet_codec::{
    Ack, Connect, ConnectProperties, Delivery, Packet, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Version, Will,
};
use common::{Client, DataDir, Server, command, id};

/// The password `password`.
const ARGON2ID: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

const TENANTS: &str = "[[tenant]]\nname = \"acme\"\nusers = [\"ann\"]\n\
                       [[tenant]]\nname = \"bolt\"\nusers = [\"bob\"]\nsubscriptions_max = 3\n";

/// A broker whose users `ann` and `bob` belong to a tenant each, and `eve` to none; anybody who comes
/// to its second listener belongs to `workshop`.
struct Broker {
    dir: DataDir,
    shards: &'static str,
}

impl Broker {
    fn new(shards: &'static str) -> Self {
        let broker = Self {
            dir: DataDir::new(),
            shards,
        };
        fs::create_dir_all(&broker.dir.0).unwrap();
        let users = ["ann", "bob", "eve"].map(|user| format!("{user}:{ARGON2ID}\n"));
        broker.write("passwd", &users.concat());
        broker.write("tenants.toml", TENANTS);
        let rules = "[[rule]]\ndeny = \"publish\"\ntenant = \"acme\"\ntopic = \"closed/{tenant}\"\n\
                     [[rule]]\nallow = \"all\"\ntopic = [\"#\", \"$SYS/#\"]\n";
        broker.write("rules.toml", rules);
        let place = broker.path("");
        let config = format!(
            "data_dir = \"{place}data\"\n[access]\npassword_file = \"{place}passwd\"\n\
             tenants = \"{place}tenants.toml\"\nrules = \"{place}rules.toml\"\nanonymous = true\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\ntenant = \"workshop\"\n\
             [mqtt]\nsys_interval = \"50ms\"\n"
        );
        broker.write("avocet.toml", &config);
        broker
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir.0.display())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = command();
        command.args([
            "--config",
            &self.path("avocet.toml"),
            "--shards",
            self.shards,
        ]);
        command
    }

    fn start(&self) -> Running {
        let mut server = Server::spawn(self.command());
        let line = server.wait_for_log("listening on ");
        let address = line.split_once("listening on ").unwrap().1;
        let end = address.find(['"', '\u{1b}', ' ']).unwrap_or(address.len());
        let workshop = address[..end].parse().unwrap();
        Running { server, workshop }
    }
}

struct Running {
    server: Server,
    workshop: SocketAddr,
}

/// Who connects, to which listener.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    User(&'static str),
    AtWorkshop,
}

const EVERYBODY: [Who; 4] = [
    Who::User("ann"),
    Who::User("bob"),
    Who::User("eve"),
    Who::AtWorkshop,
];

fn connect(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.clean_start = false;
    connect.properties = ConnectProperties {
        session_expiry_interval: 3_600,
        ..ConnectProperties::default()
    };
    connect
}

impl Running {
    fn try_connect(&self, who: Who, connect: &Connect<'_>) -> (Client, ReasonCode, bool) {
        let mut connect = *connect;
        let address = match who {
            Who::User(user) => {
                connect.user_name = Some(user);
                connect.password = Some(b"password");
                self.server.address
            }
            Who::AtWorkshop => self.workshop,
        };
        let mut client = Client::open(address, connect.version);
        client.send(&Packet::Connect(connect));
        let frame = client.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        (client, connack.reason_code, connack.session_present)
    }

    fn connect(&self, who: Who, connect: &Connect<'_>) -> Client {
        let (client, reason_code, _) = self.try_connect(who, connect);
        assert_eq!(reason_code, ReasonCode::Success, "{who:?}");
        client
    }

    /// One connection for each, all with the same Client Identifier.
    fn connect_all(&self, connect: &Connect<'_>) -> [Client; 4] {
        EVERYBODY.map(|who| self.connect(who, connect))
    }
}

fn payload(who: Who, text: &str) -> Vec<u8> {
    format!("{text} of {who:?}").into_bytes()
}

fn publish(client: &mut Client, topic: &str, payload: &[u8], retain: bool) -> ReasonCode {
    let delivery = Delivery::AtLeastOnce(id(1));
    let mut publish = Publish::new(TopicName::new(topic).unwrap(), delivery, payload);
    publish.retain = retain;
    client.send(&Packet::Publish(publish));
    let frame = client.receive();
    let Packet::Puback(ack) = frame.packet() else {
        panic!("no PUBACK: {frame:?}")
    };
    ack.reason_code
}

fn subscribe(client: &mut Client, filter: &str) -> ReasonCode {
    let filters = [SubscribeFilter::new(
        TopicFilter::new(filter).unwrap(),
        QoS::AtLeastOnce,
    )];
    client.send(&Packet::Subscribe(Subscribe::new(id(9), &filters)));
    let frame = client.receive();
    let Packet::Suback(suback) = frame.packet() else {
        panic!("no SUBACK: {frame:?}")
    };
    suback.reason_codes.iter().next().unwrap()
}

/// Everything goes everywhere it should, and nowhere else, also after a restart.
fn nothing_crosses(shards: &'static str) {
    let broker = Broker::new(shards);
    let mut running = broker.start();
    for (who, mut client) in EVERYBODY
        .into_iter()
        .zip(running.connect_all(&connect("watcher")))
    {
        for filter in ["#", "$share/g/jobs/+"] {
            assert!(!subscribe(&mut client, filter).is_error(), "{who:?}");
        }
    }
    for who in EVERYBODY {
        let text = payload(who, "will");
        let mut dying = connect("dying");
        let mut will = Will::new(TopicName::new("wills/a").unwrap(), &text);
        will.qos = QoS::AtLeastOnce;
        dying.will = Some(will);
        let client = running.connect(who, &dying);
        drop(client);
        running.server.wait_for_log("network");
    }
    for (who, mut client) in EVERYBODY
        .into_iter()
        .zip(running.connect_all(&connect("same")))
    {
        let retained = publish(&mut client, "state", &payload(who, "state"), true);
        assert!(!retained.is_error());
        let job = publish(&mut client, "jobs/1", &payload(who, "job"), false);
        assert!(!job.is_error());
    }
    running.server.terminate();
    running.server.wait();

    let running = broker.start();
    for who in EVERYBODY {
        let (mut client, _, present) = running.try_connect(who, &connect("watcher"));
        assert!(present, "{who:?}");
        let mut expected = ["will", "state", "job", "job"].map(|it| payload(who, it));
        let mut got: Vec<Vec<u8>> = expected
            .iter()
            .map(|_| {
                let (payload, delivery) = client.receive_publish();
                let Delivery::AtLeastOnce(packet_id) = delivery else {
                    panic!("{delivery:?}")
                };
                client.send(&Packet::Puback(Ack::new(packet_id)));
                payload
            })
            .collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{who:?}");
        let mut late = running.connect(who, &Connect::new(Version::V3_1_1, "late"));
        late.subscribe("+", QoS::AtLeastOnce);
        assert_eq!(late.receive_publish().0, payload(who, "state"));
        // What is answered next is all there is.
        for client in [&mut client, &mut late] {
            client.send(&Packet::Pingreq);
            let frame = client.receive();
            assert!(matches!(frame.packet(), Packet::Pingresp), "{frame:?}");
        }
    }
    drop(running);
    let mut store = command();
    store.args(["store", "tenants", &broker.path("data")]);
    let said = String::from_utf8(store.output().unwrap().stdout).unwrap();
    for tenant in ["no tenant", "acme", "bolt", "workshop"] {
        let line = said.lines().find(|line| line.starts_with(tenant));
        let line = line.unwrap_or_else(|| panic!("{tenant}: {said}"));
        assert!(line.contains("1 retained"), "{line}");
        assert!(line.contains("2 subscriptions"), "{line}");
    }
}

#[test]
fn nothing_crosses_in_one_shard() {
    nothing_crosses("1");
}

#[test]
fn nothing_crosses_among_three_shards() {
    nothing_crosses("3");
}

#[test]
fn who_is_of_two_tenants_is_refused() {
    let broker = Broker::new("1");
    let mut running = broker.start();
    let mut connect = Connect::new(Version::V5, "c");
    connect.user_name = Some("ann");
    connect.password = Some(b"password");
    for (version, expected) in [
        (Version::V5, ReasonCode::NotAuthorized),
        (Version::V3_1_1, ReasonCode::NotAuthorized),
    ] {
        connect.version = version;
        let (_, reason_code, _) = running.try_connect(Who::AtWorkshop, &connect);
        assert_eq!(reason_code, expected);
        let line = running.server.wait_for_log("of two tenants");
        assert!(line.contains("workshop") && line.contains("acme"), "{line}");
    }
    connect.user_name = Some("eve");
    let (_, reason_code, _) = running.try_connect(Who::AtWorkshop, &connect);
    assert_eq!(reason_code, ReasonCode::Success);
    let line = running.server.wait_for_log(" connected");
    assert!(line.contains("workshop"), "{line}");
}

#[test]
fn quotas_rules_and_sys_know_tenants() {
    let broker = Broker::new("3");
    let mut running = broker.start();
    let mut watcher = running.connect(Who::User("eve"), &Connect::new(Version::V5, "w"));
    let topic = "$SYS/broker/tenants/bolt/subscriptions/count";
    assert!(!subscribe(&mut watcher, topic).is_error());
    let mut bob = running.connect(Who::User("bob"), &Connect::new(Version::V5, "b"));
    let mut other = running.connect(Who::User("bob"), &Connect::new(Version::V5, "c"));
    for filter in ["a", "b"] {
        assert_eq!(subscribe(&mut bob, filter), ReasonCode::GrantedQoS1);
    }
    assert_eq!(subscribe(&mut other, "a"), ReasonCode::GrantedQoS1);
    // When the watcher is told of all three, every shard knows of them.
    while watcher.receive_publish().0 != b"3" {}
    assert_eq!(subscribe(&mut other, "b"), ReasonCode::QuotaExceeded);
    assert_eq!(subscribe(&mut bob, "c"), ReasonCode::QuotaExceeded);
    let mut ann = running.connect(Who::User("ann"), &Connect::new(Version::V5, "b"));
    for filter in ["a", "b", "c", "d"] {
        assert_eq!(subscribe(&mut ann, filter), ReasonCode::GrantedQoS1);
    }
    let refused = publish(&mut ann, "closed/acme", b"x", false);
    assert_eq!(refused, ReasonCode::NotAuthorized);
    for client in [&mut bob, &mut watcher] {
        assert!(!publish(client, "closed/acme", b"x", false).is_error());
    }
    // Files are read again.
    broker.write(
        "tenants.toml",
        "[[tenant]]\nname = \"acme\"\nusers = [\"bob\"]\n",
    );
    running.server.hang_up();
    running.server.wait_for_log("read again");
    for filter in ["c", "d"] {
        assert_eq!(subscribe(&mut bob, filter), ReasonCode::GrantedQoS1);
    }
    let (_, _, present) = running.try_connect(Who::User("bob"), &connect("moved"));
    assert!(!present);
    let line = running.server.wait_for_log("moved");
    assert!(line.contains("acme"), "{line}");
}

#[test]
fn names_that_are_not_allowed_are_told() {
    let broker = Broker::new("1");
    let check = || {
        let mut command = broker.command();
        let output = command.arg("check").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    assert_eq!(check().0, 0);
    broker.write("tenants.toml", "[[tenant]]\nname = \"a/b\"\n");
    let (code, said) = check();
    assert_eq!(code, 2);
    assert!(said.contains("tenants.toml, line 2: "), "{said}");
    broker.write("tenants.toml", TENANTS);
    for name in ["", "a+", "*", "#", "\\n"] {
        let config = format!(
            "[access]\nanonymous = true\n[[listen]]\naddress = \"127.0.0.1:0\"\ntenant = \"{name}\"\n"
        );
        broker.write("avocet.toml", &config);
        let (code, said) = check();
        assert_eq!(code, 2, "{name}: {said}");
        assert!(
            said.contains("line 5") && said.contains("listen.tenant"),
            "{said}"
        );
    }
}
