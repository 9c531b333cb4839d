// SPDX-License-Identifier: Apache-2.0
//! Our own doors: which handler answers which route, and how a request to one enters the passage.
//!
//! What each route needs stands in `policy`'s table of own routes, not here: a route that is missing there is answered
//! with 404 before any handler is asked. The test below compares the two lists; `tests/doors` tries every row of them.

use crate::{
    admin,
    guest::Guest,
    layers::Peer,
    openapi, pages,
    passage::{self, Asked, Caller, Trailed, Visit},
    reply::{self, Carried, Refusal},
    scim,
    state::House,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    handler::Handler,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Redirect, Response},
    routing::{MethodRouter, delete, get, patch, post, put},
};
use http::{HeaderMap, Method, header};
use portcullis_domain::{Intent, Operation, Resource};
use portcullis_identity::Stage;
use portcullis_policy::classify::own::{self, Door, Found};
use std::sync::Arc;
use tower_sessions::Session;

/// Largest form, in bytes (security defaults: 64 KiB before sign-in; no form of ours is larger after it).
const MAX_FORM: usize = 64 * 1024;

/// The portal's router, one a shard.
pub(crate) fn portal(house: &Arc<House>) -> Router {
    let served = served().into_iter();
    served
        .fold(Router::new(), |router, Served { pattern, handler, .. }| router.route(pattern, handler))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(from_fn_with_state(Arc::clone(house), enter))
        .layer(house.identity.session_layer())
        .with_state(Arc::clone(house))
}

/// A route and what answers it. The method is the one that the handler is mounted under: only the two below make it.
struct Served {
    #[cfg(test)]
    method: &'static str,
    pattern: &'static str,
    handler: MethodRouter<Arc<House>>,
}

fn on_get<T: 'static>(pattern: &'static str, handler: impl Handler<T, Arc<House>>) -> Served {
    Served {
        #[cfg(test)]
        method: "GET",
        pattern,
        handler: get(handler),
    }
}

fn on_post<T: 'static>(pattern: &'static str, handler: impl Handler<T, Arc<House>>) -> Served {
    Served {
        #[cfg(test)]
        method: "POST",
        pattern,
        handler: post(handler),
    }
}

/// A directory's route, by its method.
fn on<T: 'static>(method: &'static str, pattern: &'static str, handler: impl Handler<T, Arc<House>>) -> Served {
    let mount = match method {
        "PUT" => put(handler),
        "PATCH" => patch(handler),
        "DELETE" => delete(handler),
        _ => return on_get(pattern, handler),
    };
    Served {
        #[cfg(test)]
        method,
        pattern,
        handler: mount,
    }
}

/// Everything that is served.
fn served() -> Vec<Served> {
    vec![
        on_get("/", pages::machines::home),
        on_get("/machines", pages::machines::list),
        on_post("/favourites", pages::machines::favourite),
        on_post("/machines/{hypervisor}/{machine}/power", pages::machines::power),
        on_get("/sign-in", pages::login::form),
        on_post("/sign-in", pages::login::password),
        on_get("/sign-in/code", pages::login::code_form),
        on_post("/sign-in/code", pages::login::code),
        on_get("/sign-in/recovery", pages::login::recovery_form),
        on_post("/sign-in/recovery", pages::login::recovery),
        on_get("/sign-in/with/{provider}", pages::provider::begin),
        on_get("/sign-in/callback/{provider}", pages::provider::finish),
        on_post("/sign-in/backchannel/{provider}", pages::provider::log_out),
        on_get("/api/v1/passkeys/sign-in", pages::passkeys::ask_to_sign_in),
        on_post("/sign-in/passkey", pages::passkeys::sign_in),
        on_post("/sign-out", pages::login::sign_out),
        on_get("/set-up", pages::login::set_up_form),
        on_post("/set-up", pages::login::set_up),
        on_get("/invitation", pages::login::invitation_form),
        on_post("/invitation", pages::login::invitation),
        on_get("/enrol", pages::factors::enrol_form),
        on_post("/enrol", pages::factors::enrol),
        on_get("/api/v1/passkeys/new", pages::passkeys::ask_to_add),
        on_post("/enrol/passkey", pages::passkeys::add),
        on_get("/step-up", pages::factors::step_up_form),
        on_post("/step-up", pages::factors::step_up),
        on_get("/api/v1/passkeys/step-up", pages::passkeys::ask_to_confirm),
        on_get("/banner", pages::banner::form),
        on_post("/banner", pages::banner::confirm),
        on_get("/break-glass", pages::break_glass::form),
        on_post("/break-glass", pages::break_glass::enter),
        on_get("/me", pages::factors::me),
        on_post("/me/sessions/end", pages::factors::end_session),
        on_post("/me/sessions/end-others", pages::factors::end_others),
        on_post("/me/factors/remove", pages::factors::remove),
        on_post("/me/recovery-codes", pages::factors::recovery_codes),
        on_post("/me/password", pages::factors::change_password),
        on_post("/me/tokens", pages::tokens::mint),
        on_post("/me/tokens/revoke", pages::tokens::revoke),
        on_get("/c/{hypervisor}/{machine}", pages::console::show),
        on_get("/api/v1/openapi.json", openapi::serve),
        on_get("/api/v1/machines", pages::machines::json),
        on_post("/api/v1/consoles/{hypervisor}/{machine}/ticket/{mode}", pages::console::ticket),
        on_get("/api/v1/consoles/{hypervisor}/{machine}/stream/{mode}", pages::console::stream),
        on_get("/users", admin::users::list),
        on_post("/users", admin::users::create),
        on_get("/users/{id}", admin::users::show),
        on_post("/users/{id}/disable", admin::users::disable),
        on_post("/users/{id}/enable", admin::users::enable),
        on_post("/users/{id}/reset", admin::users::reset),
        on_post("/users/{id}/sign-out", admin::users::sign_out),
        on_post("/users/{id}/sessions/end", admin::accounts::end_session),
        on_post("/users/{id}/lock", admin::accounts::lock),
        on_post("/users/{id}/unlock", admin::accounts::unlock),
        on_post("/users/{id}/training", admin::accounts::training),
        on_post("/users/{id}/mail", admin::accounts::mail),
        on_post("/users/{id}/tokens", admin::accounts::mint),
        on_post("/users/{id}/tokens/revoke", admin::accounts::revoke),
        on_post("/service-accounts", admin::accounts::create_service),
        on_get("/break-glass/uses", admin::emergencies::list),
        on_post("/break-glass/review", admin::emergencies::review),
        on_get("/grants", admin::grants::list),
        on_post("/grants", admin::grants::add),
        on_post("/grants/preview", admin::sentence::show),
        on_post("/grants/revoke", admin::grants::revoke),
        on_get("/access", admin::effective::show),
        on_get("/groups", admin::groups::list),
        on_post("/groups", admin::groups::create),
        on_get("/groups/{id}", admin::groups::show),
        on_post("/groups/{id}/add", admin::groups::add),
        on_post("/groups/{id}/remove", admin::groups::remove),
        on_post("/groups/{id}/delete", admin::groups::delete),
        on_get("/roles", admin::grants::roles),
        on_get("/policy/history", admin::history::list),
        on_get("/policy/history/{version}", admin::history::show),
        on_post("/policy/history/{version}/rollback", admin::history::roll_back),
        on_post("/policy/try", admin::history::try_rows),
        on_get("/proposals/{id}", admin::proposals::show),
        on_post("/proposals/{id}/approve", admin::proposals::approve),
        on_post("/proposals/{id}/refuse", admin::proposals::refuse),
        on_get("/api/v1/proposals", admin::proposals::json),
        on_get("/requests", pages::requests::list),
        on_post("/requests", pages::requests::ask),
        on_get("/requests/new", pages::requests::form),
        on_get("/requests/{id}", pages::requests::show),
        on_post("/requests/{id}/approve", pages::requests::approve),
        on_post("/requests/{id}/refuse", pages::requests::refuse),
        on_post("/requests/{id}/withdraw", pages::requests::withdraw),
        on_post("/requests/{id}/begin", pages::requests::begin),
        on_post("/requests/{id}/end", pages::requests::end),
        on_get("/api/v1/requests", pages::requests::json),
        on_post("/api/v1/requests", pages::requests::ask),
        on_post("/api/v1/requests/{id}/approve", pages::requests::approve),
        on_post("/api/v1/requests/{id}/refuse", pages::requests::refuse),
        on_post("/api/v1/requests/{id}/withdraw", pages::requests::withdraw),
        on_post("/api/v1/requests/{id}/begin", pages::requests::begin),
        on_post("/api/v1/requests/{id}/end", pages::requests::end),
        on_get("/locks", admin::locks::list),
        on_post("/locks", admin::locks::add),
        on_post("/locks/end", admin::locks::end),
        on_get("/api/v1/locks", admin::locks::json),
        on_post("/api/v1/locks", admin::locks::add),
        on_post("/api/v1/locks/end", admin::locks::end),
        on_get("/api/v1/access", admin::effective::json),
        on_get("/sessions", admin::sessions::list),
        on_post("/sessions/end", admin::sessions::end),
        on_get("/hypervisors", admin::hypervisors::list),
        on_get("/hypervisors/{name}", admin::hypervisors::show),
        on_get("/new-hypervisor", admin::adding::form),
        on_post("/new-hypervisor", admin::adding::meet),
        on_post("/hypervisors", admin::adding::add),
        on_post("/hypervisors/{name}/remove", admin::hypervisors::remove),
        on_get("/api/v1/hypervisors", admin::hypervisors::list_json),
        on_get("/api/v1/hypervisors/{name}", admin::hypervisors::show_json),
        on_post("/api/v1/new-hypervisor", admin::adding::meet),
        on_post("/api/v1/hypervisors", admin::adding::add),
        on_post("/api/v1/hypervisors/{name}/remove", admin::hypervisors::remove),
        on_get("/recordings", admin::sessions::list_recordings),
        on_get("/trail", admin::trail::search),
        on_get("/trail/{node}/{number}", admin::trail::show),
        on_get("/scim/v2/ServiceProviderConfig", scim::users::service),
        on_get("/scim/v2/ResourceTypes", scim::users::kinds),
        on_get("/scim/v2/Users", scim::users::list),
        on_post("/scim/v2/Users", scim::users::create),
        on_get("/scim/v2/Users/{id}", scim::users::show),
        on("PUT", "/scim/v2/Users/{id}", scim::users::replace),
        on("PATCH", "/scim/v2/Users/{id}", scim::users::patch),
        on("DELETE", "/scim/v2/Users/{id}", scim::users::delete),
        on_get("/scim/v2/Groups", scim::groups::list),
        on_post("/scim/v2/Groups", scim::groups::create),
        on_get("/scim/v2/Groups/{id}", scim::groups::show),
        on("PUT", "/scim/v2/Groups/{id}", scim::groups::replace),
        on("PATCH", "/scim/v2/Groups/{id}", scim::groups::patch),
        on("DELETE", "/scim/v2/Groups/{id}", scim::groups::delete),
        on_get("/assets/{*path}", crate::assets::serve),
        on_get("/favicon.ico", crate::assets::favicon),
    ]
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
    let directory = request.uri().path().starts_with("/scim/");
    let asked = request.uri().path_and_query().map(ToString::to_string);
    let back = asked.clone().filter(|_| request.method() == Method::GET);
    let method = request.method().clone();
    let (answer, stage) = match approach(&house, peer, &session, request, next).await {
        Ok(both) => both,
        Err((refusal, stage)) => (refusal.into_response(), stage),
    };
    let at = back.clone();
    let Some(Carried(refusal)) = answer.extensions().get::<Carried>().cloned() else { return answer };
    if directory {
        return scim::refused(&refusal, peer);
    }
    if tool {
        if !matches!(*refusal, Refusal::StepUp) {
            return refusal.problem(peer.request).map(Body::from);
        }
        let place = pages::factors::confirm_address(method.as_str(), asked.as_deref().unwrap_or_default());
        let mut answer = refusal.problem_with(peer.request, &[("step_up", &place)]);
        if let Ok(place) = header::HeaderValue::from_str(&place) {
            answer.headers_mut().insert(header::HeaderName::from_static("x-step-up"), place);
        }
        return answer.map(Body::from);
    }
    match (&*refusal, stage) {
        (Refusal::Unknown, stage) => {
            Redirect::to(&pages::login::next_step(stage.as_ref(), back.as_deref())).into_response()
        }
        (Refusal::Banner, _) if back.is_some() => {
            Redirect::to(&pages::banner::address(back.as_deref())).into_response()
        }
        (Refusal::StepUp, _) if back.is_some() => {
            Redirect::to(&pages::factors::step_up_address(back.as_deref())).into_response()
        }
        (Refusal::Forbidden(_) | Refusal::NotFound, Some(Stage::SignedIn { .. })) => {
            refusal.page(peer.request, at.and_then(|path| ask_for(&house, &path))).map(Body::from)
        }
        _ => refusal.page(peer.request, None).map(Body::from),
    }
}

/// Where somebody asks for the machine that a page of ours is about. The same whether there is such a machine or not.
fn ask_for(house: &House, address: &str) -> Option<String> {
    let path = address.split('?').next().unwrap_or(address);
    match own::find("GET", path).ok()?.operation()? {
        Operation { action, resource: Resource::Machine(at), .. } => house.ask_link(&at, action),
        _ => None,
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
    if matches!(found.route.door, Door::Directory) {
        let answer = scim::enter(house, peer, session, found.route, request, next).await;
        return answer.map(|answer| (answer, None)).map_err(plain);
    }
    let (parts, body) = request.into_parts();
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    let asks = match (parts.headers.contains_key(header::UPGRADE), changes) {
        (true, _) => Some(Asks::Stream),
        (false, true) => Some(Asks::Change),
        (false, false) => None,
    };
    // A service is no page of ours: it is known by what it signed, and there is no session that it could ride on.
    let signed = found.route.door == Door::Signed;
    if let Some(asks) = asks.filter(|asks| !(signed && *asks == Asks::Change)) {
        ours(house, &parts.headers, asks).map_err(plain)?;
    }
    let stage = match found.route.door {
        Door::Signed => Stage::Stranger,
        _ => house.identity.stage(session).await.map_err(|e| plain(house.unavailable(&e)))?,
    };
    let known = matches!(stage, Stage::SignedIn { .. });
    if !known && !house.strangers.check(peer.ip) {
        house.strangers.refused(peer.ip);
        return Err(plain(Refusal::TooMany(5)));
    }
    if changes && found.route.pattern == "/sign-in" {
        house.pace_sign_in(peer).map_err(plain)?;
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
    let asked = ask(&found, &stage).map_err(plain)?;
    // A code that comes with a request is for what the request asks.
    let intent = found.operation().as_ref().and_then(Intent::of);
    let effect = found.route.changes();
    let trailed = if found.route.trailed { Trailed::Yes } else { Trailed::No };
    // Not when it came: its form may have taken its time.
    let visit = Visit { kind: found.route.kind, peer, asked, trailed, at: house.clock.now() };
    let request = Request::from_parts(parts, Body::from(body));
    let caller = async {
        if !known {
            return Ok(Caller::Stranger);
        }
        let actor = house.identity.actor(session).await.map_err(|e| house.unavailable(&e))?;
        let first = pages::banner::comes_first(found.route);
        if first && house.identity.banner_to_confirm(session).await.map_err(|e| house.unavailable(&e))?.is_some() {
            return Err(Refusal::Banner);
        }
        Ok(actor.map_or(Caller::Stranger, |actor| Caller::Known(Arc::new(actor))))
    };
    let again = || async {
        let Some(code) = fresh else { return Ok(None) };
        let done = house.identity.step_up_for(session, &code, intent, peer.ip).await;
        done.map_err(|e| reply::identity(&e, house.clock.now()))?;
        Ok(house.identity.actor(session).await.map_err(|e| house.unavailable(&e))?.map(Arc::new))
    };
    let stage_of_guest = stage.clone();
    let walked = passage::walk(house, visit, caller, again, |passed| {
        let guest = Guest::new(peer, session.clone(), stage_of_guest, csrf, passed);
        serve(house, guest.asked_by(path.starts_with("/api/")), effect, request, next)
    });
    match walked.await {
        Ok(answer) => Ok((answer, Some(stage))),
        Err(refusal) => Err((refusal, Some(stage))),
    }
}

/// The last room for our own doors: the handler. The event closes with what came of it, unless the handler took it
/// over. A change goes on to its end although the browser may hang up, and is answered when its end is durable.
pub(crate) async fn serve(
    house: &Arc<House>,
    guest: Guest,
    changes: bool,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
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
fn ask(found: &Found<'_>, stage: &Stage) -> Result<Asked, Refusal> {
    Ok(match found.route.door {
        // Nobody who could enrol: refused in the passage like everybody unknown, with an event.
        Door::Enrolling if matches!(stage, Stage::Stranger | Stage::NeedsSecond { .. }) => Asked::Presence,
        Door::Public | Door::Stranger | Door::Provider | Door::Signed | Door::Enrolling => Asked::Nothing,
        Door::SignedIn | Door::Directory => Asked::Presence,
        Door::Own(..) | Door::Machine(_) => Asked::Operation(found.operation().ok_or(Refusal::NotFound)?, vec![]),
    })
}

/// What only a page of ours may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Change,
    Stream,
}

/// Whether a request that changes something, or opens a stream, comes from our own page. The allowed origin is the
/// configured one, never what `Host` says. Browsers send `Origin: null` on forms of pages with `no-referrer`: then
/// Fetch Metadata must vouch.
fn ours(house: &House, headers: &HeaderMap, asks: Asks) -> Result<(), Refusal> {
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
        None | Some("null") if asks == Asks::Change && site == Some("same-origin") => Ok(()),
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

/// A field that travels with every form (`csrf`, `step_up_code`), or as a header with scripts (`X-CSRF-Token`,
/// `X-Step-Up-Code`). The latter holds a code, or a passkey's answer to `/api/v1/passkeys/step-up` as JSON.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    // SEC-001
    #[test]
    fn what_is_served_is_what_policy_lists() {
        let served: Vec<_> = served().iter().map(|s| (s.method, s.pattern)).collect();
        let once: BTreeSet<_> = served.iter().copied().collect();
        assert_eq!(once.len(), served.len(), "a route is served twice");
        assert_eq!(once, own::ROUTES.iter().map(|r| (r.method, r.pattern)).collect());
    }
}
