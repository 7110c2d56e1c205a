use std::{io, mem};

/// From now on the calling thread, and those that it starts, wait when they are woken until a processor is free or
/// another thread's time on it is over. False if the thread is scheduled otherwise than threads
/// usually are, as whoever started the program wanted it: then that is left as it is.
///
/// This is `SCHED_BATCH` in place of `SCHED_OTHER`, and needs no privileges. The nice value stays.
///
/// # Errors
///
/// A sandbox may refuse; then all is as it was.
pub fn wait_when_woken() -> io::Result<bool> {
    // SAFETY: it has no arguments.
    let thread = unsafe { libc::pthread_self() };
    let mut policy = libc::SCHED_OTHER;
    // SAFETY: it holds nothing but integers, for which all bits may be zero.
    let mut parameters: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the calling thread exists, and both values may be written while the call lasts.
    succeed(unsafe { libc::pthread_getschedparam(thread, &raw mut policy, &raw mut parameters) })?;
    if policy != libc::SCHED_OTHER {
        return Ok(false);
    }
    // Both policies have a priority of 0, and nothing else.
    // SAFETY: the calling thread exists, and the parameters may be read while the call lasts.
    succeed(unsafe {
        libc::pthread_setschedparam(thread, libc::SCHED_BATCH, &raw const parameters)
    })?;
    Ok(true)
}

/// These calls return what went wrong.
fn succeed(returned: libc::c_int) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
