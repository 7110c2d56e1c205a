//! Enhanced authentication (5.0).

/// A method of enhanced authentication, which begins anew on each connection [MQTT5-4.12].
pub trait EnhancedAuthentication: Send {
    /// The Authentication Method.
    fn method(&self) -> &str;

    /// A connection begins: the Authentication Data of its CONNECT.
    fn begin(&mut self) -> Option<Vec<u8>>;

    /// AUTH of the server, with this data: that of the answer.
    ///
    /// # Errors
    ///
    /// The server is not to be trusted; the connection is closed.
    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationFailed>;

    /// The server accepted, with this data in its CONNACK.
    ///
    /// # Errors
    ///
    /// The server is not to be trusted; the connection is closed.
    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationFailed>;
}

/// The server did not prove what it had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server did not prove that it knows the user")]
pub struct AuthenticationFailed;
