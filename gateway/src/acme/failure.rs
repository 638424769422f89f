//! Why an attempt to get a certificate came to nothing, what can be done about it, and how soon the
//! next attempt makes sense.

use std::time::Duration;

use instant_acme::{Error, Problem};

use super::authority::RequestError;
use super::store::StoreError;
use crate::causes;
use crate::manager::ManagerTlsError;
use crate::metrics::AcmeResult;

/// Longest text of an authority that is repeated, in characters.
const MAX_SAID: usize = 500;
/// What the kinds of errors of RFC 8555, section 6.7, begin with.
const KIND: &str = "urn:ietf:params:acme:error:";

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nothing is ordered that could not be kept.
    #[error("{0}; make room in StateDirectory, and let the gateway's user write there")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authorities(#[from] ManagerTlsError),
    #[error("the authority cannot be reached: {0}; check Directory and the network")]
    Unreachable(RequestError),
    /// What passes by itself, such as numbers against replay that do not get along (RFC 8555,
    /// section 6.5), which the library has tried a few times.
    #[error("the authority has trouble: {0}")]
    Trouble(String),
    #[error(
        "the clock of this system and that of the authority are {} hours apart; set the clock",
        .0.as_secs() / 3_600
    )]
    Clock(Duration),
    #[error("the authority wants to be left alone for a while: {0}")]
    RateLimited(String),
    #[error("the authority could not check the names: {0}; {advice}", advice = .1.advice())]
    NotValidated(String, Way),
    #[error("the authority offers no check by {0}; {advice}", advice = .0.other())]
    NoSuchCheck(Way),
    #[error("HttpPort {0} cannot be opened: {1}; end what uses it, or let the gateway use it")]
    Port(u16, std::io::Error),
    #[error("the authority refuses: {0}")]
    Refused(String),
    #[error("the authority's certificate cannot be used: {0}")]
    Unusable(String),
    #[error("it took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// A fault of the cryptographic library or of the system's randomness.
    #[error("{0}")]
    System(String),
}

/// How names are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Tls,
    Http,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls-alpn-01",
            Self::Http => "http-01",
        })
    }
}

impl Way {
    fn advice(self) -> &'static str {
        match self {
            Self::Tls => {
                "port 443 of each name must lead to SslPort, and nothing on the way may end TLS"
            }
            Self::Http => "port 80 of each name must lead to HttpPort",
        }
    }

    fn other(self) -> &'static str {
        match self {
            Self::Tls => "set HttpPort",
            Self::Http => "leave HttpPort out",
        }
    }
}

impl Failure {
    /// What is counted.
    pub(super) fn result(&self) -> AcmeResult {
        match self {
            Self::Unreachable(_) | Self::Trouble(_) | Self::Timeout(_) => AcmeResult::Unreachable,
            Self::RateLimited(_) => AcmeResult::RateLimited,
            Self::NotValidated(..) | Self::NoSuchCheck(_) => AcmeResult::NotValidated,
            Self::Refused(_) | Self::Unusable(_) => AcmeResult::Refused,
            Self::Store(_)
            | Self::Authorities(_)
            | Self::Clock(_)
            | Self::Port(..)
            | Self::System(_) => AcmeResult::Local,
        }
    }

    /// The pause after the first of several, and the longest one.
    pub(super) fn pauses(&self) -> (Duration, Duration) {
        let seconds = Duration::from_secs;
        match self.result() {
            AcmeResult::Issued | AcmeResult::Unreachable => (seconds(10), seconds(3_600)),
            AcmeResult::Local => (seconds(60), seconds(3_600)),
            // Authorities count what they refuse, some of them five in an hour.
            AcmeResult::Refused | AcmeResult::NotValidated => (seconds(120), seconds(6 * 3_600)),
            AcmeResult::RateLimited => (seconds(3_600), seconds(24 * 3_600)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Other(error) => match causes::find::<RequestError>(&*error) {
                Some(error) => Self::Unreachable(error.clone()),
                None => Self::Refused(short(&error.to_string())),
            },
            Error::Timeout(_) => Self::Refused("the order is not ready after a long time".into()),
            Error::Crypto | Error::KeyRejected => Self::System(error.to_string()),
            error => Self::Refused(short(&error.to_string())),
        }
    }
}

impl Failure {
    fn of_problem(problem: &Problem) -> Self {
        let said = said(problem);
        match kind(problem) {
            _ if asks_for_a_pause(problem) => Self::RateLimited(said),
            "badNonce" | "serverInternal" => Self::Trouble(said),
            _ => Self::Refused(said),
        }
    }
}

/// Whether the authority does not know the account, or not any more.
pub(super) fn is_unknown_account(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem) == "accountDoesNotExist")
}

/// Whether the authority wants fewer requests.
pub(super) fn is_limited(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if asks_for_a_pause(problem))
}

fn asks_for_a_pause(problem: &Problem) -> bool {
    kind(problem) == "rateLimited" || problem.status == Some(429)
}

fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix(KIND).unwrap_or(kind)
}

/// What the authority says of a problem, with what it says of each name.
pub(super) fn said(problem: &Problem) -> String {
    let one = |detail: Option<&str>, kind: Option<&str>| {
        let kind = kind.map(|kind| kind.strip_prefix(KIND).unwrap_or(kind));
        match (detail, kind) {
            (Some(detail), Some(kind)) => format!("{detail} ({kind})"),
            (detail, kind) => detail.or(kind).unwrap_or("it does not say why").to_owned(),
        }
    };
    let mut said = vec![one(problem.detail.as_deref(), problem.r#type.as_deref())];
    for part in &problem.subproblems {
        let name = part
            .identifier
            .as_ref()
            .map(|name| name.authorized(false).to_string());
        let text = one(part.detail.as_deref(), part.r#type.as_deref());
        said.push(match name {
            Some(name) => format!("{name}: {text}"),
            None => text,
        });
    }
    short(&said.join("; "))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_SAID) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Failure {
        Error::Api(serde_json::from_str(text).unwrap()).into()
    }

    #[test]
    fn limits_of_the_authority_are_told_from_refusals() {
        let limited = problem(
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429}"#,
        );
        assert_eq!(
            limited.to_string(),
            "the authority wants to be left alone for a while: too many (rateLimited)"
        );
        assert_eq!(limited.result(), AcmeResult::RateLimited);
        let refused = problem(
            r#"{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no",
                "subproblems": [{"identifier": {"type": "dns", "value": "a.example"},
                "detail": "not here"}]}"#,
        );
        assert_eq!(
            refused.to_string(),
            "the authority refuses: no (rejectedIdentifier); a.example: not here"
        );
        assert_eq!(refused.result(), AcmeResult::Refused);
        assert!(problem("{}").to_string().ends_with("it does not say why"));
        let long = problem(&format!(r#"{{"detail": "{}"}}"#, "ä".repeat(10_000)));
        assert!(long.to_string().chars().count() < MAX_SAID + 50);
    }
}
