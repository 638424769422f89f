//! What clients ask with.

use std::error::Error;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use serde::Deserialize;
use tokio::time::timeout;

use crate::http::body::Body;
use crate::http::reply;
use crate::secret::Secret;

/// Longest request, in bytes: several times what a client sends with the longest names.
const MAX_REQUEST: usize = 8 * 1_024;

/// What the body of a request says; what is not there is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    pub(super) hwaddress: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) desktop: Option<String>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    /// It is longer than any that is right.
    #[error("the request is longer than {MAX_REQUEST} bytes")]
    TooLong,
    /// The client did not go on with it.
    #[error("the client did not go on with its request")]
    Stalled,
    /// The client broke off.
    #[error("the request broke off")]
    BrokenOff,
    /// It is none of the API's.
    #[error("the request is no JSON object with texts")]
    Malformed,
}

impl AskError {
    /// What the client is answered, in words for people. An answer in JSON to the question how to
    /// log in would be shown as "Access denied".
    pub(super) fn answer(self, is_authmode: bool) -> Response<Body> {
        let (status, message) = match self {
            Self::TooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Your name or your password is too long.",
            ),
            Self::Stalled => (
                StatusCode::REQUEST_TIMEOUT,
                "Your request did not arrive in time. Please try again.",
            ),
            // The flexVDI client escapes nothing in what it sends.
            Self::BrokenOff | Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "Your request cannot be read. Names and passwords with quotation marks or \
                 backslashes do not work with this client.",
            ),
        };
        if is_authmode {
            reply::plain_error(status, message)
        } else {
            reply::error(status, message)
        }
    }
}

/// Reads a request's body, whatever it says its type is: clients call JSON by several names.
pub(super) async fn read<B>(body: B, within: Duration) -> Result<Asked, AskError>
where
    B: HttpBody<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let whole = timeout(within, Limited::new(body, MAX_REQUEST).collect());
    let whole = whole.await.map_err(|_| AskError::Stalled)?;
    let whole = whole.map_err(|error| {
        if error.is::<LengthLimitError>() {
            AskError::TooLong
        } else {
            AskError::BrokenOff
        }
    })?;
    serde_json::from_slice(&whole.to_bytes()).map_err(|_| AskError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    async fn read_text(text: &str) -> Result<Asked, AskError> {
        let body = Full::new(Bytes::from(text.to_owned()));
        read(body, Duration::from_secs(60)).await
    }

    #[tokio::test]
    async fn what_clients_send_is_read() {
        let text = r#"{"hwaddress": "52:54:00:00:00:01", "username": "ana", "password": "x", "desktop": "", "more": {}}"#;
        let asked = read_text(text).await.unwrap();
        assert_eq!(asked.hwaddress.as_deref(), Some("52:54:00:00:00:01"));
        assert_eq!(asked.username.as_deref(), Some("ana"));
        assert_eq!(asked.password.as_ref().unwrap().expose(), "x");
        assert_eq!(asked.desktop.as_deref(), Some(""));
        let nothing = read_text(r#"{"username": null}"#).await.unwrap();
        assert!(nothing.username.is_none() && nothing.hwaddress.is_none());
        assert!(!format!("{asked:?}").contains("\"x\""));
    }

    #[tokio::test]
    async fn what_nobody_sends_is_refused() {
        for text in [
            "",
            "[]1",
            "1",
            "{",
            r#"{"username": 1}"#,
            r#"{"password": "a"b"}"#,
            r#"{"username": "a", "username": "b"}"#,
        ] {
            let error = read_text(text).await.unwrap_err();
            assert_eq!(error, AskError::Malformed, "{text}");
        }
        let long = format!(r#"{{"password": "{}"}}"#, "a".repeat(MAX_REQUEST));
        assert_eq!(read_text(&long).await.unwrap_err(), AskError::TooLong);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_on_is_given_up() {
        let error = read(Never, Duration::from_secs(15)).await.unwrap_err();
        assert_eq!(error, AskError::Stalled);
    }

    /// A body that does not come.
    struct Never;

    impl HttpBody for Never {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }
}
