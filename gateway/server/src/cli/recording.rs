// SPDX-License-Identifier: Apache-2.0
//! `portcullis recording`: what was on the screens, and whether it is whole.

use super::{Answer, At};
use clap::Subcommand;
use portcullis_console::record;
use portcullis_domain::RecordingId;
use portcullis_store::{Place, RecordingFilter};
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
    /// Check that recordings are whole and unchanged; all of them when none is named
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
    whole: bool,
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
    let chosen = all.into_iter().filter(|r| if ids.is_empty() { r.ended_at.is_some() } else { ids.contains(&r.id) });
    let mut rows = Vec::new();
    for row in chosen {
        let id = row.id.to_string();
        let key = desk.keys.open(&Place { table: "recordings", row: &id, column: "sealed_key" }, &row.sealed_key)?;
        let path = record::path_of(&desk.config.recordings.dir, row.id);
        let (whole, found) = match record::verify(&path, row.id, &key) {
            Ok(summary) if row.head.is_none_or(|head| head == summary.head) => {
                (true, format!("{} chunks, {} bytes", summary.chunks, summary.bytes))
            }
            Ok(_) => (false, "it is not the recording that the store knows: its last chunk differs".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        rows.push(Verdict { id, whole, found });
    }
    let missing = ids.iter().filter(|id| !rows.iter().any(|r| r.id == id.to_string()));
    rows.extend(
        missing
            .map(|id| Verdict { id: id.to_string(), whole: false, found: "there is no such recording".into() })
            .collect::<Vec<_>>(),
    );
    at.print(&rows, &["id", "whole", "found"])?;
    Ok(if rows.iter().all(|r| r.whole) { Answer::Yes } else { Answer::No })
}
