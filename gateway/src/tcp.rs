//! Options of TCP sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Silence after which TCP asks whether a peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Pause between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered questions after which a peer is given up.
pub const KEEPALIVE_RETRIES: u32 = 6;

/// Connections that wait to be taken; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Linux error numbers that mean: no descriptor or memory left.
const RESOURCE_ERRORS: [i32; 4] = [
    12,  // ENOMEM
    23,  // ENFILE
    24,  // EMFILE
    105, // ENOBUFS
];

/// Opens a listening socket; no address means all of them, IPv6 and IPv4.
pub fn listen(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match address {
        Some(address) => bind(SocketAddr::new(address, port)),
        None => bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
            // Only a machine without IPv6 is served on IPv4 alone.
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Options of a connection: no delay for small messages, and dead peers are noticed.
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Whether an error means that the system has no descriptor or memory left.
pub fn is_resource_error(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| RESOURCE_ERRORS.contains(&number))
}
