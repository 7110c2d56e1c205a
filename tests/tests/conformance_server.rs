//! The built broker conforms to the standards; the cases are in `src/conformance`.

use avocet_tests::broker::Broker;
use avocet_tests::conformance::{GROUPS, Group, LIMITS, run};

/// Plays the cases of a group whose name contains `filter`.
async fn conforms(broker: Broker, group: &'static Group, filter: &'static str) {
    let address = broker.address();
    // The broker's output is read by this thread.
    let reports = tokio::task::spawn_blocking(move || run(address, [group], filter, |_| {}))
        .await
        .expect("no case panics");
    assert!(!reports.is_empty(), "no case");
    let failures: Vec<String> = reports
        .iter()
        .filter(|report| report.failure.is_some())
        .map(ToString::to_string)
        .collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

macro_rules! groups {
    ($($group:ident)+) => {
        $(
            #[tokio::test]
            async fn $group() {
                let group = GROUPS.iter().find(|group| group.name == stringify!($group));
                conforms(Broker::start().await, group.expect("the group is there"), "").await;
            }
        )+

        #[test]
        fn every_group_is_tested() {
            let tested = [$(stringify!($group)),+];
            let groups: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
            assert_eq!(tested.as_slice(), groups);
        }
    };
}

groups! { connect sessions wills publish retained subscribe qos topics shared flow malformed }

/// The cases about one limit, against a broker with this setting.
async fn limited(limit: &'static str, variable: &str, value: &str) {
    let broker = Broker::start_with(&[(variable, value)]).await;
    conforms(broker, LIMITS, limit).await;
}

#[tokio::test]
async fn with_a_maximum_qos() {
    for value in ["0", "1"] {
        limited("maximum_qos", "AVOCET_MQTT_MAXIMUM_QOS", value).await;
    }
}

#[tokio::test]
async fn without_retained_messages() {
    limited("retain_not", "AVOCET_MQTT_RETAIN_AVAILABLE", "false").await;
}

#[tokio::test]
async fn without_wildcards() {
    let variable = "AVOCET_MQTT_WILDCARD_SUBSCRIPTION_AVAILABLE";
    limited("wildcards_not", variable, "false").await;
}

#[tokio::test]
async fn without_shared_subscriptions() {
    let variable = "AVOCET_MQTT_SHARED_SUBSCRIPTION_AVAILABLE";
    limited("shared_subscriptions_not", variable, "false").await;
}

#[tokio::test]
async fn without_subscription_identifiers() {
    let variable = "AVOCET_MQTT_SUBSCRIPTION_IDS_AVAILABLE";
    limited("subscription_ids_not", variable, "false").await;
}

#[tokio::test]
async fn without_topic_aliases() {
    limited("topic_aliases_not", "AVOCET_MQTT_TOPIC_ALIAS_MAXIMUM", "0").await;
}

#[tokio::test]
async fn with_a_keep_alive_of_its_own() {
    limited("server_keep_alive", "AVOCET_MQTT_KEEP_ALIVE_MAX", "1").await;
}
