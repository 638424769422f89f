//! A bound on how often one client address may fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at a time; a bound on memory.
const MAX_ADDRESSES: usize = 65_536;

/// Counts failures per address and minute.
pub struct FailureLimit {
    /// Failures allowed per address and minute; `None`: any number.
    limit: Option<u32>,
    /// Many clients share the address of a proxy, so its failures say nothing.
    trusted_proxies: Vec<IpNet>,
    windows: Arc<Mutex<HashMap<IpAddr, Window>>>,
}

struct Window {
    began: Instant,
    failures: u32,
}

impl FailureLimit {
    /// `limit`: failures allowed per address and minute; `None`: any number. Addresses of
    /// `trusted_proxies` have none.
    pub fn new(limit: Option<u32>, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            limit,
            trusted_proxies,
            windows: Arc::default(),
        }
    }

    /// Another limit that knows of the failures counted so far, and counts with this one.
    #[must_use]
    pub fn changed(&self, limit: Option<u32>, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            limit,
            trusted_proxies,
            windows: Arc::clone(&self.windows),
        }
    }

    /// How long an address has to wait, if it has failed too often.
    pub fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let limit = self.limit?;
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(&subscriber(address))?;
        let age = now.saturating_duration_since(window.began);
        (window.failures >= limit && age < WINDOW).then(|| WINDOW.saturating_sub(age))
    }

    /// Notes a failure; true for the one that reaches the limit.
    pub fn note(&self, address: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        if self
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
        {
            return false;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |window: &Window| now.saturating_duration_since(window.began) < WINDOW;
        if windows.len() >= MAX_ADDRESSES {
            windows.retain(|_, window| fresh(window));
            if windows.len() >= MAX_ADDRESSES {
                windows.clear();
            }
        }
        let window = windows.entry(subscriber(address)).or_insert(Window {
            began: now,
            failures: 0,
        });
        if !fresh(window) {
            *window = Window {
                began: now,
                failures: 0,
            };
        }
        window.failures = window.failures.saturating_add(1);
        window.failures == limit
    }
}

/// What one subscriber is given: an IPv4 address, or an IPv6 network of 64 bits.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_the_address_that_failed_and_only_for_the_window() {
        let limit = FailureLimit::new(Some(3), vec![]);
        let now = Instant::now();
        let (bad, good) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!([(); 3].map(|()| limit.note(bad, now)), [false, false, true]);
        assert_eq!(limit.blocked(bad, now), Some(WINDOW));
        assert_eq!(limit.blocked(good, now), None);
        assert_eq!(limit.blocked(bad, now + WINDOW), None);
        assert!(!limit.note(bad, now + WINDOW));
        assert_eq!(limit.blocked(bad, now + WINDOW), None);
    }

    #[test]
    fn counts_an_ipv6_network_as_one() {
        let limit = FailureLimit::new(Some(1), vec![]);
        let now = Instant::now();
        limit.note("2001:db8::1".parse().unwrap(), now);
        assert!(limit.blocked("2001:db8::2".parse().unwrap(), now).is_some());
        assert!(
            limit
                .blocked("2001:db8:0:1::2".parse().unwrap(), now)
                .is_none()
        );
    }

    #[test]
    fn a_changed_limit_knows_what_was_counted() {
        let limit = FailureLimit::new(Some(3), vec![]);
        let (address, now) = ("10.0.0.1".parse().unwrap(), Instant::now());
        limit.note(address, now);
        let lower = limit.changed(Some(2), vec![]);
        assert_eq!(lower.blocked(address, now), None);
        assert!(lower.note(address, now));
        assert!(lower.blocked(address, now).is_some());
        assert_eq!(limit.blocked(address, now), None);
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = FailureLimit::new(None, vec![]);
        let address = "10.0.0.1".parse().unwrap();
        for _ in 0..100 {
            assert!(!limit.note(address, Instant::now()));
        }
        assert_eq!(limit.blocked(address, Instant::now()), None);
    }

    #[test]
    fn a_trusted_proxy_is_never_blocked() {
        let proxies = vec!["10.0.0.0/24".parse().unwrap()];
        let limit = FailureLimit::new(Some(1), proxies);
        let proxy = "10.0.0.1".parse().unwrap();
        assert!(!limit.note(proxy, Instant::now()));
        assert_eq!(limit.blocked(proxy, Instant::now()), None);
    }
}
