//! A bridge between a home's server and one outside: the state of the lights goes out, commands for them
//! come in.
//!
//! ```text
//! cargo run -p avocet-client --example bridge -- mqtt://localhost mqtts://user:password@cloud.example
//! ```

use std::error::Error;

use avocet_client::{Client, Config, QoS, Stream, TopicFilter};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, outside] = arguments.as_slice() else {
        return Err("arguments: URL URL".into());
    };
    let (home, _) = Client::connect(acknowledging(Config::from_url(home)?)).await?;
    let (outside, _) = Client::connect(acknowledging(Config::from_url(outside)?)).await?;
    let filter = |text| TopicFilter::new(text).map(|filter| (filter, QoS::AtLeastOnce));
    let states = home.stream(filter("lights/+/state")?).await?;
    let commands = outside.stream(filter("lights/+/set")?).await?;
    println!("both servers are there");
    tokio::select! {
        outcome = pass_on(states, &outside) => outcome,
        outcome = pass_on(commands, &home) => outcome,
    }
}

fn acknowledging(mut config: Config) -> Config {
    config.manual_acknowledge = true;
    config
}

/// A message is acknowledged on one side when the other has it.
async fn pass_on(mut from: Stream, to: &Client) -> Result<(), Box<dyn Error>> {
    while let Some(mut message) = from.next().await {
        let acknowledgement = message.take_acknowledgement();
        let copy = message.into_message().with_retain(false);
        to.publish(copy).await?;
        if let Some(acknowledgement) = acknowledgement {
            // It comes again if its connection has ended.
            let _ = acknowledgement.acknowledge();
        }
    }
    Err("a server is gone".into())
}
