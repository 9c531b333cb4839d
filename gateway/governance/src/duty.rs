// SPDX-License-Identifier: Apache-2.0
//! Roles that nobody may hold together, whatever gives them: an administrator, a group, a request, a directory.

use portcullis_domain::{Grant, GrantEffect, RoleName};
use portcullis_policy::{Engine, Kind};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use time::OffsetDateTime;

/// Roles of which nobody may hold more than one. A role that includes another counts as that one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The roles.
    pub roles: Vec<RoleName>,
    /// Why, for people; may be empty.
    pub words: String,
}

/// What is kept apart. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Duties(Arc<[Conflict]>);

impl Duties {
    /// Keeps these apart. Refused in words when a set makes no sense: one role only, an unknown one, or one that includes
    /// another of the same set, which nobody could hold at all.
    pub fn new(engine: &Engine, conflicts: Vec<Conflict>) -> Result<Self, String> {
        let includes = Includes::of(engine);
        for conflict in &conflicts {
            let roles: BTreeSet<&RoleName> = conflict.roles.iter().collect();
            if roles.len() < 2 {
                return Err("name at least two roles that are kept apart".to_owned());
            }
            for role in &roles {
                if !engine.has_role(role) {
                    return Err(format!("there is no role called {role}"));
                }
                let within = includes.all(role);
                if let Some(other) = roles.iter().find(|other| *other != role && within.contains(**other)) {
                    return Err(format!("{role} includes {other}: nobody could hold it"));
                }
            }
        }
        Ok(Self(conflicts.into()))
    }

    /// Why somebody who holds these grants may not be given a role. Grants that are over do not count, those that are
    /// yet to begin do.
    pub fn objection(&self, engine: &Engine, held: &[Grant], new: &RoleName, now: OffsetDateTime) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let includes = Includes::of(engine);
        let counts = |g: &&Grant| g.effect == GrantEffect::Allow && g.until.is_none_or(|until| now < until);
        let held: Vec<&RoleName> = held.iter().filter(counts).map(|g| &g.role).collect();
        self.0.iter().find_map(|conflict| {
            let of = |name: &RoleName| Share::of(engine, &includes, conflict, name);
            let new_one = of(new);
            let other = held.iter().find(|name| new_one.is_apart_from(&of(name)))?;
            let why = if conflict.words.is_empty() { String::new() } else { format!(" {}", conflict.words) };
            Some(format!("Nobody may hold {new} together with {other}, which they hold.{why}"))
        })
    }
}

/// Which roles of a set a name gives something of. A role gives those that it includes; one right alone gives a part of
/// each that has it, and is kept apart from the others: what nobody may hold as a role they do not hold right by right.
struct Share<'c> {
    roles: BTreeSet<&'c RoleName>,
    is_right: bool,
}

impl<'c> Share<'c> {
    fn of(engine: &Engine, includes: &Includes, conflict: &'c Conflict, name: &RoleName) -> Self {
        let right = name.right().and_then(|(kind, action)| Some((kind.parse::<Kind>().ok()?, action)));
        let within = includes.all(name);
        let gives = |role: &&RoleName| match right {
            Some((kind, action)) => engine.role_allows(role, kind, action),
            None => within.contains(*role),
        };
        Self { roles: conflict.roles.iter().filter(gives).collect(), is_right: right.is_some() }
    }

    fn is_apart_from(&self, other: &Self) -> bool {
        if self.is_right || other.is_right {
            !self.roles.is_empty() && !other.roles.is_empty() && self.roles.is_disjoint(&other.roles)
        } else {
            self.roles.iter().any(|a| other.roles.iter().any(|b| a != b))
        }
    }
}

/// Which roles a role includes, as the policy says now.
struct Includes(BTreeMap<RoleName, Vec<RoleName>>);

impl Includes {
    fn of(engine: &Engine) -> Self {
        Self(engine.roles().into_iter().map(|role| (role.name, role.includes)).collect())
    }

    /// A role and all that it includes.
    fn all(&self, role: &RoleName) -> BTreeSet<RoleName> {
        let mut found = BTreeSet::new();
        let mut look = vec![role.clone()];
        while let Some(role) = look.pop() {
            look.extend(self.0.get(&role).into_iter().flatten().filter(|r| !found.contains(*r)).cloned());
            found.insert(role);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{Conditions, GrantId, GrantSource, Selector};
    use time::{Duration, macros::datetime};
    use uuid::Uuid;

    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    fn role(name: &str) -> RoleName {
        name.parse().unwrap()
    }

    fn held(name: &str) -> Grant {
        Grant {
            id: GrantId::new(Uuid::from_u128(1)),
            role: role(name),
            selector: Selector::Tag("web".into()),
            effect: GrantEffect::Allow,
            from: NOW,
            until: None,
            conditions: Conditions::default(),
            source: GrantSource::Setup,
        }
    }

    fn set(roles: &[&str]) -> Vec<Conflict> {
        vec![Conflict { roles: roles.iter().map(|r| role(r)).collect(), words: "Who acts does not audit.".into() }]
    }

    #[tokio::test]
    async fn roles_that_are_kept_apart_are_not_held_together_however_they_are_included() {
        let engine = Engine::builtin().await.unwrap();
        let duties = Duties::new(&engine, set(&["auditor", "operator"])).unwrap();
        let objects = |held: &[Grant], new: &str| duties.objection(&engine, held, &role(new), NOW);
        let why = objects(&[held("auditor")], "operator").unwrap();
        assert!(why.contains("auditor") && why.contains("Who acts does not audit."), "{why}");
        assert!(objects(&[held("operator")], "auditor").is_some());
        assert!(objects(&[held("administrator")], "auditor").is_some(), "an administrator is an operator, too");
        assert!(objects(&[held("auditor")], "administrator").is_some());
        assert!(objects(&[held("auditor"), held("viewer")], "viewer").is_none());
        assert!(objects(&[held("operator")], "administrator").is_none());
        let over = Grant { until: Some(NOW), ..held("auditor") };
        let coming = Grant { from: NOW + Duration::DAY, ..held("auditor") };
        let forbids = Grant { effect: GrantEffect::Deny, ..held("auditor") };
        assert!(objects(&[over, forbids], "operator").is_none());
        assert!(objects(&[coming], "operator").is_some());
    }

    #[tokio::test]
    async fn what_is_kept_apart_is_not_held_right_by_right() {
        let engine = Engine::builtin().await.unwrap();
        let duties = Duties::new(&engine, set(&["auditor", "operator"])).unwrap();
        let objects = |held: &[Grant], new: &str| duties.objection(&engine, held, &role(new), NOW).is_some();
        assert!(objects(&[held("auditor")], "machine/power"));
        assert!(objects(&[held("machine/power")], "auditor"));
        assert!(objects(&[held("machine/power")], "gateway:audit/read"));
        assert!(objects(&[held("gateway:recordings/play")], "operator"));
        assert!(objects(&[held("gateway:recordings/play")], "administrator"), "it includes an operator");
        // What neither or both of them have is kept apart from nothing.
        assert!(!objects(&[held("auditor")], "machine/guest-exec"));
        assert!(!objects(&[held("operator")], "machine/power"));
        assert!(!objects(&[held("machine/power")], "machine/snapshot"));
        let duties = Duties::new(&engine, set(&["operator", "console-user"]));
        assert!(duties.is_err(), "one includes the other");
        let duties = Duties::new(&engine, set(&["auditor", "security-lead"])).unwrap();
        let objects = |new: &str| duties.objection(&engine, &[held("auditor")], &role(new), NOW).is_some();
        assert!(!objects("gateway:audit/read"), "both of them read the trail");
        assert!(objects("gateway:policy/write"));
    }

    #[tokio::test]
    async fn a_set_that_makes_no_sense_is_refused() {
        let engine = Engine::builtin().await.unwrap();
        for (roles, word) in [
            (&["auditor"][..], "two roles"),
            (&["auditor", "auditor"], "two roles"),
            (&["auditor", "emperor"], "emperor"),
            (&["administrator", "viewer"], "includes"),
        ] {
            let why = Duties::new(&engine, set(roles)).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
