//! How many connections clients may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;
use tracing::warn;

use crate::config::{Config, DataPath};
use crate::subscriber::Subscriber;

/// Descriptors that are not for clients and hosts: log, listeners, manager, event queues.
const OWN_DESCRIPTORS: u64 = 64;

/// Connections of clients, in total and per address.
pub struct ConnectionLimits {
    open: Mutex<Open>,
    all_closed: Notify,
}

struct Bounds {
    total: usize,
    per_address: Option<usize>,
    /// Many clients share the address of a proxy.
    trusted_proxies: Vec<IpNet>,
}

struct Open {
    bounds: Bounds,
    total: usize,
    by_address: HashMap<Subscriber, usize>,
}

impl Open {
    fn has_room(&self, address: IpAddr) -> bool {
        let Bounds {
            per_address,
            trusted_proxies,
            ..
        } = &self.bounds;
        let of_address = self.by_address.get(&address.into()).copied().unwrap_or(0);
        let is_proxy = trusted_proxies.iter().any(|net| net.contains(&address));
        is_proxy || per_address.is_none_or(|limit| of_address < limit)
    }

    fn enter(&mut self, address: IpAddr) {
        *self.by_address.entry(address.into()).or_default() += 1;
    }

    fn leave(&mut self, address: IpAddr) {
        let subscriber = address.into();
        if let Some(of_address) = self.by_address.get_mut(&subscriber) {
            *of_address -= 1;
            if *of_address == 0 {
                self.by_address.remove(&subscriber);
            }
        }
    }
}

impl ConnectionLimits {
    /// At most `total` connections, `per_address` of them from one address that is no trusted
    /// proxy's.
    pub fn new(total: usize, per_address: Option<usize>, trusted_proxies: Vec<IpNet>) -> Self {
        let bounds = Bounds {
            total,
            per_address,
            trusted_proxies,
        };
        Self {
            open: Mutex::new(Open {
                bounds,
                total: 0,
                by_address: HashMap::new(),
            }),
            all_closed: Notify::new(),
        }
    }

    /// Changes what [`ConnectionLimits::new`] was given. Connections that are open stay, even
    /// when there are more than may come now.
    pub fn set(&self, total: usize, per_address: Option<usize>, trusted_proxies: Vec<IpNet>) {
        self.lock().bounds = Bounds {
            total,
            per_address,
            trusted_proxies,
        };
    }

    /// Most connections at a time.
    pub fn total(&self) -> usize {
        self.lock().bounds.total
    }

    /// Counts a new connection in, if there is room for it.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Permit> {
        let mut open = self.lock();
        if open.total >= open.bounds.total {
            return None;
        }
        if !open.has_room(peer) {
            return None;
        }
        open.enter(peer);
        open.total += 1;
        Some(Permit {
            peer,
            limits: Arc::clone(self),
        })
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.lock().total
    }

    /// Counts a connection in that another process has admitted, whether there is room or not.
    pub fn take_over(self: &Arc<Self>, peer: IpAddr) -> Permit {
        let mut open = self.lock();
        open.enter(peer);
        open.total += 1;
        Permit {
            peer,
            limits: Arc::clone(self),
        }
    }

    /// Ready once no connection is open.
    pub async fn all_closed(&self) {
        loop {
            let notified = self.all_closed.notified();
            if self.lock().total == 0 {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; free again when dropped.
pub struct Permit {
    peer: IpAddr,
    limits: Arc<ConnectionLimits>,
}

impl Permit {
    /// Counts the connection as one of another address, if there is room for it.
    pub fn moved_to(mut self, address: IpAddr) -> Option<Self> {
        let limits = Arc::clone(&self.limits);
        let mut open = limits.lock();
        if !open.has_room(address) {
            drop(open);
            return None;
        }
        open.leave(self.peer);
        open.enter(address);
        self.peer = address;
        Some(self)
    }

    /// Address of the connection's peer.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.total -= 1;
        open.leave(self.peer);
        if open.total == 0 {
            self.limits.all_closed.notify_waiters();
        }
    }
}

/// Networks of those who speak for many clients: their connections are not counted by address.
pub fn speak_for_many(config: &Config) -> Vec<IpNet> {
    let networks = config.trusted_proxies.iter().chain(&config.proxy_protocol);
    networks.copied().collect()
}

/// How many connections may be open at a time, on this data path: `MaxConnections`, or what the
/// limit on open files allows, which is then told.
pub fn most_connections(config: &Config, data_path: DataPath) -> usize {
    let configured = config.max_connections;
    let total = connections_that_fit(configured, data_path.descriptors());
    if total < configured {
        warn!(
            total,
            configured, "MaxConnections is lowered to what the limit on open files allows"
        );
    }
    total
}

/// Raises the soft limit on descriptors to the hard one, and says how many connections fit if
/// each takes so many.
fn connections_that_fit(configured: usize, descriptors_each: u64) -> usize {
    let descriptors = rlimit::increase_nofile_limit(rlimit::INFINITY)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft())
        .unwrap_or(1_024);
    let fit = descriptors.saturating_sub(OWN_DESCRIPTORS) / descriptors_each;
    configured
        .min(usize::try_from(fit).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_the_total_and_each_address() {
        let limits = Arc::new(ConnectionLimits::new(3, Some(2), vec![]));
        let first = limits.admit(address("10.0.0.1")).unwrap();
        let _second = limits.admit(address("10.0.0.1")).unwrap();
        assert!(limits.admit(address("10.0.0.1")).is_none());
        let _third = limits.admit(address("10.0.0.2")).unwrap();
        assert!(limits.admit(address("10.0.0.3")).is_none());
        drop(first);
        assert!(limits.admit(address("10.0.0.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_bounded_as_one_address() {
        let limits = Arc::new(ConnectionLimits::new(9, Some(2), vec![]));
        let held = ["2001:db8::1", "2001:db8::2"].map(|peer| limits.admit(address(peer)).unwrap());
        assert!(limits.admit(address("2001:db8::3")).is_none());
        assert!(limits.admit(address("2001:db8:0:1::3")).is_some());
        drop(held);
        assert!(limits.lock().by_address.is_empty());
        let _moved = limits.take_over(address("2001:db8::1"));
        let other = limits.admit(address("192.0.2.7")).unwrap();
        let _second = other.moved_to(address("2001:db8::2")).unwrap();
        assert!(limits.admit(address("2001:db8::3")).is_none());
    }

    #[test]
    fn new_bounds_are_for_those_that_come() {
        let limits = Arc::new(ConnectionLimits::new(2, None, vec![]));
        let held: Vec<_> = (0..2).map(|_| limits.admit(address("10.0.0.1"))).collect();
        limits.set(1, None, vec![]);
        assert!(limits.admit(address("10.0.0.1")).is_none());
        limits.set(3, Some(2), vec![]);
        assert!(limits.admit(address("10.0.0.1")).is_none());
        limits.set(3, Some(2), vec!["10.0.0.1/32".parse().unwrap()]);
        assert!(limits.admit(address("10.0.0.1")).is_some());
        assert!(held.iter().all(Option::is_some));
    }

    #[test]
    fn trusted_proxies_count_in_total_only() {
        let proxies = vec!["10.0.0.0/24".parse().unwrap()];
        let limits = Arc::new(ConnectionLimits::new(3, Some(1), proxies));
        let held: Vec<_> = (0..3).map(|_| limits.admit(address("10.0.0.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(limits.admit(address("10.0.0.1")).is_none());
    }

    #[test]
    fn connections_count_for_whom_a_balancer_names() {
        let balancer = address("10.0.0.1");
        let limits = Arc::new(ConnectionLimits::new(9, Some(1), vec![balancer.into()]));
        let admit = |client| limits.admit(balancer)?.moved_to(address(client));
        let first = admit("192.0.2.7").unwrap();
        assert!(admit("192.0.2.7").is_none());
        let _other = admit("192.0.2.8").unwrap();
        assert_eq!(limits.lock().total, 2);
        drop(first);
        assert_eq!(limits.lock().total, 1);
        assert_eq!(limits.lock().by_address.len(), 1);
        assert!(admit("192.0.2.7").is_some());
    }

    #[tokio::test]
    async fn tells_when_the_last_one_closed() {
        let limits = Arc::new(ConnectionLimits::new(3, None, vec![]));
        limits.all_closed().await;
        let permit = limits.admit(address("10.0.0.1")).unwrap();
        let waiting = {
            let limits = Arc::clone(&limits);
            tokio::spawn(async move { limits.all_closed().await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(permit);
        waiting.await.unwrap();
    }
}
