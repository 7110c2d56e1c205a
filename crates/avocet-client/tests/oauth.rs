//! Tokens from an authorization server, over HTTP on this machine.
#![cfg(feature = "oauth")]
#![allow(clippy::unwrap_used, reason = "what fails here is to fail the test")]

use std::error::Error;
use std::time::Duration;

use avocet_client::{
    ClientAuthentication, ClientCredentials, CredentialsSource, OAuthError, Proxy,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// An authorization server that gives these answers, one for each connection; what it was asked.
async fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/oauth/token?x=1", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let is_whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    return false;
                };
                let head = head.to_lowercase();
                let (_, rest) = head.split_once("content-length: ").unwrap();
                body.len() == rest.lines().next().unwrap().parse::<usize>().unwrap()
            };
            while !is_whole(&request) {
                request.push(stream.read_u8().await.unwrap());
            }
            asked.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (url, serving)
}

fn answer(status: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
}

fn granted(token: &str, expires_in: &str) -> String {
    let body = format!(r#"{{"access_token":"{token}","token_type":"bearer"{expires_in}}}"#);
    answer("200 OK", &body)
}

async fn ask(source: &mut CredentialsSource) -> Result<String, Box<OAuthError>> {
    match source().await {
        Ok(given) => {
            assert_eq!(given.user_name.as_deref(), Some("device"));
            Ok(String::from_utf8(given.password.unwrap().to_vec()).unwrap())
        }
        Err(error) => Err((error as Box<dyn Error>).downcast().unwrap()),
    }
}

fn credentials(url: String) -> ClientCredentials {
    let mut credentials = ClientCredentials::new(url, "a client", "s&cret:ä");
    credentials.user_name = Some("device".into());
    credentials
}

/// Time passes for the source alone, not for what goes through sockets.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_is_used_until_it_is_about_to_expire() {
    let answers = vec![
        granted("one", r#","expires_in":3600"#),
        granted("two", r#","expires_in":"3600""#),
        granted("three", ""),
        granted("four", ""),
    ];
    let (url, server) = server(answers).await;
    let mut credentials = credentials(url);
    credentials.scope = Some("read write".into());
    credentials.parameters = vec![("audience".into(), "https://mqtt.example/".into())];
    let mut source = credentials.into_source().unwrap();
    assert_eq!(ask(&mut source).await.unwrap(), "one");
    for _ in 0..3 {
        pass(1000 * SECOND).await;
        assert_eq!(ask(&mut source).await.unwrap(), "one");
    }
    // Less than a minute is left.
    pass(541 * SECOND).await;
    assert_eq!(ask(&mut source).await.unwrap(), "two");
    // Whoever asks at once was refused.
    pass(5 * SECOND).await;
    assert_eq!(ask(&mut source).await.unwrap(), "three");
    // Without a lifetime it is for one connection.
    pass(60 * SECOND).await;
    assert_eq!(ask(&mut source).await.unwrap(), "four");
    let asked = server.await.unwrap();
    let (head, body) = asked[0].split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /oauth/token?x=1 HTTP/1.1\r\n"),
        "{head}"
    );
    // `a+client:s%26cret%3A%C3%A4`, as forms write both.
    let basic = "Basic YStjbGllbnQ6cyUyNmNyZXQlM0ElQzMlQTQ=";
    assert!(head.contains(basic), "{head}");
    assert_eq!(
        body,
        "grant_type=client_credentials&scope=read+write&audience=https%3A%2F%2Fmqtt.example%2F"
    );
}

#[tokio::test]
async fn the_secret_may_be_among_the_parameters() {
    let (url, server) = server(vec![granted("t", "")]).await;
    let mut credentials = credentials(url);
    assert!(!format!("{credentials:?}").contains("s&cret"));
    credentials.authentication = ClientAuthentication::Parameters;
    let mut source = credentials.into_source().unwrap();
    assert_eq!(ask(&mut source).await.unwrap(), "t");
    let asked = server.await.unwrap();
    let (head, body) = asked[0].split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    let expected = "&client_id=a+client&client_secret=s%26cret%3A%C3%A4";
    assert!(body.ends_with(expected), "{body}");
}

#[tokio::test]
async fn what_is_no_token_is_an_error_that_says_why() {
    let refusal = r#"{"error":"invalid_client","error_description":"who\u000ais that?"}"#;
    let long = "x".repeat(70_000);
    let cases = [
        (
            answer("401 Unauthorized", refusal),
            "401: invalid_client, whois that?",
        ),
        (answer("500 Oops", "<html>"), "refused a token: 500"),
        (answer("302 Found", ""), "refused a token: 302"),
        (answer("200 OK", "{}"), "no bearer token"),
        (answer("200 OK", "not json"), "no bearer token"),
        (
            answer("200 OK", r#"{"access_token":"a","token_type":"mac"}"#),
            "no bearer token",
        ),
        (
            answer("200 OK", r#"{"access_token":"","token_type":"Bearer"}"#),
            "no bearer token",
        ),
        (answer("200 OK", &long), "does not answer"),
        (
            format!("HTTP/1.1 200 OK\r\nA: {long}\r\n\r\n"),
            "does not answer",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into(),
            "does not answer",
        ),
        ("SSH-2.0\r\n".into(), "does not answer"),
        (String::new(), "does not answer"),
    ];
    for (answer, expected) in cases {
        let (url, server) = server(vec![answer]).await;
        let mut source = credentials(url).into_source().unwrap();
        let error = ask(&mut source).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
        drop(server);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut credentials = credentials(url);
    credentials.timeout = Duration::from_millis(20);
    let mut source = credentials.into_source().unwrap();
    let error = ask(&mut source).await.unwrap_err();
    assert!(matches!(*error, OAuthError::TimedOut(_)), "{error:?}");
    drop(listener);
    let error = ask(&mut source).await.unwrap_err();
    assert!(matches!(*error, OAuthError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn a_proxy_connects_to_the_authorization_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::http("127.0.0.1", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await.unwrap();
        line
    });
    let mut credentials = credentials("https://login.invalid/token".into());
    credentials.proxy = Some(proxy);
    let mut source = credentials.into_source().unwrap();
    let error = ask(&mut source).await.unwrap_err();
    assert!(matches!(*error, OAuthError::Connect(_)), "{error:?}");
    let line = serving.await.unwrap();
    assert_eq!(line, b"CONNECT login.invalid:443 HTTP/1.1\r\n");
}

#[test]
fn a_secret_is_not_sent_in_the_clear_to_other_machines() {
    for url in [
        "http://login.example/token",
        "http://127.0.0.1.example/token",
        "ftp://login.example/token",
        "login.example/token",
        "https://",
        "https://u@login.example/",
        "https://login.example:x/",
        "https://login.example/a b",
        "https://login.example/a\r\nX: y",
    ] {
        let source = credentials(url.into()).into_source();
        assert!(matches!(source, Err(OAuthError::Url)), "{url}");
    }
    for url in [
        "http://localhost/t",
        "http://[::1]:80",
        "https://login.example",
    ] {
        assert!(credentials(url.into()).into_source().is_ok(), "{url}");
    }
}
