//! Paths of Unix sockets: absolute, and each place with one path only.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Longest path that the kernel takes when a socket is bound (unix(7): `sun_path` less its NUL), in
/// bytes.
const MAX_LENGTH: usize = 107;

/// An absolute path of printable characters, without `.`, `..`, `//` and a slash at its end. Where
/// symbolic links on the way lead is not known of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketPath(Box<str>);

/// Why a text is no [`SocketPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no absolute path without \".\", \"..\" and \"//\" of at most 107 bytes")]
pub struct SocketPathError;

impl SocketPath {
    /// As the system takes it.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// What follows `directory` in it; `None`: it lies elsewhere, as far as the names tell.
    pub fn below(&self, directory: &Self) -> Option<&Path> {
        let rest = self.0.strip_prefix(&*directory.0)?;
        rest.strip_prefix('/').map(Path::new)
    }
}

impl FromStr for SocketPath {
    type Err = SocketPathError;

    fn from_str(text: &str) -> Result<Self, SocketPathError> {
        let names = text.strip_prefix('/').ok_or(SocketPathError)?;
        let is_name = |name: &str| !matches!(name, "" | "." | "..");
        let is_sound = text.len() <= MAX_LENGTH
            && names.split('/').all(is_name)
            && !text.chars().any(char::is_control);
        is_sound.then(|| Self(text.into())).ok_or(SocketPathError)
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_one_path() {
        let longest = format!("/{}", "a".repeat(106));
        for path in ["/run/a.sock", "/a", "/run/libvirt/qemu/ä b%", &longest] {
            let parsed: SocketPath = path.parse().unwrap();
            assert_eq!(parsed.to_string(), path);
        }
        for wrong in [
            "",
            "/",
            "run/a",
            "./a",
            "/run/",
            "/run//a",
            "//run",
            "/run/../a",
            "/..",
            "/run/./a",
            "/a\n",
            "/a\0",
            "unix:/a",
            &format!("{longest}a"),
        ] {
            assert!(wrong.parse::<SocketPath>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_below_a_directory_is_told_by_whole_names() {
        let path = |text: &str| text.parse::<SocketPath>().unwrap();
        let socket = path("/run/vdi/7/spice.sock");
        assert_eq!(
            socket.below(&path("/run/vdi")),
            Some(Path::new("7/spice.sock"))
        );
        for elsewhere in ["/run/vd", "/run/vdi/7/spice.sock", "/srv", "/run/vdi/8"] {
            assert_eq!(socket.below(&path(elsewhere)), None, "{elsewhere}");
        }
    }
}
