//! The data path `ktls`: the kernel makes and opens the TLS records of the client leg.
//!
//! rustls makes the handshake; the gateway's record layer carries HTTP and the channel's first
//! message. Then keys and sequence numbers go to the kernel, and [`relay`](super::relay) moves
//! plaintext between two sockets. There is no way back, so whatever can refuse comes first.

mod faults;
mod keys;
pub mod module;
mod sockopt;
mod state;
mod stream;
mod update;

use std::io;

use tokio::net::TcpStream;

pub use keys::Suite;
pub use state::KtlsState;
pub use stream::KtlsStream;

pub(super) use faults::refuse_faulty;
pub(super) use keys::Key;
pub(super) use sockopt::Direction;

use crate::tls::{Busy, Parts, TlsStream};
use update::Updater;

/// What a kernel carries.
#[derive(Clone, Debug, Default)]
pub struct Support {
    /// Suites that it protects records with.
    pub suites: Vec<Suite>,
    /// It takes payload through a pipe, and loses nothing of it.
    pub splice: bool,
    /// It takes new keys for TLS 1.3.
    pub new_keys: bool,
}

/// The data path, as far as this kernel carries it.
pub struct Ktls {
    suites: Vec<Suite>,
    splice_from: Option<usize>,
    new_keys: bool,
    key_limit: Option<u64>,
}

/// Why a connection stays with the gateway's own record layer.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The probe did not find its suite to work.
    #[error("the kernel does not carry the suite of this connection")]
    Suite,
    /// Something of the record layer's is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The kernel takes no more.
    #[error("the kernel refused: {0}")]
    Kernel(io::Error),
}

impl BeginError {
    /// One name for each reason.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Suite => "suite",
            Self::Busy(_) => "record layer busy",
            Self::Kernel(_) => "kernel",
        }
    }
}

impl Ktls {
    /// Payload of the host is spliced where `splice_from` bytes or more come at a time, if the
    /// kernel carries that; `None`: it never is.
    pub fn new(carried: Support, splice_from: Option<usize>) -> Self {
        // From one byte on is always: nothing has to be found out about a message first.
        let splice_from = splice_from.map(|least| if least == 1 { 0 } else { least });
        Self {
            suites: carried.suites,
            splice_from: splice_from.filter(|_| carried.splice),
            new_keys: carried.new_keys,
            key_limit: None,
        }
    }

    /// Lets keys be used up after so many bytes, whatever their cipher could bear.
    #[must_use]
    pub fn with_key_limit(self, bytes: u64) -> Self {
        Self {
            key_limit: Some(bytes),
            ..self
        }
    }

    /// Gives the kernel a connection's keys.
    ///
    /// When that cannot be, gives the connection back as it was; or, should the kernel have taken
    /// one key and not the other, its error: then the connection is lost.
    pub fn enter(
        &self,
        mut client: Box<TlsStream>,
    ) -> Result<KtlsStream, (BeginError, io::Result<Box<TlsStream>>)> {
        let keys = client
            .settle()
            .map_err(BeginError::from)
            .and_then(|secrets| {
                let version = secrets.version;
                let (sequence, protection) = &secrets.transmit;
                let transmit = Key::new(protection, *sequence, version);
                let (sequence, protection) = &secrets.receive;
                let receive = Key::new(protection, *sequence, version);
                transmit.zip(receive).ok_or(BeginError::Suite)
            });
        let (transmit, receive) = match keys {
            Ok(keys) if self.suites.contains(&keys.0.suite()) => keys,
            Ok(_) => return Err((BeginError::Suite, Ok(client))),
            Err(refusal) => return Err((refusal, Ok(client))),
        };
        if let Err(error) = attach(client.tcp(), &transmit) {
            return Err((BeginError::Kernel(error), Ok(client)));
        }
        let Parts {
            tcp,
            early,
            secrets,
            control,
        } = client.into_parts();
        match sockopt::set_key(&tcp, Direction::Receive, receive.info()) {
            Ok(()) => {
                let suite = transmit.suite();
                let has_updates = self.new_keys && suite.is_tls_13();
                let updater = has_updates.then(|| Box::new(Updater::new(secrets)));
                let stream = KtlsStream::new(tcp, suite, self.splice_from, early);
                let stream = stream.with_control(control);
                Ok(stream.with_updates(updater, self.key_limit))
            }
            Err(error) => {
                let lost = io::Error::new(error.kind(), "the kernel refused the second TLS key");
                Err((BeginError::Kernel(error), Err(lost)))
            }
        }
    }
}

/// Whether the kernel knows TLS: `NotFound` when its module is not loaded.
pub(super) fn ask(tcp: &TcpStream) -> io::Result<()> {
    sockopt::attach(tcp)
}

/// A socket that behaves as before when this fails.
fn attach(tcp: &TcpStream, transmit: &Key) -> io::Result<()> {
    sockopt::attach(tcp)?;
    sockopt::set_key(tcp, Direction::Transmit, transmit.info())
}

/// A connection with these keys from the beginning, without a handshake.
pub(super) fn begin(
    tcp: TcpStream,
    transmit: &Key,
    receive: &Key,
    splice_from: Option<usize>,
) -> io::Result<KtlsStream> {
    attach(&tcp, transmit)?;
    sockopt::set_key(&tcp, Direction::Receive, receive.info())?;
    let suite = transmit.suite();
    Ok(KtlsStream::new(tcp, suite, splice_from, Vec::new()))
}
