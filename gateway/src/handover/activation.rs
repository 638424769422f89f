//! Listening sockets that the service manager opened (`sd_listen_fds(3)`), by their names.

use std::io;
use std::os::fd::OwnedFd;

use gateway_datapath::os::passed_descriptors;
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;

use super::Stored;

/// Why a socket that was passed in cannot be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// The variables that describe the sockets are wrong, or name descriptors that are not open.
    #[error("LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES do not describe open sockets")]
    Variables(#[source] io::Error),
    /// Neither `tls` nor `plain`.
    #[error("the socket {0:?} that was passed in has another name than \"tls\" or \"plain\"")]
    Name(String),
    /// A connection, a datagram socket, a file, ...
    #[error("the socket {0:?} that was passed in does not listen for TCP")]
    NotListening(String),
    /// The system refuses to tell of it, or to change it.
    #[error("the socket {0:?} that was passed in cannot be used")]
    System(String, #[source] io::Error),
}

/// The sockets that were passed in, for each leg; empty where none were.
#[derive(Debug, Default)]
pub struct Activation {
    /// Those named `tls`.
    pub tls: Vec<TcpListener>,
    /// Those named `plain`.
    pub plain: Vec<TcpListener>,
    /// What the process before has left in the service manager's store, with its names.
    pub stored: Vec<(String, OwnedFd)>,
}

impl Activation {
    /// Takes what was passed in; nothing is left for a second call.
    ///
    /// Must be called inside a runtime.
    pub fn take() -> Result<Self, ActivationError> {
        let mut activation = Self::default();
        for (fd, name) in passed_descriptors().map_err(ActivationError::Variables)? {
            match name.as_str() {
                "tls" => activation.tls.push(listener(fd, name)?),
                "plain" => activation.plain.push(listener(fd, name)?),
                _ if Stored::is_name(&name) => activation.stored.push((name, fd)),
                _ => return Err(ActivationError::Name(name)),
            }
        }
        Ok(activation)
    }
}

fn listener(fd: OwnedFd, name: String) -> Result<TcpListener, ActivationError> {
    let socket = Socket::from(fd);
    let prepared = (|| {
        if !listens_for_tcp(&socket)? {
            return Ok(None);
        }
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into()).map(Some)
    })();
    match prepared {
        Ok(Some(listener)) => Ok(listener),
        Ok(None) => Err(ActivationError::NotListening(name)),
        Err(error) => Err(ActivationError::System(name, error)),
    }
}

fn listens_for_tcp(socket: &Socket) -> io::Result<bool> {
    Ok(matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6)
        && socket.r#type()? == Type::STREAM
        && socket.is_listener()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn only_listening_tcp_sockets_are_taken() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let taken = listener(tcp.into(), "tls".to_owned()).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);

        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(address).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
        for wrong in [udp.into(), connected.into(), unix.into()] {
            let error = listener(wrong, "tls".to_owned()).unwrap_err();
            assert!(matches!(error, ActivationError::NotListening(_)), "{error}");
        }
    }
}
