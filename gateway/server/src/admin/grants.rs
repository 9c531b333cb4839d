// SPDX-License-Identifier: Apache-2.0
//! Roles and grants: one sentence — who, may, on, until, with.

use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page, safe_next},
    reply::{self, Refusal},
    state::House,
    view::{Choice, GrantForm, GrantRow, GrantState, Grants, Problems, RoleCard, Roles, Tone},
};
use axum::extract::State;
use portcullis_domain::{
    Action, Conditions, GrantId, GrantSource, Inventory, Machine, OwnObject, ParseIdError, Resource, RoleName,
    Selector, UserId,
};
use portcullis_governance::{By, Error, NewGrant};
use portcullis_policy::{Kind, RoleInfo};
use portcullis_store::Holding;
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, GrantForm::default(), Problems::none()).await
}

async fn listed(house: &House, guest: &Guest, form: GrantForm, problems: Problems) -> Answer {
    let actor = guest.actor()?;
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let users = house.store.users().await.map_err(failed)?;
    let names = house.store.holder_names().await.map_err(failed)?;
    let holdings = house.store.grants().await.map_err(failed)?;
    let mut rows: Vec<_> = holdings
        .iter()
        .map(|h| row(house, h, names.get(&h.holder).map_or("somebody who was removed", String::as_str)))
        .collect();
    rows.sort_by_key(|r| (r.state != GrantState::Active, r.user.clone()));
    let inventory = house.fleet.inventory();
    let texts = |f: &dyn Fn(&Machine) -> Vec<String>| -> Vec<Choice> {
        let all: BTreeSet<String> = inventory.iter().flat_map(f).collect();
        all.into_iter().map(|t| Choice::new(t.clone(), t)).collect()
    };
    let wrong = !problems.is_empty();
    let shown = Grants {
        shell: house.shell(guest).await,
        rows,
        may_write: house.may(actor, Action::Write, Resource::Own(OwnObject::Policy)),
        users: users
            .iter()
            .filter(|u| u.disabled_at.is_none() && u.id != actor.user)
            .map(|u| {
                Choice::new(
                    u.id.to_string(),
                    if u.display_name == u.name { u.name.clone() } else { format!("{} ({})", u.display_name, u.name) },
                )
            })
            .collect(),
        roles: house.engine.roles().iter().map(|r| Choice::new(r.name.as_str(), r.name.as_str())).collect(),
        hypervisors: house
            .config
            .hypervisors
            .iter()
            .map(|h| Choice::new(h.name().as_str(), h.name().as_str()))
            .collect(),
        pools: texts(&|m| m.pool.iter().map(|p| format!("{}/{p}", m.at.hypervisor)).collect()),
        tags: texts(&|m| m.tags.clone()),
        machines: inventory.iter().map(|m| Choice::new(m.at.to_string(), m.name.clone())).collect(),
        form,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

/// One grant as pages show it.
pub(super) fn row(house: &House, held: &Holding, user: &str) -> GrantRow {
    let grant = &held.grant;
    let now = house.clock.now();
    let inventory = house.fleet.inventory();
    let window = grant.conditions.step_up_seconds;
    let every = match window {
        // No window is shorter than the time that it takes to get from the code to what it was asked for.
        0 => "fresh code of the last 15 seconds".to_owned(),
        s if s % 60 == 0 => format!("fresh code every {} minutes", s / 60),
        s => format!("fresh code every {s} seconds"),
    };
    let mut with = vec![every];
    if grant.conditions.record {
        with.push("consoles recorded".to_owned());
    }
    GrantRow {
        id: grant.id.to_string(),
        user_id: held.holder.person().map(|u| u.to_string()).unwrap_or_default(),
        user: user.to_owned(),
        role: grant.role.to_string(),
        on: grant.selector.to_string(),
        machines: covered(&inventory, &grant.selector),
        from: house.when(grant.from),
        until: grant.until.map(|u| house.when(u)),
        with,
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

/// How many machines a selector covers now, when it selects machines.
fn covered(inventory: &Inventory, selector: &Selector) -> Option<usize> {
    let count = |test: &dyn Fn(&Machine) -> bool| Some(inventory.iter().filter(|m| test(m)).count());
    match selector {
        Selector::Everything => Some(inventory.len()),
        Selector::Hypervisor(h) => count(&|m| m.at.hypervisor == *h),
        Selector::Pool(h, p) => count(&|m| m.at.hypervisor == *h && m.pool.as_deref() == Some(p.as_str())),
        Selector::Tag(t) => count(&|m| m.tags.contains(t)),
        Selector::Machine(at) => count(&|m| m.at == *at),
        Selector::Pattern(p) => count(&|m| p.matches(m)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Posted {
    user: String,
    role: String,
    on_kind: String,
    #[serde(default)]
    on_value: String,
    #[serde(default)]
    hours: String,
    step_up_seconds: String,
    record: Option<String>,
}

/// Reads the sentence; what is wrong stands beside its field.
fn read(form: &GrantForm) -> Result<NewGrant, Problems> {
    let mut problems = Problems::none();
    let user = form.user.parse::<UserId>().map_err(|_| problems.add("user", "Choose a person.")).ok();
    let role = form.role.parse::<RoleName>().map_err(|_| problems.add("role", "Choose a role.")).ok();
    let value = if form.on_kind == "everything" { "" } else { form.on_value.trim() };
    let words = |e: ParseIdError| match form.on_kind.as_str() {
        "pool" => "Write it as hypervisor/pool.".to_owned(),
        "machine" => "Write it as hypervisor/machine.".to_owned(),
        _ => format!("That cannot be chosen: {e}."),
    };
    let selector = Selector::parse(&form.on_kind, value).map_err(|e| problems.add("on_value", words(e))).ok();
    let hours = match form.hours.trim() {
        "" => Some(None),
        text => text.parse::<i64>().map(Some).map_err(|_| problems.add("hours", "Choose for how long.")).ok(),
    };
    let seconds = form.step_up_seconds.parse::<u32>();
    let seconds = seconds.map_err(|_| problems.add("step_up_seconds", "Choose how often a code is asked for.")).ok();
    match (user, role, selector, hours, seconds) {
        (Some(user), Some(role), Some(selector), Some(hours), Some(step_up_seconds)) => {
            let conditions = Conditions { step_up_seconds, record: form.record, ..Conditions::default() };
            Ok(NewGrant { user, role, selector, hours, conditions })
        }
        _ => Err(problems),
    }
}

/// Gives a role.
pub(crate) async fn add(State(house): State<Arc<House>>, guest: Guest, Form(posted): Form<Posted>) -> Answer {
    let Posted { user, role, on_kind, on_value, hours, step_up_seconds, record } = posted;
    let form = GrantForm { user, role, on_kind, on_value, hours, step_up_seconds, record: record.is_some() };
    let new = match read(&form) {
        Ok(new) => new,
        Err(problems) => return listed(&house, &guest, form, problems).await,
    };
    let whom = new.user;
    let name = house.store.user(whom).await.map_err(|e| house.unavailable(&e))?.map(|u| u.name).unwrap_or_default();
    let hours = new.hours.map_or_else(|| "until revoked".to_owned(), |h| format!("for {h} hours"));
    guest.intend(&house, &name, &format!("{} is to be given on {}, {hours}", new.role, new.selector)).await?;
    match house.grants.give(&house.engine, By::Person(guest.actor()?), new).await {
        Ok(grant) => {
            let until = grant.until.map_or_else(|| "until revoked".to_owned(), |u| format!("until {u}"));
            let words = format!("{} was given on {}, {until} (grant {})", grant.role, grant.selector, grant.id);
            guest.say(&Step::done(&name, &words))?;
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            go_with(
                &guest,
                "/grants",
                Tone::Good,
                format!("{name} now has the role {} on {}.", grant.role, grant.selector),
            )
            .await
        }
        Err(error) => {
            let field = match &error {
                Error::ToOneself | Error::UnknownPerson => "user",
                Error::UnknownRole(_) => "role",
                Error::BadTime => "hours",
                Error::BadWindow => "step_up_seconds",
                Error::UnknownGrant
                | Error::Kept(_)
                | Error::NoReason
                | Error::BadLock
                | Error::UnknownLock
                | Error::Store(_) => return Err(reply::governance(error)),
            };
            listed(&house, &guest, form, Problems::one(field, error.to_string())).await
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    grant: String,
    next: Option<String>,
}

/// Takes a grant back; what it opened is cut within seconds.
pub(crate) async fn revoke(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Revoke>) -> Answer {
    let id: GrantId = form.grant.parse().map_err(|_| Refusal::NotFound)?;
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
    let mut lines: Vec<(Kind, Vec<&str>)> = Vec::new();
    for (kind, action) in &role.rights {
        match lines.last_mut() {
            Some((last, actions)) if last == kind => actions.push(action.word()),
            _ => lines.push((*kind, vec![action.word()])),
        }
    }
    lines.into_iter().map(|(kind, actions)| format!("{kind}: {}", actions.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_makes_no_sense_says_where() {
        let form = GrantForm {
            user: "nobody".into(),
            role: "Über".into(),
            on_kind: "machine".into(),
            on_value: "web-1".into(),
            ..GrantForm::default()
        };
        let problems = read(&form).expect_err("wrong");
        for field in ["user", "role", "on_value"] {
            assert!(!problems.of(field).is_empty(), "{field}");
        }
        assert!(problems.of("hours").is_empty());
    }
}
