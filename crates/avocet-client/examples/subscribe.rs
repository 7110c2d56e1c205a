//! Prints the messages of a Topic Filter, and connects again when the connection is lost.
//!
//! ```text
//! cargo run -p avocet-client --example subscribe -- localhost 1883 'garden/#'
//! ```

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use avocet_client::{
    Backoff, Client, CloseReason, Config, ConnectError, QoS, Reconnect, Session, TopicFilter,
};
use avocet_session::Instant;
use tokio::time::Instant as Clock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, topic_filter] = arguments.as_slice() else {
        return Err("arguments: HOST PORT FILTER".into());
    };
    let port = port.parse()?;
    let topic_filter = TopicFilter::new(topic_filter)?;

    let origin = Clock::now();
    let now =
        || Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut reconnect = Reconnect::new(Backoff::default(), Duration::from_secs(60));
    let mut session = Session::new();
    let mut connected_before = false;
    loop {
        let mut config = Config::new(host, port);
        config.connection.client_id = format!("example-{}", std::process::id());
        // The server keeps the Session for an hour; from the second connection on both have it.
        config.connection.session_expiry_interval = 3600;
        config.connection.clean_start = !connected_before;
        config.connection.session_known = connected_before;
        match Client::resume(config, &mut session).await {
            Ok((client, mut messages)) => {
                connected_before = true;
                reconnect.handle_connected(now());
                if !client.connected().session_present {
                    client.subscribe(topic_filter, QoS::AtLeastOnce).await?;
                }
                let closed = loop {
                    match messages.receive().await {
                        Ok(message) => {
                            let payload = String::from_utf8_lossy(message.payload());
                            println!("{} {payload}", message.topic_name());
                        }
                        Err(closed) => break closed,
                    }
                };
                eprintln!("{closed}");
                session = messages.into_session().await;
                if let CloseReason::PeerDisconnected(_) = closed.reason {
                    return Err(closed.into());
                }
            }
            // A refusal will not be another one the next time.
            Err(error @ (ConnectError::Config(_) | ConnectError::Refused { .. })) => {
                return Err(error.into());
            }
            Err(error) => eprintln!("{error}"),
        }
        reconnect.handle_closed(now(), RandomState::new().hash_one(now()));
        while let Some(at) = reconnect.poll_timeout() {
            tokio::time::sleep_until(origin + Duration::from_nanos(at.as_nanos())).await;
            reconnect.handle_timeout(now());
        }
    }
}
