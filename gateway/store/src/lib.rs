// SPDX-License-Identifier: Apache-2.0
//! All SQL, and the seal for what is secret at rest.
//!
//! In: typed rows from the other rooms, each with the time at which it happens. Out: the same rows, or an [`Error`]
//! whose variant says what the caller can do. One SQL text runs on SQLite (one file, the default) and on PostgreSQL
//! (by a `postgres://` address); the migrations of both are embedded and run at [`Store::open`].
//!
//! What must never happen here:
//! - two callers both win what may be won once (a ticket, an authenticator step, a passkey's challenge, an invitation …):
//!   each is one conditional statement, and the database decides, whatever the number of nodes;
//! - a session that was ended comes back: saving is an `update … where ended_at is null`, never an upsert;
//! - somebody loses access without the epoch moving: every change to people, factors, grants, tokens and ended
//!   sessions bumps the counter in the same transaction (see [`Store::epoch`]); an ended pass moves a counter of its own
//!   beside it ([`Store::passes_ended`]);
//! - a usable secret in a dump: tickets, tokens, invitations and session ids are SHA-256 digests of 128 bits or more
//!   of chance, authenticator secrets are sealed by [`Keys`] to their table, row and column.
//!
//! Decisions
//! - 2026-11-21: SQLite has one writing connection and several reading ones. Writers queue fairly in the process,
//!   and `begin immediate` with a busy timeout of 5 s orders them between processes.
//! - 2026-11-21: times are microseconds since 1970 in 64 bits, and flags are times: one text means the same on both.
//! - 2026-11-21: sessions keep one row from first visit to sign-out; a step of sign-in moves the row to a new id
//!   ([`Store::rotate_session`]), so that ending it and advancing it exclude each other.
//! - 2026-11-21: the database migrates inside one transaction on SQLite and under an advisory lock on PostgreSQL.

mod attestation;
mod break_glass;
mod directory;
mod epoch;
mod error;
mod factor;
mod favourite;
mod grant;
mod group;
mod hypervisor;
mod hypervisor_secret;
mod lock;
mod lockout;
mod mail;
mod node;
mod outbox;
mod pass;
mod passkey;
mod policy;
mod proof;
mod proposal;
mod provider;
mod provision;
mod recording;
mod request;
mod seal;
mod session;
#[cfg(test)]
mod testing;
mod ticket;
mod token;
mod token_key;
mod trail;
mod trail_log;
mod trail_use;
mod tx;
mod user;
mod vouch;

pub use attestation::{Attestation, Attested};
pub use break_glass::{BreakGlassCode, NewBreakGlassCode, Review};
pub use directory::{DirectoryGrant, DirectoryGroup};
pub use error::Error;
pub use factor::{FactorId, Others, TotpFactor};
pub use favourite::Favourite;
pub use grant::{GrantRows, Holding};
pub use group::{Group, GroupSource};
pub use hypervisor::{AddedHypervisor, Changed, NewHypervisor};
pub use hypervisor_secret::{Claim, Claimant, Claimed, HypervisorSecret};
pub use lock::{Lock, LockOf};
pub use lockout::{Backoff, Limit, Try};
pub use mail::{Address, AddressSource};
pub use node::Node;
pub use outbox::{Backlog, Message, Room, Trouble, Unposted, Way};
pub use pass::{EndedPasses, MOST_ENDED};
pub use passkey::{NewPasskey, Passkey, Removal};
pub use policy::{PolicyChange, PolicyVersion};
pub use proof::ProofOf;
pub use proposal::{Ended, NewProposal, Proposal, ProposalState};
pub use provider::{LoggedOut, ProviderPerson, ProviderSession, ProviderSessionId};
pub use provision::Provisioned;
pub use recording::{NewRecording, Recording, RecordingEnd, RecordingFilter};
pub use request::{AccessRequest, AccessState, AccessStep, Approval, NewAccess, StepWhat, Stepped};
pub use seal::{Keys, Place};
pub use session::{LiveSession, NewSession, Rotation, SessionRow};
pub use ticket::Ticket;
pub use token::{LiveToken, NewToken, TokenRow};
pub use token_key::{Binding, TokenKey};
pub use trail::{Brackets, TrailFilter, TrailPlace, TrailRow};
pub use trail_log::{TrailLog, TrailLoss};
pub use trail_use::{Decided, LastUse};
pub use tx::{Store, Turn};
pub use user::{FirstUser, Invitation, Locked, NewUser, User, UserKind};
pub use vouch::{Apart, Vouched, Voucher};

/// SHA-256 of a secret that only its holder knows.
pub type Digest = [u8; 32];

use time::OffsetDateTime;

fn from_micros(us: i64) -> OffsetDateTime {
    // Out of range only for years beyond 9999: such a row reads as the last instant there is.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000)
        .unwrap_or(time::Date::MAX.with_time(time::Time::MIDNIGHT).assume_utc())
}
