//! A server that sends every message back where it came from: whatever the client sends, and
//! however the bytes are cut, the server answers in whole packets that decode, says once that the
//! connection is over, and sends nothing after that. The Session goes on in the next connection.
//!
//! The first byte cuts the input into reads, the others are what clients send, one after the other.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{PACKET_SIZE_MAX, Packet, ReasonCode, Version, frame_len};
use avocet_session::{
    Accept, Authentication, ConnectionEvent, Demand, Instant, Limits, Message, Now, Outgoing,
    ServerConfig, ServerConnection, ServerEvent, Session, TransmitBuf, UnixTime,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&read, mut input)) = input.split_first() else {
        return;
    };
    let mut session = Session::new();
    let mut time = 0;
    // Every connection reads something, or is the last.
    while !input.is_empty() {
        let (consumed, next) = connection(input, usize::from(read) + 1, session, &mut time);
        session = next;
        input = &input[consumed.max(1)..];
    }
});

/// Serves one client to the end of its connection. Returns how much it read, and the Session.
fn connection(input: &[u8], read: usize, session: Session, time: &mut u64) -> (usize, Session) {
    let mut server = ServerConnection::new(Arc::new(config()), now(*time));
    let mut session = Some(session);
    let (mut consumed, mut received) = (0, 0);
    let mut sent = Vec::new();
    loop {
        *time += 10;
        let unread = input.get(consumed..received).unwrap_or_default();
        let input_now = server.handle_input(unread, now(*time));
        consumed += input_now.consumed;
        assert!(input_now.consumed <= unread.len());
        let (demand, idle) = (input_now.demand, input_now.consumed == 0);
        if let Some(event) = input_now.event {
            answer(&mut server, event, &mut session, now(*time));
        }
        let mut out = TransmitBuf::new(1_024);
        while server.poll_transmit(now(*time), &mut out) {
            take(&mut out, &mut sent);
        }
        take(&mut out, &mut sent);
        let mut closed = false;
        while let Some(event) = server.poll_event() {
            assert!(!closed, "{event:?} after the last event");
            closed = matches!(event, ConnectionEvent::Closed(_));
        }
        if closed {
            break;
        }
        if demand == Demand::More && idle && received < input.len() {
            received = input.len().min(received + read);
        } else if idle {
            // The client has nothing more to say, or the server does not listen.
            match server.poll_timeout() {
                Some(timeout) if received < input.len() || server.is_paused() => {
                    *time = timeout.at.as_nanos() / 1_000_000 + 1;
                    server.handle_timeout(now(*time));
                }
                _ => server.handle_closed(now(*time)),
            }
        }
    }
    check_sent(&sent, server.version());
    (
        consumed,
        server.into_session().or(session).unwrap_or_default(),
    )
}

fn config() -> ServerConfig {
    ServerConfig {
        limits: Limits {
            inflight: 4.try_into().expect("not 0"),
            ..Limits::default()
        },
        ..ServerConfig::default()
    }
}

fn now(time_ms: u64) -> Now {
    let instant = Instant::ORIGIN + Duration::from_millis(time_ms);
    Now::new(instant, UnixTime::from_millis(time_ms))
}

fn answer(
    server: &mut ServerConnection,
    event: ServerEvent<'_>,
    session: &mut Option<Session>,
    now: Now,
) {
    match event {
        ServerEvent::Connect(connect) => {
            let kept = session.take().filter(|_| !connect.clean_start);
            let accept = Accept {
                session_present: kept.is_some(),
                ..Accept::default()
            };
            server.accept(kept.unwrap_or_default(), accept, now);
        }
        ServerEvent::Auth(_) => {
            let _ = server.authenticate(Authentication::default());
        }
        ServerEvent::Publish { publish, token } => {
            let message = Message::from_publish(&publish.packet(), publish.topic_name(), now.unix);
            if let Some(token) = token {
                server
                    .acknowledge(token, ReasonCode::Success, None)
                    .expect("it asked for it");
            }
            let limits = config().limits;
            let session = server.session_mut().expect("connected");
            let _ = session.enqueue(Outgoing::new(Arc::new(message)), &limits, now);
        }
        ServerEvent::Subscribe(subscribe) => {
            let codes = vec![ReasonCode::Success; subscribe.filters.len()];
            server
                .suback(subscribe.packet_id, &codes, None, now)
                .expect("it asked for it");
        }
        ServerEvent::Unsubscribe(unsubscribe) => {
            let codes = vec![ReasonCode::Success; unsubscribe.filters.len()];
            server
                .unsuback(unsubscribe.packet_id, &codes, None, now)
                .expect("it asked for it");
        }
        _ => {}
    }
}

fn take(out: &mut TransmitBuf, sent: &mut Vec<u8>) {
    out.slices().for_each(|slice| sent.extend_from_slice(slice));
    out.clear();
}

fn check_sent(mut sent: &[u8], version: Version) {
    while !sent.is_empty() {
        let len = frame_len(sent, PACKET_SIZE_MAX)
            .expect("a packet")
            .expect("a whole one");
        let (frame, rest) = sent.split_at_checked(len).expect("a whole packet");
        let packet = Packet::decode(frame, version).expect("what is sent decodes");
        match packet {
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => panic!("a server sent {packet:?}"),
            Packet::Disconnect(_) => assert!(rest.is_empty(), "{rest:?} after DISCONNECT"),
            _ => {}
        }
        sent = rest;
    }
}
