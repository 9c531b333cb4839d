// SPDX-License-Identifier: Apache-2.0
//! The groups of a directory. A group gives what the configuration says for its name, and nothing where it says nothing;
//! whoever is taken out of it has lost that within seconds.

use super::{
    answer, made,
    shape::{self, GroupWish},
    users::Asked,
};
use crate::{
    config::DirectoryGroup as Mapping,
    guest::{Guest, Step},
    pages::Answer,
    reply::{self, Refusal},
    state::House,
};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    response::IntoResponse as _,
};
use http::StatusCode;
use portcullis_domain::{GroupId, UserId, counted};
use portcullis_governance::By;
use portcullis_store::{DirectoryGrant, DirectoryGroup};
use std::{collections::BTreeSet, sync::Arc};

async fn all(house: &House) -> Result<Vec<DirectoryGroup>, Refusal> {
    house.store.groups().await.map_err(|e| house.unavailable(&e))
}

async fn find(house: &House, id: &str) -> Result<DirectoryGroup, Refusal> {
    let id: GroupId = id.parse().map_err(|_| Refusal::NotFound)?;
    all(house).await?.into_iter().find(|g| g.id == id).ok_or(Refusal::NotFound)
}

pub(crate) async fn list(State(house): State<Arc<House>>, Query(asked): Query<Asked>) -> Answer {
    let wanted = asked.filter.as_deref().map(shape::group_filter).transpose()?;
    let groups = all(&house).await?;
    let found: Vec<_> = groups
        .iter()
        .filter(|g| wanted.as_ref().is_none_or(|name| g.name == *name))
        .map(|g| shape::group(&house, g))
        .collect();
    Ok(asked.page(&found))
}

pub(crate) async fn show(State(house): State<Arc<House>>, Path(id): Path<String>) -> Answer {
    let group = find(&house, &id).await?;
    Ok(answer(StatusCode::OK, &shape::group(&house, &group)))
}

pub(crate) async fn create(State(house): State<Arc<House>>, guest: Guest, body: Bytes) -> Answer {
    let wish = GroupWish::resource(&body)?;
    let id = GroupId::new(house.request_id().uuid());
    let group = DirectoryGroup {
        id,
        name: String::new(),
        external_id: None,
        created_at: house.clock.now(),
        members: BTreeSet::new(),
    };
    let group = put(&house, &guest, group, wish).await?;
    Ok(made(&house, "Groups", &id.to_string(), &shape::group(&house, &group)))
}

pub(crate) async fn replace(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let mut group = find(&house, &id).await?;
    group.members.clear();
    let group = put(&house, &guest, group, GroupWish::resource(&body)?).await?;
    Ok(answer(StatusCode::OK, &shape::group(&house, &group)))
}

pub(crate) async fn patch(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let group = find(&house, &id).await?;
    let group = put(&house, &guest, group, GroupWish::patch(&body)?).await?;
    Ok(answer(StatusCode::OK, &shape::group(&house, &group)))
}

pub(crate) async fn delete(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let group = find(&house, &id).await?;
    guest.intend(&house, &group.name, "the group is deleted by the directory").await?;
    guest.say(&Step::done(&group.name, "the group was deleted by the directory"))?;
    // What it gave is taken back while it is still known what that was.
    let nobody = DirectoryGroup { members: BTreeSet::new(), ..group };
    settle(&house, &nobody).await?;
    house.store.remove_group(nobody.id).await.map_err(|e| house.unavailable(&e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Writes a group down as it is wished, and settles what it gives.
async fn put(
    house: &House,
    guest: &Guest,
    mut group: DirectoryGroup,
    wish: GroupWish,
) -> Result<DirectoryGroup, Refusal> {
    if let Some(name) = wish.name {
        name.trim().clone_into(&mut group.name);
    }
    if !(1..=128).contains(&group.name.chars().count()) || group.name.chars().any(char::is_control) {
        return Err(Refusal::Bad("displayName is 1 to 128 characters on one line.".into()));
    }
    group.external_id = wish.external_id.or(group.external_id);
    let before = group.members.clone();
    for change in wish.members {
        change.make(&mut group.members)?;
    }
    let kept = house.identity.provisioned().await.map_err(|e| house.unavailable(&e))?;
    let kept: BTreeSet<UserId> = kept.into_iter().map(|of| of.user.id).collect();
    if !group.members.is_subset(&kept) {
        return Err(Refusal::Bad("A member is nobody whom this directory keeps.".into()));
    }
    apart(house, &mut group, &before).await?;
    let words = format!("the group has {}, says the directory", counted(group.members.len(), "member", "members"));
    guest.intend(house, &group.name, &words).await?;
    guest.say(&Step::done(&group.name, &words))?;
    let failed = |e: portcullis_store::Error| match e {
        portcullis_store::Error::Conflict(_) => Refusal::Conflict("There is a group with this name.".into()),
        other => house.unavailable(&other),
    };
    house.store.put_group(&group).await.map_err(failed)?;
    settle(house, &group).await?;
    Ok(group)
}

/// Leaves out whoever may not hold what the group itself holds beside what they hold: the later one is not given, and an
/// alarm says so.
async fn apart(house: &House, group: &mut DirectoryGroup, before: &BTreeSet<UserId>) -> Result<(), Refusal> {
    let new: Vec<UserId> = group.members.difference(before).copied().collect();
    for user in new {
        match house.grants.may_join(&house.engine, user, group.id).await {
            Ok(()) => {}
            Err(portcullis_governance::Error::Kept(why)) => {
                alarm(house, user, &format!("not taken into the group {}: {why}", group.name)).await?;
                group.members.remove(&user);
            }
            Err(error) => return Err(reply::governance(error)),
        }
    }
    Ok(())
}

/// One event that a security lead looks for.
async fn alarm(house: &House, user: UserId, words: &str) -> Result<(), Refusal> {
    let name = house.store.user(user).await.map_err(|e| house.unavailable(&e))?.map(|u| u.name).unwrap_or_default();
    tracing::warn!(%words, "roles are kept apart");
    if house.note_about("alarm", &name, words).await {
        return Ok(());
    }
    Err(Refusal::Unavailable("The audit trail cannot be written, so nothing is changed.".into()))
}

/// Gives what a group gives to those who are in it, and takes it back from those who are not. What was taken back by
/// hand is not given again.
async fn settle(house: &House, group: &DirectoryGroup) -> Result<(), Refusal> {
    let gives: Vec<&Mapping> = house.config.scim.groups.iter().filter(|m| m.name == group.name).collect();
    let given = house.store.group_grants().await.map_err(|e| house.unavailable(&e))?;
    let given: Vec<DirectoryGrant> = given.into_iter().filter(|g| g.group == group.id).collect();
    for old in &given {
        if !group.members.contains(&old.user) || !gives.iter().any(|m| m.words() == old.what) {
            match house.grants.revoke(&house.engine, By::Shell, old.grant).await {
                Ok(_) | Err(portcullis_governance::Error::UnknownGrant) => {}
                Err(error) => return Err(reply::governance(error)),
            }
            house.store.forget_group_grant(old.grant).await.map_err(|e| house.unavailable(&e))?;
        }
    }
    for user in &group.members {
        for mapping in &gives {
            if given.iter().any(|g| g.user == *user && g.what == mapping.words()) {
                continue;
            }
            let selector = mapping.selector().ok_or_else(|| Refusal::Unavailable("A group's line is wrong.".into()))?;
            let grant = house.grants.give_from_directory(&house.engine, *user, mapping.role.clone(), selector).await;
            let grant = match grant {
                Ok(grant) => grant.id,
                // Somebody who left gets nothing; they get it when they are back and the group is put again.
                Err(portcullis_governance::Error::UnknownPerson) => continue,
                Err(portcullis_governance::Error::Kept(why)) => {
                    alarm(house, *user, &format!("{} is not given by {}: {why}", mapping.role, group.name)).await?;
                    continue;
                }
                Err(error) => return Err(reply::governance(error)),
            };
            let note = DirectoryGrant { grant, group: group.id, user: *user, what: mapping.words() };
            house.store.note_group_grant(&note).await.map_err(|e| house.unavailable(&e))?;
        }
    }
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))
}
