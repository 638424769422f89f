//! What is written: the members of each line. Documented in docs/access-log.md, and stable.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::RequestId;
use crate::client_certificate::{ClientCertificate, shared};

/// One line, without its time.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A request that was not for a channel was answered to its end.
    Request(Requested),
    /// A client was told to come for its desktop with a ticket.
    DesktopAssigned {
        /// The request that was answered.
        request: RequestId,
        /// Number of the desktop session.
        session: String,
        /// Address of the client.
        client: IpAddr,
        /// Host and port of the desktop.
        host: String,
    },
    /// Somebody has logged in to a desktop of the file, or was refused.
    Login {
        /// The request with the login.
        request: RequestId,
        /// Address of the client.
        client: IpAddr,
        /// The user's name, its beginning.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// The terminal's name, or its hardware address.
        #[serde(skip_serializing_if = "Option::is_none")]
        terminal: Option<String>,
        /// What became of it.
        result: &'static str,
    },
    /// A client has said what its channel is, and its host is connected.
    ChannelOpen {
        #[serde(flatten)]
        #[expect(missing_docs, reason = "documented at its type")]
        channel: ChannelStart,
        /// Kind of the Spice channel.
        kind: &'static str,
        /// Number among those of its kind.
        number: u8,
        /// The data path.
        path: &'static str,
    },
    /// A channel ended, also one that never said what it is.
    ChannelClosed {
        #[serde(flatten)]
        #[expect(missing_docs, reason = "documented at its type")]
        channel: ChannelStart,
        #[serde(flatten)]
        #[expect(missing_docs, reason = "documented at its type")]
        end: ChannelEnd,
    },
    /// A connection or a WebSocket was refused.
    Refused {
        /// The request, unless the connection was refused before there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
        /// Address of the client.
        client: IpAddr,
        /// Number of the desktop session, if the token was good.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// Status of the answer, if there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why.
        reason: String,
    },
    /// Events are missing here.
    Dropped {
        /// How many.
        count: u64,
    },
}

/// A request and its answer.
#[derive(Clone, Serialize)]
pub struct Requested {
    /// Number of the request.
    pub request: RequestId,
    /// Address of the client.
    pub client: IpAddr,
    /// The certificate that it has shown.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shared")]
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The method.
    pub method: String,
    /// The path of a request for the manager, without the query, which may hold secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of the answer's body that were handed to the connection.
    pub bytes: u64,
    /// Milliseconds from the request's head to the answer's end.
    pub ms: u64,
    /// Whether the answer was sent to its end.
    pub complete: bool,
}

/// What is common to the lines of a channel.
#[derive(Clone, Serialize)]
pub struct ChannelStart {
    /// The request that became the channel.
    pub request: RequestId,
    /// Number of the desktop session.
    pub session: String,
    /// Number of the channel.
    pub channel: String,
    /// Address of the client.
    pub client: IpAddr,
    /// The certificate that it has shown.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shared")]
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Host and port of the desktop.
    pub host: String,
}

/// What is known of a channel at its end.
#[derive(Serialize)]
pub struct ChannelEnd {
    /// Kind of the Spice channel; `none` when it never said.
    pub kind: &'static str,
    /// The data path; `none` when there was none.
    pub path: &'static str,
    /// Bytes of payload to the host.
    pub up: u64,
    /// Bytes of payload to the client.
    pub down: u64,
    /// Milliseconds that it lasted.
    pub ms: u64,
    /// Why it ended.
    pub reason: String,
}
