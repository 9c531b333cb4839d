// SPDX-License-Identifier: Apache-2.0
//! Versions of the policy files as they were: what each gave by itself, and what it changed.

use crate::{
    code::{Files, Plan, rights_of},
    grant::{Error, Grants},
    impact::Side,
};
use portcullis_domain::{Grant, GrantEffect, GrantId, UserId};
use portcullis_policy::{Engine, Set, Who, single_rights};
use portcullis_store::PolicyVersion;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;
use uuid::Uuid;

/// What a set of files gives by itself, to people who are known now.
pub struct Past {
    /// What its roles may do.
    pub engine: Engine,
    /// What it gives to each person, by themselves or through a group whose members it names.
    pub held: HashMap<UserId, Vec<Grant>>,
    /// Its rows.
    pub rows: BTreeSet<String>,
}

impl Past {
    /// As one side of a change.
    pub const fn side(&self) -> Side<'_> {
        Side { engine: &self.engine, held: &self.held }
    }
}

impl Grants {
    /// What a version gave by itself; what came with the gateway where there was none. At the instant at which it is
    /// looked at: grants without a beginning began then.
    pub async fn past(&self, version: Option<&PolicyVersion>, at: OffsetDateTime) -> Result<Past, Error> {
        let set = match version {
            Some(version) => Files::of(version)?.set()?,
            None => Set::default(),
        };
        let engine = Engine::load(&rights_of(&set)).await.map_err(|e| Error::BadPolicy(e.to_string()))?;
        let people: BTreeMap<String, UserId> = self.store.users().await?.into_iter().map(|u| (u.name, u.id)).collect();
        let mut held: HashMap<UserId, Vec<Grant>> = HashMap::new();
        for row in &set.grants {
            let names: Vec<&String> = match &row.who {
                Who::Person(name) => vec![name],
                Who::Group(group) => set.members.iter().filter(|m| m.group == *group).map(|m| &m.person).collect(),
            };
            for user in names.into_iter().filter_map(|name| people.get(name)) {
                held.entry(*user).or_default().push(row.given.grant(GrantId::new(Uuid::now_v7()), at));
            }
        }
        // Only what stands in it: the roles that come with the gateway are no rows of a set without roles.
        let rows = set.to_string().lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
        Ok(Past { engine, held, rows })
    }

    /// Why somebody may not take a set over, if so: it would give something to themselves.
    pub(crate) fn favours(user: Option<UserId>, engine: &Engine, plan: &Plan) -> Option<String> {
        let user = user?;
        let none = Vec::new();
        let before = plan.before.get(&user).unwrap_or(&none);
        let after = plan.after.get(&user).unwrap_or(&none);
        let more = |from: &[Grant], to: &[Grant], effect| {
            to.iter().any(|g| g.effect == effect && !from.iter().any(|f| f.id == g.id))
        };
        // What they hold on both sides may mean more by its role, or forbid less.
        let wider = after.iter().any(|grant| {
            single_rights().any(|(kind, action, _)| {
                let was = engine.role_allows(&grant.role, kind, action);
                let is = plan.engine.role_allows(&grant.role, kind, action);
                if grant.effect == GrantEffect::Allow { is && !was } else { was && !is }
            })
        });
        let gains = more(before, after, GrantEffect::Allow) || more(after, before, GrantEffect::Deny) || wider;
        gains.then(|| "This would give something to yourself: somebody else must do it.".to_owned())
    }
}
