use super::*;
use proptest::prelude::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The request of RFC 6455, section 1.2, with lines replaced or added.
fn asked(changes: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Protocol", "chat, mqtt"),
        ("Sec-WebSocket-Version", "13"),
    ];
    for (name, value) in changes {
        match lines.iter_mut().find(|line| line.0 == *name) {
            Some(line) => line.1 = value,
            None => lines.push((name, value)),
        }
    }
    let mut text = "GET /mqtt?token=1 HTTP/1.1\r\n".to_owned();
    for (name, value) in lines.iter().filter(|line| !line.1.is_empty()) {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

fn granted(text: &str) -> Result<Option<Granted>, UpgradeError> {
    request(text.as_bytes(), &WebSocketServer::default(), None)
}

/// [MQTT5-6.0.0-4] [MQTT311-6.0.0-4]
#[test]
fn grants_the_subprotocol_mqtt() {
    let text = asked(&[]);
    let found = granted(&(text.clone() + "more")).unwrap().unwrap();
    assert_eq!(found.len, text.len());
    assert_eq!(
        found.response,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    for len in 0..text.len() {
        assert_eq!(granted(&text[..len]), Ok(None));
    }
}

#[test]
fn refuses_what_is_no_request_for_it() {
    for (changes, expected) in [
        (("Upgrade", ""), UpgradeError::NoWebSocket),
        (("Connection", "close"), UpgradeError::NoWebSocket),
        (("Sec-WebSocket-Key", ""), UpgradeError::NoWebSocket),
        (("Sec-WebSocket-Key", "c2hvcnQ="), UpgradeError::NoWebSocket),
        (("Host", ""), UpgradeError::NoWebSocket),
        (("Sec-WebSocket-Version", "8"), UpgradeError::Version),
        (("Sec-WebSocket-Protocol", ""), UpgradeError::Subprotocol),
        (
            ("Sec-WebSocket-Protocol", "chat"),
            UpgradeError::Subprotocol,
        ),
    ] {
        assert_eq!(granted(&asked(&[changes])), Err(expected), "{changes:?}");
    }
    let twice = asked(&[("sec-websocket-key", KEY)]);
    assert_eq!(granted(&twice), Err(UpgradeError::NoWebSocket));
    assert_eq!(granted("\x10\x0c\0\x04MQTT"), Err(UpgradeError::NotHttp));
    let other = asked(&[]).replace("/mqtt", "/mqtt/");
    assert_eq!(granted(&other), Err(UpgradeError::Path));
    let post = asked(&[]).replace("GET", "POST");
    assert_eq!(granted(&post), Err(UpgradeError::NotHttp));
    let long = "x".repeat(HEAD_MAX);
    assert_eq!(granted(&asked(&[("X", &long)])), Err(UpgradeError::TooLong));
    let endless = format!("GET /{long}");
    assert_eq!(granted(&endless), Err(UpgradeError::TooLong));
    let many = "X: y\r\n".repeat(FIELDS_MAX);
    let many = asked(&[]).replace("Host:", &format!("{many}Host:"));
    assert_eq!(granted(&many), Err(UpgradeError::TooLong));
}

#[test]
fn web_pages_are_let_in_by_their_origin() {
    let listed = WebSocketServer {
        origins: vec!["https://app.example".to_owned()],
        ..WebSocketServer::default()
    };
    let all = WebSocketServer {
        origins: vec!["*".to_owned()],
        ..WebSocketServer::default()
    };
    let own = WebSocketServer::default();
    for (server, origin, allowed) in [
        (&own, "", true),
        (&own, "http://server.example.com", true),
        (&own, "http://SERVER.example.com", true),
        (&own, "http://server.example.com:8080", false),
        (&own, "https://evil.example", false),
        (&own, "null", false),
        (&listed, "https://app.example", true),
        (&listed, "https://app.example.evil", false),
        (&listed, "http://server.example.com", false),
        (&all, "null", true),
    ] {
        let text = asked(&[("Origin", origin)]);
        let answer = request(text.as_bytes(), server, None);
        let expected = if allowed {
            Ok(())
        } else {
            Err(UpgradeError::Origin)
        };
        assert_eq!(answer.map(drop), expected, "{origin}");
    }
    let text = asked(&[
        ("Origin", "https://app.example"),
        ("origin", "https://evil.example"),
    ]);
    assert_eq!(
        request(text.as_bytes(), &listed, None).map(drop),
        Err(UpgradeError::Origin)
    );
}

#[test]
fn the_client_is_the_last_one_that_is_not_trusted() {
    let trusted: Vec<Network> = ["10.0.0.0/8", "2001:db8::/32"]
        .map(|it| it.parse().unwrap())
        .into();
    for (name, value, expected) in [
        ("X-Forwarded-For", "1.2.3.4", Some("1.2.3.4")),
        (
            "X-Forwarded-For",
            "6.6.6.6, 1.2.3.4, 10.1.1.1",
            Some("1.2.3.4"),
        ),
        ("X-Forwarded-For", "10.2.2.2,10.1.1.1", Some("10.2.2.2")),
        (
            "X-Forwarded-For",
            "6.6.6.6, unknown, 10.1.1.1",
            Some("10.1.1.1"),
        ),
        ("X-Forwarded-For", "1.2.3.4:5678", Some("1.2.3.4")),
        ("X-Forwarded-For", "garbage", None),
        (
            "Forwarded",
            "for=1.2.3.4;proto=https, for=10.1.1.1",
            Some("1.2.3.4"),
        ),
        (
            "Forwarded",
            "for=\"[2001:db9::7]:4711\"",
            Some("2001:db9::7"),
        ),
        (
            "Forwarded",
            "proto=https;For=\"[2001:db8::7]\"",
            Some("2001:db8::7"),
        ),
        ("Forwarded", "for=_hidden", None),
    ] {
        let text = asked(&[(name, value)]);
        let found = request(text.as_bytes(), &WebSocketServer::default(), Some(&trusted));
        let client = found.unwrap().unwrap().forwarded_for;
        assert_eq!(client, expected.map(|it| it.parse().unwrap()), "{value}");
        assert_eq!(granted(&text).unwrap().unwrap().forwarded_for, None);
    }
}

#[test]
fn a_field_that_a_proxy_passes_on_as_it_came_makes_up_no_address() {
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    for (forwarded, other, expected) in [
        ("for=6.6.6.6", "1.2.3.4", None),
        ("for=1.2.3.4", "6.6.6.6", None),
        ("for=_hidden", "6.6.6.6", None),
        ("for=1.2.3.4", "6.6.6.6, 1.2.3.4", Some("1.2.3.4")),
    ] {
        let text = asked(&[("Forwarded", forwarded), ("X-Forwarded-For", other)]);
        let found = request(text.as_bytes(), &WebSocketServer::default(), Some(&trusted));
        let client = found.unwrap().unwrap().forwarded_for;
        let expected = expected.map(|it| it.parse().unwrap());
        assert_eq!(client, expected, "{forwarded} {other}");
    }
}

/// [MQTT5-6.0.0-3] [MQTT311-6.0.0-3]
#[test]
fn a_client_asks_for_mqtt_and_checks_the_answer() {
    let fields = [("Authorization".to_owned(), "Bearer x\r\nEvil: y".to_owned())];
    let asked = Asked::new("broker:8080", "/mqtt", &fields).unwrap();
    assert!(
        asked
            .request
            .contains("Authorization: Bearer x  Evil: y\r\n")
    );
    let answer = granted(&asked.request).unwrap().unwrap().response;
    assert_eq!(asked.answer(answer.as_bytes()), Ok(Some(answer.len())));
    assert_eq!(
        asked.answer(&answer.as_bytes()[..answer.len() - 1]),
        Ok(None)
    );
    let other = Asked::new("broker:8080", "/mqtt", &[]).unwrap();
    assert_eq!(other.answer(answer.as_bytes()), Err(UpgradeError::Answer));
    let without = answer.replace("Sec-WebSocket-Protocol: mqtt\r\n", "");
    assert_eq!(
        asked.answer(without.as_bytes()),
        Err(UpgradeError::Subprotocol)
    );
    let refusal = UpgradeError::Path.response();
    assert_eq!(asked.answer(refusal.as_bytes()), Err(UpgradeError::Answer));
}

proptest! {
    #[test]
    fn changed_requests_are_granted_or_refused(
        changes: Vec<(prop::sample::Index, u8)>,
    ) {
        let mut bytes = asked(&[("X-Forwarded-For", "1.2.3.4")]).into_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let trusted = ["0.0.0.0/0".parse().unwrap()];
        if let Err(error) = request(&bytes, &WebSocketServer::default(), Some(&trusted)) {
            prop_assert!(error.response().starts_with("HTTP/1.1 4"));
        }
    }
}
