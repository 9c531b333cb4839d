// SPDX-License-Identifier: Apache-2.0
//! The trail: who did what, to which machine, when, and how it came out. Reading it is an event too.

use crate::{
    guest::Guest,
    logs::{self, Survey, Told},
    pages::{Answer, encode, page},
    reply::Refusal,
    state::{House, chain},
    view::{Problems, Trail, TrailEvent, TrailFilter, TrailRow, Verified},
};
use axum::extract::{Path, Query, State};
use portcullis_audit::{Finding, Grade, Known, Report};
use portcullis_domain::{Event, NodeId, Outcome, Phase, Seq};
use portcullis_store::{Brackets, TrailFilter as Filter, TrailPlace, TrailRow as Row};
use serde::Deserialize;
use std::sync::Arc;
use time::{Date, Duration, OffsetDateTime, Time, format_description::well_known::Iso8601};

/// Events on one page.
const PAGE: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    who: String,
    what: String,
    machine: String,
    outcome: String,
    from: String,
    to: String,
    before: String,
}

pub(crate) async fn search(State(house): State<Arc<House>>, guest: Guest, Query(asked): Query<Asked>) -> Answer {
    let mut problems = Problems::none();
    let filter = filter(&asked, &mut problems);
    let before = place(&asked.before);
    let rows = house.store.search_trail(&filter, PAGE, before).await.map_err(|e| house.unavailable(&e))?;
    let address = address(&asked);
    let older =
        (rows.len() == PAGE as usize).then(|| rows.last().map(|r| format!("{address}&before={}", spell(r)))).flatten();
    let newest = before.is_some().then(|| address.clone());
    let rows = told(&house, rows).await?.iter().map(|(row, told)| line(&house, row, told)).collect();
    let Asked { who, what, machine, outcome, from, to, .. } = asked;
    page(&Trail {
        shell: house.shell(&guest).await,
        filter: TrailFilter { who, what, machine, outcome, from, to },
        rows,
        older,
        newest,
        verified: house.verified(),
        problems,
    })
}

/// What is typed, as the index understands it. A word that is an action's is searched as one, any other as a kind.
fn filter(asked: &Asked, problems: &mut Problems) -> Filter {
    let some = |text: &str| Some(text.trim().to_owned()).filter(|t| !t.is_empty());
    let mut filter = Filter { user_name: some(&asked.who), resource: some(&asked.machine), ..Filter::default() };
    // Who reads a page wants each operation once; the event's own page names the other end of the bracket.
    filter.brackets = Brackets::Once;
    match asked.what.trim().parse() {
        Ok(action) => filter.action = Some(action),
        Err(_) => filter.kind = some(&asked.what),
    }
    filter.outcome = Trail::OUTCOMES.into_iter().find(|o| o.word() == asked.outcome);
    if filter.outcome.is_none() && !asked.outcome.is_empty() {
        problems.add("outcome", "Choose one of the list.");
    }
    let mut day = |field, text: &str| {
        let date = some(text).map(|t| Date::parse(&t, &Iso8601::DATE));
        match date {
            None => None,
            Some(Ok(date)) => Some(OffsetDateTime::new_utc(date, Time::MIDNIGHT)),
            Some(Err(_)) => {
                problems.add(field, "Write the day as 2026-01-31.");
                None
            }
        }
    };
    filter.from = day("from", &asked.from);
    filter.until = day("to", &asked.to).map(|d| d.saturating_add(Duration::DAY));
    filter
}

fn address(asked: &Asked) -> String {
    let Asked { who, what, machine, outcome, from, to, .. } = asked;
    let fields = [("who", who), ("what", what), ("machine", machine), ("outcome", outcome), ("from", from), ("to", to)];
    let parts: Vec<String> =
        fields.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", encode(v))).collect();
    format!("/trail?{}", parts.join("&"))
}

/// A place in the list, as it stands in an address: microseconds, node, number.
fn spell(row: &Row) -> String {
    format!("{}.{}.{}", portcullis_domain::micros(row.at), row.node, row.seq)
}

fn place(text: &str) -> Option<TrailPlace> {
    let mut parts = text.split('.');
    let at = parts.next()?.parse::<i64>().ok()?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000).ok()?;
    let node: NodeId = parts.next()?.parse().ok()?;
    let seq = Seq(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(TrailPlace { at, node, seq })
}

/// What the log says of each event that the index found.
pub(crate) async fn told(house: &Arc<House>, rows: Vec<Row>) -> Result<Vec<(Row, Told)>, Refusal> {
    let reading = Arc::clone(house);
    let read = tokio::task::spawn_blocking(move || {
        let told = logs::read(&reading.config, &rows);
        rows.into_iter().zip(told).collect()
    });
    read.await.map_err(|e| house.unavailable(&e))
}

/// A line of the list: what the log says, or that the log says otherwise than the index.
fn line(house: &House, row: &Row, told: &Told) -> TrailRow {
    match told {
        Told::Event(placed) => shown(house, row, &placed.event),
        Told::Otherwise => TrailRow {
            who: String::new(),
            what: "not proven".to_owned(),
            on: String::new(),
            outcome: Outcome::Failed,
            reason: otherwise(row),
            ..of_row(house, row)
        },
        Told::NotHere => {
            TrailRow { reason: format!("Not proven, its log is not here. {}", row.reason), ..of_row(house, row) }
        }
    }
}

/// What the index says; only where there is nothing better, and said to be so.
fn of_row(house: &House, row: &Row) -> TrailRow {
    TrailRow {
        href: format!("/trail/{}/{}", row.node, row.seq),
        number: row.seq.0,
        at: house.when(row.at),
        who: row.user_name.clone().unwrap_or_default(),
        what: row.action.map_or_else(|| row.kind.clone(), |a| a.word().to_owned()),
        on: row.resource.clone(),
        outcome: row.outcome,
        reason: String::new(),
    }
}

/// What the log says.
fn shown(house: &House, row: &Row, event: &Event) -> TrailRow {
    TrailRow {
        href: format!("/trail/{}/{}", row.node, row.seq),
        number: row.seq.0,
        at: house.when(event.at()),
        who: event.subject.as_ref().map(|s| s.name.to_string()).unwrap_or_default(),
        what: event.action.map_or_else(|| event.kind.to_string(), |a| a.word().to_owned()),
        on: event.resource.to_string(),
        outcome: event.outcome,
        reason: event.reason.to_string(),
    }
}

fn otherwise(row: &Row) -> String {
    format!(
        "The log does not hold this event as the index says: node {}, segment {}, byte {}. Run: portcullis audit verify",
        row.node, row.segment, row.offset
    )
}

/// One event, read from the log itself: the index only says where it stands.
pub(crate) async fn show(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path((node, number)): Path<(String, u64)>,
) -> Answer {
    let node: NodeId = node.parse().map_err(|_| Refusal::NotFound)?;
    let seq = Seq(number);
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let indexed = house.store.trail_row(node, seq).await.map_err(failed)?.ok_or(Refusal::NotFound)?;
    let Some((indexed, told)) = told(&house, vec![indexed]).await?.pop() else { return Err(Refusal::NotFound) };
    let event = match told {
        Told::Event(placed) => placed.event,
        Told::Otherwise => return Err(Refusal::Unavailable(otherwise(&indexed))),
        Told::NotHere => {
            let words = format!("This event is in the log of node {node}, which is not here.");
            return Err(Refusal::Unavailable(words));
        }
    };
    let pair = match event.phase {
        Phase::Closed(opened) => Some((format!("/trail/{node}/{opened}"), format!("opened by event {opened}"))),
        Phase::Opened => house
            .store
            .trail_closing(node, seq)
            .await
            .map_err(failed)?
            .map(|closed| (format!("/trail/{node}/{closed}"), format!("closed by event {closed}"))),
        Phase::Noted => None,
    };
    let mut details = logs::details(&event);
    if let Some(peer) = event.peer {
        details.insert(0, ("address".into(), peer.to_string()));
    }
    page(&TrailEvent {
        shell: house.shell(&guest).await,
        row: shown(&house, &indexed, &event),
        phase: match event.phase {
            Phase::Opened => "opened",
            Phase::Closed(_) => "closed",
            Phase::Noted => "noted",
        }
        .to_owned(),
        pair,
        node: node.to_string(),
        request: event.request.to_string(),
        details,
    })
}

impl House {
    /// How the last look at the whole trail came out; `portcullis audit verify` looks again.
    fn verified(&self) -> Verified {
        let last = self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*last {
            None => Verified::NotYet,
            Some((at, report)) if is_whole(report) => Verified::Whole { at: self.when(*at), events: report.events },
            Some((at, report)) => {
                let findings = report.findings.iter().take(20).map(ToString::to_string).collect();
                Verified::Broken { at: self.when(*at), findings }
            }
        }
    }
}

fn is_whole(report: &Report) -> bool {
    report.findings.iter().all(|f| f.grade == Grade::Warning)
}

/// Logs that the store knows of and that are gone or shorter.
fn missed(survey: &Survey) -> Vec<Finding> {
    let finding = |loss: &logs::Loss| Finding {
        grade: Grade::Broken,
        file: format!("node {}", loss.node),
        offset: 0,
        length: 0,
        seq: Seq(0),
        what: loss.to_string(),
    };
    survey.losses.iter().map(finding).collect()
}

/// Looks at the whole trail at the start and every day, on a thread of its own: it reads every byte.
pub(crate) async fn watch(house: Arc<House>) {
    loop {
        let looking = Arc::clone(&house);
        let (known, missed) = match Survey::make(&house.config, &house.store).await {
            Ok(survey) => (survey.newest(house.trail.node()), missed(&survey)),
            Err(error) => {
                tracing::error!(error = %chain(&error), "the trail could not be compared with the store");
                (None, vec![])
            }
        };
        let looked = tokio::task::spawn_blocking(move || {
            let dir = crate::state::LogOf::Server.dir(&looking.config);
            let known = Known { node: Some(looking.trail.node()), indexed: known, head: None };
            portcullis_audit::verify(&dir, &crate::state::trail_keys(&looking.keys), &known)
        });
        match looked.await {
            Ok(Ok(mut report)) => {
                report.findings.extend(missed);
                if !is_whole(&report) {
                    tracing::error!(
                        findings = report.findings.len(),
                        "the trail is not whole: run `portcullis audit verify`"
                    );
                }
                let mut last = house.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *last = Some((house.clock.now(), report));
            }
            Ok(Err(error)) => tracing::error!(%error, "the trail could not be checked"),
            Err(_) => tracing::error!("the check of the trail was interrupted"),
        }
        tokio::time::sleep(std::time::Duration::from_hours(24)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_survives_its_address() {
        let text = "1700000000000001.00000000000000000000000000000007.42";
        let place = place(text).expect("a place");
        assert_eq!(place.seq, Seq(42));
        for bad in ["", "1.2", "x.00000000000000000000000000000007.42", "1.00000000000000000000000000000007.42.1"] {
            assert!(super::place(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_day_that_is_none_is_named() {
        let mut problems = Problems::none();
        let asked = Asked {
            from: "31.1.2026".into(),
            outcome: "maybe".into(),
            what: "console.control".into(),
            ..Asked::default()
        };
        let filter = filter(&asked, &mut problems);
        assert!(!problems.of("from").is_empty() && !problems.of("outcome").is_empty());
        assert_eq!(filter.action, Some(portcullis_domain::Action::ConsoleControl));
        assert_eq!(portcullis_domain::Outcome::Done.word(), "done");
    }
}
