// SPDX-License-Identifier: Apache-2.0
//! Every grant, by who holds it and where it counts: what a decision reads.
//!
//! A holder (a person or a group) has one block: their grants, sorted by a hash of the place that each covers. A decision
//! works out the few places that would cover what is asked (the machine, its pool, each of its tags, …), looks each up in
//! the block of the person and of each of their groups, and compares what it finds in full: a hash only says where to
//! look. Blocks lie in shards, so that a change of one holder's grants builds one block and copies one shard; the whole is
//! published at once, so that no decision sees half a change.

mod build;
mod place;

pub(crate) use build::{Interner, Part};
pub use place::Target;

use crate::terms::Terms;
use ahash::{AHashMap, RandomState};
use place::{Keys, Place, TAG};
use portcullis_domain::{Grant, GrantEffect, GrantId, GrantSource, GroupId, Holder, RoleName, UserId};
use std::sync::Arc;
use time::OffsetDateTime;

/// Fewest and most shards: about one for each holder, so that finding one is one look into memory.
const SHARDS: std::ops::RangeInclusive<usize> = 64..=16_384;
/// No end.
const NEVER: i64 = i64::MAX;

/// One grant.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: GrantId,
    pub(crate) place: Arc<Place>,
    pub(crate) terms: Arc<Terms>,
    from: i64,
    until: i64,
    /// The number of its role's name in [`Index::names`].
    pub(crate) role: u16,
    pub(crate) effect: GrantEffect,
    source: GrantSource,
}

/// Microseconds since 1970 as an instant.
fn instant(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl Entry {
    pub(crate) const fn is_active(&self, micros: i64) -> bool {
        self.from <= micros && micros < self.until
    }

    pub(crate) fn until(&self) -> Option<OffsetDateTime> {
        (self.until != NEVER).then(|| instant(self.until))
    }
}

/// Whether everything of a holder could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Trust {
    #[default]
    Whole,
    Shut,
}

/// Bits that say which hashes cannot be among a block's: most places that are looked for are in no block, and this tells
/// without another look into memory.
#[derive(Debug, Clone, Copy, Default)]
struct Filter([u64; 8]);

impl Filter {
    fn place(hash: u32) -> (usize, u64) {
        (usize::try_from(hash >> 6 & 7).unwrap_or(0), 1 << (hash & 63))
    }

    fn add(&mut self, hash: u32) {
        let (word, bit) = Self::place(hash);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn may_have(&self, hash: u32) -> bool {
        let (word, bit) = Self::place(hash);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// The groups that a person is in; few of them lie beside everything else of that person.
#[derive(Debug, Clone)]
enum Groups {
    Few([Option<GroupId>; 3]),
    Many(Arc<[GroupId]>),
}

impl Groups {
    fn new(all: &[GroupId]) -> Self {
        let mut few = [None; 3];
        if all.len() > few.len() {
            return Self::Many(all.into());
        }
        for (slot, group) in few.iter_mut().zip(all) {
            *slot = Some(*group);
        }
        Self::Few(few)
    }

    fn iter(&self) -> impl Iterator<Item = GroupId> {
        let (few, many): (&[Option<GroupId>], &[GroupId]) = match self {
            Self::Few(few) => (few, &[]),
            Self::Many(many) => (&[], many),
        };
        few.iter().copied().flatten().chain(many.iter().copied())
    }
}

/// What one holder has. It lies in its shard itself: each step from one place of memory to another costs more than all
/// comparing.
#[derive(Debug, Clone)]
struct Held {
    filter: Filter,
    /// The places' hashes, sorted; one for each entry.
    hashes: Arc<[u32]>,
    entries: Arc<[Entry]>,
    /// The groups that a person is in.
    groups: Groups,
    /// Which classes of places there are among the entries, as bits.
    classes: u16,
    trust: Trust,
}

type Shard = Arc<[(Holder, Held)]>;

/// The names of roles that grants speak of, each with a number that it keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) list: Vec<RoleName>,
    places: AHashMap<RoleName, u16>,
}

/// Everything known of who holds what. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Index {
    /// A power of two.
    shards: Box<[Shard]>,
    members: Arc<AHashMap<GroupId, Arc<[UserId]>>>,
    pub(crate) names: Arc<Names>,
    hasher: RandomState,
    trust: Trust,
    grants: usize,
}

/// Something that a decision depends on could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

impl Held {
    fn visit<'i>(
        &'i self,
        keys: &Keys<'_>,
        counts: &impl Fn(&Entry) -> bool,
        visit: &mut impl FnMut(&'i Entry),
    ) -> Result<(), Unread> {
        if self.trust == Trust::Shut {
            return Err(Unread);
        }
        let mut classes = self.classes & keys.classes();
        while classes != 0 {
            let class = classes.trailing_zeros();
            classes &= classes - 1;
            if class == TAG {
                for hash in keys.tags() {
                    self.run(hash, keys.target(), counts, visit);
                }
            } else if let Some(hash) = keys.find(class) {
                self.run(hash, keys.target(), counts, visit);
            }
        }
        Ok(())
    }

    /// Where a hash begins among the sorted ones. They are spread evenly, so that it lies near where its size says; where
    /// it does not (many grants on one place), halving finds it.
    fn start(&self, hash: u32) -> usize {
        let near = (u64::from(hash) * u64::try_from(self.hashes.len()).unwrap_or(0)) >> 32;
        let mut at = usize::try_from(near).unwrap_or(0);
        let below = |at: usize| self.hashes.get(at).is_some_and(|h| *h < hash);
        for _ in 0..STEPS {
            if below(at) {
                at += 1;
            } else if at > 0 && !below(at - 1) {
                at -= 1;
            } else {
                return at;
            }
        }
        self.hashes.partition_point(|h| *h < hash)
    }

    /// The entries whose place has a hash, that count, and whose place is one that covers what is asked.
    fn run<'i>(
        &'i self,
        hash: u32,
        target: Target<'_>,
        counts: &impl Fn(&Entry) -> bool,
        visit: &mut impl FnMut(&'i Entry),
    ) {
        if !self.filter.may_have(hash) {
            return;
        }
        let start = self.start(hash);
        let found = self.hashes.iter().skip(start).take_while(|h| **h == hash).count();
        for entry in self.entries.iter().skip(start).take(found) {
            if counts(entry) && target.is_covered_by(&entry.place.selector) {
                visit(entry);
            }
        }
    }
}

/// Steps from where a hash should lie before it is looked for by halving.
const STEPS: usize = 48;

/// Holders that are found before any of them is looked into, so that the machine fetches them together.
const TOGETHER: usize = 8;

impl Index {
    /// Nobody holds anything; made for about so many holders.
    pub(crate) fn new(holders: usize) -> Self {
        let empty = Shard::default();
        let shards = holders.next_power_of_two().clamp(*SHARDS.start(), *SHARDS.end());
        Self {
            shards: vec![empty; shards].into(),
            members: Arc::default(),
            names: Arc::default(),
            hasher: RandomState::new(),
            trust: Trust::Whole,
            grants: 0,
        }
    }

    /// How many grants there are.
    pub(crate) const fn len(&self) -> usize {
        self.grants
    }

    fn shard_of(&self, holder: Holder) -> usize {
        usize::try_from(self.hasher.hash_one(holder)).unwrap_or(0) & (self.shards.len() - 1)
    }

    fn held(&self, holder: Holder) -> Option<&Held> {
        self.shards.get(self.shard_of(holder))?.iter().find(|(own, _)| *own == holder).map(|(_, held)| held)
    }

    /// Calls `visit` with each grant of a person and of their groups that covers something and of which `counts` is true.
    pub(crate) fn walk<'i>(
        &'i self,
        user: UserId,
        target: Target<'_>,
        counts: impl Fn(&Entry) -> bool,
        mut visit: impl FnMut(&'i Entry),
    ) -> Result<(), Unread> {
        if self.trust == Trust::Shut {
            return Err(Unread);
        }
        let Some(person) = self.held(Holder::Person(user)) else { return Ok(()) };
        let keys = Keys::new(&self.hasher, target);
        let mut groups = person.groups.iter();
        loop {
            let mut found: [Option<&Held>; TOGETHER] = [None; TOGETHER];
            let mut any = false;
            for (slot, group) in found.iter_mut().zip(&mut groups) {
                *slot = self.held(Holder::Group(group));
                any = true;
            }
            if !any {
                break;
            }
            for held in found.into_iter().flatten() {
                held.visit(&keys, &counts, &mut visit)?;
            }
        }
        person.visit(&keys, &counts, &mut visit)
    }

    /// Whether something is true of any grant of a person or of their groups, or that cannot be told.
    pub(crate) fn any_of(&self, user: UserId, is: impl Fn(&Entry) -> bool) -> bool {
        if self.trust == Trust::Shut {
            return true;
        }
        let Some(person) = self.held(Holder::Person(user)) else { return false };
        let of_groups = person.groups.iter().filter_map(|group| self.held(Holder::Group(group)));
        std::iter::once(person).chain(of_groups).any(|held| held.trust == Trust::Shut || held.entries.iter().any(&is))
    }

    /// The groups that a person is in.
    pub(crate) fn groups_of(&self, user: UserId) -> Vec<GroupId> {
        self.held(Holder::Person(user)).map(|h| h.groups.iter().collect()).unwrap_or_default()
    }

    /// Who is in a group.
    pub(crate) fn members_of(&self, group: GroupId) -> Arc<[UserId]> {
        self.members.get(&group).cloned().unwrap_or_default()
    }

    /// The grants of one holder, by id: the oldest first.
    pub(crate) fn grants_of(&self, holder: Holder) -> Result<Vec<Grant>, Unread> {
        let Some(held) = self.held(holder) else { return Ok(Vec::new()) };
        if self.trust == Trust::Shut || held.trust == Trust::Shut {
            return Err(Unread);
        }
        let grant = |e: &Entry| {
            Some(Grant {
                id: e.id,
                role: self.names.list.get(usize::from(e.role))?.clone(),
                selector: e.place.selector.clone(),
                effect: e.effect,
                from: instant(e.from),
                until: e.until(),
                conditions: e.terms.conditions.clone(),
                source: e.source,
            })
        };
        let mut grants: Vec<Grant> = held.entries.iter().filter_map(grant).collect();
        grants.sort_by_key(|g| g.id);
        Ok(grants)
    }

    /// Whoever holds something by themselves or through a group.
    pub(crate) fn people(&self) -> impl Iterator<Item = UserId> {
        self.shards.iter().flat_map(|s| s.iter()).filter_map(|(holder, _)| holder.person())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hash_begins_where_halving_finds_it(
            mut hashes in proptest::collection::vec(prop_oneof![any::<u32>(), 0u32..40, Just(u32::MAX)], 0..300),
            hash in prop_oneof![any::<u32>(), 0u32..40, Just(u32::MAX)],
        ) {
            hashes.sort_unstable();
            let wanted = hashes.partition_point(|h| *h < hash);
            let held = Held {
                filter: Filter::default(),
                hashes: hashes.into(),
                entries: Arc::from([]),
                groups: Groups::new(&[]),
                classes: 0,
                trust: Trust::Whole,
            };
            prop_assert_eq!(held.start(hash), wanted);
        }
    }
}
