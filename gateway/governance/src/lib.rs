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
//! Later rooms of this crate: access requests and their approval, review campaigns, the evidence pack.
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
//! - Changes are made one at a time, so that two people cannot take each other's last right at the same moment. That
//!   holds within one process; several nodes on one database need a lock there.

mod grant;
mod group;
mod impact;
mod sentence;

pub use grant::{By, Error, Grants, NewGrant};
pub use group::Membership;
pub use impact::{Ground, Otherwise, Replay, Shift, Side, Turn, access_of, access_to, compare, replay};
pub use sentence::{MOST_THINGS, Sentence};
