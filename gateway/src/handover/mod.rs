//! Handing listening sockets, tickets and moving channels over to another process, so that an
//! upgrade ends no session.
//!
//! The running gateway, the predecessor, listens on a Unix socket; a gateway that is started with
//! `--take-over`, the successor, connects to it. What they say is in [`message`]. Until the
//! successor is told to go, a channel is the predecessor's; from then on it is the successor's,
//! and nobody's in between. Under a service manager that ends the
//! one process before it starts the other, it keeps everything in between, see [`store`].
//! docs/upgrade.md tells administrators of it.

mod activation;
mod connection;
mod go;
#[cfg(test)]
mod golden;
mod listeners;
mod message;
pub mod next;
mod predecessor;
mod standstill;
mod stored;
mod successor;

pub use activation::{Activation, ActivationError};
pub use listeners::Listeners;
#[cfg(feature = "fuzzing")]
pub(crate) use message::Message;
pub use predecessor::{Door, End, Estate, SuccessorConnection, hand_over};
pub use stored::{Kept, Stored, store};
pub use successor::{Farewell, RunningPredecessor, Successor};

/// Name of the socket in `RuntimeDir`.
const SOCKET: &str = "handover.sock";
