use std::io;
use std::num::NonZeroU8;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// From now on nobody is told that a TCP socket can be read while it holds fewer bytes than this (`SO_RCVLOWAT`), unless the
/// peer has closed or the connection has failed. Reading takes what is there in any case. A new socket has 1.
///
/// If the socket holds as many already, that is told at once, by epoll with edges too. Before Linux 4.18 it is told with the next byte:
/// who makes the mark lower there should read.
///
/// # Errors
///
/// The descriptor may be of something that is no socket.
pub fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: NonZeroU8) -> io::Result<()> {
    let bytes = libc::c_int::from(bytes.get());
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads as many bytes as the integer has, during the
    // call.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
