// SPDX-License-Identifier: Apache-2.0
//! May they: actor, operation, inventory and now become a permit, a step-up or a denial.
//!
//! One walk over the actor's grants finds those that count here and now; their roles, inheritance included, are the
//! question that Casbin answers. The walk is linear in the grants of this one person, and compares what is cheap first.

use crate::{
    Error, Kind,
    oracle::Oracle,
    permit::{Decision, LIFE, LONGEST, Need, Permit, Recorded, Terms},
    reason::{Doors, Reason},
    roleset::{RoleIndex, RoleSet},
    rules::Rules,
    set::Set,
};
use arc_swap::ArcSwap;
use portcullis_domain::{
    Action, Actor, Conditions, Factor, Grant, GrantEffect, GrantId, HypervisorName, Inventory, Level, Machine,
    MachineRef, Operation, OwnObject, Resource, RoleName, Selector, Via,
};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use time::{Duration, OffsetDateTime};

/// Most grants that a permit names.
const NAMED: usize = 16;
/// A step-up window is never shorter: the code must be typed and the request sent again within it.
const SHORTEST_WINDOW: Duration = Duration::seconds(15);

/// Decides. Shared by all threads; readers take no lock.
pub struct Engine {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
}

/// One policy, loaded and whole. A decision is made on one snapshot from its first step to its last.
pub(crate) struct Snapshot {
    pub(crate) rules: Rules,
}

/// Whether a fresh factor is asked for where the action needs one.
#[derive(Clone, Copy)]
enum Freshness {
    Asked {
        first_at: OffsetDateTime,
    },
    /// The permit that is renewed was given with one.
    Carried {
        first_at: OffsetDateTime,
    },
}

/// One thing that grants must cover.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Machine(&'a Machine),
    Hypervisor(&'a HypervisorName),
    Own,
}

impl Target<'_> {
    /// Whether a selector covers it.
    pub(crate) fn is_covered_by(self, selector: &Selector) -> bool {
        match (selector, self) {
            (selector, Target::Machine(machine)) => selector.covers(machine),
            (Selector::Everything, _) => true,
            (Selector::Hypervisor(h), Target::Hypervisor(at)) => h == at,
            (_, Target::Own | Target::Hypervisor(_)) => false,
        }
    }

    /// Whether a grant counts for it, asked from an address at an instant. Hours are not known yet: a grant that has
    /// some gives nothing, and forbids always.
    pub(crate) fn is_met_by(self, grant: &Grant, from: Option<IpAddr>, now: OffsetDateTime) -> bool {
        let Conditions { hours, networks, kinds, .. } = &grant.conditions;
        let near = || networks.is_empty() || from.is_some_and(|ip| networks.iter().any(|n| n.contains(ip)));
        let kind = || match self {
            Self::Machine(machine) => kinds.is_empty() || kinds.contains(&machine.kind),
            Self::Hypervisor(_) | Self::Own => kinds.is_empty(),
        };
        let forbids = grant.effect == GrantEffect::Deny;
        self.is_covered_by(&grant.selector)
            && grant.is_active(now)
            && kind()
            && (hours.is_none() || forbids)
            && (near() || (forbids && from.is_none()))
    }
}

/// What the grants of all targets add up to. The strictest condition counts.
struct Sum {
    grants: Vec<GrantId>,
    until: Option<OffsetDateTime>,
    /// When the first of the targets has no grant left; none means never.
    lasts: Option<OffsetDateTime>,
    window: Duration,
    record: bool,
}

impl Sum {
    const fn new() -> Self {
        Self { grants: Vec::new(), until: None, lasts: None, window: Duration::MAX, record: false }
    }

    fn add(&mut self, grant: &Grant) {
        if self.grants.len() < NAMED && !self.grants.contains(&grant.id) {
            self.grants.push(grant.id);
        }
        self.until = earlier(self.until, grant.until);
        self.window = self.window.min(grant.conditions.step_up());
        self.record |= grant.conditions.record;
    }
}

/// The earlier of two ends, where none means never.
fn earlier(a: Option<OffsetDateTime>, b: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Engine {
    /// Reads a set of rules. Refuses the whole of it when anything in it is wrong.
    pub async fn load(csv: &str) -> Result<Self, Error> {
        let first = Snapshot::load(csv).await?;
        Ok(Self { current: ArcSwap::from_pointee(first), generation: AtomicU64::new(0) })
    }

    /// The policy that comes with the gateway.
    pub async fn builtin() -> Result<Self, Error> {
        Self::load(crate::RULES).await
    }

    /// Tries a set of rules and changes nothing.
    pub async fn check(&self, csv: &str) -> Result<(), Error> {
        Snapshot::load(csv).await.map(drop)
    }

    /// Takes a new set of rules, whole; when it is refused, the last good one stays. Live streams must be renewed.
    pub async fn replace(&self, csv: &str) -> Result<(), Error> {
        let next = Snapshot::load(csv).await?;
        self.current.store(Arc::new(next));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How many times the rules were replaced: a number that moved means that live streams must be renewed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Decides one operation of one person now.
    pub fn decide(&self, actor: &Actor, operation: &Operation, inventory: &Inventory, now: OffsetDateTime) -> Decision {
        self.current.load().decide(actor, operation, inventory, now, Freshness::Asked { first_at: now })
    }

    /// Decides the operation of a permit again, for a live stream that goes on. Everything is asked anew except the
    /// fresh factor, which was proven when the stream was opened. It must be the same person with the same session or
    /// token, and no more than [`LONGEST`] after the first permit.
    pub fn renew(&self, permit: &Permit, actor: &Actor, inventory: &Inventory, now: OffsetDateTime) -> Decision {
        if permit.user() != actor.user || permit.via() != actor.via {
            return Decision::Deny(Reason::Stranger);
        }
        if now < permit.first_at() || now - permit.first_at() >= LONGEST {
            return Decision::Deny(Reason::Worn);
        }
        let freshness = Freshness::Carried { first_at: permit.first_at() };
        self.current.load().decide(actor, permit.operation(), inventory, now, freshness)
    }

    /// Whether a person may know that something exists: `view` on it, or `read` for the gateway's own things. A
    /// hypervisor may be known to whoever may see it or any machine on it.
    pub fn may_see(&self, actor: &Actor, resource: &Resource, inventory: &Inventory, now: OffsetDateTime) -> bool {
        self.current.load().may_see(actor, resource, inventory, now)
    }

    /// The machines that a person may see, by hypervisor, then id.
    pub fn visible<'i>(&self, actor: &Actor, inventory: &'i Inventory, now: OffsetDateTime) -> Vec<&'i Machine> {
        let snapshot = self.current.load();
        inventory
            .iter()
            .filter(|m| snapshot.sees(actor, Target::Machine(m), Kind::Machine, Action::View, now))
            .collect()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

impl Snapshot {
    async fn load(csv: &str) -> Result<Self, Error> {
        let set = Set::read(csv)?;
        set.check()?;
        let rules = Rules::of(&set)?;
        match Oracle::differences(&set, &rules).await?.first() {
            Some(one) => Err(Error::Set(one.clone())),
            None => Ok(Self { rules }),
        }
    }

    pub(crate) fn closure(&self, role: RoleIndex) -> RoleSet {
        self.rules.role(role).map_or(RoleSet::EMPTY, |r| r.closure)
    }

    pub(crate) fn allows(&self, roles: RoleSet, kind: Kind, action: Action) -> bool {
        roles.iter().filter_map(|i| self.rules.role(i)).any(|r| r.rights.allow(kind, action))
    }

    fn decide(
        &self,
        actor: &Actor,
        operation: &Operation,
        inventory: &Inventory,
        now: OffsetDateTime,
        freshness: Freshness,
    ) -> Decision {
        let kind = Kind::of(&operation.resource);
        let sum = match self.weigh_all(actor, operation, kind, inventory, now) {
            Ok(sum) => sum,
            Err(reason) => return Decision::Deny(reason),
        };
        let first_at = match freshness {
            Freshness::Carried { first_at } => first_at,
            Freshness::Asked { first_at } => {
                if kind.asks_fresh(operation.action) {
                    let window = sum.window.max(SHORTEST_WINDOW);
                    match (actor.via, kind) {
                        (Via::Token(_), Kind::Own(_)) => return Decision::Deny(Reason::TokenCannotStepUp),
                        (Via::Token(_), Kind::Machine | Kind::Hypervisor) => {}
                        (Via::Session(_) | Via::CommandLine, _) if actor.assurance.is_fresh(window, now) => {}
                        (Via::Session(_) | Via::CommandLine, _) => return Decision::StepUp(Need { window }),
                    }
                }
                first_at
            }
        };
        let limit = now + LIFE;
        let recorded = if sum.record && operation.action.is_console() { Recorded::Must } else { Recorded::NeedNot };
        Decision::Permit(Permit::make(Terms {
            operation,
            user: actor.user,
            name: &actor.name,
            via: actor.via,
            grants: sum.grants,
            first_at,
            expires_at: sum.until.map_or(limit, |u| u.min(limit)),
            lasts_until: sum.lasts.map_or(first_at + LONGEST, |u| u.min(first_at + LONGEST)),
            recorded,
        }))
    }

    /// Every target of the operation must be allowed.
    fn weigh_all(
        &self,
        actor: &Actor,
        operation: &Operation,
        kind: Kind,
        inventory: &Inventory,
        now: OffsetDateTime,
    ) -> Result<Sum, Reason> {
        let action = operation.action;
        if actor.assurance.level() != Level::Two {
            return Err(Reason::Assurance);
        }
        if !kind.answers(action) {
            return Err(Reason::Impossible(action, kind));
        }
        if let Some(scope) = &actor.scope
            && operation.resource.hypervisor() != Some(scope)
        {
            return Err(Reason::Scope(scope.clone()));
        }
        let mut sum = Sum::new();
        let find = |at: &MachineRef| inventory.find(at).ok_or_else(|| Reason::Hidden(self.doors(kind, action)));
        match &operation.resource {
            Resource::Machine(at) => self.weigh(actor, Target::Machine(find(at)?), kind, action, now, &mut sum)?,
            Resource::Hypervisor(h) => self.weigh(actor, Target::Hypervisor(h), kind, action, now, &mut sum)?,
            Resource::Own(_) => self.weigh(actor, Target::Own, kind, action, now, &mut sum)?,
            Resource::Machines(h, ids) => {
                if ids.is_empty() {
                    return Err(Reason::Nothing);
                }
                for id in ids {
                    let at = MachineRef { hypervisor: h.clone(), machine: id.clone() };
                    self.weigh(actor, Target::Machine(find(&at)?), kind, action, now, &mut sum)?;
                }
            }
        }
        Ok(sum)
    }

    /// One target: adds the grants that allow it, or says why it is denied.
    fn weigh(
        &self,
        actor: &Actor,
        target: Target<'_>,
        kind: Kind,
        action: Action,
        now: OffsetDateTime,
        sum: &mut Sum,
    ) -> Result<(), Reason> {
        let (mut all, mut asked, mut open) = (RoleSet::EMPTY, RoleSet::EMPTY, RoleSet::EMPTY);
        let mut forbidden = RoleSet::EMPTY;
        // The last of the ends of those that allow it, where none is never.
        let mut last = Some(now);
        for grant in &*actor.grants {
            if !target.is_met_by(grant, actor.from, now) {
                continue;
            }
            // A role that the policy no longer has gives nothing.
            let Some(role) = self.rules.find(&grant.role) else { continue };
            if grant.effect == GrantEffect::Deny {
                forbidden.insert(role);
                continue;
            }
            if grant.conditions.passkey && !actor.assurance.has(Factor::Passkey) {
                continue;
            }
            if !asked.contains(role) {
                asked.insert(role);
                let closure = self.closure(role);
                all.add(closure);
                if self.allows(closure, kind, action) {
                    open.insert(role);
                }
            }
            if open.contains(role) {
                sum.add(grant);
                last = last.zip(grant.until).map(|(a, b)| a.max(b));
            }
        }
        sum.lasts = earlier(sum.lasts, last);
        let forbids = |i: &RoleIndex| self.allows(self.closure(*i), kind, action);
        let by: Vec<RoleName> =
            forbidden.iter().filter(forbids).filter_map(|i| self.rules.role(i)).map(|r| r.name.clone()).collect();
        if !by.is_empty() {
            let hidden = kind == Kind::Machine
                && (!self.allows(all, kind, Action::View)
                    || forbidden.iter().any(|i| self.allows(self.closure(i), kind, Action::View)));
            if hidden {
                return Err(Reason::Hidden(self.doors(kind, action)));
            }
            return Err(Reason::Forbidden { action, kind, by });
        }
        if open.is_empty() { Err(self.refusal(all, kind, action)) } else { Ok(()) }
    }

    /// Why a set of roles is not enough.
    fn refusal(&self, roles: RoleSet, kind: Kind, action: Action) -> Reason {
        if kind == Kind::Machine && !self.allows(roles, kind, Action::View) {
            return Reason::Hidden(self.doors(kind, action));
        }
        Reason::Role(self.doors(kind, action))
    }

    /// The roles that would open a door, the smallest first.
    fn doors(&self, kind: Kind, action: Action) -> Doors {
        let mut openers: Vec<(u32, RoleName)> = self
            .rules
            .roles()
            .filter(|(_, r)| self.allows(r.closure, kind, action))
            .map(|(_, r)| (r.rights.len(), r.name.clone()))
            .collect();
        openers.sort();
        let givers = self
            .rules
            .roles()
            .filter(|(_, r)| self.allows(r.closure, Kind::Own(OwnObject::Policy), Action::Write))
            .map(|(_, r)| r.name.clone())
            .collect();
        Doors { action, kind, openers: openers.into_iter().map(|(_, n)| n).collect(), givers }
    }

    /// Whether a person may do something for which no fresh factor counts.
    fn sees(&self, actor: &Actor, target: Target<'_>, kind: Kind, action: Action, now: OffsetDateTime) -> bool {
        let inside = match (&actor.scope, target) {
            (None, _) => true,
            (Some(scope), Target::Machine(m)) => m.at.hypervisor == *scope,
            (Some(scope), Target::Hypervisor(h)) => h == scope,
            (Some(_), Target::Own) => false,
        };
        if !inside || actor.assurance.level() != Level::Two {
            return false;
        }
        let mut roles = RoleSet::EMPTY;
        for grant in actor.grants.iter().filter(|g| target.is_met_by(g, actor.from, now)) {
            let Some(role) = self.rules.find(&grant.role) else { continue };
            let closure = self.closure(role);
            if grant.effect == GrantEffect::Deny && self.allows(closure, kind, action) {
                return false;
            }
            if grant.effect == GrantEffect::Allow && (!grant.conditions.passkey || actor.assurance.has(Factor::Passkey))
            {
                roles.add(closure);
            }
        }
        self.allows(roles, kind, action)
    }

    fn may_see(&self, actor: &Actor, resource: &Resource, inventory: &Inventory, now: OffsetDateTime) -> bool {
        let sees = |target, kind| self.sees(actor, target, kind, Action::View, now);
        let machine = |at: &MachineRef| inventory.find(at).is_some_and(|m| sees(Target::Machine(m), Kind::Machine));
        match resource {
            Resource::Machine(at) => machine(at),
            Resource::Machines(h, ids) => {
                !ids.is_empty()
                    && ids.iter().all(|id| machine(&MachineRef { hypervisor: h.clone(), machine: id.clone() }))
            }
            Resource::Hypervisor(h) => {
                sees(Target::Hypervisor(h), Kind::Hypervisor)
                    || inventory.iter().any(|m| m.at.hypervisor == *h && sees(Target::Machine(m), Kind::Machine))
            }
            Resource::Own(object) => self.sees(actor, Target::Own, Kind::Own(*object), Action::Read, now),
        }
    }
}

#[cfg(test)]
mod tests;
