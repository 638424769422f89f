//! What the public port shows in its handshakes: certificate, key and settings.

mod certificate;
mod challenges;
mod clients;
mod config;
mod own_files;
mod placeholder;
mod public_key;
mod self_signed;

pub use certificate::{Certificate, Notice, Reminder};
pub use challenges::{Answers, Awaiting, Challenges};
pub use clients::{ClientRule, NotIdentified, Shown, noting_certificate, refusal};
pub use config::{Identity, IdentityFiles, TlsError};

pub(crate) use config::profile;
pub(crate) use own_files::OwnFiles;
pub(crate) use public_key::PublicKey;
pub(crate) use self_signed::self_signed;
