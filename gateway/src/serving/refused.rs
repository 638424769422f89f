//! Why a WebSocket is not opened: what is counted, logged and answered for each reason.

use std::fmt;
use std::net::IpAddr;

use http::{Response, StatusCode};
use tracing::{debug, info};

use super::handshake::HandshakeError;
use super::reply;
use crate::admission::Refusal;
use crate::channel::ConnectError;
use crate::drain;
use crate::http::body::Body;
use crate::http::reply::error;
use crate::limits::TooManyChannels as TooMany;
use crate::metrics::{HostFailure, Metrics, WebSocketRefusal};
use crate::session::SessionId;
use crate::target::Target;
use crate::web_origin::WrongOrigin;

/// Why a WebSocket is not opened.
pub(super) enum Refused {
    /// The request is none that opens one.
    Handshake(HandshakeError),
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
    Refused(WebSocketRefusal),
    Host(HostFailure),
}

impl Refused {
    fn consequences(&self) -> (Counted, Response<Body>) {
        let refused = Counted::Refused;
        match self {
            Self::Handshake(error) => (
                refused(WebSocketRefusal::Handshake),
                reply::handshake(*error),
            ),
            Self::Origin { .. } => {
                let message = "web pages of this origin may not come here";
                let answer = error(StatusCode::FORBIDDEN, message);
                (refused(WebSocketRefusal::Origin), answer)
            }
            Self::Token(refusal) => (refused(refusal.label()), reply::refusal(*refusal)),
            Self::Draining => {
                let answer = error(StatusCode::SERVICE_UNAVAILABLE, drain::MESSAGE);
                (refused(WebSocketRefusal::Draining), answer)
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
            Counted::Refused(reason) => metrics.websockets_refused.count(reason),
            Counted::Host(reason) => metrics.host_failures.count(reason),
        }
        answer
    }

    /// The desktop session that the token was good for, if it was.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::TooMany { session, .. } | Self::Host { session, .. } => Some(*session),
            Self::Handshake(_) | Self::Origin { .. } | Self::Token(_) | Self::Draining => None,
        }
    }

    /// Tells the log.
    pub(super) fn tell(&self, client: IpAddr) {
        match self {
            Self::Handshake(reason) => debug!(%client, %reason, "WebSocket refused"),
            Self::Origin { wrong, page } => {
                info!(%client, page, reason = %wrong, "WebSocket refused");
            }
            Self::Token(Refusal::Token) | Self::Draining => {
                info!(%client, reason = %self, "WebSocket refused");
            }
            // A line for each would let whoever guesses write the log.
            Self::Token(Refusal::TooMany { .. }) => {}
            Self::TooMany { too_many, session } => {
                info!(%client, %session, reason = %too_many, "WebSocket refused");
            }
            Self::Host {
                failure,
                session,
                target,
            } => info!(%session, %client, host = %target, reason = %failure, "host not reached"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::Origin { wrong, .. } => wrong.fmt(f),
            Self::Token(refusal) => refusal.fmt(f),
            Self::Draining => f.write_str("draining"),
            Self::TooMany { too_many, .. } => too_many.fmt(f),
            Self::Host { failure, .. } => failure.fmt(f),
        }
    }
}
