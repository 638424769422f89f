//! Bodies of the manager's answers.

use std::convert::Infallible;
use std::io::Read;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use ::http::{HeaderMap, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Feeds a [`streamed`] body.
#[derive(Clone, Debug)]
pub struct BodySender(mpsc::Sender<std::io::Result<Frame<Bytes>>>);

impl BodySender {
    /// Sends a piece; false when the connection is gone.
    pub async fn data(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(piece.into()))).await.is_ok()
    }

    /// Ends the body with trailers; false when the connection is gone.
    pub async fn trailers(self, trailers: HeaderMap) -> bool {
        self.0.send(Ok(Frame::trailers(trailers))).await.is_ok()
    }

    /// Breaks the body off, and with it the connection; false when that is gone already.
    pub async fn abort(self) -> bool {
        let broken = std::io::Error::other("broken off on purpose");
        self.0.send(Err(broken)).await.is_ok()
    }
}

/// A body with a `Content-Length`.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body of unknown length, sent chunked in these pieces.
pub fn chunked<P: Into<Bytes>>(pieces: impl IntoIterator<Item = P>) -> Body {
    let frames: Vec<_> = pieces
        .into_iter()
        .map(|piece| Ok(Frame::data(piece.into())))
        .collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body of unknown length, sent chunked as its sender says; dropping the sender ends it.
pub fn streamed() -> (BodySender, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (BodySender(sender), StreamBody::new(frames).boxed_unsync())
}

/// An answer of the API, compressed with gzip or not.
pub fn json_response(value: &Value, compress: bool) -> Response<Body> {
    let text = value.to_string();
    let mut response = Response::new(full(if compress {
        gzip(text.as_bytes())
    } else {
        text.into()
    }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The bytes compressed with gzip.
#[expect(clippy::missing_panics_doc, reason = "memory can be read and written")]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    GzEncoder::new(bytes, Compression::default())
        .read_to_end(&mut compressed)
        .expect("memory can be read and written");
    compressed
}
