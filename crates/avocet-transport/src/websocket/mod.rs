//! WebSocket (RFC 6455) as a carrier of bytes, without input and output: frames in [`frames`],
//! the upgrade from HTTP in [`upgrade`]. Both ends.

pub(crate) mod frames;
pub(crate) mod stream;
pub(crate) mod upgrade;

pub use frames::FrameError;
pub use upgrade::{UpgradeError, WebSocketServer};

/// How a client asks for WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketClient {
    /// The path, with a query if there is one.
    pub path: String,
    /// Further fields of the request's header, for proxies on the way.
    pub headers: Vec<(String, String)>,
}

impl Default for WebSocketClient {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            headers: Vec::new(),
        }
    }
}
