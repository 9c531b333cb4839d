// SPDX-License-Identifier: Apache-2.0
//! The hypervisors' secrets while the gateway runs: what was rotated is taken from the store within seconds, what stands
//! in files and in the environment is read anew, and a vault is asked again. Nothing here shows a secret.

use crate::{
    config::{Config, ConfigError},
    nodes,
    state::{House, chain},
};
use portcullis_domain::Clock;
use portcullis_store::{HypervisorSecret, Keys, Store};
use portcullis_upstream::{Fleet, HypervisorConfig, Kept, Refreshed, SecretName, Vault};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use time::OffsetDateTime;

/// How often the store is asked for what was rotated.
const LOOK: Duration = Duration::from_secs(1);
/// How often files are read anew.
const FILES: Duration = Duration::from_secs(10);
/// How often it is written down which secrets were used.
const USED: Duration = Duration::from_mins(1);

/// The hypervisors of a configuration, with the secrets that were rotated, and the vault that the others come from.
pub(crate) struct Opened {
    pub(crate) fleet: Fleet,
    pub(crate) vault: Option<Vault>,
}

/// Which secret a row of the store is.
pub(crate) fn name_of(row: &HypervisorSecret) -> SecretName {
    SecretName { hypervisor: row.hypervisor.clone(), credential: row.credential.clone() }
}

/// What was rotated of some hypervisors.
pub(crate) async fn kept(keys: &Keys, store: &Store, of: &[HypervisorConfig]) -> Result<Kept, portcullis_store::Error> {
    let rows = store.hypervisor_secrets().await?;
    let open = |row: &HypervisorSecret| {
        let config = of.iter().find(|h| *h.name() == row.hypervisor)?;
        row.open(keys, config.adding()).transpose().map(|s| s.map(|s| (name_of(row), s)))
    };
    rows.iter().filter_map(open).collect()
}

/// Reads every secret. What a vault holds and cannot be had now is fetched later: its hypervisor says why until then.
pub(crate) async fn open(
    config: &Config,
    keys: &Keys,
    store: &Store,
    clock: Arc<dyn Clock>,
) -> Result<Opened, ConfigError> {
    let wrong = |why: String| ConfigError::new(&config.file, why);
    let kept = kept(keys, store, &config.hypervisors)
        .await
        .map_err(|e| wrong(format!("store.url: a rotated secret: {}", chain(&e))))?;
    let fleet = Fleet::with(config.hypervisors.clone(), &kept, Arc::clone(&clock)).map_err(|e| wrong(chain(&e)))?;
    let vault = config.vault.clone().map(Vault::new).transpose().map_err(|e| wrong(chain(&e)))?;
    match &vault {
        None if fleet.secrets().need_vault() => {
            return Err(wrong(
                "vault: a hypervisor's secret is in a vault, and there is no [vault] section".to_owned(),
            ));
        }
        None => {}
        Some(vault) => {
            for (name, why) in fleet.secrets().refresh(Some(vault), &*clock).await.failed {
                tracing::warn!(secret = %name, "{why}; it is asked for again");
            }
        }
    }
    Ok(Opened { fleet, vault })
}

/// Keeps secrets fresh while the house is open.
pub(crate) async fn keep(house: Arc<House>) {
    let anew = &house.roster.secrets_anew;
    tokio::join!(keep_rotated(&house, anew), keep_files(&house), keep_vault(&house), nodes::keep(&house, anew));
}

/// Which version of each secret this process uses.
type Taken = HashMap<SecretName, i64>;

async fn keep_rotated(house: &House, anew: &AtomicBool) {
    let mut taken = Taken::new();
    let mut used_at: Option<OffsetDateTime> = None;
    loop {
        if anew.swap(false, Ordering::AcqRel) {
            taken.clear();
        }
        match rotated(house).await {
            Ok(rows) => {
                for row in rows {
                    take(house, &mut taken, &row).await;
                }
            }
            Err(error) => tracing::error!(error = %chain(&error), "whether a secret was rotated is not known"),
        }
        let now = house.clock.now();
        if used_at.is_none_or(|at| now - at >= USED) {
            used_at = Some(now);
            let used = house.fleet.secrets().used();
            let used: Vec<_> = used.iter().map(|n| (&n.hypervisor, n.credential.as_str())).collect();
            if !used.is_empty()
                && let Err(error) = house.store.secrets_used(&used, now).await
            {
                tracing::warn!(error = %chain(&error), "which secrets were used could not be written down");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the store says of secrets, without those of names under which it has another adding than the one that is in use
/// here: the one is let go in a moment, and the other one's secrets are looked at when it is taken in.
async fn rotated(house: &House) -> Result<Vec<HypervisorSecret>, portcullis_store::Error> {
    let mut rows = house.store.hypervisor_secrets().await?;
    let ids = house.store.added_hypervisor_ids().await?;
    let roll = house.roster.load();
    rows.retain(|row| {
        let stored = ids.iter().find(|(name, _)| *name == row.hypervisor).map(|(_, id)| *id);
        stored == roll.added(&row.hypervisor).map(|a| a.row.id)
    });
    Ok(rows)
}

/// Takes over what a row says, if it is new.
async fn take(house: &House, taken: &mut Taken, row: &HypervisorSecret) {
    let name = name_of(row);
    let adding = {
        let roll = house.roster.load();
        // It was rotated for another one than the one that is in use here under that name.
        if roll.is_contested(&name.hypervisor) {
            return;
        }
        roll.config(&name.hypervisor).map(HypervisorConfig::adding)
    };
    // What there was when the house was opened is in use.
    let is_first = !taken.contains_key(&name);
    if taken.insert(name.clone(), row.version) == Some(row.version) {
        return;
    }
    let secrets = house.fleet.secrets();
    // One of which nothing is in use here has nothing to be opened for.
    let opened = adding.map_or(Ok(None), |adding| row.open(&house.keys, adding));
    let refused = match (opened, &row.made) {
        (Ok(Some(secret)), Some((at, by))) => match secrets.take(&name, &secret, *at) {
            Ok(true) => {
                note(house, "secret", &name, &format!("a new secret is in use, made by {by}")).await;
                None
            }
            Ok(false) => None,
            Err(why) => Some(why),
        },
        (Ok(_), _) => {
            if secrets.release(&name) && !is_first {
                note(house, "secret", &name, "the secret comes from the configuration again").await;
                let done = secrets.refresh(None, &*house.clock).await;
                tell(house, done, &mut HashMap::new()).await;
                if let Some(vault) = &house.vault {
                    let done = secrets.refresh(Some(vault), &*house.clock).await;
                    tell(house, done, &mut HashMap::new()).await;
                }
            }
            None
        }
        (Err(error), _) => Some(chain(&error)),
    };
    if let Some(why) = refused {
        return note(house, "alarm", &name, &format!("a rotated secret is not taken into use: {why}")).await;
    }
    let node = house.trail.node();
    if let Err(error) = house.store.secret_taken(node, &row.hypervisor, &row.credential, row.version).await {
        // Said again at the next look: a rotation waits for it.
        taken.remove(&name);
        tracing::warn!(error = %chain(&error), "that a secret is in use could not be written down");
    }
}

async fn keep_files(house: &House) {
    let mut failing = HashMap::new();
    loop {
        tokio::time::sleep(FILES).await;
        tell(house, house.fleet.secrets().refresh(None, &*house.clock).await, &mut failing).await;
    }
}

async fn keep_vault(house: &House) {
    let Some(vault) = &house.vault else { return };
    let mut failing = HashMap::new();
    loop {
        // Sooner where something is missing: a hypervisor waits for it.
        let is_missing = house.fleet.secrets().states().iter().any(|s| !s.is_there);
        tokio::time::sleep(if is_missing { FILES.min(vault.every()) } else { vault.every() }).await;
        tell(house, house.fleet.secrets().refresh(Some(vault), &*house.clock).await, &mut failing).await;
    }
}

/// Writes down what changed, and what cannot be read any more: once, until it can again.
async fn tell(house: &House, done: Refreshed, failing: &mut HashMap<SecretName, String>) {
    for name in &done.changed {
        note(house, "secret", name, "the secret changed at its source, and the new one is in use").await;
    }
    let before = std::mem::take(failing);
    for (name, why) in done.failed {
        if before.get(&name) != Some(&why) {
            let words = format!("the secret cannot be read, and the last good one stays in use: {why}");
            note(house, "alarm", &name, &words).await;
        }
        failing.insert(name, why);
    }
    for name in before.keys().filter(|name| !failing.contains_key(*name)) {
        note(house, "secret", name, "the secret can be read again").await;
    }
}

/// One event about a secret, at once in the log: nobody else may come by for a while.
async fn note(house: &House, kind: &str, name: &SecretName, words: &str) {
    house.note_about(kind, &name.to_string(), words).await;
}
