//! Desktops as others describe them in JSON: in orders for tickets, in signed tickets and in the
//! answers of a portal. Members of the same name mean the same in all of them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::channel_type::{ChannelNamesError, ChannelTypes};
use crate::grant::{Grant, GrantError};
use crate::host::HostError;
use crate::host_tls::HostTls;
use crate::socket_path::SocketPathError;
use crate::target::Target;

/// Most networks of a desktop: a bound on what each channel is compared with.
const MAX_NETWORKS: usize = 64;

/// What is said of a desktop.
#[derive(Debug, Default)]
pub struct Described<'a> {
    /// Name or address of its host, or `unix:` with the path of a socket.
    pub host: &'a str,
    /// Its Spice port; a Unix socket has none.
    pub port: Option<u16>,
    /// Its port for Spice inside TLS.
    pub tls_port: Option<u16>,
    /// Names of the types of channels that may pass; `None`: all.
    pub channels: Option<&'a [String]>,
    /// Networks that its clients have to be in; empty: any.
    pub clients: Vec<IpNet>,
    /// How its host's certificate is checked; `None`: as the configuration says.
    pub tls: Option<HostTls>,
}

/// Why a description is none of a desktop. Repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribedError {
    /// Neither a name nor an address.
    #[error("host: {0}")]
    Host(#[from] HostError),
    /// `unix:`, and then no path of a socket.
    #[error("host: {0}")]
    Socket(#[from] SocketPathError),
    /// A host without port, or with port 0.
    #[error("port: expected a number from 1 to 65535")]
    Port,
    /// A socket with a port.
    #[error("port: a Unix socket has none")]
    SocketPort,
    /// Port 0.
    #[error("tls_port: expected a number from 1 to 65535")]
    TlsPort,
    /// A type that is not known, or no main channel.
    #[error("channels: {0}")]
    Channels(#[from] ChannelNamesError),
    /// What cannot be had at once.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl Described<'_> {
    /// What whoever gets this desktop may do.
    pub fn grant(self) -> Result<Grant, DescribedError> {
        let target = match (Target::socket(self.host), self.port) {
            (Some(path), None) => Target::Unix(path?),
            (Some(path), Some(_)) => {
                path?;
                return Err(DescribedError::SocketPort);
            }
            (None, port) => {
                let host = self.host.parse()?;
                let port = port.filter(|port| *port != 0);
                Target::new(host, port.ok_or(DescribedError::Port)?)
            }
        };
        if self.tls_port == Some(0) {
            return Err(DescribedError::TlsPort);
        }
        let channels = self.channels.map(ChannelTypes::named).transpose()?;
        let grant = Grant {
            target,
            clients: self.clients,
            channels: channels.unwrap_or_default(),
            tls_port: self.tls_port,
            tls: self.tls,
        };
        grant.check()?;
        Ok(grant)
    }
}

/// Networks in which clients have to be: one, or a list of them, as `aud` is (RFC 7519, section
/// 4.1.3).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Networks {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// Why texts are no networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// Somebody has meant to permit nobody.
    #[error("network: expected at least one")]
    None,
    /// More than are compared with each channel.
    #[error("network: expected at most {MAX_NETWORKS}")]
    TooMany,
    /// One is none.
    #[error("network: expected networks such as \"192.0.2.0/24\", or addresses")]
    Malformed,
}

impl Networks {
    /// The networks.
    pub fn parse(&self) -> Result<Vec<IpNet>, NetworksError> {
        let texts = match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        };
        match texts.len() {
            0 => return Err(NetworksError::None),
            1..=MAX_NETWORKS => {}
            _ => return Err(NetworksError::TooMany),
        }
        let networks = texts.iter().map(|text| network(text));
        networks
            .collect::<Option<_>>()
            .ok_or(NetworksError::Malformed)
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse();
    network
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .ok()
}

/// Reads a member that may be missing, but not be null: whoever wrote that meant something else.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: Option<u16>) -> Described<'_> {
        Described {
            host,
            port,
            ..Described::default()
        }
    }

    #[test]
    fn a_desktop_is_a_host_with_a_port_or_a_socket() {
        for (text, port, shown) in [
            ("10.0.0.21", Some(5901), "10.0.0.21:5901"),
            ("2001:db8::1", Some(1), "[2001:db8::1]:1"),
            ("unix:/run/a.sock", None, "unix:/run/a.sock"),
        ] {
            let grant = host(text, port).grant().unwrap();
            assert_eq!(grant.target.to_string(), shown);
            assert_eq!(grant, Grant::new(grant.target.clone()));
        }
        for (text, port, told) in [
            ("a b", Some(5901), "host: "),
            ("unix:run", None, "host: "),
            ("unix:run", Some(1), "host: "),
            ("/run/a.sock", None, "host: "),
            ("h", None, "port: expected"),
            ("h", Some(0), "port: expected"),
            ("unix:/run/a.sock", Some(0), "port: a Unix socket"),
            ("unix:/run/a.sock", Some(5900), "port: a Unix socket"),
        ] {
            let error = host(text, port).grant().unwrap_err().to_string();
            assert!(error.starts_with(told), "{text} {port:?}: {error}");
        }
    }

    #[test]
    fn what_is_permitted_besides_must_make_sense() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (good, bad) = (names(&["main", "inputs"]), names(&["inputs"]));
        let with = |tls_port, channels| Described {
            tls_port,
            channels,
            ..host("h", Some(1))
        };
        assert_eq!(with(Some(2), None).grant().unwrap().tls_port, Some(2));
        let grant = with(None, Some(&good)).grant().unwrap();
        assert_eq!(grant.channels, ChannelTypes::named(&good).unwrap());
        for (described, error) in [
            (with(Some(0), None), DescribedError::TlsPort),
            (
                with(None, Some(&bad)),
                DescribedError::Channels(ChannelNamesError),
            ),
            (
                with(None, Some(&[])),
                DescribedError::Channels(ChannelNamesError),
            ),
            (
                with(Some(2), Some(&good)),
                DescribedError::Grant(GrantError::HiddenChannels),
            ),
            (
                Described {
                    tls_port: Some(2),
                    ..host("unix:/a", None)
                },
                DescribedError::Grant(GrantError::SocketTlsPort),
            ),
        ] {
            assert_eq!(described.grant(), Err(error));
        }
    }

    #[test]
    fn networks_are_one_or_several() {
        let read = |json: &str| serde_json::from_str::<Networks>(json).unwrap().parse();
        assert_eq!(read("\"192.0.2.7\"").unwrap().len(), 1);
        let two = read(r#"["192.0.2.0/24", "2001:db8::/32"]"#).unwrap();
        assert_eq!(two[0], "192.0.2.0/24".parse().unwrap());
        assert_eq!(read("[]"), Err(NetworksError::None));
        assert_eq!(read(r#"["::/129"]"#), Err(NetworksError::Malformed));
        let many = serde_json::to_string(&vec!["::1"; MAX_NETWORKS + 1]).unwrap();
        assert_eq!(read(&many), Err(NetworksError::TooMany));
    }
}
