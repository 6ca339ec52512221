//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.
//!
//! The signals are blocked before any other thread starts, so every thread inherits the mask, and
//! one thread waits for them. etcd ends by the signal it received, so that a supervisor sees why;
//! [`reraise`] does the same.

use std::io;

use crate::log_lines::StopSignal;

/// The signals that stop a member.
const STOPPING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Blocks the stopping signals for this thread and all that it will start. SIGPIPE is ignored: a
/// closed connection is an error of the call, not the end of the process.
///
/// # Errors
/// The system's.
pub fn block() -> io::Result<()> {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    mask(libc::SIG_BLOCK, &stopping_set())
}

/// Waits for a stopping signal and unblocks them, so that the next one kills.
///
/// # Errors
/// The system's.
pub fn wait() -> io::Result<libc::c_int> {
    let set = stopping_set();
    let mut signal = 0;
    // SAFETY: both pointers are to live values of the right types.
    let result = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    mask(libc::SIG_UNBLOCK, &set)?;
    Ok(signal)
}

/// Ends the wait of [`wait`] from within the process.
pub fn request_stop() {
    let own = i32::try_from(std::process::id()).expect("the kernel counts processes below 2^22");
    // SAFETY: a plain call; the process may signal itself.
    unsafe { libc::kill(own, libc::SIGTERM) };
}

/// Ends the process by `signal`, as if it had never been caught.
pub fn reraise(signal: libc::c_int) -> ! {
    // SAFETY: the default disposition of a signal is always valid.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: a plain call.
    unsafe { libc::raise(signal) };
    // Only a signal that is ignored by default could come here.
    std::process::exit(0)
}

/// Which of the two it was.
#[must_use]
pub fn stop_signal(signal: libc::c_int) -> StopSignal {
    if signal == libc::SIGTERM { StopSignal::Terminate } else { StopSignal::Interrupt }
}

fn stopping_set() -> libc::sigset_t {
    // SAFETY: all zero is storage that sigemptyset initialises.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in STOPPING {
        // SAFETY: the set is initialised and the signal number valid.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; no old mask is asked for.
    let result = unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}
