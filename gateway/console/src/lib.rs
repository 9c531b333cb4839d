// SPDX-License-Identifier: Apache-2.0
//! The console room: the live screen.
//!
//! In come two byte streams: a browser's WebSocket, after its 101, and a hypervisor's VNC server, fresh from its
//! connect. Out goes an [`Ending`](portcullis_domain::Ending), with a report and, where it is asked for, a recording.
//!
//! The gateway ends RFB security on both legs ([`rfb::connect`] upstream; None inside the authenticated WebSocket) and
//! follows both streams message by message, so that policy is enforced here and not in the browser.
//!
//! ```text
//! 101 ─► connect ─► relay: viewer handshake ─► running ─► close frame with the reason ─► report
//!           │                   │ fault, deadline   │ cut, idle, time up, fault, closed, vanished, recording failed
//!           │                   └───────────────────┴─► the hypervisor's stream is dropped at once
//!           └─► refused, silent, cut, left: close frame with the reason (a browser hides a refused handshake's)
//! ```
//!
//! What must never happen here:
//! - a byte of input that policy forbids reaches the hypervisor, or one byte is forwarded out of step with its message;
//! - a byte is forwarded that the recording, where there is one, has not accepted into reserved space;
//! - a number from the wire decides how much memory is taken, or one session's fault touches another;
//! - a password or a session's content is logged.
//!
//! Decisions (2026-11-21):
//! - The pixel format is pinned to noVNC's own, so that framing never depends on messages in flight. Encodings whose
//!   framing is not followed (JPEG, H.264, audio, …) are taken out of the viewer's list.
//! - Pixels are not decoded: a decompression bomb is for the viewer, whose sandbox is a browser; the gateway bounds
//!   sizes and counts.
//! - A server that asks for no password although one is configured is refused, unless TLS has proved it.
//! - The relay is one future without tasks or per-console buffers: it waits for readiness and borrows its thread's
//!   scratch space. Only what a peer did not take is copied into a queue of the console's own.
//! - Recordings hide which keys were pressed unless configured otherwise: people type passwords.

mod error;
pub mod record;
pub mod relay;
pub mod rfb;
#[cfg(test)]
mod testing;
pub mod ws;

pub use error::Error;
