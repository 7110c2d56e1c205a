use super::*;
use proptest::prelude::*;

/// A frame as a client makes it.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// What a server takes out of bytes that come in pieces of these lengths.
fn decode(bytes: &[u8], pieces: &[usize]) -> (Result<Vec<u8>, FrameError>, WebSocket) {
    let mut socket = WebSocket::server();
    let (mut rest, mut out) = (bytes.to_vec(), Vec::new());
    let mut pieces = pieces.iter().copied().chain([usize::MAX]);
    while !rest.is_empty() {
        let len = pieces.next().unwrap_or(1).clamp(1, rest.len());
        let behind = rest.split_off(len);
        let taken = socket.decode(&mut rest);
        out.extend_from_slice(&rest[..taken]);
        if let Some(error) = socket.failed() {
            return (Err(error), socket);
        }
        rest = behind;
    }
    (Ok(out), socket)
}

const MASK: [u8; 4] = [1, 2, 3, 200];

/// [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
#[test]
fn refuses_what_the_standard_forbids() {
    let long = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let negative = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
    let wide = |header: &[u8]| [header, &[0; 4]].concat();
    for (bytes, expected) in [
        (frame(0x81, b"text", MASK), FrameError::Text),
        (frame(0xc2, b"", MASK), FrameError::Reserved),
        (frame(0x83, b"", MASK), FrameError::Reserved),
        (frame(0x8b, b"", MASK), FrameError::Reserved),
        (vec![0x82, 1, 0], FrameError::Mask),
        (wide(&[0x82, 0x80 | 126, 0, 125]), FrameError::Length),
        (wide(&long), FrameError::Length),
        (wide(&negative), FrameError::Length),
        (frame(0x09, b"", MASK), FrameError::Control),
        (frame(0x89, &[0; 126], MASK), FrameError::Control),
        (frame(0x88, &[3], MASK), FrameError::Control),
        (frame(0x80, b"", MASK), FrameError::Order),
        (
            [frame(0x02, b"a", MASK), frame(0x82, b"b", MASK)].concat(),
            FrameError::Order,
        ),
    ] {
        assert_eq!(decode(&bytes, &[]).0, Err(expected), "{bytes:x?}");
        assert_eq!(decode(&bytes, &[1; 200]).0, Err(expected), "{bytes:x?}");
    }
}

#[test]
fn answers_the_last_ping_and_a_close_once() {
    let bytes = [
        frame(0x89, b"first", MASK),
        frame(0x02, b"ab", MASK),
        frame(0x89, b"last", MASK),
        frame(0x80, b"c", MASK),
        frame(0x8a, b"a pong nobody asked for", MASK),
        frame(0x88, &1001_u16.to_be_bytes(), MASK),
        frame(0x82, b"ignored", MASK),
    ]
    .concat();
    let (taken, mut socket) = decode(&bytes, &[3, 1, 4]);
    assert_eq!(taken.unwrap(), b"abc");
    assert!(socket.is_closed());
    socket.say_goodbye();
    // After a Close nothing may follow, not even a pong.
    assert_eq!(socket.take_answers(), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(socket.take_answers(), [0; 0]);
}

#[test]
fn a_ping_is_answered_with_what_it_holds() {
    let (_, mut socket) = decode(&frame(0x89, b"still there?", MASK), &[]);
    assert_eq!(socket.take_answers(), b"\x8a\x0cstill there?");
    assert_eq!(socket.decode(&mut frame(0x81, b"text", MASK)), 0);
    assert_eq!(socket.take_answers(), [0x88, 2, 0x03, 0xeb]);
}

#[test]
fn what_came_before_something_wrong_is_taken() {
    let mut socket = WebSocket::server();
    let mut bytes = [frame(0x82, b"DISCONNECT", MASK), frame(0x81, b"text", MASK)].concat();
    let taken = socket.decode(&mut bytes);
    assert_eq!(&bytes[..taken], b"DISCONNECT");
    assert_eq!(socket.failed(), Some(FrameError::Text));
    assert_eq!(socket.take_answers(), [0x88, 2, 0x03, 0xeb]);
    assert_eq!(socket.decode(&mut frame(0x82, b"more", MASK)), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// [MQTT5-6.0.0-2] [MQTT311-6.0.0-2]
    #[test]
    fn frames_in_any_pieces_carry_the_same_bytes(
        messages in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4), 0..6),
        pings in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        pieces: Vec<u8>,
        mask: [u8; 4],
    ) {
        let mut frames = Vec::new();
        for message in &messages {
            for (index, part) in message.iter().enumerate() {
                let kind = if index == 0 { 2 } else { 0 };
                let last = if index + 1 == message.len() { 0x80 } else { 0 };
                frames.push(frame(last | kind, part, mask));
            }
        }
        for ping in pings {
            let at = ping.index(frames.len() + 1);
            frames.insert(at, frame(0x89, b"ping", mask));
        }
        let pieces: Vec<usize> = pieces.into_iter().map(usize::from).collect();
        let (taken, _) = decode(&frames.concat(), &pieces);
        prop_assert_eq!(taken.unwrap(), messages.concat().concat());
    }

    #[test]
    fn what_a_client_sends_is_what_a_server_receives(
        writes in prop::collection::vec((0..70_000_usize, any::<u8>()), 0..3),
        pieces: Vec<u16>,
    ) {
        let (mut client, mut bytes) = (WebSocket::client(), Vec::new());
        let fill = |(len, first): &(usize, u8)| -> Vec<u8> {
            (0..*len).map(|n| first.wrapping_add(n as u8)).collect()
        };
        let writes: Vec<_> = writes.iter().map(fill).collect();
        for write in &writes {
            let (a, b) = write.split_at(write.len() / 3);
            client.encode(&[IoSlice::new(a), IoSlice::new(b)], &mut bytes);
            client.ping();
            bytes.extend(client.take_answers());
        }
        let pieces: Vec<usize> = pieces.into_iter().map(usize::from).collect();
        let (taken, _) = decode(&bytes, &pieces);
        prop_assert_eq!(taken.unwrap(), writes.concat());
    }

    #[test]
    fn any_bytes_are_a_payload_or_an_error(bytes: Vec<u8>, pieces: Vec<u8>) {
        let pieces: Vec<usize> = pieces.into_iter().map(usize::from).collect();
        let (taken, mut socket) = decode(&bytes, &pieces);
        prop_assert!(taken.is_err() || taken.unwrap().len() <= bytes.len());
        prop_assert!(socket.take_answers().len() <= 131);
    }
}
