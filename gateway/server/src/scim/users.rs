// SPDX-License-Identifier: Apache-2.0
//! The people of a directory: made, found, named, and taken out.

use super::{
    answer, made,
    shape::{self, Filter, MailWish, Wanted},
};
use crate::{
    guest::{Guest, Step},
    pages::Answer,
    reply::{self, Refusal},
    state::House,
};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use portcullis_domain::UserId;
use portcullis_governance::By;
use portcullis_identity::Error;
use portcullis_store::{AddressSource, Provisioned};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Most people on one page of a list.
const PAGE: usize = 200;

pub(crate) async fn service() -> Answer {
    Ok(answer(StatusCode::OK, &shape::service()))
}

pub(crate) async fn kinds() -> Answer {
    Ok(answer(StatusCode::OK, &shape::kinds()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(super) filter: Option<String>,
    start_index: Option<usize>,
    count: Option<usize>,
}

impl Asked {
    /// The page of a list that was asked for.
    pub(super) fn page(&self, found: &[Value]) -> Response {
        let (start, count) = (self.start_index.unwrap_or(1), self.count.unwrap_or(PAGE).min(PAGE));
        answer(StatusCode::OK, &shape::list(found, start, count))
    }
}

pub(crate) async fn list(State(house): State<Arc<House>>, Query(asked): Query<Asked>) -> Answer {
    let filter = asked.filter.as_deref().map(Filter::read).transpose()?;
    let all = house.identity.provisioned().await.map_err(|e| house.unavailable(&e))?;
    let found: Vec<_> = all
        .iter()
        .filter(|of| filter.as_ref().is_none_or(|f| f.passes(of)))
        .map(|of| shape::resource(&house, of))
        .collect();
    Ok(asked.page(&found))
}

async fn find(house: &House, id: &str) -> Result<Provisioned, Refusal> {
    let id: UserId = id.parse().map_err(|_| Refusal::NotFound)?;
    let all = house.identity.provisioned().await.map_err(|e| house.unavailable(&e))?;
    all.into_iter().find(|of| of.user.id == id).ok_or(Refusal::NotFound)
}

pub(crate) async fn show(State(house): State<Arc<House>>, Path(id): Path<String>) -> Answer {
    let of = find(&house, &id).await?;
    Ok(answer(StatusCode::OK, &shape::resource(&house, &of)))
}

/// Makes an account that nobody can sign in to yet, and that may do nothing.
pub(crate) async fn create(State(house): State<Arc<House>>, guest: Guest, body: Bytes) -> Answer {
    let wanted = Wanted::resource(&body)?;
    let name = wanted.user_name.as_deref().unwrap_or_default();
    guest.intend(&house, name, "an account is to be made for a directory").await?;
    let display = wanted.display.as_deref().unwrap_or_default();
    let id = house.identity.provision(name, display, wanted.external_id.as_deref()).await;
    let id = id.map_err(|e| reply::identity(&e, house.clock.now()))?;
    guest.say(&Step::done(name, "an account was made for a directory"))?;
    keep_address(&house, id, &wanted.mail).await?;
    if wanted.active == Some(false) {
        leave(&house, id).await?;
    }
    let of = find(&house, &id.to_string()).await?;
    Ok(made(&house, "Users", &id.to_string(), &shape::resource(&house, &of)))
}

/// Puts a whole resource in the place of another.
pub(crate) async fn replace(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let of = find(&house, &id).await?;
    let mut wanted = Wanted::resource(&body)?;
    // What a whole resource leaves out is taken away; whether somebody is there never is.
    wanted.external_id = Some(wanted.external_id.unwrap_or_default());
    if wanted.mail == MailWish::AsItIs {
        wanted.mail = MailWish::Nowhere;
    }
    change(&house, &guest, of, wanted).await
}

/// Changes parts of a resource.
pub(crate) async fn patch(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let of = find(&house, &id).await?;
    let wanted = Wanted::patch(&body)?;
    change(&house, &guest, of, wanted).await
}

async fn change(house: &House, guest: &Guest, of: Provisioned, wanted: Wanted) -> Answer {
    let name = of.user.name.clone();
    if wanted.user_name.as_ref().is_some_and(|n| n.to_lowercase() != name.to_lowercase()) {
        return Err(Refusal::Bad("userName cannot be changed: the trail knows people by it.".into()));
    }
    let is_active = of.user.disabled_at.is_none();
    let words = match wanted.active {
        Some(false) if is_active => "left, says the directory: everything of theirs ends",
        Some(true) if !is_active => "is back, says the directory",
        _ => "is described by the directory",
    };
    guest.intend(house, &name, words).await?;
    guest.say(&Step::done(&name, words))?;
    let failed = |e: Error| reply::identity(&e, house.clock.now());
    if wanted.display.is_some() || wanted.external_id.is_some() {
        let display = wanted.display.as_deref().unwrap_or(&of.user.display_name);
        let external = wanted.external_id.as_deref().or(of.external_id.as_deref());
        house.identity.describe_provisioned(&of, display, external).await.map_err(failed)?;
    }
    keep_address(house, of.user.id, &wanted.mail).await?;
    match wanted.active {
        Some(false) if is_active => leave(house, of.user.id).await?,
        Some(true) if !is_active => house.identity.take_back(&of).await.map_err(failed)?,
        _ => {}
    }
    let of = find(house, &of.user.id.to_string()).await?;
    Ok(answer(StatusCode::OK, &shape::resource(house, &of)))
}

/// Takes the directory's word for where mail reaches somebody.
async fn keep_address(house: &House, user: UserId, wish: &MailWish) -> Result<(), Refusal> {
    let address = match wish {
        MailWish::AsItIs => return Ok(()),
        MailWish::Nowhere => None,
        MailWish::At(address) => Some(address),
    };
    let kept = house.identity.set_address(user, address, AddressSource::Directory).await;
    kept.map(drop).map_err(|e| reply::identity(&e, house.clock.now()))
}

/// Takes somebody out, unless nobody could run the gateway afterwards.
async fn leave(house: &House, user: UserId) -> Result<(), Refusal> {
    close(house, user, house.identity.take_out(user)).await
}

async fn close(house: &House, user: UserId, deed: impl Future<Output = Result<(), Error>>) -> Result<(), Refusal> {
    let done = Box::pin(house.grants.change_account(&house.engine, By::Shell, user, deed)).await;
    done.map_err(reply::governance)?.map_err(|e| reply::identity(&e, house.clock.now()))
}

/// Takes somebody out whom the directory forgets. The account stays, closed: the trail names it.
pub(crate) async fn delete(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let of = find(&house, &id).await?;
    guest.intend(&house, &of.user.name, "is deleted by the directory: everything of theirs ends").await?;
    guest.say(&Step::done(&of.user.name, "deleted by the directory: the account is disabled"))?;
    close(&house, of.user.id, house.identity.let_go(of.user.id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
