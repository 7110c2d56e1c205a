//! Says which rule of a file decides: `explain FILE CLIENT_ID TOPIC`, for a message to be published.

use std::env;
use std::error::Error;
use std::fs;

use avocet_access::{Identity, QoS, Request, Rules};
use avocet_topic::TopicName;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, client_id, topic] = arguments.as_slice() else {
        return Err("usage: explain FILE CLIENT_ID TOPIC".into());
    };
    let rules = Rules::from_toml(&fs::read_to_string(file)?)?;
    let request = Request::Publish {
        topic_name: TopicName::new(topic)?,
        qos: QoS::AtMostOnce,
        retain: false,
    };
    let verdict = rules.decide(&Identity::new(client_id, None), &request);
    println!("{}: {}", verdict.effect, rules.describe(verdict.decided_by));
    Ok(())
}
