// SPDX-License-Identifier: Apache-2.0
//! Tokens for tools: shown once, limited in time, to a hypervisor and to networks, listed and revocable.

use super::{
    Answer, Form,
    factors::{fresh, mine, mine_typed},
    go_with,
    rows::networks,
};
use crate::{
    guest::{Guest, Step},
    reply::{self, Refusal},
    state::House,
    view::{Problems, TokenDraft, Tone},
};
use axum::extract::State;
use portcullis_domain::{HypervisorName, Network, counted};
use portcullis_identity::{Error, Maker, TokenWish};
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
    #[serde(default)]
    networks: String,
    days: String,
}

/// A wish for a token as it was typed, or the field that it fails on and why.
pub(crate) struct Typed {
    pub(crate) name: String,
    pub(crate) hypervisor: Option<HypervisorName>,
    pub(crate) networks: Vec<Network>,
    pub(crate) days: i64,
}

impl Mint {
    /// What was typed, for the form that is shown again.
    pub(crate) fn draft(&self) -> TokenDraft {
        let Self { name, hypervisor, networks, days } = self;
        TokenDraft {
            name: name.clone(),
            hypervisor: hypervisor.clone(),
            networks: networks.clone(),
            days: days.trim().to_owned(),
        }
    }

    /// Reads what was typed.
    pub(crate) fn read(&self, house: &House) -> Result<Result<Typed, Problems>, Refusal> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
            return Ok(Err(Problems::one("token_name", "Give it a name of 1 to 64 letters.")));
        }
        let Some(days) = self.days.trim().parse::<i64>().ok().filter(|d| (1..=LONGEST).contains(d)) else {
            return Ok(Err(Problems::one("days", "Choose 1 to 365 days.")));
        };
        let networks = match networks(&self.networks) {
            Ok(networks) => networks,
            Err(why) => return Ok(Err(Problems::one("networks", format!("{why}.")))),
        };
        let hypervisor = match self.hypervisor.as_str() {
            "" => None,
            text => {
                let name: HypervisorName = text.parse().map_err(|_| Refusal::NotFound)?;
                Some(house.reachable().contains(&name).then_some(name).ok_or(Refusal::NotFound)?)
            }
        };
        Ok(Ok(Typed { name: name.to_owned(), hypervisor, networks, days }))
    }
}

/// What a token is limited to, for the trail.
pub(crate) fn limits(typed: &Typed) -> String {
    let on = typed.hypervisor.as_ref().map_or_else(|| "all hypervisors".to_owned(), ToString::to_string);
    let from: Vec<String> = typed.networks.iter().map(ToString::to_string).collect();
    let from = if from.is_empty() { "everywhere".to_owned() } else { from.join(" ") };
    format!("for {}, on {on}, from {from}", counted(typed.days, "day", "days"))
}

/// Makes a token. It can never do more than its owner can at that moment.
pub(crate) async fn mint(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Mint>) -> Answer {
    fresh(&house, &guest)?;
    let actor = guest.actor()?;
    let typed = match form.read(&house)? {
        Ok(typed) => typed,
        Err(problems) => return mine_typed(&house, &guest, None, form.draft(), problems).await,
    };
    let words = format!("a token was made, {}", limits(&typed));
    let wish = TokenWish {
        user: actor.user,
        name: &typed.name,
        hypervisor: typed.hypervisor,
        networks: typed.networks,
        expires_at: house.clock.now() + Duration::days(typed.days),
        by: Maker::Owner,
    };
    let minted = match house.identity.mint_token(wish).await {
        Ok((_, minted)) => minted,
        Err(error @ Error::Invalid(_)) => {
            let shown = house.shown(&error)?;
            return mine_typed(&house, &guest, None, form.draft(), Problems::one("networks", shown)).await;
        }
        Err(error) => return Err(reply::identity(&error, house.clock.now())),
    };
    guest.say(&Step::done(&typed.name, &words))?;
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
