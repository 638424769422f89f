//! Reading an answer into memory, up to a limit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::http::steady::{BodyError, Steady};

/// What was read of an answer.
pub(super) enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than the limit: what was read, and where the rest comes from.
    TooLong(Bytes, Steady),
}

/// Reads a body to its end, or until it is longer than `limit` bytes.
pub(super) async fn up_to(mut body: Steady, limit: usize) -> Result<Collected, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Ok(Collected::TooLong(Bytes::new(), body));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > limit {
            return Ok(Collected::TooLong(bytes.freeze(), body));
        }
    }
    Ok(Collected::Whole(bytes.freeze()))
}
