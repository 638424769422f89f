//! Whether proxies tell by which name clients ask, to which clients are sent with their ticket.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use crate::config::Config;
use crate::host::Host;
use crate::http::{Client, Origin};

/// Proxies that are told of.
const MOST: usize = 64;

/// Tells of each proxy once that lets clients be sent to a place that cannot be theirs.
pub(super) struct PublicNames {
    /// Nobody but the proxy says where clients are.
    are_needed: bool,
    told: Mutex<HashSet<IpAddr>>,
}

impl PublicNames {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            are_needed: config.hijack_all && config.external_name.is_none(),
            told: Mutex::default(),
        }
    }

    /// Looks at a request for a desktop, on a connection to `local`.
    pub(super) fn check(&self, origin: &Origin, local: IpAddr) {
        let Some(proxy) = origin.silent_proxy().filter(|_| self.are_needed) else {
            return;
        };
        if may_be_clients(origin.host(), origin.client, local) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST && told.insert(proxy) {
            let host = origin.own_address(None, local);
            warn!(
                %proxy,
                host,
                "a proxy does not tell the name that clients use, so they are sent to another \
                 address: let it set X-Forwarded-Host, or set ExternalName"
            );
        }
    }
}

/// Whether a client may have asked for this host, although no proxy says so.
fn may_be_clients(host: Option<&Host>, client: Client, local: IpAddr) -> bool {
    let Some(host) = host else {
        return false;
    };
    match host.address() {
        Some(address) if address == local || address.is_loopback() => false,
        // Nobody reaches one from outside.
        Some(address) => !is_private(address) || !is_outside(client),
        // No name of the DNS, but proxies' own names of those behind them often are like this.
        None => !host.to_string().contains('_'),
    }
}

fn is_outside(client: Client) -> bool {
    match client {
        Client::At(address) => !is_private(address) && !address.is_loopback(),
        Client::Unnamed => false,
    }
}

/// Of a network that is nobody's own: RFC 1918, RFC 6598, RFC 4193, and addresses of a link.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_client_asks_for_is_known() {
        let outside = "203.0.113.5";
        for (host, client, expected) in [
            (Some("vdi.example.com"), outside, true),
            (Some("vdi"), outside, true),
            (Some("203.0.113.80"), outside, true),
            (Some("192.168.7.80"), "192.168.7.5", true),
            (Some("192.168.7.80"), "0.0.0.0", true),
            (Some("flexvdi_gateway"), outside, false),
            (Some("127.0.0.1"), outside, false),
            (Some("::1"), "192.168.7.5", false),
            (Some("10.0.0.11"), "192.168.7.5", false),
            (Some("192.168.7.80"), outside, false),
            (Some("100.64.0.1"), outside, false),
            (Some("fd00::80"), "2001:db8::5", false),
            (Some("169.254.1.1"), outside, false),
            (None, outside, false),
        ] {
            let parsed = host.map(|host| host.parse().unwrap());
            let client = Client::from(client.parse::<IpAddr>().unwrap());
            let found = may_be_clients(parsed.as_ref(), client, "10.0.0.11".parse().unwrap());
            assert_eq!(found, expected, "{host:?} {client}");
        }
    }
}
