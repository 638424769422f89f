//! TLS on the public port: rustls makes the handshake, then its keys are taken out and records
//! are protected right here.
//!
//! An established connection so keeps two keys with their secrets and nothing else, records are
//! opened in place and sealed in the buffer that is sent; and the same hand-over leads to kernel
//! TLS, and to another process.

mod accept;
mod control;
mod ending;
mod received;
mod record;
mod secrets;
mod state;
mod stream;

pub use accept::{AcceptError, accept, server_config};
pub use state::TlsState;
pub use stream::{Busy, TlsStream};

pub(crate) use control::{Control, Event};
pub(crate) use record::{Content, RecordError};
pub(crate) use secrets::{Cipher, Protection, Secrets};
pub(crate) use stream::Parts;
