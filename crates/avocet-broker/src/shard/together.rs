//! Output of many connections that leaves with one system call.
//!
//! It costs the system about as much as a call for each. What is won is that nobody runs in
//! between: where a client that has got something would take the processor from the broker, it does
//! so once for all of them.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Once;

use avocet_session::{Now, TransmitBuf};
use avocet_uring::Ring;
use bytes::BufMut as _;
use tracing::info;

use super::Shard;
use crate::connections::{Connections, Key};
use crate::stream::Stream;

/// Outputs that are written together at most.
const OUTPUTS: u32 = 64;

/// An output so long goes with a system call of its own, which is a small part of what it costs.
const ALONE_MIN: usize = 4 << 10;

/// Outputs that wait to be written together, each of another connection.
pub(super) struct Together {
    /// None where the system does not permit it.
    ring: Option<Ring>,
    /// Whether the thread of another shard takes the turn, of which the system takes nothing.
    lent: bool,
    outputs: Vec<Output>,
    /// Theirs, one after the other.
    bytes: Vec<u8>,
}

struct Output {
    key: Key,
    /// The engine has more for this connection.
    more: bool,
    start: usize,
    end: usize,
    /// What the system said, if it was asked.
    written: Option<io::Result<usize>>,
}

impl Together {
    pub(super) fn new() -> Self {
        Self {
            ring: ring(OUTPUTS),
            lent: false,
            outputs: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Another thread begins a turn of the shard, or has ended it.
    pub(super) const fn set_lent(&mut self, lent: bool) {
        self.lent = lent;
    }

    /// Takes the output of a connection, if it may go with others.
    pub(super) fn take(
        &mut self,
        key: Key,
        stream: &Stream,
        output: &mut TransmitBuf,
        more: bool,
    ) -> bool {
        let piece = output.piece().filter(|bytes| bytes.len() < ALONE_MIN);
        let may = self.ring.is_some() && !self.lent && stream.socket_fd().is_some();
        let Some(bytes) = piece.filter(|_| may) else {
            return false;
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.outputs.push(Output {
            key,
            more,
            start,
            end: self.bytes.len(),
            written: None,
        });
        output.clear();
        true
    }

    pub(super) fn is_full(&self) -> bool {
        self.outputs.len() >= OUTPUTS as usize
    }

    /// Writes all with one call. One alone is left to a plain call, which is cheaper.
    fn write(&mut self, connections: &Connections) {
        let Some(ring) = self.ring.as_mut().filter(|_| self.outputs.len() > 1) else {
            return;
        };
        let mut batch = ring.batch();
        let mut asked = 0;
        for output in &self.outputs {
            let Some(socket) = socket_fd(connections, output.key) else {
                break;
            };
            let bytes = self.bytes.get(output.start..output.end);
            if !batch.send(socket, bytes.unwrap_or_default()) {
                break;
            }
            asked += 1;
        }
        for (output, written) in self.outputs.iter_mut().take(asked).zip(batch.finish()) {
            output.written = Some(written);
        }
        if !ring.is_open() {
            info!("without io_uring from here on, which this system has refused");
            self.ring = None;
        }
    }
}

/// None where the system refuses, which is said once.
fn ring(capacity: u32) -> Option<Ring> {
    Ring::new(capacity)
        .inspect_err(|error| {
            static SAID: Once = Once::new();
            SAID.call_once(|| info!("without io_uring, which this system refuses: {error}"));
        })
        .ok()
}

fn socket_fd(connections: &Connections, key: Key) -> Option<BorrowedFd<'_>> {
    connections.get(key)?.stream.socket_fd()
}

impl Shard {
    /// Writes what waits to be written together.
    pub(super) fn write_together(&mut self, now: Now) {
        self.together.write(&self.connections);
        let mut outputs = mem::take(&mut self.together.outputs);
        for output in outputs.drain(..) {
            // What was not written goes the way of all output.
            let bytes = self.together.bytes.get(output.start..output.end);
            self.transmit.frame().put_slice(bytes.unwrap_or_default());
            self.write_rest(output.key, output.written, output.more, now);
        }
        self.together.outputs = outputs;
        self.together.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_refused_is_done_without() {
        // More than any system takes.
        assert!(ring(u32::MAX).is_none());
    }
}
