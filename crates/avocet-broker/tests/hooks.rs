//! Programs that decide themselves: who connects, what is published, what each receiver gets.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a failing helper fails its test"
)]

mod common;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_broker::{
    Answer, Authenticate, Authenticated, AuthorizationRequest, Authorize, Authorized, Broker,
    Client as Whom, CloseReason, Config, ConfigError, Hooks, Interests, Message, Missed,
    Publication, PublishIn, PublishOut, Recipient, StartError,
};
use avocet_codec::{
    Ack, Connect, ConnectProperties, Delivery, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter,
    Unsubscribe, Version, Will,
};
use avocet_topic::{TopicFilter, TopicFilterBuf, TopicName};

use crate::common::{Client, DEADLINE, DataDir, id};

type AuthenticateFn = dyn Fn(Authenticate, Answer<Authenticated>) + Send + Sync;
type AuthorizeFn = dyn Fn(Authorize, Answer<Authorized>) + Send + Sync;
type PublishInFn = dyn Fn(Publication, Answer<PublishIn>) + Send + Sync;
type PublishOutFn = dyn Fn(&Message, &Recipient<'_>) -> PublishOut + Send + Sync;

/// Hooks of functions.
#[derive(Default)]
struct Program {
    authenticate: Option<Box<AuthenticateFn>>,
    authorize: Option<Box<AuthorizeFn>>,
    publish_in: Option<Box<PublishInFn>>,
    publish_out: Option<Box<PublishOutFn>>,
    events: Option<Box<dyn Fn(String) + Send + Sync>>,
}

impl Hooks for Program {
    fn interests(&self) -> Interests {
        let when = |wanted, interest| if wanted { interest } else { Interests::NONE };
        when(self.authenticate.is_some(), Interests::AUTHENTICATE)
            | when(self.authorize.is_some(), Interests::AUTHORIZE)
            | when(self.publish_in.is_some(), Interests::PUBLISH_IN)
            | when(self.publish_out.is_some(), Interests::PUBLISH_OUT)
            | when(self.events.is_some(), Interests::EVENTS)
    }

    fn authenticate(&self, request: Authenticate, answer: Answer<Authenticated>) {
        self.authenticate.as_ref().unwrap()(request, answer);
    }

    fn authorize(&self, request: Authorize, answer: Answer<Authorized>) {
        self.authorize.as_ref().unwrap()(request, answer);
    }

    fn publish_in(&self, publication: Publication, answer: Answer<PublishIn>) {
        self.publish_in.as_ref().unwrap()(publication, answer);
    }

    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut {
        self.publish_out.as_ref().unwrap()(message, to)
    }

    fn connected(&self, client: &Whom) {
        let user = client.user.as_deref().unwrap_or("nobody");
        self.tell(format!("{} connected as {user}", client.client_id()));
    }

    fn disconnected(&self, client: &Whom, reason: CloseReason) {
        let by = if reason.is_by_peer() {
            "itself"
        } else {
            "others"
        };
        self.tell(format!("{} disconnected by {by}", client.client_id()));
    }

    fn subscribed(&self, client: &Whom, filter: &TopicFilterBuf, granted: QoS) {
        let (who, filter) = (client.client_id(), filter.as_str());
        self.tell(format!("{who} subscribed {filter} {granted}"));
    }

    fn unsubscribed(&self, client: &Whom, filter: &TopicFilterBuf) {
        let (who, filter) = (client.client_id(), filter.as_str());
        self.tell(format!("{who} unsubscribed {filter}"));
    }
}

impl Program {
    fn tell(&self, event: String) {
        self.events.as_ref().unwrap()(event);
    }

    fn config(self) -> Config {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.shards = NonZeroU16::new(2);
        config.hooks.hooks = Some(Arc::new(self));
        // Longer than anything takes, where a test does not say otherwise.
        config.hooks.authenticate_timeout = DEADLINE;
        config.hooks.authorize_timeout = DEADLINE;
        config.hooks.publish_in_timeout = DEADLINE;
        config.hooks.publish_out_budget = DEADLINE;
        config
    }

    fn start(self) -> (Broker, SocketAddr) {
        start(self.config())
    }
}

fn start(config: Config) -> (Broker, SocketAddr) {
    let broker = Broker::start(config).unwrap();
    let address = broker.local_addrs()[0];
    (broker, address)
}

fn authenticate(
    hook: impl Fn(Authenticate, Answer<Authenticated>) + Send + Sync + 'static,
) -> Program {
    Program {
        authenticate: Some(Box::new(hook)),
        ..Program::default()
    }
}

fn publish_in(hook: impl Fn(Publication, Answer<PublishIn>) + Send + Sync + 'static) -> Program {
    Program {
        publish_in: Some(Box::new(hook)),
        ..Program::default()
    }
}

fn publish_out(
    hook: impl Fn(&Message, &Recipient<'_>) -> PublishOut + Send + Sync + 'static,
) -> Program {
    Program {
        publish_out: Some(Box::new(hook)),
        ..Program::default()
    }
}

/// Questions that the test answers itself, when it likes.
fn kept() -> (Program, Receiver<(Publication, Answer<PublishIn>)>) {
    let (sender, questions) = channel();
    let sender = Mutex::new(sender);
    let program = publish_in(move |publication, answer| {
        let sender: Sender<_> = sender.lock().unwrap().clone();
        sender.send((publication, answer)).unwrap();
    });
    (program, questions)
}

fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(DEADLINE).unwrap()
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn upper(message: &Message) -> Message {
    message.with_payload(&message.payload().to_ascii_uppercase())
}

fn connack(address: SocketAddr, connect: &Connect<'_>) -> (Client, ReasonCode) {
    let mut client = Client::open(address, connect.version);
    client.send(&Packet::Connect(*connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("{frame:?}")
    };
    (client, connack.reason_code)
}

fn client(address: SocketAddr, client_id: &str) -> Client {
    Client::connect(address, &Connect::new(Version::V5, client_id))
}

fn persistent(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.clean_start = false;
    connect.properties = ConnectProperties {
        session_expiry_interval: 3_600,
        ..ConnectProperties::default()
    };
    connect
}

/// The Reason Code of the next packet, which must answer a PUBLISH.
fn answer(client: &mut Client) -> ReasonCode {
    let frame = client.receive();
    match frame.packet() {
        Packet::Puback(ack) | Packet::Pubrec(ack) => ack.reason_code,
        other => panic!("{other:?}"),
    }
}

fn answered(client: &mut Client, topic: &str, delivery: Delivery, payload: &str) -> ReasonCode {
    client.publish(topic, delivery, payload.as_bytes());
    answer(client)
}

const QOS1: fn() -> Delivery = || Delivery::AtLeastOnce(id(9));
const QOS2: fn() -> Delivery = || Delivery::ExactlyOnce(id(9));

#[test]
fn a_program_decides_who_connects() {
    let (broker, address) = authenticate(|request, answer| {
        let (name, password) = (request.user_name(), request.password());
        let (peer, listener) = request.origin().unwrap();
        assert!(peer.starts_with("127.0.0.1:") && listener == 0);
        assert!(!format!("{request:?}").contains("secret"));
        match (name, password) {
            (Some("ann"), Some(b"secret")) => {
                // From another thread, and later.
                std::thread::spawn(|| answer.give(Authenticated::user("ann")));
            }
            (Some("banned"), _) => answer.give(Authenticated::Refuse(ReasonCode::Banned)),
            // Not what a CONNACK may say.
            (Some("odd"), _) => {
                answer.give(Authenticated::Refuse(ReasonCode::PacketIdentifierInUse))
            }
            _ => answer.give(Authenticated::Pass),
        }
    })
    .start();
    for (name, password, code) in [
        (Some("ann"), "secret", ReasonCode::Success),
        (Some("banned"), "secret", ReasonCode::Banned),
        (Some("odd"), "secret", ReasonCode::NotAuthorized),
        // The settings let everybody in on a loopback address.
        (Some("eve"), "secret", ReasonCode::Success),
    ] {
        let mut connect = Connect::new(Version::V5, "client");
        connect.user_name = name;
        connect.password = Some(password.as_bytes());
        assert_eq!(connack(address, &connect).1, code, "{name:?}");
    }
    assert_eq!(broker.hook_counts().asked, 4);
    broker.stop().unwrap();
}

/// [MQTT5-4.12] [MQTT5-4.12.1]
#[test]
fn a_program_may_have_an_authentication_method_of_its_own() {
    let (broker, address) = authenticate(|request, answer| match request.packet() {
        Packet::Connect(_) => answer.give(Authenticated::Continue(b"who?".to_vec())),
        Packet::Auth(auth) if auth.authentication_data == Some(b"me") => {
            answer.give(Authenticated::user("me"));
        }
        Packet::Auth(_) if request.session().is_some() => {
            answer.give(Authenticated::Refuse(ReasonCode::NotAuthorized))
        }
        other => panic!("{other:?}"),
    })
    .start();
    let mut connect = Connect::new(Version::V5, "client");
    connect.properties.authentication_method = Some("TEST");
    let mut client = Client::open(address, Version::V5);
    client.send(&Packet::Connect(connect));
    let frame = client.receive();
    let Packet::Auth(auth) = frame.packet() else {
        panic!("{frame:?}")
    };
    assert_eq!(auth.authentication_data, Some(&b"who?"[..]));
    let mut auth = avocet_codec::Auth::new(ReasonCode::ContinueAuthentication, "TEST");
    auth.authentication_data = Some(b"me");
    client.send(&Packet::Auth(auth));
    let frame = client.receive();
    assert!(matches!(frame.packet(), Packet::Connack(it) if it.reason_code == ReasonCode::Success));
    let auth = avocet_codec::Auth::new(ReasonCode::ReAuthenticate, "TEST");
    client.send(&Packet::Auth(auth));
    let frame = client.receive();
    let Packet::Disconnect(disconnect) = frame.packet() else {
        panic!("{frame:?}")
    };
    assert_eq!(disconnect.reason_code, ReasonCode::NotAuthorized);
    broker.stop().unwrap();
}

#[test]
fn who_is_not_answered_in_time_is_refused_or_left_to_the_settings() {
    let (keep, kept) = channel();
    let keep = Mutex::new(keep);
    let mut config =
        authenticate(move |_, answer| keep.lock().unwrap().send(answer).unwrap()).config();
    config.hooks.authenticate_timeout = Duration::from_millis(20);
    let connect = Connect::new(Version::V5, "client");
    for (missed, code) in [
        (Missed::Refuse, ReasonCode::ServerUnavailable),
        (Missed::Pass, ReasonCode::Success),
    ] {
        config.hooks.authenticate_missed = missed;
        let (broker, address) = start(config.clone());
        let mut asked = 0;
        let late: Answer<Authenticated> = loop {
            assert_eq!(connack(address, &connect).1, code);
            asked += 1;
            // On a busy machine a question may be late before it is put, and is not.
            if let Ok(late) = kept.try_recv() {
                break late;
            }
        };
        assert!(late.is_late());
        late.give(Authenticated::user("late"));
        let counts = broker.hook_counts();
        assert_eq!((counts.asked, counts.missed), (asked, asked));
        broker.stop().unwrap();
    }
}

#[test]
fn an_answer_that_is_dropped_is_missed_and_a_panic_refuses() {
    let mut config = authenticate(|request, answer| match request.client_id() {
        "dropped" => drop(answer),
        _ => panic!("as it should in this test"),
    })
    .config();
    let unavailable = ReasonCode::ServerUnavailable;
    for (missed, code) in [
        (Missed::Refuse, unavailable),
        (Missed::Pass, ReasonCode::Success),
    ] {
        config.hooks.authenticate_missed = missed;
        let (broker, address) = start(config.clone());
        let ask = |client_id| connack(address, &Connect::new(Version::V5, client_id)).1;
        assert_eq!(ask("dropped"), code);
        // Whatever the settings say.
        assert_eq!(ask("panics"), unavailable);
        broker.stop().unwrap();
    }
}

/// A listener that other machines reach needs somebody who decides; where that one passes, nobody
/// is let in.
#[test]
fn a_program_that_decides_guards_public_listeners() {
    let mut config = authenticate(|request, answer| {
        answer.give(match request.user_name() {
            Some(name) => Authenticated::user(name),
            None => Authenticated::Pass,
        });
    })
    .config();
    config.listen = vec!["0.0.0.0:0".parse().unwrap()];
    let (broker, address) = start(config);
    let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let mut connect = Connect::new(Version::V5, "client");
    assert_eq!(connack(address, &connect).1, ReasonCode::NotAuthorized);
    connect.user_name = Some("ann");
    assert_eq!(connack(address, &connect).1, ReasonCode::Success);
    broker.stop().unwrap();
}

#[test]
fn a_question_without_time_for_an_answer_is_refused_by_name() {
    for key in [
        "hooks.authenticate_timeout",
        "hooks.authorize_timeout",
        "hooks.publish_in_timeout",
    ] {
        let mut config = Config::default();
        match key {
            "hooks.authenticate_timeout" => config.hooks.authenticate_timeout = Duration::ZERO,
            "hooks.authorize_timeout" => config.hooks.authorize_timeout = Duration::ZERO,
            _ => config.hooks.publish_in_timeout = Duration::ZERO,
        }
        let Err(StartError::Config(ConfigError::Refused { key: refused, .. })) =
            Broker::start(config)
        else {
            panic!("no answer can come in no time");
        };
        assert_eq!(refused, key);
    }
}

fn authorize(hook: impl Fn(Authorize, Answer<Authorized>) + Send + Sync + 'static) -> Program {
    Program {
        authorize: Some(Box::new(hook)),
        ..Program::default()
    }
}

/// The Reason Codes of a SUBACK for these filters.
fn suback(client: &mut Client, filters: &[&str]) -> Vec<ReasonCode> {
    let filter = |name| SubscribeFilter::new(TopicFilter::new(name).unwrap(), QoS::ExactlyOnce);
    let filters: Vec<_> = filters.iter().copied().map(filter).collect();
    client.send(&Packet::Subscribe(Subscribe::new(id(3), &filters)));
    let frame = client.receive();
    let Packet::Suback(suback) = frame.packet() else {
        panic!("{frame:?}")
    };
    suback.reason_codes.iter().collect()
}

/// By the first level of the topic; of filters, each by itself.
fn by_topic(request: Authorize, answer: Answer<Authorized>) {
    assert_eq!(request.client.client_id(), "client");
    answer.give(match &request.wanted {
        AuthorizationRequest::Publish { topic_name, .. } => {
            match topic_name.as_str().split('/').next() {
                Some("open") => Authorized::Allow,
                Some("full") => Authorized::Refuse(ReasonCode::QuotaExceeded),
                Some("odd") => Authorized::Filters(Vec::new()),
                _ => Authorized::Pass,
            }
        }
        AuthorizationRequest::Subscribe { filters } if filters[0].0.as_str() == "pass" => {
            Authorized::Pass
        }
        AuthorizationRequest::Subscribe { filters } => {
            let judge = |(filter, qos): &(TopicFilterBuf, QoS)| match filter.as_str() {
                "all" => Ok(*qos),
                "some" => Ok(QoS::AtMostOnce),
                _ => Err(ReasonCode::NotAuthorized),
            };
            // The last one is left out.
            let answers = filters.iter().map(judge).take(filters.len() - 1);
            Authorized::Filters(answers.collect())
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_program_decides_what_clients_may_do() {
    let (broker, address) = authorize(by_topic).start();
    let mut client = client(address, "client");
    for (topic, code) in [
        ("open/a", ReasonCode::NoMatchingSubscribers),
        ("full", ReasonCode::QuotaExceeded),
        ("odd", ReasonCode::NotAuthorized),
        // Nobody else says anything.
        ("other", ReasonCode::NoMatchingSubscribers),
    ] {
        assert_eq!(answered(&mut client, topic, QOS1(), "x"), code, "{topic}");
    }
    assert_eq!(
        suback(&mut client, &["all", "some", "none", "all"]),
        [
            ReasonCode::GrantedQoS2,
            ReasonCode::GRANTED_QOS_0,
            ReasonCode::NotAuthorized,
            ReasonCode::NotAuthorized,
        ]
    );
    assert_eq!(suback(&mut client, &["pass"]), [ReasonCode::GrantedQoS2]);
    assert_eq!(broker.hook_counts().asked, 6);
    broker.stop().unwrap();
}

/// Rules come first, and what they say of everything else last.
#[test]
fn a_program_is_asked_about_what_no_rule_is_about() {
    let dir = DataDir::new();
    std::fs::create_dir_all(&dir.0).unwrap();
    let rules = dir.0.join("rules.toml");
    let text = "default = \"deny\"\n[[rule]]\nallow = \"publish\"\ntopic = \"full\"\n[[rule]]\ndeny = \"publish\"\ntopic = \"open/no\"\n";
    std::fs::write(&rules, text).unwrap();
    let mut config = authorize(by_topic).config();
    config.access.rules = Some(rules);
    let (broker, address) = start(config);
    let mut client = client(address, "client");
    for (topic, code) in [
        ("full", ReasonCode::NoMatchingSubscribers),
        ("open/no", ReasonCode::NotAuthorized),
        ("open/yes", ReasonCode::NoMatchingSubscribers),
        ("other", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(answered(&mut client, topic, QOS1(), "x"), code, "{topic}");
    }
    broker.stop().unwrap();
}

#[test]
fn what_nobody_allows_in_time_is_refused_or_left_to_the_settings() {
    let mut config = authorize(|request, answer| match &request.wanted {
        AuthorizationRequest::Publish { topic_name, .. } if topic_name.as_str() == "panic" => {
            panic!("as it should in this test")
        }
        AuthorizationRequest::Publish { topic_name, .. } if topic_name.as_str() == "dropped" => {
            drop(answer);
        }
        // Never answered.
        _ => std::mem::forget(answer),
    })
    .config();
    config.hooks.authorize_timeout = Duration::from_millis(20);
    let not_authorized = ReasonCode::NotAuthorized;
    for (missed, code, granted) in [
        (Missed::Refuse, not_authorized, not_authorized),
        (
            Missed::Pass,
            ReasonCode::NoMatchingSubscribers,
            ReasonCode::GrantedQoS2,
        ),
    ] {
        config.hooks.authorize_missed = missed;
        let (broker, address) = start(config.clone());
        let mut client = client(address, "client");
        assert_eq!(answered(&mut client, "late", QOS1(), "x"), code);
        assert_eq!(answered(&mut client, "dropped", QOS1(), "x"), code);
        assert_eq!(suback(&mut client, &["t"]), [granted]);
        broker.stop().unwrap();
        config.hooks.authorize_timeout = DEADLINE;
        let (broker, address) = start(config.clone());
        let mut client = self::client(address, "client");
        let code = answered(&mut client, "panic", QOS1(), "x");
        assert_eq!(code, not_authorized);
        broker.stop().unwrap();
        config.hooks.authorize_timeout = Duration::from_millis(20);
    }
}

#[test]
fn messages_are_passed_changed_and_refused_in_order() {
    let (broker, address) = publish_in(|publication, answer| {
        let message = &publication.message;
        assert_eq!(publication.client.client_id(), "publisher");
        answer.give(match message.payload() {
            b"pass" => PublishIn::Pass,
            b"change" => PublishIn::Change(upper(message)),
            _ => PublishIn::Refuse(ReasonCode::QuotaExceeded),
        });
    })
    .start();
    let mut subscriber = client(address, "subscriber");
    subscriber.subscribe("#", QoS::ExactlyOnce);
    let mut publisher = client(address, "publisher");
    for round in 0..50 {
        for payload in ["pass", "change", "other"] {
            let delivery = match round % 3 {
                0 => Delivery::AtMostOnce,
                1 => QOS1(),
                _ => Delivery::AtLeastOnce(id(7)),
            };
            publisher.publish("t", delivery, payload.as_bytes());
        }
        for payload in ["pass", "CHANGE"] {
            let (got, delivery) = subscriber.receive_publish();
            assert_eq!(got, payload.as_bytes());
            if let Delivery::AtLeastOnce(packet_id) = delivery {
                subscriber.send(&Packet::Puback(Ack::new(packet_id)));
            }
        }
        if round % 3 > 0 {
            let codes = [(); 3].map(|()| answer(&mut publisher));
            let refused = ReasonCode::QuotaExceeded;
            assert_eq!(codes, [ReasonCode::Success, ReasonCode::Success, refused]);
        }
    }
    broker.stop().unwrap();
}

#[test]
fn only_who_is_asked_about_waits() {
    let (program, questions) = kept();
    let mut config = program.config();
    config.shards = NonZeroU16::new(1);
    let (broker, address) = start(config);
    let mut slow = client(address, "slow");
    slow.publish("t", QOS1(), b"first");
    slow.publish("t", QOS1(), b"second");
    let (first, held) = next(&questions);
    assert_eq!(first.message.payload(), b"first");
    let mut quick = client(address, "quick");
    quick.publish("t", QOS1(), b"quick");
    let (other, quickly) = next(&questions);
    assert_eq!(
        other.client.client_id(),
        "quick",
        "the second one waits its turn"
    );
    quickly.give(PublishIn::Pass);
    assert_eq!(answer(&mut quick), ReasonCode::NoMatchingSubscribers);
    held.give(PublishIn::Pass);
    let (second, held) = next(&questions);
    assert_eq!(second.message.payload(), b"second");
    held.give(PublishIn::Refuse(ReasonCode::NotAuthorized));
    assert_eq!(answer(&mut slow), ReasonCode::NoMatchingSubscribers);
    assert_eq!(answer(&mut slow), ReasonCode::NotAuthorized);
    broker.stop().unwrap();
}

#[test]
fn what_is_not_answered_in_time_is_refused_or_passed() {
    let (program, questions) = kept();
    let mut config = program.config();
    config.hooks.publish_in_timeout = Duration::from_millis(20);
    let (broker, address) = start(config.clone());
    let mut publisher = client(address, "publisher");
    let mut missed = 0;
    let late = loop {
        let code = answered(&mut publisher, "t", QOS1(), "x");
        assert_eq!(code, ReasonCode::UnspecifiedError);
        missed += 1;
        // On a busy machine a question may be late before it is put, and is not.
        if let Ok((_, late)) = questions.try_recv() {
            break late;
        }
    };
    // It is for a question that is over, and not for the next one.
    publisher.publish("t", QOS1(), b"y");
    late.give(PublishIn::Pass);
    assert_eq!(answer(&mut publisher), ReasonCode::UnspecifiedError);
    // 3.x cannot be told.
    let mut old = Client::connect(address, &Connect::new(Version::V3_1_1, "old"));
    assert_eq!(answered(&mut old, "t", QOS1(), "x"), ReasonCode::Success);
    // The shard has seen the late answer before this.
    publisher.send(&Packet::Pingreq);
    assert_eq!(publisher.receive().packet(), Packet::Pingresp);
    let counts = broker.hook_counts();
    assert_eq!((counts.missed, counts.late), (missed + 2, 1));
    broker.stop().unwrap();

    config.hooks.publish_in_missed = Missed::Pass;
    let (broker, address) = start(config);
    let mut publisher = client(address, "publisher");
    publisher.subscribe("t", QoS::AtMostOnce);
    publisher.publish("t", Delivery::AtMostOnce, b"anyway");
    assert_eq!(publisher.receive_publish().0, b"anyway");
    broker.stop().unwrap();
}

#[test]
fn a_panic_is_a_refusal_and_nothing_else() {
    let (broker, address) = publish_in(|publication, answer| {
        assert_ne!(publication.message.payload(), b"panic", "as it should");
        answer.give(PublishIn::Pass);
    })
    .start();
    let mut publisher = client(address, "publisher");
    // More often than there are threads.
    for _ in 0..10 {
        let code = answered(&mut publisher, "t", QOS1(), "panic");
        assert_eq!(code, ReasonCode::UnspecifiedError);
    }
    let code = answered(&mut publisher, "t", QOS1(), "fine");
    assert_eq!(code, ReasonCode::NoMatchingSubscribers);
    // The answer comes before the count.
    until(|| broker.hook_counts().panicked == 10);
    broker.stop().unwrap();
}

/// What was not answered was not taken: it is asked about again when it comes again, and is published
/// once [MQTT5-4.3.3-10].
#[test]
fn a_slow_program_and_broken_connections_leave_exactly_one_message() {
    let (program, questions) = kept();
    let (broker, address) = program.start();
    let mut subscriber = client(address, "subscriber");
    subscriber.subscribe("t", QoS::ExactlyOnce);
    let mut dup = false;
    let mut given_up = Vec::new();
    for _ in 0..5 {
        let mut publisher = Client::connect(address, &persistent("publisher"));
        let mut publish = avocet_codec::Publish::new(TopicName::new("t").unwrap(), QOS2(), b"once");
        publish.dup = dup;
        publisher.send(&Packet::Publish(publish));
        dup = true;
        // The connection breaks while the program thinks, which answers later.
        given_up.push(next(&questions).1);
    }
    let mut publisher = Client::connect(address, &persistent("publisher"));
    for late in given_up {
        late.give(PublishIn::Pass);
    }
    let mut publish = avocet_codec::Publish::new(TopicName::new("t").unwrap(), QOS2(), b"once");
    publish.dup = true;
    publisher.send(&Packet::Publish(publish));
    let (publication, held) = next(&questions);
    held.give(PublishIn::Change(upper(&publication.message)));
    assert_eq!(answer(&mut publisher), ReasonCode::Success);
    // Repeated now, it is known: nobody is asked.
    drop(publisher);
    let mut publisher = Client::connect(address, &persistent("publisher"));
    publisher.send(&Packet::Publish(publish));
    assert_eq!(answer(&mut publisher), ReasonCode::Success);
    publisher.send(&Packet::Pubrel(Ack::new(id(9))));
    let frame = publisher.receive();
    assert!(matches!(frame.packet(), Packet::Pubcomp(_)), "{frame:?}");
    assert_eq!(subscriber.receive_publish().0, b"ONCE");
    // What is behind it comes next.
    publisher.publish("t", Delivery::AtMostOnce, b"end");
    next(&questions).1.give(PublishIn::Pass);
    assert_eq!(subscriber.receive_publish().0, b"end");
    assert!(questions.try_recv().is_err());
    broker.stop().unwrap();
}

/// What is stored is what the program made of a message, on its way in and on its way out, and a
/// restart asks nobody again.
#[test]
fn what_was_changed_is_what_a_restart_brings_back() {
    let dir = DataDir::new();
    let mut program = publish_in(|publication, answer| {
        answer.give(PublishIn::Change(upper(&publication.message)));
    });
    program.publish_out = Some(Box::new(|message, to| {
        let name = to.session.client_id();
        match name {
            "deaf" => PublishOut::Refuse,
            "plain" => PublishOut::Pass,
            _ => {
                let mut payload = message.payload().to_vec();
                payload.extend_from_slice(b" for ");
                payload.extend_from_slice(name.as_bytes());
                PublishOut::Change(message.with_payload(&payload))
            }
        }
    }));
    let mut config = program.config();
    config.data_dir = Some(dir.0.clone());
    let (broker, address) = start(config.clone());
    let names = ["plain", "deaf", "changed"];
    for name in names {
        Client::connect(address, &persistent(name)).subscribe("t", QoS::ExactlyOnce);
    }
    let mut publisher = client(address, "publisher");
    assert_eq!(
        answered(&mut publisher, "t", QOS1(), "one"),
        ReasonCode::Success
    );
    assert_eq!(
        answered(&mut publisher, "t", QOS2(), "two"),
        ReasonCode::Success
    );
    broker.stop().unwrap();

    config.hooks.hooks = None;
    let (broker, address) = start(config);
    for (name, suffix) in [("plain", ""), ("changed", " for changed")] {
        let mut subscriber = Client::connect(address, &persistent(name));
        for payload in ["ONE", "TWO"] {
            let (got, _) = subscriber.receive_publish();
            assert_eq!(
                String::from_utf8(got).unwrap(),
                format!("{payload}{suffix}")
            );
        }
    }
    let mut deaf = Client::connect(address, &persistent("deaf"));
    deaf.send(&Packet::Pingreq);
    assert_eq!(deaf.receive().packet(), Packet::Pingresp);
    broker.stop().unwrap();
}

#[test]
fn a_will_is_asked_about_when_its_client_connects() {
    let (broker, address) = publish_in(|publication, answer| {
        let message = &publication.message;
        assert_eq!(publication.client.client_id(), "mortal");
        assert!(publication.will);
        answer.give(match message.payload() {
            b"gone" => PublishIn::Change(upper(message)),
            _ => PublishIn::Refuse(ReasonCode::NotAuthorized),
        });
    })
    .start();
    let mut watcher = client(address, "watcher");
    watcher.subscribe("wills", QoS::AtMostOnce);
    let mut connect = Connect::new(Version::V5, "mortal");
    let name = TopicName::new("wills").unwrap();
    connect.will = Some(Will::new(name, b"no will"));
    assert_eq!(connack(address, &connect).1, ReasonCode::NotAuthorized);
    connect.will = Some(Will::new(name, b"gone"));
    let (mortal, code) = connack(address, &connect);
    assert_eq!(code, ReasonCode::Success);
    drop(mortal);
    assert_eq!(watcher.receive_publish().0, b"GONE");
    broker.stop().unwrap();
}

#[test]
fn each_receiver_gets_its_own_and_who_panics_or_dawdles_is_counted() {
    let mut config = publish_out(|message, to| match to.session.client_id() {
        "loud" => PublishOut::Change(upper(message)),
        "deaf" => PublishOut::Refuse,
        "panics" => panic!("as it should in this test"),
        _ => PublishOut::Pass,
    })
    .config();
    config.hooks.publish_out_budget = Duration::ZERO;
    let (broker, address) = start(config);
    let mut clients = ["loud", "deaf", "panics", "plain"].map(|name| {
        let mut client = client(address, name);
        client.subscribe("t", QoS::AtMostOnce);
        client
    });
    client(address, "publisher").publish("t", Delivery::AtMostOnce, b"x");
    let [loud, deaf, panics, plain] = &mut clients;
    assert_eq!(loud.receive_publish().0, b"X");
    assert_eq!(plain.receive_publish().0, b"x");
    for silent in [deaf, panics] {
        silent.send(&Packet::Pingreq);
        assert_eq!(silent.receive().packet(), Packet::Pingresp);
    }
    let counts = broker.hook_counts();
    assert_eq!((counts.panicked, counts.slow), (1, 4));
    broker.stop().unwrap();
}

#[test]
fn events_come_in_the_order_of_each_client() {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let mut program = authenticate(|_, answer| answer.give(Authenticated::user("ann")));
    program.events = Some(Box::new(move |event| {
        sender.lock().unwrap().send(event).unwrap()
    }));
    let (broker, address) = program.start();
    let mut client = client(address, "client");
    client.subscribe("a/#", QoS::AtLeastOnce);
    let filters = [
        TopicFilter::new("a/#").unwrap(),
        TopicFilter::new("b").unwrap(),
    ];
    client.send(&Packet::Unsubscribe(Unsubscribe::new(id(2), &filters)));
    client.receive();
    drop(client);
    let told = [(); 4].map(|()| next(&events));
    assert_eq!(
        told,
        [
            "client connected as ann",
            "client subscribed a/# 1",
            "client unsubscribed a/#",
            "client disconnected by itself",
        ]
    );
    let last = Client::connect(address, &Connect::new(Version::V3_1_1, "last"));
    broker.stop().unwrap();
    drop(last);
    // All was told when the broker had stopped.
    let rest: Vec<_> = events.try_iter().collect();
    assert_eq!(
        rest,
        ["last connected as ann", "last disconnected by others"]
    );
}

#[test]
fn events_that_nobody_takes_hold_nothing_up() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let mut config = Program {
        events: Some(Box::new(move |_| {
            // Ends when the test lets go.
            let _ = held.lock().unwrap().recv();
        })),
        ..Program::default()
    }
    .config();
    config.hooks.events_max = 1;
    let (broker, address) = start(config);
    let mut client = client(address, "client");
    for _ in 0..10 {
        client.subscribe("t", QoS::AtMostOnce);
    }
    client.publish("t", Delivery::AtMostOnce, b"x");
    assert_eq!(client.receive_publish().0, b"x");
    // One is being told, and one waits.
    assert!(broker.hook_counts().events_dropped >= 8);
    drop(release);
    broker.stop().unwrap();
}

#[test]
fn without_interests_nothing_is_asked() {
    let (broker, address) = Program::default().start();
    let mut client = client(address, "client");
    client.subscribe("t", QoS::AtMostOnce);
    client.publish("t", Delivery::AtMostOnce, b"x");
    assert_eq!(client.receive_publish().0, b"x");
    assert_eq!(broker.hook_counts(), Default::default());
    broker.stop().unwrap();
}
