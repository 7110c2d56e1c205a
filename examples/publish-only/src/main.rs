//! Publishes each line of its standard input at QoS 1, over a blocking socket, and ends when the
//! server has acknowledged all of them.
//!
//! ```text
//! echo 21.5 | publish-only localhost:1883 garden/temperature
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "this is the shell, which has the clocks"
)]

use std::env::args;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avocet_codec::{QoS, TopicName, Version};
use avocet_session::client::ClientConfig;
use avocet_session::{Instant as Point, Message, Now, UnixTime};
use publish_only::{Device, Failure, Publisher};

/// A socket, and the clocks of the system.
struct Socket {
    stream: TcpStream,
    origin: Instant,
}

impl Device for Socket {
    type Error = io::Error;

    fn now(&mut self) -> Now {
        now(self.origin)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn read(&mut self, into: &mut [u8], wait: Duration) -> io::Result<Option<usize>> {
        // No time at all would mean to wait for ever.
        let wait = wait.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait))?;
        match self.stream.read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn now(origin: Instant) -> Now {
    let instant = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unix = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
    Now::new(Point::from_nanos(instant), UnixTime::from_millis(unix))
}

fn main() -> ExitCode {
    let (Some(server), Some(topic_name)) = (args().nth(1), args().nth(2)) else {
        eprintln!("usage: publish-only HOST:PORT TOPIC < LINES");
        return ExitCode::from(2);
    };
    let Ok(topic_name) = TopicName::new(&topic_name) else {
        eprintln!("not a topic name");
        return ExitCode::from(2);
    };
    let origin = Instant::now();
    let client_id = format!("publish-only-{}", std::process::id());
    let mut publisher = Publisher::new(ClientConfig::new(Version::V5, client_id));
    for line in io::stdin().lines().map_while(Result::ok) {
        let message = Message::new(topic_name, line.as_bytes()).with_qos(QoS::AtLeastOnce);
        if publisher.publish(message, now(origin)).is_err() {
            eprintln!("one line is lost: too many wait");
        }
    }
    let mut wait = Duration::from_millis(250);
    while publisher.waiting() > 0 {
        let outcome = TcpStream::connect(&server)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(Failure::Network)
            .and_then(|stream| publisher.deliver(&mut Socket { stream, origin }));
        match outcome {
            Ok(()) => break,
            Err(Failure::Network(error)) => eprintln!("{error}"),
            Err(Failure::Closed(reason)) => eprintln!("closed: {reason}"),
        }
        sleep(wait);
        wait = (wait * 2).min(Duration::from_secs(60));
    }
    ExitCode::SUCCESS
}
