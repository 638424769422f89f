//! The congestion control of TCP sockets, also of those of other processes, for which the kernel
//! is asked as `ss` of iproute2 does it: `sock_diag(7)`.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net::{Connection, Endpoint, within};
use crate::netlink::{HEADER, message, send_to_kernel};

// linux/netlink.h
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;
// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_CONG: u16 = 4;
/// A `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET_ID: usize = 48;
/// A `struct inet_diag_msg`, behind which attributes follow.
const MESSAGE: usize = 72;
/// Where its id begins.
const ID: usize = 4;
const TCP: u8 = 6; // IPPROTO_TCP
const ESTABLISHED: u32 = 1 << 1; // net/tcp_states.h
/// A listening socket on all addresses takes IPv4 connections as IPv6.
const FAMILIES: [u8; 2] = [2, 10]; // AF_INET, AF_INET6

/// What a connection has that goes to a server of this thread's network namespace, at the server's
/// end.
pub fn at_peer(connection: &TcpStream) -> Result<String> {
    let (own, peer) = (connection.peer_addr()?, connection.local_addr()?);
    for family in FAMILIES {
        if let Some(name) = find(family, own.port(), peer.port())? {
            return Ok(name);
        }
    }
    bail!("no socket from {own} to {peer}")
}

/// The same of a client that comes now.
pub async fn given(endpoint: &Endpoint) -> Result<String> {
    at_peer(taken(endpoint).await?.tcp())
}

/// A client that comes now and has an answer to a request, so that the gateway has taken it.
pub async fn taken(endpoint: &Endpoint) -> Result<Connection> {
    let mut connection = endpoint.connect().await?;
    let request = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
    connection.write_all(request).await?;
    connection.flush().await?;
    within("an answer", connection.read_u8()).await??;
    Ok(connection)
}

/// What a socket of this process has, or gives to connections.
pub fn own(socket: &impl AsFd) -> Result<String> {
    text(&SockRef::from(socket).tcp_congestion()?)
}

fn find(family: u8, own: u16, peer: u16) -> Result<Option<String>> {
    let socket = send_to_kernel(Some(SOCK_DIAG), &request(family))?;
    let mut found = None;
    // As large as the kernel makes its parts of a dump.
    let mut buffer = vec![0; 32_768];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let length = number(rest, 0, u32::from_ne_bytes)? as usize;
            let message = rest.get(..length).context("a message that is cut off")?;
            match number(message, 4, u16::from_ne_bytes)? {
                NLMSG_DONE => return Ok(found),
                SOCK_DIAG_BY_FAMILY => {}
                other => bail!("an answer of kind {other}"),
            }
            let told = &message[HEADER..];
            let ports = (
                number(told, ID, u16::from_be_bytes)?,
                number(told, ID + 2, u16::from_be_bytes)?,
            );
            if ports == (own, peer) {
                found = attribute(told, INET_DIAG_CONG)?;
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// For the sockets of one family: a `struct inet_diag_req_v2`.
fn request(family: u8) -> Vec<u8> {
    let mut body = vec![family, TCP, 1 << (INET_DIAG_CONG - 1), 0];
    body.extend(ESTABLISHED.to_ne_bytes());
    body.extend([0; SOCKET_ID]);
    message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body)
}

/// The text of a `struct rtattr` behind an answer.
fn attribute(told: &[u8], kind: u16) -> Result<Option<String>> {
    let mut rest = told.get(MESSAGE..).context("a short answer")?;
    while !rest.is_empty() {
        let length = usize::from(number(rest, 0, u16::from_ne_bytes)?);
        ensure!(length >= 4, "an attribute without its head");
        let value = rest
            .get(4..length)
            .context("an attribute that is cut off")?;
        if number(rest, 2, u16::from_ne_bytes)? == kind {
            return text(value).map(Some);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

/// What stands before the NUL.
fn text(value: &[u8]) -> Result<String> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(text.to_vec())?)
}

fn number<T, const N: usize>(bytes: &[u8], at: usize, make: fn([u8; N]) -> T) -> Result<T> {
    let bytes = bytes
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map(make).context("an answer that is cut off")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn tells_what_the_socket_of_a_server_was_given() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).await.unwrap();
            let accepted = listener.accept().await.unwrap().0;
            assert_eq!(at_peer(&client).unwrap(), own(&accepted).unwrap());
            let set = SockRef::from(&accepted).set_tcp_congestion(b"reno");
            set.unwrap();
            assert_eq!(at_peer(&client).unwrap(), "reno");
            drop(accepted);
        }
    }
}
