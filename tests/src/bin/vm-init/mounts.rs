//! The file systems that programs expect.

use std::fs;
use std::io;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

/// Type and place of each, in order.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts all of them.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, place) in MOUNTS {
        // Places in sysfs are the kernel's to make.
        if !place.starts_with("/sys/") {
            fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        }
        match mount(kind, place, kind, MountFlags::empty(), None) {
            // Some kernels mount devtmpfs by themselves.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(problem) => {
                return Err(io::Error::from(problem))
                    .with_context(|| format!("mounting {kind} on {place}"));
            }
        }
    }
    Ok(())
}
