//! Requests to the authority, each with an end.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::causes;
use crate::https::{Connector, connector};

/// Longest wait for the whole of an answer.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes: a chain of certificates.
const MAX_ANSWER: usize = 256 * 1024;

/// Why there is no answer to a request.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
    #[error("{0}")]
    Unreachable(String),
    #[error("its answer has more than 256 KiB")]
    TooLong,
    /// An error in another form than that of RFC 8555, section 6.7.
    #[error("its answer has status {0}")]
    Status(StatusCode),
}

/// What the authority has said besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noted {
    /// How long it wants to be left alone (RFC 8555, section 6.6).
    pub(super) retry_after: Option<Duration>,
    /// What time it has.
    pub(super) date: Option<SystemTime>,
}

/// The connections to an authority, for one attempt.
#[derive(Clone)]
pub(super) struct Authority {
    https: Client<Connector, BodyWrapper<Bytes>>,
    noted: Arc<Mutex<Noted>>,
}

impl Authority {
    /// `tls` decides which certificate it may have.
    pub(super) fn new(tls: ClientConfig) -> Self {
        let https = connector(tls, LIMIT);
        Self {
            https: Client::builder(TokioExecutor::new()).build(https),
            noted: Arc::default(),
        }
    }

    /// What it has said besides its last answers.
    pub(super) fn noted(&self) -> Noted {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let date = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        noted.date = date.or(noted.date);
        if status.is_success() {
            // There it says when to look again (RFC 8555, section 7.5.1).
            noted.retry_after = None;
        } else {
            let now = SystemTime::now();
            noted.retry_after = text(RETRY_AFTER).and_then(|text| retry_after(text, now));
        }
    }

    /// Sends a request, and reads all of its answer.
    pub(super) async fn exchange(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Bytes>, RequestError> {
        let response = self.https.request(request).await;
        let (parts, body) = response.map_err(|error| unreachable(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                RequestError::TooLong
            } else {
                unreachable(&*error)
            }
        })?;
        let body = body.to_bytes();
        self.note(parts.status, &parts.headers);
        let is_told = serde_json::from_slice::<serde_json::Map<_, _>>(&body).is_ok();
        if !parts.status.is_success() && !is_told {
            return Err(RequestError::Status(parts.status));
        }
        Ok(Response::from_parts(parts, body))
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let exchange = timeout(LIMIT, self.clone().exchange(request));
        Box::pin(async move {
            let answer = exchange.await.unwrap_or(Err(RequestError::Timeout));
            let answer = answer.map_err(|error| instant_acme::Error::Other(error.into()))?;
            Ok(answer.map(Full::new).into())
        })
    }
}

/// How long it is until then: seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn unreachable(error: &(dyn StdError + 'static)) -> RequestError {
    RequestError::Unreachable(causes::text(error))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_time_to_wait_is_read_in_both_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }
}
