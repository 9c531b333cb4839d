// SPDX-License-Identifier: Apache-2.0
//! Who is asking. Made by `identity`, read by `policy`, which knows what was granted to them.

use crate::{
    assurance::Assurance,
    id::{HypervisorName, PassId, SessionId, TokenId, UserId},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};
use time::OffsetDateTime;

/// What a person presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    /// A browser's session.
    Session(SessionId),
    /// A token.
    Token(TokenId),
    /// The command line on the gateway's own machine.
    CommandLine,
}

/// A person who asks, with everything that a decision needs.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The person.
    pub user: UserId,
    /// The name they sign in with.
    pub name: Arc<str>,
    /// What they presented.
    pub via: Via,
    /// What they proved, and when.
    pub assurance: Assurance,
    /// What the credential itself is limited to: a token made for one hypervisor reaches only that one.
    pub scope: Option<HypervisorName>,
    /// The address that they ask from; none from the command line, and where it is not known.
    pub from: Option<IpAddr>,
    /// The sign-in of a tool that they ask by, where they do not show the token itself: it can be ended alone.
    pub pass: Option<Pass>,
}

/// One sign-in of a tool with a token, as a pass proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    /// Which.
    pub id: PassId,
    /// The token that it stands for.
    pub token: TokenId,
    /// When it was made, to the microsecond.
    pub made_at: OffsetDateTime,
}
