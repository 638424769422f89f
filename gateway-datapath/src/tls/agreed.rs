//! What a handshake has agreed on, besides the keys.

use rustls::{CommonState, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::CertificateDer;

/// What the gateway tells of a handshake, and what it knows of the peer from then on.
#[derive(Clone, Debug, Default)]
pub struct Agreed {
    /// The version of TLS; `None`: the handshake is not over.
    pub version: Option<ProtocolVersion>,
    /// The group of the key exchange; `None`: there was none, as a session of TLS 1.2 was resumed.
    pub group: Option<NamedGroup>,
    /// A session was resumed, so the peer's certificates were not looked at this time.
    pub is_resumed: bool,
    /// Certificates that the peer has shown, its own first, now or when the session began.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Agreed {
    /// Of a handshake that is over.
    pub(super) fn of(connection: &CommonState) -> Self {
        let group = connection.negotiated_key_exchange_group();
        Self {
            version: connection.protocol_version(),
            group: group.map(rustls::crypto::SupportedKxGroup::name),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificates: connection.peer_certificates().unwrap_or_default().to_vec(),
        }
    }
}
