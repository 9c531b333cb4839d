// SPDX-License-Identifier: Apache-2.0
//! Access requests: ask, decide, begin, give back. Who may do what with a request is for `governance` to say: owners hold
//! no role for it, so that the doors ask for a sign-in only.

use super::{Answer, Form, again, go_with, page, passkey_missing};
use crate::{
    admin::trail::told,
    guest::{Guest, Step},
    logs::Told,
    reply::{self, Refusal},
    state::House,
    tell::Happens,
    view::{
        Choice, Problems, RequestForm, RequestMoves, RequestPage, RequestRow, RequestStep, RequestUse, RequestsPage,
        Tone, span,
    },
};
use axum::{
    Json,
    extract::{Path, Query, State},
    response::IntoResponse as _,
};
use portcullis_domain::{
    AccessId, Action, Actor, GrantId, Inventory, OwnObject, Phase, Resource, Selector, UserId, counted,
};
use portcullis_governance::{By, Decided, Decider, RequestError, Wish};
use portcullis_store::{AccessRequest, AccessState, Brackets, StepWhat, TrailFilter};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339, macros::format_description,
};

/// Requests on a page, and operations under one.
const MOST: u32 = 100;
const USES: u32 = 500;

/// What a form offers: hours, and words.
const TIMES: [(i64, &str); 8] = [
    (1, "1 hour"),
    (4, "4 hours"),
    (8, "8 hours"),
    (24, "1 day"),
    (72, "3 days"),
    (168, "7 days"),
    (336, "14 days"),
    (2_160, "90 days"),
];

fn decider<'a>(house: &'a House, inventory: &'a Inventory, actor: &'a Actor) -> Decider<'a> {
    Decider { engine: &house.engine, inventory, by: By::Person(actor) }
}

/// Everybody's name, for lists.
async fn names(house: &House) -> Result<HashMap<UserId, String>, Refusal> {
    let users = house.store.users().await.map_err(|e| house.unavailable(&e))?;
    Ok(users.into_iter().map(|u| (u.id, u.name)).collect())
}

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let actor = guest.actor()?;
    let (names, inventory) = (names(&house).await?, house.fleet.inventory());
    let row = |r: &AccessRequest| row(&house, actor, r, &names);
    let waiting = house.requests.to_decide(decider(&house, &inventory, actor)).await.map_err(reply::requests)?;
    let mine = house.requests.list(Some(actor.user), MOST).await.map_err(reply::requests)?;
    let all = if house.reads_requests(actor) {
        Some(house.requests.list(None, MOST).await.map_err(reply::requests)?)
    } else {
        None
    };
    page(&RequestsPage {
        shell: house.shell(&guest).await,
        changes: crate::admin::proposals::rows(&house, actor).await?,
        to_decide: waiting.iter().map(row).collect(),
        mine: mine.iter().map(row).collect(),
        all: all.map(|all| all.iter().map(row).collect()),
    })
}

fn row(house: &House, actor: &Actor, request: &AccessRequest, names: &HashMap<UserId, String>) -> RequestRow {
    let (class, ends) = match request.state {
        AccessState::Asked(until) => ("warn", Some(("expires", until))),
        AccessState::Approved(until) => match request.start {
            Some(at) => ("note", Some(("begins", at))),
            None => ("note", Some(("expires", until))),
        },
        AccessState::Active(_, until) => ("good", Some(("ends", until))),
        AccessState::Over(_) | AccessState::Ended(_) | AccessState::Withdrawn | AccessState::Expired => ("off", None),
        AccessState::Refused => ("bad", None),
    };
    RequestRow {
        id: request.id.to_string(),
        who: names.get(&request.user).cloned().unwrap_or_else(|| "somebody who was removed".to_owned()),
        role: request.role.to_string(),
        on: named(house, actor, &request.selector),
        reason: request.reason.clone(),
        lasts: lasts(request.seconds),
        state: request.state.word(),
        class,
        asked: house.when(request.asked),
        ends: ends.map(|(words, at)| (words, house.when(at))),
    }
}

/// A length of time that was asked for.
pub(crate) fn lasts(seconds: i64) -> String {
    match (seconds / 86_400, seconds % 86_400) {
        (days, 0) if days > 0 => counted(days, "day", "days"),
        _ if seconds % 3_600 == 0 => counted(seconds / 3_600, "hour", "hours"),
        _ => span(Duration::seconds(seconds)),
    }
}

/// What a request is about; a machine's name only for those who may see the machine.
fn named(house: &House, actor: &Actor, selector: &Selector) -> String {
    let Selector::Machine(at) = selector else { return selector.to_string() };
    let seen = house.may(actor, Action::View, Resource::Machine(at.clone()));
    match house.fleet.inventory().find(at).filter(|_| seen) {
        Some(machine) if machine.name != at.machine.as_str() => format!("{selector} ({})", machine.name),
        _ => selector.to_string(),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Prefill {
    role: String,
    on: String,
}

/// The form, filled in by the door that was closed.
pub(crate) async fn form(State(house): State<Arc<House>>, guest: Guest, Query(prefill): Query<Prefill>) -> Answer {
    let asked = Asked { role: prefill.role, on: prefill.on, hours: "4".to_owned(), ..Asked::default() };
    shown_form(&house, &guest, asked, Problems::none()).await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    role: String,
    on: String,
    reason: String,
    hours: String,
    #[serde(default)]
    start: String,
}

async fn shown_form(house: &House, guest: &Guest, asked: Asked, problems: Problems) -> Answer {
    if guest.script && !problems.is_empty() {
        return Err(Refusal::Bad(problems.first().to_owned()));
    }
    let longest = house.requests.longest().whole_hours();
    let cut = |text: String| text.chars().filter(|c| !c.is_control()).take(400).collect::<String>();
    let wrong = !problems.is_empty();
    let role = |r: portcullis_policy::RoleInfo| {
        let label = if r.words.is_empty() { r.name.to_string() } else { format!("{}: {}", r.name, r.words) };
        Choice::new(r.name.as_str(), label.chars().take(80).collect::<String>())
    };
    let shown = RequestForm {
        shell: house.shell(guest).await,
        roles: house.engine.roles().into_iter().map(role).collect(),
        times: TIMES
            .iter()
            .filter(|(hours, _)| *hours <= longest)
            .map(|(hours, words)| Choice::new(hours.to_string(), *words))
            .collect(),
        role: cut(asked.role),
        on: cut(asked.on),
        reason: cut(asked.reason),
        hours: cut(asked.hours),
        start: cut(asked.start),
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

/// What was typed, as a wish; or the field that it fails on, and why.
fn wish(asked: &Asked) -> Result<Wish, Problems> {
    let role = asked.role.parse().map_err(|_| Problems::one("role", "Choose a role of the list."))?;
    let (kind, value) = asked.on.trim().split_once(':').unwrap_or((asked.on.trim(), ""));
    let selector = Selector::parse(kind.trim(), value.trim())
        .map_err(|_| Problems::one("on", "Write what it is about, such as machine:lab/web-1 or tag:web."))?;
    let hours = asked.hours.trim().parse::<i64>().ok().filter(|h| (1..=9_000).contains(h));
    let hours = hours.ok_or_else(|| Problems::one("hours", "Choose a time of the list."))?;
    let start = match asked.start.trim() {
        "" => None,
        text => {
            let format = format_description!("[year]-[month]-[day]T[hour]:[minute]");
            let read = PrimitiveDateTime::parse(text.get(..16).unwrap_or(text), format);
            Some(read.map_err(|_| Problems::one("start", "Write the time as 2026-01-31T18:00, in UTC."))?.assume_utc())
        }
    };
    Ok(Wish { role, selector, reason: asked.reason.clone(), lasts: Duration::hours(hours), start })
}

/// Asks.
pub(crate) async fn ask(State(house): State<Arc<House>>, guest: Guest, Form(asked): Form<Asked>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let wish = match wish(&asked) {
        Ok(wish) => wish,
        Err(problems) => return shown_form(&house, &guest, asked, problems).await,
    };
    let words = format!("asks to be {} on {} for {}", wish.role, wish.selector, lasts(wish.lasts.whole_seconds()));
    guest.intend(&house, &actor.name, &words).await?;
    let inventory = house.fleet.inventory();
    let made = match Box::pin(house.requests.ask(&house.engine, &actor, wish, &inventory)).await {
        Ok(made) => made,
        Err(RequestError::Bad(field, why)) => {
            return shown_form(&house, &guest, asked, Problems::one(field, why)).await;
        }
        Err(error) => return Err(reply::requests(error)),
    };
    guest.say(&Step::done(&made.id.to_string(), &words))?;
    house.news(&made, Happens::Step(StepWhat::Asked), &actor.name, "").await;
    let told = match made.state {
        AccessState::Active(..) => {
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            house.news(&made, Happens::Step(StepWhat::Active), "a rule", "").await;
            "A rule approved it: you have access now."
        }
        AccessState::Approved(_) => "A rule approved it.",
        _ => "Asked. Whoever owns it is told, and decides.",
    };
    go_with(&guest, &format!("/requests/{}", made.id), Tone::Good, told).await
}

/// A request that this person may know of.
async fn find(house: &House, actor: &Actor, id: &str) -> Result<(AccessRequest, Option<String>), Refusal> {
    let id: AccessId = id.parse().map_err(|_| Refusal::NotFound)?;
    let request = house.requests.find(id).await.map_err(reply::requests)?;
    let inventory = house.fleet.inventory();
    let objection = house.requests.objection(decider(house, &inventory, actor), &request).await;
    let objection = objection.map_err(reply::requests)?;
    let known = request.user == actor.user || objection.is_none() || house.reads_requests(actor);
    if known { Ok((request, objection)) } else { Err(Refusal::NotFound) }
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let (request, objection) = find(&house, &actor, &id).await?;
    let steps = house.requests.steps(request.id).await.map_err(reply::requests)?;
    let (own, decides) = (request.user == actor.user, objection.is_none());
    let (asked, approved) =
        (matches!(request.state, AccessState::Asked(_)), matches!(request.state, AccessState::Approved(_)));
    let already = steps.iter().any(|s| s.what == StepWhat::Approved && s.by == Some(actor.user));
    let moves = RequestMoves {
        approve: decides && asked && !already,
        refuse: decides && (asked || approved),
        withdraw: own && (asked || approved),
        begin: own && approved,
        end: (own || decides) && matches!(request.state, AccessState::Active(..)),
        passkey_first: decides && asked && passkey_missing(&house, &actor).await?,
    };
    let inventory = house.fleet.inventory();
    let needs = (decides || house.reads_requests(&actor)).then(|| {
        let given = steps.iter().filter(|s| s.what == StepWhat::Approved).count();
        (house.requests.rule(&request.role, &request.selector, &inventory).approvals, given)
    });
    let uses = match request.state.grant() {
        Some(grant) => {
            let began = steps.iter().find(|s| s.what == StepWhat::Active).map_or(request.asked, |s| s.at);
            let reads = house.may(&actor, Action::Read, Resource::Own(OwnObject::Audit));
            Some(uses(&house, &request, grant, began, reads).await?)
        }
        None => None,
    };
    page(&RequestPage {
        shell: house.shell(&guest).await,
        row: row(&house, &actor, &request, &names(&house).await?),
        own,
        needs,
        moves,
        steps: steps
            .into_iter()
            .map(|s| RequestStep { at: house.when(s.at), what: step_word(s.what), by: s.by_name, words: s.words })
            .collect(),
        uses,
    })
}

const fn step_word(what: StepWhat) -> &'static str {
    match what {
        StepWhat::Asked => "asked",
        StepWhat::Approved => "approved",
        StepWhat::Active => "began",
        StepWhat::Over => "over",
        StepWhat::Refused => "refused",
        StepWhat::Withdrawn => "withdrawn",
        StepWhat::Expired => "expired",
        StepWhat::Ended => "ended",
    }
}

/// Every operation whose event names a request's grant, newest first: what was done under it, and with what end.
async fn uses(
    house: &Arc<House>,
    request: &AccessRequest,
    grant: GrantId,
    began: OffsetDateTime,
    reads: bool,
) -> Result<Vec<RequestUse>, Refusal> {
    let over = if request.state.is_open() { None } else { Some(request.changed + Duration::MINUTE) };
    let filter = TrailFilter {
        user: Some(request.user),
        from: Some(began),
        until: over,
        brackets: Brackets::Both,
        ..TrailFilter::default()
    };
    let rows = house.store.search_trail(&filter, USES, None).await.map_err(|e| house.unavailable(&e))?;
    let grant = grant.to_string();
    let rows = told(house, rows).await?;
    let names_it = |told: &Told| match told {
        Told::Event(placed) => {
            placed.event.details.iter().any(|(name, value)| &**name == "grants" && value.split(' ').any(|g| g == grant))
        }
        Told::Otherwise | Told::NotHere => false,
    };
    let under: HashSet<_> = rows.iter().filter(|(_, t)| names_it(t)).map(|(row, _)| (row.node, row.seq)).collect();
    let mut ends = HashMap::new();
    for (row, _) in &rows {
        if let Phase::Closed(opened) = row.phase {
            ends.insert((row.node, opened), row.outcome.word());
        }
    }
    let use_of = |(row, _): &(portcullis_store::TrailRow, Told)| RequestUse {
        at: house.when(row.at),
        what: row.action.map_or_else(|| row.kind.clone(), |a| a.deed().to_owned()),
        on: row.resource.clone(),
        outcome: ends.get(&(row.node, row.seq)).copied().unwrap_or("not over yet"),
        link: reads.then(|| format!("/trail/{}/{}", row.node, row.seq)),
    };
    Ok(rows.iter().filter(|(row, _)| under.contains(&(row.node, row.seq))).map(use_of).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    #[serde(default)]
    reason: String,
}

impl Said {
    fn words(&self) -> String {
        self.reason.trim().chars().filter(|c| !c.is_control()).take(128).collect()
    }
}

/// Approves, with a fresh factor: the passkey of whoever has one.
pub(crate) async fn approve(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(said): Form<Said>,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let (request, objection) = find(&house, &actor, &id).await?;
    super::factors::fresh(&house, &guest)?;
    if passkey_missing(&house, &actor).await? {
        return Err(Refusal::StepUp);
    }
    if let Some(why) = objection {
        return Err(Refusal::Forbidden(why));
    }
    let words = said.words();
    guest.intend(&house, &id, "is to be approved").await?;
    let inventory = house.fleet.inventory();
    let decided = house.requests.approve(decider(&house, &inventory, &actor), request.id, &words).await;
    let (told, noted, whole) = match decided.map_err(reply::requests)? {
        Decided::Approved => {
            let told = "Approved. They begin it themselves, or it begins at the time they asked for.";
            (told.to_owned(), "approved".to_owned(), true)
        }
        Decided::Counted(given, needed) => {
            let count = format!("{given} of {needed}");
            (format!("Your approval counts: {count}."), format!("approved by {count}"), false)
        }
    };
    guest.say(&Step::done(&id, &noted))?;
    if whole {
        house.news(&request, Happens::Step(StepWhat::Approved), &actor.name, &words).await;
    }
    go_with(&guest, &format!("/requests/{id}"), Tone::Good, told).await
}

/// A step on a request that this person may know of, written down before it is taken.
async fn about_to(house: &House, guest: &Guest, id: &str, what: &str) -> Result<(Arc<Actor>, AccessRequest), Refusal> {
    let actor = Arc::clone(guest.actor()?);
    let (request, _) = find(house, &actor, id).await?;
    guest.intend(house, id, what).await?;
    Ok((actor, request))
}

/// What was done, for the trail, for others and for whoever did it.
struct Taken<'a> {
    what: StepWhat,
    noted: &'a str,
    words: &'a str,
    told: &'a str,
}

/// The end of a step that was taken.
async fn taken(house: &House, guest: &Guest, request: &AccessRequest, step: Taken<'_>) -> Answer {
    let id = request.id.to_string();
    guest.say(&Step::done(&id, step.noted))?;
    house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
    house.news(request, Happens::Step(step.what), &guest.actor()?.name, step.words).await;
    go_with(guest, &format!("/requests/{id}"), Tone::Good, step.told).await
}

/// Refuses.
pub(crate) async fn refuse(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(said): Form<Said>,
) -> Answer {
    let (actor, request) = about_to(&house, &guest, &id, "is to be refused").await?;
    let (words, inventory) = (said.words(), house.fleet.inventory());
    let refused = house.requests.refuse(decider(&house, &inventory, &actor), request.id, &words).await;
    refused.map_err(reply::requests)?;
    let step = Taken { what: StepWhat::Refused, noted: "refused", words: &words, told: "Refused." };
    taken(&house, &guest, &request, step).await
}

/// Takes one's own request back.
pub(crate) async fn withdraw(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let (actor, request) = about_to(&house, &guest, &id, "is to be withdrawn").await?;
    house.requests.withdraw(&actor, request.id).await.map_err(reply::requests)?;
    let step = Taken { what: StepWhat::Withdrawn, noted: "withdrawn", words: "", told: "Withdrawn." };
    taken(&house, &guest, &request, step).await
}

/// Begins what was approved.
pub(crate) async fn begin(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let (actor, request) = about_to(&house, &guest, &id, "is to begin").await?;
    let inventory = house.fleet.inventory();
    let begun = Box::pin(house.requests.activate(decider(&house, &inventory, &actor), request.id)).await;
    let begun = begun.map_err(reply::requests)?;
    let step = Taken { what: StepWhat::Active, noted: "begun", words: "", told: "You have access now." };
    taken(&house, &guest, &begun, step).await
}

/// Ends access before its time.
pub(crate) async fn end(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(said): Form<Said>,
) -> Answer {
    let (actor, request) = about_to(&house, &guest, &id, "is to end before its time").await?;
    let (words, inventory) = (said.words(), house.fleet.inventory());
    let ended = house.requests.end(decider(&house, &inventory, &actor), request.id, &words).await;
    ended.map_err(reply::requests)?;
    let told = "The access is over; what it held open is being cut.";
    let step = Taken { what: StepWhat::Ended, noted: "ended before its time", words: &words, told };
    taken(&house, &guest, &request, step).await
}

/// The same list for scripts: one's own, what waits for one's decision, and all for those who may read them.
pub(crate) async fn json(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let actor = guest.actor()?;
    let (names, inventory) = (names(&house).await?, house.fleet.inventory());
    let waiting = house.requests.to_decide(decider(&house, &inventory, actor)).await.map_err(reply::requests)?;
    let who = if house.reads_requests(actor) { None } else { Some(actor.user) };
    let mut all = house.requests.list(who, MOST).await.map_err(reply::requests)?;
    all.extend(waiting.iter().filter(|w| !all.iter().any(|r| r.id == w.id)).cloned().collect::<Vec<_>>());
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let items: Vec<_> = all
        .iter()
        .map(|r| {
            json!({
                "id": r.id.to_string(), "who": names.get(&r.user), "role": r.role.as_str(), "on": r.selector.to_string(),
                "reason": r.reason, "seconds": r.seconds, "asked": time(r.asked), "start": r.start.map(time),
                "state": r.state.word(), "grant": r.state.grant().map(|g| g.to_string()),
                "ends": match r.state { AccessState::Active(_, ends) => Some(time(ends)), _ => None },
                "decide": waiting.iter().any(|w| w.id == r.id),
            })
        })
        .collect();
    Ok(Json(json!({ "requests": items })).into_response())
}
