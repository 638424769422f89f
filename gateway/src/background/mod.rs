//! What runs beside the clients: tasks and threads that live as long as the gateway, and work that
//! blocks a thread.
//!
//! Three rules, kept here alone:
//!
//! - A task or thread that must live for ever is [`supervised`] or a [`thread`]: when it panics,
//!   that is logged and it is run again. One that ends with what it serves (a connection, a
//!   channel, a drain) is a plain task.
//! - Every thread is made at the start, by [`runtime`] and [`thread`], and none ends before the
//!   process: a system that gives no more threads stops nothing. Without enough of them the
//!   gateway does not start ([`NoThreads`]).
//! - Work that blocks has a place among those threads: [`Places`]. Each kind has its own, so that
//!   a resolver that hangs takes threads from no other kind.

mod places;
mod resolve;
mod resolver;
mod start;

pub use places::{Busy, HOSTS, MANAGER, OWN, PASSWORDS, Places, WorkError};
pub(crate) use resolve::is_busy;
pub use resolve::{ResolveError, resolve};
pub use resolver::Resolver;
pub use start::{EXIT_NO_THREADS, NoThreads, runtime, thread};
