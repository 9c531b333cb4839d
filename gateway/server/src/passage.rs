// SPDX-License-Identifier: Apache-2.0
//! The passage: the one way a request travels. Proxied API calls, console upgrades and our own pages all take it.
//!
//! The order is written once, in [`admit`]; [`walk`] leads through it and out. Classification comes first because step-up,
//! authorization and the trail all depend on what is being asked; the trail is the bracket around the walk, so that no
//! early return can skip it.

use crate::{layers::Peer, reply::Refusal, state::House};
use portcullis_audit::{Entry, OpenEntry};
use portcullis_domain::{Actor, Effect, GrantId, HypervisorName, Operation, Outcome, Via};
use portcullis_policy::{Decision, Lasts, Permit, Reason};
use std::{fmt::Write as _, future::Future, sync::Arc};
use time::OffsetDateTime;

/// What a request asks, as far as it can be told without knowing who asks.
pub(crate) enum Asked {
    /// Nobody needs to be known: sign-in pages, assets.
    Nothing,
    /// Somebody must be known; no more.
    Presence,
    /// An operation, and what must be allowed as well for what it names.
    Operation(Operation, Vec<Operation>),
    /// A look at what the person may see of a hypervisor; which part that is becomes clear with the actor.
    Visible(HypervisorName),
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

impl Passed {
    /// Closes the event of somebody for whom nothing is done after all.
    pub(crate) fn fail(self, outcome: Outcome, reason: &str) {
        if let Some(open) = self.open {
            end(open, outcome, reason, &[]);
        }
    }
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
    let (operation, also, mut actor) = match (asked, who) {
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
        (Asked::Operation(operation, also), Caller::Known(actor)) => (operation, also, actor),
        (Asked::Visible(hypervisor), Caller::Known(actor)) => (house.visible(&hypervisor, &actor, now), vec![], actor),
        (Asked::Task(task), Caller::Known(actor)) => match house.resolve(&task, &actor, now) {
            Some(operation) => (operation, vec![], actor),
            None => return Err(entry.refuse(Outcome::Denied, Refusal::NotFound)),
        },
    };
    entry.ask(&operation);
    entry.ask_also(&also);
    let mut decided =
        decide(house, &actor, &operation, &also, now).await.map_err(|r| entry.refuse(Outcome::Failed, r))?;
    if matches!(decided, Decided::StepUp) {
        match again().await {
            Ok(Some(fresh)) => {
                actor = from(fresh, peer);
                let now = house.clock.now();
                let anew = decide(house, &actor, &operation, &also, now).await;
                decided = anew.map_err(|refusal| entry.refuse(Outcome::Failed, refusal))?;
            }
            Ok(None) => {}
            Err(refusal) => return Err(entry.refuse(Outcome::StepUp, refusal)),
        }
    }
    match decided {
        Decided::Permit(permit) => {
            // Whatever of it changes something makes all of it wait for its event.
            let mut all = std::iter::once(&operation).chain(&also);
            let effect = if all.any(|o| o.effect == Effect::Unsafe) { Effect::Unsafe } else { Effect::Safe };
            Ok((entry, Some(actor), Some(permit), effect))
        }
        Decided::StepUp => Err(entry.refuse(Outcome::StepUp, Refusal::StepUp)),
        Decided::Locked(asked, words) => {
            let refusal = match house.hide(&actor, asked, &words, now) {
                Refusal::Forbidden(words) => Refusal::Locked(words),
                hidden => hidden,
            };
            Err(entry.refuse_because(Outcome::Denied, &words, refusal))
        }
        Decided::Deny(asked, reason) => {
            let words = reason.to_string();
            // Whoever only lacks a passkey holds a grant on it: it is no secret to them.
            let refusal = match reason {
                Reason::Passkey => Refusal::Forbidden(words.clone()),
                _ => house.hide(&actor, asked, &words, now),
            };
            Err(entry.refuse_because(Outcome::Denied, &words, refusal))
        }
    }
}

/// What comes of everything that one request asks: the permit of its operation where the whole of it is allowed.
enum Decided<'a> {
    Permit(Permit),
    StepUp,
    /// An emergency lock, and its words.
    Locked(&'a Operation, String),
    Deny(&'a Operation, Reason),
}

/// Decides an operation and what else the request names. A confirmation that counts once is used here, before anything
/// is done, and only where nothing else stands in the way.
async fn decide<'a>(
    house: &House,
    actor: &Actor,
    operation: &'a Operation,
    also: &'a [Operation],
    now: OffsetDateTime,
) -> Result<Decided<'a>, Refusal> {
    let inventory = house.fleet.inventory();
    let (mut first, mut others, mut confirm) = (None, Vec::new(), false);
    for asked in std::iter::once(operation).chain(also) {
        if let Some(words) = house.locks.against(actor.via, &asked.resource, now) {
            return Ok(Decided::Locked(asked, words));
        }
        match house.engine.decide(actor, asked, &inventory, now) {
            Decision::Permit(permit) if first.is_none() && others.is_empty() => first = Some(permit),
            Decision::Permit(permit) => others.push(permit),
            Decision::StepUp(_) => confirm = true,
            Decision::Deny(reason) => return Ok(Decided::Deny(asked, reason)),
        }
    }
    if confirm {
        return Ok(Decided::StepUp);
    }
    for permit in first.iter().chain(&others) {
        if !is_unspent(house, permit).await? {
            return Ok(Decided::StepUp);
        }
    }
    Ok(first.map_or(Decided::StepUp, |first| Decided::Permit(first.with(others))))
}

/// Somebody as they ask from an address: grants may count from some networks only.
pub(crate) fn from(mut actor: Arc<Actor>, peer: Peer) -> Arc<Actor> {
    if actor.from != Some(peer.ip) {
        Arc::make_mut(&mut actor).from = Some(peer.ip);
    }
    actor
}

/// Whether a permit may be acted on: one that stands on a confirmation of its own is none once that has been used. A
/// confirmation that counts once is used up by this question.
async fn is_unspent(house: &House, permit: &Permit) -> Result<bool, Refusal> {
    let Some(proof) = permit.proof() else { return Ok(true) };
    // Boxed: they ask the store, which few requests do, and every request's future would keep 15 KiB of room for it.
    let good = match (permit.via(), proof.lasts) {
        (Via::Session(session), Lasts::Once) => Box::pin(house.identity.spend(session, &proof.intent, proof.at)).await,
        (Via::Session(session), Lasts::WhileOpen) => {
            Box::pin(house.identity.is_spent(session, &proof.intent, proof.at)).await.map(|spent| !spent)
        }
        (Via::Session(_), Lasts::InWindow) => Ok(true),
        (Via::Token(_) | Via::CommandLine, _) => Ok(false),
    };
    good.map_err(|e| house.unavailable(&e))
}

/// The bracket of a visit; a visit that needs no trail (a page of one's own) has none.
struct Bracket(Option<Entry>);

impl Bracket {
    fn learn(&mut self, actor: &Actor) {
        if let Some(entry) = &mut self.0 {
            entry.learn(actor);
        }
    }

    fn ask_also(&mut self, operations: &[Operation]) {
        if let Some(entry) = &mut self.0 {
            entry.ask_also(operations);
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
