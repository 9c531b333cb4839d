// SPDX-License-Identifier: Apache-2.0
//! Emergency locks of machines, hypervisors and tokens. Those of people are set on their own page and listed here too.

use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page, safe_next},
    reply::{self, Refusal},
    state::House,
    view::{LockRow, LocksPage, Problems, Tone},
};
use axum::{
    Json,
    extract::{Query, State},
    response::IntoResponse as _,
};
use portcullis_domain::{Action, OwnObject, Resource, counted};
use portcullis_governance::{By, Error};
use portcullis_store::LockOf;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use time::{Duration, format_description::well_known::Rfc3339};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Prefill {
    kind: String,
    value: String,
}

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest, Query(prefill): Query<Prefill>) -> Answer {
    let typed = NewLock { kind: prefill.kind, value: prefill.value, ..NewLock::default() };
    listed(&house, &guest, typed, Problems::none()).await
}

async fn listed(house: &House, guest: &Guest, typed: NewLock, problems: Problems) -> Answer {
    if guest.script && !problems.is_empty() {
        return Err(Refusal::Bad(problems.first().to_owned()));
    }
    let actor = guest.actor()?;
    let locks = house.locks.list().await.map_err(reply::governance)?;
    let mut rows: Vec<LockRow> = locks
        .into_iter()
        .map(|lock| LockRow {
            id: lock.id.to_string(),
            what: lock.of.to_string(),
            href: None,
            reason: lock.reason,
            by: lock.by_name,
            since: house.when(lock.from),
            until: Some(house.when(lock.until)),
        })
        .collect();
    for user in house.store.users().await.map_err(|e| house.unavailable(&e))? {
        let Some(locked) = user.locked else { continue };
        rows.push(LockRow {
            id: String::new(),
            what: format!("person {}", user.name),
            href: Some(format!("/users/{}", user.id)),
            reason: locked.why,
            by: String::new(),
            since: house.when(locked.at),
            until: locked.until.map(|at| house.when(at)),
        });
    }
    let cut = |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let wrong = !problems.is_empty();
    let shown = LocksPage {
        shell: house.shell(guest).await,
        rows,
        may_lock: house.may(actor, Action::Lock, Resource::Own(OwnObject::Sessions)),
        kind: cut(typed.kind),
        value: cut(typed.value),
        reason: cut(typed.reason),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLock {
    kind: String,
    value: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hours: String,
    next: Option<String>,
}

/// Locks something: what is open of it is cut within seconds.
pub(crate) async fn add(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<NewLock>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let Some(of) = LockOf::parse(form.kind.trim(), form.value.trim()) else {
        let words = "Write a hypervisor and a machine's id with a slash between, a hypervisor's name, or a token's id.";
        return listed(&house, &guest, form, Problems::one("value", words)).await;
    };
    let hours = match form.hours.trim() {
        "" => Some(24),
        text => text.parse::<i64>().ok().filter(|h| (1..=720).contains(h)),
    };
    let Some(hours) = hours else {
        return listed(&house, &guest, form, Problems::one("hours", "A lock lasts from 1 to 720 hours.")).await;
    };
    let reason: String = form.reason.trim().chars().filter(|c| !c.is_control()).take(128).collect();
    let what = of.to_string();
    let lasts = counted(hours, "hour", "hours");
    let words = format!("is to be locked for {lasts}: {reason}");
    guest.intend(&house, &what, &words).await?;
    guest.say(&Step::done(&what, &format!("locked for {lasts}: {reason}")))?;
    match house.locks.add(By::Person(&actor), of, &reason, Duration::hours(hours)).await {
        Ok(_) => {}
        Err(error @ Error::NoReason) => {
            return listed(&house, &guest, form, Problems::one("reason", error.to_string())).await;
        }
        Err(error) => return Err(reply::governance(error)),
    }
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    let to = safe_next(form.next.as_deref(), "/locks");
    go_with(&guest, to, Tone::Good, format!("The {what} is locked; what was open is being cut.")).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    id: String,
}

/// Ends a lock before its time.
pub(crate) async fn end(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<ById>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let id = form.id.parse().map_err(|_| Refusal::NotFound)?;
    let what = house.locks.find(id).await.map_err(reply::governance)?.of.to_string();
    guest.intend(&house, &what, "its lock is to end").await?;
    guest.say(&Step::done(&what, "its lock was ended"))?;
    house.locks.end(By::Person(&actor), id).await.map_err(reply::governance)?;
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    go_with(&guest, "/locks", Tone::Good, format!("The {what} is no longer locked.")).await
}

/// The same list for scripts.
pub(crate) async fn json(State(house): State<Arc<House>>, _guest: Guest) -> Answer {
    let locks = house.locks.list().await.map_err(reply::governance)?;
    let items: Vec<_> = locks
        .iter()
        .map(|lock| {
            let (kind, value) = lock.of.columns();
            json!({
                "id": lock.id.to_string(), "kind": kind, "value": value, "reason": lock.reason, "by": lock.by_name,
                "since": lock.from.format(&Rfc3339).unwrap_or_default(),
                "until": lock.until.format(&Rfc3339).unwrap_or_default(),
            })
        })
        .collect();
    Ok(Json(json!({ "locks": items })).into_response())
}
