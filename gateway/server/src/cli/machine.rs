// SPDX-License-Identifier: Apache-2.0
//! `portcullis hypervisor` and `portcullis machine`: what stands behind the gateway, asked directly.

use super::{Answer, At};
use crate::secrets::{self, Opened};
use clap::Subcommand;
use portcullis_domain::SystemClock;
use portcullis_upstream::{Fleet, HealthState};
use serde::Serialize;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Hypervisor {
    /// List them and whether they answer
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add one: shows the certificate that it met and asks, tries the credential, lists the machines, and writes its
    /// section into the configuration
    Add(Box<super::add::Add>),
}

#[derive(Debug, Subcommand)]
pub(super) enum Machine {
    /// List every machine
    List {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct HypervisorLine {
    name: String,
    kind: String,
    address: String,
    state: String,
    machines: usize,
}

#[derive(Serialize)]
struct MachineLine {
    hypervisor: String,
    id: String,
    name: String,
    state: &'static str,
    pool: Option<String>,
    tags: Vec<String>,
}

pub(super) async fn asked(at: &At) -> anyhow::Result<Fleet> {
    let desk = at.open().await?;
    let Opened { fleet, .. } = secrets::open(&desk.config, &desk.keys, &desk.store, Arc::new(SystemClock)).await?;
    fleet.refresh_once().await;
    Ok(fleet)
}

impl Hypervisor {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let at = match self {
            Self::Add(add) => return Box::pin(add.run()).await,
            Self::List { at } => at,
        };
        let health = asked(&at).await?.health();
        let down = health.iter().any(|h| !matches!(h.state, HealthState::Ok));
        let rows: Vec<_> = health
            .into_iter()
            .map(|h| HypervisorLine {
                name: h.name.to_string(),
                kind: h.kind.to_owned(),
                address: h.address,
                state: match h.state {
                    HealthState::Ok => "answers".to_owned(),
                    HealthState::Down { why, .. } => why,
                },
                machines: h.machines,
            })
            .collect();
        at.print(&rows, &["name", "kind", "address", "state", "machines"])?;
        Ok(if down { Answer::No } else { Answer::Yes })
    }
}

impl Machine {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let Self::List { at } = self;
        let inventory = asked(&at).await?.inventory();
        let rows: Vec<_> = inventory
            .iter()
            .map(|m| MachineLine {
                hypervisor: m.at.hypervisor.to_string(),
                id: m.at.machine.to_string(),
                name: m.name.clone(),
                state: m.state.word(),
                pool: m.pool.clone(),
                tags: m.tags.clone(),
            })
            .collect();
        at.print(&rows, &["hypervisor", "id", "name", "state", "pool", "tags"])?;
        Ok(Answer::Yes)
    }
}
