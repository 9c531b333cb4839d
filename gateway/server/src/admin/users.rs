// SPDX-License-Identifier: Apache-2.0
//! People: invite, disable, enable, reset. An administrator can reset a way to sign in but never choose one.

use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page},
    reply::{self, Refusal},
    start::invitation_link,
    state::House,
    view::{Choice, OneTimeLink, PersonPage, Problems, TokenDraft, Tone, UserRow, UserState, Users, given},
};
use axum::extract::{Path, State};
use portcullis_domain::{Action, OwnObject, Resource, Secret, UserId};
use portcullis_governance::By;
use portcullis_identity::{Error, FactorLine};
use portcullis_store::{Holding, User, UserKind};
use serde::Deserialize;
use std::sync::Arc;

/// How long an invitation counts (the identity room's own number, for the words beside the link).
const INVITATION: time::Duration = time::Duration::minutes(15);

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, None, ("", ""), Problems::none()).await
}

pub(super) async fn listed(
    house: &House,
    guest: &Guest,
    link: Option<OneTimeLink>,
    typed: (&str, &str),
    problems: Problems,
) -> Answer {
    let actor = guest.actor()?;
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let holdings = house.store.grants().await.map_err(failed)?;
    let mut rows = Vec::new();
    for user in house.store.users().await.map_err(failed)? {
        rows.push(row(house, &user, &holdings).await?);
    }
    let wrong = !problems.is_empty();
    let shown = Users {
        shell: house.shell(guest).await,
        rows,
        may_write: house.may(actor, Action::Write, Resource::Own(OwnObject::Users)),
        link,
        name: typed.0.to_owned(),
        display_name: typed.1.to_owned(),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

async fn row(house: &House, user: &User, holdings: &[Holding]) -> Result<UserRow, Refusal> {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let now = house.clock.now();
    let has_factor = !house.identity.factors(user.id).await.map_err(|e| house.unavailable(&e))?.is_empty();
    let sessions = house.store.sessions_of(user.id, now).await.map_err(failed)?;
    let known = user.password_hash.is_some() || house.store.provider_of(user.id).await.map_err(failed)?.is_some();
    let state = match (user.disabled_at, known, has_factor) {
        (Some(_), _, _) => UserState::Disabled,
        _ if user.locked.is_some() => UserState::Locked,
        _ if user.kind == UserKind::Service => UserState::Service,
        _ if user.kind == UserKind::BreakGlass => UserState::Emergency,
        (None, false, _) => UserState::Invited,
        (None, true, false) => UserState::NoFactor,
        (None, true, true) => UserState::Active,
    };
    let mine = holdings.iter().filter(|h| h.holder == user.id.into() && h.grant.is_active(now));
    Ok(UserRow {
        id: user.id.to_string(),
        name: user.name.clone(),
        display_name: user.display_name.clone(),
        state,
        roles: mine.map(|h| format!("{} on {}", given(&h.grant.role), h.grant.selector)).collect(),
        seen: sessions.iter().map(|s| s.seen_at).max().map(|at| house.when(at)),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPerson {
    name: String,
    #[serde(default)]
    display_name: String,
}

/// Invites somebody: an account without a password, and a link that works once.
pub(crate) async fn create(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<NewPerson>) -> Answer {
    guest.intend(&house, &form.name, "an account is to be made and a one-time link given").await?;
    match house.identity.create_user(&form.name, &form.display_name).await {
        Ok(user) => {
            let link = link(&house, user, &form.name).await?;
            guest.say(&Step::done(&form.name, "an account was made and a one-time link given"))?;
            listed(&house, &guest, Some(link), ("", ""), Problems::none()).await
        }
        Err(error @ (Error::Conflict(_) | Error::Invalid(_))) => {
            let shown = house.shown(&error)?;
            listed(&house, &guest, None, (&form.name, &form.display_name), Problems::one("name", shown)).await
        }
        Err(error) => Err(reply::identity(&error, house.clock.now())),
    }
}

async fn link(house: &House, user: UserId, who: &str) -> Result<OneTimeLink, Refusal> {
    let token: Secret = house.identity.invite(user).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    Ok(one_time(house, &token, who))
}

fn one_time(house: &House, token: &Secret, who: &str) -> OneTimeLink {
    let expires = house.clock.now() + INVITATION;
    OneTimeLink { url: invitation_link(&house.config, token), who: who.to_owned(), expires: house.when(expires) }
}

pub(super) async fn find(house: &House, id: &str) -> Result<User, Refusal> {
    let id: UserId = id.parse().map_err(|_| Refusal::NotFound)?;
    house.store.user(id).await.map_err(|e| house.unavailable(&e))?.ok_or(Refusal::NotFound)
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let user = find(&house, &id).await?;
    shown(&house, &guest, &user, (None, None, Problems::none())).await
}

/// The page of somebody, with what was made just now (a link, a token) or what went wrong.
pub(super) async fn shown(
    house: &House,
    guest: &Guest,
    user: &User,
    news: (Option<OneTimeLink>, Option<String>, Problems),
) -> Answer {
    shown_typed(house, guest, user, news, TokenDraft::default()).await
}

/// The same with what was typed for a token that was not made.
pub(super) async fn shown_typed(
    house: &House,
    guest: &Guest,
    user: &User,
    (link, minted, problems): (Option<OneTimeLink>, Option<String>, Problems),
    typed: TokenDraft,
) -> Answer {
    let actor = guest.actor()?;
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let holdings = house.store.grants().await.map_err(failed)?;
    let factors = house.identity.factors(user.id).await.map_err(|e| house.unavailable(&e))?;
    let mail = house.identity.address_of(user.id).await.map_err(|e| house.unavailable(&e))?;
    let training = house.identity.training_of(user.id).await.map_err(|e| house.unavailable(&e))?;
    let now = house.clock.now();
    let wrong = !problems.is_empty();
    let mine = holdings.iter().filter(|h| h.holder == user.id.into());
    let grants = mine.map(|h| super::grants::row(house, h, &user.name)).collect();
    let provider = house.store.provider_of(user.id).await.map_err(failed)?.map(|p| {
        let titles = house.identity.providers();
        let title = titles.iter().find(|(name, _)| *name == p.provider).map_or(p.provider.as_str(), |(_, title)| title);
        (title.to_owned(), p.subject.clone(), house.when(p.seen_at))
    });
    let shown = PersonPage {
        shell: house.shell(guest).await,
        user: row(house, user, &holdings).await?,
        created: house.when(user.created_at),
        provider,
        factors: factors.iter().map(FactorLine::words).collect(),
        sessions: house.session_rows(user.id, None).await?,
        tokens: house.token_rows(user.id).await?,
        service: user.kind == UserKind::Service,
        person: user.kind == UserKind::Person,
        locked: user.locked.as_ref().map(|l| (house.when(l.at), l.why.clone(), l.until.map(|u| house.when(u)))),
        training: training.map(|t| (house.when(t.until), now < t.until)),
        asks_training: house.config.consoles.training,
        sends_mail: house.config.mail.is_some(),
        mail: mail.map(|m| (m.address.to_string(), m.by.words())),
        minted,
        hypervisors: house.reachable().iter().map(|h| Choice::new(h.as_str(), h.as_str())).collect(),
        typed,
        grants,
        may_end: house.may(actor, Action::Lock, Resource::Own(OwnObject::Sessions)),
        may_lock: house.may(actor, Action::Lock, Resource::Own(OwnObject::Users)),
        may_write: house.may(actor, Action::Write, Resource::Own(OwnObject::Users)),
        may_grant: house.may(actor, Action::Write, Resource::Own(OwnObject::Policy)),
        kept: house.grants.objects(&house.engine, By::Person(actor), user.id).await.map_err(reply::governance)?,
        link,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

/// Does something to somebody's account, unless it is one's own, the last administrator's, or one with rights beyond
/// one's own: nobody becomes somebody stronger by resetting them.
pub(super) async fn change<T>(
    house: &House,
    guest: &Guest,
    user: &User,
    deed: impl Future<Output = Result<T, Error>>,
) -> Result<T, Refusal> {
    let done = Box::pin(house.grants.change_account(&house.engine, By::Person(guest.actor()?), user.id, deed)).await;
    done.map_err(reply::governance)?.map_err(|e| reply::identity(&e, house.clock.now()))
}

/// What is said of a step on an account: before it is taken, and after.
pub(super) struct Said<'a> {
    pub(super) to_be: &'a str,
    pub(super) done: &'a str,
}

/// The same, written down before it is done, and leading back to their page with words for whoever did it.
pub(super) async fn carry<T>(
    house: &House,
    guest: &Guest,
    user: &User,
    said: Said<'_>,
    deed: impl Future<Output = Result<T, Error>>,
    told: String,
) -> Answer {
    guest.intend(house, &user.name, said.to_be).await?;
    guest.say(&Step::done(&user.name, said.done))?;
    Box::pin(change(house, guest, user, deed)).await?;
    go_with(guest, &format!("/users/{}", user.id), Tone::Good, told).await
}

/// Disables somebody: sessions, tokens and consoles end within seconds.
pub(crate) async fn disable(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let user = find(&house, &id).await?;
    let said = Said { to_be: "is to be disabled", done: "disabled" };
    let told = format!("{} can no longer sign in; what was open is being cut.", user.name);
    carry(&house, &guest, &user, said, house.identity.disable_user(user.id), told).await
}

pub(crate) async fn enable(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let user = find(&house, &id).await?;
    let said = Said { to_be: "is to be enabled", done: "enabled" };
    let told = format!("{} can sign in again.", user.name);
    carry(&house, &guest, &user, said, house.identity.enable_user(user.id), told).await
}

/// Takes password and factors away and gives a new one-time link.
pub(crate) async fn reset(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    house.pace_reset(guest.actor()?)?;
    let user = find(&house, &id).await?;
    guest.intend(&house, &user.name, "password and factors are to be reset").await?;
    guest.say(&Step::done(&user.name, "password and factors reset; a one-time link was given"))?;
    let token = Box::pin(change(&house, &guest, &user, house.identity.reset(user.id))).await?;
    let link = one_time(&house, &token, &user.name);
    let user = find(&house, &id).await?;
    shown(&house, &guest, &user, (Some(link), None, Problems::none())).await
}

/// Ends every browser of somebody.
pub(crate) async fn sign_out(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let user = find(&house, &id).await?;
    guest.intend(&house, &user.name, "is to be signed out everywhere").await?;
    guest.say(&Step::done(&user.name, "signed out everywhere by an administrator"))?;
    let why = "signed out by an administrator";
    house.store.end_sessions_of(user.id, None, house.clock.now(), why).await.map_err(|e| house.unavailable(&e))?;
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    go_with(&guest, &format!("/users/{id}"), Tone::Good, format!("{} is signed out everywhere.", user.name)).await
}
