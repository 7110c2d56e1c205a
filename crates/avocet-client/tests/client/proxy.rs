//! A server behind a proxy.

use avocet_client::{Client, Config, ConnectError, Proxy, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::server::Server;
use crate::{SECOND, message};

/// The first line of what the proxy is asked, and the stream behind it.
async fn asked(listener: &TcpListener, answer: &str) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    let head = String::from_utf8(head).unwrap();
    (head.lines().next().unwrap().to_owned(), stream)
}

#[tokio::test]
async fn the_connection_goes_through_the_proxy_which_resolves_the_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (line, stream) = asked(&listener, "HTTP/1.1 200 OK\r\n\r\n").await;
        (line, Server::default().serve(stream).await)
    });
    let mut config = Config::new("broker.invalid", 1884);
    config.proxy = Some(Proxy::http("127.0.0.1", port));
    let (client, _messages) = Client::connect(config).await.unwrap();
    let published = client.publish(message("x", QoS::AtLeastOnce)).await;
    assert!(published.is_ok(), "{published:?}");
    client.disconnect(SECOND).await;
    let (line, server) = serving.await.unwrap();
    assert_eq!(line, "CONNECT broker.invalid:1884 HTTP/1.1");
    assert_eq!(server.received.len(), 1);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_the_networks_fault_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { asked(&listener, "HTTP/1.1 403 Forbidden\r\n\r\n").await });
    let mut config = Config::new("broker.invalid", 1884);
    config.proxy = Some(Proxy::http("127.0.0.1", port));
    let error = Client::connect(config).await.unwrap_err();
    assert!(matches!(error, ConnectError::Network(_)), "{error:?}");
    let expected = format!(
        "no connection to broker.invalid:1884 through http://127.0.0.1:{port}: \
         the proxy did not connect: 403"
    );
    assert_eq!(error.to_string(), expected);
}
