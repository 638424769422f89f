//! A bound on how many wrong tokens one client address may send.
//!
//! Distinct ones are counted: who guesses sends another one each time, while a client that comes
//! back with a ticket of yesterday sends the same one for ever.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Subscriber;

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at a time; a bound on memory.
const MAX_ADDRESSES: usize = 65_536;
/// Wrong tokens of an address that are remembered, the latest: a bound on memory, and more than
/// the usual limit.
const REMEMBERED: usize = 32;

/// Counts wrong tokens per address and minute; too many ban the address for a time.
pub struct FailureLimit {
    /// Failures allowed per address and minute; `None`: any number.
    limit: Option<u32>,
    ban: Duration,
    /// Many clients share the address of a proxy, so its failures say nothing.
    trusted_proxies: Vec<IpNet>,
    windows: Arc<Mutex<HashMap<Subscriber, Window>>>,
    /// Of tokens, which are not kept themselves.
    hashes: RandomState,
}

struct Window {
    began: Instant,
    failures: u32,
    /// Hashes of the latest wrong tokens.
    wrong: VecDeque<u64>,
    banned_until: Option<Instant>,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self {
            began,
            failures: 0,
            wrong: VecDeque::new(),
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
            hashes: RandomState::new(),
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
            hashes: self.hashes.clone(),
        }
    }

    /// The addresses that are banned, and for how much longer.
    pub fn banned(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |window: &Window| window.banned_until?.checked_duration_since(now);
        windows
            .iter()
            .filter_map(|(address, window)| Some((address.address(), left(window)?)))
            .collect()
    }

    /// Bans addresses as another process has done, for as long.
    pub fn ban(&self, banned: impl IntoIterator<Item = (IpAddr, Duration)>, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, left) in banned.into_iter().take(MAX_ADDRESSES) {
            let window = windows
                .entry(address.into())
                .or_insert_with(|| Window::new(now));
            window.banned_until = now.checked_add(left);
        }
    }

    /// How long an address has to wait, if it has failed too often.
    pub fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.limit?;
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let until = windows.get(&address.into())?.banned_until?;
        (now < until).then(|| until.saturating_duration_since(now))
    }

    /// Notes a wrong token, or that there was none; true for the one that bans the address. One
    /// that came before is not counted again.
    pub fn note(&self, address: IpAddr, token: Option<&str>, now: Instant) -> bool {
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
            .entry(address.into())
            .or_insert_with(|| Window::new(now));
        if window.is_over(now) {
            *window = Window::new(now);
        }
        if window.banned_until.is_some_and(|until| now < until) {
            return false;
        }
        let hash = self.hashes.hash_one(token);
        if window.wrong.contains(&hash) {
            return false;
        }
        if window.wrong.len() >= REMEMBERED {
            window.wrong.pop_front();
        }
        window.wrong.push_back(hash);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes so many distinct wrong tokens, and says which of them ban.
    fn guesses(limit: &FailureLimit, address: IpAddr, count: u32, now: Instant) -> Vec<bool> {
        let note = |number: u32| limit.note(address, Some(&number.to_string()), now);
        (0..count).map(note).collect()
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let limit = FailureLimit::new(Some(5), Duration::from_secs(60), vec![]);
        let now = Instant::now();
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 10 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            limit.note(address.into(), Some("guess"), now);
        }
        let remembered = limit.windows.lock().unwrap().len();
        assert!(remembered <= MAX_ADDRESSES, "{remembered}");
    }

    #[test]
    fn the_same_wrong_token_counts_once() {
        let limit = FailureLimit::new(Some(3), WINDOW, vec![]);
        let (address, now) = ("10.0.0.1".parse().unwrap(), Instant::now());
        for _ in 0..100 {
            assert!(!limit.note(address, Some("stale"), now));
            assert!(!limit.note(address, None, now));
        }
        assert_eq!(limit.blocked(address, now), None);
        assert!(limit.note(address, Some("another"), now));
        assert!(limit.blocked(address, now).is_some());
    }

    #[test]
    fn a_high_limit_is_reached_with_few_tokens_remembered() {
        let limit = FailureLimit::new(Some(1_000), WINDOW, vec![]);
        let (address, now) = ("10.0.0.1".parse().unwrap(), Instant::now());
        let banned = guesses(&limit, address, 1_000, now);
        assert_eq!(banned.iter().position(|banned| *banned), Some(999));
        let again = limit.changed(Some(2), WINDOW, vec![]);
        assert_eq!(again.hashes.hash_one("a"), limit.hashes.hash_one("a"));
    }

    #[test]
    fn blocks_the_address_that_failed_and_only_for_the_window() {
        let limit = FailureLimit::new(Some(3), WINDOW, vec![]);
        let now = Instant::now();
        let (bad, good) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!(guesses(&limit, bad, 3, now), [false, false, true]);
        assert_eq!(limit.blocked(bad, now), Some(WINDOW));
        assert_eq!(limit.blocked(good, now), None);
        assert_eq!(limit.blocked(bad, now + WINDOW), None);
        assert_eq!(guesses(&limit, bad, 1, now + WINDOW), [false]);
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
                assert_eq!(guesses(&limit, address, 2, now), [false, true]);
                assert_eq!(limit.blocked(address, now), Some(ban));
                // What was under way already prolongs nothing.
                assert_eq!(guesses(&limit, address, 1, now), [false]);
                now += ban;
                assert_eq!(limit.blocked(address, now), None);
            }
        }
    }

    #[test]
    fn counts_an_ipv6_network_as_one() {
        let limit = FailureLimit::new(Some(1), WINDOW, vec![]);
        let now = Instant::now();
        guesses(&limit, "2001:db8::1".parse().unwrap(), 1, now);
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
        guesses(&limit, address, 1, now);
        let lower = limit.changed(Some(2), WINDOW, vec![]);
        assert_eq!(lower.blocked(address, now), None);
        assert!(lower.note(address, Some("another"), now));
        assert!(lower.blocked(address, now).is_some());
        assert!(limit.blocked(address, now).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = FailureLimit::new(None, WINDOW, vec![]);
        let address = "10.0.0.1".parse().unwrap();
        assert!(!guesses(&limit, address, 100, Instant::now()).contains(&true));
        assert_eq!(limit.blocked(address, Instant::now()), None);
    }

    #[test]
    fn a_trusted_proxy_is_never_blocked() {
        let proxies = vec!["10.0.0.0/24".parse().unwrap()];
        let limit = FailureLimit::new(Some(1), WINDOW, proxies);
        let proxy = "10.0.0.1".parse().unwrap();
        assert_eq!(guesses(&limit, proxy, 1, Instant::now()), [false]);
        assert_eq!(limit.blocked(proxy, Instant::now()), None);
    }

    #[test]
    fn bans_outlive_a_process_and_no_longer() {
        let [old, new] = [(); 2].map(|()| FailureLimit::new(Some(1), WINDOW, vec![]));
        let now = Instant::now();
        let address = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(guesses(&old, address, 1, now), [true]);
        new.ban(old.banned(now), now);
        assert_eq!(new.blocked(address, now), old.blocked(address, now));
        assert_eq!(new.blocked(address, now + Duration::from_secs(61)), None);
        assert!(old.banned(now + Duration::from_secs(61)).is_empty());
    }
}
