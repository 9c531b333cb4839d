// SPDX-License-Identifier: Apache-2.0
//! May they: actor, operation, inventory and now become a permit, a step-up or a denial.
//!
//! The index finds the grants of the person that cover what is asked and have the right. What they say (allow, forbid,
//! ask for more) is added up here, for all targets of the operation.

use crate::{
    Engine, Kind, Moment, Passkey, Snapshot, Target, Verdict, fresh,
    index::Entry,
    permit::{Decision, LIFE, LONGEST, Permit, Recorded, Terms},
    reason::{Doors, Reason},
    right::Right,
    terms::Met,
};
use portcullis_domain::{
    Action, Actor, ConsoleKind, Factor, GrantEffect, GrantId, HypervisorName, Inventory, Level, Machine, MachineKind,
    MachineRef, Operation, OwnObject, PowerState, Resource, RoleName,
};
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};

/// Most grants that a permit names.
const NAMED: usize = 16;
/// The id of no machine.
const NOTHING: &str = "-";

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

/// What the grants of all targets add up to. The strictest condition counts.
struct Sum {
    grants: Vec<GrantId>,
    until: Option<OffsetDateTime>,
    /// When the first of the targets has no grant left; none means never.
    lasts: Option<OffsetDateTime>,
    fresh: fresh::Terms,
    record: bool,
    clipboard_in: Option<u32>,
    clipboard_out: Option<u32>,
}

impl Sum {
    const fn new() -> Self {
        Self {
            grants: Vec::new(),
            until: None,
            lasts: None,
            fresh: fresh::Terms { window: Duration::MAX, each: false },
            record: false,
            clipboard_in: None,
            clipboard_out: None,
        }
    }

    fn add(&mut self, grant: &Entry, end: Option<OffsetDateTime>) {
        if self.grants.len() < NAMED && !self.grants.contains(&grant.id) {
            self.grants.push(grant.id);
        }
        let conditions = &grant.terms.conditions;
        self.until = earlier(self.until, end);
        self.fresh.window = self.fresh.window.min(conditions.step_up());
        self.fresh.each |= conditions.step_up_each;
        self.record |= conditions.record;
        self.clipboard_in = smaller(self.clipboard_in, conditions.clipboard_in);
        self.clipboard_out = smaller(self.clipboard_out, conditions.clipboard_out);
    }
}

/// The smaller of two limits, where none is no limit.
fn smaller(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// When, from where and with what an actor asks.
fn moment(actor: &Actor, from: Option<IpAddr>, now: OffsetDateTime) -> Moment {
    let passkey = if actor.assurance.has(Factor::Passkey) { Passkey::Proven } else { Passkey::Missing };
    Moment::new(now, from, passkey)
}

/// The earlier of two ends, where none means never.
fn earlier(a: Option<OffsetDateTime>, b: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Engine {
    /// Decides one operation of one person now.
    pub fn decide(&self, actor: &Actor, operation: &Operation, inventory: &Inventory, now: OffsetDateTime) -> Decision {
        let at = moment(actor, actor.from, now);
        self.current.load().decide(actor, operation, inventory, &at, Freshness::Asked { first_at: now })
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
        // The stream goes on from where it was opened.
        let at = moment(actor, permit.from(), now);
        self.current.load().decide(actor, permit.operation(), inventory, &at, freshness)
    }

    /// Whether a person may know that something exists: `view` on it, or `read` for the gateway's own things. A
    /// hypervisor may be known to whoever may see it or any machine on it.
    pub fn may_see(&self, actor: &Actor, resource: &Resource, inventory: &Inventory, now: OffsetDateTime) -> bool {
        self.current.load().may_see(actor, resource, inventory, &moment(actor, actor.from, now))
    }

    /// Whether a person may see all of a hypervisor: itself and every machine of it, those among them that nobody has
    /// heard of yet. A grant that forbids seeing any of them, at whatever time, makes it some: which ones it covers is told
    /// of machines that are known.
    pub fn sees_every(&self, actor: &Actor, hypervisor: &HypervisorName, now: OffsetDateTime) -> bool {
        let snapshot = self.current.load();
        let at = moment(actor, actor.from, now);
        let nowhere = |kind| {
            let machine = NOTHING.parse().ok()?;
            Some(Machine {
                at: MachineRef { hypervisor: hypervisor.clone(), machine },
                name: String::new(),
                kind,
                state: PowerState::Unknown,
                pool: None,
                tags: Vec::new(),
                node: None,
                console: ConsoleKind::None,
            })
        };
        let sees_any = |kind| {
            nowhere(kind).is_some_and(|m| snapshot.sees(actor, Target::Machine(&m), Kind::Machine, Action::View, &at))
        };
        snapshot.sees(actor, Target::Hypervisor(hypervisor), Kind::Hypervisor, Action::View, &at)
            && [MachineKind::Guest, MachineKind::Container, MachineKind::Template].into_iter().all(sees_any)
            && !snapshot.forbids_some(actor.user, hypervisor, now)
    }

    /// The machines that a person may see, by hypervisor, then id.
    pub fn visible<'i>(&self, actor: &Actor, inventory: &'i Inventory, now: OffsetDateTime) -> Vec<&'i Machine> {
        let snapshot = self.current.load();
        let at = moment(actor, actor.from, now);
        inventory
            .iter()
            .filter(|m| snapshot.sees(actor, Target::Machine(m), Kind::Machine, Action::View, &at))
            .collect()
    }
}

impl Snapshot {
    fn decide(
        &self,
        actor: &Actor,
        operation: &Operation,
        inventory: &Inventory,
        at: &Moment,
        freshness: Freshness,
    ) -> Decision {
        let now = at.now;
        let kind = Kind::of(&operation.resource);
        let mut sum = match self.weigh_all(actor, operation, kind, inventory, at) {
            Ok(sum) => sum,
            Err(reason) => return Decision::Deny(reason),
        };
        let (first_at, proof) = match freshness {
            Freshness::Asked { first_at } if kind.asks_fresh(operation.action) => {
                match fresh::ask(actor, operation, kind, sum.fresh, now) {
                    fresh::Freshness::Enough(proof) => (first_at, proof),
                    fresh::Freshness::StepUp(need) => return Decision::StepUp(need),
                    fresh::Freshness::Never(reason) => return Decision::Deny(reason),
                }
            }
            Freshness::Carried { first_at } | Freshness::Asked { first_at } => (first_at, None),
        };
        let limit = now + LIFE;
        sum.grants.sort();
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
            from: at.from,
            clipboard_in: sum.clipboard_in,
            clipboard_out: sum.clipboard_out,
            proof,
        }))
    }

    /// Every target of the operation must be allowed.
    fn weigh_all(
        &self,
        actor: &Actor,
        operation: &Operation,
        kind: Kind,
        inventory: &Inventory,
        at: &Moment,
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
        let mut weigh = |target| self.weigh(actor, target, kind, action, at, &mut sum);
        match &operation.resource {
            Resource::Machine(at) => weigh(Target::Machine(find(at)?))?,
            Resource::Hypervisor(h) => weigh(Target::Hypervisor(h))?,
            Resource::Own(_) => weigh(Target::Own)?,
            Resource::Machines(h, ids) => {
                if ids.is_empty() {
                    return Err(Reason::Nothing);
                }
                for id in ids {
                    let at = MachineRef { hypervisor: h.clone(), machine: id.clone() };
                    weigh(Target::Machine(find(&at)?))?;
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
        at: &Moment,
        sum: &mut Sum,
    ) -> Result<(), Reason> {
        let right = Right::of(kind, action).ok_or(Reason::Impossible(action, kind))?;
        // The last of the ends of those that allow it, where none is never; no end at all when none allows it.
        let mut last: Option<Option<OffsetDateTime>> = None;
        let mut forbidden = false;
        let mut by: Vec<RoleName> = Vec::new();
        let mut passkey = false;
        let walked = self.walk(actor.user, target, right, at, |entry, met| match (entry.effect, met) {
            (_, Met::No) => {}
            (GrantEffect::Deny, _) => {
                forbidden = true;
                by.extend(self.role_of(entry).filter(|n| !by.contains(n)).cloned());
            }
            (GrantEffect::Allow, Met::ButPasskey) => passkey = true,
            (GrantEffect::Allow, Met::Yes) => {
                let end = earlier(entry.until(), entry.terms.hours_end(at.now));
                sum.add(entry, end);
                last = Some(last.map_or(end, |l| l.zip(end).map(|(a, b)| a.max(b))));
            }
        });
        walked.map_err(|_| Reason::Fault)?;
        if !forbidden && let Some(end) = last {
            sum.lasts = earlier(sum.lasts, end);
            return Ok(());
        }
        if !forbidden && passkey {
            return Err(Reason::Passkey);
        }
        let hidden =
            kind == Kind::Machine && self.verdict(actor.user, target, kind, Action::View, at) != Verdict::Allow;
        if hidden {
            Err(Reason::Hidden(self.doors(kind, action)))
        } else if !forbidden {
            Err(Reason::Role(self.doors(kind, action)))
        } else {
            by.sort();
            Err(Reason::Forbidden { action, kind, by })
        }
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
    fn sees(&self, actor: &Actor, target: Target<'_>, kind: Kind, action: Action, at: &Moment) -> bool {
        let inside = match (&actor.scope, target) {
            (None, _) => true,
            (Some(scope), Target::Machine(m)) => m.at.hypervisor == *scope,
            (Some(scope), Target::Hypervisor(h)) => h == scope,
            (Some(_), Target::Own) => false,
        };
        inside
            && actor.assurance.level() == Level::Two
            && self.verdict(actor.user, target, kind, action, at) == Verdict::Allow
    }

    fn may_see(&self, actor: &Actor, resource: &Resource, inventory: &Inventory, at: &Moment) -> bool {
        let sees = |target, kind| self.sees(actor, target, kind, Action::View, at);
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
            Resource::Own(object) => self.sees(actor, Target::Own, Kind::Own(*object), Action::Read, at),
        }
    }
}

#[cfg(test)]
mod tests;
