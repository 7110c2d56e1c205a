//! Packets from the client.

use alloc::boxed::Box;
use avocet_codec::{
    Ack, AckType, Connect, Disconnect, Packet, PacketType, Publish, Subscribe, frame_len,
};

use super::outgoing::Reply;
use super::{ServerConnection, ServerEvent, ServerInput, State};
use crate::exchange::ACK_LEN;
use crate::{CloseReason, ConnectionError, Demand, IncomingPublish, Now, PublishFrame, Violation};

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
            self.read_packet(input, now, &mut read.event)
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
    fn read_packet<'a>(
        &mut self,
        input: &'a [u8],
        now: Now,
        event: &mut Option<ServerEvent<'a>>,
    ) -> Result<usize, ConnectionError> {
        if matches!(self.state, State::Opened { .. }) {
            return self.read_connect(input, now, event);
        }
        let limit = self.config.maximum_packet_size.get();
        let mut rest = input;
        // By reference, as it is large.
        let packet = &Packet::decode_next(&mut rest, self.client.version, limit);
        let packet = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(0),
            Err(error) => return Err((*error).into()),
        };
        self.last_received = now.instant;
        let len = input.len() - rest.len();
        match self.state {
            State::Connecting { .. } => *event = self.handle_connecting(packet)?,
            State::Connected { .. } => {
                let frame = input.get(..len).unwrap_or_default();
                self.handle_connected(packet, frame, event)?;
            }
            State::Opened { .. } | State::Draining { .. } | State::Closed { .. } => {}
        }
        Ok(len)
    }

    fn read_connect<'a>(
        &mut self,
        input: &'a [u8],
        now: Now,
        event: &mut Option<ServerEvent<'a>>,
    ) -> Result<usize, ConnectionError> {
        let Some(first_byte) = input.first() else {
            return Ok(0);
        };
        if first_byte >> 4 != PacketType::Connect as u8 {
            return Err(Violation::NotConnect.into());
        }
        let len = frame_len(input, self.config.maximum_packet_size.get())?;
        let Some(frame) = len.and_then(|len| input.get(..len)) else {
            return Ok(0);
        };
        self.last_received = now.instant;
        match Connect::decode(frame) {
            Ok(connect) => {
                if self.on_connect(&connect, now) {
                    *event = Some(ServerEvent::Connect(Box::new(connect)));
                }
            }
            Err(error) => self.fail_connect(frame, error, now),
        }
        Ok(frame.len())
    }

    /// During enhanced authentication.
    fn handle_connecting<'a>(
        &mut self,
        packet: &Packet<'a>,
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        match packet {
            Packet::Auth(auth) => {
                self.on_auth(auth)?;
                Ok(Some(ServerEvent::Auth(*auth)))
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
        packet: &Packet<'a>,
        frame: &'a [u8],
        event: &mut Option<ServerEvent<'a>>,
    ) -> Result<(), ConnectionError> {
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish, frame, event),
            Packet::Puback(ack) => return self.on_ack(AckType::Puback, *ack),
            Packet::Pubrec(ack) => return self.on_ack(AckType::Pubrec, *ack),
            Packet::Pubrel(ack) => return self.on_ack(AckType::Pubrel, *ack),
            Packet::Pubcomp(ack) => return self.on_ack(AckType::Pubcomp, *ack),
            Packet::Subscribe(subscribe) => {
                self.check_subscribe(subscribe)?;
                self.replies.push_back(Reply::suback(subscribe.packet_id));
                *event = Some(ServerEvent::Subscribe(*subscribe));
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.replies
                    .push_back(Reply::unsuback(unsubscribe.packet_id));
                *event = Some(ServerEvent::Unsubscribe(*unsubscribe));
            }
            Packet::Pingreq => {
                self.pingresps = self.pingresps.saturating_add(1);
                // It has sent nothing else for a while.
                if let Some(exchange) = &mut self.exchange {
                    exchange.free_spare();
                }
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(disconnect)?,
            Packet::Auth(auth) => {
                self.on_auth(auth)?;
                *event = Some(ServerEvent::Auth(*auth));
            }
            Packet::Connect(_) => return Err(Violation::SecondConnect.into()),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                return Err(Violation::WrongDirection.into());
            }
        }
        Ok(())
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
