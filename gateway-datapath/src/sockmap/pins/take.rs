//! Using a set, which needs no capability.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError};

use super::{Name, WRITABLE_BY_OTHERS, key, lock, sets};
use crate::sockmap::set::{MAPS, Set, SetError};

/// A set that is this process's until this is dropped.
pub(in crate::sockmap) struct Taken {
    pub(in crate::sockmap) folder: PathBuf,
    /// How many channels there is room for.
    pub(in crate::sockmap) channels: u32,
    pub(in crate::sockmap) set: Set,
    pub(in crate::sockmap) lock: File,
}

/// Why there is no set for this process.
#[derive(Debug, thiserror::Error)]
pub enum NoSet {
    /// The directory is missing, or this user may not enter it.
    #[error("{}: {error}", directory.display())]
    Directory {
        /// Where it should be.
        directory: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// Others could have put maps of their own there.
    #[error("{}: expected a directory of root that nobody else may write to", directory.display())]
    NotSafe {
        /// Which one.
        directory: PathBuf,
    },
    /// The sets are all of other programs.
    #[error("{}: no eBPF programs of this version of the gateway", directory.display())]
    OtherVersion {
        /// Where they are.
        directory: PathBuf,
    },
    /// Other processes use them all.
    #[error("{}: all {count} sets of eBPF programs are in use", directory.display())]
    InUse {
        /// Where they are.
        directory: PathBuf,
        /// How many there are of this object.
        count: usize,
    },
    /// A set that nobody uses cannot be used by this process either.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// A map, or a set.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Whether a set waits for this process, which opens nothing for it.
pub fn is_ready(directory: &Path) -> bool {
    let Ok(key) = key() else {
        return false;
    };
    let candidates = candidates(directory, &key, 0);
    candidates.unwrap_or_default().iter().any(|name| {
        let folder = directory.join(name.to_string());
        let is_own = MAPS.iter().all(|map| {
            let found = fs::metadata(folder.join(map));
            found.is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw())
        });
        is_own && matches!(lock(&folder), Ok(Some(_)))
    })
}

/// Takes a set of these programs that nobody uses: the smallest with room for so many channels, or
/// else the largest.
pub(in crate::sockmap) fn take(key: &str, directory: &Path, channels: u32) -> Result<Taken, NoSet> {
    let candidates = candidates(directory, key, channels)?;
    let mut refused = None;
    for name in &candidates {
        let folder = directory.join(name.to_string());
        let unusable = |path: &Path, reason: &dyn std::fmt::Display| NoSet::Unusable {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        let lock = match lock(&folder) {
            Ok(Some(lock)) => lock,
            Ok(None) => continue,
            Err(error) => {
                refused = Some(unusable(&folder, &error));
                continue;
            }
        };
        match open(&folder) {
            Ok(set) => {
                return Ok(Taken {
                    folder,
                    channels: name.channels,
                    set,
                    lock,
                });
            }
            Err((path, error)) => refused = Some(unusable(&path, &in_short(&error))),
        }
    }
    Err(refused.unwrap_or_else(|| NoSet::InUse {
        directory: directory.to_owned(),
        count: candidates.len(),
    }))
}

/// The sets of this object, the best one first; there is one at least.
fn candidates(directory: &Path, key: &str, channels: u32) -> Result<Vec<Name>, NoSet> {
    let refused = |error| NoSet::Directory {
        directory: directory.to_owned(),
        error,
    };
    let found = fs::symlink_metadata(directory).map_err(refused)?;
    let is_trusted = found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_dir() || !is_trusted || found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(NoSet::NotSafe {
            directory: directory.to_owned(),
        });
    }
    let mut sets = sets(directory).map_err(refused)?;
    sets.retain(|name| name.key == key);
    if sets.is_empty() {
        return Err(NoSet::OtherVersion {
            directory: directory.to_owned(),
        });
    }
    sets.sort_by_key(|name| in_order(name, channels));
    Ok(sets)
}

/// Those with room for all come first, small ones before large ones; then large before small.
fn in_order(name: &Name, channels: u32) -> (bool, u32, Reverse<u32>, u32) {
    let is_small = name.channels < channels;
    let size = if is_small { 0 } else { name.channels };
    (is_small, size, Reverse(name.channels), name.number)
}

fn open(folder: &Path) -> Result<Set, (PathBuf, SetError)> {
    let open = |map: &'static str| {
        let path = folder.join(map);
        let opened = MapData::from_pin(&path).and_then(Map::from_map_data);
        opened
            .map(|opened| (map, opened))
            .map_err(|error| (path, error.into()))
    };
    let maps: Vec<_> = MAPS.into_iter().map(open).collect::<Result<_, _>>()?;
    let find = |name| maps.iter().find(|(map, _)| *map == name);
    Set::of(|name| Some(&find(name)?.1)).map_err(|error| (folder.to_owned(), error))
}

/// What the system says, where it says something.
fn in_short(error: &SetError) -> String {
    match error {
        SetError::Map(MapError::SyscallError(error)) => error.io_error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn refused(directory: &Path) -> NoSet {
        take(KEY, directory, 1).err().unwrap()
    }

    #[test]
    fn the_smallest_set_that_is_large_enough_comes_first() {
        let mut sets =
            [(10, 0), (40, 0), (20, 1), (20, 0), (15, 0)].map(|(channels, number)| Name {
                key: String::new(),
                channels,
                number,
            });
        sets.sort_by_key(|name| in_order(name, 20));
        let order = sets.map(|name| (name.channels, name.number));
        assert_eq!(order, [(20, 0), (20, 1), (40, 0), (15, 0), (10, 0)]);
    }

    #[test]
    fn who_finds_no_set_is_told_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let missing = refused(&path.join("missing"));
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let none = refused(path);
        assert!(matches!(none, NoSet::OtherVersion { .. }), "{none}");
        fs::create_dir(path.join("fedcba9876543210-1-0")).unwrap();
        let other = refused(path);
        assert!(matches!(other, NoSet::OtherVersion { .. }), "{other}");
        let folder = path.join(format!("{KEY}-1-0"));
        fs::create_dir(&folder).unwrap();
        let locked = lock(&folder).unwrap();
        let used = refused(path);
        assert!(used.to_string().contains("all 1 sets"), "{used}");
        drop(locked);
        let empty = refused(path);
        assert!(matches!(empty, NoSet::Unusable { .. }), "{empty}");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for mode in [0o777, 0o770, 0o1777] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let told = refused(path);
            assert!(matches!(told, NoSet::NotSafe { .. }), "{told}");
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        let link = path.join("link");
        symlink(path, &link).unwrap();
        let told = refused(&link);
        assert!(matches!(told, NoSet::NotSafe { .. }), "{told}");
    }
}
