//! Requests, and the client for programs without a runtime.

use avocet_client::{
    Client, Message, QoS, RequestError, Requester, TopicFilter, TopicName, blocking,
};
use avocet_testing::Broker;

use crate::SECOND;

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_find_their_responses_whatever_the_order() {
    let broker = Broker::start();
    let (server, _rest) = Client::connect(broker.config("server")).await.unwrap();
    let mut requests = server
        .stream((filter("add"), QoS::AtLeastOnce))
        .await
        .unwrap();
    let serving = async move {
        let first = requests.next().await.unwrap();
        let second = requests.next().await.unwrap();
        for request in [second, first] {
            let response = request.response(&[request.payload(), b"!"].concat());
            server.publish(response.unwrap()).await.unwrap();
        }
        // The third one is not answered.
        drop(requests.next().await);
    };
    let serving = tokio::spawn(serving);
    let (client, _rest) = Client::connect(broker.config("client")).await.unwrap();
    let requester = Requester::new(&client, name("responses/client"))
        .await
        .unwrap();
    let (one, two) = tokio::join!(
        requester.request(name("add"), b"1", 5 * SECOND),
        requester.request(name("add"), b"2", 5 * SECOND),
    );
    assert_eq!(one.unwrap().payload(), b"1!");
    assert_eq!(two.unwrap().payload(), b"2!");
    let late = requester.request(name("add"), b"3", 5 * SECOND).await;
    assert_eq!(late.unwrap_err(), RequestError::TimedOut);
    serving.await.unwrap();
    let stray = Message::new(name("responses/client"), b"stray");
    assert!(stray.properties().response_topic().is_none());
    client.publish(stray).await.unwrap();
    client.disconnect(SECOND).await;
}

#[test]
fn a_program_without_a_runtime_publishes_and_receives() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (sender, broker) = std::sync::mpsc::channel();
    let serving = std::thread::spawn(move || {
        runtime.block_on(async {
            sender.send(Broker::start()).unwrap();
            let _ = stopped.await;
        });
    });
    let broker = broker.recv().unwrap();
    let mut client = blocking::Client::connect(broker.config("script")).unwrap();
    client.subscribe((filter("t"), QoS::AtLeastOnce)).unwrap();
    let message = Message::new(name("t"), b"x").with_qos(QoS::AtLeastOnce);
    client.publish(message).unwrap();
    assert_eq!(client.receive().unwrap().payload(), b"x");
    assert!(
        client
            .receive_timeout(std::time::Duration::ZERO)
            .unwrap()
            .is_none()
    );
    client.disconnect(SECOND);
    drop(stop);
    serving.join().unwrap();
}
