use avocet_codec::{
    Ack, DecodeError, EncodeError, Field, PACKET_SIZE_MAX, Packet, REMAINING_LENGTH_MAX, frame_len,
};

use crate::{V3_1, V3_1_1, V5, accepts, bytes, decodes, id, refuses, same, unencodable};

const TOO_LONG: DecodeError = DecodeError::VariableByteIntegerTooLong(Field::FixedHeader);

#[test]
fn a_partial_fixed_header_is_no_error() {
    assert_eq!(frame_len(&[], 100), Ok(None));
    assert_eq!(frame_len(&bytes("c0"), 100), Ok(None));
    assert_eq!(frame_len(&bytes("30 80"), 100), Ok(None));
    assert_eq!(frame_len(&bytes("30 ff ff ff"), 100), Ok(None));
}

#[test]
fn the_length_is_known_before_the_body_is_there() {
    assert_eq!(frame_len(&bytes("c0 00"), 100), Ok(Some(2)));
    assert_eq!(frame_len(&bytes("30 7f"), 200), Ok(Some(129)));
    assert_eq!(frame_len(&bytes("30 80 01"), 200), Ok(Some(131)));
    assert_eq!(
        frame_len(&bytes("30 ff ff ff 7f"), u32::MAX),
        Ok(Some(PACKET_SIZE_MAX as usize))
    );
}

/// [MQTT5-3.1.2-24]
#[test]
fn a_packet_above_the_limit_is_refused_before_its_body() {
    assert_eq!(frame_len(&bytes("30 08"), 10), Ok(Some(10)));
    assert_eq!(
        frame_len(&bytes("30 09"), 10),
        Err(DecodeError::PacketTooLarge)
    );
}

/// [MQTT5-1.5.5]
#[test]
fn a_fifth_byte_of_remaining_length_is_refused() {
    assert_eq!(frame_len(&bytes("30 ff ff ff ff"), u32::MAX), Err(TOO_LONG));
    assert_eq!(frame_len(&bytes("30 80 80 80 80 00"), 9), Err(TOO_LONG));
    refuses(V3_1_1, "c0 80 80 80 80 00", TOO_LONG);
}

/// [MQTT5-1.5.5-1]
#[test]
fn only_5_0_insists_on_the_shortest_remaining_length() {
    let not_minimal = DecodeError::VariableByteIntegerNotMinimal(Field::FixedHeader);
    refuses(V5, "c0 80 00", not_minimal);
    decodes(V3_1_1, "c0 80 00", Packet::Pingreq);
    decodes(V3_1, "c0 80 80 80 00", Packet::Pingreq);
    refuses(
        V5,
        "10 8e 00 00 04 'MQTT' 05 02 00 00 00 00 01 'a'",
        not_minimal,
    );
    accepts(V5, "10 8d 00 00 04 'MQTT' 04 02 00 00 00 01 'a'");
}

#[test]
fn a_slice_must_be_one_packet() {
    refuses(V5, "", DecodeError::RemainingLength);
    refuses(V5, "c0", DecodeError::RemainingLength);
    refuses(V5, "c0 01", DecodeError::RemainingLength);
    refuses(V5, "c0 00 00", DecodeError::RemainingLength);
    refuses(V5, "30 80", DecodeError::RemainingLength);
}

#[test]
fn packets_are_taken_off_one_after_the_other() {
    let stream = bytes("c0 00 40 02 00 01 d0");
    let mut rest = stream.as_slice();
    let mut next = || Packet::decode_next(&mut rest, V5, 4);
    assert_eq!(next(), Ok(Some(Packet::Pingreq)));
    assert_eq!(next(), Ok(Some(Packet::Puback(Ack::new(id(1))))));
    assert_eq!(next(), Ok(None));
    assert_eq!(rest, [0xd0]);
}

/// [MQTT5-3.1.2-24]
#[test]
fn a_packet_is_refused_as_soon_as_it_can_be() {
    for (text, error) in [
        ("40 02 00 01", DecodeError::PacketTooLarge),
        ("40 03", DecodeError::PacketTooLarge),
        ("c1 00", DecodeError::FixedHeaderFlags),
        ("0f", DecodeError::PacketType(0)),
        ("36", DecodeError::QoS3),
        ("c0 80 80 80 80 00", TOO_LONG),
    ] {
        let stream = bytes(text);
        let next = Packet::decode_next(&mut stream.as_slice(), V5, 3);
        assert_eq!(next, Err(error), "{text}");
    }
}

#[test]
fn reserved_packet_types_are_refused() {
    refuses(V5, "00 00", DecodeError::PacketType(0));
    assert_eq!(frame_len(&[0x0f], 9), Err(DecodeError::PacketType(0)));
    refuses(V3_1_1, "f0 00", DecodeError::PacketType(15));
    refuses(V3_1, "f0 00", DecodeError::PacketType(15));
}

/// [MQTT5-2.1.3-1] [MQTT311-2.2.2-2]
#[test]
fn reserved_flags_are_refused_except_in_3_1() {
    for first_byte in ["41", "52", "78", "b4", "c1", "d8", "21"] {
        let body = match first_byte {
            "c1" | "d8" => "00",
            _ => "02 00 01",
        };
        let body = if first_byte == "21" { "02 00 00" } else { body };
        let text = format!("{first_byte} {body}");
        refuses(V3_1_1, &text, DecodeError::FixedHeaderFlags);
        refuses(V5, &text, DecodeError::FixedHeaderFlags);
        accepts(V3_1, &text);
    }
}

/// [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1]
#[test]
fn pubrel_subscribe_and_unsubscribe_have_qos_1_in_their_flags() {
    for first_byte in [0x60, 0x64, 0x66, 0x80, 0x84, 0xa0, 0xa6] {
        assert_eq!(
            frame_len(&[first_byte], 100),
            Err(DecodeError::FixedHeaderFlags)
        );
    }
    for first_byte in ["6a", "63"] {
        let text = format!("{first_byte} 02 00 01");
        refuses(V3_1_1, &text, DecodeError::FixedHeaderFlags);
        decodes(V3_1, &text, Packet::Pubrel(Ack::new(id(1))));
    }
}

#[test]
fn pings_have_no_body() {
    for version in [V3_1, V3_1_1, V5] {
        same(version, "c0 00", Packet::Pingreq);
        same(version, "d0 00", Packet::Pingresp);
        refuses(version, "c0 01 00", DecodeError::TrailingBytes);
        refuses(version, "d0 01 00", DecodeError::TrailingBytes);
    }
}

#[test]
fn an_output_without_room_stays_as_it_was() {
    let mut room = [0xee; 1];
    let mut out = room.as_mut_slice();
    assert_eq!(
        Packet::Pingreq.encode(V5, &mut out),
        Err(EncodeError::OutputFull)
    );
    let ack = Packet::Puback(Ack::new(id(1)));
    let mut room = [0xee; 3];
    let mut out = room.as_mut_slice();
    assert_eq!(ack.encode(V5, &mut out), Err(EncodeError::OutputFull));
    assert_eq!(room, [0xee; 3]);
}

#[test]
fn a_packet_above_the_largest_remaining_length_is_not_encoded() {
    let payload = vec![0; REMAINING_LENGTH_MAX as usize];
    let name = avocet_codec::TopicName::new("a").unwrap();
    let delivery = avocet_codec::Delivery::AtMostOnce;
    let publish = avocet_codec::Publish::new(name, delivery, &payload);
    unencodable(V3_1_1, Packet::Publish(publish), EncodeError::TooLarge);
}
