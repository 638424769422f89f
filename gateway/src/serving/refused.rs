//! Why a channel is not opened: what is counted, logged and answered for each reason.

use std::fmt;
use std::net::IpAddr;

use http::{Response, StatusCode};
use tracing::field::display;
use tracing::{debug, info};

use super::handshake::HandshakeError;
use super::reply;
use super::tunnel::TunnelError;
use crate::admission::Refusal;
use crate::channel::ConnectError;
use crate::drain;
use crate::http::body::Body;
use crate::http::reply::error;
use crate::limits::TooManyChannels as TooMany;
use crate::metrics::{ChannelRefusal, HostFailure, Metrics};
use crate::session::SessionId;
use crate::target::Target;
use crate::web_origin::WrongOrigin;
use gateway_datapath::Framing;

/// Why a WebSocket or a tunnel is not opened.
pub(super) enum Refused {
    /// The request is none that opens a WebSocket.
    Handshake(HandshakeError),
    /// The request is none that opens a tunnel, or none is to be opened.
    Tunnel(TunnelError),
    /// A web page that may not come here.
    Origin {
        wrong: WrongOrigin,
        /// Its origin, as it said it.
        page: String,
    },
    /// The token is not good.
    Token(Refusal),
    /// It would begin a desktop session while the gateway drains.
    Draining,
    /// The client's address has too much open.
    TooMany {
        too_many: TooMany,
        session: SessionId,
    },
    /// The host is not connected.
    Host {
        failure: ConnectError,
        session: SessionId,
        target: Target,
    },
}

/// Where a refusal is counted.
enum Counted {
    Refused(ChannelRefusal),
    Host(HostFailure),
}

impl Refused {
    fn consequences(&self) -> (Counted, Response<Body>) {
        let refused = Counted::Refused;
        match self {
            Self::Handshake(error) => {
                (refused(ChannelRefusal::Handshake), reply::handshake(*error))
            }
            Self::Tunnel(error) => (refused(error.label()), reply::tunnel(*error)),
            Self::Origin { .. } => {
                let message = "web pages of this origin may not come here";
                let answer = error(StatusCode::FORBIDDEN, message);
                (refused(ChannelRefusal::Origin), answer)
            }
            Self::Token(refusal) => (refused(refusal.label()), reply::refusal(*refusal)),
            Self::Draining => {
                let answer = error(StatusCode::SERVICE_UNAVAILABLE, drain::MESSAGE);
                (refused(ChannelRefusal::Draining), answer)
            }
            Self::TooMany { too_many, .. } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let answer = error(status, &too_many.to_string());
                (refused(too_many.label()), answer)
            }
            Self::Host { failure, .. } => (Counted::Host(failure.label()), reply::host(failure)),
        }
    }

    /// Counts it, and gives what the client is answered.
    pub(super) fn answered(&self, metrics: &Metrics) -> Response<Body> {
        let (counted, answer) = self.consequences();
        match counted {
            Counted::Refused(reason) => metrics.channels_refused.count(reason),
            Counted::Host(reason) => metrics.host_failures.count(reason),
        }
        answer
    }

    /// The desktop session that the token was good for, if it was.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::TooMany { session, .. } | Self::Host { session, .. } => Some(*session),
            Self::Handshake(_)
            | Self::Tunnel(_)
            | Self::Origin { .. }
            | Self::Token(_)
            | Self::Draining => None,
        }
    }

    /// Tells the log; `framing` is that of the channel that would have been.
    pub(super) fn tell(&self, client: IpAddr, framing: Framing) {
        let session = self.session().map(display);
        let page = match self {
            Self::Origin { page, .. } => Some(page),
            _ => None,
        };
        let reason = self;
        match (self, framing) {
            // Why the portal does not say is told once, not for each of its clients.
            (Self::Handshake(_), _)
            | (Self::Token(Refusal::Portal | Refusal::Questions), Framing::WebSocket) => {
                debug!(%client, %reason, "WebSocket refused");
            }
            // The way in which some clients ask whether they need credentials.
            (Self::Tunnel(_), _)
            | (Self::Token(Refusal::Portal | Refusal::Questions), Framing::Raw) => {
                debug!(%client, %reason, "tunnel refused");
            }
            // A line for each would let whoever guesses write the log.
            (Self::Token(Refusal::TooMany { .. }), _) => {}
            (Self::Host { target, .. }, _) => {
                info!(session, %client, host = %target, %reason, "host not reached");
            }
            (_, Framing::WebSocket) => {
                info!(%client, session, page, %reason, "WebSocket refused");
            }
            (_, Framing::Raw) => info!(%client, session, %reason, "tunnel refused"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::Tunnel(error) => error.fmt(f),
            Self::Origin { wrong, .. } => wrong.fmt(f),
            Self::Token(refusal) => refusal.fmt(f),
            Self::Draining => f.write_str("draining"),
            Self::TooMany { too_many, .. } => too_many.fmt(f),
            Self::Host { failure, .. } => failure.fmt(f),
        }
    }
}
