//! rumqttc (crates.io) as a client of the broker, in 3.1.1 and 5.0.

use std::time::Duration;

use avocet_tests::client::{Client, Command, Event, Link, Message, Properties};
use avocet_tests::scenarios;

/// Room for the largest payload of a scenario.
const PACKET_SIZE_MAX: u32 = 2 << 20;

scenarios! { v4_client:
    v311 V311 [
        messages_arrive_at_the_lower_qos,
        messages_of_one_qos_stay_in_order,
        retained_message_is_stored_replaced_and_cleared,
        will_is_published_when_the_client_is_cut_off_only,
        persistent_session_receives_what_was_published_while_away,
        shared_subscription_gives_each_message_to_one_member,
        payload_of_one_mebibyte_arrives_whole,
        unsubscribe_ends_the_delivery,
        wildcard_does_not_match_dollar_topics,
        second_connection_takes_the_session_over,
        stopped_broker_says_good_bye,
    ]
}

scenarios! { v5_client:
    v5 V5 [
        messages_arrive_at_the_lower_qos,
        messages_of_one_qos_stay_in_order,
        retained_message_is_stored_replaced_and_cleared,
        will_is_published_when_the_client_is_cut_off_only,
        delayed_will_is_cancelled_by_a_reconnect,
        persistent_session_receives_what_was_published_while_away,
        shared_subscription_gives_each_message_to_one_member,
        payload_of_one_mebibyte_arrives_whole,
        unsubscribe_ends_the_delivery,
        wildcard_does_not_match_dollar_topics,
        second_connection_takes_the_session_over,
        stopped_broker_says_good_bye,
        properties_pass_unchanged,
        request_is_answered_on_the_response_topic,
        subscription_identifiers_say_what_matched,
        subscription_options_are_kept,
    ]
}

fn v4_client() -> Client {
    Client::new(drive_v4)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not reported")]
async fn drive_v4(link: Link) {
    use rumqttc::{AsyncClient, LastWill, MqttOptions, Packet, SubscribeReasonCode};

    let Link {
        mut commands,
        events,
    } = link;
    let Some(Command::Connect(connect)) = commands.recv().await else {
        return;
    };
    let mut options = MqttOptions::new(connect.client_id, connect.host, connect.port);
    options.set_keep_alive(Duration::from_secs(connect.keep_alive.into()));
    options.set_clean_session(connect.clean);
    options.set_max_packet_size(PACKET_SIZE_MAX as usize, PACKET_SIZE_MAX as usize);
    if let Some(will) = connect.will {
        options.set_last_will(LastWill::new(
            will.topic,
            will.payload,
            v4_qos(will.qos),
            will.retain,
        ));
    }
    let (client, mut event_loop) = AsyncClient::new(options, 100);
    let requests = async {
        while let Some(command) = commands.recv().await {
            let asked = match command {
                Command::Connect(_) => panic!("connected already"),
                Command::Subscribe(to) => client.subscribe(to.filter, v4_qos(to.qos)).await,
                Command::Unsubscribe { filter } => client.unsubscribe(filter).await,
                Command::Publish(message) => {
                    let Message {
                        topic,
                        payload,
                        qos,
                        retain,
                        ..
                    } = message;
                    client.publish(topic, v4_qos(qos), retain, payload).await
                }
                Command::Disconnect { .. } => client.disconnect().await,
            };
            asked.expect("the event loop takes requests");
        }
    };
    let reports = async {
        loop {
            let event = match event_loop.poll().await {
                Ok(rumqttc::Event::Incoming(packet)) => match packet {
                    Packet::ConnAck(connack) => Event::Connected {
                        session_present: connack.session_present,
                    },
                    Packet::SubAck(suback) => Event::Subscribed {
                        code: match suback.return_codes[..] {
                            [SubscribeReasonCode::Success(qos)] => qos as u8,
                            _ => 0x80,
                        },
                    },
                    Packet::UnsubAck(_) => Event::Unsubscribed,
                    Packet::PubAck(_) | Packet::PubComp(_) => Event::Published,
                    Packet::Publish(publish) => Event::Message(Message {
                        topic: publish.topic,
                        payload: publish.payload.to_vec(),
                        qos: publish.qos as u8,
                        retain: publish.retain,
                        properties: Properties::default(),
                    }),
                    _ => continue,
                },
                // The only sign there is that a QoS 0 message left: it has no Packet Identifier.
                Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(0))) => Event::Published,
                Ok(rumqttc::Event::Outgoing(_)) => continue,
                Err(_) => {
                    let _ = events.send(Event::Disconnected { code: None });
                    return;
                }
            };
            let _ = events.send(event);
        }
    };
    tokio::select! {
        () = requests => {}
        () = reports => {}
    }
}

fn v4_qos(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("a QoS is 0, 1 or 2")
}

fn v5_client() -> Client {
    Client::new(drive_v5)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not reported")]
async fn drive_v5(link: Link) {
    use rumqttc::v5::mqttbytes::v5::{
        Filter, LastWill, LastWillProperties, Packet, RetainForwardRule, SubscribeProperties,
        SubscribeReasonCode,
    };
    use rumqttc::v5::{AsyncClient, ConnectionError, MqttOptions, StateError};

    let Link {
        mut commands,
        events,
    } = link;
    let Some(Command::Connect(connect)) = commands.recv().await else {
        return;
    };
    let mut options = MqttOptions::new(connect.client_id, connect.host, connect.port);
    options.set_keep_alive(Duration::from_secs(connect.keep_alive.into()));
    options.set_clean_start(connect.clean);
    options.set_session_expiry_interval(Some(connect.session_expiry));
    options.set_max_packet_size(Some(PACKET_SIZE_MAX));
    if let Some(will) = connect.will {
        let properties = LastWillProperties {
            delay_interval: will.properties.will_delay,
            payload_format_indicator: will.properties.payload_format,
            message_expiry_interval: will.properties.message_expiry,
            content_type: will.properties.content_type,
            response_topic: will.properties.response_topic,
            correlation_data: None,
            user_properties: will.properties.user,
        };
        let qos = v5_qos(will.qos);
        let will = LastWill::new(will.topic, will.payload, qos, will.retain, Some(properties));
        options.set_last_will(will);
    }
    let (client, mut event_loop) = AsyncClient::new(options, 100);
    let requests = async {
        while let Some(command) = commands.recv().await {
            let asked = match command {
                Command::Connect(_) => panic!("connected already"),
                Command::Subscribe(to) => {
                    let filter = Filter {
                        path: to.filter,
                        qos: v5_qos(to.qos),
                        nolocal: to.no_local,
                        preserve_retain: to.retain_as_published,
                        retain_forward_rule: match to.retain_handling {
                            0 => RetainForwardRule::OnEverySubscribe,
                            1 => RetainForwardRule::OnNewSubscribe,
                            _ => RetainForwardRule::Never,
                        },
                    };
                    match to.subscription_id {
                        None => client.subscribe_many([filter]).await,
                        Some(id) => {
                            let id = Some(id as usize);
                            let properties = SubscribeProperties {
                                id,
                                user_properties: vec![],
                            };
                            client
                                .subscribe_many_with_properties([filter], properties)
                                .await
                        }
                    }
                }
                Command::Unsubscribe { filter } => client.unsubscribe(filter).await,
                Command::Publish(message) => {
                    let Message {
                        topic,
                        payload,
                        qos,
                        retain,
                        properties,
                    } = message;
                    let (qos, properties) = (v5_qos(qos), to_rumqttc(properties));
                    client
                        .publish_with_properties(topic, qos, retain, payload, properties)
                        .await
                }
                Command::Disconnect { .. } => client.disconnect().await,
            };
            asked.expect("the event loop takes requests");
        }
    };
    let reports = async {
        loop {
            let event = match event_loop.poll().await {
                Ok(rumqttc::v5::Event::Incoming(packet)) => match packet {
                    Packet::ConnAck(connack) => Event::Connected {
                        session_present: connack.session_present,
                    },
                    Packet::SubAck(suback) => Event::Subscribed {
                        code: match suback.return_codes[..] {
                            [SubscribeReasonCode::Success(qos)] => qos as u8,
                            _ => 0x80,
                        },
                    },
                    Packet::UnsubAck(_) => Event::Unsubscribed,
                    Packet::PubAck(_) | Packet::PubComp(_) => Event::Published,
                    Packet::Publish(publish) => Event::Message(Message {
                        topic: String::from_utf8(publish.topic.to_vec()).expect("a topic is UTF-8"),
                        payload: publish.payload.to_vec(),
                        qos: publish.qos as u8,
                        retain: publish.retain,
                        properties: publish
                            .properties
                            .map_or_else(Properties::default, from_rumqttc),
                    }),
                    _ => continue,
                },
                Ok(rumqttc::v5::Event::Outgoing(rumqttc::Outgoing::Publish(0))) => Event::Published,
                Ok(rumqttc::v5::Event::Outgoing(_)) => continue,
                Err(error) => {
                    let code = match error {
                        ConnectionError::MqttState(StateError::ServerDisconnect {
                            reason_code,
                            ..
                        }) => Some(reason_code as u8),
                        _ => None,
                    };
                    let _ = events.send(Event::Disconnected { code });
                    return;
                }
            };
            let _ = events.send(event);
        }
    };
    tokio::select! {
        () = requests => {}
        () = reports => {}
    }
}

fn v5_qos(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
    rumqttc::v5::mqttbytes::qos(qos).expect("a QoS is 0, 1 or 2")
}

fn to_rumqttc(properties: Properties) -> rumqttc::v5::mqttbytes::v5::PublishProperties {
    rumqttc::v5::mqttbytes::v5::PublishProperties {
        payload_format_indicator: properties.payload_format,
        message_expiry_interval: properties.message_expiry,
        topic_alias: None,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(Into::into),
        user_properties: properties.user,
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type,
    }
}

fn from_rumqttc(properties: rumqttc::v5::mqttbytes::v5::PublishProperties) -> Properties {
    Properties {
        user: properties.user_properties,
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties
            .correlation_data
            .map(|data| String::from_utf8(data.to_vec()).expect("it was text")),
        payload_format: properties.payload_format_indicator,
        message_expiry: properties.message_expiry_interval,
        will_delay: None,
        subscription_ids: properties
            .subscription_identifiers
            .into_iter()
            .map(|id| u32::try_from(id).expect("an identifier has 28 bits"))
            .collect(),
    }
}
