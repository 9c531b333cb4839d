// SPDX-License-Identifier: Apache-2.0
//! What an answer is made of: our own pages, short texts, or the hypervisor's bytes as they arrive.
//!
//! One enum instead of a boxed body: the proxied path allocates nothing for it.

use crate::leash::Leash;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use portcullis_audit::OpenEntry;
use portcullis_domain::Outcome;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Our answers.
pub(crate) type Response = http::Response<Body>;
/// What a body can fail with.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request on its way to a hypervisor.
pub(crate) enum Sent {
    /// As it comes.
    Stream(Incoming),
    /// As it was read to tell what it asks.
    Whole(Full<Bytes>),
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(body) => body.size_hint(),
            Self::Whole(body) => body.size_hint(),
        }
    }
}

/// An answer's body.
pub(crate) enum Body {
    /// Bytes that are all there.
    Whole(Option<Bytes>),
    /// A page or asset.
    Page(axum::body::Body),
    /// The hypervisor's answer as it arrives.
    Upstream(Box<Passing>),
}

/// How often a long answer asks whether it may go on.
const LOOK: Duration = Duration::from_secs(1);

/// A hypervisor's answer on its way, the open event that its end closes, and what holds it.
pub(crate) struct Passing {
    body: portcullis_upstream::ResponseBody<Sent>,
    open: Option<OpenEntry>,
    leash: Leash,
    /// When it was last asked; none before its first part has come.
    looked_at: Option<Instant>,
    status: u16,
    bytes: u64,
}

impl Passing {
    pub(crate) fn new(
        body: portcullis_upstream::ResponseBody<Sent>,
        open: OpenEntry,
        leash: Leash,
        status: u16,
    ) -> Self {
        let mut passing = Self { body, open: Some(open), leash, looked_at: None, status, bytes: 0 };
        if passing.body.is_end_stream() {
            passing.close(Outcome::Done);
        }
        passing
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(open) = self.open.take() {
            let outcome = if outcome == Outcome::Done && self.status >= 400 { Outcome::Failed } else { outcome };
            done(open, outcome, self.status, self.bytes);
        }
    }

    /// Ends a download whose permit would not be given again.
    fn hold(&mut self) -> Result<(), Error> {
        // The permit is as old as the first part: most answers are over with it.
        let Some(looked_at) = self.looked_at else { return Ok(()) };
        if looked_at.elapsed() < LOOK {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let Some(reason) = self.leash.pulled() else { return Ok(()) };
        let reason = format!("access ended: {reason}");
        if let Some(open) = self.open.take() {
            crate::passage::end(open, Outcome::Failed, &reason, &[("bytes", &self.bytes.to_string())]);
        }
        Err(reason.into())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // The client went away before the end: what it got is known.
        self.close(Outcome::Abandoned);
    }
}

/// Closes an event with what an HTTP answer was. A close that cannot be written is found by the next start.
pub(crate) fn done(open: OpenEntry, outcome: Outcome, status: u16, bytes: u64) {
    let (status, bytes) = (status.to_string(), bytes.to_string());
    crate::passage::end(open, outcome, "", &[("status", &status), ("bytes", &bytes)]);
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole(Some(Bytes::from(text)))
    }
}

impl Body {
    /// No bytes.
    pub(crate) const fn empty() -> Self {
        Self::Whole(None)
    }

    /// Leaves out what an answer of ours to HEAD would carry (RFC 9110 section 9.3.2): in HTTP/2 nobody else does, and a
    /// client that is sent it all the same closes its connection.
    pub(crate) fn leave_out(&mut self) {
        if let Self::Whole(bytes) = self {
            *bytes = None;
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Page(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Upstream(passing) => {
                if let Err(ended) = passing.hold() {
                    return Poll::Ready(Some(Err(ended)));
                }
                let polled = Pin::new(&mut passing.body).poll_frame(cx);
                if passing.looked_at.is_none() && !passing.body.is_end_stream() {
                    passing.looked_at = Some(Instant::now());
                }
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        passing.bytes += frame.data_ref().map_or(0, |d| d.len() as u64);
                        if passing.body.is_end_stream() {
                            passing.close(Outcome::Done);
                        }
                    }
                    Poll::Ready(Some(Err(_))) => passing.close(Outcome::Failed),
                    Poll::Ready(None) => passing.close(Outcome::Done),
                    Poll::Pending => {}
                }
                polled.map_err(Into::into)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Page(body) => body.is_end_stream(),
            Self::Upstream(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Page(body) => body.size_hint(),
            Self::Upstream(passing) => passing.body.size_hint(),
        }
    }
}
