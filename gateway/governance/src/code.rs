// SPDX-License-Identifier: Apache-2.0
//! The policy as files: what a set of them would change, taking it over, and going back to an older one.
//!
//! ```text
//! files ──Set──▶ plan (whom, what, which groups) ──one transaction──▶ version N ──every node──▶ rights and grants
//!        refused: nothing changes, and file and line are said
//! ```
//!
//! A set owns the roles, where it has any; the grants whose source is a policy file; and the members that it names of
//! groups kept here. What pages and requests gave stays theirs.

use crate::{
    grant::{By, Error, Grants, in_turn, lost_between},
    guard::Hands,
};
use portcullis_domain::{Grant, GrantEffect, GrantId, GrantSource, GroupId, Holder, UserId};
use portcullis_policy::{Engine, Given, Line, Set, Who};
use portcullis_store::{GroupSource, Holding, PolicyChange, PolicyVersion};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;
use uuid::Uuid;

/// Policy files by name. Those that end in `.csv` are rules, the others (tests) only travel with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files(pub BTreeMap<String, String>);

impl Files {
    /// The text that a version keeps.
    fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Reads what a version keeps, if it is what was written: another hash is refused.
    pub fn of(version: &PolicyVersion) -> Result<Self, Error> {
        let wrong = || Error::BadPolicy(format!("version {} cannot be read: it was changed", version.number));
        if hash(&version.files) != version.hash {
            return Err(wrong());
        }
        serde_json::from_str(&version.files).map(Self).map_err(|_| wrong())
    }

    /// The rules, read whole or refused with file and line.
    pub fn set(&self) -> Result<Set, Error> {
        let rules =
            self.0.iter().filter(|(name, _)| std::path::Path::new(name).extension().is_some_and(|e| e == "csv"));
        let set = Set::read_all(rules.map(|(name, text)| (name.as_str(), text.as_str()))).map_err(|e| bad(&e))?;
        set.check().map_err(|e| bad(&e))?;
        if set.rights.is_empty() && set.grants.is_empty() && set.members.is_empty() {
            return Err(Error::BadPolicy("the set is empty: it would take everything away".to_owned()));
        }
        Ok(set)
    }
}

fn bad(error: &portcullis_policy::Error) -> Error {
    Error::BadPolicy(error.to_string())
}

pub(crate) fn hash(text: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

/// The roles of a set as a text for [`Engine::replace`]; those that come with the gateway where it has none.
pub fn rights_of(set: &Set) -> String {
    if set.rights.is_empty() && set.includes.is_empty() {
        return portcullis_policy::RULES.to_owned();
    }
    Set { grants: Vec::new(), members: Vec::new(), ..set.clone() }.to_string()
}

/// What taking a set over would come to.
pub struct Plan {
    /// The version that it would be.
    pub number: u32,
    /// SHA-256 of its files.
    pub hash: String,
    /// Grants that would go, with whose they are.
    pub revoke: Vec<Holding>,
    /// What changes in the store.
    pub change: PolicyChange,
    /// The roles as they would be.
    pub engine: Engine,
    /// Who holds what now.
    pub before: HashMap<UserId, Vec<Grant>>,
    /// Who would hold what.
    pub after: HashMap<UserId, Vec<Grant>>,
    /// Every grant that there would be, also of groups that nobody is in.
    pub all: Vec<Grant>,
    text: String,
}

impl Plan {
    /// Whether nothing would change but the number of the version.
    pub fn is_empty(&self) -> bool {
        self.change == PolicyChange::default()
    }
}

/// People and groups by the names that files use.
struct Names {
    people: HashMap<String, UserId>,
    groups: HashMap<String, (GroupId, GroupSource)>,
    made: Vec<(GroupId, String)>,
}

impl Names {
    fn person(&self, name: &str, line: &Line) -> Result<UserId, String> {
        self.people.get(name).copied().ok_or_else(|| format!("{line}: there is no person called {name}"))
    }

    /// A group; one that is not there yet is made.
    fn group(&mut self, name: &str) -> (GroupId, GroupSource) {
        if let Some(known) = self.groups.get(name) {
            return *known;
        }
        let id = GroupId::new(Uuid::now_v7());
        self.made.push((id, name.to_owned()));
        self.groups.insert(name.to_owned(), (id, GroupSource::Local));
        (id, GroupSource::Local)
    }
}

/// What a grant says, apart from when it began: a row without `since` began when it was taken over.
fn sense(holder: Holder, given: &Given) -> (Holder, String) {
    (holder, format!("{:?}", given.columns()))
}

impl Grants {
    /// What taking a set of files over would come to. Changes nothing; says file and line of what is wrong.
    pub async fn plan(&self, engine: &Engine, files: &Files) -> Result<Plan, Error> {
        let now = self.clock.now();
        let set = files.set()?;
        let next = Engine::load(&rights_of(&set)).await.map_err(|e| bad(&e))?;
        let current = self.store.policy_version().await?;
        let mut names = Names {
            people: self.store.users().await?.into_iter().map(|u| (u.name, u.id)).collect(),
            groups: HashMap::new(),
            made: Vec::new(),
        };
        let groups = self.store.all_groups().await?;
        names.groups.extend(groups.iter().map(|g| (g.name.clone(), (g.id, g.source))));
        let mut wrong = Vec::new();
        let mut wanted: Vec<(Holder, &Given)> = Vec::new();
        for row in &set.grants {
            match &row.who {
                Who::Person(name) => match names.person(name, &row.line) {
                    Ok(user) => wanted.push((user.into(), &row.given)),
                    Err(why) => wrong.push(why),
                },
                Who::Group(name) => wanted.push((names.group(name).0.into(), &row.given)),
            }
            if !next.has_role(&row.given.role) {
                wrong.push(format!("{}: there is no role {}", row.line, row.given.role));
            }
        }
        let mut member = BTreeSet::new();
        for row in &set.members {
            let (group, source) = names.group(&row.group);
            if source == GroupSource::Directory {
                wrong.push(format!("{}: the group {} is kept by the company's directory", row.line, row.group));
            }
            match names.person(&row.person, &row.line) {
                Ok(user) => drop(member.insert((group, user))),
                Err(why) => wrong.push(why),
            }
        }
        if !wrong.is_empty() {
            return Err(Error::BadPolicy(format!("the policy was refused:\n{}", wrong.join("\n"))));
        }
        // Members that the version before named, and this one does not.
        let old = current.as_ref().map(|v| Files::of(v).and_then(|f| f.set())).transpose()?.unwrap_or_default();
        let old_members = old.members.iter().filter_map(|m| {
            let (group, source) = names.groups.get(&m.group)?;
            (*source == GroupSource::Local).then_some((*group, *names.people.get(&m.person)?))
        });
        let mut leave: BTreeSet<(GroupId, UserId)> = old_members.filter(|m| !member.contains(m)).collect();
        if self.guard.is_only_files() {
            // Files are all that says who is in a group that is kept here.
            let local = groups.iter().filter(|g| g.source == GroupSource::Local);
            let all = local.flat_map(|g| g.members.iter().map(move |user| (g.id, *user)));
            leave.extend(all.filter(|m| !member.contains(m)));
        }
        let leave: Vec<(GroupId, UserId)> = leave.into_iter().collect();
        let is_in =
            |(group, user): &(GroupId, UserId)| groups.iter().any(|g| g.id == *group && g.members.contains(user));
        let join: Vec<(GroupId, UserId)> = member.iter().filter(|m| !is_in(m)).copied().collect();

        let all = self.store.grants().await?;
        let mut held: HashMap<(Holder, String), Vec<&Holding>> = HashMap::new();
        let owned = |h: &&Holding| self.guard.files_own(h.grant.source);
        for h in all.iter().filter(owned) {
            let began = Given::of(&h.grant);
            held.entry(sense(h.holder, &Given { from: None, ..began.clone() })).or_default().push(h);
            held.entry(sense(h.holder, &began)).or_default().push(h);
        }
        let mut kept = BTreeSet::new();
        let mut add = Vec::new();
        for (holder, given) in wanted {
            let same = held.get(&sense(holder, given)).into_iter().flatten().find(|h| !kept.contains(&h.grant.id));
            match same {
                Some(same) => drop(kept.insert(same.grant.id)),
                None => add.push((holder, given.grant(GrantId::new(Uuid::now_v7()), now))),
            }
        }
        let revoke: Vec<Holding> = all.iter().filter(|h| owned(h) && !kept.contains(&h.grant.id)).cloned().collect();

        let mut members: BTreeMap<GroupId, BTreeSet<UserId>> =
            groups.iter().map(|g| (g.id, g.members.clone())).collect();
        let before = by_person(all.iter().map(|h| (h.holder, &h.grant)), &members);
        for (group, user) in &join {
            members.entry(*group).or_default().insert(*user);
        }
        for (group, user) in &leave {
            members.entry(*group).or_default().remove(user);
        }
        let stay = all.iter().filter(|h| !revoke.contains(h)).map(|h| (h.holder, &h.grant));
        let held: Vec<(Holder, &Grant)> = stay.chain(add.iter().map(|(h, g)| (*h, g))).collect();
        let after = by_person(held.iter().copied(), &members);
        let all: Vec<Grant> = held.into_iter().map(|(_, grant)| grant.clone()).collect();
        self.check_after(engine, &next, &before, &after, now).await?;
        let text = files.text();
        Ok(Plan {
            number: current.map_or(0, |v| v.number) + 1,
            hash: hash(&text),
            change: PolicyChange {
                revoke: revoke.iter().map(|h| h.grant.id).collect(),
                add,
                groups: names.made,
                join,
                leave,
            },
            revoke,
            engine: next,
            before,
            after,
            all,
            text,
        })
    }

    /// Somebody must be left who can run the gateway, and nobody may hold what is kept apart.
    async fn check_after(
        &self,
        now_in_effect: &Engine,
        next: &Engine,
        before: &HashMap<UserId, Vec<Grant>>,
        after: &HashMap<UserId, Vec<Grant>>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let people = self.open_people().await?;
        let open = |held: &HashMap<UserId, Vec<Grant>>| -> BTreeMap<UserId, Vec<Grant>> {
            held.iter().filter(|(u, _)| people.contains(u)).map(|(u, g)| (*u, g.clone())).collect()
        };
        if let Some(why) = lost_between((now_in_effect, &open(before)), (next, &open(after)), now) {
            return Err(Error::Kept(why));
        }
        for held in after.values() {
            for (place, grant) in held.iter().enumerate().filter(|(_, g)| g.effect == GrantEffect::Allow) {
                if grant.source != GrantSource::PolicyFile {
                    continue;
                }
                let mut others = held.clone();
                others.remove(place);
                if let Some(why) = self.duties().objection(next, &others, &grant.role, now) {
                    return Err(Error::Kept(why));
                }
            }
        }
        Ok(())
    }

    /// Takes a set of files over: rights, grants and members in one transaction. The caller has made the event of the
    /// version's hash durable.
    pub async fn apply(&self, engine: &Engine, by: By<'_>, files: &Files, why: &str) -> Result<PolicyVersion, Error> {
        if why.chars().count() > 512 || why.chars().any(char::is_control) {
            return Err(Error::BadPolicy("say why in at most 512 characters on one line".to_owned()));
        }
        in_turn!(self, self.apply_once(engine, by, files, why, Hands::One))
    }

    pub(crate) async fn apply_once(
        &self,
        engine: &Engine,
        by: By<'_>,
        files: &Files,
        why: &str,
        hands: Hands,
    ) -> Result<PolicyVersion, Error> {
        let plan = self.plan(engine, files).await?;
        if let Some(why) = Self::favours(by.user(), engine, &plan) {
            return Err(Error::Kept(why));
        }
        hands.hold(|| self.guard.taking_over(engine, &plan))?;
        let version = PolicyVersion {
            number: plan.number,
            files: plan.text,
            hash: plan.hash,
            applied_at: self.clock.now(),
            applied_by: by.name(),
            why: why.to_owned(),
        };
        self.store.apply_policy(&version, &plan.change).await?;
        Ok(version)
    }

    /// The hash that a set of files would have as a version: for the event before it is taken over.
    pub fn hash_of(files: &Files) -> String {
        hash(&files.text())
    }
}

/// Grants and who is in which group, person by person.
fn by_person<'g>(
    grants: impl Iterator<Item = (Holder, &'g Grant)>,
    members: &BTreeMap<GroupId, BTreeSet<UserId>>,
) -> HashMap<UserId, Vec<Grant>> {
    let mut held: HashMap<UserId, Vec<Grant>> = HashMap::new();
    for (holder, grant) in grants {
        match holder {
            Holder::Person(user) => held.entry(user).or_default().push(grant.clone()),
            Holder::Group(group) => {
                for user in members.get(&group).into_iter().flatten() {
                    held.entry(*user).or_default().push(grant.clone());
                }
            }
        }
    }
    held
}

/// The roles of a version, taken into an engine; those that come with the gateway where there is no version. When the
/// version cannot be read, the engine keeps what it has.
pub async fn take_rights(engine: &Engine, version: Option<&PolicyVersion>) -> Result<(), Error> {
    let text = match version {
        Some(version) => rights_of(&Files::of(version)?.set()?),
        None => portcullis_policy::RULES.to_owned(),
    };
    engine.replace(&text).await.map_err(|e| bad(&e))
}

#[cfg(test)]
mod tests;
