//! Listening sockets of the gateway before.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Listening sockets that were taken over, each to be used once; the rest is closed when dropped.
#[derive(Debug, Default)]
pub struct Listeners(Vec<(SocketAddr, TcpListener)>);

impl Listeners {
    pub(super) fn new(sockets: impl IntoIterator<Item = TcpListener>) -> io::Result<Self> {
        let with_address = |socket: TcpListener| Ok((socket.local_addr()?, socket));
        let listeners = sockets.into_iter().map(with_address);
        Ok(Self(listeners.collect::<io::Result<_>>()?))
    }

    /// The one that listens on this address and port; no address means all of them, port 0 any
    /// of this address.
    pub fn take(&mut self, address: Option<IpAddr>, port: u16) -> Option<TcpListener> {
        let any = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let wanted = address.as_ref().map_or(&any[..], std::slice::from_ref);
        let fits = |(found, _): &(SocketAddr, TcpListener)| {
            wanted.contains(&found.ip()) && [0, found.port()].contains(&port)
        };
        let at = self.0.iter().position(fits)?;
        Some(self.0.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_once_by_its_address() {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [first, second] = [0, 1].map(|at| sockets[at].local_addr().unwrap());
        let mut listeners = Listeners::new(sockets).unwrap();
        assert!(listeners.take(None, first.port()).is_none());
        let mut take = |port| {
            Some(
                listeners
                    .take(Some(first.ip()), port)?
                    .local_addr()
                    .unwrap(),
            )
        };
        assert_eq!(take(second.port()), Some(second));
        assert_eq!(take(second.port()), None);
        assert_eq!(take(0), Some(first));
    }
}
