// SPDX-License-Identifier: Apache-2.0
//! Who should have what.
//!
//! In: somebody's wish to give or take a role, or to change another person's account. Out: a grant in the store, or a
//! refusal that says what to do instead. What must never happen here: somebody giving themselves anything, giving or
//! taking over what goes beyond their own rights without the right to give roles, or leaving the gateway without
//! anybody who can run it.
//!
//! The passage has already decided that the person may write `gateway:policy` or `gateway:users`; these rules come on
//! top of it, because policy knows operations and not what a grant or another person's account would add up to. Each
//! change is one event: the operation's own, which the caller closes with the words of what came back.
//!
//! A person may ask for a role themselves ([`Requests`]): others approve it, and what comes of it is an ordinary grant
//! with an end. In an emergency a machine, a hypervisor or a token is locked ([`Locks`]). Roles that nobody may hold
//! together are kept apart wherever one is given ([`Duties`]).
//!
//! Later rooms of this crate: review campaigns, the evidence pack.
//!
//! Decisions (2026-11-21):
//! - Holders of `gateway:policy write` may give any role to anybody but themselves. A right to give roles that could
//!   only give what its holder has would force security leads to hold everything. Everybody else can give only what
//!   they hold themselves, on at least as much.
//! - The same for accounts: who resets somebody's way to sign in could become them. An administrator cannot touch the
//!   account of a security lead; a security lead can touch everybody's but their own.
//! - The last person who can manage people, and the last who can give roles, keeps what that takes: both rights, on
//!   active grants without an end, of an account that is not disabled and has been set up.
//! - From a shell on the gateway's own machine everything may be given and taken but the last rights: somebody must be
//!   able to repair the gateway, and nobody should close it by accident.
//! - Being in a group gives what it holds, so whoever changes its members must be allowed to give that; nobody changes
//!   their own groups, nor takes back what forbids something to themselves (2026-11-28).
//! - Changes are made one at a time, so that two people cannot take each other's last right at the same moment. Between
//!   several processes on one database the store decides (2026-11-28): whoever looked before another's change writes
//!   nothing and looks again.
//! - 2026-11-28: an access request is approved by an owner whom the configuration names for what it is about, or by whoever
//!   may `approve` `gateway:requests` and could give the role themselves. An owner needs no right of their own to what
//!   they own: a database's owner decides who works on its machine without working on it. Both may refuse; who refuses
//!   wins as long as the access has not begun. Nobody approves their own.
//! - 2026-11-28: what takes two people is proposed by one and made by the other, never by whom it gives something. Only
//!   more rights wait: who takes access away is not held up.

mod code;
mod duty;
mod grant;
mod group;
mod guard;
mod impact;
mod lock;
mod past;
mod proposal;
mod request;
mod sentence;

pub use code::{Files, Plan, rights_of, take_rights};
pub use duty::{Conflict, Duties};
pub use grant::{By, Error, Grants, NewGrant};
pub use group::Membership;
pub use guard::{FourEyes, Guard};
pub use impact::{Ground, Otherwise, Replay, Shift, Side, Turn, access_of, access_to, compare, replay};
pub use lock::{LONGEST_LOCK, Locks};
pub use past::Past;
pub use proposal::{Change, Outlook};
pub use request::{Auto, Decided, Decider, Owner, RequestError, Requests, Rule, Wish};
pub use sentence::{MOST_THINGS, Sentence};
