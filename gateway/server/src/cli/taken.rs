// SPDX-License-Identifier: Apache-2.0
//! Whether every gateway that runs uses the secret that the store holds.

use super::Desk;
use crate::nodes::GONE;
use portcullis_domain::NodeId;
use portcullis_upstream::SecretName;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// How long gateways that run are waited for.
const TAKEN: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(200);

/// Who uses a secret.
pub(super) enum Used {
    /// Every gateway that runs.
    ByAll,
    /// No gateway runs.
    ByNone,
    /// These gateways run, and use another one.
    NotBy(Vec<String>),
    /// The store does not say.
    Unknown(String),
}

impl Used {
    /// For whoever waits.
    pub(super) fn words(&self) -> String {
        match self {
            Self::ByAll => "The new one is in use.".to_owned(),
            Self::ByNone => "The new one is kept; no running gateway has taken it into use yet.".to_owned(),
            Self::NotBy(places) => {
                format!("The new one is kept; {} runs and has not taken it into use yet.", places.join(", "))
            }
            Self::Unknown(why) => format!("The new one is kept; whether gateways use it is not known: {why}."),
        }
    }
}

/// Waits until every gateway that runs uses what the store holds. Whether one runs is seen by its saying so, while
/// this waits: no clock but this program's own is asked.
pub(super) async fn used(desk: &Desk, name: &SecretName) -> Used {
    let SecretName { hypervisor, credential } = name;
    let began = Instant::now();
    let mut seen: HashMap<NodeId, (OffsetDateTime, Instant)> = HashMap::new();
    loop {
        let said = async {
            let version = desk.store.hypervisor_secret(hypervisor, credential).await?.map_or(0, |row| row.version);
            Ok::<_, portcullis_store::Error>((version, desk.store.nodes_using(hypervisor, credential).await?))
        };
        let left = match said.await {
            Ok((version, nodes)) => {
                let mut waits = Vec::new();
                let mut uses = false;
                for node in nodes {
                    let sign = seen.entry(node.id).or_insert((node.seen_at, Instant::now()));
                    if sign.0 != node.seen_at {
                        *sign = (node.seen_at, Instant::now());
                    }
                    if node.taken.is_some_and(|taken| taken >= version) {
                        uses = true;
                    } else if sign.1.elapsed() < GONE {
                        waits.push(node.place);
                    }
                }
                match (waits.is_empty(), uses) {
                    (true, true) => return Used::ByAll,
                    (true, false) => return Used::ByNone,
                    (false, _) => Used::NotBy(waits),
                }
            }
            Err(error) => Used::Unknown(error.to_string()),
        };
        if began.elapsed() >= TAKEN {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}
