//! The directory of the gateway's own sockets (`RuntimeDir`), which one gateway uses at a time.
//!
//! Whoever may write there could put a socket of their own in the place of the gateway's, so it
//! must belong to the gateway's user, and nobody else may write. A lock on a file in it (flock(2))
//! says that it is in use; the lock ends with the process that holds it, however that ends.

pub(crate) mod socket;

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

/// Name of the file that is locked; it holds the process id of who has locked it.
const LOCK: &str = "gateway.lock";
/// Bits of a mode that let others than the owner write. With an access control list the bits of
/// the group are those of the list's mask (acl(5)).
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// How often a directory is tried that another process is about to leave.
const RETRY: Duration = Duration::from_millis(20);
/// How long such a process may take.
const LEAVING: Duration = Duration::from_secs(2);
/// How often one is tried that another process holds for longer.
const PATIENT_RETRY: Duration = Duration::from_secs(1);

/// Whose a directory may be, besides root's, who may do everything anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user of this process.
    Own,
    /// The user of this process, or this one.
    OwnOr(u32),
    /// Any user.
    Any,
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// Another process uses it.
    #[error(
        "{}: RuntimeDir: in use by {}; a second gateway needs one of its own, \
         and \"run --take-over\" takes the place of the first",
        path.display(),
        process(*holder)
    )]
    InUse {
        /// Where it is.
        path: PathBuf,
        /// Who uses it, if known.
        holder: Option<u32>,
    },
    /// Others could put their own sockets into it.
    #[error("{}: RuntimeDir: expected {expected}, found {found}", path.display())]
    NotSafe {
        /// Where it is.
        path: PathBuf,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is not there and cannot be made, or is no directory.
    #[error("{}: RuntimeDir: {error}", path.display())]
    Unusable {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |holder| format!("process {holder}"),
    )
}

/// A directory that this process wants for its sockets.
#[derive(Clone, Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    owner: Owner,
}

/// The directory is this process's until this is dropped.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl RuntimeDir {
    /// One that must belong to this owner.
    pub fn new(path: &Path, owner: Owner) -> Self {
        Self {
            path: path.to_owned(),
            owner,
        }
    }

    /// One that another process uses or is going to use. Root cannot know as which user that
    /// process runs.
    pub fn of_another_process(path: &Path) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self::new(path, if is_root { Owner::Any } else { Owner::Own })
    }

    /// Whether it is safe to use, if it is there and can be used at all; changes nothing.
    pub fn check(&self) -> Result<(), RuntimeDirError> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => self.judge(&metadata),
            _ => Ok(()),
        }
    }

    /// Makes it if it is missing, and takes it unless another process has it.
    pub fn take(&self) -> Result<Held, RuntimeDirError> {
        let made = DirBuilder::new().mode(0o700).create(&self.path);
        let found = match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::metadata(&self.path),
        };
        let found = found.map_err(|error| self.unusable(error))?;
        if !found.is_dir() {
            return Err(self.unusable(io::ErrorKind::NotADirectory.into()));
        }
        self.judge(&found)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.path.join(LOCK))
            .map_err(|error| self.unusable(error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RuntimeDirError::InUse {
                    path: self.path.clone(),
                    holder: written(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(self.unusable(error)),
        }
        let named = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        named.map_err(|error| self.unusable(error))?;
        Ok(Held {
            path: self.path.clone(),
            _lock: lock,
        })
    }

    /// The same where another process is about to leave it.
    pub async fn take_soon(&self) -> Result<Held, RuntimeDirError> {
        let begun = Instant::now();
        loop {
            match self.take() {
                Err(RuntimeDirError::InUse { .. }) if begun.elapsed() < LEAVING => {
                    sleep(RETRY).await;
                }
                taken => return taken,
            }
        }
    }

    /// The same, however long the other process has it, which is logged.
    pub async fn take_once_free(&self) -> Result<Held, RuntimeDirError> {
        match self.take_soon().await {
            Err(error @ RuntimeDirError::InUse { .. }) => {
                warn!(%error, "RuntimeDir is in use: commands and other gateways cannot reach this one until it is free");
            }
            taken => return taken,
        }
        loop {
            sleep(PATIENT_RETRY).await;
            match self.take() {
                Err(RuntimeDirError::InUse { .. }) => {}
                taken => return taken,
            }
        }
    }

    fn judge(&self, metadata: &Metadata) -> Result<(), RuntimeDirError> {
        let not_safe = |expected, found| {
            Err(RuntimeDirError::NotSafe {
                path: self.path.clone(),
                expected,
                found,
            })
        };
        let own = rustix::process::geteuid().as_raw();
        let is_owner = match self.owner {
            Owner::Own => [0, own].contains(&metadata.uid()),
            Owner::OwnOr(other) => [0, own, other].contains(&metadata.uid()),
            Owner::Any => true,
        };
        if !is_owner {
            let expected = format!("a directory of the gateway's user ({own})");
            return not_safe(expected, format!("one of user {}", metadata.uid()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & WRITABLE_BY_OTHERS != 0 {
            let expected = "a directory that its owner alone may write to (chmod go-w)".to_owned();
            return not_safe(expected, format!("mode {mode:04o}"));
        }
        Ok(())
    }

    fn unusable(&self, error: io::Error) -> RuntimeDirError {
        RuntimeDirError::Unusable {
            path: self.path.clone(),
            error,
        }
    }
}

/// The process id in the file. Who has just locked it may not have written it yet.
fn written(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn own(path: &Path) -> RuntimeDir {
        RuntimeDir::new(path, Owner::Own)
    }

    #[test]
    fn one_holds_it_at_a_time_and_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let held = own(&path).take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let error = own(&path).take().unwrap_err().to_string();
        let holder = format!("in use by process {};", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(held);
        // Whatever a process that was killed has left in it.
        fs::write(path.join(LOCK), "4294967295 and more").unwrap();
        drop(own(&path).take().unwrap());
        let text = fs::read_to_string(path.join(LOCK)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn one_that_others_may_write_to_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o1777, 0o720, 0o702] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            for refused in [
                own(directory.path()).take().map(drop),
                own(directory.path()).check(),
                RuntimeDir::new(directory.path(), Owner::Any).check(),
            ] {
                let error = refused.unwrap_err();
                assert!(matches!(error, RuntimeDirError::NotSafe { .. }));
                let mode = format!("found mode {mode:04o}");
                assert!(error.to_string().contains(&mode), "{error}");
            }
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
        for mode in [0o700, 0o755] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            drop(own(directory.path()).take().unwrap());
        }
    }

    #[test]
    fn what_is_no_directory_cannot_be_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), &file.path().join("below")] {
            own(path).check().unwrap();
            let error = own(path).take().unwrap_err();
            assert!(matches!(error, RuntimeDirError::Unusable { .. }), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        let link = directory.path().join(LOCK);
        std::os::unix::fs::symlink(&elsewhere, link).unwrap();
        let error = own(directory.path()).take().unwrap_err();
        assert!(matches!(error, RuntimeDirError::Unusable { .. }), "{error}");
        assert!(!elsewhere.exists());
    }

    #[tokio::test]
    async fn who_waits_has_it_once_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let held = own(directory.path()).take().unwrap();
        let wanted = own(directory.path());
        let leave = async {
            sleep(3 * RETRY).await;
            drop(held);
        };
        let (taken, ()) = tokio::join!(wanted.take_soon(), leave);
        drop(taken.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_but_who_wants_to() {
        let directory = tempfile::tempdir().unwrap();
        let held = own(directory.path()).take().unwrap();
        let wanted = own(directory.path());
        let error = wanted.take_soon().await.unwrap_err();
        assert!(matches!(error, RuntimeDirError::InUse { .. }), "{error}");
        let leave = async {
            sleep(Duration::from_mins(10)).await;
            drop(held);
        };
        let (taken, ()) = tokio::join!(wanted.take_once_free(), leave);
        drop(taken.unwrap());
    }
}
