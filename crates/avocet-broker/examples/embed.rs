//! A program with a broker of its own: it starts one, connects within the process, subscribes,
//! publishes, receives, and stops it.
//!
//! The client here is a few packets made with `avocet-codec`. A program would rather use a client
//! library over the same stream.

use std::error::Error;

use avocet_broker::{Broker, Config};
use avocet_codec::{
    Connect, Delivery, Disconnect, Frame, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Version, frame_len,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const VERSION: Version = Version::V5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    // Other programs may connect over TCP too, here at a port the system chooses.
    config.listen = vec!["127.0.0.1:0".parse()?];
    let broker = Broker::start(config)?;
    println!("serving on {:?}", broker.local_addrs());

    let mut stream = broker.connect_in_process();
    let filters = [SubscribeFilter::new(
        TopicFilter::new("plant/#")?,
        QoS::AtMostOnce,
    )];
    let packet_id = PacketId::new(1).ok_or("packet id 0")?;
    let message = Publish::new(
        TopicName::new("plant/boiler")?,
        Delivery::AtMostOnce,
        b"71.3",
    );
    for packet in [
        Packet::Connect(Connect::new(VERSION, "embedded")),
        Packet::Subscribe(Subscribe::new(packet_id, &filters)),
        Packet::Publish(message),
    ] {
        stream
            .write_all(Frame::encode(&packet, VERSION)?.bytes())
            .await?;
        // Each of these is answered: CONNACK, SUBACK, and the message to its own subscriber.
        let answer = receive(&mut stream).await?;
        println!("received {:?}", answer.packet().packet_type());
        if let Packet::Publish(publish) = answer.packet() {
            println!(
                "the boiler has {} degrees",
                String::from_utf8_lossy(publish.payload)
            );
        }
    }
    let disconnect = Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
    stream
        .write_all(Frame::encode(&disconnect, VERSION)?.bytes())
        .await?;
    drop(stream);

    // Stopping blocks, which is fine where nothing else runs on this thread.
    broker.stop()?;
    Ok(())
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
