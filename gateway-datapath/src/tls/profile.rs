//! What clients may agree on.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// Versions of TLS, after the configurations that Mozilla's "Server Side TLS" recommends. In both
/// of them clients choose among the suites, all of which have an AEAD and forward secrecy, and
/// among the groups, of which `X25519MLKEM768` also withstands quantum computers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// TLS 1.3 only.
    Modern,
    /// TLS 1.2 too.
    Intermediate,
}

impl Profile {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Modern => &ALL[..1],
            Self::Intermediate => &ALL,
        }
    }
}
