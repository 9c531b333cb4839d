// SPDX-License-Identifier: Apache-2.0
//! The body of an answer: read as it is asked for, with the connection that it comes from.

use crate::{
    error::Fault,
    exchange::{Live, Progress},
    forward::{Pool, fault},
};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

struct Lease<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    live: Box<Live<B>>,
    pool: Arc<Pool<B>>,
    sent: Option<Arc<Progress>>,
    _slot: OwnedSemaphorePermit,
}

/// The body of an answer. Dropped before its end it closes the connection; read to its end, it hands the connection
/// back for the next request, unless the request's own body is still on its way.
pub struct ResponseBody<B = Incoming>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    incoming: Incoming,
    lease: Option<Lease<B>>,
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    pub(crate) fn new(
        incoming: Incoming,
        live: Box<Live<B>>,
        pool: Arc<Pool<B>>,
        slot: OwnedSemaphorePermit,
        sent: Option<Arc<Progress>>,
        patience: Option<Duration>,
    ) -> Self {
        Self { incoming, lease: Some(Lease { live, pool, sent, _slot: slot }), patience, timer: None }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take()
            && lease.sent.as_ref().is_none_or(|p| p.has_ended())
        {
            lease.pool.give_back(lease.live);
        }
    }

    /// What is ready now; trailers are dropped, they were not decided on (SEC-071).
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                if let (Some(timer), Some(patience)) = (&mut self.timer, self.patience) {
                    timer.as_mut().reset(Instant::now() + patience);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                self.lease = None;
                Poll::Ready(Some(Err(fault(&e))))
            }
            Poll::Ready(Some(Ok(_)) | None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = this.poll_incoming(cx) {
            return Poll::Ready(frame);
        }
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        lease.live.poll_drive(cx);
        if let Poll::Ready(frame) = this.poll_incoming(cx) {
            return Poll::Ready(frame);
        }
        if let Some(patience) = this.patience {
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            if timer.as_mut().poll(cx).is_ready() {
                this.lease = None;
                return Poll::Ready(Some(Err(Fault::TooSlow("in the middle of its answer"))));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B> Drop for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn drop(&mut self) {
        // Servers stop asking once the announced length has come.
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }
}
