//! A program with a broker of its own that decides who may connect, what they publish, and what each
//! receiver gets of it.
//!
//! Devices connect with the password "serial " and their name. Readings are numbers, and become JSON;
//! other messages to `readings` are refused. Guests are not shown who sent them.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use avocet_broker::{
    Answer, Authenticate, Authenticated, Broker, Client, CloseReason, Config, Hooks, Interests,
    Message, Publication, PublishIn, PublishOut, Recipient,
};
use avocet_codec::{
    Connect, Delivery, Frame, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Version, frame_len,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: Version = Version::V5;

struct Readings {
    /// Who came and went.
    log: Sender<String>,
}

impl Hooks for Readings {
    fn interests(&self) -> Interests {
        Interests::AUTHENTICATE | Interests::PUBLISH_IN | Interests::PUBLISH_OUT | Interests::EVENTS
    }

    fn authenticate(&self, request: Authenticate, answer: Answer<Authenticated>) {
        let name = request.client_id();
        let serial = format!("serial {name}");
        let verdict = match request.password() {
            Some(password) if password == serial.as_bytes() => Authenticated::user("device"),
            None => Authenticated::user("guest"),
            Some(_) => Authenticated::Refuse(ReasonCode::BadUserNameOrPassword),
        };
        // What takes longer than a look at a table may keep the answer and give it later, from another
        // thread or from async code.
        answer.give(verdict);
    }

    fn publish_in(&self, publication: Publication, answer: Answer<PublishIn>) {
        let message = &publication.message;
        if message.topic_name().as_str() != "readings" {
            return answer.give(PublishIn::Pass);
        }
        let text = String::from_utf8_lossy(message.payload());
        answer.give(match text.trim().parse::<f64>() {
            Ok(value) => {
                let from = publication.client.client_id();
                let json = format!("{{\"from\":\"{from}\",\"value\":{value}}}");
                PublishIn::Change(message.with_payload(json.as_bytes()))
            }
            Err(_) => PublishIn::Refuse(ReasonCode::PayloadFormatInvalid),
        });
    }

    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut {
        let text = String::from_utf8_lossy(message.payload());
        match text.split_once(",\"value\"") {
            Some((_, value)) if to.session.user() == Some("guest") => {
                let json = format!("{{\"value\"{value}");
                PublishOut::Change(message.with_payload(json.as_bytes()))
            }
            _ => PublishOut::Pass,
        }
    }

    fn connected(&self, client: &Client) {
        let line = format!("{} came ({})", client.client_id(), client.peer);
        let _gone = self.log.send(line);
    }

    fn disconnected(&self, client: &Client, reason: CloseReason) {
        let line = format!("{} went ({reason})", client.client_id());
        let _gone = self.log.send(line);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in story().await? {
        println!("{line}");
    }
    Ok(())
}

/// What happens, line by line.
async fn story() -> Result<Vec<String>, Box<dyn Error>> {
    let mut told = Vec::new();
    let (log, lines) = channel();
    let mut config = Config::default();
    config.listen = Vec::new();
    config.hooks.hooks = Some(Arc::new(Readings { log }));
    let broker = Broker::start(config)?;

    let mut guest = broker.connect_in_process();
    connect(&mut guest, "guest", None).await?;
    let filters = [SubscribeFilter::new(
        TopicFilter::new("readings")?,
        QoS::AtMostOnce,
    )];
    let packet_id = PacketId::new(1).ok_or("packet id 0")?;
    let subscribe = Packet::Subscribe(Subscribe::new(packet_id, &filters));
    ask(&mut guest, &subscribe).await?;

    let mut thief = broker.connect_in_process();
    let refused = connect(&mut thief, "boiler", Some(b"serial pump")).await?;
    told.push(format!("a thief connects: {refused}"));

    let mut boiler = broker.connect_in_process();
    let accepted = connect(&mut boiler, "boiler", Some(b"serial boiler")).await?;
    told.push(format!("the boiler connects: {accepted}"));
    for payload in ["71.3", "warm"] {
        let name = TopicName::new("readings")?;
        let delivery = Delivery::AtLeastOnce(packet_id);
        let publish = Packet::Publish(Publish::new(name, delivery, payload.as_bytes()));
        if let Packet::Puback(puback) = ask(&mut boiler, &publish).await?.packet() {
            told.push(format!("it publishes {payload}: {}", puback.reason_code));
        }
    }
    if let Packet::Publish(publish) = receive(&mut guest).await?.packet() {
        let text = String::from_utf8_lossy(publish.payload);
        told.push(format!("the guest reads {text}"));
    }
    // Events are told before this returns.
    broker.stop()?;
    told.extend(lines.try_iter());
    Ok(told)
}

async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    client_id: &str,
    password: Option<&[u8]>,
) -> Result<ReasonCode, Box<dyn Error>> {
    let mut connect = Connect::new(VERSION, client_id);
    connect.password = password;
    let frame = ask(stream, &Packet::Connect(connect)).await?;
    let Packet::Connack(connack) = frame.packet() else {
        return Err("no CONNACK".into());
    };
    Ok(connack.reason_code)
}

/// Sends a packet, and waits for the next one.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    packet: &Packet<'_>,
) -> Result<Frame, Box<dyn Error>> {
    let frame = Frame::encode(packet, VERSION)?;
    stream.write_all(frame.bytes()).await?;
    receive(stream).await
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, Box<dyn Error>> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await?);
        if frame_len(&bytes, 65_536)? == Some(bytes.len()) {
            return Ok(Frame::new(bytes.into(), VERSION)?);
        }
    }
}

#[test]
fn each_decides_as_told() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut told = runtime.block_on(story())?;
    // The order in which clients go is nobody's business.
    let went = told.split_off(told.len() - 2);
    assert_eq!(
        told,
        [
            "a thief connects: bad user name or password",
            "the boiler connects: success",
            "it publishes 71.3: success",
            "it publishes warm: payload format invalid",
            "the guest reads {\"value\":71.3}",
            "guest came (in-process)",
            "boiler came (in-process)",
        ]
    );
    assert!(went.iter().all(|line| line.contains("went")), "{went:?}");
    Ok(())
}
