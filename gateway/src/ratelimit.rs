//! A bound on how often one client address may fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at a time; a bound on memory.
const MAX_ADDRESSES: usize = 65_536;

/// Counts failures per address and minute; too many ban the address for a time.
pub struct FailureLimit {
    /// Failures allowed per address and minute; `None`: any number.
    limit: Option<u32>,
    ban: Duration,
    /// Many clients share the address of a proxy, so its failures say nothing.
    trusted_proxies: Vec<IpNet>,
    windows: Arc<Mutex<HashMap<IpAddr, Window>>>,
}

struct Window {
    began: Instant,
    failures: u32,
    banned_until: Option<Instant>,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self {
            began,
            failures: 0,
            banned_until: None,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_banned = self.banned_until.is_some_and(|until| now < until);
        !is_banned && now.saturating_duration_since(self.began) >= WINDOW
    }
}

impl FailureLimit {
    /// `limit`: failures allowed per address and minute before it is banned for the time `ban`;
    /// `None`: any number. Addresses of `trusted_proxies` have none.
    pub fn new(limit: Option<u32>, ban: Duration, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            limit,
            ban,
            trusted_proxies,
            windows: Arc::default(),
        }
    }

    /// Another limit that knows of the failures counted so far, and counts with this one.
    #[must_use]
    pub fn changed(&self, limit: Option<u32>, ban: Duration, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            limit,
            ban,
            trusted_proxies,
            windows: Arc::clone(&self.windows),
        }
    }

    /// The addresses that are banned, and for how much longer.
    pub fn banned(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |window: &Window| window.banned_until?.checked_duration_since(now);
        windows
            .iter()
            .filter_map(|(address, window)| Some((*address, left(window)?)))
            .collect()
    }

    /// Bans addresses as another process has done, for as long.
    pub fn ban(&self, banned: impl IntoIterator<Item = (IpAddr, Duration)>, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, left) in banned.into_iter().take(MAX_ADDRESSES) {
            let window = windows.entry(address).or_insert_with(|| Window::new(now));
            window.banned_until = now.checked_add(left);
        }
    }

    /// How long an address has to wait, if it has failed too often.
    pub fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.limit?;
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let until = windows.get(&subscriber(address))?.banned_until?;
        (now < until).then(|| until.saturating_duration_since(now))
    }

    /// Notes a failure; true for the one that bans the address.
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
        if windows.len() >= MAX_ADDRESSES {
            windows.retain(|_, window| !window.is_over(now));
            if windows.len() >= MAX_ADDRESSES {
                windows.clear();
            }
        }
        let window = windows
            .entry(subscriber(address))
            .or_insert_with(|| Window::new(now));
        if window.is_over(now) {
            *window = Window::new(now);
        }
        if window.banned_until.is_some_and(|until| now < until) {
            return false;
        }
        window.failures += 1;
        if window.failures < limit {
            return false;
        }
        // Counted anew afterwards.
        *window = Window::new(now);
        window.banned_until = Some(now + self.ban);
        true
    }
}

/// What one subscriber is given: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
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
        let limit = FailureLimit::new(Some(3), WINDOW, vec![]);
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
    fn a_ban_lasts_as_long_as_it_is_configured() {
        let address = "10.0.0.1".parse().unwrap();
        for seconds in [1, 600] {
            let ban = Duration::from_secs(seconds);
            let limit = FailureLimit::new(Some(2), ban, vec![]);
            let mut now = Instant::now();
            // Again and again, in the same minute or not.
            for _ in 0..3 {
                assert!(!limit.note(address, now));
                assert!(limit.note(address, now));
                assert_eq!(limit.blocked(address, now), Some(ban));
                // What was under way already prolongs nothing.
                assert!(!limit.note(address, now));
                now += ban;
                assert_eq!(limit.blocked(address, now), None);
            }
        }
    }

    #[test]
    fn counts_an_ipv6_network_as_one() {
        let limit = FailureLimit::new(Some(1), WINDOW, vec![]);
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
        let limit = FailureLimit::new(Some(3), WINDOW, vec![]);
        let (address, now) = ("10.0.0.1".parse().unwrap(), Instant::now());
        limit.note(address, now);
        let lower = limit.changed(Some(2), WINDOW, vec![]);
        assert_eq!(lower.blocked(address, now), None);
        assert!(lower.note(address, now));
        assert!(lower.blocked(address, now).is_some());
        assert!(limit.blocked(address, now).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = FailureLimit::new(None, WINDOW, vec![]);
        let address = "10.0.0.1".parse().unwrap();
        for _ in 0..100 {
            assert!(!limit.note(address, Instant::now()));
        }
        assert_eq!(limit.blocked(address, Instant::now()), None);
    }

    #[test]
    fn a_trusted_proxy_is_never_blocked() {
        let proxies = vec!["10.0.0.0/24".parse().unwrap()];
        let limit = FailureLimit::new(Some(1), WINDOW, proxies);
        let proxy = "10.0.0.1".parse().unwrap();
        assert!(!limit.note(proxy, Instant::now()));
        assert_eq!(limit.blocked(proxy, Instant::now()), None);
    }

    #[test]
    fn bans_outlive_a_process_and_no_longer() {
        let [old, new] = [(); 2].map(|()| FailureLimit::new(Some(1), WINDOW, vec![]));
        let now = Instant::now();
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(old.note(address, now));
        new.ban(old.banned(now), now);
        assert_eq!(new.blocked(address, now), old.blocked(address, now));
        assert_eq!(new.blocked(address, now + Duration::from_secs(61)), None);
        assert!(old.banned(now + Duration::from_secs(61)).is_empty());
    }
}
