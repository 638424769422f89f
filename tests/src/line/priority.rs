//! The scheduling of the thread that plays a line.

use std::io;

/// Lets the calling thread run as soon as it can, before all of the ordinary ones: a busy machine
/// must not make a line slower than it says. Needs `CAP_SYS_NICE`.
///
/// A nice value would not do: where sessions are scheduled as groups (`CONFIG_SCHED_AUTOGROUP`), it
/// counts within the session only.
pub(super) fn go_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    #[expect(unsafe_code, reason = "no safe crate sets a scheduling policy")]
    // SAFETY: the pointer is to `parameters`, which the call only reads; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
