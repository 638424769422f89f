//! How many connections clients may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;
use tracing::warn;

use super::Subscriber;
use crate::config::Config;

/// Descriptors that are not for clients and hosts: log, listeners, manager, event queues.
const OWN_DESCRIPTORS: u64 = 64;

/// Limits on connections from which on a share of them is kept free; less would be no use to a
/// desktop, which takes several.
const SHARED_FROM: usize = 128;

/// Connections of clients, in total and per address; those whose handshake is not finished are
/// bounded apart, too.
///
/// A share of the places of each kind is kept free for addresses that hold few, so that not even
/// several addresses can take all of them from everybody.
pub struct ConnectionLimits {
    open: Mutex<Open>,
    all_closed: Notify,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// In all, or of its address.
    #[error("too many connections")]
    Connections,
    /// So many have not finished their handshakes.
    #[error("too many unfinished handshakes")]
    Unfinished,
}

struct Open {
    connections: Places,
    /// Those of `connections` whose handshake is not finished.
    unfinished: Places,
    /// Many clients share the address of a proxy.
    trusted_proxies: Vec<IpNet>,
    /// Connections that were closed since the process began.
    closed: u64,
}

/// Places of one kind, and who holds them.
struct Places {
    most: usize,
    per_holder: Option<usize>,
    taken: usize,
    by_holder: HashMap<Subscriber, usize>,
}

impl Places {
    fn new(most: usize, per_holder: Option<usize>) -> Self {
        Self {
            most,
            per_holder,
            taken: 0,
            by_holder: HashMap::new(),
        }
    }

    /// How many of the places are only for those who hold few.
    fn kept_free(&self) -> usize {
        if self.most < SHARED_FROM {
            return 0;
        }
        (self.most / 8).max(32)
    }

    /// Below how many places somebody holds few: a desktop's channels, and so few that five
    /// addresses cannot take what is kept free.
    fn few(&self) -> usize {
        (self.kept_free() / 8).clamp(4, 16)
    }

    /// Whether another one fits that would be counted for `holder`, beside `taken` others.
    fn has_room(&self, holder: Subscriber, taken: usize) -> bool {
        let held = self.by_holder.get(&holder).copied().unwrap_or(0);
        self.per_holder.is_none_or(|limit| held < limit)
            && (held < self.few() || taken + self.kept_free() < self.most)
    }

    fn enter(&mut self, holder: Subscriber) {
        self.taken += 1;
        *self.by_holder.entry(holder).or_default() += 1;
    }

    fn leave(&mut self, holder: Subscriber) {
        self.taken -= 1;
        if let Some(held) = self.by_holder.get_mut(&holder) {
            *held -= 1;
            if *held == 0 {
                self.by_holder.remove(&holder);
            }
        }
    }
}

impl Open {
    /// Changes bounds; who holds places keeps them.
    fn set(&mut self, total: usize, per_address: Option<usize>, trusted_proxies: Vec<IpNet>) {
        self.connections.most = total;
        self.connections.per_holder = per_address;
        self.unfinished.most = most_unfinished(total);
        self.trusted_proxies = trusted_proxies;
    }

    /// Whether another one of this address may enter, beside so many others.
    fn check(&self, address: IpAddr, others: usize, unfinished: usize) -> Result<(), TooMany> {
        let is_proxy = self.trusted_proxies.iter().any(|n| n.contains(&address));
        let fits = |places: &Places, taken| {
            taken < places.most && (is_proxy || places.has_room(address.into(), taken))
        };
        if !fits(&self.connections, others) {
            return Err(TooMany::Connections);
        }
        if !fits(&self.unfinished, unfinished) {
            return Err(TooMany::Unfinished);
        }
        Ok(())
    }
}

/// Most connections at a time whose handshake is not finished, of so many.
fn most_unfinished(total: usize) -> usize {
    (total / 4).max(64).min(total)
}

impl ConnectionLimits {
    /// At most `total` connections, `per_address` of them from one address that is no trusted
    /// proxy's.
    pub fn new(total: usize, per_address: Option<usize>, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            open: Mutex::new(Open {
                connections: Places::new(total, per_address),
                unfinished: Places::new(most_unfinished(total), None),
                trusted_proxies,
                closed: 0,
            }),
            all_closed: Notify::new(),
        }
    }

    /// Changes what [`ConnectionLimits::new`] was given. Connections that are open stay, even
    /// when there are more than may come now.
    pub fn set(&self, total: usize, per_address: Option<usize>, trusted_proxies: Vec<IpNet>) {
        self.lock().set(total, per_address, trusted_proxies);
    }

    /// Most connections at a time.
    pub fn total(&self) -> usize {
        self.lock().connections.most
    }

    /// Counts a new connection in, if there is room for it. Its handshake is not finished.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Permit, TooMany> {
        let mut open = self.lock();
        open.check(peer, open.connections.taken, open.unfinished.taken)?;
        open.connections.enter(peer.into());
        open.unfinished.enter(peer.into());
        Ok(Permit {
            peer,
            is_unfinished: true,
            limits: Arc::clone(self),
        })
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.lock().connections.taken
    }

    /// Connections that were closed since the process began.
    pub fn closed(&self) -> u64 {
        self.lock().closed
    }

    /// Counts a connection in that another process has admitted, whether there is room or not.
    pub fn take_over(self: &Arc<Self>, peer: IpAddr) -> Permit {
        self.lock().connections.enter(peer.into());
        Permit {
            peer,
            is_unfinished: false,
            limits: Arc::clone(self),
        }
    }

    /// Ready once no connection is open.
    pub async fn all_closed(&self) {
        loop {
            let notified = self.all_closed.notified();
            if self.lock().connections.taken == 0 {
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
    is_unfinished: bool,
    limits: Arc<ConnectionLimits>,
}

impl Permit {
    /// Counts the connection as one of another address, if there is room for it. Its handshake
    /// must not be finished.
    pub fn moved_to(mut self, address: IpAddr) -> Result<Self, TooMany> {
        let limits = Arc::clone(&self.limits);
        let moved = {
            let open = &mut *limits.lock();
            let (others, unfinished) = (open.connections.taken, open.unfinished.taken);
            let checked = open.check(
                address,
                others.saturating_sub(1),
                unfinished.saturating_sub(1),
            );
            checked.map(|()| {
                for places in [&mut open.connections, &mut open.unfinished] {
                    places.leave(self.peer.into());
                    places.enter(address.into());
                }
            })
        };
        moved?;
        self.peer = address;
        Ok(self)
    }

    /// The handshake is finished: the connection is no longer counted among those whose is not.
    pub fn finished(&mut self) {
        if std::mem::take(&mut self.is_unfinished) {
            self.limits.lock().unfinished.leave(self.peer.into());
        }
    }

    /// Address of the connection's peer.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.finished();
        let mut open = self.limits.lock();
        open.connections.leave(self.peer.into());
        open.closed += 1;
        if open.connections.taken == 0 {
            self.limits.all_closed.notify_waiters();
        }
    }
}

/// Networks of those who speak for many clients: their connections are not counted by address.
pub fn speak_for_many(config: &Config) -> Vec<IpNet> {
    let networks = config.trusted_proxies.iter().chain(&config.proxy_protocol);
    networks.copied().collect()
}

/// How many connections may be open at a time where each takes so many descriptors at most:
/// `MaxConnections`, or what the limit on open files allows, which is then logged.
pub fn most_connections(config: &Config, descriptors_each: u64) -> usize {
    let configured = config.max_connections;
    let total = connections_that_fit(configured, descriptors_each);
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
    connections_within(descriptors, configured, descriptors_each)
}

/// How many connections fit into so many descriptors if each takes so many.
pub fn connections_within(descriptors: u64, configured: usize, descriptors_each: u64) -> usize {
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
        assert!(limits.admit(address("10.0.0.1")).is_err());
        let _third = limits.admit(address("10.0.0.2")).unwrap();
        assert!(limits.admit(address("10.0.0.3")).is_err());
        drop(first);
        assert!(limits.admit(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_bounded_as_one_address() {
        let limits = Arc::new(ConnectionLimits::new(9, Some(2), vec![]));
        let held = ["2001:db8::1", "2001:db8::2"].map(|peer| limits.admit(address(peer)).unwrap());
        assert!(limits.admit(address("2001:db8::3")).is_err());
        assert!(limits.admit(address("2001:db8:0:1::3")).is_ok());
        drop(held);
        assert!(limits.lock().connections.by_holder.is_empty());
        let _moved = limits.take_over(address("2001:db8::1"));
        let other = limits.admit(address("192.0.2.7")).unwrap();
        let _second = other.moved_to(address("2001:db8::2")).unwrap();
        assert!(limits.admit(address("2001:db8::3")).is_err());
    }

    #[test]
    fn new_bounds_are_for_those_that_come() {
        let limits = Arc::new(ConnectionLimits::new(2, None, vec![]));
        let held: Vec<_> = (0..2).map(|_| limits.admit(address("10.0.0.1"))).collect();
        limits.set(1, None, vec![]);
        assert!(limits.admit(address("10.0.0.1")).is_err());
        limits.set(3, Some(2), vec![]);
        assert!(limits.admit(address("10.0.0.1")).is_err());
        limits.set(3, Some(2), vec!["10.0.0.1/32".parse().unwrap()]);
        assert!(limits.admit(address("10.0.0.1")).is_ok());
        assert!(held.iter().all(Result::is_ok));
    }

    /// Takes as many places for each of these addresses as it gets, with handshakes finished.
    fn take_all(limits: &Arc<ConnectionLimits>, addresses: &[&str]) -> Vec<Permit> {
        let admitted = addresses.iter().flat_map(|text| {
            std::iter::from_fn(move || {
                let mut permit = limits.admit(address(text)).ok()?;
                permit.finished();
                Some(permit)
            })
        });
        admitted.collect()
    }

    const GREEDY: [&str; 5] = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "2001:db8::1",
    ];

    #[test]
    fn five_addresses_cannot_take_all_places() {
        for total in [128, 200, 500, 5_000, 20_000] {
            let limits = Arc::new(ConnectionLimits::new(total, None, vec![]));
            let held = take_all(&limits, &GREEDY);
            assert!(held.len() > total / 2, "{total}: {}", held.len());
            let desktop = take_all(&limits, &["10.0.0.9"]);
            assert!(desktop.len() >= 4, "{total}: {}", desktop.len());
        }
        // Where there are few, they are for whoever comes.
        let limits = Arc::new(ConnectionLimits::new(8, None, vec![]));
        assert_eq!(take_all(&limits, &GREEDY[..1]).len(), 8);
    }

    #[test]
    fn unfinished_handshakes_leave_room_for_channels_and_for_other_handshakes() {
        let limits = Arc::new(ConnectionLimits::new(1_000, None, vec![]));
        let refused = |text| limits.admit(address(text)).err();
        let mut held = Vec::new();
        for text in GREEDY {
            while let Ok(permit) = limits.admit(address(text)) {
                held.push(permit);
            }
            assert_eq!(refused(text), Some(TooMany::Unfinished));
        }
        assert!(held.len() < 250, "{}", held.len());
        let mut other = limits.admit(address("10.0.0.9")).unwrap();
        other.finished();
        assert_eq!(
            take_all(&limits, &["10.0.0.9"]).len(),
            1_000 - 125 - held.len() - 1
        );
        held.clear();
        assert!(refused(GREEDY[0]).is_none());
        drop(other);
        assert_eq!(limits.lock().unfinished.taken, 0);
        assert_eq!(limits.open(), 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let limits = Arc::new(ConnectionLimits::new(9, Some(1), vec![]));
        let _held = limits.admit(address("2001:db8::1")).unwrap();
        assert!(limits.admit(address("2001:db8::2")).is_err());
        assert!(limits.admit(address("2001:db8:0:1::2")).is_ok());
    }

    #[test]
    fn trusted_proxies_count_in_total_only() {
        let proxies = vec!["10.0.0.0/24".parse().unwrap()];
        let limits = Arc::new(ConnectionLimits::new(3, Some(1), proxies));
        let held: Vec<_> = (0..3).map(|_| limits.admit(address("10.0.0.1"))).collect();
        assert!(held.iter().all(Result::is_ok));
        assert!(limits.admit(address("10.0.0.1")).is_err());
    }

    #[test]
    fn connections_count_for_whom_a_balancer_names() {
        let balancer = address("10.0.0.1");
        let limits = Arc::new(ConnectionLimits::new(9, Some(1), vec![balancer.into()]));
        let admit = |client| limits.admit(balancer)?.moved_to(address(client));
        let first = admit("192.0.2.7").unwrap();
        assert!(admit("192.0.2.7").is_err());
        let _other = admit("192.0.2.8").unwrap();
        assert_eq!(limits.open(), 2);
        drop(first);
        assert_eq!(limits.open(), 1);
        let open = limits.lock();
        for places in [&open.connections, &open.unfinished] {
            assert_eq!((places.taken, places.by_holder.len()), (1, 1));
        }
        drop(open);
        assert!(admit("192.0.2.7").is_ok());
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
