// SPDX-License-Identifier: Apache-2.0
//! The browser's side around the relay: while its screen is being opened, and at the farewell.

use super::{Stop, engine::MAX_CONTROLS};
use crate::{
    record::cut_at_char,
    rfb::{Wire, WireNumber as _},
    ws::{self, Decoder, Noticed, Opcode, WsFault},
};
use portcullis_domain::Ending;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long the browser may take to receive the reason and to close.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of a close frame's text; RFC 6455 allows 123.
const MAX_CLOSE_TEXT: usize = 120;
/// What stands for the rest of a text that is too long.
const MORE: &str = "…";
/// Bytes of one read while nothing is relayed.
const READ: usize = 4096;

/// A browser's WebSocket after its 101, before there is a screen to show. A browser cannot read why a handshake was
/// refused: whatever goes wrong from here on is said in a close frame.
pub struct Viewer<V> {
    pub(super) wire: V,
    pub(super) decoder: Decoder,
    pub(super) noticed: Noticed,
}

impl<V: Wire> Viewer<V> {
    /// Takes a stream right behind its 101.
    pub fn new(wire: V) -> Self {
        Self { wire, decoder: Decoder::default(), noticed: Noticed::default() }
    }

    /// Waits until the browser leaves, or says something before there is a screen to say it to. Dropping the future
    /// loses nothing that was read.
    pub async fn left(&mut self) -> Ending {
        let mut scratch = vec![0; READ];
        loop {
            let read = match self.wire.read(&mut scratch).await {
                Ok(0) => return Ending::Closed,
                Ok(count) => scratch.get_mut(..count).unwrap_or_default(),
                Err(_) => return Ending::Vanished,
            };
            let fault = |what: &'static str| Ending::ViewerFault(what.to_owned());
            match self.decoder.decode(read, &mut self.noticed) {
                Err(WsFault { what, .. }) => return fault(what),
                Ok(_) if self.noticed.closed.is_some() => return Ending::Closed,
                // RFB begins with the server's hello, which it did not get yet
                Ok(1..) => return fault("it spoke before the screen did"),
                Ok(0) if self.noticed.controls > MAX_CONTROLS => return fault("too many control frames"),
                Ok(0) => {}
            }
        }
    }

    /// Says why there is no screen, and closes. A browser that does not read costs a second and nothing else.
    pub async fn say_farewell(self, ending: Ending) {
        let echo = self.noticed.closed;
        let parting = Parting { viewer: self.wire, queue: Vec::new(), decoder: self.decoder };
        parting.say_farewell(&Stop { echo, ..ending.into() }).await;
    }
}

/// What is left to tell the browser.
pub(super) struct Parting<V> {
    pub(super) viewer: V,
    /// The rest of a frame that was begun.
    pub(super) queue: Vec<u8>,
    pub(super) decoder: Decoder,
}

impl<V: Wire> Parting<V> {
    /// Tells the browser why, and reads on until it has closed too: closing a socket with unread input resets it, and
    /// the reason would be lost. A browser that does not read costs a second and nothing else.
    pub(super) async fn say_farewell(self, stop: &Stop) {
        // what was not said in time is not said
        let _ = tokio::time::timeout(FAREWELL, self.close(stop)).await;
    }

    async fn close(self, stop: &Stop) {
        let Self { mut viewer, mut queue, mut decoder } = self;
        if stop.ending == Ending::Vanished {
            return;
        }
        let mut payload = stop.echo.unwrap_or(stop.code.number()).to_be_bytes().to_vec();
        if stop.echo.is_none() {
            payload.extend_from_slice(close_text(&stop.ending.to_string()).as_bytes());
        }
        ws::append(&mut queue, Opcode::Close, &payload);
        // a browser that is gone needs no reason
        if viewer.write_all(&queue).await.is_err() || viewer.shutdown().await.is_err() || stop.echo.is_some() {
            return;
        }
        let mut scratch = vec![0; READ];
        let mut noticed = Noticed::default();
        while let Ok(count @ 1..) = viewer.read(&mut scratch).await {
            let read = scratch.get_mut(..count).unwrap_or_default();
            if decoder.decode(read, &mut noticed).is_ok() && noticed.closed.is_some() {
                return;
            }
        }
    }
}

/// A reason as a close frame can hold it.
fn close_text(reason: &str) -> String {
    if reason.len() <= MAX_CLOSE_TEXT {
        return reason.to_owned();
    }
    format!("{}{MORE}", cut_at_char(reason, MAX_CLOSE_TEXT - MORE.len()).trim_end())
}
