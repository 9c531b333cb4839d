// SPDX-License-Identifier: Apache-2.0
//! `portcullis recording`: what was on the screens, and whether it is whole.

use super::{Answer, At, Desk};
use crate::{
    config::Config,
    recordings::{self, Closed},
    state::LogOf,
};
use clap::Subcommand;
use portcullis_domain::RecordingId;
use portcullis_store::RecordingFilter;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(super) enum Recording {
    /// List the newest recordings
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        at: At,
    },
    /// Check that recordings are whole and unchanged; all that have ended or were left open when none is named
    Verify {
        /// Which
        ids: Vec<RecordingId>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    id: String,
    user: String,
    machine: String,
    started: String,
    ending: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Verdict {
    id: String,
    /// None while it is being written.
    whole: Option<bool>,
    found: String,
}

impl Recording {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { limit, at } => {
                let desk = at.open().await?;
                let rows: Vec<_> = desk
                    .store
                    .recordings(&RecordingFilter::default(), limit)
                    .await?
                    .into_iter()
                    .map(|r| Line {
                        id: r.id.to_string(),
                        user: r.user_name,
                        machine: r.machine.to_string(),
                        started: r.started_at.format(&Rfc3339).unwrap_or_default(),
                        ending: r.ending.unwrap_or_else(|| "running".into()),
                        bytes: r.bytes,
                    })
                    .collect();
                at.print(&rows, &["id", "user", "machine", "started", "ending", "bytes"])?;
                Ok(Answer::Yes)
            }
            Self::Verify { ids, at } => verify(ids, &at).await,
        }
    }
}

async fn verify(ids: Vec<RecordingId>, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let all = desk.store.recordings(&RecordingFilter::default(), u32::MAX >> 1).await?;
    let running = is_running(&desk.config);
    let mut rows = Vec::new();
    for row in all.iter().filter(|r| ids.is_empty() || ids.contains(&r.id)) {
        let (whole, found) = judge(&desk, row, running);
        rows.push(Verdict { id: row.id.to_string(), whole, found });
    }
    let missing = ids.iter().filter(|id| !all.iter().any(|r| r.id == **id));
    rows.extend(missing.map(|id| Verdict {
        id: id.to_string(),
        whole: Some(false),
        found: "there is no such recording".into(),
    }));
    at.print(&rows, &["id", "whole", "found"])?;
    // One that is named must be whole; among all of them, one that is being written is no finding.
    let yes = rows.iter().all(|r| r.whole.unwrap_or(ids.is_empty()));
    Ok(if yes { Answer::Yes } else { Answer::No })
}

fn judge(desk: &Desk, row: &portcullis_store::Recording, running: Running) -> (Option<bool>, String) {
    if row.ended_at.is_none() && running == Running::Yes {
        return (None, "it has no end yet: it is being written, or the gateway is about to end it".to_owned());
    }
    let found = recordings::examine(&desk.config.recordings.dir, &desk.keys, row);
    let proved = found.proved.map(|p| format!("{} chunks, {} bytes", p.chunks, p.bytes)).unwrap_or_default();
    if let Some(wrong) = found.wrong {
        let left = if found.closed == Closed::No { format!("; as they were sealed: {proved}") } else { String::new() };
        return (Some(false), format!("{wrong}{left}"));
    }
    match (row.ended_at, row.head) {
        (None, _) => (Some(false), format!("the store knows no end of it, the file has one: {proved}")),
        (Some(_), None) => {
            let why = row.ending.as_deref().unwrap_or("no reason was stored");
            (Some(false), format!("the store does not know its last chunk ({why}); the file: {proved}"))
        }
        (Some(_), Some(head)) if found.proved.is_some_and(|p| p.head == head) => (Some(true), proved),
        (Some(_), Some(_)) => {
            (Some(false), "it is not the recording that the store knows: its last chunk differs".to_owned())
        }
    }
}

/// Whether a gateway writes recordings here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Running {
    Yes,
    No,
}

/// A gateway that runs holds the lock of its log; asking holds it for a moment, which a start waits for.
fn is_running(config: &Config) -> Running {
    let lock = std::fs::File::open(LogOf::Server.dir(config).join("lock"));
    match lock.map(|file| file.try_lock_shared()) {
        Ok(Err(std::fs::TryLockError::WouldBlock)) => Running::Yes,
        Ok(_) | Err(_) => Running::No,
    }
}
