//! How clients of the TLS port are met.

use super::value::Choice;

/// Versions of TLS that clients may speak, by the names of Mozilla's "Server Side TLS".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProfile {
    /// `"modern"`: TLS 1.3 only.
    Modern,
    /// `"intermediate"`: TLS 1.2 too.
    Intermediate,
}

impl Choice for TlsProfile {
    const ALL: &[Self] = &[Self::Modern, Self::Intermediate];

    fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Intermediate => "intermediate",
        }
    }
}

/// Whether clients need a certificate, where authorities for them are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// `"required"`: nobody gets in without one.
    Required,
    /// `"optional"`: those who have one show it.
    Optional,
}

impl Choice for ClientCertificates {
    const ALL: &[Self] = &[Self::Required, Self::Optional];

    fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}
