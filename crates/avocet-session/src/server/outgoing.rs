//! Packets to the client.

use alloc::collections::VecDeque;
use avocet_codec::{Packet, PacketId, PacketType, ReasonCode, Suback, Unsuback, Version};

use super::encoded::Encoded;
use super::{Details, ServerConnection, State};
use crate::exchange::Exchange;
use crate::{AckError, AckToken, CommitId, Limits, Now, PublishFrame, TransmitBuf};

/// AUTH, CONNACK, SUBACK or UNSUBACK.
#[derive(Debug)]
pub(super) struct Reply {
    request: Request,
    gate: CommitId,
    /// `None` until the owner has answered.
    bytes: Option<Encoded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Subscribe(PacketId),
    Unsubscribe(PacketId),
    Connect,
    /// AUTH, which may be without.
    Auth,
}

impl Reply {
    pub(super) fn connack(bytes: Encoded, gate: Option<CommitId>) -> Self {
        let gate = gate.unwrap_or(CommitId::ZERO);
        Self {
            request: Request::Connect,
            gate,
            bytes: Some(bytes),
        }
    }

    pub(super) const fn auth(bytes: Encoded) -> Self {
        Self {
            request: Request::Auth,
            gate: CommitId::ZERO,
            bytes: Some(bytes),
        }
    }

    pub(super) const fn suback(packet_id: PacketId) -> Self {
        Self {
            request: Request::Subscribe(packet_id),
            gate: CommitId::ZERO,
            bytes: None,
        }
    }

    pub(super) const fn unsuback(packet_id: PacketId) -> Self {
        Self {
            request: Request::Unsubscribe(packet_id),
            gate: CommitId::ZERO,
            bytes: None,
        }
    }

    fn is_ready(&self, committed: CommitId) -> bool {
        self.bytes.is_some() && self.gate <= committed
    }
}

/// SUBACK, UNSUBACK and AUTH packets that may wait before reading stops.
const REPLIES_MAX: usize = 32;

/// PINGRESP packets that may wait before reading stops.
const PINGRESPS_MAX: u16 = 64;

/// Acknowledgements beyond the Receive Maximum that may wait before reading stops.
const ACKS_MAX: usize = 64;

fn check_codes(codes: &[ReasonCode], answer: PacketType) -> Result<(), AckError> {
    let allowed = codes.iter().all(|code| code.is_allowed_in(answer));
    if allowed {
        Ok(())
    } else {
        Err(AckError::ReasonCode)
    }
}

impl ServerConnection {
    /// Acknowledges a PUBLISH: PUBACK or PUBREC leaves once the gate is committed and those before
    /// it have left [MQTT5-4.6.0-2] [MQTT5-4.6.0-3].
    pub fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        let exchange = self.exchange_connected()?;
        exchange
            .session
            .receiver
            .acknowledge(token, reason_code, gate)
    }

    /// Answers a SUBSCRIBE, one code for each of its Topic Filters in order
    /// [MQTT5-3.8.4-1] [MQTT5-3.8.4-6] [MQTT5-3.9.3-1] [MQTT311-3.8.4-1]. Answers leave in the
    /// order of the requests.
    pub fn suback(
        &mut self,
        packet_id: PacketId,
        reason_codes: &[ReasonCode],
        gate: Option<CommitId>,
        now: Now,
    ) -> Result<(), AckError> {
        check_codes(reason_codes, PacketType::Suback)?;
        let packet = Packet::Suback(Suback::new(packet_id, reason_codes));
        self.reply(Request::Subscribe(packet_id), &packet, gate, now)
    }

    /// Answers an UNSUBSCRIBE, one code for each of its Topic Filters in order
    /// [MQTT5-3.10.4-4] [MQTT5-3.11.3-1] [MQTT311-3.10.4-4].
    pub fn unsuback(
        &mut self,
        packet_id: PacketId,
        reason_codes: &[ReasonCode],
        gate: Option<CommitId>,
        now: Now,
    ) -> Result<(), AckError> {
        let reason_codes = if self.client.version == Version::V5 {
            reason_codes
        } else {
            Default::default()
        };
        check_codes(reason_codes, PacketType::Unsuback)?;
        let packet = Packet::Unsuback(Unsuback::new(packet_id, reason_codes));
        self.reply(Request::Unsubscribe(packet_id), &packet, gate, now)
    }

    fn reply(
        &mut self,
        request: Request,
        packet: &Packet<'_>,
        gate: Option<CommitId>,
        now: Now,
    ) -> Result<(), AckError> {
        self.exchange_connected()?;
        let bytes = self.encode(packet);
        let waiting = |reply: &&mut Reply| reply.request == request && reply.bytes.is_none();
        let reply = self
            .replies
            .iter_mut()
            .find(waiting)
            .ok_or(AckError::Unknown)?;
        reply.gate = gate.unwrap_or(CommitId::ZERO);
        reply.bytes = bytes;
        if reply.bytes.is_none() {
            // The client cannot be told, and may not be left without an answer.
            self.disconnect(ReasonCode::PacketTooLarge, Details::default(), now);
        }
        Ok(())
    }

    /// The earliest commit that holds something back that could leave otherwise: CONNACK, SUBACK
    /// and UNSUBACK, and what [`Session::waits_for`](crate::Session::waits_for) says.
    #[must_use]
    pub fn waits_for(&self) -> Option<CommitId> {
        let session = self.session()?;
        let reply = self.replies.front().filter(|reply| reply.bytes.is_some());
        let gate = reply
            .map(|reply| reply.gate)
            .filter(|gate| *gate > session.committed());
        [gate, session.waits_for()].into_iter().flatten().min()
    }

    /// Queues a PUBLISH for the client as the packet in which it came from another one.
    /// False, and nothing queued, if it is to go through [`Session::enqueue`](crate::Session::enqueue):
    /// this client gets it in another form, or something stands before it.
    ///
    /// One of QoS 1 is for a Session that ends with this connection: it is not kept once it has left.
    pub fn enqueue_frame(&mut self, frame: PublishFrame<'_>, limits: &Limits) -> bool {
        // Frames leave many at once.
        self.messages_left == u16::MAX
            && self
                .exchange
                .as_mut()
                .is_some_and(|exchange| exchange.enqueue_frame(frame, limits))
    }

    /// Whether something waits for this side rather than for the client to read.
    pub(super) fn waits_on_this_side(&self) -> bool {
        let Some(exchange) = &self.exchange else {
            return false;
        };
        let committed = exchange.session.committed();
        exchange.waits()
            || self
                .replies
                .front()
                .is_some_and(|reply| !reply.is_ready(committed))
    }

    /// How many acknowledgements may wait before reading stops.
    pub(super) fn acks_max(&self) -> usize {
        let receive_maximum = usize::from(self.config.receive_maximum.get());
        // A 5.0 client that exceeds the Receive Maximum is told so, and must be heard before.
        match self.client.version {
            Version::V5 => receive_maximum + ACKS_MAX,
            Version::V3_1 | Version::V3_1_1 => receive_maximum,
        }
    }

    /// Whether more answers wait than a client may cause without reading them.
    pub(super) fn is_backlogged(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
            || self.pingresps >= PINGRESPS_MAX
            || self
                .exchange
                .as_ref()
                .is_some_and(|exchange| exchange.pending() >= self.acks_max())
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to do.
    #[must_use]
    pub fn has_output(&self) -> bool {
        match &self.state {
            State::Opened { .. } | State::Closed { .. } => false,
            State::Draining { .. } => true,
            State::Connecting { .. } | State::Connected { .. } => {
                let exchange = self.exchange.as_ref();
                self.held
                    || self.pingresps > 0
                    || !self.replies.is_empty()
                    || exchange.is_some_and(Exchange::has_output)
            }
        }
    }

    /// Puts packets into `out` while it is not full; what is put there counts as sent. True when
    /// it was full: there may be more.
    pub fn poll_transmit(&mut self, now: Now, out: &mut TransmitBuf) -> bool {
        let (start, may_write) = (out.len(), self.has_output());
        let full = loop {
            if out.is_full() {
                break true;
            }
            let packets = self.transmit(now, out);
            if packets == 0 {
                break false;
            }
            self.packets_sent += packets as u64;
        };
        debug_assert!(may_write || out.len() == start, "output that was denied");
        if self.held && !self.waits_on_this_side() {
            self.held = false;
            self.last_received = now.instant;
        }
        full
    }

    /// Writes one packet, or some; how many, 0 when nothing may leave now.
    fn transmit(&mut self, now: Now, out: &mut TransmitBuf) -> usize {
        match &self.state {
            State::Opened { .. } | State::Closed { .. } => return 0,
            State::Draining { last, .. } => {
                out.put_slice(last.bytes());
                self.packets_sent += 1;
                self.close_drained();
                return 0;
            }
            State::Connecting { .. } | State::Connected { .. } => {}
        }
        let committed = self
            .session()
            .map_or(CommitId::ZERO, |session| session.committed());
        if self
            .replies
            .front()
            .is_some_and(|reply| reply.is_ready(committed))
        {
            if let Some(reply) = self.replies.pop_front() {
                out.put_slice(reply.bytes.as_ref().map_or(&[], Encoded::bytes));
                self.connack_pending &= reply.request != Request::Connect;
            }
            if self.replies.is_empty() {
                self.replies = VecDeque::new();
            }
            return 1;
        }
        if self.connack_pending {
            return 0;
        }
        if self.pingresps > 0 {
            self.pingresps -= 1;
            out.put_slice(&[0xD0, 0]);
            return 1;
        }
        match &mut self.exchange {
            Some(exchange) => exchange.transmit(now, out, &mut self.messages_left),
            None => 0,
        }
    }
}
