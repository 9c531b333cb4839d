// SPDX-License-Identifier: Apache-2.0
//! Passkeys: what the browser is asked, signing in with one alone, and adding one. As a second step and to confirm, a
//! passkey's answer stands in place of a code, at the doors that take codes.

use super::{
    Answer, Form, again, factors, go, go_with,
    login::{known, noted},
    page, safe_next,
};
use crate::{
    guest::{Guest, Step},
    reply,
    state::House,
    view::{Problems, RecoveryCodes, Shell, SignIn, Tone},
};
use axum::{extract::State, response::IntoResponse as _};
use http::{HeaderMap, HeaderValue, header};
use portcullis_domain::UserId;
use portcullis_identity::{Error, Stage};
use serde::Deserialize;
use std::sync::Arc;
use uuid::Uuid;

/// What the browser is asked, as JSON.
fn asked(house: &House, options: Result<String, Error>) -> Answer {
    let options = options.map_err(|e| reply::identity(&e, house.clock.now()))?;
    let mut answer = options.into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// To sign in: alone, or after a password.
pub(crate) async fn ask_to_sign_in(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    if matches!(guest.stage, Stage::Stranger) {
        house.pace_passkey(guest.peer)?;
    }
    asked(&house, house.identity.begin_passkey_sign_in(&guest.session).await)
}

/// To confirm that it is still them.
pub(crate) async fn ask_to_confirm(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    asked(&house, house.identity.begin_passkey_step_up(&guest.session).await)
}

/// To make a new one.
pub(crate) async fn ask_to_add(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    asked(&house, house.identity.begin_passkey(&guest.session).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInForm {
    passkey: String,
    next: Option<String>,
}

/// Signs in with a passkey and nothing else.
pub(crate) async fn sign_in(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<SignInForm>,
) -> Answer {
    let next = safe_next(form.next.as_deref(), "/").to_owned();
    match house.identity.sign_in_with_passkey(&guest.session, &form.passkey, guest.peer.ip).await {
        Ok(_) => {
            let stage = house.stage(&guest).await?;
            let name = house.name_of(&stage).await?;
            guest.say(&Step { user: known(&stage), ..Step::done(&name, "passkey accepted; signed in") })?;
            house.describe(&guest, &headers).await;
            go(&next)
        }
        Err(error) => {
            // Looked up whoever it is, so that it takes as long for somebody as for nobody.
            let user = error.noted().and_then(|r| r.user);
            let found = house.store.user(user.unwrap_or(UserId::new(Uuid::nil()))).await;
            let name = found.map_err(|e| house.unavailable(&e))?.map(|u| u.name).unwrap_or_default();
            guest.say(&Step { user: user.map(|u| (u, None)), ..Step::denied(&name, &noted(&error)) })?;
            let shown = match &error {
                Error::Refused(_) => "That passkey was not accepted. Try again, or use your name and password.".into(),
                other => house.shown(other)?,
            };
            again(&SignIn {
                shell: Shell::stranger(guest.csrf),
                name: String::new(),
                next,
                passkeys: house.identity.passkeys_off().is_none(),
                problems: Problems::one("passkey", shown),
            })
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddForm {
    passkey: String,
    name: String,
}

/// A new passkey; at sign-in it answers with the recovery codes, once.
pub(crate) async fn add(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<AddForm>,
) -> Answer {
    match house.identity.confirm_passkey(&guest.session, &form.passkey, &form.name, guest.peer.ip).await {
        Ok(codes) => {
            let after = house.stage(&guest).await?;
            let name = house.name_of(&after).await?;
            if codes.is_empty() {
                guest.say(&Step {
                    user: known(&after),
                    ..Step::done(&name, "a passkey was added; other browsers ended")
                })?;
                let words = "Your passkey is added. Your other browsers are signed out.";
                return go_with(&guest, "/me", Tone::Good, words).await;
            }
            let words = "a passkey was added; new recovery codes were made";
            guest.say(&Step { user: known(&after), ..Step::done(&name, words) })?;
            house.describe(&guest, &headers).await;
            let account = format!("{name} at {}", house.authority);
            page(&RecoveryCodes { shell: Shell::default(), codes: factors::plain(codes), account, next: "/".into() })
        }
        Err(Error::Expired) => {
            guest.say(&Step::denied("", &noted(&Error::Expired)))?;
            go("/sign-in")
        }
        Err(error) => {
            guest.say(&Step::denied("", &noted(&error)))?;
            let shown = match &error {
                Error::Refused(_) => "That passkey could not be added. Try again.".into(),
                other => house.shown(other)?,
            };
            let problems = Problems::one(if form.name.trim().is_empty() { "name" } else { "passkey" }, shown);
            factors::enrolling(&house, &guest, &headers, problems).await
        }
    }
}
