use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::testing::{Authority, Scratch, scratch};
use crate::{ALPN_MQTT, ClientCertificates, ClientStream, ClientTls, Roots, ServerTls};

const DEADLINE: Duration = Duration::from_secs(60);

type Established = Result<QuicStream, HandshakeError>;

struct Server {
    listener: QuicListener,
    acceptor: Arc<TlsAcceptor>,
    port: u16,
}

impl Server {
    fn open(settings: ServerTls) -> Self {
        let settings = ServerTls {
            alpn: vec![ALPN_MQTT.to_vec()],
            ..settings
        };
        let acceptor = Arc::new(TlsAcceptor::new(settings).unwrap());
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let listener = QuicListener::new(socket, Arc::clone(&acceptor), 10, None).unwrap();
        Self {
            listener,
            acceptor,
            port,
        }
    }

    async fn arrival(&mut self) -> QuicArrival {
        self.listener.accept().await.unwrap().unwrap()
    }

    /// Both ends of a new connection, over which the client has sent a byte.
    async fn meet(
        &mut self,
        client: &ClientTls,
    ) -> (Result<ClientStream, ConnectError>, Established) {
        self.meet_again(&TlsConnector::new(client).unwrap()).await
    }

    /// The same, with a client that resumes its session if it has one.
    async fn meet_again(
        &mut self,
        client: &TlsConnector,
    ) -> (Result<ClientStream, ConnectError>, Established) {
        let connecting = begin(client.clone(), self.port);
        let established = self.arrival().await.establish().await;
        (connecting.await.unwrap(), established)
    }

    /// Whom the certificate of a client names, which gets a ticket; or why it is refused.
    async fn know(&mut self, client: &TlsConnector) -> Result<String, String> {
        let (stream, established) = self.meet_again(client).await;
        let served = established.map_err(|error| error.to_string())?;
        let names = served.peer_names().unwrap();
        let (_reader, mut writer) = served.split();
        writer.write(Bytes::from_static(b"+")).await.unwrap();
        // What lies before it, the ticket, has come too.
        assert_eq!(stream.unwrap().read_u8().await.unwrap(), b'+');
        Ok(names.common_name.unwrap())
    }
}

fn begin(tls: TlsConnector, port: u16) -> JoinHandle<Result<ClientStream, ConnectError>> {
    tokio::spawn(async move {
        let endpoint = crate::Endpoint::quic("localhost", port, tls);
        let mut stream = endpoint.connect(DEADLINE).await?;
        // What the server refuses is told by reading.
        let _ = stream.write_all(b"-").await;
        Ok(stream)
    })
}

fn files(dir: &Scratch) -> (Authority, ServerTls, ClientTls) {
    let authority = Authority::new(dir, "ca");
    let server = ServerTls {
        certificates: vec![authority.issue("localhost")],
        ..ServerTls::default()
    };
    let client = ClientTls {
        roots: Roots::File(authority.file()),
        ..ClientTls::default()
    };
    (authority, server, client)
}

#[tokio::test]
async fn bytes_cross_in_both_directions_and_none_is_lost_at_the_end() {
    let dir = scratch();
    let (_, server, client) = files(&dir);
    let mut server = Server::open(server);
    let (client, established) = server.meet(&client).await;
    let (mut client, mut served) = (client.unwrap(), established.unwrap());
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 3) as u8).collect();
    let (expected, answer) = (sent.clone(), sent.clone());
    let talk = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        // Its direction has ended, and the connection with it.
    });
    let mut received = Vec::new();
    served.read_to_end(&mut received).await.unwrap();
    assert!(received == [b"-", &*expected].concat());
    talk.await.unwrap();

    let (client, established) = server.meet(&files_of(&dir)).await;
    let (mut client, served) = (client.unwrap(), established.unwrap());
    let (_reader, mut writer) = served.split();
    tokio::spawn(async move {
        writer.write(answer.into()).await.unwrap();
        // Dropped with nothing acknowledged: what was written arrives.
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
}

fn files_of(dir: &Scratch) -> ClientTls {
    ClientTls {
        roots: Roots::File(dir.path().join("ca.pem")),
        ..ClientTls::default()
    }
}

#[tokio::test]
async fn who_does_not_speak_mqtt_is_refused() {
    let dir = scratch();
    let (_, server, client) = files(&dir);
    let mut server = Server::open(server);
    for alpn in [vec![b"h3".to_vec()], Vec::new()] {
        let client = ClientTls {
            alpn,
            ..client.clone()
        };
        let (refused, established) = server.meet(&client).await;
        let error = refused.unwrap_err().to_string();
        assert!(
            error.starts_with("no TLS connection to localhost:"),
            "{error}"
        );
        assert!(
            error.contains("application protocol") || error.contains("known protocol"),
            "{error}"
        );
        let error = established.unwrap_err().to_string();
        assert!(error.starts_with("QUIC: "), "{error}");
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to() {
    let dir = scratch();
    let (_, server, mut client) = files(&dir);
    let mut server = Server::open(server);
    client.roots = Roots::File(Authority::new(&dir, "other").file());
    let (refused, established) = server.meet(&client).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(established.is_err());
}

#[tokio::test]
async fn a_client_without_a_certificate_that_is_required_is_refused() {
    let dir = scratch();
    let (authority, mut settings, client) = files(&dir);
    settings.client_certificates = ClientCertificates::Required;
    settings.client_ca = Some(authority.file());
    let mut server = Server::open(settings);
    let (stream, established) = server.meet(&client).await;
    let error = established.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // In TLS 1.3 the client hears of it after its own end of the handshake.
    if let Ok(mut stream) = stream {
        let error = stream.read_u8().await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let client = ClientTls {
        certificate: Some(authority.issue("pump-7")),
        ..client
    };
    let client = TlsConnector::new(&client).unwrap();
    assert_eq!(server.know(&client).await.as_deref(), Ok("pump-7"));
}

#[tokio::test]
async fn revoked_certificates_and_removed_authorities_end_sessions_that_could_be_resumed() {
    let dir = scratch();
    let (authority, mut settings, client) = files(&dir);
    let own = settings.certificates[0].clone();
    let (next, stranger) = (
        Authority::new(&dir, "next"),
        Authority::new(&dir, "stranger"),
    );
    let trusted = dir.path().join("trusted.pem");
    std::fs::copy(authority.file(), &trusted).unwrap();
    settings.client_certificates = ClientCertificates::Required;
    settings.client_ca = Some(trusted.clone());
    settings.client_crl = Some(authority.revoke(&[]));
    let mut server = Server::open(settings);
    let connector = |certificate| {
        let certificate = Some(certificate);
        let client = ClientTls {
            certificate,
            ..client.clone()
        };
        TlsConnector::new(&client).unwrap()
    };
    let [pump, fan] = ["pump-7", "fan-1"].map(|name| connector(authority.issue(name)));
    assert_eq!(server.know(&pump).await.as_deref(), Ok("pump-7"));
    assert_eq!(server.know(&fan).await.as_deref(), Ok("fan-1"));

    // Where the server presents what the clients do not trust, only a session that is resumed is left.
    let keep = |pair: &(PathBuf, PathBuf)| [&pair.0, &pair.1].map(|it| std::fs::read(it).unwrap());
    let put = |[certificate, key]: [Vec<u8>; 2]| {
        std::fs::write(&own.0, certificate).unwrap();
        std::fs::write(&own.1, key).unwrap();
    };
    let mine = keep(&own);
    put(keep(&stranger.issue("localhost")));
    server.acceptor.reload().unwrap();
    assert_eq!(server.know(&pump).await.as_deref(), Ok("pump-7"), "resumed");
    let anew = connector(authority.issue("pump-7"));
    assert!(server.know(&anew).await.is_err(), "not resumed");
    put(mine);

    authority.revoke(&["pump-7"]);
    server.acceptor.reload().unwrap();
    let error = server.know(&pump).await.unwrap_err();
    assert!(
        error.contains("Revoked") || error.contains("revoked"),
        "{error}"
    );
    assert_eq!(server.know(&fan).await.as_deref(), Ok("fan-1"));

    std::fs::copy(next.file(), &trusted).unwrap();
    server.acceptor.reload().unwrap();
    let error = server.know(&fan).await.unwrap_err();
    assert!(
        error.contains("UnknownIssuer") || error.contains("unknown"),
        "{error}"
    );
    let valve = connector(next.issue("valve-3"));
    assert_eq!(server.know(&valve).await.as_deref(), Ok("valve-3"));
}

#[tokio::test]
async fn a_renewed_certificate_is_for_connections_that_begin_after_it() {
    let dir = scratch();
    let (_, settings, client) = files(&dir);
    let pair = settings.certificates[0].clone();
    let mut server = Server::open(settings);
    let (first, established) = server.meet(&client).await;
    let (mut first, mut served) = (first.unwrap(), established.unwrap());
    let other = Authority::new(&dir, "next");
    let renewed = other.issue("localhost");
    std::fs::copy(renewed.0, pair.0).unwrap();
    std::fs::copy(renewed.1, pair.1).unwrap();
    server.acceptor.reload().unwrap();
    let (refused, established) = server.meet(&client).await;
    assert!(refused.is_err() && established.is_err());
    let client = ClientTls {
        roots: Roots::File(other.file()),
        ..client
    };
    let (second, established) = server.meet(&client).await;
    assert!(second.is_ok() && established.is_ok());
    first.write_all(b"x").await.unwrap();
    let mut bytes = [0; 2];
    served.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"-x");
}

#[tokio::test]
async fn a_connection_has_one_stream() {
    let dir = scratch();
    let (_, settings, client) = files(&dir);
    let mut server = Server::open(settings);
    let tls = TlsConnector::new(&client).unwrap();
    let crypto = QuicClientConfig::try_from(Arc::clone(tls.config())).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = ([127, 0, 0, 1], server.port).into();
    let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
    let talk = tokio::spawn(async move {
        let connection = connecting.await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"-").await.unwrap();
        // There is no credit for another one, in one direction or both.
        assert!(poll_once(connection.open_bi()).await.is_pending());
        assert!(poll_once(connection.open_uni()).await.is_pending());
        connection
    });
    let served = server.arrival().await.establish().await.unwrap();
    let connection = talk.await.unwrap();
    assert!(connection.close_reason().is_none());
    drop(served);
}

async fn poll_once(future: impl Future) -> Poll<()> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).map(drop))).await
}

#[tokio::test]
async fn who_is_to_show_that_he_is_there_comes_again() {
    let dir = scratch();
    let (_, settings, client) = files(&dir);
    let mut server = Server::open(settings);
    let connecting = begin(TlsConnector::new(&client).unwrap(), server.port);
    let arrival = server.arrival().await;
    assert!(!arrival.is_validated());
    arrival.validate();
    let arrival = server.arrival().await;
    assert!(arrival.is_validated());
    assert!(arrival.peer().ip().is_loopback());
    assert!(arrival.establish().await.is_ok());
    assert!(connecting.await.unwrap().is_ok());

    let connecting = begin(TlsConnector::new(&client).unwrap(), server.port);
    server.arrival().await.refuse();
    let error = connecting.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("cannot connect to localhost:"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = bind(first.local_addr().unwrap()).unwrap_err();
    assert!(error.to_string().contains("uses port"), "{error}");
}
