// SPDX-License-Identifier: Apache-2.0
//! `portcullis hypervisor` and `portcullis machine`: what stands behind the gateway, asked directly.

use super::{Answer, At};
use crate::{
    adding,
    secrets::{self, Opened},
};
use anyhow::bail;
use clap::Subcommand;
use portcullis_domain::{Clock as _, HypervisorName, SystemClock};
use portcullis_store::Changed;
use portcullis_upstream::{Fleet, HealthState};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Hypervisor {
    /// List them and whether they answer
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add one: shows the certificate that it met and asks, tries the credential, lists the machines, and keeps it in the
    /// store, sealed: every gateway uses it within seconds. With --file its section is written into the configuration
    Add(Box<super::add::Add>),
    /// Remove one that was added: what is open of it is cut within seconds, and its credential is forgotten. One of the
    /// configuration file is removed there
    Remove {
        /// Its name
        name: HypervisorName,
        #[command(flatten)]
        at: At,
    },
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
    from: &'static str,
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
            Self::Remove { name, at } => return remove(&name, &at).await,
            Self::List { at } => at,
        };
        let desk = at.open().await?;
        let in_file: Vec<HypervisorName> = at.read()?.hypervisors.iter().map(|h| h.name().clone()).collect();
        let Opened { fleet, .. } = secrets::open(&desk.config, &desk.keys, &desk.store, Arc::new(SystemClock)).await?;
        fleet.refresh_once().await;
        let health = fleet.health();
        let down = !desk.unused.is_empty() || health.iter().any(|h| !matches!(h.state, HealthState::Ok));
        let mut rows: Vec<_> = health
            .into_iter()
            .map(|h| HypervisorLine {
                name: h.name.to_string(),
                kind: h.kind.to_owned(),
                address: h.address,
                from: if in_file.contains(&h.name) { "file" } else { "store" },
                state: match h.state {
                    HealthState::Ok => "answers".to_owned(),
                    HealthState::Down { why, .. } => why,
                },
                machines: h.machines,
            })
            .collect();
        rows.extend(desk.unused.iter().map(|(row, why)| HypervisorLine {
            name: row.name.to_string(),
            kind: row.kind.clone(),
            address: String::new(),
            from: "store",
            state: format!("not used: {why}"),
            machines: 0,
        }));
        at.print(&rows, &["name", "kind", "address", "from", "state", "machines"])?;
        Ok(if down { Answer::No } else { Answer::Yes })
    }
}

async fn remove(name: &HypervisorName, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let Some(id) = desk.store.added_hypervisor_id(name).await? else {
        if desk.config.hypervisors.iter().any(|h| h.name() == name) {
            bail!("{name} stands in {}: take its section out there, and restart", desk.config.file.display());
        }
        at.out.tell(
            &json!({ "name": name.as_str(), "removed": false }),
            &format!("No hypervisor called {name} was added."),
        );
        return Ok(Answer::No);
    };
    let deed = async {
        match desk.store.remove_hypervisor(name, Some(id), SystemClock.now()).await? {
            Changed::Done => Ok(()),
            other => bail!("{}", adding::refused(name, &other)),
        }
    };
    Box::pin(desk.act("hypervisor", &format!("hypervisor {name}"), "is removed, with its credential", deed)).await?;
    let words = format!("{name} is removed. What is open of it is cut within seconds.");
    at.out.tell(&json!({ "name": name.as_str(), "removed": true }), &words);
    Ok(Answer::Yes)
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
