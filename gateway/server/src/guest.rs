// SPDX-License-Identifier: Apache-2.0
//! Who a handler of our own doors serves, and what the event of their visit says.

use crate::{
    layers::Peer,
    passage::{self, Passed},
    reply::{Carried, Refusal},
    state::House,
};
use axum::{extract::FromRequestParts, response::Response};
use http::request::Parts;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Event, Outcome, Phase, Seq, SessionId, Subject, UserId, Via, micros};
use portcullis_identity::Stage;
use portcullis_policy::Permit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;
use tower_sessions::Session;

/// Who a handler serves. Taken as an argument: only the passage makes it.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) peer: Peer,
    pub(crate) session: Session,
    pub(crate) stage: Stage,
    /// The token that every form and script of this session sends back.
    pub(crate) csrf: String,
    pub(crate) actor: Option<Arc<Actor>>,
    /// Whether a script asks, which reads JSON.
    pub(crate) script: bool,
    carried: Arc<Mutex<Held>>,
}

/// What a handler may take over, and what it wants its event to say.
#[derive(Default)]
struct Held {
    permit: Option<Permit>,
    open: Option<OpenEntry>,
    said: Option<(Outcome, String)>,
    details: Vec<(&'static str, String)>,
}

/// One step of somebody, for the trail.
pub(crate) struct Step<'a> {
    /// About whom or what.
    pub(crate) about: &'a str,
    /// How it came out.
    pub(crate) outcome: Outcome,
    /// What was done, or why not.
    pub(crate) words: &'a str,
    /// Who it is about, where that becomes known by the step itself.
    pub(crate) user: Option<(UserId, Option<SessionId>)>,
}

impl<'a> Step<'a> {
    /// Something that is done.
    pub(crate) const fn done(about: &'a str, words: &'a str) -> Self {
        Self { about, outcome: Outcome::Done, words, user: None }
    }

    /// Something that was refused.
    pub(crate) const fn denied(about: &'a str, words: &'a str) -> Self {
        Self { about, outcome: Outcome::Denied, words, user: None }
    }
}

impl Guest {
    pub(crate) fn new(peer: Peer, session: Session, stage: Stage, csrf: String, passed: Passed) -> Self {
        let Passed { actor, permit, open } = passed;
        let carried = Arc::new(Mutex::new(Held { permit, open, ..Held::default() }));
        Self { peer, session, stage, csrf, actor, script: false, carried }
    }

    /// The same for a script.
    pub(crate) fn asked_by(self, script: bool) -> Self {
        Self { script, ..self }
    }

    /// The actor; a route that needs one is not reached without.
    pub(crate) fn actor(&self) -> Result<&Arc<Actor>, Refusal> {
        self.actor.as_ref().ok_or(Refusal::Unknown)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the permit says that the screen must be recorded. Without a permit: yes.
    pub(crate) fn must_record(&self) -> bool {
        self.held().permit.as_ref().is_none_or(Permit::must_record)
    }

    /// Until when the permit can be renewed, as things stand now.
    pub(crate) fn lasts_until(&self) -> Option<OffsetDateTime> {
        self.held().permit.as_ref().map(Permit::lasts_until)
    }

    /// Takes the permit and its open event over: the handler closes the event.
    pub(crate) fn take(&self) -> Option<(Permit, OpenEntry)> {
        let mut held = self.held();
        let permit = held.permit.take()?;
        let open = held.open.take();
        if open.is_none() {
            held.permit = Some(permit);
            return None;
        }
        open.map(|open| (permit, open))
    }

    /// Says what the visit comes to, for the closing words of its event; the last word counts. Where nobody was known
    /// when the event was opened (signing in), it also learns who it is about. Nothing is said without an event: a
    /// change that would leave none does not happen.
    pub(crate) fn say(&self, step: &Step<'_>) -> Result<(), Refusal> {
        let mut held = self.held();
        let Some(open) = &mut held.open else {
            return Err(Refusal::Unavailable("This change has no event in the trail, so it is not made.".into()));
        };
        let about = plain(step.about);
        if self.actor.is_none()
            && let Some((user, Some(session))) = step.user
        {
            open.learn(Subject { user, name: about.as_str().into(), via: Via::Session(session) });
        }
        // An operation's event names its resource already; then whom it is about stands in the words.
        let named = about.is_empty() || open.name(&about);
        let words = if named { step.words.to_owned() } else { format!("{about}: {}", step.words) };
        held.said = Some((step.outcome, words));
        held.details.retain(|(name, _)| *name != "user");
        held.details.extend(step.user.map(|(user, _)| ("user", user.to_string())));
        Ok(())
    }

    /// Adds a named detail to the closing words of the visit's event.
    pub(crate) fn tell(&self, name: &'static str, value: impl Into<String>) {
        self.held().details.push((name, value.into()));
    }

    /// Writes down what exactly is about to be done to somebody, durable before it is: the event that was opened at the
    /// door knows the operation only, and the one that closes it comes after the deed.
    pub(crate) async fn intend(&self, house: &House, about: &str, words: &str) -> Result<(), Refusal> {
        let actor = self.actor()?;
        let event = Event {
            at_us: micros(house.clock.now()),
            request: self.peer.request,
            phase: Phase::Noted,
            kind: "intent".into(),
            subject: Some(Subject { user: actor.user, name: Arc::clone(&actor.name), via: actor.via }),
            peer: Some(self.peer.ip),
            action: None,
            resource: plain(about).into(),
            outcome: Outcome::Pending,
            reason: words.into(),
            details: vec![],
        };
        let seq = house.trail.append(&event).map_err(|e| passage::closed(&e))?;
        house.trail.durable(seq).await.map_err(|e| passage::closed(&e))
    }

    /// Closes the event with what came of the visit, unless the handler took it over; gives the number of the event.
    pub(crate) fn close(&self, answer: &Response) -> Result<Option<Seq>, Refusal> {
        let (open, said, mut details) = {
            let mut held = self.held();
            (held.open.take(), held.said.take(), std::mem::take(&mut held.details))
        };
        let Some(open) = open else { return Ok(None) };
        let status = answer.status();
        details.push(("status", status.as_str().to_owned()));
        let failed = status.is_client_error() || status.is_server_error();
        let why = answer.extensions().get::<Carried>().map(|c| c.0.words().1);
        let (outcome, reason) = match (said, failed) {
            (Some((Outcome::Done, words)), true) => (Outcome::Failed, why.unwrap_or(words)),
            (Some((outcome, words)), _) => (outcome, words),
            (None, true) => (Outcome::Failed, why.unwrap_or_default()),
            (None, false) => (Outcome::Done, String::new()),
        };
        let details: Vec<(&str, &str)> = details.iter().map(|(k, v)| (*k, v.as_str())).collect();
        open.close(outcome, &reason, &details).map(Some).map_err(|e| passage::closed(&e))
    }
}

/// What somebody typed, as the trail takes it.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

impl<S: Sync> FromRequestParts<S> for Guest {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or(Refusal::Unknown)
    }
}
