//! What becomes of a channel that is not opened: the counters, the log, and the client's answer.

use std::fmt;
use std::net::IpAddr;

use http::Response;
use tracing::field::display;
use tracing::{debug, info};

use super::reply;
use crate::channel::ConnectError;
use crate::http::body::Body;
use crate::metrics::Metrics;
use crate::refusal::{Logged, Refusal};
use crate::session::SessionId;
use crate::target::Target;
use gateway_datapath::Framing;

/// Why a WebSocket or a tunnel is not opened.
pub(super) enum Refused {
    /// Before its host was asked.
    Before {
        refusal: Refusal,
        /// The desktop session that the token was good for, if it was.
        session: Option<SessionId>,
        /// The origin of the web page that asks, where that is the reason.
        page: Option<String>,
    },
    /// The host is not connected.
    Host {
        failure: ConnectError,
        session: SessionId,
        target: Target,
    },
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Before {
            refusal,
            session: None,
            page: None,
        }
    }
}

impl Refused {
    /// One of a token that was good.
    pub(super) fn in_session(refusal: Refusal, session: SessionId) -> Self {
        Self::Before {
            refusal,
            session: Some(session),
            page: None,
        }
    }

    /// One of a web page.
    pub(super) fn of_page(refusal: Refusal, page: String) -> Self {
        Self::Before {
            refusal,
            session: None,
            page: Some(page),
        }
    }

    /// Counts it, and gives what the client is answered.
    pub(super) fn answered(&self, metrics: &Metrics) -> Response<Body> {
        match self {
            Self::Before { refusal, .. } => {
                metrics
                    .channels_refused
                    .count(refusal.consequence().counted);
                reply::refusal(*refusal)
            }
            Self::Host { failure, .. } => {
                metrics.host_failures.count(failure.label());
                reply::host(failure)
            }
        }
    }

    /// The desktop session that the token was good for, if it was.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Before { session, .. } => *session,
            Self::Host { session, .. } => Some(*session),
        }
    }

    /// Writes it to the log; `framing` is that of the channel that would have been.
    pub(super) fn log(&self, client: IpAddr, framing: Framing) {
        let session = self.session().map(display);
        let reason = self;
        let (refusal, page) = match self {
            Self::Before { refusal, page, .. } => (refusal, page),
            Self::Host { target, .. } => {
                info!(session, %client, host = %target, %reason, "host not reached");
                return;
            }
        };
        match (refusal.consequence().logged, framing) {
            (Logged::Info, Framing::WebSocket) => {
                info!(%client, session, page, %reason, "WebSocket refused");
            }
            (Logged::Info, Framing::Raw) => info!(%client, session, %reason, "tunnel refused"),
            (Logged::Debug, Framing::WebSocket) => debug!(%client, %reason, "WebSocket refused"),
            (Logged::Debug, Framing::Raw) => debug!(%client, %reason, "tunnel refused"),
            (Logged::Not, _) => {}
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before { refusal, .. } => refusal.fmt(f),
            Self::Host { failure, .. } => failure.fmt(f),
        }
    }
}
