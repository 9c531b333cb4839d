// SPDX-License-Identifier: Apache-2.0
//! Why a decision is what it is, for the person who keeps the policy.

use crate::{Engine, Kind, Line, decide::Target, permit::Decision};
use portcullis_domain::{Action, Actor, GrantEffect, GrantId, Inventory, MachineRef, Operation, Resource, RoleName};
use serde::Serialize;
use std::fmt;
use time::OffsetDateTime;

/// Whether a grant counts for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// It does.
    Yes,
    /// It covers other things.
    Elsewhere,
    /// It has not begun.
    NotYet,
    /// It is over.
    Over,
    /// Its hours, networks or kinds of machines are others.
    Conditions,
    /// It counts, and forbids what its role allows.
    Forbids,
    /// The policy has no such role.
    NoSuchRole,
}

impl Counts {
    const fn words(self) -> &'static str {
        match self {
            Self::Yes => "counts",
            Self::Elsewhere => "covers other things",
            Self::NotYet => "has not begun",
            Self::Over => "is over",
            Self::Conditions => "its hours, networks or kinds of machines are others",
            Self::Forbids => "forbids",
            Self::NoSuchRole => "its role is not in the policy",
        }
    }
}

/// One grant of the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantLine {
    /// Its id.
    pub grant: GrantId,
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
    /// The question that Casbin was asked: kind and action.
    pub asked: (Kind, Action),
    /// The roles that count, inheritance included.
    pub roles: Vec<RoleName>,
    /// Every grant of the person.
    pub grants: Vec<GrantLine>,
    /// The rules that match: kind and action are those asked, and the role is one that counts.
    pub rules: Vec<RuleLine>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.decision, self.reason)?;
        writeln!(f, "asked: {} on a {}", self.asked.1, self.asked.0)?;
        for g in &self.grants {
            writeln!(f, "grant {}: {} on {}: {}", g.grant, g.role, g.on, g.counts.words())?;
        }
        let roles: Vec<&str> = self.roles.iter().map(RoleName::as_str).collect();
        writeln!(f, "roles that count: {}", if roles.is_empty() { "none".to_owned() } else { roles.join(", ") })?;
        if self.rules.is_empty() {
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
        let mut roles = crate::roleset::RoleSet::EMPTY;
        let mut grants = Vec::with_capacity(actor.grants.len());
        for grant in &*actor.grants {
            let role = snapshot.rules.find(&grant.role);
            let counts = if !target.is_some_and(|t| t.is_covered_by(&grant.selector)) {
                Counts::Elsewhere
            } else if now < grant.from {
                Counts::NotYet
            } else if !grant.is_active(now) {
                Counts::Over
            } else if !target.is_some_and(|t| t.is_met_by(grant, actor.from, now)) {
                Counts::Conditions
            } else if grant.effect == GrantEffect::Deny {
                Counts::Forbids
            } else if let Some(role) = role {
                roles.add(snapshot.closure(role));
                Counts::Yes
            } else {
                Counts::NoSuchRole
            };
            grants.push(GrantLine {
                grant: grant.id,
                role: grant.role.clone(),
                on: grant.selector.to_string(),
                counts,
            });
        }
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
