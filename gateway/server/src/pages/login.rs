// SPDX-License-Identifier: Apache-2.0
//! From the front door to a session with two factors. Each step is one event; a refusal tells a stranger nothing.

use super::{Answer, Form, again, encode, go, page, safe_next};
use crate::{
    guest::{Guest, Step},
    reply::{self, Refusal},
    state::House,
    view::{Code, Problems, Recovery, SetUp, SetUpKind, Shell, SignIn, SignedOut},
};
use axum::extract::{Query, State};
use http::{HeaderMap, header};
use portcullis_domain::{Secret, SessionId, UserId};
use portcullis_identity::{Error, Proofs, Stage};
use serde::Deserialize;
use std::sync::Arc;

/// Where somebody must go next, by how far they have come.
pub(crate) fn next_step(stage: Option<&Stage>, back: Option<&str>) -> String {
    let next = back.filter(|b| *b != "/").map(|b| format!("?next={}", encode(b))).unwrap_or_default();
    match stage {
        Some(Stage::NeedsSecond { .. }) => format!("/sign-in/code{next}"),
        Some(Stage::MustEnrol { .. } | Stage::RecoveryOnly { .. }) => "/enrol".to_owned(),
        Some(Stage::SignedIn { .. } | Stage::Stranger) | None => format!("/sign-in{next}"),
    }
}

#[derive(Deserialize)]
pub(crate) struct Next {
    next: Option<String>,
}

pub(crate) async fn form(State(house): State<Arc<House>>, guest: Guest, Query(next): Query<Next>) -> Answer {
    match guest.stage {
        Stage::SignedIn { .. } => go(safe_next(next.next.as_deref(), "/")),
        Stage::MustEnrol { .. } | Stage::RecoveryOnly { .. } => go("/enrol"),
        Stage::Stranger | Stage::NeedsSecond { .. } => page(&SignIn {
            shell: Shell::stranger(guest.csrf),
            name: String::new(),
            next: safe_next(next.next.as_deref(), "/").to_owned(),
            providers: house.provider_doors(),
            passkeys: house.identity.passkeys_off().is_none(),
            problems: Problems::none(),
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    name: String,
    password: String,
    next: Option<String>,
}

/// Name and password.
pub(crate) async fn password(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Answer {
    let next = safe_next(form.next.as_deref(), "/").to_owned();
    let password = Secret::from(form.password);
    match house.identity.sign_in(&guest.session, &form.name, password, guest.peer.ip).await {
        Ok(_) => {
            let stage = house.stage(&guest).await?;
            // As the account has it, not as it was typed.
            let name = house.name_of(&stage).await?;
            guest.say(&Step { user: known(&stage), ..Step::done(&name, "password accepted") })?;
            house.describe(&guest, &headers).await;
            go(&next_step(Some(&stage), Some(&next)))
        }
        Err(error) => {
            let name = house.identity.name_for_trail(&form.name).await.map_err(|e| house.unavailable(&e))?;
            guest.say(&Step::denied(&name, &noted(&error)))?;
            let shown = house.shown(&error)?;
            again(&SignIn {
                shell: Shell::stranger(guest.csrf),
                name: form.name,
                next,
                providers: house.provider_doors(),
                passkeys: house.identity.passkeys_off().is_none(),
                problems: Problems::one("", shown),
            })
        }
    }
}

pub(crate) async fn code_form(State(house): State<Arc<House>>, guest: Guest, Query(next): Query<Next>) -> Answer {
    let Stage::NeedsSecond { .. } = guest.stage else { return go(&next_step(Some(&guest.stage), None)) };
    let name = house.name_of(&guest.stage).await?;
    page(&Code {
        shell: Shell::stranger(guest.csrf),
        name,
        next: safe_next(next.next.as_deref(), "/").to_owned(),
        proofs: house.proofs(&guest.stage).await?,
        problems: Problems::none(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeForm {
    code: String,
    next: Option<String>,
}

/// The authenticator app's code, or the answer of a passkey in its place.
pub(crate) async fn code(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<CodeForm>,
) -> Answer {
    let next = safe_next(form.next.as_deref(), "/").to_owned();
    match house.identity.second_factor(&guest.session, &form.code, guest.peer.ip).await {
        Ok(_) => {
            let stage = house.stage(&guest).await?;
            let name = house.name_of(&stage).await?;
            let words = format!("{} accepted; signed in", last_proof(&stage));
            guest.say(&Step { user: known(&stage), ..Step::done(&name, &words) })?;
            house.describe(&guest, &headers).await;
            go(&next)
        }
        Err(error) => {
            let name = house.name_of(&guest.stage).await?;
            guest.say(&Step { user: known(&guest.stage), ..Step::denied(&name, &noted(&error)) })?;
            if matches!(error, Error::Expired) {
                return go("/sign-in");
            }
            let problems = house.problem_of_proof(&error, &form.code)?;
            let proofs = house.proofs(&guest.stage).await?;
            again(&Code { shell: Shell::stranger(guest.csrf), name, next, proofs, problems })
        }
    }
}

pub(crate) async fn recovery_form(guest: Guest) -> Answer {
    let Stage::NeedsSecond { .. } = guest.stage else { return go(&next_step(Some(&guest.stage), None)) };
    page(&Recovery { shell: Shell::stranger(guest.csrf), problems: Problems::none() })
}

/// A recovery code: leads to adding a new authenticator app, nowhere else.
pub(crate) async fn recovery(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<CodeForm>) -> Answer {
    match house.identity.recover(&guest.session, &form.code, guest.peer.ip).await {
        Ok(_) => {
            let name = house.name_of(&guest.stage).await?;
            let words = "a recovery code was used; a new authenticator must be added";
            guest.say(&Step { user: known(&guest.stage), ..Step::done(&name, words) })?;
            go("/enrol")
        }
        Err(error) => {
            let name = house.name_of(&guest.stage).await?;
            guest.say(&Step { user: known(&guest.stage), ..Step::denied(&name, &noted(&error)) })?;
            let shown = house.shown(&error)?;
            again(&Recovery { shell: Shell::stranger(guest.csrf), problems: Problems::one("code", shown) })
        }
    }
}

/// Signs out; consoles of this session are cut by the keeper of live sessions.
pub(crate) async fn sign_out(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let name = house.name_of(&guest.stage).await?;
    guest.say(&Step { user: known(&guest.stage), ..Step::done(&name, "signed out") })?;
    let there = house.identity.sign_out_address(&guest.session).await.map_err(|e| house.unavailable(&e))?;
    house.identity.sign_out(&guest.session).await.map_err(|e| house.unavailable(&e))?;
    match there {
        Some((title, address)) => page(&SignedOut { shell: Shell::default(), title, address }),
        None => go("/sign-in"),
    }
}

pub(crate) async fn set_up_form(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    link_form(&house, &guest, SetUpKind::FirstAdministrator)
}

pub(crate) async fn invitation_form(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    link_form(&house, &guest, SetUpKind::Invited)
}

fn link_form(house: &House, guest: &Guest, kind: SetUpKind) -> Answer {
    page(&SetUp {
        shell: Shell::stranger(guest.csrf.clone()),
        kind,
        shortest: house.identity.settings().passwords.shortest,
        token: String::new(),
        name: String::new(),
        display_name: String::new(),
        problems: Problems::none(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redeem {
    token: String,
    password: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    display_name: String,
}

pub(crate) async fn set_up(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Redeem>) -> Answer {
    redeem(&house, &guest, form, SetUpKind::FirstAdministrator).await
}

pub(crate) async fn invitation(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Redeem>) -> Answer {
    redeem(&house, &guest, form, SetUpKind::Invited).await
}

/// What a one-time link opens: a password is set, then an authenticator app must be added.
async fn redeem(house: &Arc<House>, guest: &Guest, form: Redeem, kind: SetUpKind) -> Answer {
    let wish = portcullis_identity::Redeem {
        token: form.token.trim(),
        name: (kind == SetUpKind::FirstAdministrator).then_some(form.name.as_str()),
        display_name: &form.display_name,
        password: Secret::from(form.password),
    };
    match house.identity.redeem_invitation(&guest.session, wish, guest.peer.ip).await {
        Ok(_) => {
            let stage = house.stage(guest).await?;
            let name = house.name_of(&stage).await?;
            let words = "a one-time link was used and a password set";
            guest.say(&Step { user: known(&stage), ..Step::done(&name, words) })?;
            go(&next_step(Some(&stage), None))
        }
        Err(error) => {
            let name = match kind {
                SetUpKind::FirstAdministrator => {
                    house.identity.name_for_trail(&form.name).await.map_err(|e| house.unavailable(&e))?
                }
                // Whose link it is, the form does not say.
                SetUpKind::Invited => String::new(),
            };
            guest.say(&Step::denied(&name, &noted(&error)))?;
            let field = match &error {
                Error::Weak(_) => "password",
                Error::Conflict(_) | Error::Invalid(_) => "name",
                _ => "",
            };
            let shown = house.shown(&error)?;
            let Redeem { token, name, display_name, .. } = form;
            let shell = Shell::stranger(guest.csrf.clone());
            let shortest = house.identity.settings().passwords.shortest;
            again(&SetUp { shell, kind, shortest, token, name, display_name, problems: Problems::one(field, shown) })
        }
    }
}

/// Who a stage is about, for the trail.
pub(super) fn known(stage: &Stage) -> Option<(UserId, Option<SessionId>)> {
    match stage {
        Stage::SignedIn { user, session, .. } => Some((*user, Some(*session))),
        other => other.user().map(|user| (user, None)),
    }
}

/// The word for what somebody proved last.
fn last_proof(stage: &Stage) -> &'static str {
    match stage {
        Stage::SignedIn { assurance, .. } => assurance.proofs().last().map_or("nothing", |(factor, _)| factor.word()),
        _ => "nothing",
    }
}

/// The true reason of an error, for the trail.
pub(crate) fn noted(error: &Error) -> String {
    match (error, error.noted()) {
        (Error::ProviderDown { why, .. }, _) => format!("the provider cannot be asked: {why}"),
        (Error::NotVouched { flaw, changed, .. }, _) => format!("{flaw}{changed}"),
        (_, Some(refusal)) => refusal.noted.words().to_owned(),
        (_, None) => error.to_string(),
    }
}

impl House {
    /// What a person is shown of an identity error beside the form: words, or the refusal of the whole request.
    pub(crate) fn shown(&self, error: &Error) -> Result<String, Refusal> {
        match reply::identity(error, self.clock.now()) {
            Refusal::Bad(words) | Refusal::Forbidden(words) | Refusal::Conflict(words) => Ok(words),
            refusal @ Refusal::TooMany(_) => Ok(refusal.words().1),
            other => Err(other),
        }
    }

    /// What a person is shown whose code, or whose passkey in its place, was not accepted.
    pub(super) fn problem_of_proof(&self, error: &Error, sent: &str) -> Result<Problems, Refusal> {
        let passkey = sent.starts_with('{');
        let words = match error {
            Error::Refused(_) if passkey => "That passkey was not accepted. Try again.".to_owned(),
            other => self.shown(other)?,
        };
        Ok(Problems::one(if passkey { "passkey" } else { "code" }, words))
    }

    /// What the person behind a stage can prove themselves with.
    pub(super) async fn proofs(&self, stage: &Stage) -> Result<Proofs, Refusal> {
        let Some(user) = stage.user() else { return Ok(Proofs::default()) };
        self.identity.proofs_of(user).await.map_err(|e| self.unavailable(&e))
    }

    /// How far this browser has come after a step.
    pub(crate) async fn stage(&self, guest: &Guest) -> Result<Stage, Refusal> {
        self.identity.stage(&guest.session).await.map_err(|e| self.unavailable(&e))
    }

    /// The name behind a stage; empty for a stranger.
    pub(crate) async fn name_of(&self, stage: &Stage) -> Result<String, Refusal> {
        let Some(user) = stage.user() else { return Ok(String::new()) };
        let user = self.store.user(user).await.map_err(|e| self.unavailable(&e))?;
        Ok(user.map(|u| u.name).unwrap_or_default())
    }

    /// Notes what a browser calls itself, for the list of sessions. Not worth a failed sign-in.
    pub(super) async fn describe(&self, guest: &Guest, headers: &HeaderMap) {
        let Ok(Stage::SignedIn { session, .. }) = self.identity.stage(&guest.session).await else { return };
        let agent: String = headers
            .get(header::USER_AGENT)
            .and_then(|a| a.to_str().ok())
            .map(|a| a.chars().filter(|c| !c.is_control()).take(256).collect())
            .unwrap_or_default();
        if let Err(error) = self.identity.describe_session(session, &agent).await {
            tracing::warn!(error = %crate::state::chain(&error), "a session has no description");
        }
    }
}
