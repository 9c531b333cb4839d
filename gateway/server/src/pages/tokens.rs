// SPDX-License-Identifier: Apache-2.0
//! Tokens for tools: shown once, limited in time and to a hypervisor, listed and revocable.

use super::{
    Answer, Form,
    factors::{fresh, mine},
    go_with,
};
use crate::{
    guest::{Guest, Step},
    reply::{self, Refusal},
    state::House,
    view::{Problems, Tone},
};
use axum::extract::State;
use portcullis_domain::HypervisorName;
use serde::Deserialize;
use std::sync::Arc;
use time::Duration;

/// Longest life of a token, in days.
const LONGEST: i64 = 365;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mint {
    name: String,
    #[serde(default)]
    hypervisor: String,
    days: String,
}

/// Makes a token. It can never do more than its owner can at that moment.
pub(crate) async fn mint(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Mint>) -> Answer {
    fresh(&house, &guest)?;
    let actor = guest.actor()?;
    let name = form.name.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return mine(&house, &guest, None, Problems::one("token_name", "Give it a name of 1 to 64 letters.")).await;
    }
    let Some(days) = form.days.trim().parse::<i64>().ok().filter(|d| (1..=LONGEST).contains(d)) else {
        return mine(&house, &guest, None, Problems::one("days", "Choose 1 to 365 days.")).await;
    };
    let hypervisor = match form.hypervisor.as_str() {
        "" => None,
        text => {
            let name: HypervisorName = text.parse().map_err(|_| Refusal::NotFound)?;
            Some(house.tables.contains_key(&name).then_some(name).ok_or(Refusal::NotFound)?)
        }
    };
    let until = house.clock.now() + Duration::days(days);
    let minted = house.identity.mint_token(actor.user, name, hypervisor, until).await;
    let (_, minted) = minted.map_err(|e| reply::identity(&e, house.clock.now()))?;
    guest.say(&Step::done(name, &format!("a token was made, for {days} days")))?;
    mine(&house, &guest, minted.expose_text().map(str::to_owned), Problems::none()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    id: String,
}

/// Revokes one of my tokens; what it is doing now is cut.
pub(crate) async fn revoke(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<ById>) -> Answer {
    let actor = guest.actor()?;
    let id = form.id.parse().map_err(|_| Refusal::NotFound)?;
    guest.say(&Step::done(&form.id, "revoked by its owner"))?;
    house.identity.revoke_token(actor.user, id).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, "/me", Tone::Good, "The token no longer works.").await
}
