// SPDX-License-Identifier: Apache-2.0
//! `portcullis audit`: the trail, read and checked from a shell.

use super::{
    Answer, At, Desk,
    say::{complain, say},
};
use crate::{
    logs::{self, Survey, Told},
    state::{LogOf, trail_keys},
};
use clap::Subcommand;
use portcullis_audit::{Grade, Known, Reader};
use portcullis_domain::{Clock as _, Event, Outcome, Phase, Seq, SystemClock, counted};
use portcullis_store::{TrailFilter, TrailRow};
use serde::Serialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that nothing was cut, edited, reordered or swapped in any log of this installation
    Verify {
        #[command(flatten)]
        at: At,
    },
    /// Print the newest events
    Tail {
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: u32,
        #[command(flatten)]
        at: At,
    },
    /// Find events
    Search {
        /// A person's name
        #[arg(long)]
        user: Option<String>,
        /// A machine or other resource, or a part of it
        #[arg(long)]
        resource: Option<String>,
        /// An action, such as console.control
        #[arg(long)]
        action: Option<portcullis_domain::Action>,
        /// A kind of event: api, console, page, sign-in, grant, user, system
        #[arg(long)]
        kind: Option<String>,
        /// done, denied, step-up, failed, abandoned or pending
        #[arg(long)]
        outcome: Option<String>,
        /// From this instant, as 2026-01-31T12:00:00Z
        #[arg(long, value_parser = instant)]
        from: Option<OffsetDateTime>,
        /// Until before this instant
        #[arg(long, value_parser = instant)]
        until: Option<OffsetDateTime>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        at: At,
    },
    /// Say that a log, or the end of one, is gone, so that the gateway starts again; it stands in the trail from then on
    Acknowledge {
        /// What happened
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// Make the search index anew from the logs
    Rebuild {
        #[command(flatten)]
        at: At,
    },
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Line {
    at: String,
    seq: u64,
    phase: String,
    who: String,
    /// From where.
    from: Option<std::net::IpAddr>,
    what: String,
    on: String,
    outcome: &'static str,
    reason: String,
    /// What else the log says of it, by name: `status`, `bytes`, `grants`, `presented` … No name or value is a secret.
    details: serde_json::Map<String, serde_json::Value>,
    request: String,
    node: String,
    /// Where it was read: `log`; `index` when its log is not here; `mismatch` when the log says otherwise.
    source: &'static str,
}

#[derive(Serialize)]
struct Finding {
    log: String,
    grade: &'static str,
    place: String,
    what: String,
}

const FOUND: &[&str] = &["grade", "log", "place", "what"];
const COLUMNS: &[&str] = &["at", "seq", "phase", "who", "what", "on", "outcome", "reason", "details"];

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::Verify { at } => verify(&at).await,
            Self::Tail { lines, at } => list(&at, TrailFilter::default(), lines).await,
            Self::Search { user, resource, action, kind, outcome, from, until, limit, at } => {
                let outcome = match outcome.as_deref() {
                    None => None,
                    Some(word) => Some(
                        [
                            Outcome::Done,
                            Outcome::Denied,
                            Outcome::StepUp,
                            Outcome::Failed,
                            Outcome::Abandoned,
                            Outcome::Pending,
                        ]
                        .into_iter()
                        .find(|o| o.word() == word)
                        .ok_or_else(|| {
                            anyhow::anyhow!("{word}: use done, denied, step-up, failed, abandoned or pending")
                        })?,
                    ),
                };
                let filter = TrailFilter {
                    user_name: user,
                    resource,
                    action,
                    kind,
                    outcome,
                    from,
                    until,
                    ..TrailFilter::default()
                };
                list(&at, filter, limit).await
            }
            Self::Acknowledge { reason, at } => acknowledge(&at, reason.trim()).await,
            Self::Rebuild { at } => {
                let desk = at.open().await?;
                let survey = Survey::make(&desk.config, &desk.store).await?;
                // The index may be all that still knows of an end that was cut.
                survey.refuse(&desk.config)?;
                for log in survey.found {
                    let events = portcullis_audit::rebuild(&Reader::new(&log.dir), &desk.store).await?;
                    let dir = log.dir.display().to_string();
                    at.out.tell(
                        &json!({ "log": dir, "events": events }),
                        &format!("{dir}: {} indexed", counted(events, "event", "events")),
                    );
                }
                Ok(Answer::Yes)
            }
        }
    }
}

/// What the log says of an event; the index only found it.
fn line(row: &TrailRow, told: Told) -> Line {
    let at = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let phase = |phase| match phase {
        Phase::Opened => "opened".to_owned(),
        Phase::Closed(seq) => format!("closed {seq}"),
        Phase::Noted => "noted".to_owned(),
    };
    let (seq, node) = (row.seq.0, row.node.to_string());
    match told {
        Told::Event(placed) => {
            let event: Event = placed.event;
            Line {
                details: logs::details(&event).into_iter().map(|(k, v)| (k, v.into())).collect(),
                at: at(event.at()),
                seq,
                phase: phase(event.phase),
                from: event.peer,
                who: event.subject.map(|s| s.name.to_string()).unwrap_or_default(),
                what: event.action.map_or_else(|| event.kind.to_string(), |a| a.word().to_owned()),
                on: event.resource.to_string(),
                outcome: event.outcome.word(),
                reason: event.reason.to_string(),
                request: event.request.to_string(),
                node,
                source: "log",
            }
        }
        Told::Otherwise => Line {
            at: String::new(),
            seq,
            phase: String::new(),
            who: String::new(),
            from: None,
            what: String::new(),
            on: String::new(),
            outcome: "mismatch",
            reason: format!(
                "the index does not say what the log holds in segment {}, byte {}; run: portcullis audit verify, then \
                 portcullis audit rebuild",
                row.segment, row.offset
            ),
            details: serde_json::Map::new(),
            request: String::new(),
            node,
            source: "mismatch",
        },
        Told::NotHere => Line {
            at: at(row.at),
            seq,
            phase: phase(row.phase),
            who: row.user_name.clone().unwrap_or_default(),
            from: row.peer,
            what: row.action.map_or_else(|| row.kind.clone(), |a| a.word().to_owned()),
            on: row.resource.clone(),
            outcome: row.outcome.word(),
            reason: format!("not proven, its log is not here: {}", row.reason),
            // The index holds none.
            details: serde_json::Map::new(),
            request: row.request.to_string(),
            node,
            source: "index",
        },
    }
}

async fn list(at: &At, filter: TrailFilter, limit: u32) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let mut rows = desk.store.search_trail(&filter, limit.clamp(1, 10_000), None).await?;
    rows.reverse();
    let told = logs::read(&desk.config, &rows);
    let lines: Vec<Line> = rows.iter().zip(told).map(|(row, told)| line(row, told)).collect();
    at.print(&lines, COLUMNS)?;
    let wrong = lines.iter().filter(|l| l.source == "mismatch").count();
    if wrong > 0 {
        complain!("{wrong} of these events do not stand in the log as the index says. Run: portcullis audit verify");
    }
    Ok(if lines.is_empty() || wrong > 0 { Answer::No } else { Answer::Yes })
}

/// Writes into the trail what of it is gone, and lets the gateway start without it.
async fn acknowledge(at: &At, reason: &str) -> anyhow::Result<Answer> {
    if reason.is_empty() || reason.len() > 300 || reason.chars().any(char::is_control) {
        anyhow::bail!("--reason: say in 1 to 300 letters what happened");
    }
    let desk = at.open().await?;
    let losses = Survey::make(&desk.config, &desk.store).await?.losses;
    if losses.is_empty() {
        say!("Nothing is missing.");
        return Ok(Answer::No);
    }
    // What is said about it is written into a whole log, so one that was cut goes first.
    logs::set_aside(&desk.config, LogOf::CommandLine, &losses)?;
    let words = format!("a loss of the trail is acknowledged: {reason}; {}", logs::tell(&losses));
    let deed = async {
        logs::set_aside(&desk.config, LogOf::Server, &losses)?;
        let place = logs::place(&desk.config);
        Ok(desk.store.acknowledge_trail(&logs::acknowledged(&losses), &place, SystemClock.now()).await?)
    };
    Box::pin(desk.note("audit", "gateway:audit", &words, deed)).await?;
    say!("Acknowledged: {}.", logs::tell(&losses));
    Ok(Answer::Yes)
}

/// Checks every log in the trail's folder, each against what the index remembers of its end: a cut tail leaves the
/// log itself looking whole, and one that was deleted leaves nothing.
async fn verify(at: &At) -> anyhow::Result<Answer> {
    let desk: Desk = at.open().await?;
    let survey = Survey::make(&desk.config, &desk.store).await?;
    let (mut findings, mut events) = (Vec::new(), 0);
    for log in survey.found.iter().filter(|log| !survey.is_given_up(log.node)) {
        let indexed: Option<Seq> = survey.newest(log.node);
        let known = Known { node: Some(log.node), indexed, head: None };
        let report = portcullis_audit::verify(&log.dir, &trail_keys(&desk.keys), &known)?;
        events += report.events;
        findings.extend(report.findings.iter().map(|f| Finding {
            log: log.dir.display().to_string(),
            grade: if f.grade == Grade::Broken { "broken" } else { "warning" },
            place: format!("{} byte {} event {}", f.file, f.offset, f.seq),
            what: f.what.clone(),
        }));
        if !at.out.json {
            say!(
                "{}: {} in {}, {}, root {}",
                log.dir.display(),
                counted(report.events, "event", "events"),
                counted(report.segments, "segment", "segments"),
                counted(report.checkpoints, "signed checkpoint", "signed checkpoints"),
                report.head.map(|h| hex::encode(h.root)).unwrap_or_default()
            );
        }
    }
    findings.extend(survey.losses.iter().map(|loss| Finding {
        log: desk.config.trail.dir.display().to_string(),
        grade: "broken",
        place: format!("node {}", loss.node),
        what: loss.to_string(),
    }));
    if survey.found.is_empty() && findings.is_empty() {
        anyhow::bail!("{}: there is no log here", desk.config.trail.dir.display());
    }
    if !at.out.json {
        for log in &survey.elsewhere {
            let known = counted(log.known, "event", "events");
            say!("{}: {known} of node {}, not here", log.place.as_deref().unwrap_or("?"), log.node);
        }
    }
    let broken = findings.iter().any(|f| f.grade == "broken");
    if !broken {
        if !findings.is_empty() {
            at.print(&findings, FOUND)?;
        }
        if at.out.json {
            say!("{}", json!({ "whole": true, "events": events, "logs": survey.found.len() }));
        } else {
            let all = counted(events, "event", "events");
            say!("The trail is whole: {all}, nothing cut, edited, reordered or swapped.");
        }
        return Ok(Answer::Yes);
    }
    at.print(&findings, FOUND)?;
    Ok(Answer::No)
}
