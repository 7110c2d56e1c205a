use super::*;
use crate::testing::{Authority, scratch};
use crate::{ClientCertificates, ClientTls, Roots, ServerTls, TlsAcceptor};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(60);

/// Accepts one connection, says hello over TLS, and sends back what comes until the end.
fn echo(acceptor: TlsAcceptor) -> (u16, thread::JoinHandle<Option<Vec<u8>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = listener.accept().unwrap();
        let mut connection = acceptor.accept().unwrap();
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).ok()?;
        stream.write_all(&bytes).ok()?;
        let peer = connection.peer_certificates();
        peer.map(|chain| chain[0].to_vec())
    });
    (port, thread)
}

async fn converse(endpoint: &Endpoint) -> Result<Vec<u8>, ConnectError> {
    let mut stream = endpoint.connect(LIMIT).await?;
    let failed = |source| ConnectError::Tls {
        server: String::new(),
        source,
    };
    stream.write_all(b"hello").await.map_err(failed)?;
    let mut back = vec![0; 5];
    stream.read_exact(&mut back).await.map_err(failed)?;
    Ok(back)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

#[test]
fn reaches_a_server_whose_certificate_is_trusted() {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    let server = authority.issue("localhost");
    let acceptor = TlsAcceptor::new(ServerTls {
        certificates: vec![server],
        alpn: vec![crate::ALPN_MQTT.to_vec()],
        ..ServerTls::default()
    });
    let (port, thread) = echo(acceptor.unwrap());
    let mut endpoint = Endpoint::tcp("localhost", port);
    let settings = ClientTls {
        roots: Roots::File(authority.file()),
        ..ClientTls::default()
    };
    endpoint.tls = Some(TlsConnector::new(&settings).unwrap());
    assert_eq!(run(converse(&endpoint)).unwrap(), b"hello");
    assert_eq!(thread.join().unwrap(), None);
}

#[test]
fn presents_its_certificate_where_one_is_required() {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    let server = authority.issue("localhost");
    let client = authority.issue("pump-7");
    let settings = ServerTls {
        certificates: vec![server],
        client_certificates: ClientCertificates::Required,
        client_ca: Some(authority.file()),
        ..ServerTls::default()
    };
    for certificate in [None, Some(client)] {
        let (port, thread) = echo(TlsAcceptor::new(settings.clone()).unwrap());
        let mut endpoint = Endpoint::tcp("localhost", port);
        let tls = ClientTls {
            roots: Roots::File(authority.file()),
            certificate: certificate.clone(),
            ..ClientTls::default()
        };
        endpoint.tls = Some(TlsConnector::new(&tls).unwrap());
        let answer = run(converse(&endpoint));
        let peer = thread.join().unwrap();
        assert_eq!(answer.is_ok(), certificate.is_some());
        let names = peer.map(|der| crate::CertificateNames::read(&der).unwrap());
        let names = names.and_then(|names| names.common_name);
        assert_eq!(names.as_deref(), certificate.map(|_| "pump-7"));
    }
}

#[test]
fn refuses_a_server_that_is_not_the_one_asked_for() {
    let dir = scratch();
    let (authority, other) = (Authority::new(&dir, "ca"), Authority::new(&dir, "other"));
    for (name, roots, expected) in [
        (
            "elsewhere.example",
            Roots::File(authority.file()),
            "not valid for name",
        ),
        ("localhost", Roots::File(other.file()), "UnknownIssuer"),
        ("elsewhere.example", Roots::DangerousAnybody, ""),
    ] {
        let server = ServerTls {
            certificates: vec![authority.issue(name)],
            ..ServerTls::default()
        };
        let (port, thread) = echo(TlsAcceptor::new(server).unwrap());
        let mut endpoint = Endpoint::tcp("localhost", port);
        let tls = ClientTls {
            roots,
            ..ClientTls::default()
        };
        endpoint.tls = Some(TlsConnector::new(&tls).unwrap());
        let answer = run(converse(&endpoint));
        thread.join().unwrap();
        if expected.is_empty() {
            answer.unwrap();
            continue;
        }
        let text = answer.unwrap_err().to_string();
        let start = format!("no TLS connection to localhost:{port}: ");
        assert!(
            text.starts_with(&start) && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut endpoint = Endpoint::tcp("127.0.0.1", port);
    let tls = ClientTls {
        roots: Roots::DangerousAnybody,
        ..ClientTls::default()
    };
    endpoint.tls = Some(TlsConnector::new(&tls).unwrap());
    let error = run(endpoint.connect(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn reaches_a_unix_socket_and_names_one_that_is_missing() {
    let dir = scratch();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = listener.accept().unwrap();
        let mut bytes = [0; 5];
        socket.read_exact(&mut bytes).unwrap();
        socket.write_all(&bytes).unwrap();
    });
    assert_eq!(run(converse(&Endpoint::unix(&path))).unwrap(), b"hello");
    thread.join().unwrap();
    let missing = dir.path().join("missing");
    let error = run(converse(&Endpoint::unix(&missing))).unwrap_err();
    let start = format!("cannot connect to {}: ", missing.display());
    assert!(error.to_string().starts_with(&start), "{error}");
}
