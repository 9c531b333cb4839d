// SPDX-License-Identifier: Apache-2.0
//! `portcullis request`: access requests, from a shell on the gateway's own machine.

use super::{Answer, At, Desk, say::say};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use portcullis_domain::{AccessId, Inventory, SystemClock};
use portcullis_governance::{By, Decider, RequestError, Requests};
use portcullis_policy::Engine;
use portcullis_store::{AccessRequest, AccessState};
use serde::Serialize;
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Request {
    /// List the newest requests
    List {
        /// Only those of which something can still come
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        at: At,
    },
    /// Show one request and its history
    Show {
        /// Its id
        id: AccessId,
        #[command(flatten)]
        at: At,
    },
    /// Approve a request, whoever owns what it is about
    Approve(Step),
    /// Refuse a request that has not begun
    Refuse(Step),
    /// End the access that came of a request
    End(Step),
}

#[derive(Debug, Args)]
pub(super) struct Step {
    /// Its id
    id: AccessId,
    /// What whoever asked reads
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

#[derive(Serialize)]
struct Line {
    who: String,
    role: String,
    on: String,
    state: &'static str,
    asked: String,
    until: String,
    reason: String,
    id: String,
}

#[derive(Serialize)]
struct History {
    at: String,
    what: portcullis_store::StepWhat,
    by: String,
    words: String,
}

fn when(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn line(request: AccessRequest, names: &HashMap<portcullis_domain::UserId, String>) -> Line {
    Line {
        who: names.get(&request.user).cloned().unwrap_or_default(),
        role: request.role.to_string(),
        on: request.selector.to_string(),
        state: request.state.word(),
        asked: when(request.asked),
        until: match request.state {
            AccessState::Active(_, until) | AccessState::Asked(until) | AccessState::Approved(until) => when(until),
            _ => String::new(),
        },
        reason: request.reason,
        id: request.id.to_string(),
    }
}

impl Desk {
    fn requests(&self, engine: &Engine) -> anyhow::Result<Requests> {
        let clock = Arc::new(SystemClock);
        let grants = self.grants(engine)?;
        Ok(crate::requests::requests(&self.config, engine, self.store.clone(), clock, &grants)?)
    }

    async fn names(&self) -> anyhow::Result<HashMap<portcullis_domain::UserId, String>> {
        Ok(self.store.users().await?.into_iter().map(|u| (u.id, u.name)).collect())
    }
}

/// What is done to a request.
#[derive(Clone, Copy)]
enum Deed {
    Approve,
    Refuse,
    End,
}

impl Request {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { open, at } => {
                let desk = at.open().await?;
                let requests =
                    if open { desk.store.open_accesses().await? } else { desk.store.accesses(None, 1000).await? };
                let names = desk.names().await?;
                let rows: Vec<Line> = requests.into_iter().map(|r| line(r, &names)).collect();
                at.print(&rows, &["who", "role", "on", "state", "asked", "until", "reason", "id"])?;
                Ok(Answer::Yes)
            }
            Self::Show { id, at } => {
                let desk = at.open().await?;
                let request =
                    desk.store.access(id).await?.with_context(|| format!("{id}: there is no such request"))?;
                let steps = desk.store.access_steps(id).await?;
                let row = line(request, &desk.names().await?);
                let history: Vec<History> = steps
                    .into_iter()
                    .map(|s| History { at: when(s.at), what: s.what, by: s.by_name, words: s.words })
                    .collect();
                if at.out.json {
                    say!("{}", json!({ "request": row, "history": history }));
                } else {
                    at.print(&[row], &["who", "role", "on", "state", "asked", "until", "reason", "id"])?;
                    at.print(&history, &["at", "what", "by", "words"])?;
                }
                Ok(Answer::Yes)
            }
            Self::Approve(step) => step.run(Deed::Approve).await,
            Self::Refuse(step) => step.run(Deed::Refuse).await,
            Self::End(step) => step.run(Deed::End).await,
        }
    }
}

impl Step {
    async fn run(self, deed: Deed) -> anyhow::Result<Answer> {
        let Self { id, reason, at } = self;
        let desk = at.open().await?;
        let engine = desk.engine().await?;
        let requests = desk.requests(&engine)?;
        // From a shell no inventory is known, and none is needed: it approves what nobody else has to.
        let inventory = Inventory::default();
        let decider = Decider { engine: &engine, inventory: &inventory, by: By::Shell };
        let words = match deed {
            Deed::Approve => "is approved",
            Deed::Refuse => "is refused",
            Deed::End => "ends before its time",
        };
        let work = async {
            let done = match deed {
                Deed::Approve => requests.approve(decider, id, &reason).await.map(drop),
                Deed::Refuse => requests.refuse(decider, id, &reason).await,
                Deed::End => requests.end(decider, id, &reason).await,
            };
            match done {
                Ok(()) => Ok(true),
                Err(RequestError::Late | RequestError::Unknown) => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        let done = Box::pin(desk.act("request", &id.to_string(), words, work)).await?;
        if done {
            at.out.tell(&json!({ "id": id.to_string(), "done": true }), &format!("{id} {words}."));
            return Ok(Answer::Yes);
        }
        let words = format!("{id}: there is no such request, or it stands otherwise by now.");
        at.out.tell(&json!({ "id": id.to_string(), "done": false }), &words);
        Ok(Answer::No)
    }
}
