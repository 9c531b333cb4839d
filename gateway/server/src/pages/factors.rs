// SPDX-License-Identifier: Apache-2.0
//! What is mine: authenticator apps and passkeys, recovery codes, signed-in browsers, the password; and confirming that it is me.

use super::{
    Answer, Form, again, encode, go, go_with,
    login::{known, next_step, noted},
    page, safe_next,
};
use crate::{
    guest::{Guest, Step},
    reply::{self, Refusal},
    state::House,
    view::{
        Choice, Enrol, EnrolReason, FactorRow, Me, Problems, RecoveryCodes, Shell, StepUp, TokenDraft, Tone, device,
    },
};
use axum::extract::{Query, State};
use http::{HeaderMap, header};
use portcullis_domain::{Actor, Grant, GrantEffect, Intent, Secret, Via};
use portcullis_identity::{Error, Stage};
use portcullis_policy::classify::own;
use serde::Deserialize;
use std::sync::Arc;

/// Where somebody confirms that it is them for a request of a script, which says itself where it leads back to.
pub(crate) fn confirm_address(method: &str, path: &str) -> String {
    format!("/step-up?for={}", encode(&format!("{method} {}", path.split('?').next().unwrap_or(path))))
}

/// What a confirmation is for: the request that `what` names as `METHOD path`, or else the page that it leads back to.
pub(super) fn intended(what: Option<&str>, next: &str) -> Option<Intent> {
    let (method, path) = what.and_then(|w| w.split_once(' ')).unwrap_or(("GET", next));
    let path = path.split('?').next().unwrap_or(path);
    own::find(method, path).ok()?.operation().as_ref().and_then(Intent::of)
}

/// Where somebody confirms that it is them, and comes back from.
pub(crate) fn step_up_address(back: Option<&str>) -> String {
    format!("/step-up?next={}", encode(safe_next(back, "/")))
}

pub(crate) async fn enrol_form(State(house): State<Arc<House>>, guest: Guest, headers: HeaderMap) -> Answer {
    enrolling(&house, &guest, &headers, Problems::none()).await
}

/// The page on which a second factor is added: a passkey or an authenticator app.
pub(super) async fn enrolling(house: &House, guest: &Guest, headers: &HeaderMap, problems: Problems) -> Answer {
    let reason = match guest.stage {
        Stage::MustEnrol { .. } => EnrolReason::First,
        Stage::RecoveryOnly { .. } => EnrolReason::Lost,
        Stage::SignedIn { .. } => EnrolReason::Another,
        Stage::Stranger | Stage::NeedsSecond { .. } => return go(&next_step(Some(&guest.stage), None)),
    };
    let enrolment =
        house.identity.begin_enrolment(&guest.session).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    let account = format!("{} at {}", house.name_of(&guest.stage).await?, house.authority);
    let wrong = !problems.is_empty();
    let shown = Enrol {
        shell: house.shell(guest).await,
        reason,
        key: enrolment.secret_text.to_string(),
        account,
        picture: Enrol::picture_of(&enrolment.qr_svg),
        passkey: device(headers.get(header::USER_AGENT).and_then(|a| a.to_str().ok()).unwrap_or_default()),
        passkeys_off: house.identity.passkeys_off().map(reply::sentence),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeForm {
    code: String,
}

/// The first code of a new authenticator app; at sign-in it answers with the recovery codes, once.
pub(crate) async fn enrol(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<CodeForm>,
) -> Answer {
    match house.identity.confirm_enrolment(&guest.session, &form.code, guest.peer.ip).await {
        Ok(codes) => {
            let after = house.stage(&guest).await?;
            let name = house.name_of(&after).await?;
            if codes.is_empty() {
                let words = "an authenticator app was added; other browsers ended";
                guest.say(&Step { user: known(&after), ..Step::done(&name, words) })?;
                let words = "Your authenticator app is added. Your other browsers are signed out.";
                return go_with(&guest, "/me", Tone::Good, words).await;
            }
            let words = "an authenticator app was added; new recovery codes were made";
            guest.say(&Step { user: known(&after), ..Step::done(&name, words) })?;
            house.describe(&guest, &headers).await;
            let account = format!("{name} at {}", house.authority);
            page(&RecoveryCodes { shell: Shell::default(), codes: plain(codes), account, next: "/".into() })
        }
        Err(error) => {
            guest.say(&Step::denied("", &noted(&error)))?;
            if matches!(error, Error::Expired) {
                return go("/sign-in");
            }
            let shown = house.shown(&error)?;
            enrolling(&house, &guest, &headers, Problems::one("code", shown)).await
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Next {
    next: Option<String>,
    #[serde(rename = "for")]
    what: Option<String>,
}

pub(crate) async fn step_up_form(State(house): State<Arc<House>>, guest: Guest, Query(next): Query<Next>) -> Answer {
    step_up_page(&house, &guest, next.next.as_deref(), next.what.as_deref(), Problems::none()).await
}

async fn step_up_page(
    house: &House,
    guest: &Guest,
    next: Option<&str>,
    what: Option<&str>,
    problems: Problems,
) -> Answer {
    let next = safe_next(next, "/").to_owned();
    let what = what.unwrap_or_default().to_owned();
    let intent = intent(what.split_once(' ').map_or(&next, |(_, path)| path));
    let alone = guest.actor.as_ref().is_some_and(|actor| asks_each(house, actor, house.clock.now()));
    let minutes = if alone { 0 } else { u32::try_from(crate::pages::STEP_UP.whole_minutes()).unwrap_or(5) };
    let wrong = !problems.is_empty();
    let provider = house.identity.can_confirm(&guest.session).await.map_err(|e| house.unavailable(&e))?;
    let query = if what.is_empty() { String::new() } else { format!("for={}&", encode(&what)) };
    let provider = provider.map(|(name, title)| (format!("/sign-in/with/{name}?{query}"), title.to_owned()));
    let proofs = house.proofs(&guest.stage).await?;
    let shown = StepUp { shell: house.shell(guest).await, intent, provider, minutes, next, what, proofs, problems };
    if wrong { again(&shown) } else { page(&shown) }
}

/// What is said of an address that is no door of ours.
const ELSEWHERE: &str = "go on to the page that you opened";

/// What a path of ours is for, in words that finish "You are about to".
fn intent(next: &str) -> String {
    let path = next.split('?').next().unwrap_or(next);
    // A program's door and the page beside it do the same.
    let path = path.strip_prefix("/api/v1").unwrap_or(path).trim_matches('/');
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    match (first, rest.as_slice()) {
        ("c" | "consoles", [hypervisor, machine, ..]) => format!("open the console of {hypervisor}/{machine}"),
        ("machines", [hypervisor, machine, "power"]) => format!("switch the power of {hypervisor}/{machine}"),
        ("" | "machines" | "favourites", _) => "go on to your machines".into(),
        ("users" | "service-accounts", _) => "manage people".into(),
        ("break-glass", _) => "look at how emergency codes were used".into(),
        ("grants" | "roles" | "access", _) => "manage what people may do".into(),
        ("groups", _) => "manage who is in which group".into(),
        ("policy", _) => "change the policy".into(),
        ("proposals", _) => "decide on a change that takes two people".into(),
        ("requests", [_, "approve" | "refuse"]) => "decide on an access request".into(),
        ("requests", _) => "go on with an access request".into(),
        ("locks", _) => "lock somebody or something, or lift a lock".into(),
        ("sessions", _) => "manage live consoles".into(),
        ("hypervisors" | "new-hypervisor", _) => "manage hypervisors".into(),
        ("recordings", _) => "look at recordings".into(),
        ("trail", _) => "read the trail".into(),
        ("me" | "enrol" | "passkeys", _) => "change how you sign in".into(),
        _ => ELSEWHERE.into(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepUpForm {
    code: String,
    next: Option<String>,
    /// What it is for, where that is not the page that it leads back to: `METHOD path`.
    #[serde(rename = "for")]
    what: Option<String>,
}

/// A fresh code, or the answer of a passkey in its place; then back to what it was asked for.
pub(crate) async fn step_up(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<StepUpForm>) -> Answer {
    let intent = intended(form.what.as_deref().filter(|w| !w.is_empty()), safe_next(form.next.as_deref(), "/"));
    match house.identity.step_up_for(&guest.session, &form.code, intent, guest.peer.ip).await {
        Ok(factor) => {
            guest.say(&Step::done("", &format!("confirmed anew by {}", factor.word())))?;
            go(safe_next(form.next.as_deref(), "/"))
        }
        Err(error) => {
            guest.say(&Step::denied("", &noted(&error)))?;
            let problems = house.problem_of_proof(&error, &form.code)?;
            step_up_page(&house, &guest, form.next.as_deref(), form.what.as_deref(), problems).await
        }
    }
}

pub(crate) async fn me(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    mine(&house, &guest, None, Problems::none()).await
}

/// The page of what is mine, with a token that was made just now or with what went wrong.
pub(super) async fn mine(house: &House, guest: &Guest, minted: Option<String>, problems: Problems) -> Answer {
    mine_typed(house, guest, minted, TokenDraft::default(), problems).await
}

/// The same with what was typed for a token that was not made.
pub(super) async fn mine_typed(
    house: &House,
    guest: &Guest,
    minted: Option<String>,
    typed: TokenDraft,
    problems: Problems,
) -> Answer {
    let actor = guest.actor()?;
    let (user, now) = (actor.user, house.clock.now());
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let factors = house.identity.factors(user).await.map_err(|e| house.unavailable(&e))?;
    let only_one = factors.len() < 2;
    let factors = factors
        .iter()
        .map(|f| FactorRow {
            id: f.id.to_string(),
            what: f.words(),
            added: house.when(f.created_at),
            // A code may be that of the step to come.
            used: f.used_at.map(|at| house.when(at.min(now))),
            removable: !only_one,
        })
        .collect();
    let current = match actor.via {
        Via::Session(session) => Some(session),
        Via::Token(_) | Via::CommandLine => None,
    };
    let sessions = house.session_rows(user, current).await?;
    let tokens = house.token_rows(user).await?;
    let recovery_left = house.store.recovery_codes_left(user).await.map_err(failed)?;
    let grants = house.engine.grants_of(actor.user).into_iter().filter(|g| g.is_active(now));
    let not = |g: &Grant| if g.effect == GrantEffect::Deny { "not " } else { "" };
    let grants = grants.map(|g| format!("{}{} on {}{}", not(&g), g.role, g.selector, until_words(g.until))).collect();
    let wrong = !problems.is_empty();
    let user = house.store.user(actor.user).await.map_err(|e| house.unavailable(&e))?;
    let shown = Me {
        shell: house.shell(guest).await,
        factors,
        recovery_left: u32::try_from(recovery_left).unwrap_or(u32::MAX),
        sessions,
        tokens,
        minted,
        hypervisors: house.reachable().iter().map(|h| Choice::new(h.as_str(), h.as_str())).collect(),
        typed,
        grants,
        has_password: user.is_some_and(|u| u.password_hash.is_some()),
        shortest: house.identity.settings().passwords.shortest,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

fn until_words(until: Option<time::OffsetDateTime>) -> String {
    until.map(|u| format!(", until {}", u.date())).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    id: String,
}

/// Ends one of my browsers.
pub(crate) async fn end_session(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<ById>) -> Answer {
    let session = form.id.parse().map_err(|_| Refusal::NotFound)?;
    guest.say(&Step::done(&form.id, "ended by its owner"))?;
    let ended = house.identity.end_own_session(&guest.session, session).await;
    ended.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, "/me", Tone::Good, "That browser is signed out.").await
}

/// Ends all my other browsers.
pub(crate) async fn end_others(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    guest.say(&Step::done("", "all other browsers ended by their owner"))?;
    house.identity.end_others(&guest.session).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, "/me", Tone::Good, "All your other browsers are signed out.").await
}

/// New recovery codes; the old ones stop working. Shown once.
pub(crate) async fn recovery_codes(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    fresh(&house, &guest)?;
    let codes = house.identity.regenerate_recovery_codes(&guest.session).await;
    let codes = plain(codes.map_err(|e| reply::identity(&e, house.clock.now()))?);
    guest.say(&Step::done("", "new recovery codes were made"))?;
    let account = format!("{} at {}", guest.actor()?.name, house.authority);
    page(&RecoveryCodes { shell: house.shell(&guest).await, codes, account, next: "/me".into() })
}

/// Takes one of my second factors away; never the last one.
pub(crate) async fn remove(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<ById>) -> Answer {
    fresh(&house, &guest)?;
    let id = form.id.parse().map_err(|_| Refusal::NotFound)?;
    guest.say(&Step::done(&guest.actor()?.name, "a second factor was removed by its owner"))?;
    let removed = house.identity.remove_factor(&guest.session, id).await;
    removed.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go_with(&guest, "/me", Tone::Good, "That second factor no longer works here.").await
}

/// Codes for the page that shows them once.
pub(super) fn plain(codes: Vec<impl std::ops::Deref<Target = String>>) -> Vec<String> {
    codes.into_iter().map(|c| c.to_string()).collect()
}

/// Whether a grant of theirs asks for a confirmation of each intent.
pub(super) fn asks_each(house: &House, actor: &Actor, now: time::OffsetDateTime) -> bool {
    house.engine.grants_of(actor.user).iter().any(|g| g.conditions.step_up_each && g.is_active(now))
}

/// How one signs in is changed with a fresh code only.
pub(super) fn fresh(house: &House, guest: &Guest) -> Result<(), Refusal> {
    let actor = guest.actor()?;
    if actor.assurance.is_fresh(crate::pages::STEP_UP, house.clock.now()) { Ok(()) } else { Err(Refusal::StepUp) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// For the browser's password manager; who it is says the session.
    #[serde(default, rename = "username")]
    _username: String,
    old: String,
    password: String,
}

pub(crate) async fn change_password(
    State(house): State<Arc<House>>,
    guest: Guest,
    Form(form): Form<NewPassword>,
) -> Answer {
    fresh(&house, &guest)?;
    let (old, new) = (Secret::from(form.old), Secret::from(form.password));
    match house.identity.change_password(&guest.session, old, new).await {
        Ok(()) => {
            guest.say(&Step::done("", "the password was changed; other browsers ended"))?;
            go_with(&guest, "/me", Tone::Good, "Your password is changed. Your other browsers are signed out.").await
        }
        Err(error) => {
            guest.say(&Step::denied("", &noted(&error)))?;
            let field = if matches!(error, Error::Weak(_)) { "password" } else { "old" };
            let shown = house.shown(&error)?;
            mine(&house, &guest, None, Problems::one(field, shown)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_policy::classify::own::{Door, ROUTES};

    #[test]
    fn whatever_may_ask_for_a_fresh_factor_says_what_it_is_for() {
        let asks = |door| matches!(door, Door::Enrolling | Door::SignedIn | Door::Own(..) | Door::Machine(_));
        // What leads to the page itself, and what comes before anything can be asked for.
        let none = |pattern: &str| ["/step-up", "/banner"].contains(&pattern);
        for route in ROUTES.iter().filter(|r| asks(r.door) && !none(r.pattern)) {
            assert_ne!(intent(route.pattern), ELSEWHERE, "{}", route.pattern);
        }
        for (path, words) in [
            ("/c/lab/web-1", "open the console of lab/web-1"),
            ("/api/v1/consoles/lab/web-1/ticket/view", "open the console of lab/web-1"),
            ("/machines/lab/web-1/power", "switch the power of lab/web-1"),
            ("/proposals/1/approve", "decide on a change that takes two people"),
            ("/api/v1/requests/1/approve?x=/users", "decide on an access request"),
            ("/requests/1/begin", "go on with an access request"),
            ("/groups/1/add", "manage who is in which group"),
            ("/", "go on to your machines"),
            ("/nowhere", ELSEWHERE),
        ] {
            assert_eq!(intent(path), words, "{path}");
        }
    }
}
