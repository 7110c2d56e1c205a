//! Messages on standard output.

use std::io::{self, Write};

use avocet_client::Received;

use crate::args::OutputArgs;
use crate::clock;
use crate::exit::Failure;
use crate::format::{Format, Printed};

/// Prints messages, each as one write, so that a reader behind a pipe sees it at once and whole.
pub(crate) struct Output {
    format: Format,
    line: Vec<u8>,
}

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let line_end = !args.no_line_end;
        let format = match &args.format {
            Some(format) if line_end => format.clone().with_line_end(),
            Some(format) => format.clone(),
            None if args.json => Format::json(),
            None if args.verbose => Format::verbose(line_end),
            None => Format::payload(line_end),
        };
        Self {
            format,
            line: Vec::new(),
        }
    }

    /// Prints a message.
    ///
    /// # Errors
    ///
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub(crate) fn print(&mut self, message: &Received) -> Result<(), Failure> {
        let subscription_ids: Vec<u32> = message
            .subscription_ids()
            .iter()
            .map(|id| id.get())
            .collect();
        self.line.clear();
        self.format.render(
            &Printed {
                topic_name: message.topic_name().as_str(),
                payload: message.payload(),
                qos: message.qos(),
                retain: message.retain(),
                packet_id: message.packet_id().map(|id| id.get()),
                message_expiry_interval: message.message_expiry_interval(),
                properties: message.properties(),
                subscription_ids: &subscription_ids,
                received: clock::date(),
            },
            &mut self.line,
        );
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&self.line)
            .and_then(|()| stdout.flush())
            .map_err(Failure::output)
    }
}
