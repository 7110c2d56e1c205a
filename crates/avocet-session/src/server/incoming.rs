//! Packets from the client.

use alloc::boxed::Box;
use avocet_codec::{Ack, AckType, Connect, Disconnect, Packet, Publish, Subscribe, frame_len};

use super::outgoing::Reply;
use super::{ServerConnection, ServerEvent, ServerInput, State};
use crate::exchange::ACK_LEN;
use crate::{CloseReason, ConnectionError, Demand, IncomingPublish, Now, PublishFrame, Violation};

/// The packet type of a first byte.
const fn packet_type(first_byte: u8) -> u8 {
    first_byte >> 4
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

fn is_publish(frame: &[u8]) -> bool {
    frame
        .first()
        .is_some_and(|byte| packet_type(*byte) == PUBLISH)
}

/// Whether this may begin with an acknowledgement in its shortest form.
fn is_short_ack(input: &[u8]) -> bool {
    matches!(input, [0x40..0x80, 2, ..])
}

impl ServerConnection {
    /// Reads at most one packet from the front of `input`, or some acknowledgements. The driver drops
    /// what was consumed and calls again with the rest, until nothing is consumed: then it keeps the
    /// rest until more bytes come ([`Demand::More`]), or until the connection is no longer paused
    /// ([`Demand::Paused`]). After the end all input is consumed and ignored.
    pub fn handle_input<'a>(&mut self, input: &'a [u8], now: Now) -> ServerInput<'a> {
        let mut read = ServerInput {
            consumed: 0,
            packets: 1,
            demand: Demand::More,
            event: None,
        };
        if matches!(self.state, State::Draining { .. } | State::Closed { .. }) {
            read.consumed = input.len();
            return read;
        }
        if self.is_paused() {
            self.held |= self.waits_on_this_side();
            read.demand = Demand::Paused;
            return read;
        }
        let acks = if is_short_ack(input) {
            self.read_acks(input, now)
        } else {
            0
        };
        let consumed = if acks > 0 {
            read.packets = acks;
            Ok(acks * ACK_LEN)
        } else {
            self.read_frame(input, now, &mut read.event)
        };
        match consumed {
            Ok(0) => {}
            Ok(consumed) => {
                read.consumed = consumed;
                if self.is_paused() {
                    read.demand = Demand::Paused;
                } else if consumed < input.len() {
                    read.demand = Demand::Again;
                }
            }
            Err(error) => {
                self.fail(error, now);
                read.consumed = input.len();
            }
        }
        read
    }

    /// Reads acknowledgements in their shortest form, as most are and as they mostly come: many in a
    /// row. How many.
    #[inline(never)]
    fn read_acks(&mut self, input: &[u8], now: Now) -> usize {
        let pending_max = self.acks_max();
        let Some(exchange) = &mut self.exchange else {
            return 0;
        };
        let connected = matches!(self.state, State::Connected { .. });
        if !connected || (self.config.maximum_packet_size.get() as usize) < ACK_LEN {
            return 0;
        }
        let acks = exchange.handle_acks(input, pending_max);
        if acks > 0 {
            self.last_received = now.instant;
        }
        acks
    }

    /// The length of the first packet, 0 if it is not there as a whole. Its event is put where it is
    /// to be, as it is too large to be handed on.
    fn read_frame<'a>(
        &mut self,
        input: &'a [u8],
        now: Now,
        event: &mut Option<ServerEvent<'a>>,
    ) -> Result<usize, ConnectionError> {
        let Some(frame) = self.next_frame(input)? else {
            return Ok(0);
        };
        self.last_received = now.instant;
        match self.state {
            State::Opened { .. } => *event = self.handle_connect(frame, now),
            State::Connecting { .. } => *event = self.handle_connecting(frame)?,
            State::Connected { .. } if is_publish(frame) => {
                // By reference, as it is large.
                match &Publish::decode(frame, self.client.version) {
                    Ok(publish) => self.on_publish(publish, frame, event)?,
                    Err(error) => return Err((*error).into()),
                }
            }
            State::Connected { .. } => *event = self.handle_connected(frame)?,
            State::Draining { .. } | State::Closed { .. } => {}
        }
        Ok(frame.len())
    }

    fn next_frame<'a>(&self, input: &'a [u8]) -> Result<Option<&'a [u8]>, ConnectionError> {
        let Some(first_byte) = input.first() else {
            return Ok(None);
        };
        if matches!(self.state, State::Opened { .. }) && packet_type(*first_byte) != CONNECT {
            return Err(Violation::NotConnect.into());
        }
        let len = frame_len(input, self.config.maximum_packet_size.get())?;
        Ok(len.and_then(|len| input.get(..len)))
    }

    fn handle_connect<'a>(&mut self, frame: &'a [u8], now: Now) -> Option<ServerEvent<'a>> {
        match Connect::decode(frame) {
            Ok(connect) => self
                .on_connect(&connect, now)
                .then(|| ServerEvent::Connect(Box::new(connect))),
            Err(error) => {
                self.fail_connect(frame, error, now);
                None
            }
        }
    }

    /// During enhanced authentication.
    fn handle_connecting<'a>(
        &mut self,
        frame: &'a [u8],
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        let packet = Packet::decode(frame, self.client.version)?;
        match packet {
            Packet::Auth(auth) => {
                self.on_auth(&auth)?;
                Ok(Some(ServerEvent::Auth(auth)))
            }
            Packet::Disconnect(disconnect) => {
                self.close(CloseReason::PeerDisconnected(disconnect.reason_code));
                Ok(None)
            }
            Packet::Connect(_) => Err(Violation::SecondConnect.into()),
            Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Pingresp => Err(Violation::BeforeConnack.into()),
        }
    }

    fn handle_connected<'a>(
        &mut self,
        frame: &'a [u8],
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        match Packet::decode(frame, self.client.version)? {
            Packet::Publish(publish) => {
                let mut event = None;
                self.on_publish(&publish, frame, &mut event)?;
                Ok(event)
            }
            Packet::Puback(ack) => self.on_ack(AckType::Puback, ack).map(|()| None),
            Packet::Pubrec(ack) => self.on_ack(AckType::Pubrec, ack).map(|()| None),
            Packet::Pubrel(ack) => self.on_ack(AckType::Pubrel, ack).map(|()| None),
            Packet::Pubcomp(ack) => self.on_ack(AckType::Pubcomp, ack).map(|()| None),
            Packet::Subscribe(subscribe) => {
                self.check_subscribe(&subscribe)?;
                self.replies.push_back(Reply::suback(subscribe.packet_id));
                Ok(Some(ServerEvent::Subscribe(subscribe)))
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.replies
                    .push_back(Reply::unsuback(unsubscribe.packet_id));
                Ok(Some(ServerEvent::Unsubscribe(unsubscribe)))
            }
            Packet::Pingreq => {
                self.pingresps = self.pingresps.saturating_add(1);
                // It has sent nothing else for a while.
                if let Some(exchange) = &mut self.exchange {
                    exchange.free_spare();
                }
                Ok(None)
            }
            Packet::Disconnect(disconnect) => {
                self.on_disconnect(&disconnect)?;
                Ok(None)
            }
            Packet::Auth(auth) => {
                self.on_auth(&auth)?;
                Ok(Some(ServerEvent::Auth(auth)))
            }
            Packet::Connect(_) => Err(Violation::SecondConnect.into()),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                Err(Violation::WrongDirection.into())
            }
        }
    }

    fn on_publish<'a>(
        &mut self,
        publish: &Publish<'a>,
        frame: &'a [u8],
        event: &mut Option<ServerEvent<'a>>,
    ) -> Result<(), ConnectionError> {
        if publish.qos() > self.config.maximum_qos {
            return Err(Violation::QosNotSupported.into());
        }
        if publish.retain && !self.config.retain_available {
            return Err(Violation::RetainNotSupported.into());
        }
        if !publish.subscription_ids.is_empty() {
            return Err(Violation::SubscriptionIdFromClient.into());
        }
        let Some(exchange) = &mut self.exchange else {
            return Ok(());
        };
        let frame = PublishFrame::new(frame, publish, self.client.version);
        if let Some((topic, token)) = exchange.receive(publish)? {
            let publish = IncomingPublish {
                publish: *publish,
                topic,
                frame,
            };
            *event = Some(ServerEvent::Publish { publish, token });
        }
        Ok(())
    }

    fn on_ack(&mut self, ack_type: AckType, ack: Ack<'_>) -> Result<(), ConnectionError> {
        if let Some(exchange) = &mut self.exchange {
            exchange.handle_ack(ack_type, ack)?;
        }
        Ok(())
    }

    fn check_subscribe(&self, subscribe: &Subscribe<'_>) -> Result<(), Violation> {
        if subscribe.subscription_id.is_some() && !self.config.subscription_ids_available {
            return Err(Violation::SubscriptionIdsNotSupported);
        }
        Ok(())
    }

    /// DISCONNECT may change the Session Expiry Interval, but not from 0
    /// [MQTT5-3.14.2.2.2].
    fn on_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Violation> {
        if let Some(seconds) = disconnect.session_expiry_interval {
            if self.client.session_expiry_interval == 0 && seconds != 0 {
                return Err(Violation::SessionExpiryInterval);
            }
            if let Some(session) = self.session_mut() {
                session.set_expiry_interval(seconds);
            }
        }
        self.close(CloseReason::PeerDisconnected(disconnect.reason_code));
        Ok(())
    }
}
