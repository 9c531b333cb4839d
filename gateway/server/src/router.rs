// SPDX-License-Identifier: Apache-2.0
//! Our own doors: which handler answers which route, and how a request to one enters the passage.
//!
//! What each route needs stands in `policy`'s table of own routes, not here: a route that is missing there is answered
//! with 404 before any handler is asked (`tests/doors` compares the two lists).

use crate::{
    admin,
    layers::Peer,
    pages,
    passage::{self, Asked, Caller, Passed, Trailed, Visit},
    reply::{self, Carried, Refusal},
    state::House,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, Method, header, request::Parts};
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Event, Outcome, Phase, SessionId, Subject, UserId, Via, micros};
use portcullis_identity::Stage;
use portcullis_policy::{
    Permit,
    classify::own::{self, Door, Found},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tower_sessions::Session;

/// Largest form, in bytes (security defaults: 64 KiB before sign-in; no form of ours is larger after it).
const MAX_FORM: usize = 64 * 1024;

/// The portal's router, one a shard.
pub(crate) fn portal(house: &Arc<House>) -> Router {
    Router::new()
        .route("/", get(pages::machines::home))
        .route("/machines", get(pages::machines::list))
        .route("/favourites", post(pages::machines::favourite))
        .route("/machines/{hypervisor}/{machine}/power", post(pages::machines::power))
        .route("/sign-in", get(pages::login::form).post(pages::login::password))
        .route("/sign-in/code", get(pages::login::code_form).post(pages::login::code))
        .route("/sign-in/recovery", get(pages::login::recovery_form).post(pages::login::recovery))
        .route("/sign-out", post(pages::login::sign_out))
        .route("/set-up", get(pages::login::set_up_form).post(pages::login::set_up))
        .route("/invitation", get(pages::login::invitation_form).post(pages::login::invitation))
        .route("/enrol", get(pages::factors::enrol_form).post(pages::factors::enrol))
        .route("/step-up", get(pages::factors::step_up_form).post(pages::factors::step_up))
        .route("/me", get(pages::factors::me))
        .route("/me/sessions/end", post(pages::factors::end_session))
        .route("/me/sessions/end-others", post(pages::factors::end_others))
        .route("/me/factors/remove", post(pages::factors::remove))
        .route("/me/recovery-codes", post(pages::factors::recovery_codes))
        .route("/me/password", post(pages::factors::change_password))
        .route("/me/tokens", post(pages::tokens::mint))
        .route("/me/tokens/revoke", post(pages::tokens::revoke))
        .route("/c/{hypervisor}/{machine}", get(pages::console::show))
        .route("/api/v1/machines", get(pages::machines::json))
        .route("/api/v1/consoles/{hypervisor}/{machine}/ticket/{mode}", post(pages::console::ticket))
        .route("/api/v1/consoles/{hypervisor}/{machine}/stream/{mode}", get(pages::console::stream))
        .route("/users", get(admin::users::list).post(admin::users::create))
        .route("/users/{id}", get(admin::users::show))
        .route("/users/{id}/disable", post(admin::users::disable))
        .route("/users/{id}/enable", post(admin::users::enable))
        .route("/users/{id}/reset", post(admin::users::reset))
        .route("/users/{id}/sign-out", post(admin::users::sign_out))
        .route("/grants", get(admin::grants::list).post(admin::grants::add))
        .route("/grants/revoke", post(admin::grants::revoke))
        .route("/roles", get(admin::grants::roles))
        .route("/sessions", get(admin::sessions::list))
        .route("/sessions/end", post(admin::sessions::end))
        .route("/hypervisors", get(admin::hypervisors::list))
        .route("/recordings", get(admin::sessions::recordings))
        .route("/trail", get(admin::trail::search))
        .route("/trail/{node}/{number}", get(admin::trail::show))
        .route("/assets/{*path}", get(crate::assets::serve))
        .route("/favicon.ico", get(crate::assets::favicon))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(from_fn_with_state(Arc::clone(house), enter))
        .layer(house.identity.session_layer())
        .with_state(Arc::clone(house))
}

/// Who a handler serves. Taken as an argument: only the passage makes it.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) peer: Peer,
    pub(crate) session: Session,
    pub(crate) stage: Stage,
    /// The token that every form and script of this session sends back.
    pub(crate) csrf: String,
    pub(crate) actor: Option<Arc<Actor>>,
    carried: Arc<Mutex<Held>>,
}

/// What a handler may take over, and what it wants its event to say.
#[derive(Default)]
struct Held {
    permit: Option<Permit>,
    open: Option<OpenEntry>,
    words: String,
}

impl Guest {
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

    /// Says what is done, for the trail: as the closing words of the operation's own event, or as an event of its own
    /// where the route has none (signing in, one's own account). Such an event is taken in before it is done.
    pub(crate) fn say(&self, house: &House, step: &Step<'_>) -> Result<(), Refusal> {
        {
            let mut held = self.held();
            if held.open.is_some() {
                held.words = if step.about.is_empty() {
                    step.words.to_owned()
                } else {
                    format!("{}: {}", step.about, step.words)
                };
                return Ok(());
            }
        }
        let subject = match (&self.actor, step.user) {
            (Some(actor), _) => Some(Subject { user: actor.user, name: Arc::clone(&actor.name), via: actor.via }),
            (None, Some((user, session))) => {
                let via = session.map_or(Via::CommandLine, Via::Session);
                session.map(|_| Subject { user, name: step.about.into(), via })
            }
            (None, None) => None,
        };
        let user = step.user.map(|(user, _)| user.to_string());
        let event = Event {
            at_us: micros(house.clock.now()),
            request: self.peer.request,
            phase: Phase::Noted,
            kind: step.kind.into(),
            subject,
            peer: Some(self.peer.ip),
            action: None,
            resource: step.about.chars().filter(|c| !c.is_control()).take(128).collect::<String>().into(),
            outcome: step.outcome,
            reason: step.words.into(),
            details: user.into_iter().map(|u| ("user".into(), u.into())).collect(),
        };
        house.trail.append(&event).map(drop).map_err(|e| passage::closed(&e))
    }
}

/// One step of somebody, for the trail.
pub(crate) struct Step<'a> {
    /// The kind of event.
    pub(crate) kind: &'a str,
    /// About whom or what.
    pub(crate) about: &'a str,
    /// How it came out.
    pub(crate) outcome: Outcome,
    /// What was done, or why not.
    pub(crate) words: &'a str,
    /// Who it is about, where that is known before there is an actor.
    pub(crate) user: Option<(UserId, Option<SessionId>)>,
}

impl<'a> Step<'a> {
    /// Something that was done.
    pub(crate) const fn done(kind: &'a str, about: &'a str, words: &'a str) -> Self {
        Self { kind, about, outcome: Outcome::Done, words, user: None }
    }

    /// Something that was refused.
    pub(crate) const fn denied(kind: &'a str, about: &'a str, words: &'a str) -> Self {
        Self { kind, about, outcome: Outcome::Denied, words, user: None }
    }
}

impl<S: Sync> FromRequestParts<S> for Guest {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or(Refusal::Unknown)
    }
}

/// Leads a request to one of our own doors through the passage.
async fn enter(
    State(house): State<Arc<House>>,
    Extension(peer): Extension<Peer>,
    session: Session,
    request: Request,
    next: Next,
) -> Response {
    let tool = request.uri().path().starts_with("/api/");
    let back = request.uri().path_and_query().map(ToString::to_string).filter(|_| request.method() == Method::GET);
    let (answer, stage) = match approach(&house, peer, &session, request, next).await {
        Ok(both) => both,
        Err((refusal, stage)) => (refusal.into_response(), stage),
    };
    let Some(Carried(refusal)) = answer.extensions().get::<Carried>().cloned() else { return answer };
    if tool {
        let mut answer = refusal.problem(peer.request);
        if matches!(*refusal, Refusal::StepUp) {
            answer
                .headers_mut()
                .insert(header::HeaderName::from_static("x-step-up"), header::HeaderValue::from_static("/step-up"));
        }
        return answer.map(Body::from);
    }
    match (&*refusal, stage) {
        (Refusal::Unknown, stage) => {
            Redirect::to(&pages::login::next_step(stage.as_ref(), back.as_deref())).into_response()
        }
        (Refusal::StepUp, _) if back.is_some() => {
            Redirect::to(&pages::factors::step_up_address(back.as_deref())).into_response()
        }
        _ => refusal.page(peer.request).map(Body::from),
    }
}

async fn approach(
    house: &Arc<House>,
    peer: Peer,
    session: &Session,
    request: Request,
    next: Next,
) -> Result<(Response, Option<Stage>), (Refusal, Option<Stage>)> {
    let plain = |refusal| (refusal, None);
    let path = request.uri().path().to_owned();
    let found = own::find(request.method().as_str(), &path).map_err(|why| {
        plain(match why {
            own::Missing::Path => Refusal::NotFound,
            own::Missing::Method => Refusal::Method,
            own::Missing::Ambiguous => Refusal::Bad("That address can be read in more than one way.".into()),
        })
    })?;
    if matches!(found.route.door, Door::Public) {
        return Ok((next.run(request).await, None));
    }
    let (parts, body) = request.into_parts();
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    let upgrade = parts.headers.contains_key(header::UPGRADE);
    if changes || upgrade {
        ours(house, &parts.headers, upgrade).map_err(plain)?;
    }
    let stage = house.identity.stage(session).await.map_err(|e| plain(house.unavailable(&e)))?;
    let known = matches!(stage, Stage::SignedIn { .. });
    if matches!((found.route.door, &stage), (Door::Enrolling, Stage::Stranger | Stage::NeedsSecond { .. })) {
        return Err((Refusal::Unknown, Some(stage)));
    }
    if !known && !house.strangers.check(peer.ip) {
        return Err(plain(Refusal::TooMany(5)));
    }
    // Somebody who is not known gets no row in the store for looking at a form.
    let csrf = match stage {
        Stage::Stranger => String::new(),
        _ => house.identity.csrf(session).await.map_err(|e| plain(house.unavailable(&e)))?,
    };
    let body = if changes { form(body).await.map_err(plain)? } else { Bytes::new() };
    if changes && !stranger_form(&stage) {
        let token = sent(&parts.headers, &body, "csrf").unwrap_or_default();
        house.identity.check_csrf(session, &token).await.map_err(|_| plain(Refusal::Foreign))?;
    }
    let fresh = sent(&parts.headers, &body, "step_up_code");
    let asked = ask(&found).map_err(plain)?;
    let trailed = if found.route.trailed { Trailed::Yes } else { Trailed::No };
    let visit = Visit { kind: found.route.kind(), peer, asked, trailed };
    let request = Request::from_parts(parts, Body::from(body));
    let caller = async {
        if !known {
            return Ok(Caller::Stranger);
        }
        let actor = house.identity.actor(session).await.map_err(|e| house.unavailable(&e))?;
        Ok(actor.map_or(Caller::Stranger, |actor| Caller::Known(Arc::new(actor))))
    };
    let again = || async {
        let Some(code) = fresh else { return Ok(None) };
        house.identity.step_up(session, &code, peer.ip).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
        Ok(house.identity.actor(session).await.map_err(|e| house.unavailable(&e))?.map(Arc::new))
    };
    let stage_of_guest = stage.clone();
    let walked = passage::walk(house, visit, caller, again, |passed| {
        serve(peer, session, stage_of_guest, csrf, passed, request, next)
    });
    match walked.await {
        Ok(answer) => Ok((answer, Some(stage))),
        Err(refusal) => Err((refusal, Some(stage))),
    }
}

/// The last room for our own doors: the handler. The event closes with what came of it, unless the handler took it over.
async fn serve(
    peer: Peer,
    session: &Session,
    stage: Stage,
    csrf: String,
    passed: Passed,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let Passed { actor, permit, open } = passed;
    let carried = Arc::new(Mutex::new(Held { permit, open, words: String::new() }));
    let guest = Guest { peer, session: session.clone(), stage, csrf, actor, carried };
    request.extensions_mut().insert(guest.clone());
    let answer = next.run(request).await;
    let (open, words) = {
        let mut held = guest.held();
        (held.open.take(), std::mem::take(&mut held.words))
    };
    if let Some(open) = open {
        let status = answer.status();
        let failed = status.is_client_error() || status.is_server_error();
        let why = answer.extensions().get::<Carried>().map(|c| c.0.words().1);
        let (outcome, reason) = if failed { (Outcome::Failed, why.unwrap_or(words)) } else { (Outcome::Done, words) };
        passage::end(open, outcome, &reason, &[("status", status.as_str())]);
    }
    Ok(answer)
}

/// What an own route asks, with its parameters read.
fn ask(found: &Found<'_>) -> Result<Asked, Refusal> {
    Ok(match found.route.door {
        Door::Public | Door::Stranger | Door::Enrolling => Asked::Nothing,
        Door::SignedIn => Asked::Presence,
        Door::Own(..) | Door::Machine(_) => Asked::Operation(found.operation().ok_or(Refusal::NotFound)?),
    })
}

/// Whether a request that changes something, or opens a stream, comes from our own page. The allowed origin is the
/// configured one, never what `Host` says. Browsers send `Origin: null` on forms of pages with `no-referrer`: then
/// Fetch Metadata must vouch.
fn ours(house: &House, headers: &HeaderMap, upgrade: bool) -> Result<(), Refusal> {
    let one = |name: header::HeaderName| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(v), None) => v.to_str().map(Some).map_err(|_| Refusal::Foreign),
            _ => Err(Refusal::Foreign),
        }
    };
    let origin = one(header::ORIGIN)?;
    let site = one(header::HeaderName::from_static("sec-fetch-site"))?;
    if site.is_some_and(|s| s != "same-origin") {
        return Err(Refusal::Foreign);
    }
    match origin {
        Some(o) if o == house.origin => Ok(()),
        None | Some("null") if !upgrade && site == Some("same-origin") => Ok(()),
        _ => Err(Refusal::Foreign),
    }
}

/// Forms of people who are not known yet carry no token: their origin is proven by [`ours`], and there is no session
/// to ride on.
const fn stranger_form(stage: &Stage) -> bool {
    matches!(stage, Stage::Stranger)
}

async fn form(body: Body) -> Result<Bytes, Refusal> {
    let read = axum::body::to_bytes(body, MAX_FORM);
    match tokio::time::timeout(std::time::Duration::from_secs(10), read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::TooLarge(MAX_FORM)),
        Err(_) => Err(Refusal::Bad("The form did not arrive in time. Try again.".into())),
    }
}

/// A field that travels with every form (`csrf`, `step_up_code`), or as a header with scripts (`X-CSRF-Token`).
fn sent(headers: &HeaderMap, body: &[u8], field: &str) -> Option<String> {
    let header = if field == "csrf" { "x-csrf-token" } else { "x-step-up-code" };
    if let Some(value) = headers.get(header) {
        return value.to_str().ok().map(str::to_owned);
    }
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if !is_form {
        return None;
    }
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(body).ok()?;
    fields.into_iter().find(|(k, _)| k == field).map(|(_, v)| v).filter(|v| !v.is_empty())
}
