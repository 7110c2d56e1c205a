//! The ring, and the one call in which the kernel holds pointers.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process;

use io_uring::{IoUring, Probe, opcode, squeue, types};

/// The kernel's flag of the call that only waits.
const GETEVENTS: u32 = 1;

/// What a result is until there is one.
const NOT_DONE: i32 = -libc::EINTR;

/// A ring of the kernel for batches of operations that do not wait.
#[derive(Debug)]
pub struct Ring {
    /// None once it has failed. It is then closed, and with it goes what it had not begun.
    uring: Option<Uring>,
    capacity: usize,
    /// The operations of the batch. They hold pointers, and mean nothing outside of [`Ring::run`].
    operations: Vec<squeue::Entry>,
    /// By operation: a number of bytes, or an error's number, negative.
    results: Vec<i32>,
}

struct Uring(IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Uring").field(&self.0.as_raw_fd()).finish()
    }
}

/// Operations that are carried out together by [`Batch::finish`], and not at all without it.
#[derive(Debug)]
pub struct Batch<'ring, 'data> {
    ring: &'ring mut Ring,
    data: PhantomData<&'data mut [u8]>,
}

impl Ring {
    /// A ring for batches of so many operations, for the thread that calls. Fails where the kernel
    /// has no io_uring, or does not let this process use it.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let uring = open(capacity)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) || !probe.is_supported(opcode::Recv::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            uring: Some(Uring(uring)),
            capacity: capacity as usize,
            operations: Vec::with_capacity(capacity as usize),
            results: Vec::with_capacity(capacity as usize),
        })
    }

    /// An empty batch.
    pub fn batch<'data>(&mut self) -> Batch<'_, 'data> {
        self.operations.clear();
        Batch {
            ring: self,
            data: PhantomData,
        }
    }

    /// Whether operations are still carried out. If not, the ring has failed for good.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.uring.is_some()
    }

    /// Carries out the operations. Nothing of them is under way when it returns.
    ///
    /// # Safety
    ///
    /// What the operations point to must be valid for as long as this takes.
    unsafe fn run(&mut self) {
        let count = self.operations.len();
        self.results.clear();
        self.results.resize(count, NOT_DONE);
        let Some(Uring(uring)) = &mut self.uring else {
            return;
        };
        // The caller must not go on, not even to unwind, while the kernel may use its memory.
        let abort = AbortOnDrop;
        // SAFETY: the caller keeps what they point to valid until this returns. That is not before
        // each of those that the kernel has taken is completed; and those that it has not taken go
        // with the ring.
        let pushed = unsafe { uring.submission().push_multiple(&self.operations) };
        let mut failed = pushed.is_err();
        while !failed && !uring.submission().is_empty() {
            match uring.submit() {
                Ok(taken) => failed = taken == 0,
                Err(error) => failed = error.kind() != io::ErrorKind::Interrupted,
            }
        }
        let left = if pushed.is_ok() {
            uring.submission().len()
        } else {
            count
        };
        let mut open = count.saturating_sub(left);
        loop {
            for completion in uring.completion() {
                open = open.saturating_sub(1);
                let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                if let Some(result) = self.results.get_mut(index) {
                    *result = completion.result();
                }
            }
            if open == 0 {
                break;
            }
            let wanted = u32::try_from(open).unwrap_or(u32::MAX);
            // SAFETY: nothing is submitted, and there is no argument.
            let waited = unsafe { uring.submitter().enter::<()>(0, wanted, GETEVENTS, None) };
            if let Err(error) = waited {
                match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    // Nobody can tell when the kernel lets go of the memory: `abort` does its work.
                    _ => return,
                }
            }
        }
        mem::forget(abort);
        if failed {
            self.uring = None;
        }
    }
}

/// A ring with what the kernel has to offer.
fn open(capacity: u32) -> io::Result<IoUring> {
    let modern = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(capacity);
    match modern {
        // A kernel that does not know one of them.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(capacity),
        result => result,
    }
}

struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        process::abort();
    }
}

impl<'ring, 'data> Batch<'ring, 'data> {
    /// Whether no further operation has room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ring.operations.len() >= self.ring.capacity
    }

    /// Adds a `send`, as much as the socket takes at once. False, and nothing is added, if the batch is
    /// full.
    pub fn send(&mut self, socket: BorrowedFd<'data>, bytes: &'data [u8]) -> bool {
        let operation = opcode::Send::new(fd(socket), bytes.as_ptr(), len(bytes))
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build();
        self.push(operation)
    }

    /// Adds a `recv` of what is there. False, and nothing is added, if the batch is full.
    pub fn receive(&mut self, socket: BorrowedFd<'data>, room: &'data mut [u8]) -> bool {
        let operation = opcode::Recv::new(fd(socket), room.as_mut_ptr(), len(room))
            .flags(libc::MSG_DONTWAIT)
            .build();
        self.push(operation)
    }

    fn push(&mut self, operation: squeue::Entry) -> bool {
        if self.is_full() {
            return false;
        }
        let index = self.ring.operations.len() as u64;
        self.ring.operations.push(operation.user_data(index));
        true
    }

    /// Carries out all of them, and gives what became of each, in their order.
    /// [`io::ErrorKind::Interrupted`] means that it was not begun.
    pub fn finish(self) -> impl Iterator<Item = io::Result<usize>> + use<'ring> {
        let ring = self.ring;
        // SAFETY: sockets and bytes are borrowed for `'data`, for which the batch lives. Room is
        // borrowed so that nobody else reads or writes it.
        unsafe { ring.run() };
        ring.results.iter().map(|&result| {
            usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
        })
    }
}

fn fd(socket: BorrowedFd<'_>) -> types::Fd {
    types::Fd(socket.as_raw_fd())
}

/// What one operation takes at most.
fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
