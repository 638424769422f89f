//! Congestion control by how the kernel sends with it: at a measured pace, with a timer for every
//! few packets (`tcp_internal_pacing()`, `net/ipv4/tcp_output.c`), or at once.

use std::io;

use socket2::SockRef;

/// Sends at a pace, which costs processor time.
pub const PACED: &str = "bbr";
/// These do not; the one that is better comes first. A kernel whose default was made another one
/// keeps `cubic` for administrators; everybody may use `reno` (`tcp_reno`,
/// `tcp_set_congestion_control()`, `net/ipv4/tcp_cong.c`).
pub const UNPACED: [&str; 2] = ["cubic", "reno"];

/// The congestion control of a connection, by its name in the kernel.
///
/// # Errors
///
/// The kernel's, for example if the socket is not one of TCP.
pub fn of(socket: &SockRef<'_>) -> io::Result<String> {
    let name = socket.tcp_congestion()?;
    // The kernel fills it up with NULs.
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Gives a connection the first of [`UNPACED`] that the kernel allows.
///
/// # Errors
///
/// The kernel's, of the last one.
pub fn send_at_once(socket: &SockRef<'_>) -> io::Result<()> {
    let set = |name: &str| socket.set_tcp_congestion(name.as_bytes());
    let [usual, always_there] = UNPACED;
    set(usual).or_else(|_| set(always_there))
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn every_kernel_has_one_without_a_pace_and_allows_it() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let socket = SockRef::from(&socket);
        // Where the kernel has it.
        let _ = socket.set_tcp_congestion(PACED.as_bytes());
        send_at_once(&socket).unwrap();
        assert!(UNPACED.contains(&of(&socket).unwrap().as_str()));
        socket.set_tcp_congestion(UNPACED[1].as_bytes()).unwrap();
    }
}
