// SPDX-License-Identifier: Apache-2.0
//! What a change of grants or rights does, before it is made: who may do what afterwards, and which operations of the
//! past would be decided otherwise. Nothing here changes anything.
//!
//! Both sides are asked at their best: with every factor proven just now, and without the hours and networks of a grant,
//! since what counts at some hour is something that somebody may do. What forbids at some hours only does not count.

use portcullis_domain::{
    Action, Actor, Assurance, Effect, Factor, Grant, GrantEffect, HypervisorName, Inventory, MachineRef, Operation,
    OwnObject, Resource, UserId, Via,
};
use portcullis_policy::{Decision, Engine, Kind};
use portcullis_store::Decided;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use time::OffsetDateTime;

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

/// Somebody at their best.
fn at_best(user: UserId, held: &[Grant], now: OffsetDateTime) -> Actor {
    let mut assurance = Assurance::default();
    for factor in [Factor::Password, Factor::Totp, Factor::Passkey] {
        assurance.prove(factor, now);
    }
    let sometimes = |g: &Grant| g.conditions.hours.is_some() || !g.conditions.networks.is_empty();
    let grants = held.iter().filter(|g| g.effect == GrantEffect::Allow || !sometimes(g)).cloned().map(|mut g| {
        g.conditions.hours = None;
        g.conditions.networks.clear();
        g
    });
    let grants: Arc<[Grant]> = grants.collect();
    Actor { user, name: "somebody".into(), via: Via::CommandLine, grants, assurance, scope: None, from: None }
}

fn allows(engine: &Engine, actor: &Actor, action: Action, resource: &Resource, ground: Ground<'_>) -> bool {
    let operation = Operation { action, resource: resource.clone(), effect: Effect::Safe };
    !matches!(engine.decide(actor, &operation, ground.inventory, ground.now), Decision::Deny(_))
}

/// What a person may do to one thing, in the order of the vocabulary.
fn actions(engine: &Engine, actor: &Actor, resource: &Resource, ground: Ground<'_>) -> Vec<Action> {
    let kind = Kind::of(resource);
    let asked = Action::ALL.iter().copied().filter(|a| kind.answers(*a));
    asked.filter(|a| allows(engine, actor, *a, resource, ground)).collect()
}

/// Everything that can be asked about: machines, hypervisors, the gateway's own things.
fn things(ground: Ground<'_>) -> impl Iterator<Item = Resource> {
    let machines = ground.inventory.iter().map(|m| Resource::Machine(m.at.clone()));
    let hypervisors = ground.hypervisors.iter().cloned().map(Resource::Hypervisor);
    machines.chain(hypervisors).chain(OwnObject::ALL.iter().copied().map(Resource::Own))
}

/// What a person may do, thing by thing; things of which they may do nothing are left out.
pub fn access_of(side: Side<'_>, user: UserId, ground: Ground<'_>) -> Vec<(Resource, Vec<Action>)> {
    let held = side.held.get(&user).map_or(&[][..], Vec::as_slice);
    if held.is_empty() {
        return Vec::new();
    }
    let actor = at_best(user, held, ground.now);
    let may = |thing: Resource| {
        let actions = actions(side.engine, &actor, &thing, ground);
        (!actions.is_empty()).then_some((thing, actions))
    };
    things(ground).filter_map(may).collect()
}

/// Who may do what to one thing.
pub fn access_to(side: Side<'_>, resource: &Resource, ground: Ground<'_>) -> BTreeMap<UserId, Vec<Action>> {
    let may = |(user, held): (&UserId, &Vec<Grant>)| {
        let actions = actions(side.engine, &at_best(*user, held, ground.now), resource, ground);
        (!actions.is_empty()).then_some((*user, actions))
    };
    side.held.iter().filter_map(may).collect()
}

/// Who gains and loses what when one side becomes the other. Things with the same actions stand together.
pub fn compare(before: Side<'_>, after: Side<'_>, ground: Ground<'_>) -> Vec<Shift> {
    let same_rights = std::ptr::eq(before.engine, after.engine);
    let people: BTreeSet<UserId> = before.held.keys().chain(after.held.keys()).copied().collect();
    let mut shifts = Vec::new();
    for user in people {
        let held = |side: Side<'_>| side.held.get(&user).cloned().unwrap_or_default();
        let (was, is) = (held(before), held(after));
        if same_rights && was == is {
            continue;
        }
        let differ: Vec<&Grant> =
            was.iter().filter(|g| !is.contains(g)).chain(is.iter().filter(|g| !was.contains(g))).collect();
        let touched = |thing: &Resource| match thing {
            Resource::Machine(at) if same_rights => {
                ground.inventory.find(at).is_some_and(|m| differ.iter().any(|g| g.selector.covers(m)))
            }
            _ => true,
        };
        let (old, new) = (at_best(user, &was, ground.now), at_best(user, &is, ground.now));
        let mut sums: BTreeMap<(Turn, Vec<Action>), Vec<Resource>> = BTreeMap::new();
        for thing in things(ground).filter(touched) {
            let (was, is) = (actions(before.engine, &old, &thing, ground), actions(after.engine, &new, &thing, ground));
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
    let mut actors: HashMap<UserId, (Actor, Actor)> = HashMap::new();
    let mut sum = Replay { asked: past.len(), ..Replay::default() };
    let held = |side: Side<'_>, user: &UserId| side.held.get(user).cloned().unwrap_or_default();
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
        let (old, new) = actors.entry(asked.user).or_insert_with(|| {
            let actor = |side| at_best(asked.user, &held(side, &asked.user), ground.now);
            (actor(before), actor(after))
        });
        let was = allows(before.engine, old, asked.action, &resource, ground);
        let is = allows(after.engine, new, asked.action, &resource, ground);
        sum.unlike_then += usize::from(is != asked.allowed);
        if was != is {
            sum.otherwise.push(Otherwise { turn: if is { Turn::Gains } else { Turn::Loses }, asked });
        }
    }
    sum
}

#[cfg(test)]
mod tests;
