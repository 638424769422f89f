//! TLS on the public port and to hosts: rustls makes the handshake, then its keys are taken out and
//! records are protected right here.
//!
//! An established connection so keeps two keys with their secrets and nothing else, records are
//! opened in place and sealed in the buffer that is sent; and the same hand-over leads to kernel
//! TLS, and to another process.

mod accept;
mod agreed;
mod connect;
mod control;
mod ending;
mod handshake;
mod host;
mod profile;
mod queues;
mod received;
mod record;
mod role;
mod secrets;
mod state;
mod stream;

pub use accept::{accept, server_config};
pub use agreed::Agreed;
pub use connect::{client_config, connect};
pub use handshake::HandshakeError;
pub use profile::Profile;
pub use role::Role;
pub use state::TlsState;
pub use stream::{Busy, TlsStream};

pub(crate) use control::{Control, Event};
pub(crate) use record::{Content, RecordError};
pub(crate) use secrets::{Cipher, Protection, Secrets};
pub(crate) use stream::Parts;
