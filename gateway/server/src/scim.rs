// SPDX-License-Identifier: Apache-2.0
//! SCIM 2.0 (RFC 7643, RFC 7644): a directory makes accounts, and a leaver is out when it says so.
//!
//! The directory presents a token of the service account that `[scim]` names, as `Authorization: Bearer`; cookies are
//! worth nothing here. It sees and changes the people whom it made, and nobody else. It sets no secret, and a group gives what the configuration
//! says for it, or nothing.

pub(crate) mod groups;
mod shape;
pub(crate) mod users;

use crate::{
    guest::Guest,
    layers::Peer,
    passage::{self, Asked, Caller, Trailed, Visit},
    reply::Refusal,
    router::serve,
    state::House,
};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, header};
use portcullis_identity::Stage;
use portcullis_policy::classify::own::OwnRoute;
use std::{sync::Arc, time::Duration};
use tower_sessions::Session;

/// The media type of RFC 7644 section 8.1.
pub(crate) const TYPE: &str = "application/scim+json";
/// Largest resource, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Leads a directory's request through the passage.
pub(crate) async fn enter(
    house: &Arc<House>,
    peer: Peer,
    session: &Session,
    route: &'static OwnRoute,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let account = house.config.scim.account.as_deref().ok_or(Refusal::NotFound)?;
    let (parts, body) = request.into_parts();
    let caller = caller(house, account, peer, &parts.headers)?;
    if let Caller::Known(actor) = &caller {
        house.pace_directory(actor, peer)?;
    }
    let read = axum::body::to_bytes(body, MAX_BODY);
    let body = match tokio::time::timeout(Duration::from_secs(10), read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(Refusal::TooLarge(MAX_BODY)),
        Err(_) => return Err(Refusal::Bad("The body did not arrive in time.".into())),
    };
    let visit = Visit { kind: route.kind, peer, asked: Asked::Presence, trailed: Trailed::Yes, at: house.clock.now() };
    let request = Request::from_parts(parts, Body::from(body));
    let caller = std::future::ready(Ok(caller));
    passage::walk(
        house,
        visit,
        caller,
        || std::future::ready(Ok(None)),
        |passed| {
            let guest = Guest::new(peer, session.clone(), Stage::Stranger, String::new(), passed);
            serve(house, guest, route.changes(), request, next)
        },
    )
    .await
}

/// The directory, if it is the one that presents a token of its account.
fn caller(house: &House, account: &str, peer: Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")),
        _ => None,
    };
    match token.and_then(|t| house.identity.token_actor(t, peer.ip)) {
        Some(actor) if *actor.name == *account && actor.scope.is_none() => Ok(Caller::Known(actor)),
        other => {
            if !house.strangers.check(peer.ip) {
                house.strangers.refused(peer.ip);
                return Err(Refusal::TooMany(5));
            }
            let elsewhere = token.and_then(|t| house.identity.token_elsewhere(t, peer.ip));
            Ok(match other.map(|a| (a, "the token is not the directory's")) {
                Some((actor, why)) => Caller::Barred(actor, why),
                None => elsewhere
                    .map_or(Caller::Stranger, |owner| Caller::Barred(owner, "the token is bound to other networks")),
            })
        }
    }
}

/// A refusal as RFC 7644 section 3.12 writes it.
pub(crate) fn refused(refusal: &Refusal, peer: Peer) -> Response {
    let (title, detail) = refusal.words();
    let status = refusal.status();
    let kind = match refusal {
        Refusal::Conflict(_) => Some("uniqueness"),
        Refusal::Bad(_) => Some("invalidValue"),
        _ => None,
    };
    let mut body = serde_json::json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": status.as_u16().to_string(), "detail": format!("{title}: {detail}"), "request": peer.request.to_string(),
    });
    if let (Some(kind), Some(fields)) = (kind, body.as_object_mut()) {
        fields.insert("scimType".into(), kind.into());
    }
    let mut answer = refusal.problem(peer.request).map(|_| Body::from(body.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TYPE));
    answer
}

/// A resource that was made, and where it is.
fn made(house: &House, kind: &str, id: &str, body: &serde_json::Value) -> Response {
    let mut made = answer(http::StatusCode::CREATED, body);
    if let Ok(place) = HeaderValue::from_str(&shape::location(house, kind, id)) {
        made.headers_mut().insert(header::LOCATION, place);
    }
    made
}

/// A resource as an answer.
fn answer(status: http::StatusCode, body: &serde_json::Value) -> Response {
    let mut answer = (status, Bytes::from(body.to_string())).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TYPE));
    answer
}
