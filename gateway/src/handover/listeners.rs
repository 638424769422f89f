//! Listening sockets of the gateway before.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::sockopt;

use gateway_datapath::state_error::StateError;

/// Listening sockets that were taken over, each to be used once; the rest is closed when dropped.
#[derive(Debug, Default)]
pub struct Listeners(Vec<(SocketAddr, TcpListener)>);

impl Listeners {
    /// Fails when one of them does not listen for TCP.
    pub(super) fn new(sockets: impl IntoIterator<Item = OwnedFd>) -> Result<Self, StateError> {
        let listeners = sockets.into_iter().map(|socket| {
            let listens = sockopt::socket_acceptconn(&socket).map_err(io::Error::from)?;
            StateError::unless(listens, "a descriptor that is no listening socket")?;
            let socket = TcpListener::from(socket);
            Ok((socket.local_addr()?, socket))
        });
        Ok(Self(listeners.collect::<Result<_, StateError>>()?))
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
        let mut listeners = Listeners::new(sockets.map(OwnedFd::from)).unwrap();
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

    #[test]
    fn other_descriptors_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        for descriptor in [connected.into(), pipe] {
            assert!(Listeners::new([descriptor]).is_err());
        }
    }
}
