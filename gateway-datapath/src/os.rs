//! Calls of the system that no safe library makes: here, as `unsafe` is for this crate alone.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The open descriptors that the service manager passed in, with their names
/// (`sd_listen_fds_with_names(3)`); none for a second call.
///
/// Fails when the variables that speak of them are not sound.
pub fn passed_descriptors() -> std::io::Result<Vec<(OwnedFd, String)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    #[expect(unsafe_code, reason = "a descriptor is known by its number only")]
    // SAFETY: `LISTEN_PID` says that it was passed to this very process and
    // `listen_fds_with_names` found it open; such descriptors belong to nobody else, and `TAKEN`
    // lets them be taken once.
    let owned = passed.map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name));
    Ok(owned.collect())
}

/// Has the C library's allocator give back what is free to the system. Says whether there was
/// something; other allocators are left to what they do by themselves.
#[cfg(target_env = "gnu")]
pub fn give_back_memory() -> bool {
    #[expect(unsafe_code, reason = "no safe crate calls it")]
    // SAFETY: it takes the allocator's own locks, and moves nothing that is in use.
    let gave_back = unsafe { libc::malloc_trim(0) };
    gave_back != 0
}

/// Has the C library's allocator give back what is free to the system. Says whether there was
/// something; other allocators are left to what they do by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_memory() -> bool {
    false
}
