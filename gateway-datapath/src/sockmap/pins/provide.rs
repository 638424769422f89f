//! Making sets, as root, before a gateway needs them.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use super::{Name, WRITABLE_BY_OTHERS, key, lock, sets};
use crate::sockmap::set::MAPS;
use crate::sockmap::{in_maps, load};

/// How many sets are to be free: one for the gateway that is about to start, and one for the
/// probe of somebody else or for a process that takes over.
const FREE: usize = 2;
/// Most sets of one object, of this size or another: one takes some megabytes of the kernel. A
/// process that takes channels over has their set besides its own, as long as they live.
const MOST: u32 = 8;
/// Name of a set that is not complete. Names in a bpffs have no dots.
const MAKING: &str = "making";
/// How long another process may take that makes sets in the same directory.
const WAIT: Duration = Duration::from_secs(10);
/// How often that is tried.
const RETRY: Duration = Duration::from_millis(20);
const STICKY: u32 = 0o1000;

/// Who may use sets.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// Number of the gateway's user.
    pub user: u32,
    /// Number of that user's group.
    pub group: u32,
}

/// What was done, in numbers of sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// Are new.
    pub made: usize,
    /// Were there, and are free.
    pub free: usize,
    /// Are used by other processes, whatever is loaded in them.
    pub used: usize,
    /// Nobody used them, and they had other programs or another size.
    pub removed: usize,
}

/// Sees to it that sets with room for so many channels wait in a directory, which becomes a bpffs
/// of its own unless it is in one already. Removes those that no gateway of this version and
/// configuration would take. Changes nothing that a running gateway uses.
pub fn provide(directory: &Path, channels: usize, owner: Owner) -> anyhow::Result<Provided> {
    let channels = in_maps(channels);
    let key = key()?;
    let _alone = prepare(directory, owner)?;
    remove(&directory.join(MAKING)).context("cannot remove what was left incomplete")?;
    let mut provided = Provided::default();
    let mut numbers = Vec::new();
    for name in sets(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let folder = directory.join(name.to_string());
        let is_own = name.key == key;
        let locked = lock(&folder).with_context(|| format!("cannot lock {name}"))?;
        if locked.is_none() {
            provided.used += 1;
        } else if is_own && name.channels == channels && is_complete(&folder) {
            give(&folder, owner)?;
            provided.free += 1;
        } else {
            remove(&folder).with_context(|| format!("cannot remove {name}"))?;
            provided.removed += 1;
            continue;
        }
        if is_own {
            numbers.push(name.number);
        }
    }
    while provided.free + provided.made < FREE
        && let Some(number) = (0..MOST).find(|number| !numbers.contains(number))
    {
        let name = Name {
            key: key.clone(),
            channels,
            number,
        };
        make(directory, &name, owner)?;
        provided.made += 1;
        numbers.push(number);
    }
    if provided.free + provided.made == 0 {
        bail!(
            "{}: all {MOST} sets of eBPF programs are in use",
            directory.display()
        );
    }
    Ok(provided)
}

/// Makes the directory if it is missing, and a bpffs of it. Nobody else changes sets in it as long
/// as the result lives.
fn prepare(directory: &Path, owner: Owner) -> anyhow::Result<File> {
    let shown = directory.display();
    let made = DirBuilder::new().mode(0o700).create(directory);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {shown}"));
        }
        _ => {}
    }
    for folder in directory.ancestors() {
        let found = fs::symlink_metadata(folder);
        let found = found.with_context(|| format!("cannot look at {}", folder.display()))?;
        ensure!(
            found.is_dir(),
            "{}: expected a directory, not a link",
            folder.display()
        );
        let is_sticky = found.mode() & STICKY != 0;
        ensure!(
            found.uid() == 0 && (found.mode() & WRITABLE_BY_OTHERS == 0 || is_sticky),
            "{}: expected a directory of root that nobody else may write to",
            folder.display()
        );
    }
    if !is_bpffs(directory)? {
        let mut entries =
            fs::read_dir(directory).with_context(|| format!("cannot list {shown}"))?;
        ensure!(entries.next().is_none(), "{shown}: there are files in it");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", directory, "bpf", flags, c"mode=0700")
            .with_context(|| format!("cannot mount a bpffs on {shown}"))?;
    }
    let begun = Instant::now();
    let alone = loop {
        let locked = lock(directory).with_context(|| format!("cannot lock {shown}"))?;
        if let Some(alone) = locked {
            break alone;
        }
        ensure!(
            begun.elapsed() < WAIT,
            "{shown}: another process makes sets of eBPF programs in it"
        );
        std::thread::sleep(RETRY);
    };
    chown(directory, Some(0), Some(owner.group))
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o750)))
        .with_context(|| format!("cannot change the owner of {shown}"))?;
    Ok(alone)
}

fn is_bpffs(directory: &Path) -> anyhow::Result<bool> {
    let found = statfs(directory);
    let found = found.with_context(|| format!("cannot look at {}", directory.display()))?;
    Ok(found.f_type == libc::BPF_FS_MAGIC)
}

fn is_complete(folder: &Path) -> bool {
    MAPS.iter().all(|map| folder.join(map).exists())
}

/// Loads the programs once more. The set has its name once it is complete.
fn make(directory: &Path, name: &Name, owner: Owner) -> anyhow::Result<()> {
    // Dropping it would take the programs off the maps.
    let ebpf = ManuallyDrop::new(load::programs(name.channels)?);
    let making = directory.join(MAKING);
    let failed = || format!("cannot make {name} in {}", directory.display());
    fs::create_dir(&making).with_context(failed)?;
    for map in MAPS {
        let loaded = ebpf.map(map).with_context(|| format!("no map {map}"))?;
        loaded.pin(making.join(map)).with_context(failed)?;
    }
    give(&making, owner)?;
    fs::rename(&making, directory.join(name.to_string())).with_context(failed)
}

/// The user may open the maps, and change nothing in the set.
fn give(folder: &Path, owner: Owner) -> anyhow::Result<()> {
    let given = || -> io::Result<()> {
        for map in MAPS {
            let map = folder.join(map);
            fs::set_permissions(&map, Permissions::from_mode(0o600))?;
            chown(&map, Some(owner.user), Some(owner.group))?;
        }
        chown(folder, Some(0), Some(owner.group))?;
        fs::set_permissions(folder, Permissions::from_mode(0o750))
    };
    given().with_context(|| format!("cannot change the owner of {}", folder.display()))
}

/// Removes a set, if it is there. Its programs end with the last process that uses them.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
