// SPDX-License-Identifier: Apache-2.0
//! How the policy came to be what it is: versions of its files with what each changed, changes by pages and shells as
//! the trail tells them, going back to an older version, and rows that are tried without being taken over.

use super::{
    preview::{LINES, foresee, hypervisors, shift_rows},
    proposals::propose,
    trail::told,
};
use crate::{
    guest::{Guest, Step},
    logs::Told,
    pages::{Answer, Form, again, go_with, page},
    reply::{self, Refusal},
    state::House,
    view::{ChangeRow, History, Preview, Problems, Tone, Version, VersionRow},
};
use axum::extract::{Path, State};
use portcullis_domain::{Action, Outcome, OwnObject, Resource};
use portcullis_governance::{By, Change, Error, Files, Ground, Plan, Side, compare};
use portcullis_store::{Brackets, PolicyVersion, TrailFilter, TrailRow};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// Changes by pages and shells that are told.
const CHANGES: u32 = 50;
/// Longest rows that can be tried, in bytes: what fits into a form.
const MOST_ROWS: usize = 40_000;

fn row(house: &House, version: &PolicyVersion, newest: u32) -> VersionRow {
    VersionRow {
        number: version.number,
        at: house.when(version.applied_at),
        by: version.applied_by.clone(),
        why: version.why.clone(),
        hash: version.hash.clone(),
        newest: version.number == newest,
    }
}

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    listed(&house, &guest, None, None, Problems::none()).await
}

async fn listed(
    house: &Arc<House>,
    guest: &Guest,
    rows: Option<String>,
    preview: Option<Preview>,
    problems: Problems,
) -> Answer {
    let versions = house.store.policy_versions().await.map_err(|e| house.unavailable(&e))?;
    let newest = versions.first().map_or(0, |v| v.number);
    let rows = match (rows, versions.first()) {
        (Some(rows), _) => rows,
        (None, Some(version)) => Files::of(version).map(|files| rules(&files)).unwrap_or_default(),
        (None, None) => String::new(),
    };
    let wrong = !problems.is_empty();
    let shown = History {
        shell: house.shell(guest).await,
        versions: versions.iter().map(|v| row(house, v, newest)).collect(),
        changes: changes(house, guest).await?,
        rows,
        preview,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

/// The rules of a set of files as one text.
fn rules(files: &Files) -> String {
    let rules = files.0.iter().filter(|(name, _)| std::path::Path::new(name).extension().is_some_and(|e| e == "csv"));
    rules.map(|(_, text)| text.trim_end()).collect::<Vec<_>>().join("\n")
}

/// The last changes of grants and groups, by pages and by shells, as the trail tells them.
async fn changes(house: &Arc<House>, guest: &Guest) -> Result<Vec<ChangeRow>, Refusal> {
    let some = |text: &str| Some(text.to_owned());
    let once = || TrailFilter { brackets: Brackets::Once, ..TrailFilter::default() };
    let write =
        |object: OwnObject| TrailFilter { action: Some(Action::Write), resource: some(object.word()), ..once() };
    let filters = [
        write(OwnObject::Policy),
        TrailFilter { text: some("the group"), ..write(OwnObject::Users) },
        TrailFilter { kind: some("grant"), ..once() },
        TrailFilter { kind: some("group"), ..once() },
        // Those that were taken over stand above.
        TrailFilter { kind: some("policy"), outcome: Some(Outcome::Failed), ..once() },
        TrailFilter { kind: some("proposal"), ..once() },
    ];
    let mut found: BTreeMap<_, TrailRow> = BTreeMap::new();
    for filter in filters {
        let rows = house.store.search_trail(&filter, CHANGES, None).await.map_err(|e| house.unavailable(&e))?;
        found.extend(rows.into_iter().map(|row| ((row.at, row.node, row.seq), row)));
    }
    let rows = found.into_values().rev().take(usize::try_from(CHANGES).unwrap_or(50)).collect();
    let reads = house.may(guest.actor()?, Action::Read, Resource::Own(OwnObject::Audit));
    let change = |(row, told): (TrailRow, Told)| {
        let link = reads.then(|| format!("/trail/{}/{}", row.node, row.seq));
        let (by, about, words) = match told {
            Told::Event(placed) => {
                let event = placed.event;
                let shell = || "a shell on the gateway".to_owned();
                let by = event.subject.as_ref().map_or_else(shell, |s| s.name.to_string());
                // What a page changed is said in its words; a shell's event names it beside them.
                let about = if event.resource.starts_with("gateway:") { "" } else { &*event.resource };
                let words = event.reason.strip_prefix("command line: ").unwrap_or(&event.reason);
                (by, about.to_owned(), words.to_owned())
            }
            Told::Otherwise | Told::NotHere => {
                let by = row.user_name.clone().unwrap_or_default();
                (by, row.resource.clone(), "Not proven: its log is not here, or says something else.".to_owned())
            }
        };
        ChangeRow { at: house.when(row.at), by, about, words, link }
    };
    Ok(told(house, rows).await?.into_iter().map(change).collect())
}

async fn find(house: &House, number: &str) -> Result<(Vec<PolicyVersion>, usize), Refusal> {
    let number: u32 = number.parse().map_err(|_| Refusal::NotFound)?;
    let versions = house.store.policy_versions().await.map_err(|e| house.unavailable(&e))?;
    let place = versions.iter().position(|v| v.number == number).ok_or(Refusal::NotFound)?;
    Ok((versions, place))
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(number): Path<String>) -> Answer {
    shown(&house, &guest, &number, Problems::none()).await
}

async fn shown(house: &Arc<House>, guest: &Guest, number: &str, problems: Problems) -> Answer {
    let (versions, place) = find(house, number).await?;
    let version = versions.get(place).ok_or(Refusal::NotFound)?;
    let at = version.applied_at;
    let files = Files::of(version).map_err(reply::governance)?;
    let now = house.grants.past(Some(version), at).await.map_err(reply::governance)?;
    let before = house.grants.past(versions.get(place + 1), at).await.map_err(reply::governance)?;
    let names = house.store.holder_names().await.map_err(|e| house.unavailable(&e))?;
    let (inventory, hypervisors) = (house.fleet.inventory(), hypervisors(house));
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now: at };
    let mut shifts = shift_rows(&compare(before.side(), now.side(), ground), &names);
    let more_shifts = shifts.len().saturating_sub(LINES);
    shifts.truncate(LINES);
    let newest = versions.first().map_or(0, |v| v.number);
    let may = house.may(guest.actor()?, Action::Write, Resource::Own(OwnObject::Policy));
    let (preview, kept) = match (version.number == newest, may) {
        (true, _) => (None, None),
        (false, false) => (None, Some("You may read the policy, not change it.".to_owned())),
        (false, true) => match house.grants.plan(&house.engine, &files).await {
            Ok(plan) => {
                let words = format!("Version {} is taken over again, as version {}", version.number, plan.number);
                (Some(of_plan(house, words, &plan).await?), None)
            }
            Err(Error::Store(error)) => return Err(house.unavailable(&error)),
            Err(error) => (None, Some(error.to_string())),
        },
    };
    let wrong = !problems.is_empty();
    let shown = Version {
        shell: house.shell(guest).await,
        row: row(house, version, newest),
        shifts,
        more_shifts,
        came: now.rows.difference(&before.rows).cloned().collect(),
        went: before.rows.difference(&now.rows).cloned().collect(),
        files: files.0.into_iter().collect(),
        preview,
        kept,
        problems,
    };
    if wrong { again(&shown) } else { page(&shown) }
}

async fn of_plan(house: &House, words: String, plan: &Plan) -> Result<Preview, Refusal> {
    let before = Side { engine: &house.engine, held: &plan.before };
    let after = Side { engine: &plan.engine, held: &plan.after };
    foresee(house, words, before, after).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Why {
    #[serde(default)]
    why: String,
}

/// Takes an older version over again, as a new one.
pub(crate) async fn roll_back(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(number): Path<String>,
    Form(said): Form<Why>,
) -> Answer {
    let (versions, place) = find(&house, &number).await?;
    let old = versions.get(place).ok_or(Refusal::NotFound)?;
    let files = Files::of(old).map_err(reply::governance)?;
    let why = match said.why.trim() {
        "" => format!("back to version {}", old.number),
        why => why.to_owned(),
    };
    if let Some(only) = house.grants.only_files() {
        guest.say(&Step::denied("policy", &only))?;
        return shown(&house, &guest, &number, Problems::one("", only)).await;
    }
    let words = format!("version {} with SHA-256 {} is to be taken over again: {why}", old.number, old.hash);
    let change = Change::Files(files.clone(), why.clone());
    let back = format!("/policy/history/{}", old.number);
    let by = By::Person(guest.actor()?);
    // Said beforehand what is wrong with it, also where it would wait.
    if house.grants.outlook(&house.engine, by, &change).await.is_ok()
        && let Some(waits) = propose(&house, &guest, &change, &words, &why, &back).await?
    {
        return Ok(waits);
    }
    guest.intend(&house, "policy", &words).await?;
    match house.grants.apply(&house.engine, By::Person(guest.actor()?), &files, &why).await {
        Ok(version) => {
            let words = format!("version {} with SHA-256 {} is in effect: {why}", version.number, version.hash);
            guest.say(&Step::done("policy", &words))?;
            house.take_policy().await.map_err(|e| house.unavailable(&e))?;
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            let text = format!("Version {} is in effect, which says what version {} said.", version.number, old.number);
            go_with(&guest, "/policy/history", Tone::Good, text).await
        }
        Err(error @ (Error::Kept(_) | Error::BadPolicy(_))) => {
            let words = error.to_string();
            guest.say(&Step::denied("policy", &words))?;
            shown(&house, &guest, &number, Problems::one("", words)).await
        }
        Err(error) => Err(reply::governance(error)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    rows: String,
}

/// Says what rows would do if they were the policy's files, and changes nothing.
pub(crate) async fn try_rows(State(house): State<Arc<House>>, guest: Guest, Form(typed): Form<Rows>) -> Answer {
    let rows = typed.rows.replace("\r\n", "\n");
    if rows.len() > MOST_ROWS {
        let problem = Problems::one("rows", format!("At most {MOST_ROWS} bytes. Use: portcullis policy simulate"));
        return listed(&house, &guest, Some(rows), None, problem).await;
    }
    let files = Files([("rows.csv".to_owned(), rows.clone())].into());
    match house.grants.plan(&house.engine, &files).await {
        Ok(plan) => {
            let words = format!("These rows are the policy's files, as version {}", plan.number);
            let preview = of_plan(&house, words, &plan).await?;
            listed(&house, &guest, Some(rows), Some(preview), Problems::none()).await
        }
        Err(error @ (Error::Kept(_) | Error::BadPolicy(_))) => {
            listed(&house, &guest, Some(rows), None, Problems::one("rows", error.to_string())).await
        }
        Err(error) => Err(reply::governance(error)),
    }
}
