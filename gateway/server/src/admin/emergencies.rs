// SPDX-License-Identifier: Apache-2.0
//! Sealed codes for emergencies: which there are, which were used, and the words that each use asks for.

use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page},
    reply::{self, Refusal},
    state::House,
    view::{Emergencies, EmergencyRow, Problems, Tone},
};
use axum::extract::State;
use portcullis_domain::{Action, OwnObject, Resource};
use portcullis_identity::Error;
use serde::Deserialize;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, ("", ""), Problems::none()).await
}

async fn listed(house: &House, guest: &Guest, typed: (&str, &str), problems: Problems) -> Answer {
    let actor = guest.actor()?;
    let codes = house.identity.break_glass_uses().await.map_err(|e| house.unavailable(&e))?;
    let ready = codes.iter().filter(|c| c.used.is_none() && c.revoked_at.is_none()).count();
    let rows = codes.into_iter().filter_map(|code| {
        let (at, from) = code.used?;
        Some(EmergencyRow {
            id: code.id.to_string(),
            number: code.number,
            used: house.when(at),
            place: house.config.place_of(from),
            review: code.review.map(|r| (r.who, r.why, r.by, house.when(r.at))),
        })
    });
    let wrong = !problems.is_empty();
    let shown = Emergencies {
        shell: house.shell(guest).await,
        rows: rows.collect(),
        ready,
        may_write: house.may(actor, Action::Write, Resource::Own(OwnObject::Users)),
        typed_who: typed.0.to_owned(),
        typed_why: typed.1.to_owned(),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Review {
    id: String,
    who: String,
    why: String,
}

/// Writes down who used a code and what for. Afterwards the notice on every page is gone.
pub(crate) async fn review(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Review>) -> Answer {
    let actor = guest.actor()?;
    let id: Uuid = form.id.parse().map_err(|_| Refusal::NotFound)?;
    guest.tell("code", id.to_string());
    match house.identity.review_break_glass(id, actor.user, &form.who, &form.why).await {
        Ok(()) => {
            let words = format!("the use of a sealed code was reviewed: {}: {}", form.who.trim(), form.why.trim());
            guest.say(&Step::done("", &words))?;
            go_with(&guest, "/break-glass/uses", Tone::Good, "What you wrote is kept.").await
        }
        Err(error @ Error::Invalid(_)) => {
            let shown = house.shown(&error)?;
            listed(&house, &guest, (&form.who, &form.why), Problems::one("", shown)).await
        }
        Err(error) => Err(reply::identity(&error, house.clock.now())),
    }
}
