// SPDX-License-Identifier: Apache-2.0
//! What a change of grants or rights does, before it is made: who may do what afterwards, and which operations of the
//! past would be decided otherwise. Nothing here changes anything.
//!
//! Both sides are asked at their best: with every factor proven just now, and without the hours and networks of a grant,
//! since what counts at some hour is something that somebody may do. What forbids at some hours only does not count.

use portcullis_domain::{
    Action, Effect, Grant, GrantChange, GrantEffect, GrantId, Holder, HypervisorName, Inventory, MachineRef, Operation,
    OwnObject, Resource, UserId,
};
use portcullis_policy::{Engine, Kind, Moment, Passkey, Snapshot, Verdict};
use portcullis_store::Decided;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;
use uuid::Uuid;

/// One side of a change: the rights of the roles, and who holds what.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What the roles may do.
    pub engine: &'a Engine,
    /// What each person holds, by themselves or through a group.
    pub held: &'a HashMap<UserId, Vec<Grant>>,
}

/// What the change is looked at with.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The machines that are known now.
    pub inventory: &'a Inventory,
    /// The hypervisors of the configuration.
    pub hypervisors: &'a [HypervisorName],
    /// The instant.
    pub now: OffsetDateTime,
}

/// Something that a person may do after a change and not before, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// Who.
    pub user: UserId,
    /// Whether it is gained or lost.
    pub turn: Turn,
    /// The actions, in the order of the vocabulary.
    pub actions: Vec<Action>,
    /// On what: things for which it is the same actions.
    pub on: Vec<Resource>,
}

/// Which way a right goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// They may do it afterwards.
    Gains,
    /// They may no longer do it.
    Loses,
}

impl Turn {
    /// The word for a sentence.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gains => "gains",
            Self::Loses => "loses",
        }
    }
}

/// What the operations of the past come to under a change.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// How many operations were looked at.
    pub asked: usize,
    /// How many were of people or on things that are not known any more: nothing is said of them.
    pub unknown: usize,
    /// Those that the change decides otherwise than the policy of now, newest first.
    pub otherwise: Vec<Otherwise>,
    /// How many the trail says were decided otherwise than the changed policy would.
    pub unlike_then: usize,
}

/// One operation of the past that a change decides otherwise.
#[derive(Debug, Clone)]
pub struct Otherwise {
    /// What was asked.
    pub asked: Decided,
    /// Whether the change would let it through.
    pub turn: Turn,
}

/// People at their best, on one side.
struct Best {
    snapshot: Snapshot,
    at: Moment,
}

impl Best {
    fn of<'h>(side: Side<'_>, held: impl Iterator<Item = (UserId, &'h Vec<Grant>)>, ground: Ground<'_>) -> Self {
        let sometimes = |g: &&Grant| g.conditions.hours.is_some() || !g.conditions.networks.is_empty();
        let changes = held.flat_map(|(user, all)| {
            all.iter().filter(move |g| g.effect == GrantEffect::Allow || !sometimes(g)).map(move |grant| {
                let mut grant = grant.clone();
                // A group's grant is held by several here: each gets one of their own.
                grant.id = GrantId::new(Uuid::now_v7());
                grant.conditions.hours = None;
                grant.conditions.networks.clear();
                GrantChange::Put(Holder::Person(user), grant)
            })
        });
        let snapshot = side.engine.snapshot().with_grants(changes);
        Self { snapshot, at: Moment::new(ground.now, None, Passkey::Proven) }
    }

    fn allows(&self, user: UserId, action: Action, resource: &Resource, ground: Ground<'_>) -> bool {
        let operation = Operation { action, resource: resource.clone(), effect: Effect::Safe };
        self.snapshot.verdict_of(user, &operation, ground.inventory, &self.at) == Verdict::Allow
    }

    /// What a person may do to one thing, in the order of the vocabulary.
    fn actions(&self, user: UserId, resource: &Resource, ground: Ground<'_>) -> Vec<Action> {
        let kind = Kind::of(resource);
        let asked = Action::ALL.iter().copied().filter(|a| kind.answers(*a));
        asked.filter(|a| self.allows(user, *a, resource, ground)).collect()
    }
}

/// Everything that can be asked about: machines, hypervisors, the gateway's own things.
fn things(ground: Ground<'_>) -> impl Iterator<Item = Resource> {
    let machines = ground.inventory.iter().map(|m| Resource::Machine(m.at.clone()));
    let hypervisors = ground.hypervisors.iter().cloned().map(Resource::Hypervisor);
    machines.chain(hypervisors).chain(OwnObject::ALL.iter().copied().map(Resource::Own))
}

/// What a person may do, thing by thing; things of which they may do nothing are left out.
pub fn access_of(side: Side<'_>, user: UserId, ground: Ground<'_>) -> Vec<(Resource, Vec<Action>)> {
    let Some(held) = side.held.get(&user) else { return Vec::new() };
    let best = Best::of(side, std::iter::once((user, held)), ground);
    let may = |thing: Resource| {
        let actions = best.actions(user, &thing, ground);
        (!actions.is_empty()).then_some((thing, actions))
    };
    things(ground).filter_map(may).collect()
}

/// Who may do what to one thing.
pub fn access_to(side: Side<'_>, resource: &Resource, ground: Ground<'_>) -> BTreeMap<UserId, Vec<Action>> {
    let best = Best::of(side, side.held.iter().map(|(user, held)| (*user, held)), ground);
    let may = |user: &UserId| {
        let actions = best.actions(*user, resource, ground);
        (!actions.is_empty()).then_some((*user, actions))
    };
    side.held.keys().filter_map(may).collect()
}

/// Who gains and loses what when one side becomes the other. Things with the same actions stand together.
pub fn compare(before: Side<'_>, after: Side<'_>, ground: Ground<'_>) -> Vec<Shift> {
    let same_rights = std::ptr::eq(before.engine, after.engine);
    let people: BTreeSet<UserId> = before.held.keys().chain(after.held.keys()).copied().collect();
    let none = Vec::new();
    let held = |side: Side<'_>, user: &UserId| side.held.get(user).unwrap_or(&none).clone();
    let touched: BTreeSet<UserId> =
        people.into_iter().filter(|u| !same_rights || held(before, u) != held(after, u)).collect();
    let best = |side: Side<'_>| {
        let theirs = side.held.iter().filter(|(user, _)| touched.contains(user)).map(|(user, held)| (*user, held));
        Best::of(side, theirs, ground)
    };
    let (old, new) = (best(before), best(after));
    let mut shifts = Vec::new();
    for user in touched {
        let (was, is) = (held(before, &user), held(after, &user));
        let differ: Vec<&Grant> =
            was.iter().filter(|g| !is.contains(g)).chain(is.iter().filter(|g| !was.contains(g))).collect();
        let touched = |thing: &Resource| match thing {
            Resource::Machine(at) if same_rights => {
                ground.inventory.find(at).is_some_and(|m| differ.iter().any(|g| g.selector.covers(m)))
            }
            _ => true,
        };
        let mut sums: BTreeMap<(Turn, Vec<Action>), Vec<Resource>> = BTreeMap::new();
        for thing in things(ground).filter(touched) {
            let (was, is) = (old.actions(user, &thing, ground), new.actions(user, &thing, ground));
            let gains: Vec<Action> = is.iter().copied().filter(|a| !was.contains(a)).collect();
            let loses: Vec<Action> = was.iter().copied().filter(|a| !is.contains(a)).collect();
            for (turn, actions) in [(Turn::Gains, gains), (Turn::Loses, loses)] {
                if !actions.is_empty() {
                    sums.entry((turn, actions)).or_default().push(thing.clone());
                }
            }
        }
        shifts.extend(sums.into_iter().map(|((turn, actions), on)| Shift { user, turn, actions, on }));
    }
    shifts
}

/// Reads a resource as the trail writes it.
fn resource(text: &str) -> Option<Resource> {
    if let Some(own) = OwnObject::ALL.iter().find(|o| o.word() == text) {
        return Some(Resource::Own(*own));
    }
    let Some((hypervisor, machines)) = text.split_once('/') else { return text.parse().ok().map(Resource::Hypervisor) };
    let hypervisor: HypervisorName = hypervisor.parse().ok()?;
    let mut ids = machines.split(',').map(str::parse).collect::<Result<Vec<_>, _>>().ok()?;
    if ids.len() == 1 {
        return ids.pop().map(|machine| Resource::Machine(MachineRef { hypervisor, machine }));
    }
    Some(Resource::Machines(hypervisor, ids))
}

fn is_known(resource: &Resource, ground: Ground<'_>) -> bool {
    match resource {
        Resource::Own(_) => true,
        Resource::Hypervisor(h) => ground.hypervisors.contains(h),
        Resource::Machine(at) => ground.inventory.find(at).is_some(),
        Resource::Machines(h, ids) => ids
            .iter()
            .all(|id| ground.inventory.find(&MachineRef { hypervisor: h.clone(), machine: id.clone() }).is_some()),
    }
}

/// Asks operations of the past again on both sides, as if either had been in force then. People and things that are not
/// known now are counted, not guessed about.
pub fn replay(past: Vec<Decided>, before: Side<'_>, after: Side<'_>, ground: Ground<'_>) -> Replay {
    let mut sum = Replay { asked: past.len(), ..Replay::default() };
    let asking: BTreeSet<UserId> = past.iter().map(|asked| asked.user).collect();
    let best = |side: Side<'_>| {
        let theirs = side.held.iter().filter(|(user, _)| asking.contains(user)).map(|(user, held)| (*user, held));
        Best::of(side, theirs, ground)
    };
    let (old, new) = (best(before), best(after));
    let known: BTreeSet<UserId> = before.held.keys().chain(after.held.keys()).copied().collect();
    for asked in past {
        let Some(resource) = resource(&asked.resource).filter(|r| is_known(r, ground)) else {
            sum.unknown += 1;
            continue;
        };
        if !known.contains(&asked.user) {
            sum.unknown += 1;
            continue;
        }
        let was = old.allows(asked.user, asked.action, &resource, ground);
        let is = new.allows(asked.user, asked.action, &resource, ground);
        sum.unlike_then += usize::from(is != asked.allowed);
        if was != is {
            sum.otherwise.push(Otherwise { turn: if is { Turn::Gains } else { Turn::Loses }, asked });
        }
    }
    sum
}

#[cfg(test)]
mod tests;
