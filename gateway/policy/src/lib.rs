// SPDX-License-Identifier: Apache-2.0
//! What is asked, and may they.
//!
//! In comes a request as method, path and query, and out comes an [`Operation`](portcullis_domain::Operation) or a
//! denial ([`classify`]); in comes an operation with the person who asks, and out comes a [`Decision`]: a [`Permit`],
//! a wish for a fresh factor, or a denial that names the role which would open the door ([`Engine`]). A permit is the
//! key that the next rooms ask for. It has one maker, here, and names one operation.
//!
//! ```text
//! request ──canonical──▶ path ──Table──▶ Operation ──Engine::decide──▶ Permit ──▶ upstream, console, pages
//!            │ 400        │ unknown        │ Deny(Reason) · StepUp(Need)    │ Engine::renew, for live streams
//!            ▼            ▼                ▼                                ▼ each time something changed
//! ```
//!
//! What must never happen here: a permit from anything but a decision; a decision on another path than the one that
//! is sent; a half-loaded policy; an answer that depends on a hash; an error or a panic that allows.
//!
//! Who holds what is told to the engine ([`Engine::reset`], [`Engine::apply`]) and lies in an index; a decision reads one
//! [`Snapshot`] of it from its first step to its last. [`Snapshot::what_if`] is the same with changes that nobody made yet.
//!
//! Decisions:
//! - 2026-11-28: the whole decision is one Casbin model (`policies/model.conf`), fixed, over rows in Casbin's own form. An
//!   index made of them decides; Casbin reads the roles of every set beside it when the set is loaded, and random
//!   policies are decided by both in tests. Casbin itself takes a second among a million grants, and panics on some texts.
//! - 2026-11-28: what cannot be told (an unknown address, a zone that this machine has lost, a row that cannot be read)
//!   counts against whoever asks: what allows gives nothing, what forbids forbids, an unreadable holder is shut out.
//! - 2026-11-21: the strictest condition of the grants that allow an operation counts, not the most convenient one.
//! - 2026-11-21: a machine that is not in the inventory, and one that the person may not see, are denied in the same
//!   words.
//! - 2026-11-21: a token cannot give a fresh factor. It was made with one, so on hypervisors it counts as fresh; for
//!   the gateway's own things it never does.
//! - 2026-11-28: where a grant asks for a confirmation of each intent, one counts for one action on one object in one
//!   session: once for what cannot be taken back, until it ends for a console, and within its window for the rest. A
//!   token cannot give one.
//! - 2026-11-21: renewing a permit does not ask for a fresh factor again: the person who opened a screen proved it
//!   then. Everything else is asked anew, for at most [`LONGEST`].

mod barrier;
pub mod classify;
mod decide;
#[cfg(test)]
mod differential;
mod engine;
mod explain;
mod fresh;
mod index;
mod kind;
mod oracle;
#[cfg(test)]
mod paths;
mod permit;
mod reason;
mod right;
mod rights;
mod roleset;
mod rules;
mod set;
mod snapshot;
mod terms;

pub use barrier::{But, Mine, Near};
pub use engine::Engine;
pub use explain::{Counts, Explanation, GrantLine, RuleLine};
pub use index::Target;
pub use kind::Kind;
pub use permit::{Decision, LIFE, LONGEST, Lasts, Need, Permit, Proof};
pub use reason::{Doors, Reason};
pub use rights::{RoleInfo, single_rights};
pub use set::{Given, GrantRow, IncludeRow, Line, LineError, MemberRow, RightRow, Set, Who};
pub use snapshot::{Snapshot, Verdict};
pub use terms::{Moment, Passkey, in_hours, knows_zone};

/// The model that comes with the gateway.
pub const MODEL: &str = include_str!("../../../policies/model.conf");
/// The rules that come with the gateway.
pub const RULES: &str = include_str!("../../../policies/builtin.csv");
/// What the rules that come with the gateway mean, as a table: the reviewed copy of [`Engine::matrix`].
pub const MATRIX: &str = include_str!("../../../policies/matrix.txt");

/// Why a policy or a classification table was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Lines of the rules are wrong. The whole set was refused and the one before it stays.
    #[error("{}", set::list(.0))]
    Rules(Vec<LineError>),
    /// The rules are well-formed but are no policy: empty, or too many.
    #[error("the policy was refused: {0}")]
    Set(String),
    /// Casbin would not take the rules.
    #[error("the policy engine refused the policy")]
    Casbin(#[source] casbin::Error),
    /// A classification table is wrong.
    #[error("classification table: {0}")]
    Table(String),
}
