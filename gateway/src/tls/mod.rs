//! What the public port shows in its handshakes: certificate, key and settings.

mod certificate;
mod challenges;
mod clients;
mod config;
mod placeholder;
mod public_key;

pub use certificate::{Certificate, Notice, Reminder};
pub use challenges::{Answers, Awaiting, Challenges};
pub use clients::{ClientRule, noting_subject, refusal};
pub use config::{Identity, IdentityFiles, TlsError};

pub(crate) use public_key::PublicKey;
