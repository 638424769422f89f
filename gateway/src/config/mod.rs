//! The configuration: one JSON object, compatible with the flexVDI Gateway's file.
//!
//! Every key is optional. [`Config`] holds values that were checked ("parsed, not validated");
//! [`Sources`] are the places that it is read from.

mod acme;
mod changes;
mod check;
mod client_tls;
mod congestion_control;
mod entry;
mod environment;
mod file;
mod hosts;
mod key;
mod keys;
mod load;
mod origin;
mod report;
mod schema;
mod sources;
mod table;
mod text;
mod value;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub use acme::{Acme, LETS_ENCRYPT};
pub use changes::{Change, Changes, keys_that_need_a_restart};
pub use check::WEB_CLIENT_PATHS;
pub use client_tls::{ClientCertificates, TlsProfile};
pub use congestion_control::CongestionControl;
pub use file::drop_in_directory;
pub use keys::{Config, effective_json};
pub use load::{Loaded, load};
pub use origin::Origin;
pub use report::{ConfigError, Fault, Problem, Warning};
pub use schema::schema;
pub use sources::{Assignment, AssignmentError, Sources};
pub use table::table;
use value::Choice;

use crate::channel_type::ChannelType;
pub use gateway_datapath::DataPath;

/// Where the gateway looks for its configuration unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/flexvdi/flexvdi-gateway.conf";

/// In which headers a trusted proxy tells whom it speaks for. The other one is not looked at, as
/// a proxy passes on what clients wrote there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `"X-Forwarded-For"`: with `X-Forwarded-Host` and `X-Forwarded-Proto`.
    XForwarded,
    /// `"Forwarded"`: RFC 7239.
    Forwarded,
}

impl Choice for DataPath {
    const ALL: &[Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }
}

impl Choice for ForwardedHeader {
    const ALL: &[Self] = &[Self::XForwarded, Self::Forwarded];

    fn name(self) -> &'static str {
        match self {
            Self::XForwarded => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

impl Choice for ChannelType {
    const ALL: &[Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

/// The header of the PROXY protocol that connections to hosts begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostProxyProtocol {
    /// `"off"`: none.
    Off,
    /// `"v1"`: the text.
    V1,
    /// `"v2"`: the binary form.
    V2,
}

impl Choice for HostProxyProtocol {
    const ALL: &[Self] = &[Self::Off, Self::V1, Self::V2];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl Config {
    /// What the gateway keeps of the certificates that it gets by itself.
    pub fn acme_directory(&self) -> PathBuf {
        self.state_directory.join("acme")
    }

    /// Where the certificate is that clients are shown.
    pub fn certificate_file(&self) -> Cow<'_, Path> {
        match self.acme {
            Some(_) => self.acme_directory().join("certificate.pem").into(),
            None => Cow::from(&self.cert_file),
        }
    }

    /// Where its private key is; with `Acme` in the same file.
    pub fn certificate_key_file(&self) -> Cow<'_, Path> {
        match self.acme {
            Some(_) => self.certificate_file(),
            None => Cow::from(&self.key_file),
        }
    }

    /// Whether a Spice port lies in the configured range.
    pub fn allows_port(&self, port: u16) -> bool {
        (self.first_spice_port..=self.last_spice_port).contains(&port)
    }
}
