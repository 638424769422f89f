//! `flexvdi-gateway health`: one question, answered by the exit code.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::client::{message, open_socket, speak};
use crate::authority::Authority;
use crate::manager;
use crate::output::print_line;
use crate::serving::Trouble;

/// Longest wait for the answer, below what supervisors of containers wait for a check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: the gateway's has one line.
const MOST: usize = 64 * 1024;
/// Where the socket of the command line answers.
const PATH: &str = "/healthz";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether clients should be sent there.
    Ready,
    /// Whether it answers at all: one that drains does, and so does one without its manager.
    Live,
}

/// Where a gateway's health can be asked for, such as `https://gateway.example.com/healthz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthUrl {
    is_https: bool,
    authority: Authority,
    path: PathAndQuery,
}

impl FromStr for HealthUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address such as https://gateway.example.com/healthz";
        let parts = text.parse::<Uri>().map_err(|_| EXPECTED)?.into_parts();
        let is_https = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTPS => true,
            Some(scheme) if scheme == Scheme::HTTP => false,
            _ => return Err(EXPECTED),
        };
        let authority = parts.authority.ok_or(EXPECTED)?;
        let path = parts.path_and_query;
        Ok(Self {
            is_https,
            // Without user information.
            authority: authority.as_str().parse().map_err(|_| EXPECTED)?,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }
}

/// Asks the gateway whose `RuntimeDir` this is.
pub async fn of_running(runtime_dir: &Path, question: Question) -> anyhow::Result<()> {
    let asked = async {
        let stream: UnixStream = open_socket(runtime_dir).await?;
        speak(stream, request("localhost", PATH)?, MOST).await
    };
    judge(question, within_patience(asked).await?)
}

/// Asks whoever answers at `url`. The certificate is not checked: who can stand in for the gateway
/// there can answer in the gateway's place, but is told nothing.
pub async fn at(url: &HealthUrl, question: Question) -> anyhow::Result<()> {
    let Authority { host, port } = &url.authority;
    let port = port.unwrap_or(if url.is_https { 443 } else { 80 });
    let asked = async {
        let request = request(&url.authority.to_string(), url.path.as_str())?;
        let stream = TcpStream::connect((host.to_string(), port)).await;
        let stream = stream.with_context(|| format!("cannot connect to {host}, port {port}"))?;
        if !url.is_https {
            return speak(stream, request, MOST).await;
        }
        let tls = TlsConnector::from(Arc::new(manager::client_config(None)?));
        let name = ServerName::try_from(host.to_string())?;
        let stream = tls.connect(name, stream).await.context("TLS")?;
        speak(stream, request, MOST).await
    };
    judge(question, within_patience(asked).await?)
}

async fn within_patience<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let answered = timeout(PATIENCE, asked).await;
    answered.context("the gateway does not answer")?
}

fn request(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::get(path).header(HOST, host);
    Ok(request.body(Full::default())?)
}

fn judge(question: Question, (status, text): (StatusCode, String)) -> anyhow::Result<()> {
    // A proxy in front of a gateway that is gone answers 503, too.
    let is_own = Trouble::of(&text).is_some();
    let text = message(text.trim());
    match status {
        StatusCode::OK => print_line(&text),
        StatusCode::SERVICE_UNAVAILABLE if question == Question::Ready => bail!("{text}"),
        StatusCode::SERVICE_UNAVAILABLE if is_own => print_line(&text),
        StatusCode::SERVICE_UNAVAILABLE => bail!("a 503 that is no answer of a gateway: {text}"),
        _ => bail!("no answer about health, but {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url: HealthUrl = "https://[::1]:8443/up?x=1".parse().unwrap();
        assert!(url.is_https);
        assert_eq!(url.authority.port, Some(8443));
        assert_eq!(url.authority.host.to_string(), "::1");
        assert_eq!(url.path, "/up?x=1");
        let url: HealthUrl = "http://gateway".parse().unwrap();
        assert!(!url.is_https);
        assert_eq!((url.authority.port, url.path.as_str()), (None, "/"));
        for wrong in [
            "",
            "/healthz",
            "gateway:9180",
            "ftp://gateway/",
            "http://user@gateway/",
            "http://gateway:0/",
        ] {
            assert!(wrong.parse::<HealthUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_gateways_own_503_is_a_sign_of_life() {
        let answer = |text: &str| (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
        judge(Question::Live, answer("the manager cannot be reached\n")).unwrap();
        for text in [
            "",
            "<html>503 Service Unavailable</html>",
            "draining or not",
        ] {
            assert!(judge(Question::Live, answer(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn one_that_drains_is_alive_and_not_ready() {
        let draining = || (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
        let error = judge(Question::Ready, draining()).unwrap_err();
        assert_eq!(error.to_string(), "draining");
        judge(Question::Live, draining()).unwrap();
        for question in [Question::Ready, Question::Live] {
            let elsewhere = (StatusCode::NOT_FOUND, String::new());
            assert!(judge(question, elsewhere).is_err());
        }
    }
}
