//! `avocet sub`.

use std::time::Duration;

use avocet_client::{
    Answered, Client, Message, Messages, QoS, Received, Subscription, SubscriptionId,
    SubscriptionOptions, TopicFilter, TopicFilterBuf, Unsubscription, Version,
};
use avocet_topic::matches;

use crate::args::SubscribeArgs;
use crate::connect::{Settings, connect};
use crate::exit::Failure;
use crate::output::Output;
use crate::signal::interrupted;

/// How long acknowledgements and cleared retained messages may take to leave at the end.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: SubscribeArgs) -> Result<(), Failure> {
    let (config, mut settings) = Settings::new(args.connection)?;
    let mut topics = args.topics;
    topics.extend(settings.url_topic.take());
    let mut options = SubscriptionOptions::new(args.qos);
    if args.retain_as_published {
        if settings.version != Version::V5 {
            return Err(Failure::new("--retain-as-published needs MQTT 5.0 (-V 5)"));
        }
        options.retain_as_published = true;
    }
    let filters = topic_filters("-t", &topics)?;
    let subscription = Subscription {
        filters: filters
            .into_iter()
            .map(|filter| (filter, options))
            .collect(),
        subscription_id: settings
            .properties
            .subscription_id
            .and_then(SubscriptionId::new),
        user_properties: settings.properties.subscribe_user_properties.clone(),
    };
    let unsubscription = Unsubscription {
        filters: topic_filters("-U", &args.unsubscribe)?,
        user_properties: settings.properties.unsubscribe_user_properties.clone(),
    };
    let subscriber = Subscriber {
        settings: &settings,
        filter_out: topic_filters("-T", &args.filter_out)?,
        output: Output::new(&args.output),
        count: args.count,
        no_retained: args.no_retained,
        retained_only: args.retained_only,
        remove_retained: args.remove_retained,
        exit_after_subscribe: args.exit_after_subscribe,
    };
    let stopped = stopped(args.timeout);
    tokio::pin!(stopped);
    let (client, messages) = tokio::select! {
        connected = connect(config, &settings) => connected?,
        outcome = &mut stopped => return outcome,
    };
    let outcome = tokio::select! {
        outcome = subscriber.run(&client, messages, subscription, unsubscription) => outcome,
        outcome = &mut stopped => outcome,
    };
    client
        .disconnect_with(settings.disconnection(), DRAIN)
        .await;
    outcome
}

/// Until a signal ends the command in order, or `-W` ends it.
pub(crate) async fn stopped(timeout: Option<Duration>) -> Result<(), Failure> {
    let timeout = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = interrupted() => Ok(()),
        () = timeout => Err(Failure::TimedOut),
    }
}

fn topic_filters(option: &str, texts: &[String]) -> Result<Vec<TopicFilterBuf>, Failure> {
    texts
        .iter()
        .map(|text| match TopicFilter::new(text) {
            Ok(filter) => Ok(filter.to_buf()),
            Err(error) => Err(Failure::new(format!("{option} {text:?}: {error}"))),
        })
        .collect()
}

struct Subscriber<'a> {
    settings: &'a Settings,
    filter_out: Vec<TopicFilterBuf>,
    output: Output,
    count: Option<u64>,
    no_retained: bool,
    retained_only: bool,
    remove_retained: bool,
    exit_after_subscribe: bool,
}

impl Subscriber<'_> {
    async fn run(
        mut self,
        client: &Client,
        mut messages: Messages,
        subscription: Subscription,
        unsubscription: Unsubscription,
    ) -> Result<(), Failure> {
        if !unsubscription.filters.is_empty() {
            let answered = client.unsubscribe_with(unsubscription).await;
            answered.map_err(|error| Failure::new(format!("cannot unsubscribe: {error}")))?;
        }
        if subscription.filters.is_empty() {
            return Ok(());
        }
        // Messages may come before SUBACK, and more than wait for us: both are taken at once.
        let filters = subscription.filters.clone();
        let subscribing = client.subscribe_with(subscription);
        tokio::pin!(subscribing);
        let mut subscribed = false;
        loop {
            tokio::select! {
                answered = &mut subscribing, if !subscribed => {
                    let answered = answered
                        .map_err(|error| Failure::new(format!("cannot subscribe: {error}")))?;
                    self.check_granted(&filters, &answered)?;
                    subscribed = true;
                    if self.exit_after_subscribe {
                        return Ok(());
                    }
                }
                message = messages.receive() => {
                    let message = message
                        .map_err(|closed| Failure::new(format!("the connection ended: {closed}")))?;
                    if self.is_last(client, &message).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn check_granted(
        &self,
        filters: &[(TopicFilterBuf, SubscriptionOptions)],
        answered: &Answered,
    ) -> Result<(), Failure> {
        let mut granted = 0;
        for ((filter, options), reason_code) in filters.iter().zip(&answered.reason_codes) {
            if reason_code.is_error() {
                self.settings.warn(format_args!(
                    "-t {filter}: the server refused: {reason_code}"
                ));
                continue;
            }
            granted += 1;
            if (*reason_code as u8) < options.maximum_qos as u8 {
                let qos = *reason_code as u8;
                self.settings.warn(format_args!(
                    "-t {filter}: the server grants QoS {qos} only"
                ));
            }
        }
        if granted == 0 {
            return Err(Failure::new("the server refused every subscription"));
        }
        Ok(())
    }

    /// Prints a message that is wanted; whether it was the last one.
    async fn is_last(&mut self, client: &Client, message: &Received) -> Result<bool, Failure> {
        let topic_name = message.topic_name();
        if self.retained_only && !message.retain() {
            return Ok(true);
        }
        if self.remove_retained && message.retain() {
            let empty = Message::new(topic_name, &[])
                .with_qos(QoS::AtLeastOnce)
                .with_retain(true);
            client
                .start_publish(empty)
                .await
                .map(drop)
                .map_err(|error| Failure::new(format!("cannot clear {topic_name}: {error}")))?;
        }
        if self.no_retained && message.retain() {
            return Ok(false);
        }
        if self
            .filter_out
            .iter()
            .any(|filter| matches(filter.as_filter(), topic_name))
        {
            return Ok(false);
        }
        self.output.print(message)?;
        match &mut self.count {
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
            None => Ok(false),
        }
    }
}
