// SPDX-License-Identifier: Apache-2.0
//! The pages of administrators, auditors and security leads. Each is an operation on one of the gateway's own things:
//! the passage has decided it, and its event is open, before a handler here runs.

pub(crate) mod accounts;
pub(crate) mod adding;
pub(crate) mod effective;
pub(crate) mod emergencies;
pub(crate) mod grants;
pub(crate) mod groups;
pub(crate) mod history;
pub(crate) mod hypervisors;
pub(crate) mod locks;
mod preview;
pub(crate) mod proposals;
pub(crate) mod sentence;
pub(crate) mod sessions;
mod things;
pub(crate) mod trail;
pub(crate) mod users;
