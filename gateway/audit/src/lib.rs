// SPDX-License-Identifier: Apache-2.0
//! The trail: one event before and one after each operation, in a log that nobody can change unseen.
//!
//! In come [`Event`](portcullis_domain::Event)s, one node's in one order. Out go their numbers, the word that they are
//! on the disk, and evidence: roots, proofs and signed checkpoints.
//!
//! ```text
//! Entry ──open──▶ OpenEntry ──close(outcome)──▶ Closed
//!   │                 └──dropped, or its process killed──▶ Closed(Abandoned)
//!   ├──refuse──▶ Noted(Denied | StepUp | Failed)
//!   └──dropped──▶ Noted(Abandoned)
//!
//! append ─▶ batch ─▶ (once a turn) ─▶ writer thread: commit frame, write, fdatasync ─▶ one number published ─▶ one wake a thread
//! ```
//!
//! What must never happen here: a number called durable before `fdatasync` returned; a write that failed tried again
//! as if the first try had not been; an event changed, moved or left out without [`verify`] naming the place; a secret
//! in an event or an error.
//!
//! Decisions, of 2026-11-21:
//! - The log is the record; the store holds an index of it, which proves nothing and can be rebuilt.
//! - An event's number is its leaf's index in the RFC 6962 tree: one tree over all segments of a node.
//! - Commits are sealed with HMAC-SHA-256, checkpoints also signed with Ed25519: a commit costs 0.3 µs that way, and
//!   whoever has only the public key still sees everything up to the newest checkpoint ([`verify_offline`]).
//! - A segment gets its name after its header is durable; a batch in the air is at most 8 MiB. So what a crash can
//!   tear is known, and everything else that does not hold is damage, on which nothing is opened.
//! - An event that nobody waits for rests up to 2 ms: the end of one request mostly shares the commit of the next.

pub mod tree;

mod agree;
mod checkpoint;
mod entry;
mod error;
mod frame;
mod index;
mod inspect;
mod keys;
mod read;
mod recover;
mod scan;
mod segment;
mod shared;
mod sidecar;
mod trail;
mod turns;
mod verify;
mod wait;
mod writer;

#[cfg(test)]
mod tests;

pub use agree::agrees;
pub use checkpoint::{BadCheckpoint, Checkpoint, Head};
pub use entry::{Entry, OpenEntry};
pub use error::Error;
pub use index::{Found, rebuild, search};
pub use keys::TrailKeys;
pub use read::{Follow, Placed, Reader};
pub use trail::{Recovered, Settings, Trail, is_live};
pub use turns::Turns;
pub use verify::{Finding, Grade, Known, Report, verify, verify_offline};
pub use wait::Durable;
