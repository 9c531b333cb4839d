// SPDX-License-Identifier: Apache-2.0
//! `portcullis audit`: the trail, read and checked from a shell.

use super::{Answer, At, Desk};
use crate::state::{LogOf, trail_keys};
use clap::Subcommand;
use portcullis_audit::{Grade, Known, Reader};
use portcullis_domain::{NodeId, Outcome};
use portcullis_store::TrailFilter;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
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
    what: String,
    on: String,
    outcome: &'static str,
    reason: String,
    request: String,
    node: String,
}

#[derive(Serialize)]
struct Finding {
    log: String,
    grade: &'static str,
    place: String,
    what: String,
}

const FOUND: &[&str] = &["grade", "log", "place", "what"];
const COLUMNS: &[&str] = &["at", "seq", "phase", "who", "what", "on", "outcome", "reason"];

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
            Self::Rebuild { at } => {
                let desk = at.open().await?;
                for of in [LogOf::Server, LogOf::CommandLine] {
                    let dir = of.dir(&desk.config);
                    if node_of(&dir)?.is_some() {
                        let events = portcullis_audit::rebuild(&Reader::new(&dir), &desk.store).await?;
                        let dir = dir.display().to_string();
                        at.out
                            .tell(&json!({ "log": dir, "events": events }), &format!("{dir}: {events} events indexed"));
                    }
                }
                Ok(Answer::Yes)
            }
        }
    }
}

fn node_of(dir: &Path) -> anyhow::Result<Option<NodeId>> {
    match std::fs::read_to_string(dir.join("node")) {
        Ok(text) => Ok(Some(text.trim().parse()?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::anyhow!("{}: {error}", dir.display())),
    }
}

async fn list(at: &At, filter: TrailFilter, limit: u32) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let mut rows = desk.store.search_trail(&filter, limit.clamp(1, 10_000), None).await?;
    rows.reverse();
    let rows: Vec<_> = rows
        .into_iter()
        .map(|r| Line {
            at: r.at.format(&Rfc3339).unwrap_or_default(),
            seq: r.seq.0,
            phase: match r.phase {
                portcullis_domain::Phase::Opened => "opened".into(),
                portcullis_domain::Phase::Closed(seq) => format!("closed {seq}"),
                portcullis_domain::Phase::Noted => "noted".into(),
            },
            who: r.user_name.unwrap_or_default(),
            what: r.action.map_or(r.kind, |a| a.word().to_owned()),
            on: r.resource,
            outcome: r.outcome.word(),
            reason: r.reason,
            request: r.request.to_string(),
            node: r.node.to_string(),
        })
        .collect();
    at.print(&rows, COLUMNS)?;
    Ok(if rows.is_empty() { Answer::No } else { Answer::Yes })
}

/// Checks every log in the trail's folder, each against what the index remembers of its end: a cut tail leaves the
/// log itself looking whole.
async fn verify(at: &At) -> anyhow::Result<Answer> {
    let desk: Desk = at.open().await?;
    let (mut findings, mut events, mut logs) = (Vec::new(), 0, 0);
    for of in [LogOf::Server, LogOf::CommandLine] {
        let dir = of.dir(&desk.config);
        let Some(node) = node_of(&dir)? else { continue };
        let indexed = desk.store.trail_head(node).await?;
        let known = Known { node: Some(node), indexed, head: None };
        let report = portcullis_audit::verify(&dir, &trail_keys(&desk.keys), &known)?;
        logs += 1;
        events += report.events;
        findings.extend(report.findings.iter().map(|f| Finding {
            log: dir.display().to_string(),
            grade: if f.grade == Grade::Broken { "broken" } else { "warning" },
            place: format!("{} byte {} event {}", f.file, f.offset, f.seq),
            what: f.what.clone(),
        }));
        if !at.out.json {
            println!(
                "{}: {} events in {} segments, {} signed checkpoints, root {}",
                dir.display(),
                report.events,
                report.segments,
                report.checkpoints,
                report.head.map(|h| hex::encode(h.root)).unwrap_or_default()
            );
        }
    }
    if logs == 0 {
        anyhow::bail!("{}: there is no log here", desk.config.trail.dir.display());
    }
    let broken = findings.iter().any(|f| f.grade == "broken");
    if !broken {
        if !findings.is_empty() {
            at.print(&findings, FOUND)?;
        }
        if at.out.json {
            println!("{}", json!({ "whole": true, "events": events, "logs": logs }));
        } else {
            println!("The trail is whole: {events} events, nothing cut, edited, reordered or swapped.");
        }
        return Ok(Answer::Yes);
    }
    at.print(&findings, FOUND)?;
    Ok(Answer::No)
}
