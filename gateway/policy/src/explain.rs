// SPDX-License-Identifier: Apache-2.0
//! Why a decision is what it is, for the person who keeps the policy.

use crate::{
    Engine, Kind, Line, Moment, Passkey, Snapshot, Target,
    permit::Decision,
    terms::{Met, Terms},
};
use portcullis_domain::{
    Action, Actor, Factor, Grant, GrantEffect, GrantId, GroupId, Inventory, MachineRef, Operation, Resource, RoleName,
};
use serde::Serialize;
use std::fmt;
use time::OffsetDateTime;

/// Whether a grant counts for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// It allows it.
    Yes,
    /// It forbids it.
    Forbids,
    /// It counts, but its role has nothing to do with what is asked.
    OtherRights,
    /// It covers other things.
    Elsewhere,
    /// It has not begun.
    NotYet,
    /// It is over.
    Over,
    /// It covers other kinds of machines.
    OtherKinds,
    /// It counts from other networks.
    OtherNetworks,
    /// It counts at other hours.
    OtherHours,
    /// It counts for somebody who proved a passkey.
    NeedsPasskey,
    /// The policy has no such role.
    NoSuchRole,
}

impl Counts {
    /// What it says, after the words of the grant.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Yes => "allows it",
            Self::Forbids => "forbids it",
            Self::OtherRights => "its role does not speak of this",
            Self::Elsewhere => "covers other things",
            Self::NotYet => "has not begun",
            Self::Over => "is over",
            Self::OtherKinds => "covers other kinds of machines",
            Self::OtherNetworks => "counts from other networks only",
            Self::OtherHours => "counts at other hours only",
            Self::NeedsPasskey => "counts with a passkey only",
            Self::NoSuchRole => "its role is not in the policy",
        }
    }
}

/// One grant of the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantLine {
    /// Its id.
    pub grant: GrantId,
    /// The group that it comes through; none for a grant of the person's own.
    pub through: Option<GroupId>,
    /// Whether it gives or forbids.
    pub effect: GrantEffect,
    /// Its role.
    pub role: RoleName,
    /// What it covers, in words.
    pub on: String,
    /// Whether it counts, and if not, why.
    pub counts: Counts,
}

/// One rule that speaks about the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleLine {
    /// Where it stands in the policy's files.
    pub line: Line,
    /// Its role.
    pub role: RoleName,
}

/// A decision with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `permit`, `step-up` or `deny`.
    pub decision: &'static str,
    /// What the person would read.
    pub reason: String,
    /// The question: kind and action.
    pub asked: (Kind, Action),
    /// The roles that count here and now, inheritance included.
    pub roles: Vec<RoleName>,
    /// Every grant of the person and of their groups.
    pub grants: Vec<GrantLine>,
    /// The rules that match: kind and action are those asked, and the role is one that counts.
    pub rules: Vec<RuleLine>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.decision, self.reason)?;
        writeln!(f, "asked: {} on a {}", self.asked.1, self.asked.0)?;
        for g in &self.grants {
            let not = if g.effect == GrantEffect::Deny { "not " } else { "" };
            let through = g.through.map(|id| format!(", through group {id}")).unwrap_or_default();
            writeln!(f, "grant {}{through}: {not}{} on {}: {}", g.grant, g.role, g.on, g.counts.words())?;
        }
        let roles: Vec<&str> = self.roles.iter().map(RoleName::as_str).collect();
        writeln!(f, "roles that count: {}", if roles.is_empty() { "none".to_owned() } else { roles.join(", ") })?;
        let single = self.grants.iter().any(|g| g.counts == Counts::Yes && g.role.right().is_some());
        if self.rules.is_empty() && !single {
            writeln!(f, "no rule matches: denied")?;
        }
        for r in &self.rules {
            writeln!(f, "{}: {} allows it", r.line, r.role)?;
        }
        Ok(())
    }
}

impl Engine {
    /// Decides, and tells how. For an operation on several machines, the grants shown are those of the first that is
    /// known. Slower than [`Engine::decide`]: not for the path of requests.
    pub fn explain(
        &self,
        actor: &Actor,
        operation: &Operation,
        inventory: &Inventory,
        now: OffsetDateTime,
    ) -> Explanation {
        let (decision, reason) = match self.decide(actor, operation, inventory, now) {
            Decision::Permit(permit) => ("permit", format!("{} may do {}", permit.name(), permit.operation())),
            Decision::StepUp(need) => {
                ("step-up", format!("a code at most {} seconds old is needed", need.window.whole_seconds()))
            }
            Decision::Deny(reason) => ("deny", reason.to_string()),
        };
        let snapshot = self.snapshot();
        let kind = Kind::of(&operation.resource);
        let found = match &operation.resource {
            Resource::Machine(at) => inventory.find(at),
            Resource::Machines(h, ids) => {
                ids.iter().find_map(|id| inventory.find(&MachineRef { hypervisor: h.clone(), machine: id.clone() }))
            }
            Resource::Hypervisor(_) | Resource::Own(_) => None,
        };
        let target = match &operation.resource {
            Resource::Hypervisor(h) => Some(Target::Hypervisor(h)),
            Resource::Own(_) => Some(Target::Own),
            Resource::Machine(_) | Resource::Machines(..) => found.map(Target::Machine),
        };
        let passkey = if actor.assurance.has(Factor::Passkey) { Passkey::Proven } else { Passkey::Missing };
        let at = Moment::new(now, actor.from, passkey);
        let mut roles = crate::roleset::RoleSet::EMPTY;
        let own = snapshot.grants_held(actor.user).into_iter().map(|g| (None, g));
        let groups = snapshot.groups_of(actor.user);
        let others = groups.iter().flat_map(|id| snapshot.grants_held(*id).into_iter().map(|g| (Some(*id), g)));
        let mut grants = Vec::new();
        for (through, grant) in own.chain(others) {
            let counts = target.map_or(Counts::Elsewhere, |t| snapshot.counts(&grant, t, kind, operation.action, &at));
            if matches!(counts, Counts::Yes | Counts::OtherRights)
                && let Some(role) = snapshot.rules.find(&grant.role)
            {
                roles.add(snapshot.closure(role));
            }
            grants.push(GrantLine {
                grant: grant.id,
                through,
                effect: grant.effect,
                on: grant.selector.to_string(),
                role: grant.role,
                counts,
            });
        }
        grants.sort_by_key(|g| g.grant);
        let name = |i| snapshot.rules.role(i).map(|r| r.name.clone());
        let matching = snapshot
            .rules
            .rows
            .iter()
            .filter(|r| r.kind == kind && r.action == operation.action && roles.contains(r.role));
        let rules = matching.filter_map(|r| Some(RuleLine { line: r.line.clone(), role: name(r.role)? })).collect();
        Explanation {
            decision,
            reason,
            asked: (kind, operation.action),
            roles: roles.iter().filter_map(name).collect(),
            grants,
            rules,
        }
    }
}

impl Snapshot {
    /// Whether a role has anything to do with an action.
    pub(crate) fn speaks(&self, role: &RoleName, kind: Kind, action: Action) -> bool {
        self.rules.rights(role).allow(kind, action)
    }

    /// Whether one grant counts, and if not, the first reason why.
    pub(crate) fn counts(&self, grant: &Grant, target: Target<'_>, kind: Kind, action: Action, at: &Moment) -> Counts {
        let terms = Terms::new(grant.conditions.clone());
        let forbids = grant.effect == GrantEffect::Deny;
        let kinds = &grant.conditions.kinds;
        if !target.is_covered_by(&grant.selector) {
            Counts::Elsewhere
        } else if at.now < grant.from {
            Counts::NotYet
        } else if !grant.is_active(at.now) {
            Counts::Over
        } else if !kinds.is_empty() && !target.kind().is_some_and(|k| kinds.contains(&k)) {
            Counts::OtherKinds
        } else if !terms.is_near(grant.effect, at) {
            Counts::OtherNetworks
        } else if !terms.in_hours(at.now).unwrap_or(forbids) {
            Counts::OtherHours
        } else if !self.rules.knows(&grant.role) {
            Counts::NoSuchRole
        } else if !self.speaks(&grant.role, kind, action) {
            Counts::OtherRights
        } else {
            match (grant.effect, terms.met(grant.effect, target.kind(), at)) {
                (GrantEffect::Deny, _) => Counts::Forbids,
                (GrantEffect::Allow, Met::ButPasskey) => Counts::NeedsPasskey,
                (GrantEffect::Allow, Met::Yes | Met::No) => Counts::Yes,
            }
        }
    }
}
