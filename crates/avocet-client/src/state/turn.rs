//! What the driver does with the state: what came goes in, what is to be sent comes out.

use std::task::Waker;

use avocet_codec::{
    Auth, Connack, Disconnect, List, Publish, QoS, ReasonCode, SubscriptionId, TopicName,
    UserProperty, Version,
};
use avocet_session::client::{
    ClientConfig, ClientConnection, ClientEvent, ClientNotice, PublishId, RequestId,
    SubscriptionKey,
};
use avocet_session::{AckToken, CommitId, Demand, IncomingPublish, TransmitBuf};
use tokio::time::Instant;
use tracing::{debug, trace};

use crate::authentication::AuthenticationFailed;
use crate::config::WhenSlow;
use crate::inbox::Inbox;
use crate::received::{Delivery, Due, Owed};
use crate::state::{Link, State, owned};
use crate::storage::Record;
use crate::{
    Acknowledged, Answered, Closed, ConnectError, Connected, Disconnection, Event, PublishError,
};

impl State {
    /// A driver that is about to sleep.
    pub(crate) fn sleep(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            none @ None => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let woken = self.listeners.values_mut();
        self.wakers
            .extend(woken.filter_map(|listener| listener.put(event.clone())));
    }

    /// A stream stands: CONNECT is the next thing to leave.
    pub(crate) fn begin(&mut self, config: ClientConfig) {
        self.now = self.clock.now();
        self.over = None;
        self.accepted = None;
        self.detail = None;
        self.server_reference = None;
        let session = self.take_session();
        let connection = ClientConnection::new(config, session, self.now);
        self.link = Link::Online(Box::new(connection));
    }

    /// The connection has ended, and its stream is closed: the Session waits for the next.
    pub(crate) fn finish(&mut self) {
        if let Link::Online(connection) =
            std::mem::replace(&mut self.link, Link::Offline(Box::default()))
        {
            self.link = Link::Offline(Box::new(connection.into_session()));
        }
    }

    /// What the server said to CONNECT, once it has.
    pub(crate) fn take_accepted(&mut self) -> Option<Result<Connected, ConnectError>> {
        self.accepted.take()
    }

    /// How the connection ended, once it has.
    pub(crate) fn over(&self) -> Option<Closed> {
        let reason = self.over?;
        Some(Closed {
            reason,
            detail: self.detail.clone(),
        })
    }

    /// Another server, if the one that is left named it.
    pub(crate) fn take_server_reference(&mut self) -> Option<String> {
        self.server_reference.take()
    }

    /// While there is no connection: when the application wants none any more.
    pub(crate) fn stops_at(&self) -> Option<Instant> {
        let (_, deadline) = match (&self.disconnection, self.disconnected) {
            (Some(disconnection), None) if !self.is_idle() => disconnection,
            (None, None) => return None,
            (Some(_), _) | (None, Some(_)) => return Some(Instant::now()),
        };
        Some(*deadline)
    }

    pub(crate) fn disconnect_reason(&self) -> ReasonCode {
        let asked = self.disconnection.as_ref().map(|(it, _)| it.reason_code);
        let reason_code = self.disconnected.or(asked);
        reason_code.unwrap_or(ReasonCode::NORMAL_DISCONNECTION)
    }

    /// Whether nothing is queued or in flight.
    pub(crate) fn is_idle(&self) -> bool {
        let session = self.session();
        session.queued() == 0 && session.in_flight() == 0
    }

    /// The stream has failed, or ended.
    pub(crate) fn handle_closed(&mut self, detail: Option<String>) {
        if let Some(detail) = detail {
            self.detail.get_or_insert(detail);
        }
        if let Link::Online(connection) = &mut self.link {
            connection.handle_closed();
        }
    }

    /// Ends the connection, to go to another server.
    pub(crate) fn leave(&mut self) {
        if let Link::Online(connection) = &mut self.link {
            let normal = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            let left = connection.disconnect(&normal, self.now);
            debug!(?left, "leaving for another server");
        }
    }

    /// One turn: takes what came, and gives what is to be sent. How many bytes of the input are
    /// done with.
    pub(crate) fn turn(&mut self, mut input: &[u8], output: &mut TransmitBuf) -> usize {
        let before = input.len();
        self.now = self.clock.now();
        if let Link::Online(connection) = &mut self.link {
            connection.handle_timeout(self.now);
        }
        loop {
            let consumed = self.feed(input);
            input = input.get(consumed..).unwrap_or_default();
            self.poll_subscriptions();
            self.begin_disconnect();
            self.name_gates();
            if let Link::Online(connection) = &mut self.link {
                connection.poll_transmit(self.now, output);
            }
            self.poll_notices();
            // Acknowledgements that left may be what reading waited for.
            if consumed == 0 {
                return before - input.len();
            }
        }
    }

    /// When the next turn is due at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        let timer = match &self.link {
            Link::Online(connection) => connection.poll_timeout(),
            Link::Offline(_) => None,
        };
        let timer = timer.map(|timeout| self.clock.deadline(timeout.at));
        let disconnect = self.disconnection.as_ref().map(|(_, deadline)| *deadline);
        timer
            .into_iter()
            .chain(disconnect)
            .min()
            .unwrap_or_else(|| self.clock.far_future())
    }

    /// Whether an application that is slow keeps anything more from being read.
    pub(crate) fn stops_reading(&self) -> bool {
        let is_full = |inbox: &Inbox| inbox.is_full(self.receive_max);
        self.when_slow == WhenSlow::StopReading
            && (self.inboxes.values().any(is_full) || self.rest.as_ref().is_some_and(is_full))
    }

    fn feed(&mut self, input: &[u8]) -> usize {
        let mut start = 0;
        loop {
            let stops = self.stops_reading();
            let Link::Online(connection) = &mut self.link else {
                return start;
            };
            if stops {
                connection.pause();
                return start;
            }
            connection.resume(self.now);
            let read = connection.handle_input(input.get(start..).unwrap_or_default(), self.now);
            start += read.consumed;
            if let Some(event) = &read.event {
                self.on_event(event);
            }
            if read.demand != Demand::Again {
                return start;
            }
        }
    }

    fn on_event(&mut self, event: &ClientEvent<'_>) {
        match event {
            ClientEvent::Connected(connack) => self.on_connected(connack),
            ClientEvent::Refused(connack) => {
                debug!(reason_code = %connack.reason_code, "received CONNACK");
                let server_reference = connack.properties.server_reference.map(str::to_owned);
                self.server_reference.clone_from(&server_reference);
                self.accepted = Some(Err(ConnectError::Refused {
                    reason_code: connack.reason_code,
                    reason_string: connack.properties.reason_string.map(str::to_owned),
                    server_reference,
                }));
            }
            ClientEvent::Publish { publish, token } => self.on_publish(publish, *token),
            ClientEvent::Published { id, ack } => {
                trace!(packet_id = %ack.packet_id, reason_code = %ack.reason_code, "published");
                let reason_code = ack.reason_code;
                let reason_string = ack.reason_string.map(str::to_owned);
                let user_properties = owned(ack.user_properties);
                let outcome = if reason_code.is_error() {
                    Err(PublishError::Refused {
                        reason_code,
                        reason_string,
                    })
                } else {
                    Ok(Acknowledged {
                        reason_code,
                        reason_string,
                        user_properties,
                    })
                };
                self.answer_publish(*id, outcome);
            }
            ClientEvent::Subscribed { id, suback } => {
                let answered = Answered {
                    reason_codes: suback.reason_codes.iter().collect(),
                    reason_string: suback.reason_string.map(str::to_owned),
                };
                self.on_answered(*id, answered);
            }
            ClientEvent::Unsubscribed { id, unsuback } => {
                let answered = Answered {
                    reason_codes: unsuback.reason_codes.iter().collect(),
                    reason_string: unsuback.reason_string.map(str::to_owned),
                };
                self.on_answered(*id, answered);
            }
            ClientEvent::Auth(auth) => self.on_auth(auth),
            ClientEvent::Disconnected(disconnect) => {
                debug!(reason_code = %disconnect.reason_code, "received DISCONNECT");
                self.server_reference = disconnect.server_reference.map(str::to_owned);
                self.detail = disconnect
                    .reason_string
                    .or(disconnect.server_reference)
                    .map(str::to_owned);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, connack: &Connack<'_>) {
        let Link::Online(connection) = &self.link else {
            return;
        };
        let session_present = connack.session_present;
        debug!(session_present, server = ?connection.server(), "received CONNACK");
        self.subscriptions
            .handle_connected(session_present, connection);
        if let Some(outbox) = &mut self.outbox
            && !session_present
            // 3.1 does not say.
            && connection.config().version != Version::V3_1
        {
            outbox.record(Record::AllReleased);
        }
        let properties = &connack.properties;
        if let Some(assigned) = properties.assigned_client_id {
            self.config.client_id = assigned.to_owned();
        }
        self.accepted = Some(Ok(Connected {
            session_present,
            server: connection.server().clone(),
            response_information: properties.response_information.map(str::to_owned),
            reason_string: properties.reason_string.map(str::to_owned),
            user_properties: owned(properties.user_properties),
        }));
        let data = properties.authentication_data;
        if let Some(method) = &mut self.authentication
            && let Err(error) = method.finish(data)
        {
            self.distrust(error);
        }
    }

    fn on_publish(&mut self, publish: &IncomingPublish<'_>, token: Option<AckToken>) {
        let packet = publish.received();
        let topic_name = publish.topic_name();
        trace!(
            %topic_name,
            qos = %packet.qos(),
            packet_id = packet.packet_id().map(|id| id.get()),
            dup = packet.dup,
            retain = packet.retain,
            payload_bytes = packet.payload.len(),
            "received PUBLISH"
        );
        let now = self.now.unix;
        let (max, when_slow) = (self.receive_max, self.when_slow);
        let (first, others) = self.routes(topic_name, packet);
        let streams = 1 + others.len();
        let mut delivery = Delivery::new(packet, topic_name, now);
        let mut owed = token.map(Owed::Token);
        if let (Some(outbox), Some(token), Link::Online(connection)) =
            (&mut self.outbox, token, &mut self.link)
            && token.qos() == QoS::ExactlyOnce
            && let Some(place) = outbox.place()
        {
            // Once it is stored it is the client's, and the server need not wait for the application.
            let stored = outbox.receive(token.packet_id(), Some(delivery.to_stored(place)));
            let acknowledged =
                connection.acknowledge_stored(token, ReasonCode::Success, Some(stored));
            debug_assert!(acknowledged.is_ok(), "{acknowledged:?}");
            owed = Some(Owed::Place(place));
        }
        delivery.due = Due::new(owed, streams);
        for key in others {
            if let Some(inbox) = self.inboxes.get_mut(&key) {
                self.wakers
                    .extend(inbox.put(delivery.clone(), max, when_slow));
            }
        }
        let inbox = match first {
            Some(key) => self.inboxes.get_mut(&key),
            None => self.rest.as_mut(),
        };
        match inbox {
            Some(inbox) => self.wakers.extend(inbox.put(delivery, max, when_slow)),
            None => self.abandoned.extend(delivery.due.done()),
        }
    }

    /// The streams that a message is for: the first, and the others.
    fn routes(
        &self,
        topic_name: TopicName<'_>,
        publish: &Publish<'_>,
    ) -> (Option<SubscriptionKey>, Vec<SubscriptionKey>) {
        if self.inboxes.is_empty() {
            return (None, Vec::new());
        }
        let mut ids = publish.subscription_ids.iter();
        let (first, more) = (ids.next(), ids.next());
        let rest: Vec<SubscriptionId>;
        let ids = match (&first, more) {
            (None, _) => &[][..],
            (Some(id), None) => std::slice::from_ref(id),
            (Some(_), Some(_)) => {
                rest = publish.subscription_ids.iter().collect();
                &rest
            }
        };
        let mut keys = self
            .subscriptions
            .route(topic_name, ids)
            .filter(|key| self.inboxes.contains_key(key));
        let first = keys.next();
        // Empty, and without memory, unless subscriptions overlap.
        (first, keys.collect())
    }

    /// AUTH of the server: the authenticator goes on, unless it was the last step.
    fn on_auth(&mut self, auth: &Auth<'_>) {
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        let data = auth.authentication_data;
        let goes_on = auth.reason_code == ReasonCode::ContinueAuthentication;
        let answer = match (&mut self.authentication, &mut self.authenticator) {
            (Some(method), _) if goes_on => method.answer(data),
            (Some(method), _) => method.finish(data).map(|()| None),
            (None, authenticator) => {
                let answer = authenticator.as_mut().filter(|_| goes_on);
                Ok(answer.and_then(|answer| answer(data)))
            }
        };
        match answer {
            Ok(answer) if goes_on => {
                let sent = connection.authenticate(answer.as_deref());
                debug!(?sent, "answered AUTH");
            }
            Ok(_) => {}
            Err(error) => self.distrust(error),
        }
    }

    /// The server did not prove what it had to: the connection ends.
    fn distrust(&mut self, error: AuthenticationFailed) {
        self.detail = Some(error.to_string());
        self.accepted = None;
        if let Link::Online(connection) = &mut self.link {
            let disconnect = Disconnect::new(ReasonCode::UnspecifiedError);
            let left = connection.disconnect(&disconnect, self.now);
            debug!(?left, "leaving a server that is not to be trusted");
        }
    }

    fn on_answered(&mut self, id: RequestId, answered: Answered) {
        debug!(?id, reason_codes = ?answered.reason_codes, "received SUBACK or UNSUBACK");
        let Some(answer) = self
            .subscriptions
            .handle_answered(id, &answered.reason_codes)
        else {
            return;
        };
        if answer.first {
            if let Some(waiting) = self.answers.remove(&answer.key) {
                let _ = waiting.send(Ok(answered));
            }
        } else if answered.reason_codes.iter().any(|code| code.is_error()) {
            let filters = self.subscriptions.filters(answer.key);
            let reason_codes = answered.reason_codes;
            self.tell(Event::NotResubscribed {
                filters,
                reason_codes,
            });
        }
    }

    fn poll_subscriptions(&mut self) {
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        while let Some((key, error)) = self.subscriptions.poll(connection) {
            if let Some(answer) = self.answers.remove(&key) {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    /// DISCONNECT is due when nothing is queued or in flight any more, or at the deadline.
    fn begin_disconnect(&mut self) {
        let idle = self.is_idle();
        let is_due = |it: &mut (Disconnection, Instant)| idle || it.1 <= Instant::now();
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        let Some((disconnection, _)) = self.disconnection.take_if(is_due) else {
            return;
        };
        self.disconnected = Some(disconnection.reason_code);
        let ends = self.ends_session && connection.config().version == Version::V5;
        let user_properties: Vec<_> = disconnection
            .user_properties
            .iter()
            .map(|(name, value)| UserProperty { name, value })
            .collect();
        let disconnect = Disconnect {
            session_expiry_interval: disconnection
                .session_expiry_interval
                .or_else(|| ends.then_some(0)),
            reason_string: disconnection.reason_string.as_deref(),
            user_properties: List::from_slice(&user_properties),
            ..Disconnect::new(disconnection.reason_code)
        };
        if let Err(error) = connection.disconnect(&disconnect, self.now) {
            debug!(%error, "DISCONNECT as asked for cannot be sent");
            let plain = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            let _ = connection.disconnect(&plain, self.now);
        }
    }

    /// Messages of QoS 2 are about to leave: that is stored before.
    fn name_gates(&mut self) {
        let (Some(outbox), Link::Online(connection)) = (&mut self.outbox, &mut self.link) else {
            return;
        };
        let before = outbox.commit();
        let mut named = false;
        for id in connection.session().next_to_leave() {
            let sequence = id.sequence();
            outbox.record(Record::Sent { sequence });
            named = true;
        }
        if named {
            connection.session_mut().name_gates(before);
        }
    }

    /// Everything up to this commit is stored.
    pub(crate) fn committed(&mut self, commit: CommitId) {
        if let Some(outbox) = &mut self.outbox {
            outbox.stored();
        }
        match &mut self.link {
            Link::Online(connection) => connection.session_mut().handle_committed(commit),
            Link::Offline(session) => session.handle_committed(commit),
        }
    }

    pub(crate) fn not_stored(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        self.tell(Event::NotStored(error.to_string()));
    }

    fn poll_notices(&mut self) {
        loop {
            let Link::Online(connection) = &mut self.link else {
                return;
            };
            let Some(notice) = connection.poll_event() else {
                return;
            };
            self.on_notice(notice);
        }
    }

    pub(super) fn on_notice(&mut self, notice: ClientNotice) {
        match notice {
            ClientNotice::NotPublished { id, reason } => {
                debug!(%reason, "a message was not published");
                self.tell(Event::NotPublished {
                    reason,
                    messages: 1,
                });
                if let Some(id) = id {
                    self.answer_publish(id, Err(reason.into()));
                }
            }
            ClientNotice::Pubrec { id } => {
                let sequence = id.sequence();
                let outbox = self.outbox.as_mut();
                let stored = outbox.map(|outbox| outbox.record(Record::Pubrec { sequence }));
                let released = self.session_mut().release(sequence, stored);
                debug_assert!(released.is_ok(), "{released:?}");
            }
            ClientNotice::Pubrel { packet_id } => {
                let outbox = self.outbox.as_mut();
                let stored = outbox.map(|outbox| outbox.record(Record::Released { packet_id }));
                let completed = self.session_mut().complete(packet_id, stored);
                debug_assert!(completed.is_ok(), "{completed:?}");
            }
            ClientNotice::Closed(reason) => self.over = Some(reason),
            _ => {}
        }
    }

    fn answer_publish(&mut self, id: PublishId, outcome: Result<Acknowledged, PublishError>) {
        if let Some(outbox) = &mut self.outbox {
            let sequence = id.sequence();
            outbox.record(Record::Finished { sequence });
        }
        if let Some(answer) = self.waiting.remove(id) {
            let _ = answer.send(outcome);
        }
    }

    /// Nothing is published any more, and the storage ends when it has everything.
    pub(crate) fn stop_storing(&mut self) {
        self.disconnected
            .get_or_insert(ReasonCode::NORMAL_DISCONNECTION);
        if let Some(outbox) = &mut self.outbox {
            outbox.end();
        }
    }

    pub(super) fn end(&mut self, closed: Closed) {
        self.tell(Event::Ended(closed.clone()));
        self.ended = Some(closed);
        self.aging.hurry();
        let inboxes = self.inboxes.values_mut().chain(&mut self.rest);
        self.wakers.extend(inboxes.filter_map(Inbox::end));
    }
}
