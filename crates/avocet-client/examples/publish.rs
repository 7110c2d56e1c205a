//! Publishes one message at QoS 1, and waits until the server has it.
//!
//! ```text
//! cargo run -p avocet-client --example publish -- localhost 1883 garden/temperature 21.5
//! ```

use std::error::Error;
use std::time::Duration;

use avocet_client::{Client, Config, Message, QoS, TopicName};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, topic_name, payload] = arguments.as_slice() else {
        return Err("arguments: HOST PORT TOPIC PAYLOAD".into());
    };
    let (client, _messages) = Client::connect(Config::new(host, port.parse()?)).await?;
    let message = Message::new(TopicName::new(topic_name)?, payload.as_bytes());
    let acknowledged = client.publish(message.with_qos(QoS::AtLeastOnce)).await?;
    println!("the server says: {}", acknowledged.reason_code);
    client.disconnect(Duration::from_secs(5)).await;
    Ok(())
}
