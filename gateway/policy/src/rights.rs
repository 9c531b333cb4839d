// SPDX-License-Identifier: Apache-2.0
//! What roles and grants amount to, apart from any request: for pages, reviews and the rules about giving roles.

use crate::{Engine, Kind, Snapshot, right::Rights, roleset::RoleIndex, rules::Role};
use portcullis_domain::{Action, Actor, Grant, GrantEffect, Level, RoleName, Segment, Selector};
use serde::Serialize;
use std::fmt::Write as _;
use time::OffsetDateTime;

/// A role as pages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleInfo {
    /// Its name.
    pub name: RoleName,
    /// What it is for, from the policy file; empty when the file does not say.
    pub words: String,
    /// The roles that it includes.
    pub includes: Vec<RoleName>,
    /// Everything that it allows, inheritance included, in the order of the matrix.
    pub rights: Vec<(Kind, Action)>,
}

impl Engine {
    /// Whether a person holds, now, every right that these grants give, on at least what they cover. Machines are not
    /// looked up: a machine's grant is covered by one on the same machine, its hypervisor, or everything. Grants that
    /// are over count for nothing; grants that are yet to begin count.
    pub fn covers<'g>(&self, actor: &Actor, grants: impl IntoIterator<Item = &'g Grant>, now: OffsetDateTime) -> bool {
        let snapshot = self.snapshot();
        actor.assurance.level() == Level::Two
            && actor.scope.is_none()
            && grants.into_iter().filter(|g| g.until.is_none_or(|u| now < u)).all(|g| snapshot.covers(actor, g, now))
    }

    /// Whether grants allow an action on a kind of thing everywhere, taken together: one that forbids wins. Only grants
    /// on everything count; whether each is active is the caller's question.
    pub fn allows_everywhere<'g>(
        &self,
        grants: impl IntoIterator<Item = &'g Grant>,
        kind: Kind,
        action: Action,
    ) -> bool {
        let snapshot = self.snapshot();
        let (mut allowed, mut forbidden) = (Rights::NONE, Rights::NONE);
        for grant in grants.into_iter().filter(|g| g.effect == GrantEffect::Deny || g.selector == Selector::Everything)
        {
            if grant.effect == GrantEffect::Deny {
                forbidden.add(snapshot.rules.rights(&grant.role));
                continue;
            }
            if !grant.conditions.is_plain() {
                continue;
            }
            allowed.add(snapshot.rules.rights(&grant.role));
        }
        allowed.allow(kind, action) && !forbidden.allow(kind, action)
    }

    /// Whether a role exists, or a right can be asked that is named by itself.
    pub fn has_role(&self, role: &RoleName) -> bool {
        self.snapshot().rules.knows(role)
    }

    /// Whether a role, inheritance included, allows an action on a kind of thing.
    pub fn role_allows(&self, role: &RoleName, kind: Kind, action: Action) -> bool {
        self.snapshot().rules.rights(role).allow(kind, action)
    }

    /// Every role, by name.
    pub fn roles(&self) -> Vec<RoleInfo> {
        let snapshot = self.snapshot();
        let name = |i| snapshot.rules.role(i).map(|r| r.name.clone());
        let info = |(_, role): (RoleIndex, &Role)| RoleInfo {
            name: role.name.clone(),
            words: role.words.clone(),
            includes: role.includes.iter().filter_map(|i| name(*i)).collect(),
            rights: questions().filter(|(kind, action)| snapshot.allows(role.closure, *kind, *action)).collect(),
        };
        snapshot.rules.roles().map(info).collect()
    }

    /// Who may do what, as a table: a line for each kind and action, a column for each role.
    pub fn matrix(&self) -> String {
        let snapshot = self.snapshot();
        let roles: Vec<_> = snapshot.rules.roles().map(|(_, r)| r).collect();
        let kinds = Kind::all().map(|k| k.word().len()).max().unwrap_or(0);
        let actions = Action::ALL.iter().map(|a| a.word().len()).max().unwrap_or(0);
        let mut lines = vec![(
            "kind".to_owned(),
            "action".to_owned(),
            roles.iter().map(|r| r.name.to_string()).collect::<Vec<_>>(),
        )];
        lines.extend(questions().map(|(kind, action)| {
            let cell = |r: &&Role| if snapshot.allows(r.closure, kind, action) { "allow" } else { "deny" };
            (kind.to_string(), action.to_string(), roles.iter().map(|r| cell(r).to_owned()).collect())
        }));
        let mut text = String::new();
        let mut last = String::new();
        for (kind, action, cells) in lines {
            if kind != last && !last.is_empty() {
                text.push('\n');
            }
            let mut line = format!("{kind:kinds$}  {action:actions$}");
            for (cell, role) in cells.iter().zip(&roles) {
                // Writing to a string cannot fail.
                let _ = write!(line, "  {cell:width$}", width = role.name.as_str().len().max(5));
            }
            text.push_str(line.trim_end());
            text.push('\n');
            last = kind;
        }
        text
    }
}

/// Every right by itself, as the role of a grant names it, in the order of the matrix.
pub fn single_rights() -> impl Iterator<Item = (Kind, Action, RoleName)> {
    questions().filter_map(|(kind, action)| Some((kind, action, format!("{kind}/{action}").parse().ok()?)))
}

/// Everything that can be asked, in the order of the matrix.
pub(crate) fn questions() -> impl Iterator<Item = (Kind, Action)> {
    Kind::all().flat_map(|k| Action::ALL.iter().filter(move |a| k.answers(**a)).map(move |a| (k, *a)))
}

impl Snapshot {
    /// Whether everything that one grant gives is held already, on at least as much.
    fn covers(&self, actor: &Actor, grant: &Grant, now: OffsetDateTime) -> bool {
        let given = self.rules.rights(&grant.role);
        let (mut held, mut forbidden) = (Rights::NONE, Rights::NONE);
        for g in self.grants_of(actor.user).iter().filter(|g| g.is_active(now)) {
            let role = self.rules.rights(&g.role);
            if g.effect == GrantEffect::Deny {
                forbidden.add(role);
                continue;
            }
            // What counts at some hours or from some places only is no ground to give it for always.
            if !g.conditions.is_plain() {
                continue;
            }
            if encloses(&g.selector, &grant.selector) {
                held.add(role);
            }
        }
        // What is forbidden to them somewhere may be forbidden inside what the grant covers.
        let holds = |kind, action| held.allow(kind, action) && !forbidden.allow(kind, action);
        questions()
            .filter(|(kind, _)| {
                matches!(kind, Kind::Machine | Kind::Hypervisor) || grant.selector == Selector::Everything
            })
            .all(|(kind, action)| !given.allow(kind, action) || holds(kind, action))
    }
}

/// Whether one selector covers at least what another does, whatever the inventory holds.
fn encloses(outer: &Selector, inner: &Selector) -> bool {
    match (outer, inner) {
        (Selector::Everything, _) => true,
        (Selector::Hypervisor(a), Selector::Hypervisor(b) | Selector::Pool(b, _)) => a == b,
        (Selector::Hypervisor(a), Selector::Machine(m)) => *a == m.hypervisor,
        (Selector::Hypervisor(a), Selector::Pattern(p)) => p.hypervisor == Segment::Is(a.clone()),
        (a, b) => a == b,
    }
}
