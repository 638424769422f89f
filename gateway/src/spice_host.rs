//! Where the Spice ports are that clients name themselves (`HijackAll` false).

use std::fmt;
use std::str::FromStr;

use crate::host::{Host, HostError};
use crate::socket_path::{SocketPath, SocketPathError};
use crate::target::Target;

/// What stands for the port in the path of a socket.
const PORT: &str = "%p";

/// A host, or a Unix socket for each port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiceHost {
    /// Ports are TCP ports of this host.
    Host(Host),
    /// Ports are parts of this path.
    Sockets(SocketTemplate),
}

/// The path of a Unix socket, in which `%p` is the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketTemplate(Box<str>);

/// Why a text is no [`SpiceHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiceHostError {
    /// Neither an address nor a name.
    #[error(transparent)]
    Host(#[from] HostError),
    /// `unix:`, and then no path of a socket.
    #[error(transparent)]
    Path(#[from] SocketPathError),
}

impl SpiceHost {
    /// Where a port is.
    pub fn target(&self, port: u16) -> Target {
        match self {
            Self::Host(host) => Target::new(host.clone(), port),
            Self::Sockets(template) => Target::Unix(template.path(port)),
        }
    }

    /// Whether some port is this socket.
    pub fn has(&self, path: &SocketPath) -> bool {
        match self {
            Self::Host(_) => false,
            Self::Sockets(template) => template.has(path),
        }
    }
}

impl SocketTemplate {
    fn path(&self, port: u16) -> SocketPath {
        let text = self.0.replace(PORT, &port.to_string());
        text.parse()
            .unwrap_or_else(|_| unreachable!("it was one with the longest port"))
    }

    fn has(&self, path: &SocketPath) -> bool {
        let text = path.to_string();
        let port = match self.0.split_once(PORT) {
            None => Some(0),
            Some((before, _)) => text.strip_prefix(before).and_then(|rest| {
                let end = rest.find(|digit: char| !digit.is_ascii_digit());
                rest[..end.unwrap_or(rest.len())].parse().ok()
            }),
        };
        port.is_some_and(|port| self.path(port) == *path)
    }
}

impl FromStr for SpiceHost {
    type Err = SpiceHostError;

    /// Reads an address, a name, or a text such as `unix:/run/spice/%p.sock`.
    fn from_str(text: &str) -> Result<Self, SpiceHostError> {
        let longest = text.replace(PORT, "65535");
        match Target::socket(&longest) {
            None => Ok(Self::Host(text.parse()?)),
            // What other signs with a percent mean is not settled.
            Some(Ok(path)) if !longest.contains('%') => {
                let scheme = longest.len() - path.to_string().len();
                Ok(Self::Sockets(SocketTemplate(text[scheme..].into())))
            }
            Some(_) => Err(SocketPathError.into()),
        }
    }
}

impl fmt::Display for SpiceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Sockets(template) => write!(f, "unix:{}", template.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> SpiceHost {
        let host: SpiceHost = text.parse().unwrap();
        assert_eq!(host.to_string(), text);
        host
    }

    #[test]
    fn a_port_has_a_place_at_each_kind_of_host() {
        for (host, target) in [
            ("10.0.0.7", "10.0.0.7:5901"),
            ("::1", "[::1]:5901"),
            ("unix:/run/spice/%p.sock", "unix:/run/spice/5901.sock"),
            ("unix:/run/%p/vm-%p", "unix:/run/5901/vm-5901"),
            ("unix:/run/spice.sock", "unix:/run/spice.sock"),
        ] {
            assert_eq!(parsed(host).target(5901).to_string(), target);
        }
    }

    #[test]
    fn sockets_of_other_ports_are_its_own_and_no_others() {
        let path = |text: &str| text.parse::<SocketPath>().unwrap();
        let template = parsed("unix:/run/%p/vm-%p.sock");
        assert!(template.has(&path("/run/5900/vm-5900.sock")));
        for other in [
            "/run/5900/vm-5901.sock",
            "/run/05900/vm-05900.sock",
            "/run/70000/vm-70000.sock",
            "/run/a/vm-a.sock",
            "/run/5900",
        ] {
            assert!(!template.has(&path(other)), "{other}");
        }
        let single = parsed("unix:/run/a.sock");
        assert!(single.has(&path("/run/a.sock")) && !single.has(&path("/run/b.sock")));
        assert!(!parsed("127.0.0.1").has(&path("/run/a.sock")));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in [
            "",
            "0.0.0.0",
            "unix:",
            "unix:run/a",
            "unix:/run/../a",
            "unix:/run/%d",
            "unix:/run/%",
            "/run/a.sock",
            "a b",
        ] {
            assert!(wrong.parse::<SpiceHost>().is_err(), "{wrong}");
        }
        // It must fit with every port.
        let long = format!("unix:/{}%p", "a".repeat(102));
        assert!(long.parse::<SpiceHost>().is_err());
    }
}
