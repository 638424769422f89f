//! What a signed ticket says.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use crate::host::Host;
use crate::target::Target;

/// Most networks of a token: a bound on what each channel is compared with.
const MAX_NETWORKS: usize = 64;

/// The claims that the gateway understands; others are passed over (RFC 7519, section 4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) target: Target,
    /// `network`: where clients have to be; empty: anywhere.
    pub(super) clients: Vec<IpNet>,
    /// `exp`: seconds since 1970, rounded up as they come.
    pub(super) expiry: u64,
    /// `jti`.
    pub(super) id: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    host: String,
    port: u16,
    exp: serde_json::Number,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    network: Option<Networks>,
}

/// One, or a list of them, as `aud` is (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Networks {
    One(String),
    Several(Vec<String>),
}

/// A claim that may be missing, but not be null: whoever wrote that meant something else.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        let host: Host = written.host.parse().map_err(Error::custom)?;
        if written.port == 0 {
            return Err(Error::invalid_value(Unexpected::Unsigned(0), &"a port"));
        }
        // Such as 1.7e9 (RFC 7519, section 2: NumericDate).
        let expiry = written
            .exp
            .as_u64()
            .or_else(|| whole(written.exp.as_f64()?));
        let networks = match written.network {
            None => Vec::new(),
            Some(Networks::One(network)) => vec![network],
            // Somebody has meant to permit nobody.
            Some(Networks::Several(list)) if list.is_empty() => {
                return Err(Error::invalid_length(0, &"a network"));
            }
            Some(Networks::Several(list)) => list,
        };
        if networks.len() > MAX_NETWORKS {
            return Err(Error::invalid_length(
                networks.len(),
                &"at most 64 networks",
            ));
        }
        let networks = networks.iter().map(|text| network(text));
        let id = written.jti;
        if id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid_length(0, &"a jti"));
        }
        Ok(Self {
            target: Target::new(host, written.port),
            clients: networks
                .collect::<Option<_>>()
                .ok_or_else(|| Error::custom("network"))?,
            expiry: expiry.ok_or_else(|| Error::custom("exp"))?,
            id,
        })
    }
}

/// Seconds that were written as a fraction, rounded as the library rounds them.
fn whole(seconds: f64) -> Option<u64> {
    /// From here on neighbours are more than a second apart.
    const MOST: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range"
    )]
    (0.0..MOST)
        .contains(&seconds)
        .then(|| seconds.round() as u64)
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse();
    network
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(claims: &Value) -> Option<Claims> {
        serde_json::from_str(&claims.to_string()).ok()
    }

    #[test]
    fn claims_are_read() {
        let claims = read(&json!({"host": "10.0.0.7", "port": 5900, "exp": 7, "x": [1]})).unwrap();
        assert_eq!(claims.target.to_string(), "10.0.0.7:5900");
        assert_eq!(
            (claims.expiry, claims.id, claims.clients),
            (7, None, vec![])
        );
        let claims = read(&json!({
            "host": "h.example", "port": 1, "exp": 1.7e9, "jti": "a", "network": "192.0.2.0/24",
        }));
        let claims = claims.unwrap();
        assert_eq!(claims.expiry, 1_700_000_000);
        assert_eq!(claims.id.as_deref(), Some("a"));
        assert_eq!(claims.clients, ["192.0.2.0/24".parse().unwrap()]);
        let two =
            json!({"host": "h", "port": 1, "exp": 7, "network": ["192.0.2.7", "2001:db8::/32"]});
        assert_eq!(read(&two).unwrap().clients.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let good = json!({"host": "h", "port": 1, "exp": 7});
        assert!(read(&good).is_some());
        for (name, value) in [
            ("host", json!(null)),
            ("host", json!("")),
            ("host", json!("a b")),
            ("host", json!("0.0.0.0")),
            ("host", json!("x@127.0.0.1")),
            ("host", json!(["h"])),
            ("port", json!(0)),
            ("port", json!(65_536)),
            ("port", json!("5900")),
            ("exp", json!("7")),
            ("exp", json!(-1)),
            ("exp", json!(1e300)),
            ("exp", json!(null)),
            ("jti", json!(7)),
            ("jti", json!("")),
            ("jti", json!(null)),
            ("network", json!([])),
            ("network", json!("")),
            ("network", json!(null)),
            ("network", json!(["192.0.2.0/33"])),
            ("network", json!(["192.0.2.1", 7])),
            ("network", json!(vec!["192.0.2.1"; MAX_NETWORKS + 1])),
        ] {
            let mut wrong = good.clone();
            wrong[name] = value.clone();
            assert_eq!(read(&wrong), None, "{name} {value}");
        }
        for name in ["host", "port", "exp"] {
            let mut wrong = good.clone();
            wrong.as_object_mut().unwrap().remove(name);
            assert_eq!(read(&wrong), None, "{name}");
        }
        let twice = r#"{"host": "a", "host": "b", "port": 1, "exp": 7}"#;
        assert!(serde_json::from_str::<Claims>(twice).is_err());
    }
}
