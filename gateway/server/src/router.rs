// SPDX-License-Identifier: Apache-2.0
//! Our own doors: which handler answers which route, and how a request to one enters the passage.
//!
//! What each route needs stands in `policy`'s table of own routes, not here: a route that is missing there is answered
//! with 404 before any handler is asked (`tests/doors` compares the two lists).

use crate::{
    admin,
    guest::Guest,
    layers::Peer,
    pages,
    passage::{self, Asked, Caller, Trailed, Visit},
    reply::{self, Carried, Refusal},
    state::House,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, Method, header};
use portcullis_identity::Stage;
use portcullis_policy::classify::own::{self, Door, Found};
use std::sync::Arc;
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
        .route("/recordings", get(admin::sessions::list_recordings))
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
        house.strangers.refused(peer.ip);
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
    let visit = Visit { kind: found.route.kind, peer, asked, trailed };
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
        serve(house, Guest::new(peer, session.clone(), stage_of_guest, csrf, passed), request, next)
    });
    match walked.await {
        Ok(answer) => Ok((answer, Some(stage))),
        Err(refusal) => Err((refusal, Some(stage))),
    }
}

/// The last room for our own doors: the handler. The event closes with what came of it, unless the handler took it
/// over. A change goes on to its end although the browser may hang up, and is answered when its end is durable.
async fn serve(house: &Arc<House>, guest: Guest, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    request.extensions_mut().insert(guest.clone());
    if !changes {
        let answer = next.run(request).await;
        return guest.close(&answer).map(|_| answer);
    }
    let trail = house.trail.clone();
    let change = house.tasks.spawn(async move {
        let answer = next.run(request).await;
        if let Some(closed) = guest.close(&answer)? {
            trail.durable(closed).await.map_err(|e| passage::closed(&e))?;
        }
        Ok(answer)
    });
    let lost = |_| Refusal::Unavailable("The change broke off. Look whether it was made before you try again.".into());
    change.await.map_err(lost)?
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
