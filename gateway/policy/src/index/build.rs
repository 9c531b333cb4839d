// SPDX-License-Identifier: Apache-2.0
//! Making an index: from nothing, or from one and a few changes.

use super::{Entry, Filter, Groups, Held, Index, NEVER, Names, Trust, place};
use crate::terms::{SharedTerms, Terms};
use ahash::{AHashMap, AHashSet};
use place::{Place, SharedPlace};
use portcullis_domain::{
    Conditions, Grant, GrantChange, GrantId, GroupId, Holder, HypervisorName, MachineRef, Pattern, RoleName, Segment,
    Selector, UserId, micros,
};
use std::sync::Arc;

/// Places and conditions that were seen before: many grants share them.
#[derive(Default)]
pub(crate) struct Interner {
    places: AHashSet<SharedPlace>,
    terms: AHashSet<SharedTerms>,
    hypervisors: AHashSet<HypervisorName>,
    /// How many there were when those that nothing uses were last dropped.
    swept: usize,
}

impl Interner {
    /// The one text of a hypervisor's name, whoever read it: comparing it again and again then finds it at hand.
    fn hypervisor(&mut self, name: &HypervisorName) -> HypervisorName {
        if let Some(known) = self.hypervisors.get(name) {
            return known.clone();
        }
        self.hypervisors.insert(name.clone());
        name.clone()
    }

    fn place(&mut self, selector: &Selector) -> Arc<Place> {
        if let Some(known) = self.places.get(selector) {
            return Arc::clone(&known.0);
        }
        let mut selector = selector.clone();
        match &mut selector {
            Selector::Hypervisor(h)
            | Selector::Pool(h, _)
            | Selector::Machine(MachineRef { hypervisor: h, .. })
            | Selector::Pattern(Pattern { hypervisor: Segment::Is(h), .. }) => *h = self.hypervisor(h),
            Selector::Everything | Selector::Tag(_) | Selector::Pattern(Pattern { hypervisor: Segment::Any, .. }) => {}
        }
        let place = Arc::new(Place { selector });
        self.places.insert(SharedPlace(Arc::clone(&place)));
        place
    }

    fn terms(&mut self, conditions: &Conditions) -> Arc<Terms> {
        if let Some(known) = self.terms.get(conditions) {
            return Arc::clone(&known.0);
        }
        let terms = Arc::new(Terms::new(conditions.clone()));
        self.terms.insert(SharedTerms(Arc::clone(&terms)));
        terms
    }

    /// Drops what nothing uses any more, now and then.
    fn sweep(&mut self) {
        let count = self.places.len() + self.terms.len();
        if count > 2 * self.swept + 1024 {
            self.places.retain(|p| Arc::strong_count(&p.0) > 1);
            self.terms.retain(|t| Arc::strong_count(&t.0) > 1);
            self.hypervisors.clear();
            self.swept = self.places.len() + self.terms.len();
        }
    }
}

/// Whether changes are all that there is, or come on top of what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// They are all that there is: no grant stands twice.
    Whole,
    /// They come on top.
    Some,
}

/// A holder's block while it is changed.
#[derive(Default)]
struct Draft {
    groups: Vec<GroupId>,
    entries: Vec<(u32, Entry)>,
    /// The ids among the entries, once they were needed.
    ids: Option<AHashSet<GrantId>>,
    trust: Trust,
}

impl Draft {
    fn of(held: &Held) -> Self {
        Self {
            groups: held.groups.iter().collect(),
            entries: held.hashes.iter().copied().zip(held.entries.iter().cloned()).collect(),
            ids: None,
            trust: held.trust,
        }
    }

    fn take(&mut self, id: GrantId) {
        let ids = self.ids.get_or_insert_with(|| self.entries.iter().map(|(_, e)| e.id).collect());
        if ids.remove(&id) {
            self.entries.retain(|(_, e)| e.id != id);
        }
    }

    fn put(&mut self, hash: u32, entry: Entry) {
        self.take(entry.id);
        if let Some(ids) = &mut self.ids {
            ids.insert(entry.id);
        }
        self.entries.push((hash, entry));
    }

    fn finish(mut self) -> Option<Held> {
        if self.entries.is_empty() && self.groups.is_empty() && self.trust == Trust::Whole {
            return None;
        }
        self.entries.sort_by_key(|(hash, _)| *hash);
        self.groups.sort();
        let classes = self.entries.iter().fold(0, |bits, (_, e)| bits | 1 << place::class(&e.place.selector));
        let (hashes, entries): (Vec<u32>, Vec<Entry>) = self.entries.into_iter().unzip();
        let mut filter = Filter::default();
        for hash in &hashes {
            filter.add(*hash);
        }
        let (hashes, entries, groups) = (hashes.into(), entries.into(), Groups::new(&self.groups));
        Some(Held { filter, hashes, entries, groups, classes, trust: self.trust })
    }
}

/// An index that is being made.
struct Builder<'a> {
    base: &'a Index,
    interner: &'a mut Interner,
    part: Part,
    drafts: AHashMap<Holder, Draft>,
    members: Option<AHashMap<GroupId, Arc<[UserId]>>>,
    names: Arc<Names>,
    trust: Trust,
}

impl Builder<'_> {
    fn draft(&mut self, holder: Holder) -> &mut Draft {
        let base = self.base;
        self.drafts.entry(holder).or_insert_with(|| base.held(holder).map(Draft::of).unwrap_or_default())
    }

    /// The number of a role's name; none when there are too many of them.
    fn number(&mut self, role: &RoleName) -> Option<u16> {
        if let Some(known) = self.names.places.get(role) {
            return Some(*known);
        }
        let number = u16::try_from(self.names.list.len()).ok()?;
        let names = Arc::make_mut(&mut self.names);
        names.list.push(role.clone());
        names.places.insert(role.clone(), number);
        Some(number)
    }

    fn put(&mut self, holder: Holder, grant: &Grant) {
        let Some(role) = self.number(&grant.role) else {
            tracing::error!(grant = %grant.id, "too many names of roles: whoever holds this grant is denied everything");
            self.draft(holder).trust = Trust::Shut;
            return;
        };
        let hash = place::hash_of(&self.base.hasher, &grant.selector);
        let entry = Entry {
            id: grant.id,
            place: self.interner.place(&grant.selector),
            terms: self.interner.terms(&grant.conditions),
            from: micros(grant.from),
            until: grant.until.map_or(NEVER, micros),
            role,
            effect: grant.effect,
            source: grant.source,
        };
        let part = self.part;
        let draft = self.draft(holder);
        match part {
            Part::Whole => draft.entries.push((hash, entry)),
            Part::Some => draft.put(hash, entry),
        }
    }

    fn members(&mut self, group: GroupId, users: Vec<UserId>) {
        let base = self.base;
        let all = self.members.get_or_insert_with(|| (*base.members).clone());
        let before = all.get(&group).cloned().unwrap_or_default();
        let mut users = users;
        users.sort();
        users.dedup();
        if users.is_empty() {
            all.remove(&group);
        } else {
            all.insert(group, Arc::from(users.as_slice()));
        }
        for user in before.iter().filter(|u| users.binary_search(u).is_err()) {
            self.draft(Holder::Person(*user)).groups.retain(|g| *g != group);
        }
        for user in users {
            let groups = &mut self.draft(Holder::Person(user)).groups;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
    }

    fn take(&mut self, change: GrantChange) {
        match change {
            GrantChange::Put(holder, grant) => self.put(holder, &grant),
            GrantChange::Take(holder, id) => self.draft(holder).take(id),
            GrantChange::Members(group, users) => self.members(group, users),
            GrantChange::Shut(holder) => self.draft(holder).trust = Trust::Shut,
            GrantChange::ShutAll => self.trust = Trust::Shut,
        }
    }

    fn finish(self) -> Index {
        let base = self.base;
        let mut grants = base.grants;
        let mut shards = base.shards.clone();
        let mut changed: AHashMap<usize, Vec<(Holder, Draft)>> = AHashMap::new();
        for (holder, draft) in self.drafts {
            changed.entry(base.shard_of(holder)).or_default().push((holder, draft));
        }
        for (place, drafts) in changed {
            let Some(shard) = shards.get_mut(place) else { continue };
            let mut next = shard.to_vec();
            for (holder, draft) in drafts {
                let before = next.iter().position(|(own, _)| *own == holder).map(|at| next.swap_remove(at));
                grants -= before.map_or(0, |(_, h)| h.entries.len());
                if let Some(held) = draft.finish() {
                    grants += held.entries.len();
                    next.push((holder, held));
                }
            }
            *shard = next.into();
        }
        let members = self.members.map_or_else(|| Arc::clone(&base.members), Arc::new);
        Index { shards, members, names: self.names, hasher: base.hasher.clone(), trust: self.trust, grants }
    }
}

impl Index {
    /// An index of all that there is.
    pub(crate) fn whole(changes: impl IntoIterator<Item = GrantChange>, interner: &mut Interner) -> Self {
        let changes: Vec<GrantChange> = changes.into_iter().collect();
        let holders: AHashSet<Holder> = changes
            .iter()
            .filter_map(|c| match c {
                GrantChange::Put(holder, _) => Some(*holder),
                GrantChange::Take(..) | GrantChange::Members(..) | GrantChange::Shut(_) | GrantChange::ShutAll => None,
            })
            .collect();
        Self::new(holders.len()).with(changes, interner, Part::Whole)
    }

    /// The same with more shards, where there are many holders for those that there are.
    fn spread(self) -> Self {
        let holders: usize = self.shards.iter().map(|s| s.len()).sum();
        if holders <= 4 * self.shards.len() || self.shards.len() >= *super::SHARDS.end() {
            return self;
        }
        let wide = Self::new(holders);
        let mut shards = vec![Vec::new(); wide.shards.len()];
        for (holder, held) in self.shards.iter().flat_map(|s| s.iter()) {
            let place = usize::try_from(self.hasher.hash_one(holder)).unwrap_or(0) & (shards.len() - 1);
            if let Some(shard) = shards.get_mut(place) {
                shard.push((*holder, held.clone()));
            }
        }
        let shards = shards.into_iter().map(Into::into).collect();
        // The places keep the hashes that they were given.
        Self { shards, ..self }
    }

    /// This index with changes.
    pub(crate) fn with(
        &self,
        changes: impl IntoIterator<Item = GrantChange>,
        interner: &mut Interner,
        part: Part,
    ) -> Self {
        let mut builder = Builder {
            base: self,
            part,
            drafts: AHashMap::new(),
            members: None,
            names: Arc::clone(&self.names),
            trust: self.trust,
            interner,
        };
        changes.into_iter().for_each(|change| builder.take(change));
        let next = builder.finish();
        interner.sweep();
        next.spread()
    }
}
