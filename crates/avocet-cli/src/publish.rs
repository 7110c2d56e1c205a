//! `avocet pub`.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use avocet_client::{Client, Message, Pending, PublishError, QoS, TopicName};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::args::{PayloadArgs, PublishArgs};
use crate::clock::unix_time;
use crate::connect::{Settings, connect, message, topic_name};
use crate::exit::Failure;
use crate::signal::interrupted;

/// Answers that are awaited while further messages are sent.
const PENDING_MAX: usize = 1000;

/// How long messages may take to leave once everything is published.
const DRAIN: Duration = Duration::from_secs(30);

/// A longer line is no message: no packet could carry it.
const LINE_MAX: u64 = 268_435_455;

pub(crate) async fn run(args: PublishArgs) -> Result<(), Failure> {
    let PublishArgs {
        topic,
        payload,
        qos,
        retain,
        repeat,
        repeat_delay,
        connection,
    } = args;
    let (config, mut settings) = Settings::new(connection)?;
    let topic = topic.or_else(|| settings.url_topic.take());
    let topic = topic.ok_or_else(|| Failure::new("-t: the topic is missing"))?;
    let topic_name = topic_name("-t", &topic)?;
    let template = Template {
        settings: &settings,
        topic_name,
        qos,
        retain,
    };
    // What cannot be read or sent is told before connecting.
    template.message(&[])?;
    let whole = if payload.stdin_line {
        None
    } else {
        Some(read(&payload).await?)
    };

    let (client, _messages) = connect(config, &settings).await?;
    let publishing = async {
        let mut answers = Answers::new(&settings);
        match whole {
            Some(payload) => {
                for count in 0..repeat {
                    if count > 0 && !repeat_delay.is_zero() {
                        tokio::time::sleep(repeat_delay).await;
                    }
                    answers
                        .publish(&client, template.message(&payload)?)
                        .await?;
                }
            }
            None => {
                let mut lines = BufReader::new(tokio::io::stdin());
                while let Some(line) = next_line(&mut lines).await? {
                    answers.publish(&client, template.message(&line)?).await?;
                }
            }
        }
        answers.finish().await
    };
    let outcome = tokio::select! {
        outcome = publishing => outcome,
        () = interrupted() => Err(Failure::new("interrupted before everything was published")),
    };
    client
        .disconnect_with(settings.disconnection(), DRAIN)
        .await;
    outcome
}

/// What all messages of one command have in common.
struct Template<'a> {
    settings: &'a Settings,
    topic_name: TopicName<'a>,
    qos: QoS,
    retain: bool,
}

impl Template<'_> {
    fn message(&self, payload: &[u8]) -> Result<Message, Failure> {
        let properties = &self.settings.properties.publish;
        let message = message(self.topic_name, properties, payload, Some(unix_time()))?;
        Ok(message.with_qos(self.qos).with_retain(self.retain))
    }
}

/// The server's answers, awaited in the order of the messages.
struct Answers<'a> {
    settings: &'a Settings,
    pending: VecDeque<Pending>,
    refused: usize,
}

impl<'a> Answers<'a> {
    fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            pending: VecDeque::new(),
            refused: 0,
        }
    }

    async fn publish(&mut self, client: &Client, message: Message) -> Result<(), Failure> {
        let pending = client.start_publish(message).await.map_err(failure)?;
        self.pending.push_back(pending);
        if self.pending.len() > PENDING_MAX {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), Failure> {
        let Some(pending) = self.pending.pop_front() else {
            return Ok(());
        };
        match pending.await {
            Ok(_) => Ok(()),
            // The others may fare better.
            Err(error @ PublishError::Refused { .. }) => {
                self.settings.warn(&error);
                self.refused += 1;
                Ok(())
            }
            Err(error) => Err(failure(error)),
        }
    }

    async fn finish(mut self) -> Result<(), Failure> {
        while !self.pending.is_empty() {
            self.next().await?;
        }
        match self.refused {
            0 => Ok(()),
            count => Err(Failure::new(format!(
                "messages the server refused: {count}"
            ))),
        }
    }
}

fn failure(error: PublishError) -> Failure {
    Failure::new(format!("cannot publish: {error}"))
}

/// The payload that the arguments say; lines are read one by one elsewhere.
///
/// # Errors
///
/// The file and what the system says about it.
pub(crate) async fn read(payload: &PayloadArgs) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &payload.message {
        return Ok(text.clone().into_bytes());
    }
    if payload.stdin_file || payload.file.as_deref() == Some(Path::new("-")) {
        let mut bytes = Vec::new();
        let result = tokio::io::stdin().read_to_end(&mut bytes).await;
        result.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
        return Ok(bytes);
    }
    match &payload.file {
        Some(file) => tokio::fs::read(file)
            .await
            .map_err(|error| Failure::new(format!("-f {}: {error}", file.display()))),
        None => Ok(Vec::new()),
    }
}

/// The next line without its end; the last one may have none.
async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = lines.take(LINE_MAX).read_until(b'\n', &mut line).await;
    match read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))? {
        0 => Ok(None),
        _ => {
            if line.ends_with(b"\n") {
                line.pop();
            }
            if line.ends_with(b"\r") {
                line.pop();
            }
            Ok(Some(line))
        }
    }
}
