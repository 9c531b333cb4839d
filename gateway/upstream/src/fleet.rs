// SPDX-License-Identifier: Apache-2.0
//! All hypervisors together: the inventory, the health of each, and the operations that the gateway does itself.

mod board;
mod member;

pub(crate) use board::Board;
use member::{Member, words};

use crate::{
    api::Api,
    badge::Account,
    broker::{Broker, Reuse, TaskOwner, relate},
    calls::end_at,
    config::HypervisorConfig,
    credential::machine_of,
    desk::Desk,
    driver::{Beside, Cutter, Driver, LinkReader, LinkWriter, PowerVerb, RpcFace, Screen, Standing},
    error::{Error, Fault},
    secret::{Choice, DEFAULT, Kept, Secrets},
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
use tokio::{sync::watch, time::Instant};

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

/// The hypervisors at one instant.
type Members = Vec<Arc<Member>>;

struct Inner {
    members: ArcSwap<Members>,
    secrets: Secrets,
    inventory: ArcSwap<Inventory>,
    publishing: Mutex<()>,
    /// One at a time takes one in or lets one go.
    changing: Mutex<()>,
    broker: Broker,
    clock: Arc<dyn Clock>,
}

/// All hypervisors in use: those of the configuration, and those that were added since. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

impl Fleet {
    /// Reads every certificate, key and secret that the configuration names and that is at hand. Nothing is dialled.
    pub fn new(configs: Vec<HypervisorConfig>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::with(configs, &Kept::default(), clock)
    }

    /// The same with secrets that were rotated: they are used in place of what the configuration names.
    pub fn with(configs: Vec<HypervisorConfig>, kept: &Kept, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let (inventory, broker) = (ArcSwap::from_pointee(Inventory::default()), Broker::new(Arc::clone(&clock)));
        let (members, secrets) = (ArcSwap::default(), Secrets::default());
        let (publishing, changing) = (Mutex::new(()), Mutex::new(()));
        let fleet = Self(Arc::new(Inner { members, secrets, inventory, publishing, changing, broker, clock }));
        for config in configs {
            fleet.take_in(config, kept)?;
        }
        Ok(fleet)
    }

    /// Takes one more in: from now on it is asked and served. Its work ([`Fleet::work_of`]) is the caller's to drive.
    pub fn take_in(&self, config: HypervisorConfig, kept: &Kept) -> Result<(), Error> {
        let _one_at_a_time = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.members.load_full();
        if now.iter().any(|m| m.name == *config.name()) {
            return Err(Error::config(format!("hypervisors.{}", config.name()), "two hypervisors have this name"));
        }
        let (member, held) = Member::build(config, kept, self.0.clock.now())?;
        self.0.secrets.take_in(held);
        let members: Members = now.iter().cloned().chain([Arc::new(member)]).collect();
        self.0.members.store(Arc::new(members));
        Ok(())
    }

    /// Lets one go: its work ends, and nothing is known of it any more, nor of what was begun on it. What is under way
    /// with it is the caller's to cut. Gives the work of ending people's sessions there, if there is any. False: none of
    /// that name.
    pub fn let_go(&self, name: &HypervisorName) -> (bool, Option<Work>) {
        let _one_at_a_time = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.members.load_full();
        let Some(member) = now.iter().find(|m| m.name == *name) else { return (false, None) };
        let left: Members = now.iter().filter(|m| m.name != *name).cloned().collect();
        self.0.members.store(Arc::new(left));
        self.0.secrets.let_go(name);
        member.go();
        {
            let _no_list_comes_after = self.0.publishing.lock().unwrap_or_else(PoisonError::into_inner);
            let inventory = self.0.inventory.load();
            self.0.inventory.store(Arc::new(inventory.with(name, Vec::new())));
        }
        self.0.broker.forget_hypervisor(name);
        (true, end_at(member.desks(), |_| false))
    }

    /// Every machine known now.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.0.inventory.load_full()
    }

    /// How each hypervisor is doing, in the order of the configuration; those that were added come behind.
    pub fn health(&self) -> Vec<Health> {
        self.0.members.load().iter().map(|m| m.health()).collect()
    }

    /// The secrets in use.
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// The work that keeps the inventory: one future a hypervisor, so that a slow one delays no other. Each ends when
    /// `stop` becomes true or its sender is dropped, or the hypervisor is let go.
    pub fn run(&self, stop: &watch::Receiver<bool>) -> Vec<Work> {
        self.0.members.load().iter().map(|member| self.work(member, stop)).collect()
    }

    /// The same of one that was taken in while others run.
    pub fn work_of(&self, name: &HypervisorName, stop: &watch::Receiver<bool>) -> Option<Work> {
        self.member(name).ok().map(|member| self.work(&member, stop))
    }

    fn work(&self, member: &Arc<Member>, stop: &watch::Receiver<bool>) -> Work {
        let (fleet, member, mut stop) = (self.clone(), Arc::clone(member), stop.clone());
        Box::pin(async move {
            tokio::select! {
                _ = stop.wait_for(|stopped| *stopped) => {}
                () = member.gone() => {}
                () = fleet.keep(&member) => {}
                () = stay(&member) => {}
            }
        })
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
        join_all(self.0.members.load_full().iter().map(ask)).await;
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

    fn member(&self, name: &HypervisorName) -> Result<Arc<Member>, Error> {
        let found = self.0.members.load().iter().find(|m| m.name == *name).cloned();
        found.ok_or_else(|| Error::UnknownHypervisor(name.clone()))
    }

    fn permitted<'p>(&self, permit: &'p Permit, actions: &[Action]) -> Result<(Arc<Member>, &'p MachineRef), Error> {
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
    pub fn rpc(&self, hypervisor: &HypervisorName) -> Option<RpcFace> {
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
        let origins = api.as_ref().map_or(&[][..], |a| a.origins.as_slice());
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
    pub fn cutter(&self, hypervisor: &HypervisorName) -> Option<Arc<Cutter>> {
        self.member(hypervisor).ok()?.drivers.default.cutter().cloned()
    }

    pub(crate) fn desk_of(&self, name: &HypervisorName) -> Option<Arc<Desk>> {
        self.member(name).ok()?.drivers.default.desk().cloned()
    }

    /// The desks of all hypervisors.
    pub(crate) fn desks(&self) -> Vec<Arc<Desk>> {
        self.0.members.load().iter().flat_map(|m| m.desks()).collect()
    }

    /// The driver with one of a hypervisor's credentials.
    pub(crate) fn driver_called(&self, name: &HypervisorName, credential: &str) -> Option<Arc<dyn Driver>> {
        let member = self.member(name).ok()?;
        if credential == DEFAULT {
            return Some(Arc::clone(&member.drivers.default));
        }
        let other = member.drivers.others.iter().find(|(duties, _)| words(duties) == credential);
        other.map(|(_, driver)| Arc::clone(driver))
    }

    /// The desks of a hypervisor, by what their credentials are for.
    pub(crate) fn desk_for(&self, name: &HypervisorName, action: Action) -> Option<Arc<Desk>> {
        self.member(name).ok()?.drivers.of(action).desk().cloned()
    }

    /// How a hypervisor's API is reached, with the credential that is lent where no other one is for the action.
    pub(crate) fn api(&self, name: &HypervisorName) -> Option<Arc<Api>> {
        self.member(name).ok()?.api.as_ref().map(|lent| Arc::clone(&lent.default))
    }

    /// Every API, with what tells whether it is still the same hypervisor's.
    pub(crate) fn apis(&self) -> Vec<(HypervisorName, Arc<Choice<Arc<Api>>>)> {
        let of = |m: &Arc<Member>| m.api.as_ref().map(|lent| (m.name.clone(), Arc::clone(lent)));
        self.0.members.load().iter().filter_map(of).collect()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.0.clock)
    }
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
