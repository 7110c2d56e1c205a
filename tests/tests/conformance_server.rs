//! The built broker conforms to the standards; the cases are in `src/conformance`.

use avocet_tests::broker::Broker;
use avocet_tests::conformance::{GROUPS, run};

/// Plays the cases of one group against a broker of their own.
async fn conforms(group: &'static str) {
    let broker = Broker::start().await;
    let address = broker.address();
    let groups = GROUPS.iter().filter(move |it| it.name == group);
    // The broker's output is read by this thread.
    let reports = tokio::task::spawn_blocking(move || run(address, groups, "", |_| {}))
        .await
        .expect("no case panics");
    assert!(!reports.is_empty(), "no group is called {group}");
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
                conforms(stringify!($group)).await;
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
