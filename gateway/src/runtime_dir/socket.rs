//! A socket in a directory that only the gateway's user may use.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::Held;

/// Takes connections of processes of the same user, or root's.
pub(crate) struct OwnListener {
    listener: UnixListener,
    name: &'static str,
}

/// The place of a socket in the file system; freed when dropped, unless another process has
/// taken it over.
pub(crate) struct Bound {
    path: PathBuf,
    inode: u64,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl OwnListener {
    /// Opens a socket with mode 0600; one that a gateway before has left there is replaced at
    /// once, so that there is always one to connect to. Must be called in a runtime.
    pub(crate) fn bind(directory: &Held, name: &'static str) -> io::Result<(Self, Bound)> {
        let directory = directory.path();
        let path = directory.join(name);
        let fresh = directory.join(format!("{name}.{}", std::process::id()));
        // Of a process with the same number that did not end well.
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        let placed = fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| fs::symlink_metadata(&path));
        match placed {
            Ok(metadata) => {
                let inode = metadata.ino();
                Ok((Self { listener, name }, Bound { path, inode }))
            }
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Waits for the next connection; those of other users are closed, which is logged.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let socket = self.name;
            match stream.peer_cred() {
                Ok(peer) if is_trusted(peer.uid()) => return Ok(stream),
                Ok(peer) => {
                    let user = peer.uid();
                    warn!(socket, user, "refused a process of another user");
                }
                Err(error) => warn!(socket, %error, "refused a process of an unknown user"),
            }
        }
    }
}

fn is_trusted(user: u32) -> bool {
    [0, rustix::process::geteuid().as_raw()].contains(&user)
}

#[cfg(test)]
mod tests {
    use super::super::{Owner, RuntimeDir};
    use super::*;

    #[tokio::test]
    async fn the_later_one_has_the_place_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("run");
        let held = RuntimeDir::new(&inside, Owner::Own).take().unwrap();
        let path = inside.join("x.sock");
        let (_first, earlier) = OwnListener::bind(&held, "x.sock").unwrap();
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, later) = OwnListener::bind(&held, "x.sock").unwrap();
        drop(earlier);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), second.accept());
        connected.unwrap();
        accepted.unwrap();
        drop(later);
        assert!(!path.exists());
        let left = fs::read_dir(&inside).unwrap().count();
        assert_eq!(left, 1, "the lock's file alone is left");
    }

    #[test]
    fn root_and_the_own_user_are_trusted_and_no_other() {
        let own = rustix::process::geteuid().as_raw();
        assert!(is_trusted(0));
        assert!(is_trusted(own));
        assert!(!is_trusted(own + 1));
    }
}
