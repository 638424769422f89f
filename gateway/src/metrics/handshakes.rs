//! What TLS handshakes have agreed on.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls::{NamedGroup, ProtocolVersion};

use super::Entered;
use gateway_datapath::label::Label;
use gateway_datapath::labels;
use gateway_datapath::tls::Agreed;

labels! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        Tls12 => "TLS 1.2",
        /// RFC 8446.
        Tls13 => "TLS 1.3",
    }
}

labels! {
    /// The group of a key exchange.
    pub enum Group {
        /// X25519 and ML-KEM-768 together, against quantum computers.
        X25519MlKem768 => "X25519MLKEM768",
        /// Curve25519.
        X25519 => "X25519",
        /// P-256.
        Secp256r1 => "secp256r1",
        /// P-384.
        Secp384r1 => "secp384r1",
        /// Any that the gateway does not know by name.
        Other => "other",
        /// A session of TLS 1.2 was resumed, without a key exchange.
        None => "none",
    }
}

/// Handshakes that succeeded, by version and group.
#[derive(Debug)]
pub struct Handshakes(Family<[(&'static str, &'static str); 2], Counter>);

impl Handshakes {
    pub(super) fn new(entered: &mut Entered<'_>) -> Self {
        let family = entered.add(
            "tls_handshakes",
            "TLS handshakes of clients that succeeded",
            Family::default(),
        );
        let handshakes = Self(family);
        for (version, group) in possible() {
            drop(handshakes.counter(version, group));
        }
        handshakes
    }

    /// Counts one.
    pub fn count(&self, agreed: &Agreed) {
        let version = match agreed.version {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        let group = match agreed.group {
            Some(NamedGroup::X25519MLKEM768) => Group::X25519MlKem768,
            Some(NamedGroup::X25519) => Group::X25519,
            Some(NamedGroup::secp256r1) => Group::Secp256r1,
            Some(NamedGroup::secp384r1) => Group::Secp384r1,
            Some(_) => Group::Other,
            None => Group::None,
        };
        self.counter(version, group).inc();
    }

    /// Those of which there have been any.
    pub fn counted(&self) -> impl Iterator<Item = (TlsVersion, Group, u64)> {
        let all = possible().map(|(version, group)| {
            let count = self.counter(version, group).get();
            (version, group, count)
        });
        all.filter(|(_, _, count)| *count > 0)
    }

    fn counter(&self, version: TlsVersion, group: Group) -> Counter {
        let labels = [("version", version.text()), ("group", group.text())];
        self.0.get_or_create(&labels).clone()
    }
}

/// The group against quantum computers is one of TLS 1.3 alone, which has a key exchange also when
/// a session is resumed.
fn possible() -> impl Iterator<Item = (TlsVersion, Group)> {
    let versions = TlsVersion::ALL.iter();
    let all = versions.flat_map(|version| Group::ALL.iter().map(|group| (*version, *group)));
    all.filter(|pair| {
        *pair != (TlsVersion::Tls12, Group::X25519MlKem768)
            && *pair != (TlsVersion::Tls13, Group::None)
    })
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_group_without_a_name_here_is_another_one() {
        let handshakes = Handshakes::new(&mut Entered(&mut Registry::default()));
        for number in [0x0100, 0x2222, 0xffff] {
            for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
                handshakes.count(&Agreed {
                    version: Some(version),
                    group: Some(NamedGroup::Unknown(number)),
                    ..Agreed::default()
                });
            }
        }
        let counted: Vec<_> = handshakes.counted().collect();
        let expected = [TlsVersion::Tls12, TlsVersion::Tls13].map(|of| (of, Group::Other, 3));
        assert_eq!(counted, expected);
    }
}
