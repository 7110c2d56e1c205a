//! What lies between the command line's server and MQTT: TLS, WebSocket, QUIC, Unix sockets.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use avocet_client::{Address, ByteStream, ConnectError, Connector};
use avocet_transport::{
    ALPN_HTTP, ALPN_MQTT, ClientTls, Endpoint, Roots, TlsConnector, TlsVersion, WebSocketClient,
};
use clap::Args;

use crate::exit::Failure;
use crate::url::{Scheme, Url};

/// How the server is reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Transport")]
pub(crate) struct TransportArgs {
    /// Speak TLS, and trust the authorities that this system trusts; the port is 8883 then
    #[arg(long)]
    pub(crate) tls: bool,
    /// Speak TLS, and trust the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) cafile: Option<PathBuf>,
    /// Present the certificate in this PEM file
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, in this PEM file
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The name that the server's certificate must have, if it is not that of the host
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// The oldest version of TLS: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", value_parser = tls_version)]
    pub(crate) tls_version: Option<TlsVersion>,
    /// DANGEROUS: speak TLS with anybody who answers, whatever his certificate. Passwords and
    /// messages may go to an attacker. For tests
    #[arg(long, conflicts_with_all = ["cafile", "server_name"])]
    pub(crate) insecure: bool,
    /// Speak WebSocket, as with -L ws://HOST:PORT/mqtt
    #[arg(long)]
    pub(crate) ws: bool,
    /// Connect to this Unix socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port", "url"])]
    pub(crate) unix: Option<PathBuf>,
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text.strip_prefix("tlsv").unwrap_or(text) {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err("allowed are 1.2 and 1.3".into()),
    }
}

/// How the server is reached, read and checked; no file was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) place: Place,
    tls: Option<ClientTls>,
    websocket: Option<WebSocketClient>,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        host: String,
        port: u16,
    },
    /// Over QUIC.
    Udp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Udp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Transport {
    /// Reads the arguments.
    pub(crate) fn new(
        args: &TransportArgs,
        host: &str,
        port: Option<u16>,
        url: Option<&Url>,
    ) -> Self {
        let scheme = url.map_or(Scheme::Mqtt, |url| url.scheme);
        let websocket = args.ws || matches!(scheme, Scheme::Ws | Scheme::Wss);
        let tls = args.is_tls() || matches!(scheme, Scheme::Mqtts | Scheme::Wss | Scheme::Quic);
        let unix = url.and_then(|url| url.socket.as_deref().map(Path::to_owned));
        let place = match args.unix.clone().or(unix) {
            Some(path) => Place::Unix(path),
            None => {
                let host = url.map_or(host, |url| &url.host).to_owned();
                let port = url
                    .map_or(port, |url| url.port)
                    .unwrap_or(match (websocket, tls) {
                        (false, false) => 1883,
                        (false, true) => 8883,
                        (true, false) => 80,
                        (true, true) => 443,
                    });
                if scheme == Scheme::Quic {
                    Place::Udp { host, port }
                } else {
                    Place::Tcp { host, port }
                }
            }
        };
        let alpn = if websocket { ALPN_HTTP } else { ALPN_MQTT };
        let path = url.and_then(|url| url.path.clone());
        Self {
            place,
            tls: tls.then(|| args.settings(alpn)),
            websocket: websocket.then(|| WebSocketClient {
                path: path.unwrap_or_else(|| WebSocketClient::default().path),
                ..WebSocketClient::default()
            }),
        }
    }

    /// Whether MQTT lies directly on the socket.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none()
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// The file that cannot be used, and why.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let mut endpoint = match &self.place {
            Place::Tcp { host, port } => Endpoint::tcp(host, *port),
            Place::Udp { .. } if self.websocket.is_some() => {
                return Err(Failure::new("--ws: WebSocket is not spoken over QUIC"));
            }
            Place::Udp { host, port } => {
                let tls = self.tls.clone().unwrap_or_default();
                let tls = TlsConnector::new(&tls);
                let tls = tls.map_err(|error| Failure::new(error.to_string()))?;
                return Ok(Endpoint::quic(host, *port, tls));
            }
            Place::Unix(path) => Endpoint::unix(path),
        };
        let connector = self.tls.as_ref().map(TlsConnector::new);
        endpoint.tls = connector
            .transpose()
            .map_err(|error| Failure::new(error.to_string()))?;
        endpoint.websocket.clone_from(&self.websocket);
        Ok(endpoint)
    }

    /// Something that must not stay unsaid.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        let tls = self.tls.as_ref()?;
        (tls.roots == Roots::DangerousAnybody).then_some(
            "--insecure: the server's certificate is not verified; whoever is on the way can read \
             and change everything, passwords too",
        )
    }
}

impl TransportArgs {
    fn is_tls(&self) -> bool {
        let names = self.server_name.is_some() || self.tls_version.is_some();
        self.tls || self.insecure || self.cafile.is_some() || self.cert.is_some() || names
    }

    fn settings(&self, alpn: &[u8]) -> ClientTls {
        let roots = match &self.cafile {
            _ if self.insecure => Roots::DangerousAnybody,
            Some(path) => Roots::File(path.clone()),
            None => Roots::System,
        };
        ClientTls {
            roots,
            certificate: self.cert.clone().zip(self.key.clone()),
            server_name: self.server_name.clone(),
            min_version: self.tls_version.unwrap_or_default(),
            alpn: vec![alpn.to_vec()],
        }
    }
}

/// Opens the streams of a client.
pub(crate) struct Opener {
    pub(crate) endpoint: Endpoint,
    pub(crate) deadline: std::time::Duration,
}

impl Connector for Opener {
    fn connect<'a>(
        &'a mut self,
        _: &'a Address,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn ByteStream>, ConnectError>> + Send + 'a>> {
        Box::pin(async {
            let stream = self.endpoint.connect(self.deadline).await?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}
