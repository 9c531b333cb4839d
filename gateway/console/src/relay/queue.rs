// SPDX-License-Identifier: Apache-2.0
//! What a peer did not take at once.

use crate::rfb::Wire;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A queue keeps this capacity when it is empty, and gives back more.
const KEPT: usize = 1024;

/// Bytes that a peer has not taken yet.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    sent: usize,
    /// Something was written since the last complete flush.
    unflushed: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Writes at once what the peer takes, and keeps the rest. Nothing may be queued before.
    pub(super) fn write<W: Wire + ?Sized>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let taken = match Pin::new(wire).poll_write(cx, bytes) {
            Poll::Ready(taken) => taken?,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.bytes.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Ready when the peer has taken everything.
    pub(super) fn poll_drain<W: Wire + ?Sized>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !self.rest().is_empty() {
            let taken = std::task::ready!(Pin::new(&mut *wire).poll_write(cx, self.rest()))?;
            if taken == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.sent += taken;
        }
        self.sent = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        if self.unflushed {
            std::task::ready!(Pin::new(wire).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
