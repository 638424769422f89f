//! A TUN device: packets of a network that the test itself plays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::unix::AsyncFd;

// linux/if_tun.h, linux/if.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const IFF_UP: i16 = 0x0001;

const PATH: &str = "/dev/net/tun";
/// Packets that wait to be read, at most: enough for whatever a sender has on the way at once.
const QUEUE: i32 = 10_000;

/// A device with one address of a network of 256; its other addresses are the test's.
#[derive(Debug)]
pub struct Tun(AsyncFd<File>);

impl Tun {
    /// Makes a device in the namespace of this thread; only root may. Must be called in a runtime.
    ///
    /// `mtu` is the length of the longest packet, in bytes.
    pub fn open(name: &str, address: Ipv4Addr, mtu: u16) -> Result<Self> {
        let device = open_device(name, address, mtu)?;
        #[expect(
            unsafe_code,
            reason = "the runtime's only way to register any descriptor"
        )]
        // SAFETY: the file keeps its descriptor open and the same for as long as it lives.
        let registered = unsafe { AsyncFd::register(device) };
        Ok(Self(registered.context("registering a device")?))
    }

    /// The next packet that the kernel sends, put into `space`; returns its length.
    pub async fn receive(&self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|device| device.get_ref().read(space)) {
                return read;
            }
        }
    }

    /// Lets the kernel receive a packet. It has handled it when this returns, unless a process
    /// holds the socket that it is for.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.get_ref().write(packet).map(drop)
    }
}

/// Makes a device as [`Tun::open`] does; its reads and writes do not block.
pub(crate) fn open_device(name: &str, address: Ipv4Addr, mtu: u16) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(PATH)
        .with_context(|| {
            format!(
                "opening {PATH}: the kernel's module tun is not loaded (`modprobe tun`, of Debian's \
                 package kmod), or a container was started without it (`--device {PATH}`)"
            )
        })?;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("a socket to set a device up")?;
    let set = |what: &'static str, fd: RawFd, request: libc::Ioctl, value: Value| {
        ask(fd, request, name, &value).with_context(|| format!("{name}: {what}"))
    };
    let socket = socket.as_raw_fd();
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    set(
        "making it",
        device.as_raw_fd(),
        TUNSETIFF,
        Value::Flags(IFF_TUN | IFF_NO_PI),
    )?;
    set(
        "address",
        socket,
        libc::SIOCSIFADDR,
        Value::Address(address),
    )?;
    set("mask", socket, libc::SIOCSIFNETMASK, Value::Address(mask))?;
    set("MTU", socket, libc::SIOCSIFMTU, Value::Number(mtu.into()))?;
    let queue = Value::Number(QUEUE);
    set("queue", socket, libc::SIOCSIFTXQLEN, queue)?;
    set("up", socket, libc::SIOCSIFFLAGS, Value::Flags(IFF_UP))?;
    Ok(device)
}

enum Value {
    Flags(i16),
    Address(Ipv4Addr),
    Number(i32),
}

/// An `ioctl` with a `struct ifreq` (netdevice(7)).
fn ask(fd: RawFd, request: libc::Ioctl, name: &str, value: &Value) -> io::Result<()> {
    const NAME: usize = 16;
    let mut ifreq = [0_u8; 40];
    ifreq[..name.len().min(NAME - 1)].copy_from_slice(name.as_bytes());
    match *value {
        Value::Flags(flags) => ifreq[NAME..NAME + 2].copy_from_slice(&flags.to_ne_bytes()),
        Value::Number(number) => ifreq[NAME..NAME + 4].copy_from_slice(&number.to_ne_bytes()),
        Value::Address(address) => {
            // A `struct sockaddr_in`, whose port counts for nothing.
            let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
            ifreq[NAME..NAME + 2].copy_from_slice(&family.to_ne_bytes());
            ifreq[NAME + 4..NAME + 8].copy_from_slice(&address.octets());
        }
    }
    #[expect(unsafe_code, reason = "no safe crate sets a device up")]
    // SAFETY: all these requests read or write at most a `struct ifreq`, which is 40 bytes long.
    let result = unsafe { libc::ioctl(fd, request, ifreq.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
