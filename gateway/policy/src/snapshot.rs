// SPDX-License-Identifier: Apache-2.0
//! One policy, whole: what roles allow and who holds which. A decision is made on one snapshot from its first step to its
//! last.

use crate::{
    Error, Kind,
    index::{Entry, Index, Interner, Part, Target},
    oracle::Oracle,
    right::{Right, Rights},
    roleset::{RoleIndex, RoleSet},
    rules::Rules,
    set::Set,
    terms::{Met, Moment},
};
use portcullis_domain::{
    Action, Grant, GrantChange, GrantEffect, GroupId, Holder, HypervisorName, Operation, Resource, RoleName, Selector,
    UserId,
};
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;

/// What grants say about a question, before it is asked how sure the gateway is of the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One allows and none forbids.
    Allow,
    /// None allows, or one forbids.
    Deny,
    /// Those that allow count only for somebody who proved a passkey.
    Passkey,
    /// Something that it depends on could not be read: denied.
    Fault,
}

/// One policy, whole. A cheap handle.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) rules: Arc<Rules>,
    pub(crate) index: Index,
    /// What each role's number in the index allows under these rules.
    slots: Arc<[Rights]>,
    interner: Arc<Mutex<Interner>>,
}

/// Reads rules strictly, and has Casbin read them too.
pub(crate) async fn rules_of(csv: &str) -> Result<Arc<Rules>, Error> {
    let set = Set::read(csv)?;
    set.check()?;
    let rules = Rules::of(&set)?;
    match Oracle::differences(&set, &rules).await?.into_iter().next() {
        Some(one) => Err(Error::Set(one)),
        None => Ok(Arc::new(rules)),
    }
}

impl Snapshot {
    /// The rules alone: nobody holds anything.
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, index: Index::new(0), slots: Arc::default(), interner: Arc::default() }
    }

    fn made_of(&self, rules: Arc<Rules>, index: Index) -> Self {
        let slots = index.names.list.iter().map(|name| rules.rights(name)).collect();
        Self { rules, index, slots, interner: Arc::clone(&self.interner) }
    }

    pub(crate) fn changed(&self, changes: impl IntoIterator<Item = GrantChange>, part: Part) -> Self {
        let mut interner = self.interner.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match part {
            Part::Some => self.index.with(changes, &mut interner, part),
            Part::Whole => Index::whole(changes, &mut interner),
        };
        drop(interner);
        self.made_of(Arc::clone(&self.rules), index)
    }

    pub(crate) fn ruled_by(&self, rules: Arc<Rules>) -> Self {
        self.made_of(rules, self.index.clone())
    }

    /// What would be if these changes were made. Nothing changes for anybody else.
    #[must_use]
    pub fn what_if(&self, changes: impl IntoIterator<Item = GrantChange>) -> Self {
        self.changed(changes, Part::Some)
    }

    /// What would be if these were all the grants that there are.
    #[must_use]
    pub fn with_grants(&self, all: impl IntoIterator<Item = GrantChange>) -> Self {
        self.changed(all, Part::Whole)
    }

    /// What would be if the roles meant what this set says.
    pub fn with_roles(&self, set: &Set) -> Result<Self, Error> {
        set.check()?;
        Ok(self.ruled_by(Arc::new(Rules::of(set)?)))
    }

    /// How many grants there are.
    pub const fn grants(&self) -> usize {
        self.index.len()
    }

    /// The grants of a person and of their groups, the oldest first. Empty when they could not be read: whoever holds
    /// them is denied everything.
    pub fn grants_of(&self, user: UserId) -> Vec<Grant> {
        let groups = self.index.groups_of(user).into_iter().map(Holder::Group);
        let all: Result<Vec<Vec<Grant>>, _> =
            [Holder::Person(user)].into_iter().chain(groups).map(|h| self.index.grants_of(h)).collect();
        let mut grants = all.map(|all| all.concat()).unwrap_or_default();
        grants.sort_by_key(|g| g.id);
        grants
    }

    /// The grants of one holder alone, the oldest first.
    pub fn grants_held(&self, holder: impl Into<Holder>) -> Vec<Grant> {
        self.index.grants_of(holder.into()).unwrap_or_default()
    }

    /// The groups that a person is in.
    pub fn groups_of(&self, user: UserId) -> Vec<GroupId> {
        self.index.groups_of(user)
    }

    /// Who is in a group.
    pub fn members_of(&self, group: GroupId) -> Arc<[UserId]> {
        self.index.members_of(group)
    }

    /// Everybody who holds a grant or is in a group, in no order.
    pub fn people(&self) -> impl Iterator<Item = UserId> {
        self.index.people()
    }

    /// What the grants of a person say about an action on a thing at a moment. Allocates nothing. How sure the gateway is
    /// of them, what their credential is limited to and a fresh factor are not asked here: [`crate::Engine::decide`] does.
    pub fn verdict(&self, user: UserId, target: Target<'_>, kind: Kind, action: Action, at: &Moment) -> Verdict {
        let Some(right) = Right::of(kind, action) else { return Verdict::Deny };
        let (mut allowed, mut forbidden, mut passkey) = (false, false, false);
        let walked = self.walk(user, target, right, at, |entry, met| match (entry.effect, met) {
            (_, Met::No) => {}
            (GrantEffect::Deny, _) => forbidden = true,
            (GrantEffect::Allow, Met::Yes) => allowed = true,
            (GrantEffect::Allow, Met::ButPasskey) => passkey = true,
        });
        match walked {
            Err(_) => Verdict::Fault,
            Ok(()) if forbidden => Verdict::Deny,
            Ok(()) if allowed => Verdict::Allow,
            Ok(()) if passkey => Verdict::Passkey,
            Ok(()) => Verdict::Deny,
        }
    }

    /// The same for an operation: every machine that it names must be allowed, and be in the inventory.
    pub fn verdict_of(
        &self,
        user: UserId,
        operation: &Operation,
        inventory: &portcullis_domain::Inventory,
        at: &Moment,
    ) -> Verdict {
        let kind = Kind::of(&operation.resource);
        let machine = |m| self.verdict(user, Target::Machine(m), kind, operation.action, at);
        match &operation.resource {
            Resource::Machine(at) => inventory.find(at).map_or(Verdict::Deny, machine),
            Resource::Hypervisor(h) => self.verdict(user, Target::Hypervisor(h), kind, operation.action, at),
            Resource::Own(_) => self.verdict(user, Target::Own, kind, operation.action, at),
            Resource::Machines(h, ids) => {
                let mut all = if ids.is_empty() { Verdict::Deny } else { Verdict::Allow };
                for id in ids {
                    let at = portcullis_domain::MachineRef { hypervisor: h.clone(), machine: id.clone() };
                    let one = inventory.find(&at).map_or(Verdict::Deny, machine);
                    all = match (all, one) {
                        (Verdict::Fault, _) | (_, Verdict::Fault) => Verdict::Fault,
                        (Verdict::Deny, _) | (_, Verdict::Deny) => Verdict::Deny,
                        (Verdict::Passkey, _) | (_, Verdict::Passkey) => Verdict::Passkey,
                        (Verdict::Allow, Verdict::Allow) => Verdict::Allow,
                    };
                }
                all
            }
        }
    }

    /// Calls `visit` with each grant that covers a target, has a right and is between its beginning and its end.
    pub(crate) fn walk<'i>(
        &'i self,
        user: UserId,
        target: Target<'_>,
        right: Right,
        at: &Moment,
        mut visit: impl FnMut(&'i Entry, Met),
    ) -> Result<(), crate::index::Unread> {
        self.index.walk(
            user,
            target,
            |entry| self.slot(entry).has(right) && entry.is_active(at.micros),
            |entry| visit(entry, entry.terms.met(entry.effect, target.kind(), at)),
        )
    }

    /// Whether a person or one of their groups holds a grant that forbids seeing machines of a hypervisor and is not over,
    /// or one that cannot be read.
    pub(crate) fn forbids_some(&self, user: UserId, hypervisor: &HypervisorName, now: OffsetDateTime) -> bool {
        let Some(right) = Right::of(Kind::Machine, Action::View) else { return true };
        let is_elsewhere = |selector: &Selector| match selector {
            Selector::Hypervisor(h) | Selector::Pool(h, _) => h != hypervisor,
            Selector::Machine(at) => at.hypervisor != *hypervisor,
            Selector::Everything | Selector::Tag(_) | Selector::Pattern(_) => false,
        };
        self.index.any_of(user, |entry, selector| {
            entry.effect == GrantEffect::Deny
                && self.slot(entry).has(right)
                && entry.until().is_none_or(|until| now < until)
                && !is_elsewhere(selector)
        })
    }

    /// What the role of a grant allows; none that the rules know is one without rights.
    fn slot(&self, entry: &Entry) -> Rights {
        self.slots.get(usize::from(entry.role)).copied().unwrap_or(Rights::NONE)
    }

    /// The role of a grant.
    pub(crate) fn role_of(&self, entry: &Entry) -> Option<&RoleName> {
        self.index.names.list.get(usize::from(entry.role))
    }

    pub(crate) fn closure(&self, role: RoleIndex) -> RoleSet {
        self.rules.role(role).map_or(RoleSet::EMPTY, |r| r.closure)
    }

    pub(crate) fn allows(&self, roles: RoleSet, kind: Kind, action: Action) -> bool {
        roles.iter().filter_map(|i| self.rules.role(i)).any(|r| r.rights.allow(kind, action))
    }
}
