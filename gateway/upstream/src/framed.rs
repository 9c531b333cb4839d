// SPDX-License-Identifier: Apache-2.0
//! A WebSocket read and written as a stream of bytes: for screens that a hypervisor shows over one.

use crate::{
    error::Fault,
    wire::{CONNECT, Stream, Wire},
};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use http::Request;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

/// The largest message that a screen may send.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Most bytes of one frame that is sent: a server need not take fragments, nor frames of any length.
const FRAME: usize = 32 * 1024;

/// The bytes of a WebSocket's binary messages.
pub struct Framed {
    socket: WebSocketStream<Wire>,
    /// What was read and not asked for yet.
    early: Bytes,
}

impl Framed {
    pub(crate) fn new(socket: WebSocketStream<Wire>) -> Self {
        Self { socket, early: Bytes::new() }
    }
}

impl std::fmt::Debug for Framed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Framed")
    }
}

/// Opens a screen's WebSocket on a connection, at most 10 seconds.
pub(crate) async fn open(request: Request<()>, wire: Wire) -> Result<Stream, Fault> {
    // Nothing is kept back: a key press goes out at once.
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    match tokio::time::timeout(CONNECT, client_async_with_config(request, wire, Some(config))).await {
        Ok(Ok((socket, _))) => Ok(Stream::Framed(Box::new(Framed::new(socket)))),
        Ok(Err(error)) => Err(explain(error)),
        Err(_) => Err(Fault::TooSlow("to open the screen's WebSocket")),
    }
}

/// Without what was asked, which holds the ticket.
fn explain(error: Error) -> Fault {
    match error {
        Error::Io(e) => Fault::unreachable("its screen's WebSocket broke", e),
        Error::ConnectionClosed | Error::AlreadyClosed => Fault::hung_up("closed its screen's WebSocket"),
        Error::Http(response) => {
            Fault::Refused(format!("its screen's WebSocket answers with status {}", response.status()))
        }
        _ => Fault::Protocol("something that is no WebSocket where its screen should be".to_owned()),
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

impl AsyncRead for Framed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.early.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.early = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    let wrong = "the screen's WebSocket sent something that is not binary";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, wrong)));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let take = this.early.len().min(buf.remaining());
        if let Some(head) = this.early.get(..take) {
            buf.put_slice(head);
        }
        this.early.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut socket = Pin::new(&mut this.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let part = buf.get(..FRAME.min(buf.len())).unwrap_or_default();
        socket.as_mut().start_send(Message::Binary(Bytes::copy_from_slice(part))).map_err(broken)?;
        // Out as far as it goes now; what stays is taken along by the next write, flush or read.
        match socket.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}
