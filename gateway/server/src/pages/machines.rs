// SPDX-License-Identifier: Apache-2.0
//! My machines: search, state, favourites, power.

use super::{Answer, Form, go, go_with, page, safe_next};
use crate::{
    guest::{Guest, Step},
    passage::end,
    reply::{self, Refusal},
    shut::Asker,
    state::House,
    view::{ConsoleDoor, Flash, MachineRow, Machines, Notice, Power, Shut, Tone},
};
use axum::{
    Json,
    extract::{Query, State},
    response::IntoResponse as _,
};
use portcullis_domain::{Action, Actor, ConsoleKind, Machine, MachineRef, Outcome, PowerState, Resource};
use portcullis_store::Favourite as Keep;
use portcullis_upstream::{HealthState, PowerVerb};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

#[derive(Deserialize)]
pub(crate) struct Search {
    #[serde(default)]
    q: String,
}

/// `/`: the list, or the way in.
pub(crate) async fn home(State(house): State<Arc<House>>, guest: Guest, Query(search): Query<Search>) -> Answer {
    list(State(house), guest, Query(search)).await
}

/// The machines that this person may see.
pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest, Query(search): Query<Search>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let favourites = favourites(&house, &actor).await?;
    let query = search.q.trim().chars().take(100).collect::<String>();
    let words: Vec<String> = query.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let mut rows = rows(&house, &actor, &favourites);
    let total = rows.len();
    rows.retain(|r| {
        let text = r.words();
        words.iter().all(|w| text.contains(w.as_str()))
    });
    rows.sort_by(|a, b| b.favourite.cmp(&a.favourite).then_with(|| a.name.to_lowercase().cmp(&b.name.to_lowercase())));
    page(&Machines { shell: house.shell(&guest).await, query, rows, total, notices: notices(&house, &actor) })
}

fn rows(house: &House, actor: &Actor, favourites: &BTreeSet<MachineRef>) -> Vec<MachineRow> {
    let inventory = house.fleet.inventory();
    let asker = house.asker(actor);
    let seen = inventory.iter().filter(|m| house.may(actor, Action::View, Resource::Machine(m.at.clone())));
    seen.map(|machine| row(house, &asker, machine, favourites)).collect()
}

fn row(house: &House, asker: &Asker<'_>, machine: &Machine, favourites: &BTreeSet<MachineRef>) -> MachineRow {
    let (power, no_power) = power_verbs(house, asker, machine);
    MachineRow {
        hypervisor: machine.at.hypervisor.to_string(),
        id: machine.at.machine.to_string(),
        name: machine.name.clone(),
        kind: machine.kind,
        state: machine.state,
        pool: machine.pool.clone(),
        tags: machine.tags.clone(),
        node: machine.node.clone(),
        favourite: favourites.contains(&machine.at),
        console: console_door(asker, machine),
        power,
        no_power,
    }
}

/// Whether and how the console of a machine opens for somebody now.
pub(super) fn console_door(asker: &Asker<'_>, machine: &Machine) -> ConsoleDoor {
    match machine.console {
        ConsoleKind::Vnc => {}
        ConsoleKind::None => return ConsoleDoor::Closed("It has no screen that the gateway can open.".into()),
        ConsoleKind::Spice => {
            return ConsoleDoor::Closed("Its screen speaks SPICE, which the gateway does not open yet.".into());
        }
        ConsoleKind::Text => {
            return ConsoleDoor::Closed(
                "It has a text console: open it with the hypervisor's own tool through the gateway.".into(),
            );
        }
    }
    // Who may not open it is told that, whether it is on or not.
    let may = match asker.shut(machine, Action::ConsoleControl) {
        None => ConsoleDoor::Control,
        Some(_) => match asker.shut(machine, Action::ConsoleView) {
            None => ConsoleDoor::View,
            Some(shut) => return ConsoleDoor::Shut(Box::new(shut)),
        },
    };
    if matches!(machine.state, PowerState::Off | PowerState::Crashed) {
        return ConsoleDoor::Closed("It is off. Power it on first.".into());
    }
    may
}

/// What can be done with a machine's power now, or why this person may do none of it.
pub(super) fn power_verbs(house: &House, asker: &Asker<'_>, machine: &Machine) -> (Vec<Power>, Option<Shut>) {
    let can = |p: &Power| house.fleet.can(&machine.at.hypervisor, verb(*p));
    let verbs: Vec<Power> = Power::for_state(machine.state).into_iter().filter(can).collect();
    if verbs.is_empty() {
        return (verbs, None);
    }
    match asker.shut(machine, Action::Power) {
        None => (verbs, None),
        shut => (vec![], shut),
    }
}

/// Hypervisors that do not answer, for people who see machines of theirs or run them.
fn notices(house: &House, actor: &Actor) -> Vec<Notice> {
    let down = house.fleet.health().into_iter().filter_map(|health| match health.state {
        HealthState::Ok => None,
        HealthState::Down { why, .. } => Some((health.name, why)),
    });
    down.filter(|(name, _)| house.may(actor, Action::View, Resource::Hypervisor(name.clone())))
        .map(|(name, why)| {
            Flash::new(Tone::Warn, format!("{name} does not answer: {why}. What is shown of it may be old."))
        })
        .collect()
}

async fn favourites(house: &House, actor: &Actor) -> Result<BTreeSet<MachineRef>, Refusal> {
    let all = house.store.favourites(actor.user).await.map_err(|e| house.unavailable(&e))?;
    Ok(all.into_iter().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Favourite {
    machine: String,
    set: String,
    next: Option<String>,
}

/// Keeps a machine on top, or not.
pub(crate) async fn favourite(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Favourite>) -> Answer {
    let actor = guest.actor()?;
    let at: MachineRef = form.machine.parse().map_err(|_| Refusal::NotFound)?;
    if !house.may(actor, Action::View, Resource::Machine(at.clone())) {
        return Err(Refusal::NotFound);
    }
    let (keep, words) = match form.set.as_str() {
        "on" => (Keep::Yes, "kept among the favourites"),
        "off" => (Keep::No, "no longer among the favourites"),
        _ => return Err(Refusal::Bad("set is on or off.".into())),
    };
    guest.say(&Step::done(&form.machine, words))?;
    house.store.set_favourite(actor.user, &at, keep, house.clock.now()).await.map_err(|e| house.unavailable(&e))?;
    go(safe_next(form.next.as_deref(), "/"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PowerForm {
    verb: String,
    next: Option<String>,
}

const fn verb(power: Power) -> PowerVerb {
    match power {
        Power::Start => PowerVerb::Start,
        Power::Shutdown => PowerVerb::Shutdown,
        Power::Pause => PowerVerb::Pause,
        Power::Resume => PowerVerb::Resume,
        Power::Reset => PowerVerb::Reset,
        Power::Stop => PowerVerb::Stop,
    }
}

/// Starts, stops, resets: the hypervisor does it with its own credential; the event is durable before.
pub(crate) async fn power(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<PowerForm>) -> Answer {
    let Some(power) = Power::from_word(&form.verb) else {
        return Err(Refusal::Bad("Choose what to do with the machine's power.".into()));
    };
    let (permit, open) = guest.take().ok_or(Refusal::Unknown)?;
    let machine = permit.operation().resource.to_string();
    match house.fleet.power(&permit, verb(power)).await {
        Ok(()) => {
            end(open, Outcome::Done, power.label(), &[("verb", power.word())]);
            let text = format!("{}: {} was asked of the hypervisor.", machine, power.label());
            go_with(&guest, safe_next(form.next.as_deref(), "/"), Tone::Good, text).await
        }
        Err(error) => {
            let refusal = reply::upstream(&error);
            end(open, Outcome::Failed, &refusal.words().1, &[("verb", power.word())]);
            Err(refusal)
        }
    }
}

/// One machine for scripts and the palette.
#[derive(Serialize)]
struct Item {
    hypervisor: String,
    id: String,
    name: String,
    state: &'static str,
    tags: Vec<String>,
    pool: Option<String>,
    favourite: bool,
    console: Option<&'static str>,
    /// Why its screen does not open for this person, or not now.
    closed: Option<String>,
    /// What can be done with its power now.
    power: Vec<&'static str>,
}

/// The same list for scripts.
pub(crate) async fn json(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let favourites = favourites(&house, &actor).await?;
    let items: Vec<Item> = rows(&house, &actor, &favourites)
        .into_iter()
        .map(|r| Item {
            console: match &r.console {
                ConsoleDoor::Control => Some("control"),
                ConsoleDoor::View => Some("view"),
                ConsoleDoor::Closed(_) | ConsoleDoor::Shut(_) => None,
            },
            closed: match r.console {
                ConsoleDoor::Control | ConsoleDoor::View => None,
                ConsoleDoor::Closed(why) => Some(why),
                ConsoleDoor::Shut(shut) => Some(shut.why),
            },
            power: r.power.iter().map(|p| p.word()).collect(),
            hypervisor: r.hypervisor,
            id: r.id,
            name: r.name,
            state: r.state.word(),
            tags: r.tags,
            pool: r.pool,
            favourite: r.favourite,
        })
        .collect();
    Ok(Json(serde_json::json!({ "machines": items })).into_response())
}

/// The machine at an address, if this person may see it.
pub(super) fn find(house: &House, actor: &Actor, hypervisor: &str, machine: &str) -> Result<Machine, Refusal> {
    let at = MachineRef {
        hypervisor: hypervisor.parse().map_err(|_| Refusal::NotFound)?,
        machine: machine.parse().map_err(|_| Refusal::NotFound)?,
    };
    let inventory = house.fleet.inventory();
    let found = inventory.find(&at).filter(|_| house.may(actor, Action::View, Resource::Machine(at.clone())));
    found.cloned().ok_or(Refusal::NotFound)
}
