// SPDX-License-Identifier: Apache-2.0
//! Groups: those of the company's directory, which are shown, and those that are kept here.

use super::{
    grants::{person, row as grant_row},
    proposals::propose,
};
use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page},
    reply::{self, Refusal},
    state::House,
    view::{Choice, GroupPage, GroupRow, Groups, Problems, Tone, given},
};
use axum::extract::{Path, State};
use portcullis_domain::{Action, GroupId, Holder, OwnObject, Resource, UserId};
use portcullis_governance::{By, Change, Error, Membership};
use portcullis_store::{Group, GroupSource, Holding, User};
use serde::Deserialize;
use std::sync::Arc;

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, ("", ""), Problems::none()).await
}

async fn listed(house: &House, guest: &Guest, (name, words): (&str, &str), problems: Problems) -> Answer {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let holdings = house.store.grants().await.map_err(failed)?;
    let groups = house.store.all_groups().await.map_err(failed)?;
    let wrong = !problems.is_empty();
    let shown = Groups {
        shell: house.shell(guest).await,
        rows: groups.iter().map(|g| row(house, g, &holdings)).collect(),
        may_write: house.may(guest.actor()?, Action::Write, Resource::Own(OwnObject::Users)),
        name: name.to_owned(),
        words: words.to_owned(),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

fn row(house: &House, group: &Group, holdings: &[Holding]) -> GroupRow {
    let now = house.clock.now();
    let own = holdings.iter().filter(|h| h.holder == Holder::Group(group.id) && h.grant.is_active(now));
    GroupRow {
        id: group.id.to_string(),
        name: group.name.clone(),
        words: group.words.clone(),
        directory: group.source == GroupSource::Directory,
        members: group.members.len(),
        roles: own.map(|h| format!("{} on {}", given(&h.grant.role), h.grant.selector)).collect(),
    }
}

async fn find(house: &House, id: &str) -> Result<Group, Refusal> {
    let id: GroupId = id.parse().map_err(|_| Refusal::NotFound)?;
    house.store.group(id).await.map_err(|e| house.unavailable(&e))?.ok_or(Refusal::NotFound)
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    shown(&house, &guest, &find(&house, &id).await?, Problems::none()).await
}

async fn shown(house: &House, guest: &Guest, group: &Group, problems: Problems) -> Answer {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let actor = guest.actor()?;
    let holdings = house.store.grants().await.map_err(failed)?;
    let users = house.store.users().await.map_err(failed)?;
    let choice = |u: &User| Choice::new(u.id.to_string(), person(u));
    let wrong = !problems.is_empty();
    let local = group.source == GroupSource::Local;
    let shown = GroupPage {
        shell: house.shell(guest).await,
        group: row(house, group, &holdings),
        created: house.when(group.created_at),
        members: users.iter().filter(|u| group.members.contains(&u.id)).map(choice).collect(),
        others: users
            .iter()
            .filter(|u| u.disabled_at.is_none() && u.id != actor.user && !group.members.contains(&u.id))
            .map(choice)
            .collect(),
        grants: holdings
            .iter()
            .filter(|h| h.holder == Holder::Group(group.id))
            .map(|h| grant_row(house, h, &format!("group {}", group.name)))
            .collect(),
        may_write: local && house.may(actor, Action::Write, Resource::Own(OwnObject::Users)),
        may_grant: house.may(actor, Action::Write, Resource::Own(OwnObject::Policy)),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    name: String,
    #[serde(default)]
    words: String,
}

/// Makes a group: nobody is in it, and it holds nothing.
pub(crate) async fn create(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<NewGroup>) -> Answer {
    guest.intend(&house, &form.name, "a group is to be made").await?;
    match house.grants.make_group(&form.name, &form.words).await {
        Ok(id) => {
            guest.say(&Step::done(&form.name, &format!("the group was made (group {id})")))?;
            go_with(&guest, &format!("/groups/{id}"), Tone::Good, "The group was made. Nobody is in it yet.").await
        }
        Err(error @ (Error::BadName | Error::NameTaken)) => {
            let problems = Problems::one("name", error.to_string());
            listed(&house, &guest, (&form.name, &form.words), problems).await
        }
        Err(error) => Err(reply::governance(error)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    user: String,
}

/// Puts somebody into a group.
pub(crate) async fn add(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<Member>,
) -> Answer {
    change(&house, &guest, &id, &form.user, Membership::Join).await
}

/// Takes somebody out of a group; what that opened is cut within seconds.
pub(crate) async fn remove(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<Member>,
) -> Answer {
    change(&house, &guest, &id, &form.user, Membership::Leave).await
}

async fn change(house: &House, guest: &Guest, id: &str, user: &str, what: Membership) -> Answer {
    let group = find(house, id).await?;
    let Ok(user) = user.parse::<UserId>() else {
        return shown(house, guest, &group, Problems::one("user", "Choose a person.")).await;
    };
    let found = house.store.user(user).await.map_err(|e| house.unavailable(&e))?;
    let name = found.map(|u| u.name).unwrap_or_default();
    let (to_be, was) = match what {
        Membership::Join => ("is to be put into", "was put into"),
        Membership::Leave => ("is to be taken out of", "was taken out of"),
    };
    let words = format!("{name} {to_be} the group {}", group.name);
    let proposed = Change::Move(group.id, user, what);
    if let Some(waits) = propose(house, guest, &proposed, &words, "", &format!("/groups/{id}")).await? {
        return Ok(waits);
    }
    guest.intend(house, &name, &format!("{to_be} the group {}", group.name)).await?;
    let by = By::Person(guest.actor()?);
    match house.grants.change_member(&house.engine, by, group.id, user, what).await {
        Ok(_) => {
            guest.say(&Step::done(&name, &format!("{was} the group {}", group.name)))?;
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            go_with(guest, &format!("/groups/{id}"), Tone::Good, format!("{name} {was} {}.", group.name)).await
        }
        Err(error @ (Error::UnknownPerson | Error::NoChange)) => {
            shown(house, guest, &group, Problems::one("user", error.to_string())).await
        }
        Err(error) => Err(reply::governance(error)),
    }
}

/// Removes a group that holds no grant any more.
pub(crate) async fn delete(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let group = find(&house, &id).await?;
    guest.intend(&house, &group.name, "the group is to be removed").await?;
    house.grants.drop_group(group.id).await.map_err(reply::governance)?;
    guest.say(&Step::done(&group.name, "the group was removed"))?;
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    go_with(&guest, "/groups", Tone::Good, format!("The group {} was removed.", group.name)).await
}
