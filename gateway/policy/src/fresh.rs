// SPDX-License-Identifier: Apache-2.0
//! Whether what somebody proved is fresh enough for one operation, and for that one alone where a grant says so.

use crate::{
    kind::Kind,
    permit::{Lasts, Need, Proof},
    reason::Reason,
};
use portcullis_domain::{Actor, Intent, Operation, Via};
use time::{Duration, OffsetDateTime};

/// A step-up window is never shorter: the code must be typed and the request sent again within it.
const SHORTEST: Duration = Duration::seconds(15);
/// Nor is it longer than this where a confirmation is for one intent.
const LONGEST_EACH: Duration = Duration::minutes(5);

/// What the grants ask of a fresh factor.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) window: Duration,
    /// Whether it counts for one action on one object only.
    pub(crate) each: bool,
}

/// Whether it is fresh enough.
pub(crate) enum Freshness {
    /// Yes, and the proof that the permit stands on alone, where it does.
    Enough(Option<Box<Proof>>),
    /// No; this is needed.
    StepUp(Need),
    /// No, and it never will be.
    Never(Reason),
}

/// Holds what was proven against what the grants ask.
pub(crate) fn ask(actor: &Actor, operation: &Operation, kind: Kind, terms: Terms, now: OffsetDateTime) -> Freshness {
    let Terms { window, each } = terms;
    let window = window.max(SHORTEST);
    match (actor.via, kind) {
        (Via::Token(_), Kind::Machine | Kind::Hypervisor) if !each => return Freshness::Enough(None),
        (Via::Token(_), _) => return Freshness::Never(Reason::TokenCannotStepUp),
        (Via::Session(_) | Via::CommandLine, _) => {}
    }
    if !actor.assurance.is_fresh(window, now) {
        return Freshness::StepUp(Need { window });
    }
    if !each || actor.assurance.is_emergency(now) {
        return Freshness::Enough(None);
    }
    let window = window.min(LONGEST_EACH);
    let proof = Intent::of(operation).and_then(|intent| {
        let at = actor.assurance.proven_for(&intent, window, now)?;
        Some(Box::new(Proof { intent, at, lasts: lasts(operation, kind) }))
    });
    match proof {
        Some(proof) => Freshness::Enough(Some(proof)),
        None => Freshness::StepUp(Need { window }),
    }
}

/// For how much one confirmation counts.
const fn lasts(operation: &Operation, kind: Kind) -> Lasts {
    use portcullis_domain::Action::{AccessAdmin, Approve, Destroy, Lock, NodeAdmin, Write};
    match (kind, operation.action) {
        (_, action) if action.is_console() => Lasts::WhileOpen,
        (Kind::Own(_), Write | Approve | Lock) | (_, Destroy | AccessAdmin | NodeAdmin) => Lasts::Once,
        _ => Lasts::InWindow,
    }
}

#[cfg(test)]
mod tests;
