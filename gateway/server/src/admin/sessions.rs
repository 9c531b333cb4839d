// SPDX-License-Identifier: Apache-2.0
//! What runs now, and what is kept of it: live consoles and recordings.

use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, encode, go_with, page},
    recordings,
    reply::Refusal,
    state::House,
    view::{LiveConsoles, LiveRow, RecordingRow, Recordings, Tone, size, span},
};
use axum::extract::{Query, State};
use portcullis_domain::{Action, Ending, OwnObject, Resource};
use portcullis_store::RecordingFilter;
use serde::Deserialize;
use std::sync::Arc;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Recordings on one page.
const PAGE: u32 = 50;

/// Live consoles of this node.
pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let actor = guest.actor()?;
    let inventory = house.fleet.inventory();
    let rows = house
        .lives
        .list()
        .iter()
        .map(|live| LiveRow {
            id: live.id.to_string(),
            user: live.user_name.to_string(),
            place: house.config.place_of(live.place),
            hypervisor: live.machine.hypervisor.to_string(),
            machine: live.machine.machine.to_string(),
            machine_name: inventory
                .find(&live.machine)
                .map_or_else(|| live.machine.machine.to_string(), |m| m.name.clone()),
            mode: live.mode,
            started: house.when(live.started_at),
            ends: Some(house.when(live.ends_at)),
            recorded: live.recording.is_some(),
        })
        .collect();
    let may_end = house.may(actor, Action::Lock, Resource::Own(OwnObject::Sessions));
    page(&LiveConsoles { shell: house.shell(&guest).await, rows, may_end })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    id: Uuid,
    #[serde(default)]
    reason: String,
}

/// Ends a live console; the person reads why.
pub(crate) async fn end(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<End>) -> Answer {
    let actor = guest.actor()?;
    let reason: String = form.reason.chars().filter(|c| !c.is_control()).take(80).collect();
    let reason = if reason.trim().is_empty() { "no reason was given".to_owned() } else { reason };
    let live = house.lives.list().into_iter().find(|l| l.id == form.id).ok_or(Refusal::NotFound)?;
    let words = format!("the console of {} on {} is ended: {reason}", live.user_name, live.machine);
    guest.intend(&house, &live.user_name, &words).await?;
    guest.say(&Step::done(&live.user_name, &words))?;
    if house.lives.cut(form.id, Ending::Cut(format!("ended by {}: {reason}", actor.name))) {
        go_with(&guest, "/sessions", Tone::Good, "The console was ended.").await
    } else {
        Err(Refusal::NotFound)
    }
}

#[derive(Deserialize)]
pub(crate) struct Older {
    before: Option<String>,
}

/// What was recorded, newest first.
pub(crate) async fn list_recordings(
    State(house): State<Arc<House>>,
    guest: Guest,
    Query(older): Query<Older>,
) -> Answer {
    let before = match older.before.as_deref() {
        None => None,
        Some(text) => {
            let at = OffsetDateTime::parse(text, &Rfc3339)
                .map_err(|_| Refusal::Bad("before is a time like 2026-01-31T12:00:00Z.".into()))?;
            Some(at)
        }
    };
    let filter = RecordingFilter { before, ..RecordingFilter::default() };
    // Looked up before and after: one that begins or ends meanwhile is in one of them.
    let mut live = recordings::live(&house);
    let all = house.store.recordings(&filter, PAGE).await.map_err(|e| house.unavailable(&e))?;
    let older = (all.len() == PAGE as usize)
        .then(|| all.last().and_then(|r| r.started_at.format(&Rfc3339).ok()))
        .flatten()
        .map(|at| format!("/recordings?before={}", encode(&at)));
    live.extend(recordings::live(&house));
    let inventory = house.fleet.inventory();
    let rows = all
        .into_iter()
        .map(|r| RecordingRow {
            state: recordings::state_of(&house, &r, &live),
            id: r.id.to_string(),
            machine_name: inventory.find(&r.machine).map_or_else(|| r.machine.machine.to_string(), |m| m.name.clone()),
            machine: r.machine.to_string(),
            started: house.when(r.started_at),
            length: r.ended_at.map_or_else(|| "running".to_owned(), |end| span(end - r.started_at)),
            size: size(r.bytes),
            user: r.user_name,
        })
        .collect();
    page(&Recordings { shell: house.shell(&guest).await, rows, older })
}
