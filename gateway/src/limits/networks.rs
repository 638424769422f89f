//! Which addresses are let through, by the networks that they belong to.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Networks that are allowed and networks that are denied; what is in both is denied.
#[derive(Clone, Default)]
pub struct NetworkRules(Arc<Networks>);

#[derive(Default)]
struct Networks {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
}

impl NetworkRules {
    /// No allowed network at all: every address that is not denied is allowed.
    pub fn new(allowed: &[IpNet], denied: &[IpNet]) -> Self {
        Self(Arc::new(Networks {
            allowed: allowed.to_vec(),
            denied: denied.to_vec(),
        }))
    }

    /// Whether there is no rule at all, so that it does not matter which address somebody has.
    pub fn are_none(&self) -> bool {
        self.0.allowed.is_empty() && self.0.denied.is_empty()
    }

    /// Whether an address is let through.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let has = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        let Networks { allowed, denied } = &*self.0;
        !has(denied) && (allowed.is_empty() || has(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], denied: &[&str]) -> NetworkRules {
        let networks = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        NetworkRules::new(&networks(allowed), &networks(denied))
    }

    #[test]
    fn what_is_denied_is_never_allowed() {
        for (allowed, denied, address, expected) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "::ffff:192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "192.0.3.1", false),
            (&["192.0.2.0/24"], &[], "2001:db8::1", false),
            (&[], &["192.0.2.1/32"], "192.0.2.1", false),
            (&[], &["192.0.2.1/32"], "192.0.2.2", true),
            (&["192.0.2.0/24"], &["192.0.2.1/32"], "192.0.2.1", false),
            (&["192.0.2.1/32"], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["2001:db8::/32"], "2001:db8::1", false),
        ] {
            let allows = rules(allowed, denied).allow(address.parse().unwrap());
            assert_eq!(allows, expected, "{allowed:?} {denied:?} {address}");
        }
    }
}
