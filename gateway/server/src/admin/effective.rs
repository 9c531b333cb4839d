// SPDX-License-Identifier: Apache-2.0
//! Effective access: all that a person may do, and all who may touch one thing, each with its last use. As a page and as
//! a table for other programs.

use super::{grants::person, preview::hypervisors};
use crate::{
    csv,
    guest::Guest,
    pages::{Answer, again, page},
    reply::Refusal,
    state::House,
    view::{Choice, Effective, Problems, ReachRow},
};
use axum::{
    Json,
    extract::{Query, State},
    response::IntoResponse,
};
use http::header;
use portcullis_domain::{Action, OwnObject, Resource, UserId};
use portcullis_governance::{Ground, Side};
use portcullis_store::{LastUse, User};
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use time::format_description::well_known::Rfc3339;

/// What is asked. One of `user` and `on`, or nothing yet.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    user: String,
    #[serde(default)]
    on: String,
    #[serde(default, rename = "as")]
    form: String,
}

/// What was found: about whom or what, and for each thing or person the actions with their last use.
struct Found {
    about: String,
    things: bool,
    rows: Vec<Reach>,
}

/// One thing, or one person: its words, the page about it, and what may be done.
type Reach = (String, String, Vec<(Action, Option<LastUse>)>);

/// Reads a thing as people write it.
fn thing(text: &str) -> Option<Resource> {
    if let Some(own) = OwnObject::ALL.iter().find(|o| o.word() == text) {
        return Some(Resource::Own(*own));
    }
    if text.contains('/') {
        text.parse().ok().map(Resource::Machine)
    } else {
        text.parse().ok().map(Resource::Hypervisor)
    }
}

/// What was asked for, or what is wrong with that.
async fn find(house: &House, asked: &Asked, users: &[User]) -> Result<Result<Option<Found>, Problems>, Refusal> {
    Ok(match (asked.user.trim(), asked.on.trim()) {
        ("", "") => Ok(None),
        (user, "") => match user.parse::<UserId>().ok().and_then(|id| users.iter().find(|u| u.id == id)) {
            Some(user) => Ok(Some(of_person(house, user).await?)),
            None => Err(Problems::one("user", "There is no such person.")),
        },
        ("", on) => {
            let words = "There is no such machine or hypervisor. A machine is written as HYPERVISOR/ID.";
            let thing = thing(on).filter(|thing| is_known(house, thing)).ok_or_else(|| Problems::one("on", words));
            match thing {
                Ok(thing) => Ok(Some(to_thing(house, &thing, users).await?)),
                Err(problems) => Err(problems),
            }
        }
        _ => Err(Problems::one("", "Choose a person or a thing, not both.")),
    })
}

/// The same for scripts.
pub(crate) async fn json(State(house): State<Arc<House>>, _guest: Guest, Query(asked): Query<Asked>) -> Answer {
    let users = house.store.users().await.map_err(|e| house.unavailable(&e))?;
    let found = match find(&house, &asked, &users).await? {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Refusal::Bad("Ask with user=ID, or with on=HYPERVISOR/MACHINE.".into())),
        Err(problems) => return Err(Refusal::Bad(problems.first().to_owned())),
    };
    let actions = |actions: &[(Action, Option<LastUse>)]| -> Vec<_> {
        let one = |(action, last): &(Action, Option<LastUse>)| json!({ "action": action.word(), "last": last.as_ref().and_then(|l| l.at.format(&Rfc3339).ok()) });
        actions.iter().map(one).collect()
    };
    let key = if found.things { "on" } else { "who" };
    let rows = found.rows.iter().map(|(what, _, may)| json!({ key: what, "may": actions(may) }));
    Ok(Json(json!({ "about": found.about, "access": rows.collect::<Vec<_>>() })).into_response())
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Query(asked): Query<Asked>) -> Answer {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let users = house.store.users().await.map_err(failed)?;
    let (found, problems) = match find(&house, &asked, &users).await? {
        Ok(found) => (found, Problems::none()),
        Err(problems) => (None, problems),
    };
    if let (Some(found), "csv") = (&found, asked.form.as_str()) {
        return Ok(file(found));
    }
    let key = if asked.user.is_empty() { ("on", &asked.on) } else { ("user", &asked.user) };
    let query = serde_urlencoded::to_string([key, ("as", &"csv".to_owned())]).unwrap_or_default();
    let wrong = !problems.is_empty();
    let inventory = house.fleet.inventory();
    let machines = inventory.iter().map(|m| Choice::new(m.at.to_string(), m.name.clone()));
    let hypervisors = hypervisors(&house).into_iter().map(|h| Choice::new(h.to_string(), "hypervisor"));
    let own = OwnObject::ALL.iter().map(|o| Choice::new(o.word(), "of the gateway itself"));
    let (about, things, rows) = found.map_or((None, true, vec![]), |f| (Some(f.about), f.things, f.rows));
    let shown = Effective {
        shell: house.shell(&guest).await,
        about,
        things,
        rows: rows
            .into_iter()
            .map(|(what, href, actions)| ReachRow {
                what,
                href,
                actions: actions
                    .into_iter()
                    .map(|(a, last)| (a.deed(), a.word(), last.map(|l| house.when(l.at))))
                    .collect(),
            })
            .collect(),
        file: format!("/access?{query}"),
        people: users.iter().map(|u| Choice::new(u.id.to_string(), person(u))).collect(),
        choices: hypervisors.chain(machines).chain(own).collect(),
        user: asked.user,
        on: asked.on,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

fn is_known(house: &House, thing: &Resource) -> bool {
    match thing {
        Resource::Own(_) => true,
        Resource::Hypervisor(h) => hypervisors(house).contains(h),
        Resource::Machine(at) => house.fleet.inventory().find(at).is_some(),
        Resource::Machines(..) => false,
    }
}

/// The last use of an action, where there was one.
fn last(uses: &[LastUse], action: Action, is_it: impl Fn(&LastUse) -> bool) -> Option<LastUse> {
    uses.iter().filter(|u| u.action == action && is_it(u)).max_by_key(|u| u.at).cloned()
}

async fn of_person(house: &House, user: &User) -> Result<Found, Refusal> {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let held = house.store.grants_by_person().await.map_err(failed)?;
    let uses = house.store.last_uses_of(user.id).await.map_err(failed)?;
    let (inventory, hypervisors) = (house.fleet.inventory(), hypervisors(house));
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now: house.clock.now() };
    // Whoever cannot sign in does nothing, whatever they hold.
    let access = if user.is_open() {
        portcullis_governance::access_of(Side { engine: &house.engine, held: &held }, user.id, ground)
    } else {
        vec![]
    };
    let rows = access.into_iter().map(|(thing, actions)| {
        let text = thing.to_string();
        let actions = actions.into_iter().map(|a| (a, last(&uses, a, |u| u.resource == text))).collect();
        let query = serde_urlencoded::to_string([("on", &text)]).unwrap_or_default();
        (text, format!("/access?{query}"), actions)
    });
    Ok(Found { about: person(user), things: true, rows: rows.collect() })
}

async fn to_thing(house: &House, thing: &Resource, users: &[User]) -> Result<Found, Refusal> {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let held = house.store.grants_by_person().await.map_err(failed)?;
    let uses = house.store.last_uses_on(&thing.to_string()).await.map_err(failed)?;
    let (inventory, hypervisors) = (house.fleet.inventory(), hypervisors(house));
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now: house.clock.now() };
    let access: BTreeMap<UserId, Vec<Action>> =
        portcullis_governance::access_to(Side { engine: &house.engine, held: &held }, thing, ground);
    let rows = users.iter().filter(|u| u.is_open()).filter_map(|user| {
        let actions = access.get(&user.id)?.iter().map(|a| (*a, last(&uses, *a, |u| u.user == user.id))).collect();
        Some((person(user), format!("/access?user={}", user.id), actions))
    });
    Ok(Found { about: thing.to_string(), things: false, rows: rows.collect() })
}

/// A line for each person, thing and action.
fn file(found: &Found) -> axum::response::Response {
    let mut text = csv::line(&["person", "thing", "action", "last used"]);
    for (what, _, actions) in &found.rows {
        let (person, thing) = if found.things { (&found.about, what) } else { (what, &found.about) };
        for (action, last) in actions {
            let at = last.as_ref().and_then(|l| l.at.format(&Rfc3339).ok()).unwrap_or_default();
            text.push_str(&csv::line(&[person, thing, action.word(), &at]));
        }
    }
    let kind = (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present");
    // A name of our own: nothing of what was asked for stands in it.
    let name = (header::CONTENT_DISPOSITION, "attachment; filename=\"access.csv\"");
    ([kind, name], text).into_response()
}
