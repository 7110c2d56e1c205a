//! One of several workers that share a queue: a message is acknowledged when its work is done, several at
//! a time, in any order. Those of a worker that dies go to another one.
//!
//! ```text
//! cargo run -p avocet-client --example worker -- mqtt://localhost
//! avocet pub -t work -q 1 -m 'dig a hole'
//! ```

use std::error::Error;
use std::time::Duration;

use avocet_client::{Client, Config, QoS, ReasonCode, Received, TopicFilter};
use futures::StreamExt;

/// Messages worked on at the same time.
const AT_ONCE: u16 = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("arguments: URL")?;
    let mut config = Config::from_url(&url)?;
    config.manual_acknowledge = true;
    // The server gives this worker no more than it can work on.
    config.connection.receive_maximum = AT_ONCE;
    let (client, _messages) = Client::connect(config).await?;
    let filter = TopicFilter::new("$share/workers/work")?;
    let work = client.stream((filter, QoS::AtLeastOnce)).await?;
    println!("waiting for work");
    work.for_each_concurrent(usize::from(AT_ONCE), |mut message| async move {
        let answered = match work_on(&message).await {
            Ok(()) => message.acknowledge(),
            // Nobody else will fare better with this one.
            Err(error) => {
                eprintln!("{error}");
                message.refuse(ReasonCode::PayloadFormatInvalid)
            }
        };
        if let Err(error) = answered {
            eprintln!("{error}: it comes again");
        }
    })
    .await;
    Err(client.closed().await.into())
}

async fn work_on(message: &Received) -> Result<(), std::str::Utf8Error> {
    let text = std::str::from_utf8(message.payload())?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    println!("{text}: done");
    Ok(())
}
