// SPDX-License-Identifier: Apache-2.0
//! What stands beside inviting and disabling people: service accounts and their tokens, single sessions, locks,
//! trainings. Whatever takes something away needs no more than the right to cut people off.

use super::users::{Said, carry, change, find, listed, shown, shown_typed};
use crate::{
    guest::{Guest, Step},
    pages::{
        Answer, Form, go_with,
        tokens::{Mint, limits},
    },
    reply::{self, Refusal},
    state::House,
    view::{Problems, Tone},
};
use axum::extract::{Path, State};
use portcullis_domain::{MailAddress, SessionId, TokenId, counted};
use portcullis_identity::{Error, Maker, TokenWish};
use portcullis_store::AddressSource;
use serde::Deserialize;
use std::sync::Arc;
use time::{Date, Duration, Time, macros::format_description};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewService {
    name: String,
    #[serde(default)]
    display_name: String,
}

/// Makes a service account. It may do nothing until it is granted something.
pub(crate) async fn create_service(
    State(house): State<Arc<House>>,
    guest: Guest,
    Form(form): Form<NewService>,
) -> Answer {
    guest.intend(&house, &form.name, "a service account is to be made").await?;
    match house.identity.create_service(&form.name, &form.display_name).await {
        Ok(user) => {
            guest.say(&Step::done(&form.name, "a service account was made"))?;
            let words = "The service account is there. Give it a role and make a token for it.";
            go_with(&guest, &format!("/users/{user}"), Tone::Good, words).await
        }
        Err(error @ (Error::Conflict(_) | Error::Invalid(_))) => {
            let shown = house.shown(&error)?;
            listed(&house, &guest, None, ("", ""), Problems::one("service_name", shown)).await
        }
        Err(error) => Err(reply::identity(&error, house.clock.now())),
    }
}

/// Makes a token for a service account, by somebody who has as many rights as it.
pub(crate) async fn mint(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<Mint>,
) -> Answer {
    let user = find(&house, &id).await?;
    let typed = match form.read(&house)? {
        Ok(typed) => typed,
        Err(problems) => {
            return shown_typed(&house, &guest, &user, (None, None, problems), form.draft()).await;
        }
    };
    let words = format!("token {:?} {}", typed.name, limits(&typed));
    guest.intend(&house, &user.name, &format!("is to be given the {words}")).await?;
    let by = Maker::Administrator(guest.actor()?.user);
    let wish = TokenWish {
        user: user.id,
        name: &typed.name,
        hypervisor: typed.hypervisor,
        networks: typed.networks,
        expires_at: house.clock.now() + Duration::days(typed.days),
        by,
    };
    let (_, minted) = Box::pin(change(&house, &guest, &user, house.identity.mint_token(wish))).await?;
    guest.say(&Step::done(&user.name, &format!("was given the {words}")))?;
    let minted = minted.expose_text().map(str::to_owned);
    shown(&house, &guest, &user, (None, minted, Problems::none())).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    id: String,
}

/// Revokes a token of anybody; what it is doing now is cut.
pub(crate) async fn revoke(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<ById>,
) -> Answer {
    let user = find(&house, &id).await?;
    let token: TokenId = form.id.parse().map_err(|_| Refusal::NotFound)?;
    guest.intend(&house, &user.name, &format!("loses the token {token}")).await?;
    guest.say(&Step::done(&user.name, &format!("the token {token} was revoked by an administrator")))?;
    house.identity.revoke_token(user.id, token).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, &format!("/users/{id}"), Tone::Good, "The token no longer works.").await
}

/// Ends one browser of somebody.
pub(crate) async fn end_session(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<ById>,
) -> Answer {
    let user = find(&house, &id).await?;
    let session: SessionId = form.id.parse().map_err(|_| Refusal::NotFound)?;
    let theirs = house.identity.sessions_of(user.id).await.map_err(|e| house.unavailable(&e))?;
    theirs.iter().find(|s| s.session == session).ok_or(Refusal::NotFound)?;
    guest.intend(&house, &user.name, &format!("is to be signed out of the session {session}")).await?;
    guest.say(&Step::done(&user.name, &format!("signed out of the session {session} by an administrator")))?;
    let ended = house.identity.end_session(session, "signed out by an administrator").await;
    ended.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, &format!("/users/{id}"), Tone::Good, "That browser is signed out.").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hours: String,
}

/// Locks an account: everything of it stops at once, and nothing is lost.
pub(crate) async fn lock(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<Lock>,
) -> Answer {
    let user = find(&house, &id).await?;
    let reason: String = form.reason.chars().filter(|c| !c.is_control()).take(80).collect();
    let reason = if reason.trim().is_empty() { "no reason was given".to_owned() } else { reason.trim().to_owned() };
    let hours = match form.hours.trim() {
        "" => None,
        text => Some(
            text.parse::<i64>()
                .ok()
                .filter(|h| (1..=720).contains(h))
                .ok_or_else(|| Refusal::Bad("A lock lasts from 1 to 720 hours, or until somebody lifts it.".into()))?,
        ),
    };
    let until = hours.map(|h| house.clock.now() + Duration::hours(h));
    let lasts = hours.map_or_else(String::new, |h| format!(" for {}", counted(h, "hour", "hours")));
    let done = format!("locked{lasts}: {reason}");
    let said = Said { to_be: &format!("is to be {done}"), done: &done };
    let told = format!("{} is locked; what was open is being cut.", user.name);
    carry(&house, &guest, &user, said, house.identity.lock_user(user.id, &reason, until), told).await
}

/// Lifts a lock, also the one after too many wrong passwords or codes.
pub(crate) async fn unlock(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let user = find(&house, &id).await?;
    let said = Said { to_be: "is to be unlocked", done: "unlocked" };
    let told = format!("{} can sign in again.", user.name);
    carry(&house, &guest, &user, said, house.identity.unlock_user(user.id), told).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAddress {
    address: String,
}

/// Writes down where mail reaches somebody; an empty address takes that back. What an administrator wrote stays, whatever
/// a provider or a directory says.
pub(crate) async fn mail(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<NewAddress>,
) -> Answer {
    let user = find(&house, &id).await?;
    let address = match form.address.trim() {
        "" => None,
        text => match text.parse::<MailAddress>() {
            Ok(address) => Some(address),
            Err(error) => {
                return shown(&house, &guest, &user, (None, None, Problems::one("address", error.to_string()))).await;
            }
        },
    };
    // Not the address itself: the trail is for ever.
    let words =
        if address.is_some() { "an address for mail is written down" } else { "has no address for mail any more" };
    let deed = house.identity.set_address(user.id, address.as_ref(), AddressSource::Administrator);
    let told = if address.is_some() { "Mail goes there from now on." } else { "No mail goes to them from now on." };
    carry(&house, &guest, &user, Said { to_be: words, done: words }, deed, told.to_owned()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Training {
    until: String,
}

/// Notes that somebody did the training, and until which day it counts.
pub(crate) async fn training(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(form): Form<Training>,
) -> Answer {
    let user = find(&house, &id).await?;
    let actor = guest.actor()?;
    let read = Date::parse(form.until.trim(), format_description!("[year]-[month]-[day]"));
    let Ok(day) = read else {
        let problems = Problems::one("until", "Write the day as year-month-day, such as 2027-06-30.");
        return shown(&house, &guest, &user, (None, None, problems)).await;
    };
    if actor.user == user.id {
        let problems = Problems::one("until", "Nobody notes their own training: ask somebody else.");
        return shown(&house, &guest, &user, (None, None, problems)).await;
    }
    let words = format!("a training is noted that counts until {day}");
    guest.intend(&house, &user.name, &words).await?;
    let until = day.with_time(Time::MIDNIGHT).assume_utc();
    match house.identity.attest_training(user.id, until, Some(actor.user)).await {
        Ok(()) => {
            guest.say(&Step::done(&user.name, &words))?;
            go_with(&guest, &format!("/users/{id}"), Tone::Good, "The training is noted.").await
        }
        Err(error @ Error::Invalid(_)) => {
            let problems = Problems::one("until", house.shown(&error)?);
            shown(&house, &guest, &user, (None, None, problems)).await
        }
        Err(error) => Err(reply::identity(&error, house.clock.now())),
    }
}
