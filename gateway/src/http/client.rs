//! Whom a request comes from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The client that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It comes from this address, as the connection shows or trusted proxies tell.
    At(IpAddr),
    /// A trusted proxy passed the request on and named nobody. It is not the proxy itself, and
    /// may be anyone: no list of networks lets it through, and limits count all of these together.
    Unnamed,
}

impl Client {
    /// What stands for all unnamed clients where an address is needed, in limits and in logs. No
    /// client can have it.
    pub const UNNAMED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    /// Under which address it is counted and shown.
    pub fn address(self) -> IpAddr {
        match self {
            Self::At(address) => address,
            Self::Unnamed => Self::UNNAMED,
        }
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        if address.is_unspecified() {
            Self::Unnamed
        } else {
            Self::At(address)
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}
