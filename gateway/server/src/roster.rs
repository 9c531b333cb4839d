// SPDX-License-Identifier: Apache-2.0
//! The hypervisors in use: those of the configuration file, and those that were added to the store while gateways run.
//!
//! ```text
//! store --looked at each second--> taken in: asked, served, its machines are there
//!                                   '--its row is gone, or another one--> let go: refused at once, streams cut, forgotten
//! let go --after a while--> another one of that name is taken in
//! ```
//!
//! The file wins: a name that stands in it is taken in from the file only. A start with both is refused; where another
//! node adds one meanwhile, it is not used here, nor is what a rotation kept under its name, and an alarm says so.
//!
//! Everything that is open with a hypervisor asks once a second whether it is still in use. So one that comes under the
//! same name waits longer than that after the one before was let go: nothing passes from one to the other.

use crate::{
    config::{Config, ConfigError},
    dialect, secrets,
    state::{Api, House, chain},
};
use arc_swap::{ArcSwap, Guard};
use portcullis_domain::{HypervisorName, Secret};
use portcullis_policy::classify::{ApiKind, Methods, MethodsKind, Table};
use portcullis_store::{AddedHypervisor, Keys, Store};
use portcullis_upstream::{Draft, HypervisorConfig};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// How often the store is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing of a name is in use after one was let go.
const APART: Duration = Duration::from_secs(5);

/// One certificate that was agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    /// Where it was shown.
    pub(crate) address: String,
    /// Whose it said it was.
    pub(crate) subject: String,
    /// Who signed it.
    pub(crate) issuer: String,
    /// From when it counts, RFC 3339.
    pub(crate) from: String,
    /// Until when.
    pub(crate) until: String,
    /// SHA-256 of it.
    pub(crate) sha256: String,
}

/// What a credential was found to be when its hypervisor was added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// As whom the gateway is known there.
    pub(crate) who: String,
    /// What it may do that it need not.
    pub(crate) beyond: Vec<String>,
    /// Why that is not known, or not all of it.
    pub(crate) untold: Option<String>,
}

/// One that was added, as this node has it.
#[derive(Clone)]
pub(crate) struct Added {
    pub(crate) row: Arc<AddedHypervisor>,
    /// Why it is not in use here; none where it is.
    pub(crate) trouble: Option<String>,
}

impl Added {
    /// The certificates that it may show.
    pub(crate) fn agreed(&self) -> Vec<Agreed> {
        serde_json::from_str(&self.row.trust).unwrap_or_default()
    }

    /// What its credential was found to be.
    pub(crate) fn found(&self) -> Found {
        serde_json::from_str(&self.row.tried).unwrap_or_default()
    }
}

/// The hypervisors in use at one instant.
pub(crate) struct Roll {
    configs: BTreeMap<HypervisorName, HypervisorConfig>,
    added: BTreeMap<HypervisorName, Added>,
    /// Host names of their own.
    hosts: HashMap<String, HypervisorName>,
    tables: BTreeMap<HypervisorName, Api>,
}

impl Roll {
    fn new(configs: BTreeMap<HypervisorName, HypervisorConfig>, added: BTreeMap<HypervisorName, Added>) -> Self {
        let host = |h: &HypervisorConfig| Some((h.api()?.host.clone()?, h.name().clone()));
        let table = |h: &HypervisorConfig| {
            let kind = h.api().and_then(|_| h.kind().api())?;
            let methods = (kind == ApiKind::Xapi).then(|| Methods::builtin(MethodsKind::Xapi));
            Some((h.name().clone(), Api { kind, table: Table::builtin(kind), methods }))
        };
        let hosts = configs.values().filter_map(host).collect();
        let tables = configs.values().filter_map(table).collect();
        Self { configs, added, hosts, tables }
    }

    /// The same with other ones.
    fn with(
        &self,
        change: impl FnOnce(&mut BTreeMap<HypervisorName, HypervisorConfig>, &mut BTreeMap<HypervisorName, Added>),
    ) -> Self {
        let (mut configs, mut added) = (self.configs.clone(), self.added.clone());
        change(&mut configs, &mut added);
        Self::new(configs, added)
    }

    /// Whether one is in use.
    pub(crate) fn has(&self, name: &HypervisorName) -> bool {
        self.configs.contains_key(name)
    }

    /// All of them.
    pub(crate) fn names(&self) -> Vec<HypervisorName> {
        self.configs.keys().cloned().collect()
    }

    /// How one is configured.
    pub(crate) fn config(&self, name: &HypervisorName) -> Option<&HypervisorConfig> {
        self.configs.get(name)
    }

    /// All of them, as they are configured.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &HypervisorConfig> {
        self.configs.values()
    }

    /// Its API, where clients reach that through the gateway.
    pub(crate) fn api(&self, name: &HypervisorName) -> Option<&Api> {
        self.tables.get(name)
    }

    /// The one whose API has a host name of its own.
    pub(crate) fn by_host(&self, host: &str) -> Option<&HypervisorName> {
        self.hosts.get(host)
    }

    /// Those whose API passes.
    pub(crate) fn with_api(&self) -> impl Iterator<Item = &HypervisorName> {
        self.tables.keys()
    }

    /// What the store says of one that was added.
    pub(crate) fn added(&self, name: &HypervisorName) -> Option<&Added> {
        self.added.get(name)
    }

    /// Those that were added and cannot be used.
    pub(crate) fn troubled(&self) -> impl Iterator<Item = &Added> {
        self.added.values().filter(|a| a.trouble.is_some())
    }

    /// Whether a name stands both in the file and in the store.
    pub(crate) fn is_contested(&self, name: &HypervisorName) -> bool {
        self.added.get(name).is_some_and(|a| a.trouble.is_some()) && self.configs.contains_key(name)
    }

    /// Whether clients of one of them may show a certificate.
    pub(crate) fn takes_keys(&self) -> bool {
        self.tables.values().any(|api| dialect::takes_keys(api.kind))
    }
}

/// The roll as it is now, and who hears of its changes.
pub(crate) struct Roster {
    now: ArcSwap<Roll>,
    /// Somebody changed it through this node.
    hurry: Notify,
    changed: watch::Sender<()>,
    /// Which secrets are in use has to be looked at anew.
    pub(crate) secrets_anew: AtomicBool,
}

impl Roster {
    /// Those of the file.
    pub(crate) fn of_file(config: &Config) -> Self {
        let configs = config.hypervisors.iter().map(|h| (h.name().clone(), h.clone())).collect();
        let now = ArcSwap::from_pointee(Roll::new(configs, BTreeMap::new()));
        let (hurry, changed) = (Notify::new(), watch::Sender::new(()));
        Self { now, hurry, changed, secrets_anew: AtomicBool::new(false) }
    }

    /// The hypervisors in use now.
    pub(crate) fn load(&self) -> Guard<Arc<Roll>> {
        self.now.load()
    }

    /// Hears of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Has it look at the store now.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    fn put(&self, roll: Roll) {
        self.now.store(Arc::new(roll));
        self.changed.send_replace(());
    }
}

/// How one that was added is configured, with its credential; or why it cannot be used.
pub(crate) fn configured(row: &AddedHypervisor, keys: &Keys) -> Result<HypervisorConfig, String> {
    // First of all: what says to whom it is shown is what was sealed.
    let secret: Secret = row.open(keys).map_err(|e| chain(&e))?;
    let agreed: Vec<Agreed> = serde_json::from_str(&row.trust).map_err(|e| e.to_string())?;
    let pins: Vec<String> = agreed.into_iter().map(|a| a.sha256).collect();
    if pins.is_empty() {
        return Err("no certificate of it was agreed to".to_owned());
    }
    let draft = Draft::kept(row.name.clone(), &row.kind, &row.settings).map_err(|e| chain(&e))?;
    draft.config(&pins, secret).map(|config| config.as_adding(row.id)).map_err(|e| chain(&e))
}

/// What a name in both places is told.
fn twice(row: &AddedHypervisor) -> String {
    let AddedHypervisor { name, by, at, .. } = row;
    format!(
        "it stands in the configuration file too; that one counts, and the one that {by} added on {} is not used: portcullis \
         hypervisor remove {name}, or give the one in the file another name",
        at.date()
    )
}

/// What the store holds beside a configuration: those that can be used, and those that cannot with the reason.
pub(crate) async fn read(
    config: &Config,
    keys: &Keys,
    store: &Store,
) -> Result<Vec<(AddedHypervisor, Result<HypervisorConfig, String>)>, portcullis_store::Error> {
    let in_file = |name: &HypervisorName| config.hypervisors.iter().any(|h| h.name() == name);
    let rows = store.added_hypervisors().await?.into_iter();
    let of = |row: AddedHypervisor| {
        let read = if in_file(&row.name) { Err(twice(&row)) } else { configured(&row, keys) };
        (row, read)
    };
    Ok(rows.map(of).collect())
}

/// A start with a name in both places is refused: which one was meant is not known.
pub(crate) async fn refuse_twice(config: &Config, store: &Store) -> Result<(), ConfigError> {
    let wrong = |why: String| ConfigError::new(&config.file, why);
    let rows = store.added_hypervisors().await.map_err(|e| wrong(format!("store.url: {}", chain(&e))))?;
    let both = rows.iter().find(|row| config.hypervisors.iter().any(|h| *h.name() == row.name));
    both.map_or(Ok(()), |row| Err(wrong(format!("hypervisors.{}: {}", row.name, twice(row)))))
}

/// Who drives the work of those that are taken in.
pub(crate) enum Drive<'a> {
    /// The whole fleet is driven later.
    Later,
    /// Each is driven at once.
    Now(&'a watch::Receiver<bool>),
}

/// When the last one of a name was let go.
pub(crate) type Left = HashMap<HypervisorName, Instant>;

impl House {
    /// Which adding a hypervisor in use is; none where the file names it.
    pub(crate) fn adding(&self, name: &HypervisorName) -> Option<Uuid> {
        self.roster.load().config(name).and_then(HypervisorConfig::adding)
    }

    /// Takes over what the store says: at the start and each second.
    pub(crate) async fn take_roster(&self, left: &mut Left, drive: &Drive<'_>) -> Result<(), portcullis_store::Error> {
        left.retain(|_, at| at.elapsed() < APART);
        let ids = self.store.added_hypervisor_ids().await?;
        let roll = self.roster.now.load_full();
        let is_same = ids.len() == roll.added.len()
            && ids.iter().all(|(name, id)| roll.added.get(name).is_some_and(|a| a.row.id == *id));
        if is_same {
            return Ok(());
        }
        let gone: Vec<Added> = {
            let is_gone = |a: &&Added| !ids.iter().any(|(name, id)| *name == a.row.name && *id == a.row.id);
            roll.added.values().filter(is_gone).cloned().collect()
        };
        for added in gone {
            let is_replaced = ids.iter().any(|(name, _)| *name == added.row.name);
            let why = if is_replaced { "another takes its place" } else { "it was removed" };
            self.let_go(&added, why, left).await;
        }
        let known = self.roster.now.load_full();
        let rows = self.store.added_hypervisors().await?.into_iter();
        for row in rows.filter(|row| !known.added.contains_key(&row.name) && !left.contains_key(&row.name)) {
            self.take_in(row, drive).await?;
        }
        Ok(())
    }

    /// Serves one no more, which was removed or whose place another takes. Refused first, so that nothing begins while it
    /// goes.
    async fn let_go(&self, added: &Added, why: &str, left: &mut Left) {
        let name = &added.row.name;
        let is_own = added.trouble.is_none();
        self.roster.put(self.roster.now.load().with(|configs, all| {
            all.remove(name);
            if is_own {
                configs.remove(name);
            }
        }));
        if !is_own {
            return;
        }
        left.insert(name.clone(), Instant::now());
        let (_, ending) = self.fleet.let_go(name);
        // Who looked between the two has its connections still.
        self.roster.changed.send_replace(());
        if let Some(work) = ending {
            self.tasks.spawn(work);
        }
        tracing::info!(hypervisor = %name, why, "a hypervisor is not served any more");
        self.note_about("hypervisor", &format!("hypervisor {name}"), &format!("{why}: it is not served here any more"))
            .await;
    }

    async fn take_in(&self, row: AddedHypervisor, drive: &Drive<'_>) -> Result<(), portcullis_store::Error> {
        let name = row.name.clone();
        let in_file = self.config.hypervisors.iter().any(|h| *h.name() == name);
        let made = if in_file { Err(twice(&row)) } else { configured(&row, &self.keys) };
        let taken = match made {
            Ok(config) => {
                let kept = secrets::kept(&self.keys, &self.store, std::slice::from_ref(&config)).await;
                let taken = kept
                    .map_err(|e| format!("a rotated secret: {}", chain(&e)))
                    .and_then(|kept| self.fleet.take_in(config.clone(), &kept).map_err(|e| chain(&e)));
                taken.map(|()| config)
            }
            Err(why) => Err(why),
        };
        let (by, row) = (row.by.clone(), Arc::new(row));
        let about = format!("hypervisor {name}");
        match taken {
            Ok(config) => {
                self.roster.put(self.roster.now.load().with(|configs, all| {
                    all.insert(name.clone(), Added { row, trouble: None });
                    configs.insert(name.clone(), config);
                }));
                // A rotation may have ended between reading its secret and using it.
                self.roster.secrets_anew.store(true, Ordering::Release);
                if let Drive::Now(stop) = drive
                    && let Some(work) = self.fleet.work_of(&name, stop)
                {
                    self.tasks.spawn(work);
                }
                self.note_about("hypervisor", &about, &format!("it is in use here, as {by} added it")).await;
            }
            Err(why) => {
                self.roster.put(self.roster.now.load().with(|_, all| {
                    all.insert(name.clone(), Added { row, trouble: Some(why.clone()) });
                }));
                tracing::error!(hypervisor = %name, why, "a hypervisor that was added is not used");
                self.note_about("alarm", &about, &format!("it was added and is not used here: {why}")).await;
            }
        }
        Ok(())
    }
}

/// Looks at the store while the house is open.
pub(crate) async fn keep(house: Arc<House>, stop: watch::Receiver<bool>) {
    let mut left = Left::new();
    loop {
        if let Err(error) = house.take_roster(&mut left, &Drive::Now(&stop)).await {
            tracing::error!(error = %chain(&error), "which hypervisors were added is not known; those in use stay");
        }
        tokio::select! {
            () = house.roster.hurry.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
