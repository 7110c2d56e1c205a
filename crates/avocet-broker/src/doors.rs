//! What lies between the sockets of each listener and MQTT.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::Tenant;
use avocet_transport::{ALPN_HTTP, ALPN_MQTT, Layers, TlsAcceptor, TlsError};

use crate::config::Listener;

/// Those of all listeners, in the order of the configuration.
pub(crate) type Doors = Arc<[Door]>;

#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) layers: Layers,
    /// QUIC is spoken, which is more than layers.
    pub(crate) quic: bool,
    pub(crate) handshake_timeout: Duration,
    /// Whose clients come here.
    pub(crate) tenant: Tenant,
    /// How often WebSocket clients are pinged.
    pub(crate) ping: Option<Duration>,
}

/// Reads the files of all listeners.
pub(crate) fn open(listeners: &[Listener]) -> Result<Doors, TlsError> {
    listeners.iter().map(Door::open).collect()
}

impl Door {
    fn open(listener: &Listener) -> Result<Self, TlsError> {
        let websocket = listener.websocket.as_ref();
        let acceptor = listener.tls.as_ref().map(|tls| {
            let alpn = if websocket.is_some() {
                ALPN_HTTP
            } else {
                ALPN_MQTT
            };
            let mut files = tls.files.clone();
            files.alpn = vec![alpn.to_vec()];
            TlsAcceptor::new(files).map(Arc::new)
        });
        let ping = websocket.map(|it| it.ping);
        Ok(Self {
            layers: Layers {
                tls: acceptor.transpose()?,
                websocket: websocket.map(|it| it.server.clone()),
                proxy_protocol: listener.proxy_protocol,
                trusted_proxies: listener.trusted_proxies.clone(),
            },
            quic: listener.quic,
            handshake_timeout: listener.handshake_timeout,
            tenant: listener.tenant.clone().unwrap_or_default(),
            ping: ping.filter(|every| !every.is_zero()),
        })
    }
}

/// What is spoken, to be put behind an address.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = &self.layers;
        let spoken = [
            (layers.proxy_protocol, "PROXY protocol"),
            (self.quic, "QUIC"),
            (layers.tls.is_some() && !self.quic, "TLS"),
            (layers.websocket.is_some(), "WebSocket"),
        ];
        let mut separator = " with ";
        for (_, name) in spoken.iter().filter(|(is_spoken, _)| *is_spoken) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}
