//! Prints the messages of a Topic Filter, and says what happens to the connection, which comes back
//! by itself.
//!
//! ```text
//! cargo run -p avocet-client --example subscribe -- localhost 1883 'garden/#'
//! ```

use std::error::Error;

use avocet_client::{Client, Config, Event, QoS, TopicFilter};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, topic_filter] = arguments.as_slice() else {
        return Err("arguments: HOST PORT FILTER".into());
    };
    let (client, _others) = Client::connect(Config::new(host, port.parse()?)).await?;
    let mut events = client.events();
    let topic_filter = TopicFilter::new(topic_filter)?;
    let mut messages = client.stream((topic_filter, QoS::AtLeastOnce)).await?;
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { break };
                let payload = String::from_utf8_lossy(message.payload());
                println!("{} {payload}", message.topic_name());
            }
            event = events.next() => match event {
                Some(Event::Lost(closed)) => eprintln!("{closed}"),
                Some(Event::Failed(error)) => eprintln!("{error}"),
                Some(Event::Waiting(wait)) => eprintln!("again in {wait:?}"),
                Some(Event::Connected(_)) => eprintln!("connected"),
                Some(_) => {}
                None => break,
            }
        }
    }
    Err(client.closed().await.into())
}
