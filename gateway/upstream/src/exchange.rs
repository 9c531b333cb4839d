// SPDX-License-Identifier: Apache-2.0
//! One HTTP/1.1 connection to a hypervisor, driven by whoever uses it.
//!
//! No task of its own: the future that waits for the answer polls the connection, and so does the body that follows.
//! That saves two task switches a request, and a connection that nobody uses costs nothing (2026-11-21).

use crate::wire::Wire;
use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error as StdError,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// The largest answer head, and the largest single read of a body, bytes.
const READ_BUFFER: usize = 64 * 1024;

/// How far the sending of a request's body has come.
#[derive(Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A request's body on its way out. Trailers stay behind: nothing that comes after the decision may add a header.
pub(crate) struct Sending<B> {
    inner: Option<B>,
    progress: Option<Arc<Progress>>,
}

impl<B: Body> Sending<B> {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self { inner: None, progress: None }
    }

    /// A body, and where its progress can be read; none for an empty one.
    pub(crate) fn new(body: B) -> (Self, Option<Arc<Progress>>) {
        if body.is_end_stream() {
            return (Self::empty(), None);
        }
        let progress = Arc::new(Progress::default());
        (Self { inner: Some(body), progress: Some(Arc::clone(&progress)) }, Some(progress))
    }

    fn end(&mut self) {
        self.inner = None;
        if let Some(progress) = &self.progress {
            progress.ended.store(true, Ordering::Relaxed);
        }
    }
}

impl<B> Body for Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                let ended = self.inner.as_ref().is_none_or(Body::is_end_stream);
                if let (Some(progress), Some(data)) = (&self.progress, frame.data_ref()) {
                    progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if ended {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Ok(_)) | None) => {
                self.end();
                Poll::Ready(None)
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Why an exchange failed.
pub(crate) enum Broken<B> {
    /// The request was never written: here it is again.
    Unsent(Box<Request<Sending<B>>>),
    /// hyper says why.
    Failed(hyper::Error),
    /// The deadline passed.
    TooSlow,
}

/// A connection with at most one exchange on it.
pub(crate) struct Live<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    send: SendRequest<Sending<B>>,
    connection: Connection<TokioIo<Wire>, Sending<B>>,
    is_over: bool,
    /// The sweep of its pool that came before its last use.
    rested: u64,
}

impl<B> Live<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Begins HTTP/1.1 on a connection.
    #[expect(clippy::disallowed_methods, reason = "the one client: whoever gets here has shown a permit")]
    pub(crate) async fn open(wire: Wire) -> Result<Box<Self>, hyper::Error> {
        // An answer has at most 100 header lines: hyper's own limit. Told a limit, hyper clears 6 KiB for each head.
        let (send, connection) = Builder::new().max_buf_size(READ_BUFFER).handshake(TokioIo::new(wire)).await?;
        Ok(Box::new(Self { send, connection, is_over: false, rested: 0 }))
    }

    /// Drives the connection. Reading, writing and the copying of the request's body all happen here.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        if !self.is_over && self.connection.poll_without_shutdown(cx).is_ready() {
            self.is_over = true;
        }
    }

    /// Sends a request and waits for the head of its answer. The deadline counts from the last byte of the body that
    /// went out: a long upload is not a slow answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Box<Request<Sending<B>>>,
        progress: Option<&Progress>,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, Broken<B>> {
        let mut answer = pin!(self.send.try_send_request(*request));
        let mut timer = pin!(tokio::time::sleep(patience.unwrap_or(Duration::ZERO)));
        let mut seen = 0;
        let connection = &mut self.connection;
        let is_over = &mut self.is_over;
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if !*is_over {
                *is_over = connection.poll_without_shutdown(cx).is_ready();
                if let Poll::Ready(done) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
            }
            let Some(patience) = patience else { return Poll::Pending };
            while timer.as_mut().poll(cx).is_ready() {
                let sent = progress.map_or(0, Progress::bytes);
                if sent == seen {
                    return Poll::Ready(None);
                }
                seen = sent;
                timer.as_mut().reset(Instant::now() + patience);
            }
            Poll::Pending
        })
        .await;
        match done {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Broken::Unsent(Box::new(request))),
                None => Err(Broken::Failed(error.into_error())),
            },
            None => Err(Broken::TooSlow),
        }
    }

    /// Whether the next request may use it: the last answer was read to its end, nothing else came, and neither side
    /// closed.
    pub(crate) fn is_clean(&mut self) -> bool {
        self.poll_drive(&mut Context::from_waker(Waker::noop()));
        !self.is_over && self.send.is_ready()
    }

    /// Marks it as idle from a sweep on.
    pub(crate) const fn rest(&mut self, sweep: u64) {
        self.rested = sweep;
    }

    /// The sweep since which it has been idle.
    pub(crate) const fn rested(&self) -> u64 {
        self.rested
    }

    /// The bare connection after a 101, and what was read beyond its head. None when HTTP did not end cleanly.
    pub(crate) async fn into_wire(mut self) -> Option<(Wire, Bytes)> {
        if !self.is_over {
            poll_fn(|cx| self.connection.poll_without_shutdown(cx)).await.ok()?;
        }
        let parts = self.connection.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
