// SPDX-License-Identifier: Apache-2.0
//! All hypervisors together: the inventory, the health of each, and the operations that the gateway does itself.

mod board;

pub(crate) use board::Board;

use crate::{
    api::Api,
    badge::Account,
    broker::{Broker, Reuse, TaskOwner, relate},
    config::{ApiDoor, HypervisorConfig},
    credential::machine_of,
    desk::Desk,
    driver::{Beside, Built, Cutter, Driver, LinkReader, LinkWriter, PowerVerb, RpcFace, Screen, Standing},
    error::{Error, Fault},
    kind::{self, Kind},
    secret::{Choice, DEFAULT, Duty, Kept, Secrets, Site},
};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use portcullis_domain::{Action, Clock, HypervisorName, Inventory, Machine, MachineKind, MachineRef, Resource};
use portcullis_policy::Permit;
use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The most machines of one hypervisor.
pub(crate) const MAX_MACHINES: usize = 50_000;
/// The most notes of one hypervisor.
const MAX_NOTES: usize = 20;
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// How long a look at one machine's settings may take.
const LOOK: Duration = Duration::from_secs(30);
/// How long a hypervisor may take when it is asked once.
const ONCE: Duration = Duration::from_secs(40);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Work that the caller drives: it ends when told to stop, or when dropped.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether a hypervisor answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthState {
    /// It answers.
    Ok,
    /// It does not; its machines are shown with an unknown state.
    Down {
        /// In words for people.
        why: String,
        /// Since when.
        since: OffsetDateTime,
    },
}

/// How one hypervisor is doing.
#[derive(Debug, Clone)]
pub struct Health {
    /// Its name.
    pub name: HypervisorName,
    /// Its kind: the word in the configuration.
    pub kind: &'static str,
    /// Where it is, for people.
    pub address: String,
    /// Whether it answers.
    pub state: HealthState,
    /// How many machines it has.
    pub machines: usize,
    /// When its machines were last read.
    pub refreshed_at: Option<OffsetDateTime>,
    /// What people should know: certificates that are not checked, machines that were left out. At most 20.
    pub notes: Vec<String>,
}

struct Report {
    state: HealthState,
    machines: usize,
    refreshed_at: Option<OffsetDateTime>,
    notes: Vec<String>,
}

struct Member {
    name: HypervisorName,
    kind: Kind,
    /// One a credential.
    drivers: Choice<Box<dyn Driver>>,
    door: Option<ApiDoor>,
    warnings: Vec<String>,
    address: String,
    published: Notify,
    report: Mutex<Report>,
}

struct Inner {
    members: Vec<Arc<Member>>,
    apis: Vec<(HypervisorName, Choice<Api>)>,
    secrets: Secrets,
    inventory: ArcSwap<Inventory>,
    publishing: Mutex<()>,
    broker: Broker,
    clock: Arc<dyn Clock>,
}

/// All configured hypervisors. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

impl Fleet {
    /// Reads every certificate, key and secret that the configuration names and that is at hand. Nothing is dialled.
    pub fn new(configs: Vec<HypervisorConfig>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::with(configs, &Kept::default(), clock)
    }

    /// The same with secrets that were rotated: they are used in place of what the configuration names.
    pub fn with(configs: Vec<HypervisorConfig>, kept: &Kept, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut held = Vec::new();
        let mut members = Vec::new();
        let mut apis = Vec::new();
        let mut names = HashSet::new();
        for config in configs {
            let (name, kind, door) = (config.name().clone(), config.kind(), config.api().cloned());
            if !names.insert(name.clone()) {
                return Err(Error::config(format!("hypervisors.{name}"), "two hypervisors have this name"));
            }
            let HypervisorConfig { common, own, others } = config;
            let mut build = |credential: &str, own| {
                let mut site = Site { common: common.clone(), credential, kept, held: Vec::new() };
                let built = kind::build(&mut site, own)?;
                held.extend(site.held);
                Ok::<_, Error>(built)
            };
            let Built { driver, api, warnings, address } = build(DEFAULT, own)?;
            for warning in &warnings {
                tracing::warn!(hypervisor = %name, "{warning}");
            }
            let mut drivers = Choice { default: driver, others: Vec::new() };
            let mut lent = api.map(|default| Choice { default, others: Vec::new() });
            for (duties, own) in others {
                let Built { driver, api, .. } = build(&words(&duties), own)?;
                if let (Some(lent), Some(api)) = (&mut lent, api) {
                    lent.others.push((duties.clone(), api));
                }
                drivers.others.push((duties, driver));
            }
            apis.extend(lent.map(|lent| (name.clone(), lent)));
            let report = Report {
                state: HealthState::Down { why: "was not asked yet".to_owned(), since: clock.now() },
                machines: 0,
                refreshed_at: None,
                notes: warnings.clone(),
            };
            let (published, report) = (Notify::new(), Mutex::new(report));
            members.push(Arc::new(Member { name, kind, drivers, door, warnings, address, published, report }));
        }
        let inventory = ArcSwap::from_pointee(Inventory::default());
        let broker = Broker::new(Arc::clone(&clock));
        let (secrets, publishing) = (Secrets::new(held), Mutex::new(()));
        Ok(Self(Arc::new(Inner { members, apis, secrets, inventory, publishing, broker, clock })))
    }

    /// Every machine known now.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.0.inventory.load_full()
    }

    /// How each hypervisor is doing, in the order of the configuration.
    pub fn health(&self) -> Vec<Health> {
        let of = |member: &Arc<Member>| {
            let report = member.report.lock().unwrap_or_else(PoisonError::into_inner);
            Health {
                name: member.name.clone(),
                kind: member.kind.word(),
                address: member.address.clone(),
                state: report.state.clone(),
                machines: report.machines,
                refreshed_at: report.refreshed_at,
                notes: report.notes.clone(),
            }
        };
        self.0.members.iter().map(of).collect()
    }

    /// The hypervisors whose API clients may reach through the gateway, and where.
    pub fn doors(&self) -> impl Iterator<Item = (&HypervisorName, Kind, &ApiDoor)> {
        self.0.members.iter().filter_map(|m| m.door.as_ref().map(|door| (&m.name, m.kind, door)))
    }

    /// The secrets in use.
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// The work that keeps the inventory: one future a hypervisor, so that a slow one delays no other. Each ends when
    /// `stop` becomes true or its sender is dropped.
    pub fn run(&self, stop: &watch::Receiver<bool>) -> Vec<Work> {
        let work = |member: &Arc<Member>| -> Work {
            let (fleet, member, mut stop) = (self.clone(), Arc::clone(member), stop.clone());
            Box::pin(async move {
                tokio::select! {
                    _ = stop.wait_for(|stopped| *stopped) => {}
                    () = fleet.keep(&member) => {}
                    () = stay(&member) => {}
                }
            })
        };
        self.0.members.iter().map(work).collect()
    }

    /// Asks every hypervisor once, at most 40 seconds: for commands that look and end.
    pub async fn refresh_once(&self) {
        let ask = |member: &Arc<Member>| {
            let board = Board { fleet: self.clone(), member: Arc::clone(member) };
            async move {
                tokio::select! {
                    fault = board.member.drivers.default.follow(&board) => board.lose(&fault),
                    () = board.member.published.notified() => {}
                    () = tokio::time::sleep(ONCE) => board.lose(&Fault::TooSlow("to list its machines")),
                }
            }
        };
        join_all(self.0.members.iter().map(ask)).await;
    }

    async fn keep(&self, member: &Arc<Member>) {
        let board = Board { fleet: self.clone(), member: Arc::clone(member) };
        let mut delay = FIRST_RETRY;
        loop {
            let began = Instant::now();
            let fault = member.drivers.default.follow(&board).await;
            tracing::warn!(hypervisor = %member.name, %fault, "hypervisor lost; trying again");
            board.lose(&fault);
            if began.elapsed() > LAST_RETRY {
                delay = FIRST_RETRY;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
    }

    fn member(&self, name: &HypervisorName) -> Result<&Arc<Member>, Error> {
        self.0.members.iter().find(|m| m.name == *name).ok_or_else(|| Error::UnknownHypervisor(name.clone()))
    }

    fn permitted<'p>(&self, permit: &'p Permit, actions: &[Action]) -> Result<(&Arc<Member>, &'p MachineRef), Error> {
        let machine = machine_of(permit, actions, self.0.clock.now())?;
        let member = self.member(&machine.hypervisor)?;
        if self.0.inventory.load().find(machine).is_none() {
            return Err(Error::UnknownMachine(machine.clone()));
        }
        Ok((member, machine))
    }

    /// Starts, stops or pauses the machine that the permit is for; its action must be `power`. Returns when the
    /// hypervisor has accepted or refused.
    pub async fn power(&self, permit: &Permit, verb: PowerVerb) -> Result<(), Error> {
        let (member, machine) = self.permitted(permit, &[Action::Power])?;
        let driver = member.drivers.of(permit.operation().action);
        let done = driver.power(&machine.machine, verb).await;
        // Whoever keeps the inventory did not do it, perhaps.
        member.drivers.default.nudge();
        done.map_err(|f| f.at(&member.name))
    }

    /// Connects to the screen of the machine that the permit is for; its action must be `console.view` or
    /// `console.control`. Address, password and TLS are read now.
    pub async fn open_screen(&self, permit: &Permit) -> Result<Screen, Error> {
        let (member, machine) = self.permitted(permit, &[Action::ConsoleView, Action::ConsoleControl])?;
        let driver = member.drivers.of(permit.operation().action);
        driver.open_screen(&machine.machine).await.map_err(|f| f.at(&member.name))
    }

    /// What a machine's settings are now, and others beside them, for deciding on what would change them: the gateway's
    /// own look, like that at the inventory. At most half a minute.
    pub async fn standing(&self, machine: &MachineRef, beside: &Beside) -> Result<Standing, Error> {
        let member = self.member(&machine.hypervisor)?;
        let look = tokio::time::timeout(LOOK, member.drivers.default.standing(&machine.machine, beside));
        let standing = look.await.unwrap_or(Err(Fault::TooSlow("to say what a machine is")));
        standing.map_err(|f| f.at(&member.name))
    }

    /// What clients of a hypervisor's RPC have to know and keep to; none where it has no RPC.
    pub fn rpc(&self, hypervisor: &HypervisorName) -> Option<RpcFace<'_>> {
        self.member(hypervisor).ok()?.drivers.default.rpc()
    }

    /// Opens a connection for one client of a hypervisor's RPC, with the gateway's credential. The permit must be for
    /// that hypervisor, or for machines of it.
    pub async fn open_rpc(&self, permit: &Permit, flags: u32) -> Result<(LinkReader, LinkWriter), Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        if self.0.clock.now() >= permit.expires_at() {
            return Err(Error::PermitExpired);
        }
        self.member(name)?.drivers.of(operation.action).open_rpc(name, flags).await.map_err(|f| f.at(name))
    }

    /// Whether a hypervisor knows how to do something to a machine's power at all.
    pub fn can(&self, hypervisor: &HypervisorName, verb: PowerVerb) -> bool {
        self.member(hypervisor).is_ok_and(|m| m.drivers.default.can(verb))
    }

    /// The broker of channel secrets and tasks: one for all shards.
    pub fn broker(&self) -> &Broker {
        &self.0.broker
    }

    /// Exchanges the channel secrets in the answer to a permitted console or exec request (at most 64 KiB of JSON) for
    /// minted ones; see [`Broker`]. Virtual machines open a channel several times, everything else once.
    pub fn exchange(&self, permit: &Permit, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let inventory = self.0.inventory.load();
        let is_guest = match &permit.operation().resource {
            Resource::Machine(at) => inventory.find(at).is_some_and(|m| m.kind == MachineKind::Guest),
            _ => false,
        };
        let is_screen = permit.operation().action.is_console();
        self.0.broker.exchange(permit, if is_guest && is_screen { Reuse::WhileLive } else { Reuse::Once }, answer)
    }

    /// Remembers that a task which an answer names belongs to whoever asked.
    pub fn note_task(&self, permit: &Permit, answer: &[u8]) {
        let operation = permit.operation();
        let Some(name) = operation.resource.hypervisor() else { return };
        if let Some(task) = self.api(name).and_then(|a| (a.dialect.task)(answer)) {
            let owner = TaskOwner { user: permit.user(), operation: operation.clone() };
            self.0.broker.remember(name, &task, owner);
        }
    }

    /// Takes the secrets out of an answer, and makes its addresses relative.
    pub fn strip(&self, permit: &Permit, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        let api = self.api(name).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let clean = (api.dialect.strip)(answer).map_err(|f| f.at(name))?;
        Ok(self.relate(permit, clean))
    }

    /// What the gateway's own account sees there, where it signs in.
    pub fn account(&self, name: &HypervisorName) -> Option<Account> {
        self.api(name)?.dialer.authorization.as_ref()?.account()
    }

    fn relate(&self, permit: &Permit, answer: Vec<u8>) -> Vec<u8> {
        let name = permit.operation().resource.hypervisor();
        let api = name.and_then(|name| self.api(name));
        let origins = api.map_or(&[][..], |a| a.origins.as_slice());
        let is_named = |o: &String| answer.windows(o.len()).any(|w| w == o.as_bytes());
        if !origins.iter().any(is_named) {
            return answer;
        }
        let Ok(mut json) = serde_json::from_slice(&answer) else { return answer };
        relate(&mut json, origins);
        json.to_string().into_bytes()
    }

    /// Leaves out of the answer to a list what somebody may not see, and takes secrets out of it.
    pub fn keep_rows(&self, permit: &Permit, answer: &[u8], seen: &Seen<'_>) -> Result<Vec<u8>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        let keep = self.api(name).and_then(|a| a.dialect.rows).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let kept = keep(answer, seen).map_err(|f| f.at(name))?;
        Ok(self.relate(permit, kept))
    }

    /// How a hypervisor's objects are cut down to what somebody may see; none where its API has no objects of that kind.
    pub fn cutter(&self, hypervisor: &HypervisorName) -> Option<&Cutter> {
        self.member(hypervisor).ok()?.drivers.default.cutter()
    }

    pub(crate) fn desk_of(&self, name: &HypervisorName) -> Option<&Desk> {
        self.member(name).ok()?.drivers.default.desk()
    }

    /// The desks of all hypervisors, in one order.
    pub(crate) fn desks(&self) -> impl Iterator<Item = &Desk> {
        self.0.members.iter().flat_map(|m| m.drivers.all()).filter_map(|d| d.desk())
    }

    /// The driver with one of a hypervisor's credentials.
    pub(crate) fn driver_called(&self, name: &HypervisorName, credential: &str) -> Option<&dyn Driver> {
        let drivers = &self.member(name).ok()?.drivers;
        if credential == DEFAULT {
            return Some(drivers.default.as_ref());
        }
        drivers.others.iter().find(|(duties, _)| words(duties) == credential).map(|(_, driver)| driver.as_ref())
    }

    /// The desks of a hypervisor, by what their credentials are for.
    pub(crate) fn desk_for(&self, name: &HypervisorName, action: Action) -> Option<&Desk> {
        self.member(name).ok()?.drivers.of(action).desk()
    }

    /// How a hypervisor's API is reached, with the credential that is lent where no other one is for the action.
    pub(crate) fn api(&self, name: &HypervisorName) -> Option<&Api> {
        self.apis().find(|(n, _)| n == name).map(|(_, lent)| &lent.default)
    }

    pub(crate) fn apis(&self) -> impl Iterator<Item = &(HypervisorName, Choice<Api>)> {
        self.0.apis.iter()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.0.clock)
    }
}

/// What a credential is for, as its name.
fn words(duties: &[Duty]) -> String {
    duties.iter().map(|d| d.word()).collect::<Vec<_>>().join("+")
}

/// Keeps the credentials usable with which no inventory is read.
async fn stay(member: &Member) {
    join_all(member.drivers.others.iter().map(|(_, driver)| stay_with(member, driver.as_ref()))).await;
    std::future::pending::<()>().await;
}

async fn stay_with(member: &Member, driver: &dyn Driver) {
    loop {
        let fault = driver.stay().await;
        tracing::warn!(hypervisor = %member.name, %fault, "one of its credentials cannot be used; trying again");
        tokio::time::sleep(LAST_RETRY).await;
    }
}

/// What of a hypervisor somebody may see: machines by id, and the nodes and pools that these are on.
#[derive(Debug, Clone, Default)]
pub struct Seen<'a> {
    /// Machines.
    pub machines: HashSet<&'a str>,
    /// Nodes.
    pub nodes: HashSet<&'a str>,
    /// Pools.
    pub pools: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    /// What these machines make visible.
    pub fn of(machines: &[&'a Machine]) -> Self {
        Self {
            machines: machines.iter().map(|m| m.at.machine.as_str()).collect(),
            nodes: machines.iter().filter_map(|m| m.node.as_deref()).collect(),
            pools: machines.iter().filter_map(|m| m.pool.as_deref()).collect(),
        }
    }
}
