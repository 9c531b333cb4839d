// SPDX-License-Identifier: Apache-2.0
//! The house: everything that is shared by all rooms of one process, put together once at the start.

use crate::{
    body::Sent,
    config::{Config, ConfigError, Limits},
    dialect,
    files::{InEffect, Unread},
    listener::Tracked,
    lives::Lives,
    pace::Paces,
    reply::Refusal,
    roster::Roster,
    tell::Tell,
};
use arc_swap::ArcSwap;
use axum::Router;
use governor::{DefaultKeyedRateLimiter, Quota};
use portcullis_audit::{Recovered, Report, Trail, TrailKeys};
use portcullis_console::record::RecorderPool;
use portcullis_domain::{Action, Actor, Clock, Effect, HypervisorName, NodeId, Operation, RequestId, Resource};
use portcullis_governance::{Grants, Locks, Requests};
use portcullis_identity::Identity;
use portcullis_policy::{
    Decision, Engine,
    classify::{ApiKind, Methods, Table, Task},
};
use portcullis_store::{Keys, Store};
use portcullis_upstream::{Fleet, Forwarder, HypervisorConfig, Vault};
use rand::RngExt as _;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// Everything shared.
pub(crate) struct House {
    pub(crate) config: Config,
    /// `host[:port]` of the portal, as `Host` names it.
    pub(crate) authority: String,
    /// `https://host[:port]` of the portal, as `Origin` names it.
    pub(crate) origin: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    pub(crate) keys: Arc<Keys>,
    pub(crate) trail: Trail,
    pub(crate) engine: Arc<Engine>,
    pub(crate) identity: Identity,
    pub(crate) fleet: Fleet,
    /// Where secrets come from that are in no file.
    pub(crate) vault: Option<Vault>,
    pub(crate) grants: Grants,
    /// The version of the policy files in effect.
    pub(crate) policy: InEffect,
    /// Rows of grants and groups that could not be read.
    pub(crate) unread: Arc<Unread>,
    pub(crate) locks: Locks,
    pub(crate) requests: Requests,
    pub(crate) tell: Tell,
    /// The hypervisors in use.
    pub(crate) roster: Roster,
    pub(crate) lives: Arc<Lives>,
    pub(crate) recorders: RecorderPool,
    pub(crate) strangers: Strangers,
    pub(crate) paces: Paces,
    pub(crate) connections: Arc<Connections>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// Why the house closes by itself, if it does.
    pub(crate) failure: OnceLock<String>,
    /// When the whole trail was last looked at, and what was found.
    pub(crate) verified: Mutex<Option<(OffsetDateTime, Report)>>,
}

/// A hypervisor's API that passes through.
pub(crate) struct Api {
    pub(crate) kind: ApiKind,
    pub(crate) table: Table,
    /// The table of an API that is called by method names.
    pub(crate) methods: Option<Methods>,
}

/// What one shard has for itself.
pub(crate) struct Shard {
    pub(crate) portal: Router,
    forwarder: ArcSwap<Forwarder<Sent>>,
}

impl Shard {
    pub(crate) fn new(portal: Router, fleet: &Fleet) -> Self {
        Self { portal, forwarder: ArcSwap::from_pointee(Forwarder::new(fleet)) }
    }

    /// What sends requests on, to the hypervisors of now.
    pub(crate) fn forwarder(&self) -> Arc<Forwarder<Sent>> {
        self.forwarder.load_full()
    }

    /// Others are in use.
    pub(crate) fn renew(&self, fleet: &Fleet) {
        self.forwarder.store(Arc::new(self.forwarder.load().anew(fleet)));
    }
}

/// The id of a request that came at an instant: version 7, from the thread's own generator.
#[expect(clippy::disallowed_methods, reason = "an id is no secret")]
pub(crate) fn request_id(at: OffsetDateTime) -> RequestId {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    let random: [u8; 10] = rand::rng().random();
    RequestId::new(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

impl House {
    /// A new request's id.
    pub(crate) fn request_id(&self) -> RequestId {
        request_id(self.clock.now())
    }

    /// Whether the portal is the demo's: a name that every program on the machine shares.
    pub(crate) fn is_localhost(&self) -> bool {
        self.authority.split(':').next() == Some("localhost")
    }

    /// The hypervisor whose API a host name stands for: `<name>.<api_domain>[:port]`.
    pub(crate) fn api_host(&self, host: &str) -> Option<HypervisorName> {
        let domain = &self.config.portal.api_domain;
        let host = host.split_once(':').map_or(host, |(h, _)| h).to_ascii_lowercase();
        let roll = self.roster.load();
        if let Some(name) = roll.by_host(&host) {
            return Some(name.clone());
        }
        let name: HypervisorName = host.strip_suffix(domain.as_str())?.strip_suffix('.')?.parse().ok()?;
        roll.api(&name).is_some().then_some(name)
    }

    /// Whether a hypervisor's clients may show a certificate at its door.
    pub(crate) fn takes_keys(&self, name: &HypervisorName) -> bool {
        self.roster.load().api(name).is_some_and(|api| dialect::takes_keys(api.kind))
    }

    /// The hypervisors that tools reach through this gateway with a token.
    pub(crate) fn reachable(&self) -> Vec<HypervisorName> {
        let roll = self.roster.load();
        let rpcs = roll.configs().filter(|h| h.rpc().is_some()).map(HypervisorConfig::name);
        roll.with_api().chain(rpcs).cloned().collect()
    }

    /// Where native clients reach a hypervisor's API through this gateway.
    pub(crate) fn api_address(&self, name: &HypervisorName) -> Option<String> {
        let roll = self.roster.load();
        let config = roll.config(name)?;
        if let (Some(door), Some(face)) = (config.rpc(), self.fleet.rpc(name)) {
            return face.address(&self.config.portal.host()?, door.port);
        }
        let door = config.api()?;
        let host = self.config.portal.host()?;
        match (door.port, &door.host) {
            (Some(port), host_of_its_own) => {
                Some(format!("https://{}:{port}", host_of_its_own.as_ref().unwrap_or(&host)))
            }
            (None, Some(own)) => Some(format!("https://{own}")),
            (None, None) if !self.config.portal.api_domain.is_empty() => {
                Some(format!("https://{name}.{}", self.config.portal.api_domain))
            }
            (None, None) => None,
        }
    }

    /// Closes what the passes that no longer count have open with hypervisors. Waits for nobody.
    pub(crate) fn end_seats(&self) {
        if let Some(work) = self.fleet.end_seats(|pass| self.identity.pass_counts(pass)) {
            self.tasks.spawn(work);
        }
    }

    /// What following a hypervisor's task is, for whoever began it through this gateway; none when it is not theirs
    /// or not known.
    pub(crate) fn resolve(&self, task: &Task, actor: &Actor, now: OffsetDateTime) -> Option<Operation> {
        let Some(own) = self.fleet.broker().resolve(task, actor) else { return task.about.clone() };
        // Whoever destroyed a machine follows that to its end: there is nothing any more that could be asked for.
        let is_gone = matches!(&own.resource, Resource::Machine(at) if self.fleet.inventory().find(at).is_none());
        let may_look = own.action == Action::View && own.effect == Effect::Safe && task.about.is_some();
        if is_gone && may_look { Some(self.visible(&task.hypervisor, actor, now)) } else { Some(own) }
    }

    /// A look at what somebody may see of a hypervisor: at all of it, or at their machines on it. Of many machines the
    /// first ones stand for all; which rows stay is asked of each row. Whoever is forbidden some machines sees those
    /// that they may, and not all of it: an answer is passed on as it comes only to who may see everything in it.
    pub(crate) fn visible(&self, hypervisor: &HypervisorName, actor: &Actor, now: OffsetDateTime) -> Operation {
        const NAMED: usize = 50;
        let of = |resource| Operation { action: Action::View, resource, effect: Effect::Safe };
        let whole = of(Resource::Hypervisor(hypervisor.clone()));
        let inventory = self.fleet.inventory();
        let is_permitted = matches!(self.engine.decide(actor, &whole, &inventory, now), Decision::Permit(_));
        if is_permitted && self.engine.sees_every(actor, hypervisor, now) {
            return whole;
        }
        let machines = self.engine.visible(actor, &inventory, now);
        let machines = machines.into_iter().filter(|m| m.at.hypervisor == *hypervisor);
        let machines: Vec<_> = machines.map(|m| m.at.machine.clone()).take(NAMED).collect();
        // Whoever may see nothing hears what role would open the whole of it.
        let is_nothing = machines.is_empty() && !is_permitted;
        if is_nothing { whole } else { of(Resource::Machines(hypervisor.clone(), machines)) }
    }

    /// How a denial is said: what a person may not even see does not exist for them.
    pub(crate) fn hide(&self, actor: &Actor, operation: &Operation, reason: &str, now: OffsetDateTime) -> Refusal {
        let seen = match &operation.resource {
            Resource::Own(_) => true,
            resource => self.engine.may_see(actor, resource, &self.fleet.inventory(), now),
        };
        if seen { Refusal::Forbidden(reason.to_owned()) } else { Refusal::NotFound }
    }

    /// Something of ours does not work: said without its inside, logged with it.
    #[expect(clippy::unused_self, reason = "reads as the house's answer at the call")]
    pub(crate) fn unavailable(&self, error: &(dyn std::error::Error + 'static)) -> Refusal {
        tracing::error!(error = %chain(error), "denied because a part of the gateway failed");
        Refusal::Unavailable(
            "A part of the gateway is not working, so nothing is let through. Try again in a moment.".into(),
        )
    }

    pub(crate) fn executor(&self) -> Tracked {
        Tracked(self.tasks.clone())
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// How many connections are open, in all and by network.
#[derive(Default)]
pub(crate) struct Connections(Mutex<(usize, BTreeMap<IpAddr, usize>)>);

/// One open connection; it counts until dropped.
pub(crate) struct Counted {
    connections: Arc<Connections>,
    network: IpAddr,
}

impl Connections {
    /// Counts one more, if there is room for it.
    pub(crate) fn count(self: &Arc<Self>, ip: IpAddr, limits: &Limits) -> Option<Counted> {
        let network = prefix(ip);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, networks) = &mut *held;
        let of_network = networks.get(&network).copied().unwrap_or(0);
        if *all >= limits.connections || of_network >= limits.connections_per_network {
            return None;
        }
        *all += 1;
        networks.insert(network, of_network + 1);
        drop(held);
        Some(Counted { connections: Arc::clone(self), network })
    }

    /// How many there are.
    pub(crate) fn all(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut held = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, networks) = &mut *held;
        *all = all.saturating_sub(1);
        match networks.get_mut(&self.network) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(networks.remove(&self.network)),
        }
    }
}

/// How often people who are not known may knock, by address prefix: /24 of IPv4, /64 of IPv6.
pub(crate) struct Strangers {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    /// How many were turned away since the last look, by prefix.
    refused: Mutex<BTreeMap<IpAddr, u64>>,
}

/// Prefixes whose refusals are counted one by one; all others together.
const COUNTED: usize = 256;

impl Strangers {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let limiter = DefaultKeyedRateLimiter::keyed(Quota::per_second(rate).allow_burst(burst));
        Self { limiter, refused: Mutex::default() }
    }

    /// Whether one more may be answered now.
    pub(crate) fn check(&self, ip: IpAddr) -> bool {
        self.limiter.check_key(&prefix(ip)).is_ok()
    }

    /// Counts one that was turned away. Each as an event would let a flood fill the trail; none would hide the flood.
    pub(crate) fn refused(&self, ip: IpAddr) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = prefix(ip);
        let known = refused.len() < COUNTED || refused.contains_key(&prefix);
        *refused.entry(if known { prefix } else { IpAddr::from([0; 16]) }).or_default() += 1;
    }

    /// Forgets addresses that have been quiet, so that a scan does not fill the memory; gives who was turned away
    /// since the last look, and how often.
    pub(crate) fn tidy(&self) -> BTreeMap<IpAddr, u64> {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The network that an address counts for.
pub(crate) fn prefix(ip: IpAddr) -> IpAddr {
    let net = match ip.to_canonical() {
        IpAddr::V4(a) => ipnet::IpNet::new(IpAddr::V4(a), 24),
        IpAddr::V6(a) => ipnet::IpNet::new(IpAddr::V6(a), 64),
    };
    net.map_or(ip, |net| net.network())
}

/// Whose log is opened: a log belongs to the process that writes it.
#[derive(Clone, Copy)]
pub(crate) enum LogOf {
    Server,
    CommandLine,
}

impl LogOf {
    /// The folder under `[trail] dir`.
    pub(crate) fn dir(self, config: &Config) -> PathBuf {
        config.trail.dir.join(match self {
            Self::Server => "server",
            Self::CommandLine => "command-line",
        })
    }
}

/// The keys of the trail, derived from the key file: one for the chain, another for checkpoints.
pub(crate) fn trail_keys(keys: &Keys) -> TrailKeys {
    TrailKeys { mac: keys.derive("trail mac"), sign: keys.derive("trail checkpoint signature") }
}

/// Makes a folder, and those above it that are missing, for nobody else to look into.
pub(crate) fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a log, with the node id that its folder keeps.
pub(crate) fn open_trail(
    config: &Config,
    keys: &Keys,
    of: LogOf,
    clock: Arc<dyn Clock>,
) -> Result<(Trail, Recovered), ConfigError> {
    let dir = of.dir(config);
    let wrong = |why: String| ConfigError::new(&config.file, format!("trail.dir: {}: {why}", dir.display()));
    make_private(&dir).map_err(|e| wrong(e.to_string()))?;
    let file = dir.join("node");
    let node = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse::<NodeId>().map_err(|e| wrong(format!("node: {e}")))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let node = NodeId::new(Uuid::new_v4());
            name_log(&dir, node).map_err(|e| wrong(format!("node: {e}")))?;
            node
        }
        Err(error) => return Err(wrong(format!("node: {error}"))),
    };
    Trail::open(&dir, &trail_keys(keys), node, clock).map_err(|e| wrong(chain(&e)))
}

/// Gives a log's folder its node id. Whole or not at all: a process that is killed half-way must not leave a file that
/// no later start can read.
fn name_log(dir: &Path, node: NodeId) -> std::io::Result<()> {
    let new = dir.join("node.new");
    std::fs::write(&new, format!("{node}\n"))?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, dir.join("node"))?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_every_connection() {
        let connections = Arc::new(Connections::default());
        let limits = Limits { connections: 5, connections_per_network: 3, ..Limits::default() };
        let from = |last: u8| connections.count(IpAddr::from([192, 0, 2, last]), &limits);
        let held: Vec<_> = (0..3).map(from).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(from(77).is_none(), "the network is full");
        let other = connections.count(IpAddr::from([198, 51, 100, 1]), &limits);
        assert!(other.is_some(), "another one is not");
        let _third = connections.count(IpAddr::from([203, 0, 113, 1]), &limits);
        assert!(connections.count(IpAddr::from([10, 0, 0, 1]), &limits).is_none(), "all are taken");
        drop(held);
        assert!(from(77).is_some());
        drop(other);
        assert_eq!(connections.all(), 1);
    }

    #[test]
    fn those_who_are_turned_away_are_counted_by_network_and_not_without_end() {
        let strangers = Strangers::new(1, 2);
        let ip = |n: u16| IpAddr::from([10, n.to_be_bytes()[0], n.to_be_bytes()[1], 1]);
        assert!(strangers.check(ip(1)) && strangers.check(ip(1)) && !strangers.check(ip(1)));
        for n in 0..1_000 {
            strangers.refused(ip(n));
            strangers.refused(ip(n));
        }
        let counted = strangers.tidy();
        assert_eq!(counted.len(), COUNTED + 1);
        assert_eq!(counted.values().sum::<u64>(), 2_000);
        assert_eq!(counted.get(&IpAddr::from([10, 0, 0, 0])), Some(&2));
        assert!(strangers.tidy().is_empty());
    }
}
