//! The peers of the gateway: a manager, Spice hosts and clients that speak what real ones were
//! recorded to speak, and the gateway's own process. The tests drive the real binary with them
//! over real sockets on loopback; the demo runs on them too.
//!
//! Everything waits for at most [`net::PATIENCE`], so that a test that goes wrong fails with a
//! message instead of hanging.

pub mod adapter;
pub mod browser;
pub mod cert;
pub mod client_cert;
pub mod command;
pub mod flexvdi;
pub mod front;
pub mod gateway;
pub mod host;
pub mod http;
pub mod line;
pub mod loaded;
pub mod manager;
pub mod namespace;
pub mod net;
pub mod netlink;
pub mod network;
pub mod packages;
pub mod pattern;
pub mod pebble;
pub mod picture;
pub mod portal;
pub mod qemu;
pub mod raw_host;
pub mod replay;
pub mod rng;
pub mod screenshot;
pub mod sock_diag;
pub mod spice;
pub mod terminal;
pub mod tls;
pub mod tun;
pub mod tunnel;
pub mod vm;
pub mod ws;

/// What nearly every test needs.
pub mod prelude {
    pub use crate::cert::TestCert;
    pub use crate::front::Front;
    pub use crate::gateway::Gateway;
    pub use crate::host::Host;
    pub use crate::manager::{DesktopAnswer, Manager};
    pub use crate::net::{Endpoint, PATIENCE, within};
    pub use crate::pattern::Pattern;
    pub use crate::spice::{ChannelType, link_message};
    pub use crate::ws;
}
