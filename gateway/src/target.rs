//! Where channels go to: a host's Spice port, or a socket on this machine.

use std::fmt;
use std::str::FromStr;

use crate::host::Host;
use crate::socket_path::{SocketPath, SocketPathError};

/// What a socket's path follows in a text that could as well be a host.
const UNIX: &str = "unix:";

/// Where a ticket leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host's TCP port.
    Tcp {
        /// The host.
        host: Host,
        /// The Spice port.
        port: u16,
    },
    /// A Unix socket.
    Unix(SocketPath),
}

impl Target {
    /// A host's TCP port.
    pub fn new(host: Host, port: u16) -> Self {
        Self::Tcp { host, port }
    }

    /// The socket that a text such as `unix:/run/spice.sock` names; `None`: it names none, but
    /// perhaps a host.
    pub fn socket(text: &str) -> Option<Result<SocketPath, SocketPathError>> {
        text.strip_prefix(UNIX).map(SocketPath::from_str)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{}:{port}", host.for_uri()),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_shown_as_they_are_written() {
        let tcp = Target::new("::1".parse().unwrap(), 5900);
        assert_eq!(tcp.to_string(), "[::1]:5900");
        let path = Target::socket("unix:/run/a.sock").unwrap().unwrap();
        assert_eq!(Target::Unix(path).to_string(), "unix:/run/a.sock");
        assert_eq!(Target::socket("/run/a.sock"), None);
        assert_eq!(Target::socket("unix:run"), Some(Err(SocketPathError)));
    }
}
