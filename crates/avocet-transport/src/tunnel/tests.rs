use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::net::TcpListener;

use super::*;
use crate::{ConnectError, Endpoint};

const LIMIT: Duration = Duration::from_secs(60);

fn with_user(mut proxy: Proxy) -> Proxy {
    proxy.user = Some(("us er".to_owned(), "pass:wörd".to_owned()));
    proxy
}

fn http() -> Proxy {
    Proxy::http("proxy", 8080)
}

fn socks() -> Proxy {
    Proxy::socks5("proxy", 1080)
}

/// What is sent, if each of these answers comes in parts of so many bytes; an error ends it. The
/// last answer is followed by bytes of the server, which are left alone.
fn converse(
    proxy: &Proxy,
    host: &str,
    answers: &[&[u8]],
    part: usize,
) -> Result<Vec<Vec<u8>>, TunnelError> {
    let mut agreement = Agreement::new(proxy, host, 1883)?;
    let mut sent = Vec::new();
    for answer in answers {
        sent.push(agreement.take_output());
        let mut left = [answer, &b"server"[..]].concat();
        while !agreement.is_done() && left.len() > 6 {
            let end = part.min(left.len());
            let used = agreement.handle_input(&left[..end])?;
            assert!(used > 0);
            left.drain(..used);
            if !agreement.output.is_empty() {
                break;
            }
        }
        assert_eq!(left, b"server");
    }
    assert!(agreement.is_done());
    Ok(sent)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn http_is_asked_for_names_and_addresses() {
    let answer: &[u8] = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n";
    for part in 1..=answer.len() + 6 {
        let sent = converse(&http(), "broker.example", &[answer], part).unwrap();
        assert_eq!(
            text(&sent[0]),
            "CONNECT broker.example:1883 HTTP/1.1\r\nHost: broker.example:1883\r\n\r\n"
        );
    }
    let mut proxy = http();
    proxy.user = Some(("a:b".to_owned(), "c".to_owned()));
    let sent = converse(&proxy, "::1", &[answer], 1);
    let expected = Err(TunnelError::NotCarried);
    assert_eq!(sent, expected, "a colon ends the user name");
    proxy.user = Some(("user".to_owned(), "pass:word".to_owned()));
    let sent = converse(&proxy, "::1", &[answer], 1).unwrap();
    assert_eq!(
        text(&sent[0]),
        "CONNECT [::1]:1883 HTTP/1.1\r\nHost: [::1]:1883\r\n\
         Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=\r\n\r\n"
    );
}

#[test]
fn socks_is_asked_for_names_and_addresses() {
    let method: &[u8] = &[5, 0];
    let replies: [&[u8]; 3] = [
        &[5, 0, 0, 1, 127, 0, 0, 1, 0, 80],
        &[5, 0, 0, 3, 2, b'a', b'b', 0, 80],
        &[
            5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80,
        ],
    ];
    let requests: [(&str, &[u8]); 3] = [
        ("b.example", b"\x05\x01\x00\x03\x09b.example\x07\x5b"),
        ("10.1.2.3", b"\x05\x01\x00\x01\x0a\x01\x02\x03\x07\x5b"),
        (
            "::1",
            b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x07\x5b",
        ),
    ];
    for reply in replies {
        for (host, request) in requests {
            for part in 1..30 {
                let sent = converse(&socks(), host, &[method, reply], part).unwrap();
                assert_eq!(sent, [&[5, 1, 0][..], request], "{host}");
            }
        }
    }
    let proxy = with_user(socks());
    let sent = converse(&proxy, "b", &[&[5, 2], &[1, 0], replies[0]], 1).unwrap();
    assert_eq!(sent[0], [5, 2, 0, 2]);
    assert_eq!(text(&sent[1]), "\u{1}\u{5}us er\u{a}pass:wörd");
    // It may want no password after all.
    let sent = converse(&proxy, "b", &[method, replies[0]], 1).unwrap();
    assert_eq!(sent.len(), 2);
}

#[test]
fn refusals_and_other_answers_have_their_errors() {
    use TunnelError::{Malformed, NotAuthenticated, NotConnected, TooLong};
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(9000));
    let http_answers: [(&str, TunnelError); 6] = [
        ("HTTP/1.1 407 Who\r\n\r\n", NotAuthenticated),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", NotConnected(502)),
        (
            "HTTP/1.1 302 Elsewhere\r\nLocation: x\r\n\r\n",
            NotConnected(302),
        ),
        ("\x05\x00", Malformed),
        (&many, TooLong),
        (&long, TooLong),
    ];
    for (answer, expected) in http_answers {
        let outcome = converse(&http(), "b", &[answer.as_bytes()], 7);
        assert_eq!(outcome, Err(expected), "{answer}");
    }
    let socks_answers: [(&[&[u8]], TunnelError); 9] = [
        (&[b"HTTP/1.1 400 Bad\r\n"], Malformed),
        (&[&[4, 0]], Malformed),
        (&[&[5, 0xff]], NotAuthenticated),
        // A method that was not offered.
        (&[&[5, 1]], Malformed),
        (&[&[5, 0], &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]], NotConnected(5)),
        (&[&[5, 0], &[5, 2, 0]], NotConnected(2)),
        (&[&[5, 0], &[5, 0, 0, 9, 0]], Malformed),
        (&[&[5, 0], &[5, 0, 1, 1, 0, 0, 0, 0, 0, 0]], Malformed),
        (&[&[5, 0], &[4, 0, 0, 1, 0, 0, 0, 0, 0, 0]], Malformed),
    ];
    for (answers, expected) in socks_answers {
        let outcome = converse(&socks(), "b", answers, 1);
        assert_eq!(outcome, Err(expected), "{answers:?}");
    }
    let outcome = converse(&with_user(socks()), "b", &[&[5, 2], &[1, 1]], 1);
    assert_eq!(outcome, Err(NotAuthenticated));
    let outcome = converse(&socks(), "b", &[&[5, 2]], 1);
    assert_eq!(outcome, Err(Malformed), "there is no password to ask for");
}

#[test]
fn what_a_protocol_cannot_carry_is_not_sent() {
    for host in ["", "a b", "a\r\nX: y", "a@b", "a/b", &"x".repeat(256)] {
        let http = Agreement::new(&http(), host, 1).map(drop);
        assert_eq!(http, Err(TunnelError::NotCarried), "{host:?}");
    }
    for host in ["", &"x".repeat(256)] {
        let socks = Agreement::new(&socks(), host, 1).map(drop);
        assert_eq!(socks, Err(TunnelError::NotCarried), "{host:?}");
    }
    for (name, password) in [("a\r\nb", "c"), ("a", "b\nc")] {
        let mut proxy = http();
        proxy.user = Some((name.to_owned(), password.to_owned()));
        assert!(Agreement::new(&proxy, "b", 1).is_err());
    }
    for (name, password) in [("", "c"), ("a", ""), ("a", &*"x".repeat(256))] {
        let mut proxy = socks();
        proxy.user = Some((name.to_owned(), password.to_owned()));
        assert!(Agreement::new(&proxy, "b", 1).is_err());
    }
}

proptest! {
    /// Whatever a proxy says, in whatever parts, it is an error or an end, and little is kept.
    #[test]
    fn any_answer_is_taken_or_refused(
        is_http in any::<bool>(),
        mut answer in prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbehind".to_vec()),
            Just([&[5, 2, 1, 0, 5, 0, 0, 3, 2][..], b"ab\0\x50behind"].concat()),
            proptest::collection::vec(any::<u8>(), 0..600),
        ],
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        part in 1_usize..40,
    ) {
        for (index, byte) in changes {
            if !answer.is_empty() {
                let index = index.index(answer.len());
                answer[index] = byte;
            }
        }
        let mut proxy = if is_http { http() } else { socks() };
        proxy.user = Some(("a".to_owned(), "b".to_owned()));
        let mut agreement = Agreement::new(&proxy, "b", 1).unwrap();
        let mut left = answer.as_slice();
        while !left.is_empty() && !agreement.is_done() {
            agreement.take_output();
            let end = part.min(left.len());
            let Ok(used) = agreement.handle_input(&left[..end]) else {
                break;
            };
            prop_assert!((1..=end).contains(&used));
            left = &left[used..];
            prop_assert!(agreement.input.len() <= 8 << 10);
        }
    }
}

#[test]
fn a_url_names_a_proxy() {
    let proxy = Proxy::from_url("http://us%40er:p%3Ass@proxy.example:3128/").unwrap();
    let mut expected = Proxy::http("proxy.example", 3128);
    expected.user = Some(("us@er".to_owned(), "p:ss".to_owned()));
    assert_eq!(proxy, expected);
    assert!(!format!("{proxy:?} {proxy}").contains("ss@"));
    assert!(!format!("{proxy:?} {proxy}").contains("p:ss"));
    for (url, expected) in [
        ("proxy", Proxy::http("proxy", 8080)),
        ("proxy:1", Proxy::http("proxy", 1)),
        ("socks5://[::1]", Proxy::socks5("::1", 1080)),
        ("socks5h://p:9", Proxy::socks5("p", 9)),
    ] {
        assert_eq!(Proxy::from_url(url), Ok(expected), "{url}");
    }
    for (url, expected) in [
        ("https://p", ProxyUrlError::Scheme),
        ("http://", ProxyUrlError::Host),
        ("http://u@:1", ProxyUrlError::Host),
        ("http://p:x", ProxyUrlError::Port),
        ("http://p:70000", ProxyUrlError::Port),
        ("http://%4@p", ProxyUrlError::Escape),
        ("http://%+1@p", ProxyUrlError::Escape),
        ("http://%ff@p", ProxyUrlError::Escape),
    ] {
        assert_eq!(Proxy::from_url(url), Err(expected), "{url}");
    }
}

#[test]
fn the_environment_names_a_proxy_and_exceptions() {
    let from = |pairs: &[(&str, &str)]| {
        let pairs: HashMap<_, _> = pairs.iter().copied().collect();
        Proxy::from_variables(|name| pairs.get(name).map(|value| (*value).to_owned()))
    };
    assert_eq!(from(&[]), Ok(None));
    assert_eq!(from(&[("ALL_PROXY", " ")]), Ok(None));
    assert_eq!(from(&[("all_proxy", "p:1")]), Ok(Some(Proxy::http("p", 1))));
    let bad = from(&[("ALL_PROXY", "ftp://p")]);
    assert_eq!(bad, Err(ProxyUrlError::Scheme));
    let except = "localhost, .example.org,10.0.0.0/8,::1";
    let proxy = from(&[("ALL_PROXY", "socks5://p"), ("NO_PROXY", except)]);
    let proxy = proxy.unwrap().unwrap();
    for (host, expected) in [
        ("broker.example.org", false),
        ("EXAMPLE.org", false),
        ("badexample.org", true),
        ("org", true),
        ("10.200.0.1", false),
        ("11.0.0.1", true),
        ("::1", false),
        ("localhost", false),
        ("é.example.org", false),
        ("é", true),
    ] {
        assert_eq!(proxy.is_for(host), expected, "{host}");
    }
    let mut nobody = http();
    nobody.except = vec!["*".to_owned()];
    assert!(!nobody.is_for("10.0.0.1"));
}

/// A small proxy for one connection, which knows one name; what it was asked for.
async fn serve(listener: TcpListener, server: u16, is_http: bool) -> String {
    let (mut client, _) = listener.accept().await.unwrap();
    let asked = if is_http {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\n\r\n";
        client.write_all(answer).await.unwrap();
        text(&head).lines().next().unwrap().to_owned()
    } else {
        let mut greeting = [0; 4];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, [5, 2, 0, 2]);
        client.write_all(&[5, 2]).await.unwrap();
        let mut login = [0; 7];
        client.read_exact(&mut login).await.unwrap();
        assert_eq!(&login, b"\x01\x02me\x02pw");
        client.write_all(&[1, 0]).await.unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).await.unwrap();
        let mut name = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut name).await.unwrap();
        let reply = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        client.write_all(&reply).await.unwrap();
        text(&name[..name.len() - 2])
    };
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    asked
}

/// The server speaks first here, so that what it says may come with the last answer.
#[tokio::test]
async fn a_server_is_reached_through_a_proxy_that_resolves_its_name() {
    for is_http in [true, false] {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().port();
        let proxy = tokio::spawn(serve(listener, port, is_http));
        let mut endpoint = Endpoint::tcp("broker.invalid", 1883);
        let mut through = if is_http {
            Proxy::http("127.0.0.1", at)
        } else {
            Proxy::socks5("127.0.0.1", at)
        };
        through.user = Some(("me".to_owned(), "pw".to_owned()));
        endpoint.proxy = Some(through);
        let answering = async {
            let (mut stream, _) = server.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            bytes
        };
        let asking = async {
            let mut stream = endpoint.connect(LIMIT).await.unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"hello");
            stream.write_all(b"world").await.unwrap();
        };
        let (bytes, ()) = tokio::join!(answering, asking);
        assert_eq!(&bytes, b"world");
        let asked = proxy.await.unwrap();
        assert!(asked.contains("broker.invalid"), "{asked}");
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_or_half_of_it_is_an_error_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut endpoint = Endpoint::tcp("broker.invalid", 1883);
    endpoint.proxy = Some(Proxy::socks5("127.0.0.1", port));
    let source = |connected: Result<_, ConnectError>| match connected.map(drop) {
        Err(ConnectError::Proxy { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };
    // It takes the connection into its backlog, and says nothing.
    let connected = endpoint.connect(Duration::from_millis(20)).await;
    assert_eq!(source(connected), io::ErrorKind::TimedOut);
    drop(listener.accept().await.unwrap());
    let (connected, ()) = tokio::join!(endpoint.connect(LIMIT), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(&[5]).await.unwrap();
    });
    assert_eq!(source(connected), io::ErrorKind::UnexpectedEof);
}
