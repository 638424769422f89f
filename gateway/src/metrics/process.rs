//! What the system says of this process.

use rlimit::Resource;

/// Descriptors that are open; `None`: `/proc` is not there.
pub fn open_files() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the reading itself.
    Some((entries.count() as u64).saturating_sub(1))
}

/// Most descriptors that may be open.
pub fn open_files_limit() -> Option<u64> {
    Resource::NOFILE.get_soft().ok()
}
