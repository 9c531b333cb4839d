// SPDX-License-Identifier: Apache-2.0
//! Signing in at an identity provider: out, back, and being told by it that somebody signed out there.

use super::{
    Answer, again,
    factors::intended,
    go,
    login::{known, next_step, noted},
    safe_next,
};
use crate::{
    guest::{Guest, Step},
    reply::{self, Refusal},
    state::House,
    view::{Problems, Shell, SignIn},
};
use axum::{
    extract::{Path, Query, RawForm, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use portcullis_identity::{Error, Returned, Stage};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
pub(crate) struct Whither {
    next: Option<String>,
    /// What somebody confirms, where that is not the page that it leads back to.
    #[serde(rename = "for")]
    what: Option<String>,
}

/// Sends a browser to a provider.
pub(crate) async fn begin(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(provider): Path<String>,
    Query(whither): Query<Whither>,
) -> Answer {
    let next = safe_next(whither.next.as_deref(), "/");
    let intent = intended(whither.what.as_deref(), next);
    match house.identity.begin_at_provider(&guest.session, &provider, next, intent, guest.peer.ip).await {
        Ok(address) => {
            let words = format!("sent to {provider} to sign in");
            guest.say(&Step { user: known(&guest.stage), ..Step::done("", &words) })?;
            go(&address)
        }
        Err(error) => refused(&house, &guest, error, next).await,
    }
}

/// What a provider adds to our address. More than this may be there, and is of no interest (RFC 6749 section 4.1.2).
#[derive(Deserialize)]
pub(crate) struct Back {
    #[serde(default)]
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Takes a browser back from a provider.
pub(crate) async fn finish(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Path(provider): Path<String>,
    Query(query): Query<Back>,
) -> Answer {
    let returned = Returned {
        state: &query.state,
        code: query.code.as_deref(),
        iss: query.iss.as_deref(),
        error: query.error.as_deref(),
        error_description: query.error_description.as_deref(),
    };
    match house.identity.finish_at_provider(&guest.session, &provider, &returned, guest.peer.ip).await {
        Ok(arrived) => {
            let stage = house.stage(&guest).await?;
            let name = house.name_of(&stage).await?;
            guest.say(&Step { user: known(&stage), ..Step::done(&name, &arrived.words) })?;
            house.describe(&guest, &headers).await;
            match stage {
                Stage::SignedIn { .. } => go(&arrived.back),
                stage => go(&next_step(Some(&stage), Some(&arrived.back))),
            }
        }
        Err(error) => refused(&house, &guest, error, "/").await,
    }
}

/// One event, and the page that it began on with what the person can do.
async fn refused(house: &House, guest: &Guest, error: Error, next: &str) -> Answer {
    let user = error.noted().and_then(|refusal| refusal.user);
    let name = match user {
        Some(user) => house.store.user(user).await.map_err(|e| house.unavailable(&e))?.map(|u| u.name),
        None => None,
    };
    let about = user.map(|user| (user, None));
    guest.say(&Step { user: about, ..Step::denied(&name.unwrap_or_default(), &noted(&error)) })?;
    let shown = house.shown(&error)?;
    if matches!(guest.stage, Stage::SignedIn { .. }) {
        return Err(Refusal::Bad(shown));
    }
    again(&SignIn {
        shell: Shell::stranger(guest.csrf.clone()),
        name: String::new(),
        next: next.to_owned(),
        providers: house.provider_doors(),
        passkeys: house.identity.passkeys_off().is_none(),
        problems: Problems::one("", shown),
    })
}

/// What a provider posts (OpenID Connect Back-Channel Logout 1.0 section 2.5).
#[derive(Deserialize)]
struct Logout {
    logout_token: String,
}

/// A provider says that somebody signed out there. It is known by its signature; whatever is wrong with that is status
/// 400 (section 2.8), and nobody is signed out.
pub(crate) async fn log_out(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(provider): Path<String>,
    RawForm(body): RawForm,
) -> Answer {
    let form: Logout = serde_urlencoded::from_bytes(&body)
        .map_err(|_| Refusal::Bad("A logout token is expected, as a form.".into()))?;
    match house.identity.log_out_by_provider(&provider, &form.logout_token).await {
        Ok(note) => {
            guest.say(&Step::done(&provider, &note.words))?;
            Ok(nothing())
        }
        Err(error) => {
            guest.say(&Step::denied(&provider, &noted(&error)))?;
            Err(reply::identity(&error, house.clock.now()))
        }
    }
}

fn nothing() -> Response {
    StatusCode::OK.into_response()
}
