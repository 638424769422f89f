//! The host and the Spice port that a channel goes to.

use std::fmt;

use crate::host::Host;

/// Where a ticket leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The Spice port.
    pub port: u16,
}

impl Target {
    /// A host's TCP port.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.for_uri(), self.port)
    }
}
