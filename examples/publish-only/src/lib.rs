//! A publisher for small devices: `avocet-codec` and `avocet-session`, and nothing else. It knows no
//! sockets, no clock and no standard library; a [`Device`] brings what the hardware has.
//!
//! Readings are queued with [`Publisher::publish`], while the device has no network. When it has one,
//! [`Publisher::deliver`] connects, sends what waits, and disconnects once the server has
//! acknowledged it. What was not acknowledged stays, and goes with the next call: at QoS 1 at least
//! once, at QoS 2 exactly once as long as the server keeps the Session.

#![no_std]

extern crate alloc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use alloc::vec::Vec;
use core::time::Duration;

use avocet_codec::{Disconnect, ReasonCode};
use avocet_session::client::{ClientConfig, ClientConnection, ClientNotice, PublishError};
use avocet_session::{CloseReason, Demand, Message, Now, Session, TransmitBuf};

/// The largest packet of the server that is taken, in bytes: it only acknowledges.
pub const INPUT_LEN: usize = 512;

/// Bytes that are put together before they are written.
const OUTPUT_LEN: usize = 1024;

/// The device's network and clock.
pub trait Device {
    /// Why the network failed.
    type Error;

    /// Both clocks; one without a calendar may count from any day.
    fn now(&mut self) -> Now;

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Waits for bytes, for so long: how many came, 0 at the end of the stream, none if the time is
    /// over.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn read(&mut self, into: &mut [u8], wait: Duration) -> Result<Option<usize>, Self::Error>;
}

/// Why something waits still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The network failed.
    Network(E),
    /// The connection ended, by whom and why.
    Closed(CloseReason),
}

/// A queue of messages, and how the server is told who publishes them.
#[derive(Debug)]
pub struct Publisher {
    config: ClientConfig,
    session: Session,
}

impl Publisher {
    /// With nothing to publish. Set `clean_start` to false, and in 5.0 a Session Expiry Interval, for
    /// the server to remember what it had of a message of QoS 2.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let config = ClientConfig {
            maximum_packet_size: INPUT_LEN as u32,
            session_known: true,
            publish_again: true,
            ..config
        };
        let session = Session::new();
        Self { config, session }
    }

    /// Queues a message of QoS 1 or 2.
    ///
    /// # Errors
    ///
    /// [`PublishError`], for instance that the queue is full; nothing changed.
    pub fn publish(&mut self, message: Message, now: Now) -> Result<(), PublishError> {
        let mut dropped = Vec::new();
        self.session
            .publish(message, &self.config, None, now, &mut dropped)
            .map(drop)
    }

    /// Messages that the server has not acknowledged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.session.queued() + self.session.in_flight()
    }

    /// Connects over a stream that stands, publishes everything, and disconnects.
    ///
    /// # Errors
    ///
    /// [`Failure`]: what the server has not acknowledged waits for the next call.
    pub fn deliver<D: Device>(&mut self, device: &mut D) -> Result<(), Failure<D::Error>> {
        let session = core::mem::take(&mut self.session);
        let mut connection = ClientConnection::new(self.config.clone(), session, device.now());
        let outcome = drive(&mut connection, device);
        connection.handle_closed();
        self.session = connection.into_session();
        outcome
    }
}

/// Until the connection is over.
fn drive<D: Device>(
    connection: &mut ClientConnection,
    device: &mut D,
) -> Result<(), Failure<D::Error>> {
    let mut input = [0; INPUT_LEN];
    let mut filled = 0;
    let mut output = TransmitBuf::new(OUTPUT_LEN);
    loop {
        let now = device.now();
        connection.handle_timeout(now);
        let mut start = 0;
        loop {
            // Events say what was acknowledged, which the Session knows.
            let came = input.get(start..filled).unwrap_or_default();
            let read = connection.handle_input(came, now);
            start += read.consumed;
            if read.demand != Demand::Again {
                break;
            }
        }
        input.copy_within(start..filled, 0);
        filled -= start;

        let session = connection.session();
        if connection.is_connected() && session.queued() + session.in_flight() == 0 {
            let done = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            // It says nothing that a server could refuse.
            let _ = connection.disconnect(&done, now);
        }
        loop {
            let more = connection.poll_transmit(now, &mut output);
            for slice in output.slices() {
                device.write(slice).map_err(Failure::Network)?;
            }
            output.clear();
            if !more {
                break;
            }
        }
        while let Some(notice) = connection.poll_event() {
            match notice {
                ClientNotice::Closed(CloseReason::Disconnected(
                    ReasonCode::NORMAL_DISCONNECTION,
                )) => return Ok(()),
                ClientNotice::Closed(reason) => return Err(Failure::Closed(reason)),
                _ => {}
            }
        }

        let due = connection.poll_timeout().map(|timeout| timeout.at);
        let wait = due.map_or(Duration::MAX, |at| at.duration_since(now.instant));
        let space = input.get_mut(filled..).unwrap_or_default();
        match device.read(space, wait).map_err(Failure::Network)? {
            Some(0) => connection.handle_closed(),
            Some(count) => filled += count,
            None => {}
        }
    }
}
