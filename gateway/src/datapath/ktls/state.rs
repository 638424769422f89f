//! A connection in the hands of the kernel written down, to be gone on with by another process:
//! its keys and the numbers of its records stay with the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::keys::Suite;
use super::stream::KtlsStream;
use super::update::Updater;
use crate::encoded::Bytes;
use crate::tls::Secrets;

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
}

impl KtlsStream {
    /// Writes it down as it stands; `None`: it is ending, and has to do so here.
    pub(in crate::datapath) fn state(&self) -> Option<KtlsState> {
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
        })
    }

    /// Goes on with a connection that was written down.
    pub(in crate::datapath) fn resume(tcp: TcpStream, state: KtlsState) -> io::Result<Self> {
        if let Some(secrets) = &state.secrets {
            let checked = secrets.check();
            checked.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let updater = state.secrets.map(|secrets| Box::new(Updater::new(secrets)));
        let early = state.early.to_vec();
        let mut stream = Self::new(tcp, state.suite, state.splice_from, early)
            .with_updates(updater, Some(state.limit));
        stream.sent = state.sent;
        stream.owes_key_update = state.owes_key_update;
        Ok(stream)
    }
}

impl AsFd for KtlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
