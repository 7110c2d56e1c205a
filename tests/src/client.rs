//! A foreign MQTT client, whatever it is written in: commands in, events out.
//!
//! A driver reads [`Command`]s and reports [`Event`]s. As JSON, one value a line, they are what a
//! driver in another language reads and writes; bytes are hexadecimal there.

use std::collections::VecDeque;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::within;

/// The MQTT version a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "u8")]
pub enum Version {
    /// 3.1, `MQIsdp`.
    V31,
    /// 3.1.1.
    V311,
    /// 5.0.
    V5,
}

impl From<Version> for u8 {
    /// The Protocol Version of the CONNECT packet.
    fn from(version: Version) -> Self {
        match version {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }
}

/// What a client is told to do.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Connect; answered by [`Event::Connected`].
    Connect(Connect),
    /// Subscribe; answered by [`Event::Subscribed`].
    Subscribe(Subscribe),
    /// Unsubscribe; answered by [`Event::Unsubscribed`].
    Unsubscribe {
        /// The Topic Filter.
        filter: String,
    },
    /// Publish; answered by [`Event::Published`] when the exchange is complete.
    Publish(Message),
    /// Send DISCONNECT and close; answered by [`Event::Disconnected`].
    Disconnect {
        /// The Reason Code; 5.0 only.
        code: u8,
    },
}

/// How to connect.
#[derive(Clone, Debug, Serialize)]
pub struct Connect {
    /// Where the broker is.
    pub host: String,
    /// Where the broker is.
    pub port: u16,
    /// What to speak.
    pub version: Version,
    /// The Client Identifier.
    pub client_id: String,
    /// Clean Session, or Clean Start.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// Session Expiry Interval in seconds; 5.0 only.
    pub session_expiry: u32,
    /// The Will Message.
    pub will: Option<Message>,
}

/// A subscription.
#[derive(Clone, Debug, Serialize)]
pub struct Subscribe {
    /// The Topic Filter.
    pub filter: String,
    /// The maximum QoS.
    pub qos: u8,
    /// No Local; 5.0 only.
    pub no_local: bool,
    /// Retain As Published; 5.0 only.
    pub retain_as_published: bool,
    /// Retain Handling, 0 to 2; 5.0 only.
    pub retain_handling: u8,
    /// The Subscription Identifier; 5.0 only.
    pub subscription_id: Option<u32>,
}

impl Subscribe {
    /// A subscription without options.
    pub fn new(filter: &str, qos: u8) -> Self {
        Self {
            filter: filter.to_owned(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            subscription_id: None,
        }
    }
}

/// An Application Message, sent or received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The Topic Name.
    pub topic: String,
    /// The payload.
    #[serde(with = "hexadecimal")]
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The RETAIN flag.
    pub retain: bool,
    /// The properties; 5.0 only.
    #[serde(default)]
    pub properties: Properties,
}

impl Message {
    /// A message with RETAIN 0 and no properties.
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos,
            ..Self::default()
        }
    }

    /// The same with RETAIN 1.
    pub fn retained(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Self {
        Self {
            retain: true,
            ..Self::new(topic, payload, qos)
        }
    }

    /// The same with `properties`.
    pub fn with(self, properties: Properties) -> Self {
        Self { properties, ..self }
    }
}

/// What 5.0 adds to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// User Properties, in order.
    pub user: Vec<(String, String)>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data, hexadecimal.
    pub correlation_data: Option<String>,
    /// Payload Format Indicator.
    pub payload_format: Option<u8>,
    /// Message Expiry Interval in seconds.
    pub message_expiry: Option<u32>,
    /// Will Delay Interval in seconds; of a Will Message.
    pub will_delay: Option<u32>,
    /// Subscription Identifiers; of a received message.
    pub subscription_ids: Vec<u32>,
}

/// What a client reports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// CONNACK.
    Connected {
        /// Session Present.
        session_present: bool,
    },
    /// SUBACK.
    Subscribed {
        /// The granted QoS, or the reason for the refusal (0x80 and above).
        code: u8,
    },
    /// UNSUBACK.
    Unsubscribed,
    /// The PUBLISH was sent (QoS 0), or acknowledged by PUBACK (1) or PUBCOMP (2).
    Published,
    /// A PUBLISH came.
    Message(Message),
    /// The connection has ended.
    Disconnected {
        /// The Reason Code of the server's DISCONNECT, where it sent one.
        code: Option<u8>,
    },
}

/// The driver's ends.
#[derive(Debug)]
pub struct Link {
    /// What to do. The end of it is the end of the driver.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// What happened.
    pub events: mpsc::UnboundedSender<Event>,
}

/// A client of some library, by way of its driver.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::UnboundedReceiver<Event>,
    backlog: VecDeque<Event>,
    driver: JoinHandle<()>,
}

impl Client {
    /// A client that `driver` drives, a task of this process.
    pub fn new<F>(driver: impl FnOnce(Link) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (commands, for_driver) = mpsc::unbounded_channel();
        let (from_driver, events) = mpsc::unbounded_channel();
        let driver = tokio::spawn(driver(Link {
            commands: for_driver,
            events: from_driver,
        }));
        Self {
            commands,
            events,
            backlog: VecDeque::new(),
            driver,
        }
    }

    /// A client that a program drives, which speaks JSON on its standard input and output.
    pub fn program(command: tokio::process::Command) -> Self {
        Self::new(|link| drive_program(command, link))
    }

    fn send(&self, command: Command) {
        assert!(
            self.commands.send(command).is_ok(),
            "the driver of the client has ended"
        );
    }

    /// The next event for which `choose` returns something; others stay to be asked for.
    async fn event<T>(&mut self, awaited: &str, choose: impl Fn(&Event) -> Option<T>) -> T {
        for index in 0..self.backlog.len() {
            if let Some(value) = self.backlog.get(index).and_then(&choose) {
                self.backlog.remove(index);
                return value;
            }
        }
        let backlog = &mut self.backlog;
        let events = &mut self.events;
        let found = tokio::time::timeout(crate::DEADLINE, async {
            while let Some(event) = events.recv().await {
                match choose(&event) {
                    Some(value) => return Some(value),
                    None => backlog.push_back(event),
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(value)) => value,
            Ok(None) => panic!(
                "the client's driver ended before {awaited}; {}",
                self.seen()
            ),
            Err(_) => panic!(
                "waited {:?} for {awaited}; {}",
                crate::DEADLINE,
                self.seen()
            ),
        }
    }

    /// What was reported and not asked for, cut to what a person reads.
    fn seen(&self) -> String {
        let shown: String = format!("{:?}", self.backlog).chars().take(2_000).collect();
        format!("not asked for: {shown}")
    }

    /// Connects and returns Session Present.
    pub async fn connect(&mut self, connect: Connect) -> bool {
        self.send(Command::Connect(connect));
        self.event("CONNACK", |event| {
            if let Event::Connected { session_present } = event {
                Some(*session_present)
            } else {
                None
            }
        })
        .await
    }

    /// Subscribes and checks that exactly the QoS asked for is granted.
    pub async fn subscribe(&mut self, subscribe: Subscribe) {
        let asked = subscribe.qos;
        let filter = subscribe.filter.clone();
        self.send(Command::Subscribe(subscribe));
        let code = self
            .event("SUBACK", |event| {
                if let Event::Subscribed { code } = event {
                    Some(*code)
                } else {
                    None
                }
            })
            .await;
        assert_eq!(code, asked, "the answer to SUBSCRIBE {filter}");
    }

    /// Unsubscribes and waits for UNSUBACK.
    pub async fn unsubscribe(&mut self, filter: &str) {
        self.send(Command::Unsubscribe {
            filter: filter.to_owned(),
        });
        self.event("UNSUBACK", |event| {
            matches!(event, Event::Unsubscribed).then_some(())
        })
        .await;
    }

    /// Publishes and waits until the exchange is complete.
    pub async fn publish(&mut self, message: Message) {
        let awaited = format!("the end of the QoS {} publish", message.qos);
        self.publish_only(message);
        self.published(&awaited).await;
    }

    /// Publishes with several exchanges under way and waits until every one is complete.
    pub async fn publish_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        /// Not every library keeps to the Receive Maximum of the broker.
        const UNDER_WAY_MAX: usize = 10;
        let mut under_way = 0;
        for message in messages {
            if under_way == UNDER_WAY_MAX {
                self.published("the end of a publish").await;
                under_way -= 1;
            }
            self.publish_only(message);
            under_way += 1;
        }
        for _ in 0..under_way {
            self.published("the end of a publish").await;
        }
    }

    fn publish_only(&self, message: Message) {
        self.send(Command::Publish(message));
    }

    async fn published(&mut self, awaited: &str) {
        self.event(awaited, |event| {
            matches!(event, Event::Published).then_some(())
        })
        .await;
    }

    /// The next message.
    pub async fn message(&mut self) -> Message {
        self.event("a message", |event| {
            if let Event::Message(message) = event {
                Some(message.clone())
            } else {
                None
            }
        })
        .await
    }

    /// The next `count` messages, in the order they came.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    /// Waits until what this client has sent is with the broker, its acknowledgements included: it
    /// hands a message to the application first, and leaving between the two makes it come again.
    pub async fn settle(&mut self) {
        self.publish(Message::new("nobody/listens", "", 1)).await;
    }

    /// Sends DISCONNECT and waits until the connection is closed.
    pub async fn disconnect(&mut self) {
        self.disconnect_with(0).await;
    }

    /// Sends DISCONNECT with a Reason Code and waits until the connection is closed.
    pub async fn disconnect_with(&mut self, code: u8) {
        self.send(Command::Disconnect { code });
        self.disconnected().await;
    }

    /// Waits for the end of the connection; the Reason Code of the server's DISCONNECT.
    pub async fn disconnected(&mut self) -> Option<u8> {
        self.event("the end of the connection", |event| {
            if let Event::Disconnected { code } = event {
                Some(*code)
            } else {
                None
            }
        })
        .await
    }

    /// Ends the client without DISCONNECT, as a power cut does.
    pub async fn cut(mut self) {
        self.driver.abort();
        // The socket is closed when the driver is gone.
        let _ = within("the end of the driver", &mut self.driver, String::new).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A foreign library and the version it is to speak.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Starts a client of that library.
    pub start: fn() -> Client,
    /// What it speaks.
    pub version: Version,
}

impl Peer {
    /// How `client_id` connects to `broker` with a clean session and without a will.
    pub fn clean(&self, broker: &Broker, client_id: &str) -> Connect {
        Connect {
            host: broker.address().ip().to_string(),
            port: broker.address().port(),
            version: self.version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive: 60,
            session_expiry: 0,
            will: None,
        }
    }

    /// How `client_id` connects to `broker` with a session that outlives its connection.
    pub fn persistent(&self, broker: &Broker, client_id: &str) -> Connect {
        Connect {
            clean: false,
            session_expiry: 600,
            ..self.clean(broker, client_id)
        }
    }

    /// A client that is connected to `broker` with a clean session.
    pub async fn connected(&self, broker: &Broker, client_id: &str) -> Client {
        let mut client = (self.start)();
        let session_present = client.connect(self.clean(broker, client_id)).await;
        assert!(!session_present, "a clean session is not present");
        client
    }
}

async fn drive_program(mut command: tokio::process::Command, mut link: Link) {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    // Not inherited: node makes its outputs non-blocking, also for those it shares them with.
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = errors.next_line().await {
            eprintln!("{line}");
        }
    });
    let mut input = child.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    loop {
        tokio::select! {
            command = link.commands.recv() => {
                let Some(command) = command else { return };
                let mut line = serde_json::to_vec(&command).expect("commands are JSON");
                line.push(b'\n');
                // A program that has ended says so by the end of its output.
                let _ = input.write_all(&line).await;
            }
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let event = serde_json::from_str(&line).unwrap_or_else(|error| {
                    panic!("{command:?} wrote {line:?}: {error}")
                });
                let _ = link.events.send(event);
            }
        }
    }
}

/// Bytes as a JSON string.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        text.as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
