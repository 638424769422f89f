//! Who listens on a port of this machine.

use std::fmt;
use std::net::{IpAddr, UdpSocket};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, all_processes};

use super::account::user_name;

/// A socket on which somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    address: IpAddr,
    port: u16,
    /// Number of the user that has opened it.
    pub(super) uid: u32,
    inode: u64,
}

/// A process that has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// All that listen now, in this network namespace.
pub(super) fn all() -> Result<Vec<Listener>, String> {
    let v4 = procfs::net::tcp().map_err(|error| error.to_string())?;
    // A machine may have no IPv6.
    let v6 = procfs::net::tcp6().unwrap_or_default();
    let listening = |entry: &TcpNetEntry| entry.state == TcpState::Listen;
    let entries = v4.into_iter().chain(v6).filter(listening);
    let listeners = entries.map(|entry| Listener {
        address: entry.local_address.ip(),
        port: entry.local_address.port(),
        uid: entry.uid,
        inode: entry.inode,
    });
    Ok(listeners.collect())
}

impl Listener {
    /// Whether it is in the way of one on this port; no address means all of them.
    pub(super) fn has(&self, address: Option<IpAddr>, port: u16) -> bool {
        let Some(wanted) = address.map(|address| address.to_canonical()) else {
            return self.port == port;
        };
        let own = self.address.to_canonical();
        let covers =
            |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
        self.port == port && (own == wanted || covers(own, wanted) || covers(wanted, own))
    }

    /// Who has it open, as far as this process may know: with root's rights of everybody, else of
    /// its own user.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let processes = all_processes().into_iter().flatten().flatten();
        let mut holders = Vec::new();
        for process in processes {
            let Ok(descriptors) = process.fd() else {
                continue;
            };
            let is_it = |target: &FDTarget| *target == FDTarget::Socket(self.inode);
            if descriptors.flatten().any(|found| is_it(&found.target)) {
                let name = process
                    .stat()
                    .map_or_else(|_| String::new(), |stat| stat.comm);
                let pid = u32::try_from(process.pid).unwrap_or_default();
                holders.push(Holder { pid, name });
            }
        }
        holders
    }

    /// The name of the user that has opened it.
    pub(super) fn user(&self) -> String {
        user_name(self.uid)
    }
}

/// Whether an address is one of this machine's. Nothing is sent.
pub(super) fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_and_its_holder_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let all = all().unwrap();
        let found: Vec<_> = all.iter().filter(|found| found.has(None, port)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uid, rustix::process::geteuid().as_raw());
        let holders = found[0].holders();
        assert_eq!(holders[0].pid, std::process::id());
        for (address, is_in_the_way) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("::", true),
            ("127.0.0.2", false),
            ("::1", false),
        ] {
            let address = Some(address.parse().unwrap());
            assert_eq!(found[0].has(address, port), is_in_the_way, "{address:?}");
        }
    }

    #[test]
    fn own_addresses_are_told_from_others() {
        assert!(is_here("127.0.0.1".parse().unwrap()));
        assert!(!is_here("192.0.2.1".parse().unwrap()));
    }
}
