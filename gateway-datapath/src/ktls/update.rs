//! New keys for a connection whose records the kernel makes and opens (RFC 8446, section 4.6.3).
//!
//! Kernels before 6.14 take one key for each direction only.

use std::io;

use rustls::ProtocolVersion;
use tokio::net::TcpStream;

use super::keys::Key;
use super::sockopt::{self, Direction};
use crate::tls::{Protection, Secrets};

/// What makes the next keys of both directions, of TLS 1.3.
pub(super) struct Updater(Secrets);

impl Updater {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self(secrets)
    }

    /// What the next keys are made of.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.0
    }

    /// Gives the kernel the client's next key.
    pub(super) fn receive(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let updated = self.0.update_receive().map_err(io::Error::other)?;
        set(tcp, Direction::Receive, &updated)
    }

    /// Gives the kernel our next key; the client must have been told.
    pub(super) fn transmit(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let updated = self.0.update_transmit().map_err(io::Error::other)?;
        set(tcp, Direction::Transmit, &updated)
    }
}

fn set(tcp: &TcpStream, direction: Direction, protection: &Protection) -> io::Result<()> {
    // Each key counts its records from 0 (RFC 8446, section 5.3).
    let key = Key::new(protection, 0, ProtocolVersion::TLSv1_3);
    let key = key.ok_or(io::ErrorKind::Unsupported)?;
    sockopt::set_key(tcp, direction, key.info())
}
