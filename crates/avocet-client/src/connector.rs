//! How streams to servers come about.

use std::time::Duration;

use avocet_transport::{Endpoint, Place, Proxy};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Address, ConnectError};

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// Opens streams to servers: TCP, TLS, WebSocket, Unix sockets and, with a feature, QUIC are built
/// in, and programs bring what else they need.
pub trait Connector: Send {
    /// Opens a stream. [`Config::connect_timeout`](crate::Config::connect_timeout) ends the wait
    /// for it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], most often [`ConnectError::Io`].
    fn connect<'a>(
        &'a mut self,
        server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>>;
}

/// TCP, or a Unix socket, and what is spoken over it.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) deadline: Duration,
}

impl Connector for Transport {
    fn connect<'a>(
        &'a mut self,
        server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async {
            let Address { host, port } = server;
            let mut endpoint = match (&self.endpoint, &self.proxy) {
                (Some(endpoint), _) => endpoint.clone(),
                (None, Some(_)) => Endpoint::tcp(host, *port),
                (None, None) => {
                    let stream = avocet_transport::connect(host, *port, self.deadline).await?;
                    return Ok(Box::new(stream) as Box<dyn ByteStream>);
                }
            };
            if let Some(proxy) = &self.proxy {
                endpoint.proxy = Some(proxy.clone());
            }
            match &mut endpoint.place {
                Place::Tcp { host: of, port: at } => (*of, *at) = (host.clone(), *port),
                #[cfg(feature = "quic")]
                Place::Udp { host: of, port: at } => (*of, *at) = (host.clone(), *port),
                _ => {}
            }
            let stream = endpoint.connect(self.deadline).await?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

/// One stream that stands already.
pub(crate) struct Standing(pub(crate) Option<Box<dyn ByteStream>>);

impl Connector for Standing {
    fn connect<'a>(
        &'a mut self,
        _server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        let stream = self.0.take();
        Box::pin(async {
            stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected).into())
        })
    }
}
