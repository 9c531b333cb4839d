// SPDX-License-Identifier: Apache-2.0
//! Making an index: from nothing, or from one and a few changes.

use super::{
    CHUNK, Entry, Index, NEVER, Names, Unread,
    block::{Block, Draft, Shard, Trust},
    place,
};
use crate::terms::{SharedTerms, Terms};
use ahash::{AHashMap, AHashSet};
use portcullis_domain::{Conditions, Grant, GrantChange, GroupId, Holder, RoleName, UserId, micros};
use std::sync::Arc;

/// Conditions that were seen before: many grants share them.
#[derive(Default)]
pub(crate) struct Interner {
    terms: AHashSet<SharedTerms>,
    /// How many there were when those that nothing uses were last dropped.
    swept: usize,
}

impl Interner {
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
        if self.terms.len() > 2 * self.swept + 1024 {
            self.terms.retain(|t| Arc::strong_count(&t.0) > 1);
            self.swept = self.terms.len();
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
        self.drafts.entry(holder).or_insert_with(|| match base.find(holder) {
            Ok(block) => block.as_ref().map(Draft::of).unwrap_or_default(),
            Err(_) => Draft::shut(),
        })
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
            terms: self.interner.terms(&grant.conditions),
            from: micros(grant.from),
            until: grant.until.map_or(NEVER, micros),
            role,
            effect: grant.effect,
            source: grant.source,
        };
        let part = self.part;
        let draft = self.draft(holder);
        if part == Part::Some {
            draft.take(entry.id);
        }
        draft.push(hash, &grant.selector, entry);
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
        let members = self.members.map_or_else(|| Arc::clone(&base.members), Arc::new);
        let mut next = Index { members, names: self.names, trust: self.trust, ..base.clone() };
        let mut changed: AHashMap<(usize, usize), Vec<(Holder, Draft)>> = AHashMap::new();
        for (holder, draft) in self.drafts {
            changed.entry(base.shard_of(holder)).or_default().push((holder, draft));
        }
        for ((chunk, place), drafts) in changed {
            next.change(chunk, place, drafts);
        }
        next
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

    /// Puts holders into their shard in place of what they had.
    fn change(&mut self, chunk: usize, place: usize, mut drafts: Vec<(Holder, Draft)>) {
        let Some(shard) = self.chunks.get_mut(chunk).and_then(|chunk| Arc::make_mut(chunk).get_mut(place)) else {
            return;
        };
        let mut before = 0;
        let changed = drafts.len();
        for one in shard.all() {
            let Ok((holder, block)) = one else {
                // It stays as it is, and whoever is in it denied.
                return;
            };
            before += block.count;
            if !drafts.iter().take(changed).any(|(own, _)| *own == holder) {
                drafts.push((holder, Draft::of(&block)));
            }
        }
        let after: usize = drafts.iter().map(|(_, draft)| draft.len()).sum();
        let next = Shard::of(drafts);
        *shard = next;
        self.grants = (self.grants + after).saturating_sub(before);
    }

    /// The same with more shards, where there are many holders for those that there are.
    fn spread(self) -> Self {
        let shards = self.chunks.len() * CHUNK;
        let holders: usize = self.shards().map(Shard::len).sum();
        if holders <= 4 * shards || shards >= *super::SHARDS.end() {
            return self;
        }
        let own = |one: Result<(Holder, Block<'_>), Unread>| one.map(|(holder, block)| (holder, Draft::of(&block)));
        // What cannot be read keeps its place, where it denies.
        let Ok(drafts) = self.shards().flat_map(Shard::all).map(own).collect::<Result<Vec<_>, _>>() else {
            return self;
        };
        // The places keep the hashes that they were given.
        let mut wide = Self { grants: 0, chunks: Self::new(holders).chunks, ..self };
        let mut all: AHashMap<(usize, usize), Vec<(Holder, Draft)>> = AHashMap::new();
        for (holder, draft) in drafts {
            all.entry(wide.shard_of(holder)).or_default().push((holder, draft));
        }
        for ((chunk, place), drafts) in all {
            wide.change(chunk, place, drafts);
        }
        wide
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
