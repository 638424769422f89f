//! HTTP requests to the gateway or the manager.

use ::http::header::{HOST, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, Version};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::net::{Connection, Endpoint, StreamEnd, read_to_end, within};

/// A request to be sent over a connection of its own.
#[must_use]
#[derive(Clone, Debug)]
pub struct Call {
    endpoint: Endpoint,
    request: Request<Full<Bytes>>,
}

impl Call {
    /// A request with this method and target; its `Host` is the endpoint's address.
    ///
    /// # Panics
    /// When the target is no URI: such ones are sent by [`exchange`].
    pub fn new(endpoint: &Endpoint, method: Method, target: &str) -> Self {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, endpoint.addr().to_string())
            .body(Full::default())
            .expect("a valid target");
        Self {
            endpoint: endpoint.clone(),
            request,
        }
    }

    /// A `GET`.
    pub fn get(endpoint: &Endpoint, target: &str) -> Self {
        Self::new(endpoint, Method::GET, target)
    }

    /// A `POST` of this body.
    pub fn post(endpoint: &Endpoint, target: &str, body: impl Into<Bytes>) -> Self {
        let mut call = Self::new(endpoint, Method::POST, target);
        *call.request.body_mut() = Full::new(body.into());
        call
    }

    /// Adds a header; a second `Host` replaces the first.
    ///
    /// # Panics
    /// When it is no valid header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a valid header name");
        let value = HeaderValue::try_from(value).expect("a valid header value");
        let headers = self.request.headers_mut();
        if name == HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
        self
    }

    /// Leaves `Host` out.
    pub fn without_host(mut self) -> Self {
        self.request.headers_mut().remove(HOST);
        self
    }

    /// Speaks HTTP/1.0.
    pub fn http10(mut self) -> Self {
        *self.request.version_mut() = Version::HTTP_10;
        self
    }

    /// The request as it stands.
    pub fn into_request(self) -> Request<Full<Bytes>> {
        self.request
    }

    /// Sends it and collects the answer.
    pub async fn send(self) -> Result<Response<Bytes>> {
        HttpConnection::open(&self.endpoint)
            .await?
            .send(self.request)
            .await
    }
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl HttpConnection {
    /// Connects. Header names are sent in title case, as the flexVDI client does.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        Self::over(endpoint.connect().await?).await
    }

    /// Takes a stream that is connected already.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move {
            // Its errors reach whoever waits for an answer.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { sender, driver })
    }

    /// Sends a request and collects the answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        collect(self.send_streaming(request).await?).await
    }

    /// Sends a request and returns as soon as the answer's head is there.
    pub async fn send_streaming(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        within("answer to a request", async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await?
        .context("sending a request")
    }

    /// Whether the peer closed the connection, or it broke.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the peer closes the connection.
    pub async fn closed(&mut self) -> Result<()> {
        within("close of an HTTP connection", &mut self.driver)
            .await?
            .context("connection of a client")
    }
}

/// Reads the whole body of an answer.
pub async fn collect(response: Response<Incoming>) -> Result<Response<Bytes>> {
    let (head, body) = response.into_parts();
    let body = within("body of an answer", body.collect())
        .await?
        .context("reading an answer")?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Sends exactly these bytes over a new connection and reads until the peer ends it.
pub async fn exchange(endpoint: &Endpoint, bytes: &[u8]) -> Result<(Vec<u8>, StreamEnd)> {
    let mut connection: Connection = endpoint.connect().await?;
    within("sending", async {
        connection.write_all(bytes).await?;
        connection.flush().await
    })
    .await??;
    read_to_end(&mut connection).await
}

/// The length of the request or response that `bytes` begin with, its body included, in bytes;
/// `None` while its head, or an end of a chunked body, is not there yet.
pub(crate) fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = head_length(bytes)?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let header = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return bytes.ends_with(b"0\r\n\r\n").then_some(bytes.len());
    }
    let body = header("content-length").and_then(|value| value.parse::<usize>().ok());
    Some(head + body.unwrap_or(0))
}

/// The length of the head that `bytes` begin with, its empty line included; `None` while that
/// is not there yet.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let at = bytes.windows(END.len()).position(|window| window == END)?;
    Some(at + END.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_where_they_say() {
        assert_eq!(request_length(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
        assert_eq!(request_length(b"GET / HTTP/1.1\r\n\r\nmore"), Some(18));
        let post = b"POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nab";
        assert_eq!(request_length(post), Some(post.len() + 1));
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(request_length(format!("{head}1\r\na\r\n").as_bytes()), None);
        let whole = format!("{head}1\r\na\r\n0\r\n\r\n");
        assert_eq!(request_length(whole.as_bytes()), Some(whole.len()));
    }
}
