// SPDX-License-Identifier: Apache-2.0
//! `portcullis secrets`: what the gateway shows to hypervisors, without showing it to anybody.
//!
//! What a rotation does, step by step, stands in [`super::rotation`].

use super::{
    Answer, At,
    claim::alone,
    rotation::{Sure, Turn, Wish},
};
use crate::secrets::{self, Opened, name_of};
use anyhow::{Context as _, bail};
use clap::Subcommand;
use portcullis_domain::{Clock as _, HypervisorName, Secret, SystemClock};
use portcullis_store::{Claim, HypervisorSecret};
use portcullis_upstream::{Outbound, SecretName};
use serde::Serialize;
use serde_json::json;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The longest secret that is read from standard input, bytes.
const LONGEST: u64 = 256 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// List them: where each comes from, how old it is and when it was used last, never what it is
    List {
        #[command(flatten)]
        at: At,
    },
    /// Replace one. Where the hypervisor can make or take a new one it is made there, tried, kept sealed in the store,
    /// taken into use and the old one is taken away; elsewhere give it with --from. From then on the store's is used, and
    /// not the one that the configuration names
    Rotate {
        /// The hypervisor
        hypervisor: HypervisorName,
        /// Which of its credentials, as `secrets list` shows it
        #[arg(long = "for", default_value = "default")]
        credential: String,
        /// A new one that was made by hand: a file that only its owner may read, or - for standard input
        #[arg(long)]
        from: Option<PathBuf>,
        /// Make no new one: only end what an earlier rotation left, such as an old one that counts at the hypervisor still
        #[arg(long, conflicts_with = "from")]
        finish: bool,
        /// Do not ask, where a new one changes more than what the gateway shows
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        at: At,
    },
    /// Forget a rotated one: what the configuration names is used again
    Forget {
        /// The hypervisor
        hypervisor: HypervisorName,
        /// Which of its credentials
        #[arg(long = "for", default_value = "default")]
        credential: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    hypervisor: String,
    credential: String,
    source: String,
    in_use: &'static str,
    days: Option<i64>,
    since: String,
    by: String,
    used: String,
    trouble: String,
    /// What a rotation did not end, or who changes it now.
    open: String,
}

fn when(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.replace_nanosecond(0).ok()).and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

impl Secrets {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => list(&at).await,
            Self::Rotate { hypervisor, credential, from, finish, yes, at } => {
                let name = SecretName { hypervisor, credential };
                let desk = at.open().await?;
                let wish = match (from.as_deref().map(given).transpose()?, finish) {
                    (Some(given), _) => Wish::Given(given),
                    (None, true) => Wish::Finish,
                    (None, false) => Wish::New(if yes { Sure::Yes } else { Sure::Ask }),
                };
                let turn = Turn { desk: &desk, name: &name };
                let told = Box::pin(turn.run(wish)).await?;
                at.out.tell(&json!({ "secret": name.to_string(), "rotated": !finish, "notes": told }), &told.join(" "));
                Ok(Answer::Yes)
            }
            Self::Forget { hypervisor, credential, at } => {
                let name = SecretName { hypervisor, credential };
                let desk = at.open().await?;
                let words = "its rotated secret is forgotten, and the configuration's is used";
                // What was never rotated, nor used, leaves no row behind.
                let row = desk.store.hypervisor_secret(&name.hypervisor, &name.credential).await?;
                let done = row.is_some() && {
                    let forget = async |claim: &Claim| {
                        let deed = async { Ok(desk.store.forget_secret(claim).await?) };
                        Box::pin(desk.act("secret", &name.to_string(), words, deed)).await
                    };
                    Box::pin(alone(&desk, &name, forget)).await?
                };
                let said = if done { "What the configuration names is used again." } else { "It was not rotated." };
                at.out.tell(&json!({ "secret": name.to_string(), "forgotten": done }), said);
                Ok(if done { Answer::Yes } else { Answer::No })
            }
        }
    }
}

/// What a rotation did not end.
pub(super) fn left(row: &HypervisorSecret) -> String {
    let mut all = Vec::new();
    if let Some(claimant) = row.claimant.as_ref().filter(|c| c.until > SystemClock.now()) {
        all.push(format!("{} changes it since {}", claimant.by, when(Some(claimant.since))));
    } else {
        if row.has_next() {
            all.push("a rotation broke off: portcullis secrets rotate --finish".to_owned());
        }
        if row.has_former() {
            all.push("the one before counts at the hypervisor still: portcullis secrets rotate --finish".to_owned());
        }
    }
    all.join("; ")
}

async fn list(at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let Opened { fleet, .. } = secrets::open(&desk.config, &desk.keys, &desk.store, Arc::new(SystemClock)).await?;
    let rows = desk.store.hypervisor_secrets().await?;
    let now = SystemClock.now();
    let states = fleet.secrets().states();
    let is_well = states.iter().all(|s| s.is_there && s.trouble.is_none());
    let lines: Vec<Line> = states
        .into_iter()
        .map(|state| {
            let row = rows.iter().find(|row| name_of(row) == state.name);
            let made = row.and_then(|row| row.made.clone());
            let since = made.as_ref().map(|(at, _)| *at).or(state.since);
            Line {
                hypervisor: state.name.hypervisor.to_string(),
                credential: state.name.credential,
                source: state.source,
                in_use: match (made.is_some(), state.is_there) {
                    (true, _) => "store",
                    (false, true) => "source",
                    (false, false) => "none",
                },
                days: since.map(|at| (now - at).whole_days()),
                since: when(since),
                by: made.map(|(_, by)| by).unwrap_or_default(),
                used: when(row.and_then(|row| row.used_at)),
                trouble: state.trouble.unwrap_or_default(),
                open: row.map(left).unwrap_or_default(),
            }
        })
        .collect();
    at.print(&lines, &["hypervisor", "credential", "source", "in_use", "days", "by", "used", "trouble", "open"])?;
    Ok(if is_well { Answer::Yes } else { Answer::No })
}

/// A secret that somebody brings.
pub(super) fn given(from: &Path) -> anyhow::Result<Secret> {
    if from.as_os_str() != "-" {
        return Ok(Outbound::read_secret("--from", from)?);
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(LONGEST + 1).read_to_end(&mut bytes).context("standard input cannot be read")?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.len() as u64 > LONGEST {
        bail!("--from: there is no secret on standard input, or it is too long");
    }
    Ok(Secret::new(bytes))
}
