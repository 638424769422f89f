//! What the gateway is doing, as the command line and the page show it. Nothing in it is secret.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::legs::LegStatus;
use crate::acme::AcmeStatus;
use crate::channel::{Entry, Session};
use crate::measured::Chosen;

/// The gateway and its desktop sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the gateway.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the process began.
    pub uptime_seconds: u64,
    /// The gateway drains, as balancers are told.
    pub draining: bool,
    /// New desktop sessions are refused: `DrainDelay` is over too.
    #[serde(default = "at_once")]
    pub refusing: bool,
    /// When the certificate ends, in seconds since the Unix epoch; `null`: unknown.
    pub certificate_end: Option<u64>,
    /// Certificates that the gateway gets by itself; `null`: it gets none.
    #[serde(default)]
    pub acme: Option<AcmeStatus>,
    /// Connections of clients.
    pub connections: usize,
    /// Tickets in memory.
    pub tickets: usize,
    /// What TLS handshakes have agreed on.
    #[serde(default)]
    pub tls: Vec<HandshakeStatus>,
    /// The congestion control of clients that come now and are not near, by its name in the kernel; `null`: unknown.
    #[serde(default)]
    pub congestion_control: Option<String>,
    /// What the process may do beyond what its user may, as in `CAP_NET_BIND_SERVICE`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Descriptors that are open; `null`: unknown.
    pub open_files: Option<u64>,
    /// Most descriptors that may be open; `null`: unknown.
    pub open_files_limit: Option<u64>,
    /// Desktop sessions that ever began.
    pub sessions_opened: u64,
    /// Channels that were ever opened.
    pub channels_opened: u64,
    /// What was moved over all.
    pub moved: Moved,
    /// The data paths, as they were found at the start.
    pub paths: Vec<PathStatus>,
    /// What `"DataPath": "auto"` has taken at the start; `null`: the configuration said another.
    #[serde(default)]
    pub auto: Option<Chosen>,
    /// The open desktop sessions, oldest first.
    pub sessions: Vec<SessionStatus>,
}

/// Handshakes that agreed on the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandshakeStatus {
    /// The version of TLS.
    pub version: String,
    /// The group of the key exchange; `none`: a session of TLS 1.2 was resumed.
    pub group: String,
    /// How many there were.
    pub handshakes: u64,
}

/// Gateways without `DrainDelay` refuse as soon as they drain.
fn at_once() -> bool {
    true
}

/// Payload in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes handed to hosts.
    pub up_bytes: u64,
    /// Bytes handed to clients.
    pub down_bytes: u64,
    /// Bytes per second handed to hosts, over the last seconds.
    pub up_rate: f64,
    /// Bytes per second handed to clients, over the last seconds.
    pub down_rate: f64,
}

/// One data path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathStatus {
    /// Its name.
    pub path: String,
    /// It passed its probe.
    pub works: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// One desktop session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number, such as `s12`.
    pub session: String,
    /// Address of the client.
    pub client: String,
    /// Host and Spice port.
    pub host: String,
    /// Age of its oldest channel, in seconds.
    pub age_seconds: u64,
    /// What its open channels have moved.
    pub moved: Moved,
    /// The worst or the sum of its channels; `null`: unknown.
    #[serde(default)]
    pub legs: Option<LegStatus>,
    /// Its channels, oldest first.
    pub channels: Vec<ChannelStatus>,
}

/// One channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Its number, such as `c12`.
    pub channel: String,
    /// Its type, such as `display`; `none` before the client has named it.
    pub kind: String,
    /// Its number among those of its type.
    pub number: Option<u8>,
    /// The data path; `none` before one was taken.
    pub path: String,
    /// Its age in seconds.
    pub age_seconds: u64,
    /// Bytes handed to the host.
    pub up_bytes: u64,
    /// Bytes handed to the client.
    pub down_bytes: u64,
    /// How its connections fare; `null`: unknown, as before it moves.
    #[serde(default)]
    pub legs: Option<LegStatus>,
}

impl SessionStatus {
    /// Of an open session; the rates are in bytes per second, up and down.
    pub fn new(session: &Session, (up_rate, down_rate): (f64, f64), now: SystemTime) -> Self {
        let channels: Vec<_> = session
            .channels
            .iter()
            .map(|entry| ChannelStatus::new(entry, now))
            .collect();
        let first = session.channels.first().map(|entry| &entry.channel);
        Self {
            session: session.id.to_string(),
            client: first.map_or_else(String::new, |channel| channel.client.to_string()),
            host: first.map_or_else(String::new, |channel| channel.host.to_string()),
            age_seconds: channels.iter().map(|c| c.age_seconds).max().unwrap_or(0),
            moved: Moved {
                up_bytes: channels.iter().map(|c| c.up_bytes).sum(),
                down_bytes: channels.iter().map(|c| c.down_bytes).sum(),
                up_rate,
                down_rate,
            },
            legs: LegStatus::of_session(channels.iter().filter_map(|c| c.legs)),
            channels,
        }
    }

    /// The data paths of its channels, each once.
    pub fn paths(&self) -> String {
        let mut paths: Vec<_> = self.channels.iter().map(|c| c.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.join(", ")
    }

    /// The types of its channels, with how many there are of each.
    pub fn kinds(&self) -> String {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for channel in &self.channels {
            match kinds.iter_mut().find(|(kind, _)| *kind == channel.kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((&channel.kind, 1)),
            }
        }
        let texts: Vec<_> = kinds
            .into_iter()
            .map(|(kind, count)| match count {
                1 => kind.to_owned(),
                _ => format!("{kind} ×{count}"),
            })
            .collect();
        texts.join(", ")
    }
}

impl ChannelStatus {
    fn new(entry: &Entry, now: SystemTime) -> Self {
        let carried = entry.carried();
        let channel = &entry.channel;
        Self {
            channel: channel.id.to_string(),
            kind: carried.kind.to_owned(),
            number: entry.number(),
            path: carried.path.to_owned(),
            age_seconds: now
                .duration_since(channel.opened)
                .map_or(0, |age| age.as_secs()),
            up_bytes: channel.counters.uplink(),
            down_bytes: channel.counters.downlink(),
            legs: LegStatus::of(&channel.counters),
        }
    }
}
