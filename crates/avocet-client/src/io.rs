//! A stream, and the bytes on both sides of it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_session::TransmitBuf;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::connector::ByteStream;

/// Bytes read at once where little comes: most clients are idle.
const READ_MIN: usize = 4 * 1024;
/// Bytes read at once where much comes.
const READ_MAX: usize = 64 * 1024;
/// Bytes of packets that wait for the stream.
const TRANSMIT_LEN: usize = 64 * 1024;
/// Slices written at once.
const SLICES: usize = 16;

pub(crate) struct Io {
    stream: Box<dyn ByteStream>,
    input: Input,
    pub(crate) output: TransmitBuf,
    flushed: bool,
}

/// Bytes that came, in the middle of a buffer that grows while it is filled.
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Where further bytes go; never empty.
    fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((2 * self.end).max(READ_MIN), 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    fn filled(&mut self, count: usize) {
        let full = self.end + count == self.buffer.len();
        self.end += count;
        let empty_before = self.end == count;
        if full && empty_before && self.buffer.len() < READ_MAX {
            self.buffer.resize(2 * self.buffer.len(), 0);
        } else if empty_before && count < READ_MIN && self.buffer.len() > READ_MIN {
            self.buffer.truncate(READ_MIN);
            self.buffer.shrink_to_fit();
        }
    }
}

impl Io {
    pub(crate) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self {
            stream,
            input: Input {
                buffer: Vec::new(),
                start: 0,
                end: 0,
            },
            output: TransmitBuf::new(TRANSMIT_LEN),
            flushed: true,
        }
    }

    /// What came, and where to put what is to be sent.
    pub(crate) fn buffers(&mut self) -> (&[u8], &mut TransmitBuf) {
        (self.input.waiting(), &mut self.output)
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
    }

    /// Writes what there is and reads what comes; ready when either made progress.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, reads: bool) -> Poll<io::Result<()>> {
        let mut progress = false;
        while !self.output.is_empty() {
            match poll_write(&mut *self.stream, &self.output, context)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.flushed = false;
                    progress = true;
                }
                Poll::Pending => break,
            }
        }
        if !self.flushed && Pin::new(&mut *self.stream).poll_flush(context)?.is_ready() {
            self.flushed = true;
        }
        if reads {
            let mut buffer = ReadBuf::new(self.input.space());
            if Pin::new(&mut *self.stream)
                .poll_read(context, &mut buffer)?
                .is_ready()
            {
                let count = buffer.filled().len();
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.input.filled(count);
                progress = true;
            }
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Writes what is left, and closes the stream.
    pub(crate) async fn finish(mut self, limit: Duration) {
        let Self { stream, output, .. } = &mut self;
        let writing = async {
            while !output.is_empty() {
                let written = poll_fn(|context| poll_write(&mut **stream, output, context)).await?;
                if written == 0 {
                    break;
                }
                output.advance(written);
            }
            stream.shutdown().await
        };
        // The connection has ended in any case.
        let _ = timeout(limit, writing).await;
    }
}

fn poll_write(
    stream: &mut dyn ByteStream,
    output: &TransmitBuf,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    for (slot, slice) in slices.iter_mut().zip(output.slices()) {
        *slot = IoSlice::new(slice);
        count += 1;
    }
    let slices = slices.get(..count).unwrap_or_default();
    Pin::new(stream).poll_write_vectored(context, slices)
}
