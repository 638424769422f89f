//! Bodies of the answers that clients get.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::steady::{BodyError, Steady};

/// An answer's body: made here, or passed on from the manager.
pub enum Body {
    /// All of it is known.
    Whole(Option<Bytes>),
    /// Streamed from the manager.
    Streamed(Steady),
    /// Streamed from the manager after a part that was read already.
    Resumed(Option<Bytes>, Steady),
}

impl Body {
    /// No content.
    pub fn empty() -> Self {
        Self::Whole(None)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (known, stream) = match self.get_mut() {
            Self::Whole(known) => (Some(known), None),
            Self::Streamed(stream) => (None, Some(stream)),
            Self::Resumed(known, stream) => (Some(known), Some(stream)),
        };
        if let Some(bytes) = known.and_then(Option::take) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match stream {
            Some(stream) => Poll::Ready(ready!(Pin::new(stream).poll_frame(context))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(known) => known.is_none(),
            Self::Streamed(stream) => stream.is_end_stream(),
            Self::Resumed(known, stream) => known.is_none() && stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |known: &Option<Bytes>| known.as_ref().map_or(0, |b| b.len() as u64);
        match self {
            Self::Whole(known) => SizeHint::with_exact(length(known)),
            Self::Streamed(stream) => stream.size_hint(),
            Self::Resumed(known, stream) => {
                let rest = stream.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + length(known));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + length(known));
                }
                hint
            }
        }
    }
}
