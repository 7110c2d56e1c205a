//! `avocet request`: publish a request and print the response, as `mosquitto_rr` does.

use std::time::Duration;

use avocet_client::{
    Client, Message, Messages, Subscription, SubscriptionId, SubscriptionOptions, TopicFilter,
    Version,
};

use crate::args::RequestArgs;
use crate::clock::unix_time;
use crate::connect::{Settings, connect, message, topic_name};
use crate::exit::Failure;
use crate::output::Output;
use crate::publish::read;
use crate::subscribe::stopped;

/// How long acknowledgements may take to leave at the end.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: RequestArgs) -> Result<(), Failure> {
    if args.payload.stdin_line {
        return Err(Failure::new(
            "-l: a request is one message; use -s for standard input",
        ));
    }
    let (config, mut settings) = Settings::new(args.connection)?;
    let topic = args.topic.or_else(|| settings.url_topic.take());
    let topic = topic.ok_or_else(|| Failure::new("-t: the topic is missing"))?;
    let topic_name = topic_name("-t", &topic)?;
    let mut properties = settings.properties.publish.clone();
    if properties.response_topic.is_some() {
        return Err(Failure::new(
            "-e sets the response topic, not -D publish response-topic",
        ));
    }
    if settings.version == Version::V5 {
        properties.response_topic = Some(args.response_topic.clone());
        // Tells our response from those to others who listen at the same topic.
        properties
            .correlation_data
            .get_or_insert_with(correlation_data);
    }
    let payload = read(&args.payload).await?;
    let request = message(topic_name, &properties, &payload, Some(unix_time()))?
        .with_qos(args.qos)
        .with_retain(args.retain);
    let response_topic = crate::connect::topic_name("-e", &args.response_topic)?;
    let filter = TopicFilter::from(response_topic).to_buf();
    let subscription = Subscription {
        filters: vec![(filter, SubscriptionOptions::new(args.qos))],
        subscription_id: settings
            .properties
            .subscription_id
            .and_then(SubscriptionId::new),
        user_properties: settings.properties.subscribe_user_properties.clone(),
    };
    let mut output = Output::new(&args.output);
    let stopped = stopped(args.timeout);
    tokio::pin!(stopped);
    let (client, messages) = tokio::select! {
        connected = connect(config, &settings) => connected?,
        outcome = &mut stopped => return outcome,
    };
    let correlation_data = properties.correlation_data.as_deref();
    let outcome = tokio::select! {
        outcome = respond(&client, messages, subscription, request, correlation_data, &mut output)
            => outcome,
        outcome = &mut stopped => outcome,
    };
    client
        .disconnect_with(settings.disconnection(), DRAIN)
        .await;
    outcome
}

async fn respond(
    client: &Client,
    mut messages: Messages,
    subscription: Subscription,
    request: Message,
    correlation_data: Option<&[u8]>,
    output: &mut Output,
) -> Result<(), Failure> {
    let answered = client.subscribe_with(subscription).await;
    let answered = answered.map_err(|error| Failure::new(format!("cannot subscribe: {error}")))?;
    if let Some(refusal) = answered.reason_codes.iter().find(|code| code.is_error()) {
        return Err(Failure::new(format!(
            "-e: the server refused the subscription: {refusal}"
        )));
    }
    let pending = client.start_publish(request).await;
    let publishing = async {
        let answer = pending?.await;
        answer.map(drop)
    };
    tokio::pin!(publishing);
    let mut published = false;
    loop {
        tokio::select! {
            result = &mut publishing, if !published => {
                result.map_err(|error| Failure::new(format!("cannot publish: {error}")))?;
                published = true;
            }
            message = messages.receive() => {
                let message = message
                    .map_err(|closed| Failure::new(format!("the connection ended: {closed}")))?;
                // What was retained there answers an earlier request.
                if !message.retain()
                    && message.properties().correlation_data() == correlation_data
                {
                    return output.print(&message);
                }
            }
        }
    }
}

/// Different for each process and time.
fn correlation_data() -> Vec<u8> {
    format!("{}-{}", std::process::id(), unix_time().as_millis()).into_bytes()
}
