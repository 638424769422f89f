//! A socket in a directory that only the gateway's user may use.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

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

/// Opens a socket with mode 0600; one that lies there is replaced at once, so that there is
/// always one to connect to. A directory that is missing is made.
pub(crate) fn bind(directory: &Path, name: &str) -> io::Result<(UnixListener, Bound)> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
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
            Ok((listener, Bound { path, inode }))
        }
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_later_one_has_the_place_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("run");
        let path = inside.join("x.sock");
        let (_first, earlier) = bind(&inside, "x.sock").unwrap();
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, later) = bind(&inside, "x.sock").unwrap();
        drop(earlier);
        let (connected, accepted) =
            tokio::join!(tokio::net::UnixStream::connect(&path), second.accept());
        connected.unwrap();
        accepted.unwrap();
        drop(later);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_the_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(bind(file.path(), "x.sock").is_err());
        assert!(bind(&file.path().join("below"), "x.sock").is_err());
    }
}
