//! Commands and their replies: one process answers, another asks.
//!
//! ```text
//! cargo run -p avocet-client --example command -- mqtt://localhost serve
//! cargo run -p avocet-client --example command -- mqtt://localhost ask 'what time is it'
//! ```

use std::error::Error;
use std::time::Duration;

use avocet_client::{Client, Config, QoS, Requester, TopicFilter, TopicName};

const COMMANDS: &str = "example/commands";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [url, rest @ ..] = arguments.as_slice() else {
        return Err("arguments: URL serve | URL ask WHAT".into());
    };
    let (client, _messages) = Client::connect(Config::from_url(url)?).await?;
    match rest {
        ["serve"] => serve(&client).await,
        ["ask", what] => ask(&client, what).await,
        _ => Err("arguments: URL serve | URL ask WHAT".into()),
    }
}

async fn serve(client: &Client) -> Result<(), Box<dyn Error>> {
    let filter = TopicFilter::new(COMMANDS)?;
    let mut commands = client.stream((filter, QoS::AtLeastOnce)).await?;
    println!("waiting for commands");
    while let Some(command) = commands.next().await {
        let text = String::from_utf8_lossy(command.payload());
        println!("{text}");
        let Some(reply) = command.response(format!("done: {text}").as_bytes()) else {
            continue;
        };
        // Waiting for the answer here holds nothing up.
        client.publish(reply).await?;
    }
    Ok(())
}

async fn ask(client: &Client, what: &str) -> Result<(), Box<dyn Error>> {
    let replies = format!("example/replies/{}", std::process::id());
    let requester = Requester::new(client, TopicName::new(&replies)?).await?;
    let deadline = Duration::from_secs(5);
    let reply = requester
        .request(TopicName::new(COMMANDS)?, what.as_bytes(), deadline)
        .await?;
    println!("{}", String::from_utf8_lossy(reply.payload()));
    client.disconnect(deadline).await;
    Ok(())
}
