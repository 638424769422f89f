//! Programs that root has loaded for a gateway without capabilities.
//!
//! ```text
//!   EbpfDir                        a bpffs, which root and the group of the gateway's user may enter
//!     3f0a91c2d4e5b607-20000-0     a set: one load of the programs, with room for 20000 channels
//!       HOSTS, BRIDGES, ...        its maps, which the gateway's user may open
//!     3f0a91c2d4e5b607-20000-1
//! ```
//!
//! Making maps and loading programs needs capabilities; using a map needs its descriptor only. So
//! [`provide`] does the former as root, and [`take`] the latter as any user. The programs are
//! attached to the maps, and stay as long as these do.
//!
//! A set is used by one process at a time, which holds a lock (flock(2)) on the set's folder: its
//! channels have the set's slots for themselves. The lock ends with the process, however that
//! ends. The first part of the name tells which object was loaded, and how; no gateway uses a set
//! of another one.

mod provide;
mod take;

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

pub use provide::{Owner, Provided, provide};
pub(super) use take::take;
pub use take::{NoSet, is_ready};

use super::set::MAPS;
use super::{LoadError, kernel, object};

/// Another number stands for sets that were made in another way from the same object.
const MANNER: u8 = 1;

/// Bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Length of what names an object: 64 bits of a digest, in hexadecimal.
const KEY: usize = 16;

/// The name of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    /// What was loaded, and how.
    key: String,
    /// For how many channels there is room.
    channels: u32,
    /// Tells sets apart that are alike otherwise.
    number: u32,
}

impl Name {
    /// `None`: not the name of a set.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let name = Self {
            key: parts.next()?.to_owned(),
            channels: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        // A number may be written in more than one way, a name may not.
        (name.to_string() == text && name.key.len() == KEY).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.key, self.channels, self.number)
    }
}

/// Stands for the object that was built in, as this kernel gets it.
pub(super) fn key() -> Result<String, LoadError> {
    let object = object::bytes().ok_or(LoadError::NoObject)?;
    let mut all = vec![MANNER];
    all.extend(kernel::segment_limit()?.to_ne_bytes());
    all.extend(kernel::linear_limit().to_ne_bytes());
    all.extend(MAPS.join(" ").into_bytes());
    all.extend(object);
    let digest = digest(&SHA256, &all);
    let start = digest.as_ref().first_chunk().copied();
    Ok(format!(
        "{:016x}",
        u64::from_be_bytes(start.unwrap_or_default())
    ))
}

/// The sets that lie in a directory.
fn sets(directory: &Path) -> io::Result<Vec<Name>> {
    let mut sets = Vec::new();
    for entry in directory.read_dir()? {
        let name = entry?.file_name();
        sets.extend(name.to_str().and_then(Name::read));
    }
    Ok(sets)
}

/// Locks a folder for as long as the result lives; `None`: somebody else has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name {
            key: "0123456789abcdef".to_owned(),
            channels: 20_000,
            number: 3,
        };
        assert_eq!(name.to_string(), "0123456789abcdef-20000-3");
        assert_eq!(Name::read(&name.to_string()), Some(name));
        for other in [
            "making",
            "0123456789abcdef",
            "0123456789abcdef-20000",
            "0123456789abcdef-020000-3",
            "0123456789abcdef-20000-+3",
            "0123456789abcdef-20000-3-4",
            "0123-20000-3",
        ] {
            assert_eq!(Name::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let locked = lock(folder.path()).unwrap();
        assert!(locked.is_some());
        assert!(lock(folder.path()).unwrap().is_none());
        drop(locked);
        assert!(lock(folder.path()).unwrap().is_some());
        let missing = lock(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
