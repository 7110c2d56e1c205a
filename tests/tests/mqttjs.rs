//! MQTT.js (npm) as a client of the broker, in 3.1, 3.1.1 and 5.0.

use avocet_tests::client::Client;
use avocet_tests::{provision, scenarios};
use tokio::process::Command;

fn mqttjs() -> Client {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new("node");
    command.env("NODE_PATH", tools.node_modules);
    command.arg(provision::client_file("mqttjs/driver.js"));
    Client::program(command)
}

scenarios! { mqttjs:
    v31 V31 [
        messages_arrive_at_the_lower_qos,
        will_is_published_when_the_client_is_cut_off_only,
    ]
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
    v5 V5 [
        messages_arrive_at_the_lower_qos,
        messages_of_one_qos_stay_in_order,
        retained_message_is_stored_replaced_and_cleared,
        will_is_published_when_the_client_is_cut_off_only,
        will_with_properties_is_published_on_request,
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
