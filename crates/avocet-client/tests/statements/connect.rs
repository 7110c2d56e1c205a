//! CONNECT, and what may precede CONNACK.

use avocet_client::{
    Authentication, AuthenticationFailed, ClientConfig, Config, ConnectError,
    EnhancedAuthentication, Message, MessageProperties, MessagePropertiesParts, QoS, Session,
    TopicName, Version, WillMessage,
};

use crate::wire::{accepted, config, connected, connecting, packet, string};
use crate::{BOTH, message};

/// What precedes the flags.
fn protocol(version: Version) -> Vec<u8> {
    [
        string(b"MQTT").as_slice(),
        &[if version == Version::V5 { 5 } else { 4 }],
    ]
    .concat()
}

/// The Property Length of 0 that 5.0 has and 3.1.1 has not.
fn no_properties(version: Version) -> &'static [u8] {
    if version == Version::V5 { &[0] } else { &[] }
}

async fn connect_of(connection: ClientConfig) -> Vec<u8> {
    let (_client, connect, _wire) = connecting(
        Config {
            reconnect: None,
            ..Config::with_connection(connection)
        },
        Session::new(),
    )
    .await;
    connect
}

/// [MQTT5-2.1.3-1] [MQTT5-2.2.2-1] [MQTT5-3.1.0-1] [MQTT5-3.1.2-1] [MQTT5-3.1.2-11]
/// [MQTT5-3.1.2-13] [MQTT5-3.1.2-16] [MQTT5-3.1.2-18] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
/// [MQTT311-2.2.2-1] [MQTT311-3.1.0-1] [MQTT311-3.1.2-11] [MQTT311-3.1.2-13] [MQTT311-3.1.2-15]
/// [MQTT311-3.1.2-18] [MQTT311-3.1.2-20] [MQTT311-3.1.2-22] [MQTT311-3.1.3-3] [MQTT311-3.1.3-4]
#[tokio::test]
async fn without_will_and_credentials_there_is_nothing_of_them() {
    for version in BOTH {
        let connect = connect_of(ClientConfig::new(version, "é")).await;
        let expected = packet(
            0x10,
            &[
                &protocol(version),
                &[0x02, 0, 60],
                no_properties(version),
                &string(&[0xc3, 0xa9]),
            ],
        );
        assert_eq!(connect, expected);
    }
}

/// [MQTT5-3.1.2-9] [MQTT5-3.1.2-12] [MQTT5-3.1.2-17] [MQTT5-3.1.2-19] [MQTT5-3.1.3-1]
/// [MQTT5-3.1.3-11] [MQTT5-3.1.3-12]
/// [MQTT311-3.1.2-9] [MQTT311-3.1.2-14] [MQTT311-3.1.2-19] [MQTT311-3.1.2-21] [MQTT311-3.1.3-1]
/// [MQTT311-3.1.3-10] [MQTT311-3.1.3-11]
#[tokio::test]
async fn will_user_name_and_password_are_in_order_as_the_flags_say() {
    for version in BOTH {
        for (qos, retain, flags) in [
            (QoS::AtMostOnce, false, 0xc6),
            (QoS::AtLeastOnce, true, 0xee),
            (QoS::ExactlyOnce, false, 0xd6),
        ] {
            let will = Message::new(TopicName::new("ä").unwrap(), b"gone");
            let mut connection = ClientConfig::new(version, "c");
            connection.will = Some(WillMessage::new(will.with_qos(qos).with_retain(retain)));
            connection.user_name = Some("ü".into());
            connection.password = Some(b"\0\xff".to_vec().into());
            let expected = packet(
                0x10,
                &[
                    &protocol(version),
                    &[flags, 0, 60],
                    no_properties(version),
                    &string(b"c"),
                    no_properties(version),
                    &string(&[0xc3, 0xa4]),
                    &string(b"gone"),
                    &string(&[0xc3, 0xbc]),
                    &string(b"\0\xff"),
                ],
            );
            assert_eq!(connect_of(connection).await, expected);
        }
    }
}

/// Everything that a will can say in 5.0, and 3.1.1 refuses.
#[tokio::test]
async fn a_will_says_when_it_is_published_and_what_goes_with_it() {
    let properties = MessageProperties::new(MessagePropertiesParts {
        content_type: Some("text"),
        correlation_data: Some(b"id"),
        ..MessagePropertiesParts::default()
    });
    let topic_name = TopicName::new("t").unwrap();
    let message = Message::with_properties(topic_name, &properties, b"gone").unwrap();
    let will = WillMessage::new(message.with_qos(QoS::AtLeastOnce).with_retain(true))
        .with_will_delay_interval(30)
        .with_message_expiry_interval(Some(3600));
    let mut connection = ClientConfig::new(Version::V5, "c");
    connection.will = Some(will);
    let connect = connect_of(connection.clone()).await;
    let expected: [&[u8]; 4] = [
        &[0x18, 0, 0, 0, 30],
        &[0x02, 0, 0, 0x0e, 0x10],
        b"\x03\x00\x04text",
        b"\x09\x00\x02id",
    ];
    let flags = protocol(Version::V5).len() + 2;
    assert_eq!(connect[flags], 0x2e);
    for property in expected {
        let found = connect.windows(property.len()).any(|it| it == property);
        assert!(found, "{property:x?} in {connect:x?}");
    }
    assert!(connect.ends_with(&[string(b"t"), string(b"gone")].concat()));
    connection.version = Version::V3_1_1;
    let refused = avocet_client::Client::connect(Config::with_connection(connection)).await;
    assert!(matches!(refused, Err(ConnectError::Config(_))));
}

/// [MQTT311-3.1.2-22]: 5.0 allows it.
#[tokio::test]
async fn a_password_without_a_user_name_is_for_5_0_only() {
    let with_password = |version| {
        let mut connection = ClientConfig::new(version, "c");
        connection.password = Some(b"p".to_vec().into());
        connection
    };
    let expected = packet(
        0x10,
        &[
            &protocol(Version::V5),
            &[0x42, 0, 60, 0],
            &string(b"c"),
            &string(b"p"),
        ],
    );
    assert_eq!(connect_of(with_password(Version::V5)).await, expected);
    let config = Config::with_connection(with_password(Version::V3_1_1));
    let refused = avocet_client::Client::connect(config).await;
    assert!(matches!(refused, Err(ConnectError::Config(_))));
}

/// [MQTT311-3.1.3-7]
#[tokio::test]
async fn an_empty_client_identifier_comes_with_clean_session() {
    let mut connection = ClientConfig::new(Version::V3_1_1, "");
    let expected = packet(
        0x10,
        &[&protocol(Version::V3_1_1), &[0x02, 0, 60], &string(b"")],
    );
    assert_eq!(connect_of(connection.clone()).await, expected);
    connection.clean_start = false;
    let refused = avocet_client::Client::connect(Config {
        reconnect: None,
        ..Config::with_connection(connection)
    })
    .await;
    assert!(matches!(refused, Err(ConnectError::Config(_))));
}

/// [MQTT5-1.5.4-2] [MQTT5-1.5.7-1] [MQTT311-1.5.3-2]
#[tokio::test]
async fn a_null_character_is_refused_before_connecting() {
    let mut user_property = ClientConfig::new(Version::V5, "c");
    user_property.user_properties = vec![("name".into(), "a\0b".into())];
    let client_id = ClientConfig::new(Version::V3_1_1, "a\0b");
    for connection in [user_property, client_id] {
        let refused = avocet_client::Client::connect(Config {
            reconnect: None,
            ..Config::with_connection(connection)
        })
        .await;
        assert!(matches!(refused, Err(ConnectError::Config(_))));
    }
}

fn authenticating() -> Config {
    let mut config = config(Version::V5);
    config.connection.authentication = Some(Authentication {
        method: "m".into(),
        data: None,
    });
    config.authenticator = Some(Box::new(|data| data.map(<[u8]>::to_vec)));
    config
}

/// A method of the application's own: it counts what it is asked.
struct Counting {
    asked: u8,
    trusts: bool,
}

impl EnhancedAuthentication for Counting {
    fn method(&self) -> &str {
        "m"
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        self.asked = 0;
        Some(b"begin".to_vec())
    }

    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationFailed> {
        self.asked += 1;
        Ok(data.map(|data| [data, &[b'0' + self.asked]].concat()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationFailed> {
        match (self.trusts, data) {
            (true, Some(b"end")) => Ok(()),
            _ => Err(AuthenticationFailed),
        }
    }
}

/// [MQTT5-4.12.0-3] [MQTT5-3.1.2-30]
#[tokio::test]
async fn an_application_brings_its_own_method() {
    for trusts in [true, false] {
        let mut config = config(Version::V5);
        config.authentication = Some(Box::new(Counting { asked: 9, trusts }));
        let (client, connect, mut wire) = connecting(config, Session::new()).await;
        let begun = [&[0x15], string(b"m").as_slice(), &[0x16], &string(b"begin")].concat();
        assert!(connect.windows(begun.len()).any(|it| it == begun));
        for (asked, answer) in [(b"a", b"a1"), (b"b", b"b2")] {
            wire.send(&auth(0x18, asked)).await;
            assert_eq!(wire.next().await, auth(0x18, answer));
        }
        let data = [&[0x15], string(b"m").as_slice(), &[0x16], &string(b"end")].concat();
        wire.accept(0, &data).await;
        let client = client.await.unwrap();
        assert_eq!(client.is_ok(), trusts, "{:?}", client.err());
        if !trusts {
            // DISCONNECT, with an error.
            assert_eq!(wire.next().await, [0xe0, 1, 0x80]);
        }
    }
}

/// An AUTH with Authentication Method `m` and this data.
fn auth(code: u8, data: &[u8]) -> Vec<u8> {
    let properties = [&[0x15], string(b"m").as_slice(), &[0x16], &string(data)].concat();
    packet(0xf0, &[&[code, properties.len() as u8], &properties])
}

/// [MQTT5-3.1.2-30] [MQTT5-3.15.1-1] [MQTT5-3.15.2-1] [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]: messages of the Session wait for CONNACK.
#[tokio::test]
async fn before_connack_there_is_only_auth() {
    let (client, messages, mut wire) = connected(Version::V5).await;
    let pending = client.start_publish(message(b"x", QoS::AtLeastOnce)).await;
    let publish = wire.next().await;
    drop((wire, pending));
    let session = messages.into_session().await;
    assert_eq!(session.in_flight(), 1);

    let mut config = authenticating();
    config.connection.clean_start = false;
    let (client, _, mut wire) = connecting(config, session).await;
    wire.send(&auth(0x18, b"challenge")).await;
    wire.expect([&auth(0x18, b"challenge")]).await;
    wire.send(&auth(0x18, b"more")).await;
    wire.expect([&auth(0x18, b"more")]).await;
    let method = [&[0x15], string(b"m").as_slice()].concat();
    wire.accept(1, &method).await;
    let again = [&[publish[0] | 0x08], &publish[1..]].concat();
    wire.expect([&again]).await;
    client.await.unwrap().unwrap();
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.1-2]: the server refuses the second step.
#[tokio::test]
async fn re_authentication_has_the_method_of_connect_and_may_fail() {
    let method = [&[0x15], string(b"m").as_slice()].concat();
    let (client, _messages, mut wire) = accepted(authenticating(), &method).await;
    client.reauthenticate(Some(b"token"));
    wire.expect([&auth(0x19, b"token")]).await;
    wire.send(&auth(0x18, b"why")).await;
    wire.expect([&auth(0x18, b"why")]).await;
    wire.send(&packet(0xe0, &[&[0x87, 0]])).await;
    wire.expect_end().await;
    client.closed().await;
}

/// [MQTT5-4.12.0-7]
#[tokio::test]
async fn without_an_authentication_method_there_is_no_auth() {
    let (client, _messages, mut wire) = connected(Version::V5).await;
    client.reauthenticate(Some(b"token"));
    let _pending = client.start_publish(message(b"x", QoS::AtMostOnce)).await;
    wire.expect([&packet(0x30, &[&string(b"t"), &[0], b"x"])])
        .await;
}

/// [MQTT5-3.2.2-15]: what the server has no room for is not sent.
#[tokio::test]
async fn an_auth_that_is_too_large_is_not_sent() {
    let mut properties = [&[0x15], string(b"m").as_slice()].concat();
    properties.extend([0x27, 0, 0, 0, 20]);
    let (client, _messages, mut wire) = accepted(authenticating(), &properties).await;
    client.reauthenticate(Some(&[b'x'; 100]));
    client.reauthenticate(Some(b"token"));
    wire.expect([&auth(0x19, b"token")]).await;
}
