//! An established connection written down, to be gone on with by another process.

use std::io;
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::control::Control;
use super::queues::{Incoming, Outgoing};
use super::record::{Opener, Sealer};
use super::role::Role;
use super::secrets::Secrets;
use super::stream::{TlsStream, broken};
use crate::buffer::{Buffer, SIZE};
use crate::encoded::Bytes;
use crate::state_error::StateError;

/// All of a connection but its socket. Holds its secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct TlsState {
    secrets: Secrets,
    /// Numbers of the next records, and how many bytes our key has sealed.
    transmit_sequence: u64,
    receive_sequence: u64,
    sealed: u64,
    /// What was received: plaintext that was not yet taken, and what is still closed.
    plaintext: Bytes,
    records: Bytes,
    /// Records that wait to be sent.
    outgoing: Bytes,
    unsent: usize,
    owes_key_update: bool,
    owes_refusal: bool,
    control: Control,
}

impl TlsStream {
    /// Writes the connection down as it stands; `None`: it is ending, and has to do so here.
    pub fn state(&self) -> Option<TlsState> {
        if self.read_closed || self.write_closed || self.incoming.fault.is_some() {
            return None;
        }
        // With other secrets than those of the keys, numbers would be used again.
        self.sealer.check(&self.secrets.transmit().ok()?).ok()?;
        self.opener.check(&self.secrets.receive().ok()?).ok()?;
        let incoming = &self.incoming;
        let mut plaintext = Bytes::from(&incoming.early[..]);
        let mut records = Bytes::default();
        if let Some(buffer) = &incoming.buffer {
            let text = &buffer[incoming.plain_start..incoming.plain_end];
            plaintext.as_mut_vec().extend_from_slice(text);
            records = Bytes::from(&buffer[incoming.start..incoming.end]);
        }
        let outgoing = self.outgoing.buffer.as_ref().map_or(&[][..], |buffer| {
            &buffer[self.outgoing.start..self.outgoing.end]
        });
        Some(TlsState {
            secrets: self.secrets.clone(),
            transmit_sequence: self.sealer.sequence(),
            receive_sequence: self.opener.sequence(),
            sealed: self.sealer.sealed(),
            plaintext,
            records,
            outgoing: Bytes::from(outgoing),
            unsent: self.unsent,
            owes_key_update: self.owes_key_update,
            owes_refusal: self.owes_refusal,
            control: self.control.clone(),
        })
    }

    /// Goes on with a connection that was written down, on the same side of it.
    pub fn resume(tcp: TcpStream, state: TlsState, role: Role) -> io::Result<Self> {
        let secrets = state.secrets;
        secrets.check().map_err(broken)?;
        let version = secrets.version();
        let transmit = secrets.transmit().map_err(broken)?;
        let receive = secrets.receive().map_err(broken)?;
        let mut sealer =
            Sealer::new(&transmit, state.transmit_sequence, version).map_err(broken)?;
        sealer.set_sealed(state.sealed);
        let incoming = Incoming {
            buffer: buffer_with(&state.records)?,
            end: state.records.len(),
            early: state.plaintext.to_vec(),
            ..Incoming::default()
        };
        let outgoing = Outgoing {
            buffer: buffer_with(&state.outgoing)?,
            end: state.outgoing.len(),
            ..Outgoing::default()
        };
        Ok(Self {
            tcp,
            sealer,
            opener: Opener::new(&receive, state.receive_sequence, version).map_err(broken)?,
            secrets,
            version,
            role,
            incoming,
            outgoing,
            unsent: state.unsent,
            read_closed: false,
            write_closed: false,
            owes_key_update: state.owes_key_update,
            owes_refusal: state.owes_refusal,
            control: state.control,
            failed: None,
            ending: None,
        })
    }

    /// The socket below.
    pub fn socket(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.tcp)
    }
}

/// Far more records than a connection has, and far from where counting ends.
const MANY_RECORDS: u64 = 1 << 62;

impl TlsState {
    /// Whether it is one that [`TlsStream::state`] makes.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let check = StateError::unless;
        check(self.secrets.check().is_ok(), "secrets of TLS")?;
        let numbers = [self.transmit_sequence, self.receive_sequence];
        let is_early = numbers.into_iter().all(|number| number < MANY_RECORDS);
        check(is_early, "number of a TLS record")?;
        let has_room = self.plaintext.len() <= 2 * SIZE
            && self.records.len() <= SIZE
            && self.outgoing.len() <= SIZE
            && self.unsent <= SIZE;
        check(has_room, "length of TLS records")?;
        self.control.check()?;
        let can_update = self.secrets.version() == rustls::ProtocolVersion::TLSv1_3;
        check(can_update || !self.owes_key_update, "key update of TLS 1.2")
    }
}

impl TlsState {
    /// Whether its owner has still to send a part of a protected frame, as only client legs do.
    pub(crate) fn has_frame(&self) -> bool {
        self.unsent > 0
    }
}

impl TlsStream {
    /// How much its owner has still to send of a protected frame, in bytes.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }
}

fn buffer_with(bytes: &[u8]) -> io::Result<Option<Buffer>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > SIZE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut buffer = Buffer::take();
    buffer[..bytes.len()].copy_from_slice(bytes);
    Ok(Some(buffer))
}
