use avocet_codec::{DecodeError, Field, Packet, PropertyId};

use crate::{V5, bytes, refuses};

/// A value for each property, and the packets that may have it: CONNECT, will, CONNACK, PUBLISH,
/// the four acknowledgements, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH.
const TABLE: [(&str, &str); 27] = [
    ("01 01", "wp"),
    ("02 00 00 00 01", "wp"),
    ("03 00 01 'x'", "wp"),
    ("08 00 01 'x'", "wp"),
    ("09 00 01 'x'", "wp"),
    ("0b 01", "ps"),
    ("11 00 00 00 01", "cCd"),
    ("12 00 01 'x'", "C"),
    ("13 00 01", "C"),
    ("15 00 01 'x'", "cCa"),
    ("16 00 01 'x'", "cCa"),
    ("17 01", "c"),
    ("18 00 00 00 01", "w"),
    ("19 01", "c"),
    ("1a 00 01 'x'", "C"),
    ("1c 00 01 'x'", "Cd"),
    ("1f 00 01 'x'", "C4SUda"),
    ("21 00 01", "cC"),
    ("22 00 01", "cC"),
    ("23 00 01", "p"),
    ("24 01", "C"),
    ("25 01", "C"),
    ("26 00 01 'x' 00 01 'y'", "cwCp4sSuUda"),
    ("27 00 00 00 01", "cC"),
    ("28 01", "C"),
    ("29 01", "C"),
    ("2a 01", "C"),
];

/// The packet of a letter of the table with these properties.
fn packet(letter: char, properties: &[u8]) -> Vec<u8> {
    // Authentication Data and AUTH need a method.
    let method = bytes("15 00 01 'x'");
    let is_method = properties.first() == Some(&0x15);
    let with_method = match letter {
        'c' | 'C' if properties.first() == Some(&0x16) => [properties, &method].concat(),
        'a' if !is_method => [properties, &method].concat(),
        _ => properties.to_vec(),
    };
    let section = [&[with_method.len() as u8], &with_method[..]].concat();
    let (first_byte, before, behind) = match letter {
        'c' => (0x10, "00 04 'MQTT' 05 02 00 00", "00 00"),
        'w' => (0x10, "00 04 'MQTT' 05 06 00 00 00 00 00", "00 01 'w' 00 00"),
        'C' => (0x20, "00 00", ""),
        'p' => (0x30, "00 01 't'", ""),
        '4' => (0x40, "00 01 00", ""),
        's' => (0x82, "00 01", "00 01 'a' 00"),
        'S' => (0x90, "00 01", "00"),
        'u' => (0xa2, "00 01", "00 01 'a'"),
        'U' => (0xb0, "00 01", "00"),
        'd' => (0xe0, "00", ""),
        _ => (0xf0, "18", ""),
    };
    let body = [bytes(before), section, bytes(behind)].concat();
    [&[first_byte, body.len() as u8], &body[..]].concat()
}

/// [MQTT5-2.2.2.2]
#[test]
fn each_property_is_allowed_where_the_standard_says() {
    for (property, allowed) in TABLE {
        let property = bytes(property);
        let id = PropertyId::from_u8(property[0]).unwrap();
        for letter in "cwCp4sSuUda".chars() {
            let frame = packet(letter, &property);
            let decoded = Packet::decode(&frame, V5);
            if allowed.contains(letter) {
                assert!(decoded.is_ok(), "{id} in {letter}: {decoded:?}");
            } else {
                let error = DecodeError::MisplacedProperty(id);
                assert_eq!(decoded, Err(error), "{id} in {letter}");
            }
        }
    }
}

/// [MQTT5-2.2.2.2]
#[test]
fn each_property_but_two_comes_once() {
    for (property, allowed) in TABLE {
        let property = bytes(property);
        let id = PropertyId::from_u8(property[0]).unwrap();
        for letter in allowed.chars() {
            let frame = packet(letter, &[&property[..], &property].concat());
            let decoded = Packet::decode(&frame, V5);
            let may_repeat = id == PropertyId::UserProperty
                || id == PropertyId::SubscriptionIdentifier && letter == 'p';
            if may_repeat {
                assert!(decoded.is_ok(), "{id} in {letter}: {decoded:?}");
            } else {
                let error = DecodeError::RepeatedProperty(id);
                assert_eq!(decoded, Err(error), "{id} in {letter}");
            }
        }
    }
}

#[test]
fn numbers_without_a_property_are_refused() {
    let known: Vec<u8> = TABLE.iter().map(|(text, _)| bytes(text)[0]).collect();
    for number in (0..=u8::MAX).filter(|number| !known.contains(number)) {
        assert_eq!(PropertyId::from_u8(number), None);
        let decoded = Packet::decode(&packet('p', &[number, 0, 0]), V5)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(decoded, DecodeError::UnknownProperty(number));
    }
}

#[test]
fn the_property_length_is_minimal_and_has_four_bytes_at_most() {
    refuses(
        V5,
        "30 05 00 01 't' 80 00",
        DecodeError::VariableByteIntegerNotMinimal(Field::PropertyLength),
    );
    refuses(
        V5,
        "30 08 00 01 't' 80 80 80 80 00",
        DecodeError::VariableByteIntegerTooLong(Field::PropertyLength),
    );
}

#[test]
fn strings_of_properties_are_utf_8_without_the_null_character() {
    let content_type = Field::Property(PropertyId::ContentType);
    refuses(
        V5,
        "30 08 00 01 't' 04 03 00 01 ff",
        DecodeError::IllFormedUtf8(content_type),
    );
    refuses(
        V5,
        "30 08 00 01 't' 04 03 00 01 00",
        DecodeError::NullCharacter(content_type),
    );
    refuses(
        V5,
        "30 0b 00 01 't' 07 26 00 01 'n' 00 01 00",
        DecodeError::NullCharacter(Field::Property(PropertyId::UserProperty)),
    );
}
