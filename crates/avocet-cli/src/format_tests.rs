use super::*;
use avocet_codec::{MessagePropertiesParts, PayloadFormat, UserProperty};
use avocet_topic::TopicName;

fn plain(payload: &[u8]) -> Printed<'_> {
    Printed {
        topic_name: "a/b",
        payload,
        qos: QoS::AtLeastOnce,
        retain: true,
        packet_id: Some(7),
        message_expiry_interval: None,
        properties: MessageProperties::EMPTY,
        subscription_ids: &[],
        received: Date::from_unix_nanoseconds(1_709_210_096_000_250_000),
    }
}

fn render(format: &str, message: &Printed<'_>) -> String {
    let mut out = Vec::new();
    format.parse::<Format>().unwrap().render(message, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn fields_show_the_message() {
    for (format, expected) in [
        ("%t %p", "a/b 21.5"),
        ("%q%r%m%l", "1174"),
        ("%x %X", "32312e35 32312E35"),
        ("%I", "2024-02-29T12:34:56Z"),
        ("%U", "1709210096.000250000"),
        ("100%% a@@b", "100% a@b"),
        ("@Y-@m-@d @H:@M:@S.@N", "2024-02-29 12:34:56.000250000"),
        ("%C%D%E%F%P%R%S|", "|"),
        ("\\\\ \\t\\n\\r\\a\\e\\v\\0", "\\ \t\n\r\x07\x1b\x0b\0"),
        ("é%té", "éa/bé"),
    ] {
        assert_eq!(render(format, &plain(b"21.5")), expected, "{format}");
    }
}

#[test]
fn widths_and_precisions_shape_fields() {
    for (format, expected) in [
        ("[%6t]", "[   a/b]"),
        ("[%-6t]", "[a/b   ]"),
        ("[%05l]", "[00004]"),
        ("[%.2p]", "[21]"),
        ("[%5.2p]", "[   21]"),
        ("[%2p]", "[21.5]"),
    ] {
        assert_eq!(render(format, &plain(b"21.5")), expected, "{format}");
    }
}

#[test]
fn properties_show_in_their_order() {
    let user_properties = [
        UserProperty {
            name: "b",
            value: "1",
        },
        UserProperty {
            name: "a",
            value: "2",
        },
    ];
    let message = Printed {
        message_expiry_interval: Some(30),
        subscription_ids: &[3, 4],
        properties: MessageProperties::new(MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("text/plain"),
            response_topic: Some(TopicName::new("r/t").unwrap()),
            correlation_data: Some(b"id"),
            user_properties: &user_properties,
        }),
        ..plain(b"x")
    };
    let expected = "text/plain id 30 1 b:1 a:2 r/t 3 4";
    assert_eq!(render("%C %D %E %F %P %R %S", &message), expected);
    let expected = r#"{"tst":"2024-02-29T12:34:56.000250Z","topic":"a/b","qos":1,"retain":1,"#
        .to_owned()
        + r#""payloadlen":1,"mid":7,"properties":{"payload-format-indicator":1,"#
        + r#""message-expiry-interval":30,"content-type":"text/plain","response-topic":"r/t","#
        + r#""correlation-data":"id","subscription-identifier":[3,4],"#
        + r#""user-properties":[{"b":"1"},{"a":"2"}]},"payload":"x"}"#;
    assert_eq!(render("%j", &message), expected);
}

#[test]
fn json_holds_text_values_and_bytes() {
    let head = r#"{"tst":"2024-02-29T12:34:56.000250Z","topic":"a/b","qos":1,"retain":1,"#;
    for (format, payload, tail) in [
        (
            "%j",
            &b"a\"b\n"[..],
            r#""payloadlen":4,"mid":7,"payload":"a\"b\n"}"#,
        ),
        ("%j", b"[1]", r#""payloadlen":3,"mid":7,"payload":"[1]"}"#),
        (
            "%J",
            b"[1,\n2]",
            r#""payloadlen":6,"mid":7,"payload":[1,2]}"#,
        ),
        ("%J", b"off", r#""payloadlen":3,"mid":7,"payload":"off"}"#),
        (
            "%j",
            b"\xff\x00",
            r#""payloadlen":2,"mid":7,"payloadhex":"ff00"}"#,
        ),
        (
            "%J",
            b"\xff\x00",
            r#""payloadlen":2,"mid":7,"payloadhex":"ff00"}"#,
        ),
    ] {
        assert_eq!(
            render(format, &plain(payload)),
            format!("{head}{tail}"),
            "{format}"
        );
    }
}

#[test]
fn payloads_are_printed_byte_for_byte() {
    let mut out = Vec::new();
    Format::payload(true).render(&plain(b"\xff\0"), &mut out);
    Format::payload(false).render(&plain(b"\x80"), &mut out);
    assert_eq!(out, b"\xff\0\n\x80");
    assert_eq!(render("%t", &plain(b"")), "a/b");
    out.clear();
    Format::verbose(true).render(&plain(b"x"), &mut out);
    assert_eq!(out, b"a/b x\n");
}

#[test]
fn refuses_unknown_letters_and_loose_ends() {
    for (format, expected) in [
        ("%Q", "%Q is unknown; allowed after % are"),
        ("@Q", "@Q is unknown; allowed after @ are"),
        ("\\q", "\\q is unknown; allowed after \\ are"),
        ("x%", "a single % stands at the end"),
        ("x@", "a single @ stands at the end"),
        ("x\\", "a single \\ stands at the end"),
        ("%99999t", "a width is at most"),
    ] {
        let error = format.parse::<Format>().unwrap_err();
        assert!(error.contains(expected), "{format}: {error}");
    }
}
