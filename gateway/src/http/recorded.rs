//! The body of an answer that tells the access log when it was sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::body::Body;
use super::steady::BodyError;
use crate::access_log::{AccessLog, Event, Requested};

/// A body, and the line that is written once it is dropped: sent to its end, or not.
pub struct Recorded {
    body: Body,
    record: Option<Record>,
}

struct Record {
    log: AccessLog,
    requested: Requested,
    begun: Instant,
}

impl Recorded {
    /// A body that is not recorded.
    pub fn without(body: Body) -> Self {
        Self { body, record: None }
    }

    /// The body of the answer to a request that `begun` then.
    pub fn new(body: Body, log: AccessLog, requested: Requested, begun: Instant) -> Self {
        let record = Some(Record {
            log,
            requested,
            begun,
        });
        Self { body, record }
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Some(record), Some(Ok(frame))) = (&mut this.record, &frame) {
            let length = frame.data_ref().map_or(0, Bytes::len);
            record.requested.bytes += length as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else {
            return;
        };
        let mut requested = record.requested;
        // The answer to HEAD has a body that is never asked for.
        requested.complete = self.body.is_end_stream() || requested.method == "HEAD";
        requested.ms = u64::try_from(record.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        record.log.write(|| Event::Request(requested));
    }
}
