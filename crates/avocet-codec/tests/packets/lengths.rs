//! Fields of every length around those at which another way is taken.

use avocet_codec::{
    Connect, DecodeError, Delivery, EncodeError, Field, MessageProperties, MessagePropertiesParts,
    Packet, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter, TopicName, UserProperty,
    Version, Will,
};

use crate::{V3_1, V3_1_1, V5, id};

/// The packet survives; without room for its last byte nothing is written.
fn survives(version: Version, packet: Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    assert_eq!(bytes.len(), packet.encoded_len(version));
    assert_eq!(Packet::decode(&bytes, version), Ok(packet));

    let mut room = vec![0xee; bytes.len() - 1];
    let error = packet.encode(version, &mut room.as_mut_slice());
    assert_eq!(error, Err(EncodeError::OutputFull));
    assert!(room.iter().all(|&byte| byte == 0xee));
}

#[test]
fn packets_of_all_lengths_survive() {
    let text = "x".repeat(600);
    for len in 1..text.len() {
        let text = &text[..len];
        let name = TopicName::new(text).unwrap();
        let filters = [
            SubscribeFilter::new(TopicFilter::new("+/a").unwrap(), QoS::ExactlyOnce),
            SubscribeFilter::new(TopicFilter::new(text).unwrap(), QoS::AtLeastOnce),
        ];
        for version in [V3_1, V3_1_1, V5] {
            for delivery in [Delivery::AtMostOnce, Delivery::ExactlyOnce(id(0x1234))] {
                let publish = Publish::new(name, delivery, b"payload");
                survives(version, Packet::Publish(publish));
                let publish = Publish::new(TopicName::new("a").unwrap(), delivery, text.as_bytes());
                survives(version, Packet::Publish(publish));
            }
            let connect = Connect {
                user_name: Some(text),
                password: Some(b"secret"),
                will: Some(Will::new(name, text.as_bytes())),
                ..Connect::new(version, "client")
            };
            survives(version, Packet::Connect(connect));
            survives(version, Packet::Subscribe(Subscribe::new(id(1), &filters)));
        }
    }
}

/// [MQTT5-2.2.2.1]
#[test]
fn properties_of_all_lengths_survive() {
    let text = "x".repeat(400);
    for len in 0..text.len() {
        let user_properties = [UserProperty {
            name: "n",
            value: &text[..len],
        }];
        let properties = MessageProperties::new(MessagePropertiesParts {
            content_type: Some("t"),
            user_properties: &user_properties,
            ..MessagePropertiesParts::default()
        });
        let name = TopicName::new("a").unwrap();
        let publish = Publish {
            properties,
            ..Publish::new(name, Delivery::AtLeastOnce(id(1)), b"x")
        };
        survives(V5, Packet::Publish(publish));
        let mut header = Vec::new();
        publish.encode_header(V5, &mut header).unwrap();
        assert_eq!(header.len(), publish.encoded_header_len(V5));
        let connect = Connect {
            will: Some(Will {
                properties,
                will_delay_interval: 1,
                ..Will::new(name, b"x")
            }),
            ..Connect::new(V5, "client")
        };
        survives(V5, Packet::Connect(connect));
    }
}

/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-3.3.2-2] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2]
#[test]
fn a_wrong_byte_is_found_wherever_it_stands() {
    for len in 1..70 {
        for at in 0..len {
            let decode = |byte: u8| {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                let mut name = vec![0x30, len as u8 + 2, 0, len as u8];
                name.extend_from_slice(&text);
                let mut client_id = vec![0x10, len as u8 + 12];
                client_id.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0\0");
                client_id.push(len as u8);
                client_id.extend_from_slice(&text);
                [&name, &client_id].map(|frame| Packet::decode(frame, V3_1_1).err())
            };
            let [name, client_id] = [Field::TopicName, Field::ClientId];
            assert_eq!(decode(b'\x7f'), [None, None]);
            let nulls = [name, client_id].map(|field| Some(DecodeError::NullCharacter(field)));
            assert_eq!(decode(0), nulls);
            let ill_formed = [name, client_id].map(|field| Some(DecodeError::IllFormedUtf8(field)));
            assert_eq!(decode(0x80), ill_formed);
            for wildcard in [b'+', b'#'] {
                assert_eq!(decode(wildcard), [Some(DecodeError::TopicName(name)), None]);
            }
        }
    }
}
