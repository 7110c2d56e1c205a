//! A meter in the field: readings survive the process, a loss of power and days without a network.
//!
//! ```text
//! cargo run -p avocet-client --example telemetry -- mqtt://localhost meter-17
//! ```
//!
//! It publishes a reading each second. Kill it, stop the server: each reading arrives exactly once.

use std::error::Error;
use std::time::Duration;

use avocet_client::{Client, Config, Event, FileStorage, Message, QoS, TopicName};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name] = arguments.as_slice() else {
        return Err("arguments: URL NAME".into());
    };
    let mut config = Config::from_url(url)?;
    config.connection.client_id.clone_from(name);
    // The server keeps what it has of this client for a week.
    config.connection.session_expiry_interval = 7 * 86_400;
    // And as many readings may wait for it.
    config.publish_max = 7 * 86_400;
    config.storage = Some(Box::new(FileStorage::open(format!("{name}.outbox"))?));
    let (client, _messages) = Client::start(config)?;
    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Connected(_) = event {
                eprintln!("connected");
            } else if let Event::Lost(closed) = event {
                eprintln!("{closed}");
            } else if let Event::Failed(error) = event {
                eprintln!("{error}");
            }
        }
    });

    let topic = format!("meters/{name}");
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for reading in 0_u64.. {
        ticks.tick().await;
        let payload = reading.to_string();
        let message = Message::new(TopicName::new(&topic)?, payload.as_bytes());
        let pending = client
            .start_publish(message.with_qos(QoS::ExactlyOnce))
            .await?;
        pending.stored().await?;
        println!("{reading} is safe");
    }
    Ok(())
}
