//! A connection in the hands of the kernel written down, to be gone on with by another process:
//! its keys and the numbers of its records stay with the socket.

use std::os::fd::{AsFd, BorrowedFd};

use rustls::ProtocolVersion;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::keys::Suite;
use super::stream::KtlsStream;
use super::update::Updater;
use crate::buffer::SIZE;
use crate::encoded::Bytes;
use crate::state_error::StateError;
use crate::tls::{Control, Secrets};

/// All of a [`KtlsStream`] but its socket.
#[derive(Clone, Serialize, Deserialize)]
pub struct KtlsState {
    suite: Suite,
    splice_from: Option<usize>,
    early: Bytes,
    sent: u64,
    limit: u64,
    /// What new keys are made of, where the kernel takes them.
    secrets: Option<Secrets>,
    owes_key_update: bool,
    control: Control,
}

impl KtlsStream {
    /// Writes it down as it stands; `None`: it is ending, and has to do so here.
    pub(crate) fn state(&self) -> Option<KtlsState> {
        let is_ending = self.read_end.is_some() || self.write_closed;
        (!is_ending).then(|| KtlsState {
            suite: self.suite,
            splice_from: self.splice_from,
            early: Bytes::from(&self.early[..]),
            sent: self.sent,
            limit: self.limit,
            secrets: self
                .updater
                .as_ref()
                .map(|updater| updater.secrets().clone()),
            owes_key_update: self.owes_key_update,
            control: self.control.clone(),
        })
    }

    /// Goes on with a connection that was written down. Fails when the state is none that
    /// [`KtlsStream::state`] makes.
    pub(crate) fn resume(tcp: TcpStream, state: KtlsState) -> Result<Self, StateError> {
        state.check()?;
        let updater = state.secrets.map(|secrets| Box::new(Updater::new(secrets)));
        let early = state.early.to_vec();
        let mut stream = Self::new(tcp, state.suite, state.splice_from, early)
            .with_control(state.control)
            .with_updates(updater, Some(state.limit));
        stream.sent = state.sent;
        stream.owes_key_update = state.owes_key_update;
        Ok(stream)
    }
}

impl KtlsState {
    fn check(&self) -> Result<(), StateError> {
        let check = StateError::unless;
        let fits = self.secrets.as_ref().is_none_or(|secrets| {
            let is_13 = secrets.version() == ProtocolVersion::TLSv1_3;
            secrets.check().is_ok() && is_13 && self.suite.is_tls_13()
        });
        check(fits, "secrets of TLS")?;
        self.control.check()?;
        check(self.limit <= self.suite.limit(), "bound on a key of TLS")?;
        check(self.early.len() <= 2 * SIZE, "length of TLS records")
    }
}

impl AsFd for KtlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
