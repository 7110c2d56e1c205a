use super::*;

/// The text of all packets, then why it stopped.
fn text(bytes: &str, version: Option<Version>) -> Vec<String> {
    let bytes = from_hex(bytes.as_bytes()).unwrap();
    let version = version.unwrap_or_else(|| match guess(&bytes) {
        Guess::Connect(version) | Guess::Decodes(version) => version,
    });
    let mut lines = Vec::new();
    let stop = decode(&bytes, version, |packet| {
        lines.push(packet.text());
        Ok(())
    });
    match stop {
        Ok(()) => {}
        Err(Stop::Packet { offset, error }) => lines.push(format!("{offset}: {error}")),
        Err(Stop::Incomplete {
            offset,
            there,
            whole,
        }) => {
            lines.push(format!("{offset}: {there} of {whole:?}"));
        }
        Err(Stop::Output(failure)) => panic!("{failure:?}"),
    }
    lines
}

/// A conversation of a 5.0 client, as its bytes leave.
#[test]
fn a_5_0_conversation_reads_as_text() {
    let bytes = "10 18 00044d515454 05 c2 003c 03 21 0014 0001 61 0002 6d65 0001 78
        82 0b 0001 02 0b 07 0003 612f23 05
        32 11 0003 612f62 0001 07 26 0001 6b 0001 76 6869 40 02 0001 62 02 0002 c0 00 e0 00";
    let expected = [
        "     0     26  CONNECT    clean_start keep_alive=60 client_id=\"a\" user_name=\"me\" \
         password=\"(1 bytes)\" session_expiry_interval=0 receive_maximum=20 topic_alias_maximum=0",
        "    26     13  SUBSCRIBE  packet_id=1 subscription_id=7 filters=[{\"topic_filter\":\"a/#\",\
         \"options\":{\"maximum_qos\":1,\"no_local\":true,\"retain_as_published\":false,\
         \"retain_handling\":\"SendAtSubscribe\"}}]",
        "    39     19  PUBLISH    qos=1 packet_id=1 topic_name=\"a/b\" \
         user_properties=[{\"name\":\"k\",\"value\":\"v\"}] payload=\"hi\"",
        "    58      4  PUBACK     packet_id=1 reason_code=\"0x00 success\"",
        "    62      4  PUBREL     packet_id=2 reason_code=\"0x00 success\"",
        "    66      2  PINGREQ",
        "    68      2  DISCONNECT reason_code=\"0x00 success\"",
    ];
    assert_eq!(text(bytes, None), expected);
}

#[test]
fn bytes_that_are_no_text_read_as_hexadecimal() {
    let lines = text("30 07 0003 612f62 ff 00", Some(Version::V3_1_1));
    assert_eq!(
        lines,
        ["     0      9  PUBLISH    qos=0 topic_name=\"a/b\" payload_hex=\"ff00\""]
    );
}

#[test]
fn the_version_is_that_of_connect_or_the_newest_that_fits() {
    // SUBACK of 3.1.1; in 5.0 it would have no reason code.
    let lines = text("90 03 0001 00", None);
    assert_eq!(
        lines,
        ["     0      5  SUBACK     packet_id=1 reason_codes=[\"0x00 success\"]"]
    );
    // CONNECT of 3.1.1, then a PUBLISH whose payload is no property of 5.0.
    let lines = text(
        "10 0d 00044d515454 04 02 003c 0001 61 30 04 0001 74 7f",
        None,
    );
    assert_eq!(
        lines[1],
        "    15      6  PUBLISH    qos=0 topic_name=\"t\" payload=\"\u{7f}\""
    );
}

#[test]
fn says_where_and_why_it_stops() {
    assert_eq!(
        text("c0 00 40 02 0000", None)[1],
        "2: packet identifier 0 [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]"
    );
    assert_eq!(text("c0 00 30 09 0001", None)[1], "2: 4 of Some(11)");
    assert_eq!(text("30", None), ["0: 1 of None"]);
}

#[test]
fn json_holds_every_field() {
    let bytes = from_hex(b"30 06 0003 612f62 78").unwrap();
    let mut lines = Vec::new();
    let stop = decode(&bytes, Version::V3_1_1, |packet| {
        lines.push(packet.json());
        Ok(())
    });
    assert!(stop.is_ok());
    let expected = r#"{"offset":0,"length":8,"version":"3.1.1","type":"PUBLISH","packet":{"dup":false,"qos":0,"packet_id":null,"retain":false,"topic_name":"a/b","topic_alias":null,"message_expiry_interval":null,"subscription_ids":[],"properties":{"payload_format":null,"content_type":null,"response_topic":null,"correlation_data":null,"user_properties":[]},"payload":"x"}}"#;
    assert_eq!(lines, [expected]);
}

#[test]
fn hexadecimal_text_is_told_from_other_bytes() {
    for (text, bytes) in [
        ("c000", Some(vec![0xc0, 0])),
        ("C0:00\n0xd0, 00", Some(vec![0xc0, 0, 0xd0, 0])),
        ("", Some(vec![])),
        ("c00", None),
        ("c0 0g", None),
        ("\u{c0}", None),
    ] {
        assert_eq!(from_hex(text.as_bytes()), bytes, "{text:?}");
    }
}
