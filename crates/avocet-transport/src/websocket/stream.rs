//! The client's side of WebSocket as a tokio stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frames::WebSocket;
use super::upgrade::{Asked, UpgradeError};

/// Bytes that are framed at once.
const WRITE_BYTES: usize = 64 << 10;

/// A stream within binary WebSocket frames.
#[derive(Debug)]
pub(crate) struct WebSocketStream<S> {
    inner: S,
    websocket: WebSocket,
    /// What came behind the server's answer.
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
}

/// Asks a server to speak WebSocket.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut inner: S,
    asked: &Asked,
) -> io::Result<WebSocketStream<S>> {
    inner.write_all(asked.request.as_bytes()).await?;
    inner.flush().await?;
    let mut input = Vec::new();
    let invalid = |error: UpgradeError| io::Error::new(io::ErrorKind::InvalidData, error);
    loop {
        // It says itself when this is too long.
        if inner.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(len) = asked.answer(&input).map_err(invalid)? else {
            continue;
        };
        input.drain(..len);
        let mut websocket = WebSocket::client();
        let taken = websocket.decode(&mut input);
        input.truncate(taken);
        return Ok(WebSocketStream {
            inner,
            websocket,
            input,
            out: Vec::new(),
            sent: 0,
        });
    }
}

impl<S: AsyncWrite + Unpin> WebSocketStream<S> {
    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.input.is_empty() {
            let n = this.input.len().min(buffer.remaining());
            buffer.put_slice(this.input.get(..n).unwrap_or_default());
            this.input.drain(..n);
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(error) = this.websocket.failed() {
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                return Poll::Ready(Err(error));
            }
            if this.websocket.is_closed() || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut part = ReadBuf::new(buffer.initialize_unfilled());
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = this.websocket.decode(part.filled_mut());
            let answers = this.websocket.take_answers();
            if !answers.is_empty() {
                this.out.extend(answers);
                // What does not leave now does with what is written next.
                let sent = this.poll_send(context)?;
                if sent.is_ready() {
                    let _ = Pin::new(&mut this.inner).poll_flush(context)?;
                }
            }
            if taken > 0 {
                buffer.advance(taken);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_send(context))?;
        let mut room = WRITE_BYTES;
        let mut parts = Vec::with_capacity(slices.len());
        for slice in slices {
            let n = slice.len().min(room);
            parts.push(IoSlice::new(slice.get(..n).unwrap_or_default()));
            room -= n;
        }
        let taken = WRITE_BYTES - room;
        if taken > 0 {
            this.websocket.encode(&parts, &mut this.out);
            if let Poll::Ready(Err(error)) = this.poll_send(context) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.websocket.say_goodbye();
        this.out.extend(this.websocket.take_answers());
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}
