// SPDX-License-Identifier: Apache-2.0
//! Every grant, by who holds it and where it counts: what a decision reads.
//!
//! A holder (a person or a group) has one block: their grants, sorted by a hash of the place that each covers. A decision
//! works out the few places that would cover what is asked (the machine, its pool, each of its tags, …), looks each up in
//! the block of the person and of each of their groups, and compares what it finds in full: a hash only says where to
//! look. Blocks lie in shards, so that a change of one holder's grants builds one shard; the whole is published at once, so
//! that no decision sees half a change.
//!
//! What a decision among many grants costs is the way to memory, so everything that it looks at lies together (`block`):
//! it finds all holders first, asks all of their filters next, and only then looks into what may be there, so that the
//! machine fetches from several places at once.

mod block;
mod build;
mod place;

pub(crate) use build::{Interner, Part};
pub use place::Target;

use crate::terms::Terms;
use ahash::{AHashMap, RandomState};
use block::{Block, Shard, Trust};
use place::Keys;
use portcullis_domain::{Grant, GrantEffect, GrantId, GrantSource, GroupId, Holder, RoleName, Selector, UserId};
use std::sync::Arc;
use time::OffsetDateTime;

/// Fewest and most shards: about one for each holder, so that finding one is one look into memory.
const SHARDS: std::ops::RangeInclusive<usize> = CHUNK..=16_384;
/// Shards that are kept together: a change copies what points to one chunk of them, and what points to the chunks.
const CHUNK: usize = 64;
/// No end.
const NEVER: i64 = i64::MAX;

/// One grant, without what it covers.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: GrantId,
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

/// The names of roles that grants speak of, each with a number that it keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) list: Vec<RoleName>,
    places: AHashMap<RoleName, u16>,
}

/// Everything known of who holds what. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Index {
    /// All shards, in chunks; a power of two of both.
    chunks: Box<[Arc<[Shard]>]>,
    members: Arc<AHashMap<GroupId, Arc<[UserId]>>>,
    pub(crate) names: Arc<Names>,
    hasher: RandomState,
    trust: Trust,
    grants: usize,
}

/// Something that a decision depends on could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

/// Holders that are found before any of them is looked into, so that the machine fetches them together.
const TOGETHER: usize = 8;

impl Index {
    /// Nobody holds anything; made for about so many holders.
    pub(crate) fn new(holders: usize) -> Self {
        let shards = holders.next_power_of_two().clamp(*SHARDS.start(), *SHARDS.end());
        let chunk = || Arc::from(vec![Shard::default(); CHUNK]);
        Self {
            chunks: (0..shards / CHUNK).map(|_| chunk()).collect(),
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

    /// The chunk of a holder's shard, and its place there.
    fn shard_of(&self, holder: Holder) -> (usize, usize) {
        let shard = usize::try_from(self.hasher.hash_one(holder) >> 32).unwrap_or(0);
        ((shard / CHUNK) & (self.chunks.len() - 1), shard % CHUNK)
    }

    fn find(&self, holder: Holder) -> Result<Option<Block<'_>>, Unread> {
        let (chunk, place) = self.shard_of(holder);
        self.chunks.get(chunk).and_then(|chunk| chunk.get(place)).ok_or(Unread)?.find(holder)
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
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
        let Some(person) = self.find(Holder::Person(user))? else { return Ok(()) };
        let keys = Keys::new(&self.hasher, target);
        let mut found: [Option<Block<'i>>; TOGETHER] = [None; TOGETHER];
        let (mut next, mut free) = (0, 1);
        if let Some(first) = found.first_mut() {
            *first = Some(person);
        }
        loop {
            for slot in found.iter_mut().skip(free) {
                if next == person.groups {
                    break;
                }
                *slot = self.find(Holder::Group(person.group(next)?))?;
                next += 1;
            }
            look(&found, &keys, &counts, &mut visit)?;
            if next == person.groups {
                return Ok(());
            }
            (found, free) = ([None; TOGETHER], 0);
        }
    }

    /// Whether something is true of any grant of a person or of their groups, or that cannot be told.
    pub(crate) fn any_of(&self, user: UserId, is: impl Fn(&Entry, &Selector) -> bool) -> bool {
        if self.trust == Trust::Shut {
            return true;
        }
        let any = |block: &Block<'_>| {
            block.trust == Trust::Shut || block.grants().any(|one| one.map_or(true, |(entry, of)| is(entry, &of)))
        };
        let any_of_group = |group| match self.find(Holder::Group(group)) {
            Ok(found) => found.is_some_and(|block| any(&block)),
            Err(Unread) => true,
        };
        match self.find(Holder::Person(user)) {
            Ok(Some(person)) => any(&person) || (0..person.groups).any(|n| person.group(n).map_or(true, any_of_group)),
            Ok(None) => false,
            Err(Unread) => true,
        }
    }

    /// The groups that a person is in.
    pub(crate) fn groups_of(&self, user: UserId) -> Vec<GroupId> {
        let Ok(Some(person)) = self.find(Holder::Person(user)) else { return Vec::new() };
        (0..person.groups).filter_map(|n| person.group(n).ok()).collect()
    }

    /// Who is in a group.
    pub(crate) fn members_of(&self, group: GroupId) -> Arc<[UserId]> {
        self.members.get(&group).cloned().unwrap_or_default()
    }

    /// The grants of one holder, by id: the oldest first.
    pub(crate) fn grants_of(&self, holder: Holder) -> Result<Vec<Grant>, Unread> {
        let Some(block) = self.find(holder)? else { return Ok(Vec::new()) };
        if self.trust == Trust::Shut || block.trust == Trust::Shut {
            return Err(Unread);
        }
        let grant = |(e, selector): (&Entry, Selector)| {
            Ok(Grant {
                id: e.id,
                role: self.names.list.get(usize::from(e.role)).ok_or(Unread)?.clone(),
                selector,
                effect: e.effect,
                from: instant(e.from),
                until: e.until(),
                conditions: e.terms.conditions.clone(),
                source: e.source,
            })
        };
        let mut grants: Vec<Grant> = block.grants().map(|one| one.and_then(grant)).collect::<Result<_, _>>()?;
        grants.sort_by_key(|g| g.id);
        Ok(grants)
    }

    /// Whoever holds something by themselves or through a group.
    pub(crate) fn people(&self) -> impl Iterator<Item = UserId> {
        self.shards().flat_map(Shard::all).filter_map(|one| one.ok()?.0.person())
    }
}

/// Looks for what covers the target among some holders' grants.
fn look<'i>(
    found: &[Option<Block<'i>>],
    keys: &Keys<'_>,
    counts: &impl Fn(&Entry) -> bool,
    visit: &mut impl FnMut(&'i Entry),
) -> Result<(), Unread> {
    let mut classes = 0;
    for block in found.iter().flatten() {
        if block.trust == Trust::Shut {
            return Err(Unread);
        }
        classes |= block.classes;
    }
    let mut next = Some(0);
    while let Some(tag) = next {
        let (wanted, more) = keys.wanted(classes, tag);
        let mut may = [0; TOGETHER];
        for (may, block) in may.iter_mut().zip(found) {
            *may = block.as_ref().map_or(0, |block| block.sift(&wanted));
        }
        for (may, block) in may.iter().zip(found) {
            if let Some(block) = block {
                block.visit(&wanted, *may, keys, counts, visit)?;
            }
        }
        next = more;
    }
    Ok(())
}
