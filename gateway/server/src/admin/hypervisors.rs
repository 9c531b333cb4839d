// SPDX-License-Identifier: Apache-2.0
//! The hypervisors in use and how they answer; the page of one, and removing one that was added; the same for scripts.

use super::adding::failed;
use crate::{
    adding::{prints, refused},
    guest::{Guest, Step},
    pages::{Answer, Form, go_with, page},
    reply::Refusal,
    roster::{Added, Agreed, Roll},
    state::House,
    view::{AddedFacts, CertificateRow, HypervisorPage, HypervisorRow, HypervisorState, Hypervisors, Tone, When},
};
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse as _,
};
use portcullis_domain::{Action, HypervisorName, OwnObject, Resource, counted};
use portcullis_store::Changed;
use portcullis_upstream::{Addable, Health, HealthState, Reach, Verify};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How many machines the page of one shows.
const SHOWN: usize = 20;

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let rows = {
        let roll = house.roster.load();
        let used = house.fleet.health().into_iter().map(|health| HypervisorRow {
            api: house.api_address(&health.name),
            trust: trust(&roll, &health.name),
            state: state(&house, &health),
            name: health.name.to_string(),
            kind: health.kind.to_owned(),
            address: health.address,
            machines: health.machines,
        });
        let unused = roll.troubled().filter(|a| !roll.has(&a.row.name)).map(|added| HypervisorRow {
            api: None,
            trust: "pinned certificate".to_owned(),
            state: HypervisorState::Down(added.trouble.clone().unwrap_or_default(), house.when(added.row.at)),
            name: added.row.name.to_string(),
            kind: added.row.kind.clone(),
            address: address_of(added),
            machines: 0,
        });
        used.chain(unused).collect()
    };
    let actor = guest.actor()?;
    let may_lock = house.may(actor, Action::Lock, Resource::Own(OwnObject::Sessions));
    let may_add = house.may(actor, Action::Write, Resource::Own(OwnObject::Hypervisors));
    page(&Hypervisors { shell: house.shell(&guest).await, rows, may_lock, may_add })
}

fn state(house: &House, health: &Health) -> HypervisorState {
    match &health.state {
        HealthState::Ok if health.notes.is_empty() => HypervisorState::Up,
        HealthState::Ok => HypervisorState::Warn(health.notes.join("; ")),
        HealthState::Down { why, since } => HypervisorState::Down(why.clone(), house.when(*since)),
    }
}

/// The same as one word, and why.
fn api_word(state: &HealthState) -> (&'static str, Option<&str>) {
    match state {
        HealthState::Ok => ("answers", None),
        HealthState::Down { why, .. } => ("down", Some(why)),
    }
}

/// Where one is that is not used.
fn address_of(added: &Added) -> String {
    added.agreed().into_iter().next().map(|a| a.address).unwrap_or_default()
}

/// Whose word is taken for it.
fn trust(roll: &Roll, name: &HypervisorName) -> String {
    let Some(hypervisor) = roll.config(name) else { return String::new() };
    let trust = hypervisor.trust();
    let words = match hypervisor.reach() {
        Reach::Guests => "each guest's own settings",
        Reach::Socket => "its unix socket",
        Reach::Network if trust.verify == Verify::None => "nobody: its certificate is not checked",
        Reach::Network if !trust.pin.is_empty() => "pinned certificate",
        Reach::Network if trust.ca_file.is_some() => "CA file",
        Reach::Network => "the system's authorities",
    };
    words.to_owned()
}

/// Certificates as a page shows them.
pub(super) fn certificates(house: &House, shown: &[Agreed]) -> Vec<CertificateRow> {
    let now = house.clock.now();
    let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).unwrap_or(now);
    let of = |a: &Agreed| {
        let (from, until) = (at(&a.from), at(&a.until));
        let odd = match (from > now, until <= now) {
            (true, _) => "it does not count yet",
            (_, true) => "it has ended",
            _ => "",
        };
        // In groups, so that it can be compared by eye.
        let groups: Vec<&str> = a.sha256.as_bytes().chunks(4).filter_map(|c| std::str::from_utf8(c).ok()).collect();
        CertificateRow {
            address: a.address.clone(),
            subject: a.subject.clone(),
            issuer: a.issuer.clone(),
            from: When::new(from, now),
            until: When::new(until, now),
            sha256: groups.join(" "),
            odd: odd.to_owned(),
        }
    };
    shown.iter().map(of).collect()
}

/// One of them.
pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(name): Path<String>) -> Answer {
    let name: HypervisorName = name.parse().map_err(|_| Refusal::NotFound)?;
    let actor = guest.actor()?;
    let (added, trust) = {
        let roll = house.roster.load();
        (roll.added(&name).cloned(), trust(&roll, &name))
    };
    // Another node may have added it a moment ago.
    let added = match added {
        Some(added) => Some(added),
        None => stored(&house, &name).await?,
    };
    let health = house.fleet.health().into_iter().find(|h| h.name == name);
    if health.is_none() && added.is_none() {
        return Err(Refusal::NotFound);
    }
    let inventory = house.fleet.inventory();
    let seen = house.engine.visible(actor, &inventory, house.clock.now());
    let first = seen.into_iter().filter(|m| m.at.hypervisor == name).take(SHOWN);
    let first = first.map(|m| (m.at.machine.to_string(), m.name.clone(), m.state.word())).collect();
    let state = match (&health, added.as_ref().and_then(|a| a.trouble.clone())) {
        (Some(health), _) => state(&house, health),
        (None, why) => HypervisorState::Down(
            why.unwrap_or_else(|| "it is taken into use just now; look again in a moment".to_owned()),
            house.when(added.as_ref().map_or_else(|| house.clock.now(), |a| a.row.at)),
        ),
    };
    let word = health.as_ref().map_or_else(|| added.as_ref().map_or("", |a| a.row.kind.as_str()), |h| h.kind);
    let kind = Addable::of(word).map_or_else(|_| word.to_owned(), |of| of.title.to_owned());
    // One that the file names too is the file's.
    let added = added.filter(|a| a.trouble.is_none() || health.is_none());
    let address = health.as_ref().map(|h| h.address.clone());
    let address = address.unwrap_or_else(|| added.as_ref().map(address_of).unwrap_or_default());
    page(&HypervisorPage {
        shell: house.shell(&guest).await,
        kind,
        address,
        state,
        machines: counted(health.as_ref().map_or(0, |h| h.machines), "machine", "machines"),
        first,
        trust: if trust.is_empty() { "pinned certificate".to_owned() } else { trust },
        api: house.api_address(&name),
        added: added.map(|added| {
            let found = added.found();
            AddedFacts {
                id: added.row.id.to_string(),
                at: house.when(added.row.at),
                by: added.row.by.clone(),
                shown: certificates(&house, &added.agreed()),
                who: found.who,
                beyond: found.beyond,
                untold: found.untold,
            }
        }),
        may_remove: house.may(actor, Action::Write, Resource::Own(OwnObject::Hypervisors)),
        name: name.to_string(),
    })
}

/// One that stands in the store and that this node has not taken into use yet.
pub(super) async fn stored(house: &House, name: &HypervisorName) -> Result<Option<Added>, Refusal> {
    let rows = house.store.added_hypervisors().await.map_err(|e| house.unavailable(&e))?;
    Ok(rows.into_iter().find(|row| row.name == *name).map(|row| Added { row: Arc::new(row), trouble: None }))
}

/// Which adding is meant.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Meant {
    id: Option<String>,
}

/// Removes one that was added; the one that somebody looked at, where that is said.
pub(crate) async fn remove(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(name): Path<String>,
    Form(meant): Form<Meant>,
) -> Answer {
    let name: HypervisorName = name.parse().map_err(|_| Refusal::NotFound)?;
    let about = format!("hypervisor {name}");
    if house.config.hypervisors.iter().any(|h| *h.name() == name) && house.roster.load().added(&name).is_none() {
        return Err(Refusal::Conflict(format!("{name} stands in the configuration file: take it out there.")));
    }
    let id = house.store.added_hypervisor_id(&name).await.map_err(|e| house.unavailable(&e))?;
    let id = id.ok_or(Refusal::NotFound)?;
    if meant.id.is_some_and(|said| said.trim().parse() != Ok(id)) {
        return Err(Refusal::Conflict("It was changed meanwhile: look at it again.".into()));
    }
    guest.intend(&house, &about, "is to be removed, with its credential").await?;
    guest.say(&Step::done(&about, "was removed, with its credential"))?;
    let done =
        house.store.remove_hypervisor(&name, Some(id), house.clock.now()).await.map_err(|e| house.unavailable(&e))?;
    if done != Changed::Done {
        let why = refused(&name, &done);
        failed(&guest, &about, &why)?;
        return Err(Refusal::Conflict(why));
    }
    house.roster.hurry();
    let words = format!("{name} is removed; what is open of it is being cut.");
    go_with(&guest, "/hypervisors", Tone::Good, words).await
}

/// One as scripts read it.
fn line(house: &House, name: &HypervisorName, health: &Health) -> serde_json::Value {
    let roll = house.roster.load();
    let added = roll.added(name).filter(|a| a.trouble.is_none());
    let (state, why) = api_word(&health.state);
    json!({
        "name": name.as_str(), "kind": health.kind, "address": health.address, "from": if added.is_some() { "store" } else { "file" },
        "state": state, "why": why, "machines": health.machines, "notes": health.notes, "trust": trust(&roll, name),
        "api": house.api_address(name), "id": added.map(|a| a.row.id.to_string()), "added_by": added.map(|a| a.row.by.clone()),
        "added_at": added.and_then(|a| a.row.at.format(&Rfc3339).ok()),
        "sha256": added.map(|a| prints(&a.agreed())),
    })
}

/// All of them, for scripts.
pub(crate) async fn list_json(State(house): State<Arc<House>>, _guest: Guest) -> Answer {
    let mut all: Vec<_> = house.fleet.health().iter().map(|h| line(&house, &h.name, h)).collect();
    let roll = house.roster.load();
    all.extend(roll.troubled().map(|a| {
        json!({
            "name": a.row.name.as_str(), "kind": a.row.kind, "address": "", "from": "store", "state": "not used",
            "why": a.trouble, "machines": 0, "notes": [], "trust": "", "api": null, "id": a.row.id.to_string(), "added_by": a.row.by,
            "added_at": a.row.at.format(&Rfc3339).ok(),
            "sha256": prints(&a.agreed()),
        })
    }));
    Ok(Json(json!({ "hypervisors": all })).into_response())
}

/// One of them, for scripts.
pub(crate) async fn show_json(State(house): State<Arc<House>>, _guest: Guest, Path(name): Path<String>) -> Answer {
    let found = house.fleet.health().into_iter().find(|h| h.name.as_str() == name).ok_or(Refusal::NotFound)?;
    Ok(Json(line(&house, &found.name, &found)).into_response())
}
