//! Where channels go to: a host's Spice port, or a socket on this machine.

use std::fmt;
use std::str::FromStr;

use crate::host::{Host, HostError};
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

/// Why a text is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no port, or none that a connection can be made to.
    #[error("expected HOST:PORT with a port from 1 to 65535, such as \"10.0.0.21:5900\"")]
    Port,
    /// An IPv6 address without brackets: where it ends would be a guess.
    #[error("expected brackets around an IPv6 address, such as \"[2001:db8::21]:5900\"")]
    Brackets,
    /// What stands before the port.
    #[error("the host: {0}")]
    Host(#[from] HostError),
    /// What stands behind `unix:`.
    #[error("the socket: {0}")]
    Socket(#[from] SocketPathError),
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = Self::socket(text) {
            return Ok(Self::Unix(path?));
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::Port)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(TargetError::Brackets);
        }
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port @ 1..) if is_number => Ok(Self::new(host.parse()?, port)),
            _ => Err(TargetError::Port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_from_a_host() {
        assert_eq!(Target::socket("/run/a.sock"), None);
        assert_eq!(Target::socket("unix:run"), Some(Err(SocketPathError)));
    }

    #[test]
    fn targets_are_read_as_they_are_shown() {
        for text in [
            "10.0.0.21:5900",
            "host-a.example:1",
            "[2001:db8::21]:65535",
            "unix:/run/a.sock",
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        for (text, error) in [
            ("", TargetError::Port),
            ("10.0.0.21", TargetError::Port),
            ("10.0.0.21:", TargetError::Port),
            ("10.0.0.21:0", TargetError::Port),
            ("10.0.0.21:65536", TargetError::Port),
            ("10.0.0.21:+1", TargetError::Port),
            ("[::1]", TargetError::Port),
            ("::1:5900", TargetError::Brackets),
            (":5900", TargetError::Host(HostError::Malformed)),
            ("a b:5900", TargetError::Host(HostError::Malformed)),
            ("0.0.0.0:5900", TargetError::Host(HostError::Unspecified)),
            ("unix:run/a.sock", TargetError::Socket(SocketPathError)),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text:?}");
        }
    }
}
