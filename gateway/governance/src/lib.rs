// SPDX-License-Identifier: Apache-2.0
//! Who should have what.
//!
//! In: an administrator's or security lead's wish to give or take a role. Out: a grant in the store, or a refusal that
//! says who could do it instead. What must never happen here: somebody giving themselves anything, giving what goes
//! beyond their own rights without the right to give roles, or leaving the gateway without anybody who can run it.
//!
//! The passage has already decided that the person may write `gateway:policy`; these rules come on top of it, because
//! policy knows operations and not what a grant would add up to. Each change is one event: the operation's own.
//!
//! Later rooms of this crate: access requests and their approval, review campaigns, the evidence pack.
//!
//! Decisions (2026-11-21):
//! - Holders of `gateway:policy write` may give any role to anybody but themselves. A right to give roles that could
//!   only give what its holder has would force security leads to hold everything.
//! - The last person who can manage people, and the last who can give roles, keeps what that takes: both rights, on
//!   active grants without an end, of an account that is not disabled.

mod grant;

pub use grant::{Error, Grants, NewGrant};
