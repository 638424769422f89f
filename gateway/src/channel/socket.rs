//! Connecting to a Unix socket of a host.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::config::Config;
use crate::socket_path::SocketPath;
use crate::spice_host::SpiceHost;

/// Pause before a socket is tried again that has no room for another connection: the kernel tells
/// nobody when it has (`unix_stream_connect`, `net/unix/af_unix.c`).
const PAUSE: Duration = Duration::from_millis(20);

/// Which sockets may be connected to.
#[derive(Clone, Debug)]
pub(super) struct SocketRules {
    /// Those below these directories.
    directories: Vec<SocketPath>,
    /// Those of this host, where clients name ports themselves.
    own: Option<SpiceHost>,
}

/// Where a socket is to be looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below a directory, and nowhere else wherever symbolic links lead.
    Below(PathBuf, PathBuf),
    /// Where the administrator has said.
    At(PathBuf),
}

impl SocketRules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            directories: config.allowed_sockets.clone(),
            own: (!config.hijack_all).then(|| config.spice_host.clone()),
        }
    }

    /// Where to look for a socket; `None`: nowhere, it is not allowed.
    pub(super) fn place(&self, path: &SocketPath) -> Option<Place> {
        if self.own.as_ref().is_some_and(|own| own.has(path)) {
            return Some(Place::At(path.as_path().to_owned()));
        }
        self.directories.iter().find_map(|directory| {
            let below = path.below(directory)?;
            let directory = directory.as_path().to_owned();
            Some(Place::Below(directory, below.to_owned()))
        })
    }
}

/// Finds a socket, and holds on to it: whatever takes its place later is not connected to. Blocks,
/// as file systems do.
///
/// Fails with `EXDEV` where a symbolic link leads out of the directory.
pub(super) fn find(place: &Place) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = match place {
        Place::At(path) => openat(CWD, path, flags, Mode::empty())?,
        Place::Below(directory, name) => {
            let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
            // A relative link may lead anywhere below; an absolute one counts as leading out.
            let stays = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            openat2(&directory, name, flags, Mode::empty(), stays)?
        }
    };
    if FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Socket {
        Ok(found)
    } else {
        let message = "it is no socket";
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// Connects to a socket that was found. Sets no limit on time.
pub(super) async fn connect(found: &OwnedFd) -> io::Result<UnixStream> {
    // The kernel connects to names only; this one means what is held (proc(5)).
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    loop {
        match UnixStream::connect(Path::new(&name)).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn rules(directories: &[&Path], own: Option<&str>) -> SocketRules {
        let parse = |path: &&Path| path.to_str().unwrap().parse().unwrap();
        SocketRules {
            directories: directories.iter().map(parse).collect(),
            own: own.map(|own| own.parse().unwrap()),
        }
    }

    /// What comes of a path: found, refused by its name, or an error of the system.
    fn look(rules: &SocketRules, path: &Path) -> Option<io::Result<OwnedFd>> {
        let path = path.to_str().unwrap().parse().unwrap();
        rules.place(&path).map(|place| find(&place))
    }

    #[tokio::test]
    async fn a_socket_is_found_below_an_allowed_directory_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (allowed, other) = (root.join("allowed"), root.join("other"));
        std::fs::create_dir_all(allowed.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        let inside = UnixListener::bind(allowed.join("deep/a.sock")).unwrap();
        let _outside = UnixListener::bind(other.join("b.sock")).unwrap();
        std::fs::write(allowed.join("file"), "").unwrap();
        symlink("deep/a.sock", allowed.join("near")).unwrap();
        symlink("../other/b.sock", allowed.join("out")).unwrap();
        symlink(other.join("b.sock"), allowed.join("far")).unwrap();
        symlink("../other", allowed.join("dir")).unwrap();

        let rules = rules(&[&allowed], None);
        for good in ["deep/a.sock", "near"] {
            let found = look(&rules, &allowed.join(good)).unwrap().unwrap();
            connect(&found).await.unwrap();
            inside.accept().unwrap();
        }
        for leads_out in ["out", "far", "dir/b.sock"] {
            let error = look(&rules, &allowed.join(leads_out)).unwrap().unwrap_err();
            let out = rustix::io::Errno::XDEV.raw_os_error();
            assert_eq!(error.raw_os_error(), Some(out), "{leads_out}");
        }
        for none in ["file", "deep"] {
            let error = look(&rules, &allowed.join(none)).unwrap().unwrap_err();
            assert_eq!(error.to_string(), "it is no socket");
        }
        let missing = look(&rules, &allowed.join("missing")).unwrap();
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(look(&rules, &other.join("b.sock")).is_none());
        assert!(look(&rules, &allowed).is_none());
    }

    #[tokio::test]
    async fn the_spice_hosts_own_sockets_need_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let _socket = UnixListener::bind(root.join("5900")).unwrap();
        let own = format!("unix:{}/%p", root.display());
        let rules = rules(&[], Some(&own));
        assert!(look(&rules, &root.join("5900")).unwrap().is_ok());
        assert!(look(&rules, &root.join("other")).is_none());
    }

    #[tokio::test]
    async fn what_takes_the_place_of_a_socket_is_not_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = UnixListener::bind(&path).unwrap();
        let found = find(&Place::At(path.clone())).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = UnixListener::bind(&path).unwrap();
        second.set_nonblocking(true).unwrap();
        connect(&found).await.unwrap();
        first.accept().unwrap();
        assert!(second.accept().is_err());
    }
}
