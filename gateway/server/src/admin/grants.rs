// SPDX-License-Identifier: Apache-2.0
//! Roles and grants: one sentence — who, may, on, until, with.

use super::{
    proposals::propose,
    sentence::{Posted, problem, read, whole, with, words},
};
use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page, safe_next},
    reply::{self, Refusal},
    state::House,
    view::{Choice, GrantForm, GrantRow, GrantState, Grants, Preview, Problems, RoleCard, Roles, Tone, given, verb},
};
use axum::extract::State;
use portcullis_domain::{
    Action, GrantEffect, GrantId, GrantSource, Holder, Inventory, OwnObject, Resource, RoleName, Selector,
};
use portcullis_governance::{By, Change};
use portcullis_policy::{Kind, RoleInfo};
use portcullis_store::{Group, Holding, User};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, GrantForm::default(), None, Problems::none()).await
}

/// The page, with the form as it was typed, and what it would do or what is wrong with it.
pub(super) async fn listed(
    house: &House,
    guest: &Guest,
    form: GrantForm,
    preview: Option<Preview>,
    problems: Problems,
) -> Answer {
    let actor = guest.actor()?;
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let users = house.store.users().await.map_err(failed)?;
    let groups = house.store.all_groups().await.map_err(failed)?;
    let names = house.store.holder_names().await.map_err(failed)?;
    let holdings = house.store.grants().await.map_err(failed)?;
    let mut rows: Vec<_> = holdings
        .iter()
        .map(|h| row(house, h, names.get(&h.holder).map_or("somebody who was removed", String::as_str)))
        .collect();
    rows.sort_by_key(|r| (r.state != GrantState::Active, r.user.clone()));
    let wrong = !problems.is_empty();
    let mine = |g: &&Group| !g.members.contains(&actor.user);
    let shown = Grants {
        shell: house.shell(guest).await,
        rows,
        may_write: house.may(actor, Action::Write, Resource::Own(OwnObject::Policy)),
        users: users
            .iter()
            .filter(|u| u.disabled_at.is_none() && u.id != actor.user)
            .map(|u| Choice::new(u.id.to_string(), person(u)))
            .collect(),
        groups: groups.iter().filter(mine).map(|g| Choice::new(format!("group:{}", g.id), g.name.clone())).collect(),
        roles: house.engine.roles().iter().map(|r| Choice::new(r.name.as_str(), r.name.as_str())).collect(),
        rights: rights(),
        things: things(house),
        form,
        preview,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

/// Every right that a grant can give by itself.
fn rights() -> Vec<Choice> {
    let choice = |(kind, action, name): (Kind, Action, RoleName)| {
        Choice::new(name.as_str(), format!("{kind}: {} ({action})", action.deed()))
    };
    portcullis_policy::single_rights().map(choice).collect()
}

/// A person in a list to choose from.
pub(super) fn person(user: &User) -> String {
    let User { name, display_name, .. } = user;
    if display_name == name { name.clone() } else { format!("{display_name} ({name})") }
}

/// What a grant can be for: a line of the list, and what it is.
fn things(house: &House) -> Vec<Choice> {
    let inventory = house.fleet.inventory();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for machine in inventory.iter() {
        let tags = machine.tags.iter().map(|t| format!("tag:{t}"));
        let pool = machine.pool.iter().map(|p| format!("pool:{}/{p}", machine.at.hypervisor));
        for thing in tags.chain(pool).chain([format!("hypervisor:{}", machine.at.hypervisor)]) {
            *counts.entry(thing).or_default() += 1;
        }
    }
    for name in &house.reachable() {
        counts.entry(format!("hypervisor:{name}")).or_default();
    }
    let several = counts.into_iter().map(|(thing, n)| {
        let plural = if n == 1 { "" } else { "s" };
        Choice::new(thing, format!("{n} machine{plural} now"))
    });
    let machines = inventory.iter().map(|m| Choice::new(format!("machine:{}", m.at), m.name.clone()));
    several.chain(machines).collect()
}

/// One grant as pages show it.
pub(super) fn row(house: &House, held: &Holding, user: &str) -> GrantRow {
    let grant = &held.grant;
    let now = house.clock.now();
    let inventory = house.fleet.inventory();
    GrantRow {
        id: grant.id.to_string(),
        href: match held.holder {
            Holder::Person(user) => format!("/users/{user}"),
            Holder::Group(group) => format!("/groups/{group}"),
        },
        user: user.to_owned(),
        verb: verb(&grant.role, grant.effect),
        role: given(&grant.role),
        on: grant.selector.to_string(),
        machines: Some(covered(&inventory, &grant.selector)),
        from: house.when(grant.from),
        until: grant.until.map(|u| house.when(u)),
        with: with(&grant.conditions),
        source: match grant.source {
            GrantSource::Administrator => "given by a person",
            GrantSource::Setup => "set-up",
            GrantSource::PolicyFile => "policy file",
            GrantSource::AccessRequest => "access request",
            GrantSource::IdentityProvider => "company directory",
        }
        .to_owned(),
        state: if grant.is_active(now) {
            GrantState::Active
        } else if now < grant.from {
            GrantState::Coming
        } else {
            GrantState::Ended
        },
        kept: match grant.source {
            GrantSource::PolicyFile => Some("It comes from a file: change the file.".to_owned()),
            GrantSource::IdentityProvider => Some("It follows from a group there: change the group.".to_owned()),
            GrantSource::Administrator | GrantSource::Setup | GrantSource::AccessRequest => None,
        },
    }
}

/// How many machines a selector covers now.
fn covered(inventory: &Inventory, selector: &Selector) -> usize {
    inventory.iter().filter(|m| selector.covers(m)).count()
}

/// Gives a role, or forbids it.
pub(crate) async fn add(State(house): State<Arc<House>>, guest: Guest, Form(posted): Form<Posted>) -> Answer {
    let form = GrantForm::from(posted);
    let sentence = match read(&form, &house.fleet.inventory(), house.clock.now()) {
        Ok(sentence) => sentence,
        Err(problems) => return listed(&house, &guest, form, None, problems).await,
    };
    let mut names = house.store.holder_names().await.map_err(|e| house.unavailable(&e))?;
    let name = names.remove(&sentence.holder).unwrap_or_default();
    let said = words(&house, &sentence);
    let (to_be, was) = match sentence.effect {
        GrantEffect::Allow => ("is to be given", "was given"),
        GrantEffect::Deny => ("is to be forbidden", "was forbidden"),
    };
    let why = if form.note.trim().is_empty() { String::new() } else { format!(": {}", form.note.trim()) };
    let sentence_words = whole(&house, &name, &sentence);
    let change = Change::Say(sentence.clone());
    match house.grants.check(&house.engine, By::Person(guest.actor()?), &sentence).await {
        Err(error) => {
            let problems = problem(error).map_err(reply::governance)?;
            guest.say(&Step::denied(&name, problems.first()))?;
            return listed(&house, &guest, form, None, problems).await;
        }
        Ok(_) => {
            if let Some(waits) = propose(&house, &guest, &change, &sentence_words, form.note.trim(), "/grants").await? {
                return Ok(waits);
            }
        }
    }
    guest.intend(&house, &name, &format!("{said}, {to_be}{why}")).await?;
    match house.grants.say(&house.engine, By::Person(guest.actor()?), &sentence).await {
        Ok(grants) => {
            let ids: Vec<String> = grants.iter().map(|g| g.id.to_string()).collect();
            guest.say(&Step::done(&name, &format!("{said}, {was}{why}")))?;
            guest.tell("grants", ids.join(" "));
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            let text = match sentence.effect {
                GrantEffect::Allow => format!("{name} now has the role {said}."),
                GrantEffect::Deny => format!("{name} is now forbidden {said}."),
            };
            go_with(&guest, "/grants", Tone::Good, text).await
        }
        Err(error) => {
            let problems = problem(error).map_err(reply::governance)?;
            guest.say(&Step::denied(&name, problems.first()))?;
            listed(&house, &guest, form, None, problems).await
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    grant: String,
    next: Option<String>,
}

/// Which grant is taken back, in words.
async fn revoking(house: &House, id: GrantId) -> Result<String, Refusal> {
    let holdings = house.store.grants().await.map_err(|e| house.unavailable(&e))?;
    let held = holdings.iter().find(|h| h.grant.id == id).ok_or(Refusal::NotFound)?;
    let names = house.store.holder_names().await.map_err(|e| house.unavailable(&e))?;
    let name = names.get(&held.holder).map_or("somebody", String::as_str);
    let said =
        format!("{} {} on {}", verb(&held.grant.role, held.grant.effect), given(&held.grant.role), held.grant.selector);
    Ok(format!("it is taken back that {name} {said} (grant {id})"))
}

/// Takes a grant back; what it opened is cut within seconds.
pub(crate) async fn revoke(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Revoke>) -> Answer {
    let id: GrantId = form.grant.parse().map_err(|_| Refusal::NotFound)?;
    let change = Change::Revoke(id);
    if let Some(waits) = propose(&house, &guest, &change, &revoking(&house, id).await?, "", "/grants").await? {
        return Ok(waits);
    }
    guest.intend(&house, &id.to_string(), "the grant is to be taken back").await?;
    let held = house.grants.revoke(&house.engine, By::Person(guest.actor()?), id).await.map_err(reply::governance)?;
    let mut names = house.store.holder_names().await.map_err(|e| house.unavailable(&e))?;
    let name = names.remove(&held.holder).unwrap_or_default();
    let words = format!("{} on {} was taken back (grant {id})", held.grant.role, held.grant.selector);
    guest.say(&Step::done(&name, &words))?;
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    let text = format!("{name} no longer has the role {} on {}.", held.grant.role, held.grant.selector);
    go_with(&guest, safe_next(form.next.as_deref(), "/grants"), Tone::Good, text).await
}

/// Every role in words, and the policy as the program prints it.
pub(crate) async fn roles(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let holdings = house.store.grants().await.map_err(|e| house.unavailable(&e))?;
    let now = house.clock.now();
    let holders = |role: &RoleName| -> usize {
        let people: BTreeSet<_> =
            holdings.iter().filter(|h| h.grant.role == *role && h.grant.is_active(now)).map(|h| h.holder).collect();
        people.len()
    };
    let roles = house.engine.roles();
    let cards = roles.iter().map(|role| RoleCard {
        name: role.name.to_string(),
        words: role.words.clone(),
        may: may(role),
        must_not: vec![],
        holders: holders(&role.name),
    });
    page(&Roles { shell: house.shell(&guest).await, roles: cards.collect(), matrix: house.engine.matrix() })
}

/// What a role allows, one line a kind of thing.
fn may(role: &RoleInfo) -> Vec<String> {
    let mut lines: Vec<(Kind, Vec<Action>)> = Vec::new();
    for (kind, action) in &role.rights {
        match lines.last_mut() {
            Some((last, actions)) if last == kind => actions.push(*action),
            _ => lines.push((*kind, vec![*action])),
        }
    }
    lines.into_iter().map(|(kind, actions)| format!("{kind}: {}", Action::deeds(&actions))).collect()
}
