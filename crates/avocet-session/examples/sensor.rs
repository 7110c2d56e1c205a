//! A sensor: publishes three measurements at QoS 1 over a blocking `std::net::TcpStream`, with
//! neither threads nor tokio. The read timeout of the socket is the timer.
//!
//! ```text
//! cargo run -p avocet-session --example sensor -- localhost:1883
//! ```

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avocet_codec::{Disconnect, QoS, ReasonCode, TopicName, Version};
use avocet_session::client::{ClientConfig, ClientConnection, ClientEvent, ClientNotice};
use avocet_session::{CloseReason, Demand, Instant, Message, Now, Session, TransmitBuf, UnixTime};

/// The program's clocks; instants count from 1970, too, which is an origin like any other.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn now() -> Now {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Now::new(
        Instant::from_nanos(nanos),
        UnixTime::from_millis(nanos / 1_000_000),
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("arguments: HOST:PORT")?;
    let mut stream = TcpStream::connect(&address)?;
    let config = ClientConfig::new(Version::V5, "sensor-1");
    let mut connection = ClientConnection::new(config, Session::new(), now());

    // Queued until the server has accepted.
    for celsius in ["21.4", "21.5", "21.7"] {
        let topic_name = TopicName::new("garden/temperature")?;
        let message = Message::new(topic_name, celsius.as_bytes()).with_qos(QoS::AtLeastOnce);
        connection.publish(message, now())?;
    }

    let mut input = Vec::new();
    let mut output = TransmitBuf::new(4096);
    loop {
        // What is to be sent.
        while {
            let more = connection.poll_transmit(now(), &mut output);
            for slice in output.slices() {
                stream.write_all(slice)?;
            }
            output.clear();
            more
        } {}

        // What happened.
        while let Some(notice) = connection.poll_event() {
            match notice {
                ClientNotice::Closed(CloseReason::Disconnected(_)) => return Ok(()),
                ClientNotice::Closed(reason) => return Err(reason.into()),
                ClientNotice::NotPublished { reason, .. } => eprintln!("not published: {reason}"),
                // Only where a store keeps the Session.
                ClientNotice::Pubrec { .. } | ClientNotice::Pubrel { .. } | _ => {}
            }
        }

        // What comes, for as long as there is nothing else to do.
        let wait = connection.poll_timeout().map(|timeout| {
            timeout
                .at
                .duration_since(now().instant)
                .max(Duration::from_millis(1))
        });
        stream.set_read_timeout(wait)?;
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => connection.handle_closed(),
            Ok(length) => input.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                connection.handle_timeout(now());
            }
            Err(error) => return Err(error.into()),
        }
        loop {
            let read = connection.handle_input(&input, now());
            match read.event {
                Some(ClientEvent::Connected(_)) => println!("connected to {address}"),
                Some(ClientEvent::Refused(connack)) => {
                    eprintln!("refused: {}", connack.reason_code)
                }
                Some(ClientEvent::Published { ack, .. }) => println!("stored: {}", ack.reason_code),
                _ => {}
            }
            let (consumed, demand) = (read.consumed, read.demand);
            input.drain(..consumed);
            if demand != Demand::Again {
                break;
            }
        }

        if connection.is_connected() && connection.session().is_empty() {
            connection.disconnect(&Disconnect::new(ReasonCode::NORMAL_DISCONNECTION), now())?;
        }
    }
}
