//! Brings up the interface `lo`, by which the kernel gives it 127.0.0.1 and `::1`.

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// linux/netlink.h, linux/rtnetlink.h, linux/if.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const IFF_UP: u32 = 1;
/// `lo` is the first interface of every network namespace (net/core/dev.c).
const LOOPBACK_INDEX: i32 = 1;
/// A `struct nlmsghdr`.
const HEADER: usize = 16;

/// Sets its flag `IFF_UP` and waits for the kernel's answer.
pub fn bring_up() -> Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("a netlink socket")?;
    send(&socket, &request(), SendFlags::empty()).context("asking the kernel")?;
    let mut answer = [0; 256];
    let (length, _) =
        recv(&socket, &mut answer, RecvFlags::empty()).context("the kernel's answer")?;
    check(&answer[..length])
}

/// A `struct nlmsghdr` and a `struct ifinfomsg`.
fn request() -> Vec<u8> {
    let mut body = vec![0; 4]; // ifi_family, padding, ifi_type
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes()); // ifi_flags
    body.extend(IFF_UP.to_ne_bytes()); // ifi_change
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
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
}
