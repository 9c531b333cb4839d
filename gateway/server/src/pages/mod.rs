// SPDX-License-Identifier: Apache-2.0
//! The pages that everybody has: sign-in, factors, machines, console.
//!
//! A handler is reached through the passage only; it reads what it may show, fills a struct of `view`, and answers.

pub(crate) mod banner;
pub(crate) mod break_glass;
pub(crate) mod console;
pub(crate) mod factors;
pub(crate) mod login;
pub(crate) mod machines;
pub(crate) mod passkeys;
pub(crate) mod provider;
pub(crate) mod requests;
pub(crate) mod rows;
pub(crate) mod tokens;

use crate::{
    guest::Guest,
    reply::Refusal,
    state::House,
    view::{Doors, Flash, Shell, Tone, When, Who},
};
use askama::Template;
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, RawForm, Request},
    response::{IntoResponse as _, Redirect, Response},
};
use http::{HeaderValue, StatusCode, header};
use portcullis_domain::{Action, Actor, Effect, Factor, Operation, OwnObject, Resource};
use portcullis_governance::{By, Decider};
use portcullis_policy::Decision;
use serde::de::DeserializeOwned;

/// The key under which messages wait in a session for the next page.
const FLASHES: &str = "flashes";

/// A form of ours. One that lacks a field, has one too many, or holds something else in it, is refused in words.
pub(crate) struct Form<T>(pub(crate) T);

/// What travels with every form and is read on the way in.
const TRAVELLING: [&str; 2] = ["csrf", "step_up_code"];

/// The fields of a form itself: each handler names all that it takes, so that none can be smuggled in.
fn own_fields<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(body).ok()?;
    let own = fields.into_iter().filter(|(name, _)| !TRAVELLING.contains(&name.as_str()));
    serde_urlencoded::from_str(&serde_urlencoded::to_string(own.collect::<Vec<_>>()).ok()?).ok()
}

/// A flat JSON object as a form: what a script sends. A box is ticked by `true`.
fn as_form(body: &[u8]) -> Option<Bytes> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let mut pairs = Vec::new();
    for (name, value) in fields {
        match value {
            serde_json::Value::String(text) => pairs.push((name, text)),
            serde_json::Value::Number(number) => pairs.push((name, number.to_string())),
            serde_json::Value::Bool(true) => pairs.push((name, "on".to_owned())),
            serde_json::Value::Bool(false) | serde_json::Value::Null => {}
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
        }
    }
    serde_urlencoded::to_string(pairs).ok().map(Bytes::from)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let body = if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            Bytes::from_request(request, state).await.ok().and_then(|body| as_form(&body))
        } else {
            RawForm::from_request(request, state).await.ok().map(|RawForm(body)| body)
        };
        body.and_then(|body| own_fields(&body)).map(Self).ok_or_else(|| {
            Refusal::Bad("A field of the form is missing, unknown or cannot be read. Open the page again.".into())
        })
    }
}

/// How long a fresh code counts for one's own account and, unless a grant says otherwise, for everything else.
pub(crate) const STEP_UP: time::Duration = time::Duration::minutes(5);

/// What a handler answers.
pub(crate) type Answer = Result<Response, Refusal>;

/// A page as an answer.
pub(crate) fn page<T: Template>(template: &T) -> Answer {
    match template.render() {
        Ok(html) => Ok(html_of(html)),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Err(Refusal::Unavailable("This page could not be written. Tell an administrator.".into()))
        }
    }
}

/// A page that says that something typed was wrong: the same page, with status 422.
pub(crate) fn again<T: Template>(template: &T) -> Answer {
    let mut answer = page(template)?;
    *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(answer)
}

fn html_of(html: String) -> Response {
    let mut answer = html.into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}

/// Goes on to another page of ours.
#[expect(clippy::unnecessary_wraps, reason = "a handler's last word, like every other answer")]
pub(crate) fn go(to: &str) -> Answer {
    Ok(Redirect::to(to).into_response())
}

/// Goes on, with a message for the next page; a script reads where, and the message.
pub(crate) async fn go_with(guest: &Guest, to: &str, tone: Tone, text: impl Into<String>) -> Answer {
    if guest.script {
        let text: String = text.into();
        return Ok(Json(serde_json::json!({ "told": text, "at": to })).into_response());
    }
    let mut waiting: Vec<(String, String)> = guest.session.get(FLASHES).await.ok().flatten().unwrap_or_default();
    waiting.push((tone.word().to_owned(), text.into()));
    if guest.session.insert(FLASHES, waiting).await.is_err() {
        tracing::warn!("a message for the next page was lost");
    }
    go(to)
}

/// Whether somebody has a passkey and has not shown it in the last minutes.
pub(crate) async fn passkey_missing(house: &House, actor: &Actor) -> Result<bool, Refusal> {
    let proofs = house.identity.proofs_of(actor.user).await.map_err(|e| house.unavailable(&e))?;
    let since = house.clock.now() - STEP_UP;
    let shown = actor.assurance.proofs().iter().any(|(factor, at)| *factor == Factor::Passkey && *at > since);
    Ok(proofs.passkey && !shown)
}

/// A path of ours to go to afterwards, or the given one. Anything that a browser could read as another site, or that
/// holds a control character, is not taken: only `/` followed by something that is neither `/` nor `\`.
pub(crate) fn safe_next<'a>(next: Option<&'a str>, otherwise: &'a str) -> &'a str {
    let ok = |n: &&str| {
        let bytes = n.as_bytes();
        bytes.first() == Some(&b'/')
            && !matches!(bytes.get(1), Some(b'/' | b'\\'))
            && bytes.iter().all(|b| (0x21..0x7f).contains(b) && *b != b'\\')
            && n.len() <= 512
    };
    next.filter(ok).unwrap_or(otherwise)
}

/// A value inside a query string.
pub(crate) fn encode(text: &str) -> String {
    serde_urlencoded::to_string([("", text)]).map(|s| s.trim_start_matches('=').to_owned()).unwrap_or_default()
}

impl House {
    /// What stands around a page for this guest; takes the messages that waited for it.
    pub(crate) async fn shell(&self, guest: &Guest) -> Shell {
        let Some(actor) = &guest.actor else { return Shell::stranger(guest.csrf.clone()) };
        let flashes: Vec<(String, String)> = guest.session.get(FLASHES).await.ok().flatten().unwrap_or_default();
        // Taking nothing away would write the session down all the same.
        if !flashes.is_empty() && guest.session.remove_value(FLASHES).await.is_err() {
            tracing::warn!("a message will be shown again");
        }
        let flashes = flashes.into_iter().map(|(tone, text)| Flash::new(Tone::from_word(&tone), text)).collect();
        let now = self.clock.now();
        let fresh_until = actor.assurance.fresh_until(STEP_UP).filter(|_| !factors::asks_each(self, actor, now));
        let fresh_until = fresh_until.filter(|until| *until > now).map(|until| When::new(until, now));
        let user = self.store.user(actor.user).await.ok().flatten();
        let display_name = user.map(|u| u.display_name).filter(|n| !n.is_empty());
        let who = Who {
            name: actor.name.to_string(),
            display_name: display_name.unwrap_or_else(|| actor.name.to_string()),
            doors: self.doors(actor),
            fresh_until,
            proofs: self.identity.proofs_of(actor.user).await.unwrap_or_default(),
        };
        let emergencies = if who.doors.users { self.identity.break_glass_unreviewed().await } else { Ok(0) };
        let emergencies = emergencies.unwrap_or_else(|error| {
            tracing::error!(error = %crate::state::chain(&error), "whether a sealed code was used is not known");
            0
        });
        let inventory = self.fleet.inventory();
        let decider = Decider { engine: &self.engine, inventory: &inventory, by: By::Person(actor) };
        let to_decide = self.requests.to_decide(decider).await.map_or(0, |waiting| waiting.len());
        let to_decide = to_decide + self.changes_to_decide(actor).await;
        let recovery = self.store.recovery_code_used(actor.user).await.unwrap_or_else(|error| {
            tracing::error!(error = %crate::state::chain(&error), "whether a recovery code was used is not known");
            None
        });
        let recovery = recovery.map(|(at, from)| {
            let from = from.map_or_else(|| "an address that was not written down".to_owned(), |from| from.to_string());
            (When::new(at, now), from)
        });
        Shell { emergencies, to_decide, recovery, ..Shell::signed_in(guest.csrf.clone(), who).with(flashes) }
    }

    /// How many changes of rights wait for this person, as somebody who did not propose them.
    async fn changes_to_decide(&self, actor: &Actor) -> usize {
        if !self.grants.has_four_eyes() || !self.may(actor, Action::Write, Resource::Own(OwnObject::Policy)) {
            return 0;
        }
        let waiting = self.store.waiting_proposals().await.unwrap_or_default();
        waiting.iter().filter(|p| p.new.by != Some(actor.user)).count()
    }

    /// Which administration pages somebody may read.
    fn doors(&self, actor: &Actor) -> Doors {
        let may = |object| self.may(actor, Action::Read, Resource::Own(object));
        Doors {
            users: may(OwnObject::Users),
            policy: may(OwnObject::Policy),
            hypervisors: may(OwnObject::Hypervisors),
            sessions: may(OwnObject::Sessions),
            recordings: may(OwnObject::Recordings),
            trail: may(OwnObject::Audit),
        }
    }

    /// Whether policy would let somebody do something, fresh code or not: for what a page offers, never for a door.
    pub(crate) fn may(&self, actor: &Actor, action: Action, resource: Resource) -> bool {
        self.why_not(actor, action, resource).is_none()
    }

    /// Why policy would not let somebody do something.
    pub(crate) fn why_not(&self, actor: &Actor, action: Action, resource: Resource) -> Option<String> {
        // What is locked stays in the lists, so that people see that it is.
        let shown = matches!(action, Action::View | Action::Read);
        if let Some(words) = self.locks.against(actor.via, &resource, self.clock.now()).filter(|_| !shown) {
            return Some(words);
        }
        let operation = Operation { action, resource, effect: Effect::Safe };
        match self.engine.decide(actor, &operation, &self.fleet.inventory(), self.clock.now()) {
            Decision::Permit(_) | Decision::StepUp(_) => None,
            Decision::Deny(reason) => Some(reason.to_string()),
        }
    }

    /// An instant as pages tell it.
    pub(crate) fn when(&self, at: time::OffsetDateTime) -> When {
        When::new(at, self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SEC-075
    #[test]
    fn only_paths_of_ours_are_gone_to() {
        for bad in [
            "//e",
            "/\\e",
            "\\/e",
            "https:e",
            "https://e",
            "javascript:alert(1)",
            "/%09/e\t",
            "/a b",
            "/\u{ff0f}e",
            "e",
            "",
            "/x\r\nSet-Cookie: a",
            "/\te",
        ] {
            assert_eq!(safe_next(Some(bad), "/"), "/", "{bad:?}");
        }
        assert_eq!(safe_next(Some("/c/lab/web-1?x=1"), "/"), "/c/lab/web-1?x=1");
        assert_eq!(safe_next(None, "/me"), "/me");
    }

    // SEC-014
    #[test]
    fn a_form_with_a_field_too_many_is_refused() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Small {
            name: String,
            next: Option<String>,
        }
        let small = |name: &str| Some(Small { name: name.to_owned(), next: None });
        assert_eq!(own_fields(b"name=a+%26%3Db&csrf=x&step_up_code=123456"), small("a &=b"));
        assert_eq!(own_fields(b"csrf=x&name=%C3%A4"), small("\u{e4}"));
        for bad in ["name=a&role=admin", "name=a&name=b", "next=%2F", "name=a&csrf.=x", "name=a&Name=b", ""] {
            assert_eq!(own_fields::<Small>(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_script_sends_the_same_fields_as_flat_json() {
        let form = |json: &str| as_form(json.as_bytes()).map(|b| String::from_utf8_lossy(&b).into_owned());
        let read = form(r#"{"on":"machine:lab/web 1","hours":4,"record":true,"each":false,"next":null}"#).unwrap();
        let mut fields: Vec<&str> = read.split('&').collect();
        fields.sort_unstable();
        assert_eq!(fields, ["hours=4", "on=machine%3Alab%2Fweb+1", "record=on"]);
        for bad in ["", "[]", "{\"a\":[1]}", "{\"a\":{}}", "a=b", "{\"a\":1"] {
            assert_eq!(form(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_is_encoded_for_a_query() {
        assert_eq!(encode("/c/a b&c=d"), "%2Fc%2Fa+b%26c%3Dd");
    }
}
