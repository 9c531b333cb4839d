// SPDX-License-Identifier: Apache-2.0
//! The passage: the one way a request travels. Proxied API calls, console upgrades and our own pages all take it.
//!
//! The order is written once, in [`admit`]; [`walk`] leads through it and out. Classification comes first because step-up,
//! authorization and the trail all depend on what is being asked; the trail is the bracket around the walk, so that no
//! early return can skip it.

use crate::{layers::Peer, reply::Refusal, state::House};
use portcullis_audit::{Entry, OpenEntry};
use portcullis_domain::{Actor, Effect, GrantId, Operation, Outcome};
use portcullis_policy::{Decision, Permit};
use std::{fmt::Write as _, future::Future, sync::Arc};
use time::OffsetDateTime;

/// What a request asks, as far as it can be told without knowing who asks.
pub(crate) enum Asked {
    /// Nobody needs to be known: sign-in pages, assets.
    Nothing,
    /// Somebody must be known; no more.
    Presence,
    /// An operation.
    Operation(Operation),
    /// A task of a hypervisor that only its owner may follow; what it is becomes clear with the actor.
    Task(portcullis_policy::classify::Task),
    /// It cannot be classified: denied, with a reason for the person.
    Denied(String),
}

/// Whether a visit stands in the trail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trailed {
    Yes,
    No,
}

/// One request as it enters.
pub(crate) struct Visit {
    pub(crate) kind: &'static str,
    pub(crate) peer: Peer,
    pub(crate) asked: Asked,
    pub(crate) trailed: Trailed,
    /// The instant that it is decided at.
    pub(crate) at: OffsetDateTime,
}

/// Who came, as the session room found out.
pub(crate) enum Caller {
    /// Nobody known.
    Stranger,
    /// Somebody, with everything that a decision needs.
    Known(Arc<Actor>),
    /// Whose credential it is that does not count as it was presented, and why: both for the trail. They are answered
    /// like nobody.
    Barred(Arc<Actor>, &'static str),
}

/// What somebody carries who came through: the next room asks for it.
pub(crate) struct Passed {
    pub(crate) actor: Option<Arc<Actor>>,
    pub(crate) permit: Option<Permit>,
    pub(crate) open: Option<OpenEntry>,
}

/// Walks one request through the rooms, in order. `caller` is the session and identity rooms; `again` serves a step-up
/// (a fresh factor sent with the request raises the assurance, and authorization is asked once more); `exit` is the
/// upstream, the console or a page. The event is opened on the way out, and nothing with an effect happens before it is
/// durable.
pub(crate) async fn walk<C, S, X, R>(
    house: &House,
    visit: Visit,
    caller: C,
    again: impl FnOnce() -> S,
    exit: impl FnOnce(Passed) -> X,
) -> Result<R, Refusal>
where
    C: Future<Output = Result<Caller, Refusal>>,
    S: Future<Output = Result<Option<Arc<Actor>>, Refusal>>,
    X: Future<Output = Result<R, Refusal>>,
{
    let (entry, actor, permit, effect) = admit(house, visit, caller, again).await?;
    let open = entry.open(permit.as_ref())?;
    let durable = open.as_ref().map(OpenEntry::durable);
    let passed = Passed { actor, permit, open };
    let safe = match durable {
        Some(durable) if effect == Effect::Unsafe => {
            durable.await.map_err(|e| closed(&e))?;
            None
        }
        safe => safe,
    };
    // A safe read may be forwarded while its event is being written: its answer waits.
    let answer = exit(passed).await;
    if let Some(durable) = safe {
        durable.await.map_err(|e| closed(&e))?;
    }
    answer
}

/// Whom the rooms let through, and with what: the bracket, the actor, the permit, and whether it may change something.
type Admitted = (Bracket, Option<Arc<Actor>>, Option<Permit>, Effect);

/// The rooms up to the way out.
async fn admit<C, S>(house: &House, visit: Visit, caller: C, again: impl FnOnce() -> S) -> Result<Admitted, Refusal>
where
    C: Future<Output = Result<Caller, Refusal>>,
    S: Future<Output = Result<Option<Arc<Actor>>, Refusal>>,
{
    let Visit { kind, peer, asked, trailed, at: now } = visit;
    let mut entry = Bracket(match trailed {
        Trailed::No => None,
        Trailed::Yes => Some(Entry::begin(&house.trail, kind, peer.request, Some(peer.ip), now)),
    });
    let who = caller.await.map_err(|refusal| entry.refuse(Outcome::Failed, refusal))?;
    let who = if let Caller::Known(actor) = who { Caller::Known(from(actor, peer)) } else { who };
    if let Caller::Known(actor) | Caller::Barred(actor, _) = &who {
        entry.learn(actor);
    }
    let (operation, mut actor) = match (asked, who) {
        (_, Caller::Barred(_, why)) => return Err(entry.refuse_because(Outcome::Denied, why, Refusal::Unknown)),
        (Asked::Denied(reason), _) => return Err(entry.refuse(Outcome::Denied, Refusal::Forbidden(reason))),
        // What policy does not decide on and stands in the trail changes something: a step of signing in, one's own account.
        (Asked::Nothing, Caller::Stranger) => return Ok((entry, None, None, Effect::Unsafe)),
        (Asked::Nothing | Asked::Presence, Caller::Known(actor)) => {
            if let Some(words) = house.token_locked(&actor, now) {
                return Err(entry.refuse(Outcome::Denied, Refusal::Forbidden(words)));
            }
            return Ok((entry, Some(actor), None, Effect::Unsafe));
        }
        (_, Caller::Stranger) => return Err(entry.refuse(Outcome::Denied, Refusal::Unknown)),
        (Asked::Operation(operation), Caller::Known(actor)) => (operation, actor),
        (Asked::Task(task), Caller::Known(actor)) => match house.resolve(&task, &actor) {
            Some(operation) => (operation, actor),
            None => return Err(entry.refuse(Outcome::Denied, Refusal::NotFound)),
        },
    };
    entry.ask(&operation);
    if let Some(words) = house.locks.against(actor.via, &operation.resource, now) {
        let refusal = match house.hide(&actor, &operation, &words, now) {
            Refusal::Forbidden(words) => Refusal::Locked(words),
            hidden => hidden,
        };
        return Err(entry.refuse_because(Outcome::Denied, &words, refusal));
    }
    let inventory = house.fleet.inventory();
    let mut decision = house.engine.decide(&actor, &operation, &inventory, now);
    if matches!(decision, Decision::StepUp(_)) {
        match again().await {
            Ok(Some(fresh)) => {
                actor = from(fresh, peer);
                decision = house.engine.decide(&actor, &operation, &inventory, house.clock.now());
            }
            Ok(None) => {}
            Err(refusal) => return Err(entry.refuse(Outcome::StepUp, refusal)),
        }
    }
    match decision {
        Decision::Permit(permit) => Ok((entry, Some(actor), Some(permit), operation.effect)),
        Decision::StepUp(_) => Err(entry.refuse(Outcome::StepUp, Refusal::StepUp)),
        Decision::Deny(reason) => {
            let reason = reason.to_string();
            let refusal = house.hide(&actor, &operation, &reason, now);
            Err(entry.refuse_because(Outcome::Denied, &reason, refusal))
        }
    }
}

/// Somebody as they ask from an address: grants may count from some networks only.
fn from(mut actor: Arc<Actor>, peer: Peer) -> Arc<Actor> {
    if actor.from != Some(peer.ip) {
        Arc::make_mut(&mut actor).from = Some(peer.ip);
    }
    actor
}

/// The bracket of a visit; a visit that needs no trail (a page of one's own) has none.
struct Bracket(Option<Entry>);

impl Bracket {
    fn learn(&mut self, actor: &Actor) {
        if let Some(entry) = &mut self.0 {
            entry.learn(actor);
        }
    }

    fn ask(&mut self, operation: &Operation) {
        if let Some(entry) = &mut self.0 {
            entry.ask(operation);
        }
    }

    /// The event names the grants that its permit stands on: what was done under an access request is found by them.
    fn open(self, permit: Option<&Permit>) -> Result<Option<OpenEntry>, Refusal> {
        let grants = permit.map(|p| names(p.grants())).unwrap_or_default();
        let details: &[(&str, &str)] = if grants.is_empty() { &[] } else { &[("grants", &grants)] };
        self.0.map(|entry| entry.open(details)).transpose().map_err(|e| closed(&e))
    }

    /// A refusal is one event. If even that cannot be written, the person hears that instead: nothing goes on unseen.
    fn refuse(&mut self, outcome: Outcome, refusal: Refusal) -> Refusal {
        let words = refusal.words().1;
        self.refuse_because(outcome, &words, refusal)
    }

    /// The same, where the trail holds more than the person may hear.
    fn refuse_because(&mut self, outcome: Outcome, reason: &str, refusal: Refusal) -> Refusal {
        match self.0.take().map(|entry| entry.refuse(outcome, reason, &[])) {
            Some(Err(error)) => closed(&error),
            Some(Ok(_)) | None => refusal,
        }
    }
}

/// Ids of grants, one after the other.
fn names(grants: &[GrantId]) -> String {
    let mut text = String::with_capacity(grants.len() * 33);
    for (n, grant) in grants.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{grant}", if n == 0 { "" } else { " " });
    }
    text
}

/// The trail cannot be written: the gate is closed.
pub(crate) fn closed(error: &portcullis_audit::Error) -> Refusal {
    tracing::error!(%error, "the trail cannot be written; everything that needs it is denied");
    Refusal::Unavailable("The audit trail cannot be written, so nothing is let through. Tell an administrator.".into())
}

/// Closes an event. When even that cannot be written the trail has failed and nothing more is let in; the next start
/// closes what stayed open.
pub(crate) fn end(open: OpenEntry, outcome: Outcome, reason: &str, details: &[(&str, &str)]) {
    if let Err(error) = open.close(outcome, reason, details) {
        tracing::error!(%error, "an event could not be closed");
    }
}
