//! What a signed ticket says.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::described::{Described, Networks, present};
use crate::grant::Grant;

/// The claims that the gateway understands; others are passed over (RFC 7519, section 4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// `host`, `port`, `tls_port`, `channels` and `network`.
    pub(super) grant: Grant,
    /// `exp`: seconds since 1970, rounded up as they come.
    pub(super) expiry: u64,
    /// `jti`.
    pub(super) id: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    host: String,
    #[serde(default, deserialize_with = "present")]
    port: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    tls_port: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    channels: Option<Vec<String>>,
    exp: serde_json::Number,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    network: Option<Networks>,
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        // Such as 1.7e9 (RFC 7519, section 2: NumericDate).
        let expiry = written
            .exp
            .as_u64()
            .or_else(|| whole(written.exp.as_f64()?));
        let networks = written.network.map(|networks| networks.parse());
        let described = Described {
            host: &written.host,
            port: written.port,
            tls_port: written.tls_port,
            channels: written.channels.as_deref(),
            clients: networks
                .transpose()
                .map_err(Error::custom)?
                .unwrap_or_default(),
            tls: None,
        };
        let id = written.jti;
        if id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid_length(0, &"a jti"));
        }
        Ok(Self {
            grant: described.grant().map_err(Error::custom)?,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::channel_type::{ChannelType, ChannelTypes};

    fn read(claims: &Value) -> Option<Claims> {
        serde_json::from_str(&claims.to_string()).ok()
    }

    #[test]
    fn claims_are_read() {
        let claims = read(&json!({"host": "10.0.0.7", "port": 5900, "exp": 7, "x": [1]})).unwrap();
        assert_eq!(claims.grant, Grant::new("10.0.0.7:5900".parse().unwrap()));
        assert_eq!((claims.expiry, claims.id), (7, None));
        let claims = read(&json!({
            "host": "h.example", "port": 1, "exp": 1.7e9, "jti": "a", "network": "192.0.2.0/24",
        }));
        let claims = claims.unwrap();
        assert_eq!(claims.expiry, 1_700_000_000);
        assert_eq!(claims.id.as_deref(), Some("a"));
        assert_eq!(claims.grant.clients, ["192.0.2.0/24".parse().unwrap()]);
        let two =
            json!({"host": "h", "port": 1, "exp": 7, "network": ["192.0.2.7", "2001:db8::/32"]});
        assert_eq!(read(&two).unwrap().grant.clients.len(), 2);
        let more = json!({"host": "h", "port": 1, "exp": 7, "tls_port": 2});
        assert_eq!(read(&more).unwrap().grant.tls_port, Some(2));
        let few = json!({"host": "unix:/run/a.sock", "exp": 7, "channels": ["main"]});
        let few = read(&few).unwrap().grant;
        assert_eq!(few.target.to_string(), "unix:/run/a.sock");
        assert_eq!(few.channels, ChannelTypes::only(&[ChannelType::MAIN]));
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
            ("network", json!(vec!["192.0.2.1"; 65])),
            ("host", json!("unix:/run/a.sock")),
            ("port", json!(null)),
            ("tls_port", json!(0)),
            ("tls_port", json!("5901")),
            ("tls_port", json!(null)),
            ("channels", json!([])),
            ("channels", json!("main")),
            ("channels", json!(["record"])),
            ("channels", json!(null)),
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
