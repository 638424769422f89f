//! Who is counted where limits are "for each address".

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// What one subscriber is given: an IPv4 address, or an IPv6 network of 64 bits, in which a client
/// has as many addresses as it likes (RFC 6177). The one key of everything that is counted by
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(IpAddr);

impl Subscriber {
    /// Who a client is counted as; `None`: the address is in a network of `speak_for_many`, whose
    /// clients cannot be told apart.
    pub fn unless_many(client: IpAddr, speak_for_many: &[IpNet]) -> Option<Self> {
        let is_many = speak_for_many.iter().any(|net| net.contains(&client));
        (!is_many).then(|| client.into())
    }

    /// The address, or the network's first one.
    pub fn address(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for Subscriber {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(address: &str) -> Subscriber {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv4_address_and_an_ipv6_network_are_one_each() {
        let home = subscriber("2001:db8::1");
        assert_eq!(home, subscriber("2001:db8::ffff:0:0:2"));
        assert_ne!(home, subscriber("2001:db8:0:1::1"));
        assert_ne!(subscriber("192.0.2.7"), subscriber("192.0.2.8"));
        assert_eq!(subscriber("::ffff:192.0.2.7"), subscriber("192.0.2.7"));
        assert_ne!(
            subscriber("::ffff:192.0.2.7"),
            subscriber("::ffff:192.0.2.8")
        );
        assert_eq!(subscriber(&home.address().to_string()), home);
    }

    #[test]
    fn who_speaks_for_many_is_nobody() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let of = |address: &str| Subscriber::unless_many(address.parse().unwrap(), &proxies);
        assert_eq!(of("10.1.2.3"), None);
        assert_eq!(of("192.0.2.7"), Some(subscriber("192.0.2.7")));
    }
}
