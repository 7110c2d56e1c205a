//! A server for one connection, over any stream: the server role with a small application.

use std::sync::Arc;

use avocet_client::{CloseReason, Message, QoS, ReasonCode, Session};
use avocet_session::{
    Accept, ConnectionEvent, Details, Instant, Now, Outgoing, ServerConfig, ServerConnection,
    ServerEvent, TransmitBuf, UnixTime,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the server does, and what it saw.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) session: Option<Box<Session>>,
    pub(crate) refuse: Option<ReasonCode>,
    /// Goes with a refusal, or with the DISCONNECT at the first SUBSCRIBE.
    pub(crate) server_reference: Option<&'static str>,
    /// Has a Session whatever the client says.
    pub(crate) claims_session: bool,
    /// The filters of each SUBSCRIBE, with their identifier.
    pub(crate) subscribed: Vec<(Vec<String>, Option<u32>)>,
    /// What CONNECT said: Clean Start, Session Expiry Interval, User Name.
    pub(crate) connect: Option<(bool, u32, Option<String>)>,
    /// Sent once the client is accepted.
    pub(crate) sends: Vec<Message>,
    /// Sends every message back.
    pub(crate) echo: bool,
    /// Takes the first message, and closes the stream before its answer has left.
    pub(crate) cut_at_publish: bool,
    /// Disconnects at the first SUBSCRIBE.
    pub(crate) disconnect_at_subscribe: bool,
    /// Refuses every message.
    pub(crate) refuse_messages: bool,
    pub(crate) received: Vec<(String, String, QoS)>,
    /// The Message Expiry Intervals of these.
    pub(crate) intervals: Vec<Option<u32>>,
    pub(crate) acknowledged: Vec<(u64, ReasonCode)>,
    pub(crate) closed: Option<CloseReason>,
}

pub(crate) fn now() -> Now {
    Now::new(Instant::ORIGIN, UnixTime::from_millis(1_700_000_000_000))
}

impl Server {
    /// Serves until the connection has ended.
    pub(crate) async fn serve(mut self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Self {
        let config = Arc::new(self.config.clone());
        let mut connection = ServerConnection::new(config, now());
        let mut input = Vec::new();
        loop {
            let mut out = TransmitBuf::new(1 << 16);
            loop {
                let more = connection.poll_transmit(now(), &mut out);
                for slice in out.slices() {
                    if stream.write_all(slice).await.is_err() {
                        connection.handle_closed(now());
                    }
                }
                out.clear();
                if !more {
                    break;
                }
            }
            self.note_events(&mut connection);
            if self.closed.is_some() {
                self.session = connection.into_session();
                return self;
            }
            match stream.read_buf(&mut input).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => connection.handle_closed(now()),
            }
            loop {
                let read = connection.handle_input(&input, now());
                let consumed = read.consumed;
                self.on_event(read.event, &mut connection);
                input.drain(..consumed);
                if consumed == 0 {
                    break;
                }
            }
        }
    }

    fn note_events(&mut self, connection: &mut ServerConnection) {
        while let Some(event) = connection.poll_event() {
            match event {
                ConnectionEvent::Finished {
                    tag, reason_code, ..
                } => {
                    self.acknowledged.push((tag, reason_code));
                }
                ConnectionEvent::Closed(reason) => self.closed = Some(reason),
                _ => {}
            }
        }
    }

    fn on_event(&mut self, event: Option<ServerEvent<'_>>, connection: &mut ServerConnection) {
        match event {
            Some(ServerEvent::Connect(connect)) => {
                self.connect = Some((
                    connect.clean_start,
                    connect.properties.session_expiry_interval,
                    connect.user_name.map(str::to_owned),
                ));
                if let Some(reason_code) = self.refuse {
                    let reason_string = Some("not today");
                    let details = Details {
                        reason_string,
                        server_reference: self.server_reference,
                    };
                    return connection.refuse(reason_code, details, now());
                }
                let kept = self.session.take().filter(|_| !connect.clean_start);
                let session_present = kept.is_some() || self.claims_session;
                let accept = Accept {
                    session_present,
                    ..Accept::default()
                };
                connection.accept(kept.unwrap_or_default(), accept, now());
                for (index, message) in self.sends.drain(..).enumerate() {
                    send(connection, message, index as u64 + 1);
                }
            }
            Some(ServerEvent::Publish { token, .. }) if self.cut_at_publish => {
                let token = token.expect("only a message with an answer is worth a cut");
                // Taken, but the answer is lost with the connection.
                connection
                    .acknowledge(token, ReasonCode::Success, None)
                    .unwrap();
                connection.handle_closed(now());
            }
            Some(ServerEvent::Publish { publish, token }) => {
                let packet = publish.packet();
                let payload = String::from_utf8_lossy(packet.payload).into_owned();
                self.received
                    .push((publish.topic_name().to_string(), payload, packet.qos()));
                self.intervals.push(packet.message_expiry_interval);
                if let Some(token) = token {
                    let reason_code = if self.refuse_messages {
                        ReasonCode::NotAuthorized
                    } else {
                        ReasonCode::Success
                    };
                    connection.acknowledge(token, reason_code, None).unwrap();
                }
                if self.echo {
                    let message = Message::from_publish(&packet, publish.topic_name(), now().unix);
                    send(connection, message, 0);
                }
            }
            Some(ServerEvent::Subscribe(subscribe)) => {
                if self.disconnect_at_subscribe {
                    let reason_string = Some("enough");
                    let details = Details {
                        reason_string,
                        server_reference: self.server_reference,
                    };
                    let reason_code = match self.server_reference {
                        Some(_) => ReasonCode::UseAnotherServer,
                        None => ReasonCode::AdministrativeAction,
                    };
                    return connection.disconnect(reason_code, details, now());
                }
                let filters = subscribe.filters.iter();
                let filters = filters.map(|it| it.topic_filter.to_string()).collect();
                let id = subscribe.subscription_id.map(|id| id.get());
                self.subscribed.push((filters, id));
                let codes: Vec<_> = subscribe
                    .filters
                    .iter()
                    .map(|filter| match filter.options.maximum_qos {
                        QoS::AtMostOnce => ReasonCode::Success,
                        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
                        QoS::ExactlyOnce => ReasonCode::NotAuthorized,
                    })
                    .collect();
                connection
                    .suback(subscribe.packet_id, &codes, None, now())
                    .unwrap();
            }
            Some(ServerEvent::Unsubscribe(unsubscribe)) => {
                let codes: Vec<_> = unsubscribe
                    .filters
                    .iter()
                    .map(|_| ReasonCode::Success)
                    .collect();
                connection
                    .unsuback(unsubscribe.packet_id, &codes, None, now())
                    .unwrap();
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
}

fn send(connection: &mut ServerConnection, message: Message, tag: u64) {
    let mut outgoing = Outgoing::new(message);
    outgoing.tag = tag;
    let limits = avocet_session::Limits::default();
    let session = connection.session_mut().expect("accepted before");
    let _ = session.enqueue(outgoing, &limits, now());
}
