// SPDX-License-Identifier: Apache-2.0
//! What the trail holds.
//!
//! An operation is bracketed by two events: `Opened`, durable before anything privileged happens, and `Closed`,
//! which names the first by its number. What has no duration (a sign-in, a denial, a changed grant) is one `Noted`.

use crate::{
    action::Action,
    actor::Via,
    id::{RequestId, UserId},
};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc};
use time::OffsetDateTime;

/// An event's number in its node's trail: 0, 1, 2 … without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which part of the bracket an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The operation was allowed and is about to begin.
    Opened,
    /// The operation that this number opened is over.
    Closed(Seq),
    /// Something that has no duration.
    Noted,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Not known yet: the event opens an operation.
    Pending,
    /// Done.
    Done,
    /// Refused by policy, or because nobody was signed in.
    Denied,
    /// A fresh factor was asked for.
    StepUp,
    /// It was allowed and did not work.
    Failed,
    /// It was open when its process ended.
    Abandoned,
}

impl Outcome {
    /// The word shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Denied => "denied",
            Self::StepUp => "step-up",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Who did it, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The person.
    pub user: UserId,
    /// The name they signed in with.
    pub name: Arc<str>,
    /// What they presented.
    pub via: Via,
}

/// One event. It never holds a secret, a password, a ticket, a key that was typed or a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// The request it belongs to.
    pub request: RequestId,
    /// Which part of the bracket it is.
    pub phase: Phase,
    /// What kind of event: `api`, `console`, `page`, `sign-in`, `sign-out`, `factor`, `user`, `grant`, `system` …
    pub kind: Arc<str>,
    /// Who.
    pub subject: Option<Subject>,
    /// From where.
    pub peer: Option<IpAddr>,
    /// What was asked; none for events that are no operation.
    pub action: Option<Action>,
    /// On what, as text.
    pub resource: Arc<str>,
    /// How it came out.
    pub outcome: Outcome,
    /// Why, or what else matters, in words without secrets. At most 1,024 bytes.
    pub reason: Arc<str>,
    /// Named details, such as `status`, `bytes`, `recording`. Names and values hold no secret.
    pub details: Vec<(Arc<str>, Arc<str>)>,
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at_us) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// An instant as the trail writes it.
pub fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}
