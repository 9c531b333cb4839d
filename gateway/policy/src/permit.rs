// SPDX-License-Identifier: Apache-2.0
//! The key that a decision hands out.

use crate::reason::Reason;
use portcullis_domain::{GrantId, Intent, Operation, UserId, Via};
use std::{net::IpAddr, sync::Arc};
use time::{Duration, OffsetDateTime};

/// How long a permit counts at most.
pub const LIFE: Duration = Duration::minutes(5);
/// How long a permit can be renewed after it was first given.
pub const LONGEST: Duration = Duration::hours(24);

/// Leave to do one operation, for one person, for a few minutes. It has no public constructor and is not `Clone`:
/// whoever holds one got it from a decision. What is done under it must be what [`Permit::operation`] says.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    operation: Operation,
    user: UserId,
    name: Arc<str>,
    via: Via,
    grants: Vec<GrantId>,
    first_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    lasts_until: OffsetDateTime,
    recorded: Recorded,
    from: Option<IpAddr>,
    clipboard_in: Option<u32>,
    clipboard_out: Option<u32>,
    proof: Option<Box<Proof>>,
    also: Vec<Permit>,
}

/// The confirmation that a permit stands on, where a grant asks for one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it was given for.
    pub intent: Intent,
    /// When.
    pub at: OffsetDateTime,
    /// For how much it counts.
    pub lasts: Lasts,
}

/// For how much one confirmation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// For one request: it is spent before anything is done.
    Once,
    /// Until the console that it opens has ended.
    WhileOpen,
    /// For every request within its window.
    InWindow,
}

/// Whether what is done under a permit must be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    Must,
    NeedNot,
}

/// What a decision found out, ready to become a permit.
pub(crate) struct Terms<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) user: UserId,
    pub(crate) name: &'a Arc<str>,
    pub(crate) via: Via,
    pub(crate) grants: Vec<GrantId>,
    pub(crate) first_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) lasts_until: OffsetDateTime,
    pub(crate) recorded: Recorded,
    pub(crate) from: Option<IpAddr>,
    pub(crate) clipboard_in: Option<u32>,
    pub(crate) clipboard_out: Option<u32>,
    pub(crate) proof: Option<Box<Proof>>,
}

impl Permit {
    /// The one maker; `decide` is its one caller.
    pub(crate) fn make(terms: Terms<'_>) -> Self {
        let Terms { operation, user, name, via, grants, first_at, expires_at, lasts_until, recorded, .. } = terms;
        let (operation, name) = (operation.clone(), Arc::clone(name));
        let Terms { from, clipboard_in, clipboard_out, proof, .. } = terms;
        Self {
            operation,
            user,
            name,
            via,
            grants,
            first_at,
            expires_at,
            lasts_until,
            recorded,
            from,
            clipboard_in,
            clipboard_out,
            proof,
            also: Vec::new(),
        }
    }

    /// The same with those of everything else that one request asks: what lasts under it goes on for as long as all of them
    /// would be given again.
    #[must_use]
    pub fn with(self, also: Vec<Self>) -> Self {
        Self { also, ..self }
    }

    /// What else was permitted for the same request.
    pub fn also(&self) -> &[Self] {
        &self.also
    }

    /// What may be done, and to what. Nothing else may be.
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Who may do it.
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// The name they sign in with.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What they presented.
    pub const fn via(&self) -> Via {
        self.via
    }

    /// The grants that allow it: the first sixteen, where there are more.
    pub fn grants(&self) -> &[GrantId] {
        &self.grants
    }

    /// When it was first given; renewing does not change it.
    pub const fn first_at(&self) -> OffsetDateTime {
        self.first_at
    }

    /// First instant at which it no longer counts: at most [`LIFE`] after it was given, and not after the end of any
    /// grant that it stands on.
    pub const fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// Until when it can be renewed at most, as things stand: when the last grant that allows it ends, or [`LONGEST`]
    /// after it was first given. What happens meanwhile may end it earlier.
    pub const fn lasts_until(&self) -> OffsetDateTime {
        self.lasts_until
    }

    /// The address that it was asked from; none where it is not known.
    pub const fn from(&self) -> Option<IpAddr> {
        self.from
    }

    /// Most bytes of text into the guest's clipboard at once; none means the protocol's own limit.
    pub const fn clipboard_in(&self) -> Option<u32> {
        self.clipboard_in
    }

    /// The same out of the guest.
    pub const fn clipboard_out(&self) -> Option<u32> {
        self.clipboard_out
    }

    /// The confirmation that it stands on alone. It may have been spent: whoever acts on the permit asks first.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_deref()
    }

    /// Whether it still counts.
    pub fn is_good(&self, now: OffsetDateTime) -> bool {
        now < self.expires_at
    }

    /// Whether the screen must be recorded, and must close when it cannot be. Only ever true for `console` actions.
    pub fn must_record(&self) -> bool {
        matches!(self.recorded, Recorded::Must) || self.also.iter().any(Self::must_record)
    }
}

/// The answer of [`crate::Engine::decide`]. Deny wins over step-up, step-up over permit.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes; here is the key.
    Permit(Permit),
    /// Yes, after a fresh factor.
    StepUp(Need),
    /// No, and why.
    Deny(Reason),
}

/// What a step-up must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How old the strong factor may be.
    pub window: Duration,
}
