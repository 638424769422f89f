//! A portal that is asked over HTTPS what a token stands for (`TicketURL`).
//!
//! The gateway sends `POST` with `{"token": ..., "client": ...}`; the token is in the body, as
//! addresses get into logs. An answer is asked for once: from then on the token is a ticket like
//! others, for as long as its desktop session lives. Each question has a connection of its own, so
//! that no answer can be taken for another one's.

mod asking;
mod breaker;
mod unknown;

use std::error::Error as StdError;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service;
use tracing::{debug, warn};

use crate::causes;
use crate::config::Config;
use crate::described::{Described, DescribedError, present};
use crate::grant::Grant;
use crate::https::{Connector, connector};
use crate::limits::Subscriber;
use crate::metrics::{Metrics, PortalResult};
use asking::{Asking, Place};
use breaker::Breaker;
use unknown::Unknown;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// Questions at a time. Those about one token never overlap, so that the channels of a session ask
/// once.
const QUESTIONS: usize = 64;
/// Longest token that is asked about, in bytes.
const MAX_TOKEN: usize = 2_048;

/// Asks a portal.
pub struct Portal {
    url: Uri,
    https: Connector,
    limit: Duration,
    questions: [Mutex<()>; QUESTIONS],
    asking: Asking,
    breaker: Breaker,
    unknown: Unknown,
    /// Those at which it failed, though not at others.
    unclear: Unknown,
    hashes: RandomState,
    metrics: Arc<Metrics>,
}

/// The leave to ask about a token, until it is dropped.
pub struct Turn<'a> {
    _question: MutexGuard<'a, ()>,
    _place: Option<Place<'a>>,
}

/// Why there is no leave to ask about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    /// So many questions of the same client wait or are asked already.
    #[error("too many questions to the portal at a time")]
    TooMany,
    /// Others took longer than `TicketURLTimeout`.
    #[error("the questions before took too long")]
    Timeout,
}

/// Why it is not known what a token stands for.
#[derive(Debug, thiserror::Error)]
pub enum PortalError {
    /// `TicketURLTimeout`.
    #[error("no answer within {} s (TicketURLTimeout)", .0.as_secs())]
    Timeout(Duration),
    /// It has failed several times in a row, or just now with this token.
    #[error("it has failed before, and is tried again in at most {} s", breaker::PAUSE.as_secs())]
    Paused,
    /// No connection, or it broke off.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that does not say.
    #[error("its answer has {0}")]
    Answer(&'static str),
    /// An answer that names no desktop.
    #[error("its answer has no desktop: {0}")]
    Desktop(#[from] DescribedError),
    /// A status that does not say.
    #[error("its answer has status {0}; expected 200, or 403 or 404 for a wrong token")]
    Status(StatusCode),
}

/// Whether a token may be one that a portal made. Others can only be meant to confuse it.
pub fn may_be_token(token: &str) -> bool {
    !token.is_empty() && token.len() <= MAX_TOKEN && !token.contains(char::is_control)
}

impl PortalError {
    fn label(&self) -> PortalResult {
        match self {
            Self::Timeout(_) => PortalResult::Timeout,
            Self::Paused => PortalResult::Paused,
            Self::Unreachable(_) => PortalResult::Unreachable,
            Self::Answer(_) | Self::Desktop(_) | Self::Status(_) => PortalResult::Answer,
        }
    }

    /// Whether the portal was asked.
    pub fn was_asked(&self) -> bool {
        !matches!(self, Self::Paused)
    }

    /// Whether the next question is likely to end in the same way, whatever it is about.
    fn is_of_the_portal(&self) -> bool {
        match self {
            // What it says of one desktop may be right for all others.
            Self::Desktop(_) | Self::Paused => false,
            Self::Timeout(_) | Self::Unreachable(_) | Self::Answer(_) => true,
            Self::Status(status) => is_failure(*status),
        }
    }
}

/// What the portal says of a token that is good; other members say nothing.
#[derive(Deserialize)]
struct Said {
    host: String,
    #[serde(default, deserialize_with = "present")]
    port: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    tls_port: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    channels: Option<Vec<String>>,
}

impl Portal {
    /// As the configuration says; `None`: there is none. `tls` decides which certificate it may
    /// have.
    pub fn new(config: &Config, tls: ClientConfig, metrics: Arc<Metrics>) -> Option<Self> {
        let url = config.ticket_url.clone()?;
        let limit = config.ticket_url_timeout;
        let https = connector(tls, limit);
        Some(Self {
            url,
            https,
            limit,
            questions: std::array::from_fn(|_| Mutex::default()),
            asking: Asking::default(),
            breaker: Breaker::default(),
            unknown: Unknown::default(),
            unclear: Unknown::default(),
            hashes: RandomState::new(),
            metrics,
        })
    }

    /// Waits for the leave to ask about this token; whoever had it before may have got an answer.
    /// `owner`: who is counted for the question, if anybody.
    pub async fn turn(&self, token: &str, owner: Option<Subscriber>) -> Result<Turn<'_>, NoTurn> {
        let place = match owner {
            Some(owner) => Some(self.asking.enter(owner).ok_or(NoTurn::TooMany)?),
            None => None,
        };
        let count = QUESTIONS as u64;
        let at = usize::try_from(self.hash(token) % count).unwrap_or_default();
        let turn = timeout(self.limit, self.questions[at].lock()).await;
        let question = turn.map_err(|_| {
            self.metrics.portal_requests.count(PortalResult::Timeout);
            NoTurn::Timeout
        })?;
        Ok(Turn {
            _question: question,
            _place: place,
        })
    }

    /// What a token stands for; `None`: it is wrong.
    pub async fn ask(&self, token: &str, client: IpAddr) -> Result<Option<Grant>, PortalError> {
        let hash = self.hash(token);
        if self.unknown.contains(hash, Instant::now()) {
            return Ok(None);
        }
        let is_unclear = self.unclear.contains(hash, Instant::now());
        let answer = if !is_unclear && self.breaker.allows(Instant::now()) {
            let exchange = timeout(self.limit, self.exchange(token, client)).await;
            let answer = exchange.unwrap_or(Err(PortalError::Timeout(self.limit)));
            match &answer {
                Ok(_) => self.breaker.succeeded(),
                Err(error) if error.is_of_the_portal() => self.breaker.failed(Instant::now()),
                Err(_) => {
                    self.unclear.note(hash, Instant::now());
                    // It answers: otherwise whoever sends such a token whenever it is tried again
                    // would keep everybody else's from being asked about.
                    self.breaker.succeeded();
                }
            }
            answer
        } else {
            Err(PortalError::Paused)
        };
        self.metrics.portal_requests.count(match &answer {
            Ok(Some(_)) => PortalResult::Granted,
            Ok(None) => PortalResult::Refused,
            Err(error) => error.label(),
        });
        match &answer {
            Ok(Some(_)) => {}
            Ok(None) => self.unknown.note(hash, Instant::now()),
            // A line for each would be one for each client.
            Err(reason @ PortalError::Paused) => {
                debug!(%client, %reason, "no answer from the portal");
            }
            Err(reason) => warn!(%client, %reason, "no answer from the portal"),
        }
        answer
    }

    fn hash(&self, token: &str) -> u64 {
        self.hashes.hash_one(token)
    }

    async fn exchange(&self, token: &str, client: IpAddr) -> Result<Option<Grant>, PortalError> {
        let mut https = self.https.clone();
        std::future::poll_fn(|context| https.poll_ready(context))
            .await
            .map_err(|error| unreachable(&*error))?;
        let connected = https.call(self.url.clone()).await;
        let stream = connected.map_err(|error| unreachable(&*error))?;
        let handshake = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
        // Ends with this question, however that ends.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let response = sender
            .send_request(self.question(token, client)?)
            .await
            .map_err(|error| unreachable(&error))?;
        match response.status() {
            StatusCode::OK => {}
            // Other statuses of this kind are about the token, too: whoever sends one that the
            // portal finds malformed must not look like a failure of the portal.
            status if status.is_client_error() && !is_failure(status) => return Ok(None),
            status => return Err(PortalError::Status(status)),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body.await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                PortalError::Answer("more than 16 KiB")
            } else {
                unreachable(&*error)
            }
        })?;
        grant(&body.to_bytes()).map(Some)
    }

    fn question(&self, token: &str, client: IpAddr) -> Result<Request<Full<Bytes>>, PortalError> {
        let mut question = json!({ "token": token });
        if !client.is_unspecified() {
            question["client"] = json!(client);
        }
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let target = self.url.path_and_query();
        Request::post(target.map_or("/", |target| target.as_str()))
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Full::from(question.to_string()))
            .map_err(|error| unreachable(&error))
    }
}

/// Whether a status says that the portal cannot answer now, or not this gateway (RFC 9110, section
/// 15; RFC 6585, section 4).
fn is_failure(status: StatusCode) -> bool {
    let is_refused = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    is_refused || status.is_server_error()
}

/// Reads an answer, which is not repeated: it may be anything.
fn grant(body: &[u8]) -> Result<Grant, PortalError> {
    let expected = "no JSON object with \"host\" (a string), \"port\" (a number), and optionally \
                    \"tls_port\" (a number) and \"channels\" (an array of strings)";
    // An array would be taken for the values of its members, in their order.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let said = is_object.then(|| serde_json::from_slice::<Said>(body).ok());
    let said = said.flatten().ok_or(PortalError::Answer(expected))?;
    let described = Described {
        host: &said.host,
        port: said.port,
        tls_port: said.tls_port,
        channels: said.channels.as_deref(),
        ..Described::default()
    };
    Ok(described.grant()?)
}

fn unreachable(error: &(dyn StdError + 'static)) -> PortalError {
    PortalError::Unreachable(causes::text(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel_type::ChannelTypes;

    #[test]
    fn only_what_may_be_a_token_is_asked_about() {
        let longest = "x".repeat(MAX_TOKEN);
        for token in ["7Hq2c9", "a b/ü", longest.as_str()] {
            assert!(may_be_token(token), "{token}");
        }
        let longer = format!("{longest}x");
        for token in ["", "a\0", "\n", "a\u{7f}", "a\u{85}", longer.as_str()] {
            assert!(!may_be_token(token), "{token:?}");
        }
    }

    #[test]
    fn only_failures_of_the_portal_count_as_its_own() {
        for status in [401, 408, 429, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(PortalError::Status(status).is_of_the_portal(), "{status}");
        }
        for status in [204, 302, 400, 405, 413, 422] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!PortalError::Status(status).is_of_the_portal(), "{status}");
        }
        assert!(!PortalError::Paused.is_of_the_portal());
    }

    #[test]
    fn answers_are_read() {
        let good = grant(br#"{"host": "10.0.0.7", "port": 5900, "expires_in": 60}"#).unwrap();
        assert_eq!(good.target.to_string(), "10.0.0.7:5900");
        let good = br#"{"host": "unix:/run/a.sock", "channels": ["main", "display"]}"#;
        let good = grant(good).unwrap();
        assert_eq!(good.target.to_string(), "unix:/run/a.sock");
        assert_eq!(
            good.channels,
            ChannelTypes::named(&["display", "main"]).unwrap()
        );
        let good = grant(br#"{"host": "h", "port": 5900, "tls_port": 5901}"#).unwrap();
        assert_eq!(good.tls_port, Some(5901));
        for wrong in [
            r#"["10.0.0.7", 5900]"#,
            r#"{"host": "h", "port": 5900, "tls_port": null}"#,
            r#"{"host": "h", "port": 5900, "tls_port": 0}"#,
            r#"{"host": "h", "port": 5900, "channels": ["secret"]}"#,
            r#"{"host": "h", "port": 5900, "channels": []}"#,
            r#"{"host": "unix:/run/secret", "port": 5900}"#,
            "",
            "[]",
            r#"{"host": "10.0.0.7"}"#,
            r#"{"host": "10.0.0.7", "port": "5900"}"#,
            r#"{"host": "10.0.0.7", "port": 0}"#,
            r#"{"host": "10.0.0.7", "port": 65536}"#,
            r#"{"host": "0.0.0.0", "port": 5900}"#,
            r#"{"host": "a secret", "port": 5900}"#,
        ] {
            let error = grant(wrong.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
