//! Sets networks up as `ip` of iproute2 does, by rtnetlink(7): virtual machines have no `ip`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send,
    socket_with,
};

// linux/netlink.h
/// `NETLINK_ROUTE`, which is 0.
const NETLINK_ROUTE: Option<Protocol> = None;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
/// A `struct nlmsghdr`, in bytes.
pub(crate) const HEADER: usize = 16;
// linux/rtnetlink.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
// Attributes: linux/if_link.h, linux/veth.h, linux/if_addr.h, linux/rtnetlink.h
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTAX_CC_ALGO: u16 = 16;

/// `lo` is the first interface of every network namespace (net/core/dev.c).
const LOOPBACK_INDEX: u32 = 1;
const IPV4: u8 = 2; // AF_INET

/// Brings up the interface `lo` of this thread's namespace, by which the kernel gives it
/// 127.0.0.1 and `::1`.
pub fn bring_up_loopback() -> Result<()> {
    bring_up(LOOPBACK_INDEX).context("bringing up lo")
}

/// Makes a pair of Ethernet devices, `name` in this thread's namespace and `peer` in that one;
/// neither has an address yet.
pub(crate) fn make_veth(name: &str, peer: &str, namespace: BorrowedFd<'_>) -> Result<()> {
    let mut other = link(0, 0);
    attribute(&mut other, IFLA_IFNAME, &text(peer));
    let namespace = namespace.as_raw_fd().to_ne_bytes();
    attribute(&mut other, IFLA_NET_NS_FD, &namespace);
    let mut data = Vec::new();
    attribute(&mut data, VETH_INFO_PEER, &other);
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, &text("veth"));
    attribute(&mut info, IFLA_INFO_DATA, &data);
    let mut body = link(0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    attribute(&mut body, IFLA_LINKINFO, &info);
    ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
        .with_context(|| format!("making the devices {name} and {peer}"))
}

/// Gives a device an address in a network with a prefix of this many bits, and brings it up.
pub(crate) fn set_address(device: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let index = index(device)?;
    let mut body = vec![IPV4, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address.octets());
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
        .and_then(|()| bring_up(index))
        .with_context(|| format!("giving {device} the address {address}"))
}

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// To a network with a prefix of this many bits, by the device that is in it.
    Network(Ipv4Addr, u8, &'a str),
    /// To wherever no other route leads, by this gateway.
    Default(Ipv4Addr),
}

/// Makes a route, or replaces the one that is there; TCP over it does this about congestion, as in
/// `bbr`.
pub(crate) fn set_route(route: Route<'_>, congestion_control: &str) -> Result<()> {
    let (prefix, scope) = match route {
        Route::Network(_, prefix, _) => (prefix, RT_SCOPE_LINK),
        Route::Default(_) => (0, RT_SCOPE_UNIVERSE),
    };
    // A struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope,
    // type, flags.
    let mut body = vec![
        IPV4,
        prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    match route {
        Route::Network(address, prefix, device) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let network = Ipv4Addr::from_bits(address.to_bits() & mask);
            attribute(&mut body, RTA_DST, &network.octets());
            attribute(&mut body, RTA_OIF, &index(device)?.to_ne_bytes());
        }
        Route::Default(gateway) => attribute(&mut body, RTA_GATEWAY, &gateway.octets()),
    }
    let mut metrics = Vec::new();
    attribute(&mut metrics, RTAX_CC_ALGO, &text(congestion_control));
    attribute(&mut body, RTA_METRICS, &metrics);
    ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
        .with_context(|| format!("{route:?} with congestion control {congestion_control}"))
}

fn bring_up(index: u32) -> Result<()> {
    ask(RTM_NEWLINK, 0, &link(index, IFF_UP))
}

fn index(device: &str) -> Result<u32> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    netdevice::name_to_index(&socket, device).with_context(|| format!("no device {device}"))
}

/// A `struct ifinfomsg` that sets these flags.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4]; // ifi_family, padding, ifi_type
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes()); // ifi_flags
    body.extend(flags.to_ne_bytes()); // ifi_change
    body
}

/// Adds a `struct rtattr`, whose length does not count what it is padded with.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    const LENGTH: usize = 4;
    let length = u16::try_from(LENGTH + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Sends a request and waits for the kernel's answer to it.
fn ask(kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    let socket = send_to_kernel(NETLINK_ROUTE, &message(kind, NLM_F_ACK | flags, body))?;
    let mut answer = [0; 2048];
    let (length, _) =
        recv(&socket, &mut answer, RecvFlags::empty()).context("the kernel's answer")?;
    check(&answer[..length])
}

/// Sends a message of this protocol; the answers come from the socket.
pub(crate) fn send_to_kernel(protocol: Option<Protocol>, message: &[u8]) -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )
    .context("a netlink socket")?;
    send(&socket, message, SendFlags::empty()).context("asking the kernel")?;
    Ok(socket)
}

/// A `struct nlmsghdr` of a request, and what follows it.
pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]); // nlmsg_seq, nlmsg_pid
    message.extend(body);
    message
}

/// An answer is a `struct nlmsgerr`, whose error is 0 or a negative errno.
fn check(answer: &[u8]) -> Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let error = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    let (Some(kind), Some(error)) = (kind, error) else {
        bail!("an answer of {} bytes", answer.len());
    };
    ensure!(
        u16::from_ne_bytes(kind) == NLMSG_ERROR,
        "an answer of another kind"
    );
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        negative => Err(std::io::Error::from_raw_os_error(-negative).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let mut answer = [0; 36];
        answer[4] = 2;
        check(&answer).unwrap();
        answer[HEADER..HEADER + 4].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert!(
            check(&answer)
                .unwrap_err()
                .to_string()
                .contains("permitted")
        );
        answer[4] = 3;
        assert!(check(&answer).is_err());
        assert!(check(&answer[..10]).is_err());
    }

    #[test]
    fn attributes_are_padded_but_do_not_count_it() {
        let mut body = Vec::new();
        attribute(&mut body, IFLA_IFNAME, &text("lo"));
        assert_eq!(body, [7, 0, 3, 0, b'l', b'o', 0, 0]);
    }
}
