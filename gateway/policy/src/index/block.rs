// SPDX-License-Identifier: Apache-2.0
//! How what holders have lies in memory: the holders of a shard in one stretch of bytes, so that a decision finds all that
//! it looks at in one or two pages, and their grants in another.
//!
//! ```text
//! head    holders:u32   holders × ( uuid:16 where:u32 )          where: of its block; the highest bit says that it is a group
//! block   first:u32 count:u32 groups:u32 classes:u16 trust:u8 filter:u8
//!         groups × uuid:16     2^filter × u64     count × ( hash:u32 text:u32 )     places, as `place::write` writes them
//! ```
//!
//! Numbers are little-endian; `text` is a place's offset in the head; `first` is the first of the block's `count` grants
//! among those of the shard, which are in the order of the hashes. An empty head has no holders. Whatever cannot be read
//! is no permission and no lack of a prohibition: it is told, and denied.

use super::{Entry, Unread, place};
use ahash::AHashSet;
use place::{Keys, Wanted};
use portcullis_domain::{GrantId, GroupId, Holder, Selector, UserId};
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a holder in the head.
const HOLDER: usize = 20;
/// Bytes of a block before its groups.
const FIXED: usize = 16;
/// Bytes of a hash and where its place stands.
const SLOT: usize = 8;
/// Says that a holder is a group.
const GROUP: u32 = 1 << 31;
/// Fewest and most words of a filter, as powers of two. About sixteen bits a grant.
const WORDS: std::ops::RangeInclusive<u8> = 2..=12;
/// Steps from where a hash should lie before it is looked for by halving.
const STEPS: usize = 48;

/// Whether everything of a holder could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trust {
    #[default]
    Whole,
    Shut,
}

/// Some holders, and what they have.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    head: Arc<[u8]>,
    entries: Arc<[Entry]>,
}

/// What one holder has, in its shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'i> {
    shard: &'i Shard,
    first: usize,
    pub(super) count: usize,
    pub(super) groups: usize,
    pub(super) classes: u16,
    pub(super) trust: Trust,
    /// Words of the filter; a power of two.
    words: usize,
    groups_at: usize,
    filter_at: usize,
    slots_at: usize,
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Result<[u8; N], Unread> {
    from.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Unread)
}

fn number(from: &[u8], at: usize) -> Result<u32, Unread> {
    bytes(from, at).map(u32::from_le_bytes)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The word of a filter that a hash belongs to, and its bits there. Where a hash lies among the others is told by its
/// highest bits; these are the others.
fn sieve(hash: u32, words: usize) -> (usize, u64) {
    (size(hash) & (words - 1), 1 << (hash >> 12 & 63) | 1 << (hash >> 18 & 63))
}

impl Shard {
    /// How many holders there are; none in one that cannot be read.
    pub(super) fn len(&self) -> usize {
        self.holders().unwrap_or(0)
    }

    fn holders(&self) -> Result<usize, Unread> {
        if self.head.is_empty() { Ok(0) } else { number(&self.head, 0).map(size) }
    }

    fn holder(&self, n: usize) -> Result<(Holder, usize), Unread> {
        let at = 4 + HOLDER * n;
        let id = Uuid::from_bytes(bytes(&self.head, at)?);
        let place = number(&self.head, at + 16)?;
        let holder = if place & GROUP == 0 { Holder::Person(UserId::new(id)) } else { Holder::Group(GroupId::new(id)) };
        Ok((holder, size(place & !GROUP)))
    }

    /// Every holder with its block.
    pub(super) fn all(&self) -> impl Iterator<Item = Result<(Holder, Block<'_>), Unread>> {
        let (count, unread) = match self.holders() {
            Ok(count) => (count, None),
            Err(unread) => (0, Some(Err(unread))),
        };
        let one = |n| self.holder(n).and_then(|(holder, at)| Ok((holder, Block::open(self, at)?)));
        unread.into_iter().chain((0..count).map(one))
    }

    pub(super) fn find(&self, wanted: Holder) -> Result<Option<Block<'_>>, Unread> {
        for n in 0..self.holders()? {
            let (holder, at) = self.holder(n)?;
            if holder == wanted {
                return Block::open(self, at).map(Some);
            }
        }
        Ok(None)
    }

    /// A shard of these holders. One that would be larger than 2 GiB cannot be read: whoever is in it is denied.
    pub(super) fn of(mut drafts: Vec<(Holder, Draft)>) -> Self {
        drafts.retain(|(_, draft)| !draft.is_empty());
        if drafts.is_empty() {
            return Self::default();
        }
        let mut entries = Vec::with_capacity(drafts.iter().map(|(_, d)| d.items.len()).sum());
        let Some(head) = head(drafts, &mut entries) else {
            tracing::error!("grants take too much room: whoever holds them is denied everything");
            return Self { head: Arc::new([0]), entries: Arc::default() };
        };
        Self { head: head.into(), entries: entries.into() }
    }
}

fn put(into: &mut [u8], at: usize, number: u32) -> Option<()> {
    *into.get_mut(at..)?.first_chunk_mut()? = number.to_le_bytes();
    Some(())
}

/// The bytes of a shard; what its blocks say of grants goes to `entries`. None when an offset does not fit.
fn head(drafts: Vec<(Holder, Draft)>, entries: &mut Vec<Entry>) -> Option<Vec<u8>> {
    let mut head = vec![0; 4 + HOLDER * drafts.len()];
    put(&mut head, 0, u32::try_from(drafts.len()).ok()?)?;
    for (n, (holder, mut draft)) in drafts.into_iter().enumerate() {
        let place = u32::try_from(head.len()).ok().filter(|at| at & GROUP == 0)?;
        let (id, bit) = match holder {
            Holder::Person(user) => (user.uuid(), 0),
            Holder::Group(group) => (group.uuid(), GROUP),
        };
        let at = 4 + HOLDER * n;
        *head.get_mut(at..)?.first_chunk_mut()? = *id.as_bytes();
        put(&mut head, at + 16, place | bit)?;

        draft.items.sort_by_key(|item| item.hash);
        draft.groups.sort();
        let count = draft.items.len();
        let power = u8::try_from(count.div_ceil(4).max(1).next_power_of_two().trailing_zeros()).ok()?;
        let power = power.clamp(*WORDS.start(), *WORDS.end());
        let mut filter = vec![0u64; 1 << power];
        for item in &draft.items {
            let (word, bits) = sieve(item.hash, filter.len());
            *filter.get_mut(word)? |= bits;
        }
        head.extend(u32::try_from(entries.len()).ok()?.to_le_bytes());
        head.extend(u32::try_from(count).ok()?.to_le_bytes());
        head.extend(u32::try_from(draft.groups.len()).ok()?.to_le_bytes());
        head.extend(draft.items.iter().fold(0, |bits, item| bits | item.class).to_le_bytes());
        head.extend([u8::from(draft.trust == Trust::Shut), power]);
        head.extend(draft.groups.iter().flat_map(|group| *group.uuid().as_bytes()));
        head.extend(filter.iter().flat_map(|word| word.to_le_bytes()));
        let mut text = head.len() + SLOT * count;
        for item in &draft.items {
            head.extend(item.hash.to_le_bytes());
            head.extend(u32::try_from(text).ok()?.to_le_bytes());
            text += item.text.len();
        }
        for item in &draft.items {
            head.extend(draft.texts.get(item.text.clone())?);
        }
        entries.extend(draft.items.into_iter().map(|item| item.entry));
    }
    Some(head)
}

impl<'i> Block<'i> {
    fn open(shard: &'i Shard, at: usize) -> Result<Self, Unread> {
        let fixed: [u8; FIXED] = bytes(&shard.head, at)?;
        let [classes_low, classes_high, trust, power] = bytes(&fixed, 12)?;
        let groups = size(number(&fixed, 8)?);
        let count = size(number(&fixed, 4)?);
        let words = 1usize.checked_shl(power.into()).ok_or(Unread)?;
        let groups_at = at + FIXED;
        let filter_at = groups_at + 16 * groups;
        let slots_at = filter_at + 8 * words;
        Ok(Self {
            shard,
            first: size(number(&fixed, 0)?),
            count,
            groups,
            classes: u16::from_le_bytes([classes_low, classes_high]),
            trust: if trust == 0 { Trust::Whole } else { Trust::Shut },
            words,
            groups_at,
            filter_at,
            slots_at,
        })
    }

    /// One of the groups that a person is in.
    pub(super) fn group(&self, n: usize) -> Result<GroupId, Unread> {
        bytes(&self.shard.head, self.groups_at + 16 * n).map(|id| GroupId::new(Uuid::from_bytes(id)))
    }

    /// Which of the places that are wanted may be among this holder's, as bits: most places are in no block, and this tells
    /// so without a look at the block itself.
    pub(super) fn sift(&self, wanted: &Wanted) -> u32 {
        let mut may = 0;
        for (n, hash) in wanted.hashes().iter().enumerate() {
            let (word, bits) = sieve(*hash, self.words);
            // What cannot be read may be there.
            let word = bytes(&self.shard.head, self.filter_at + 8 * word).map_or(u64::MAX, u64::from_le_bytes);
            may |= u32::from(word & bits == bits) << n;
        }
        may
    }

    fn hash(&self, n: usize) -> Result<u32, Unread> {
        number(&self.shard.head, self.slots_at + SLOT * n)
    }

    /// The place of one grant and what follows it.
    fn text(&self, n: usize) -> Result<&'i [u8], Unread> {
        self.shard.head.get(size(number(&self.shard.head, self.slots_at + SLOT * n + 4)?)..).ok_or(Unread)
    }

    fn entry(&self, n: usize) -> Result<&'i Entry, Unread> {
        self.shard.entries.get(self.first + n).ok_or(Unread)
    }

    /// Where a hash begins among the sorted ones. They are spread evenly, so that it lies near where its size says; where
    /// it does not (many grants on one place), halving finds it.
    fn start(&self, hash: u32) -> Result<usize, Unread> {
        let near = (u64::from(hash) * u64::try_from(self.count).unwrap_or(0)) >> 32;
        let mut at = usize::try_from(near).unwrap_or(0);
        for _ in 0..STEPS {
            if at < self.count && self.hash(at)? < hash {
                at += 1;
            } else if at > 0 && self.hash(at - 1)? >= hash {
                at -= 1;
            } else {
                return Ok(at);
            }
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.hash(middle)? < hash { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Visits the grants on places that are wanted and may be here (see [`Self::sift`]), that count, and whose place is one
    /// that covers what is asked.
    pub(super) fn visit(
        &self,
        wanted: &Wanted,
        mut may: u32,
        keys: &Keys<'_>,
        counts: &impl Fn(&Entry) -> bool,
        visit: &mut impl FnMut(&'i Entry),
    ) -> Result<(), Unread> {
        while may != 0 {
            let hash = *wanted.hashes().get(size(may.trailing_zeros())).ok_or(Unread)?;
            may &= may - 1;
            let mut at = self.start(hash)?;
            while at < self.count && self.hash(at)? == hash {
                let entry = self.entry(at)?;
                if counts(entry) && place::covers(self.text(at)?, keys.target()).ok_or(Unread)? {
                    visit(entry);
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// Every grant with what it covers.
    pub(super) fn grants(&self) -> impl Iterator<Item = Result<(&'i Entry, Selector), Unread>> {
        (0..self.count).map(|n| Ok((self.entry(n)?, place::read(self.text(n)?).ok_or(Unread)?)))
    }

    fn draft(&self) -> Result<Draft, Unread> {
        let mut draft = Draft { trust: self.trust, ..Draft::default() };
        draft.items.reserve_exact(self.count + 1);
        for n in 0..self.groups {
            draft.groups.push(self.group(n)?);
        }
        for n in 0..self.count {
            let text = place::cut(self.text(n)?).ok_or(Unread)?;
            let class = place::class_of(text).ok_or(Unread)?;
            let begin = draft.texts.len();
            draft.texts.extend_from_slice(text);
            let text = begin..draft.texts.len();
            draft.items.push(Item { hash: self.hash(n)?, class, text, entry: self.entry(n)?.clone() });
        }
        Ok(draft)
    }
}

/// One grant of a draft.
struct Item {
    hash: u32,
    /// The bit of its place's class.
    class: u16,
    /// Where its place stands among the draft's texts.
    text: std::ops::Range<usize>,
    entry: Entry,
}

/// A holder's block while it is changed.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) groups: Vec<GroupId>,
    items: Vec<Item>,
    texts: Vec<u8>,
    /// The ids among the items, once they were needed.
    ids: Option<AHashSet<GrantId>>,
    pub(super) trust: Trust,
}

impl Draft {
    /// What a block holds. Of one that cannot be read nothing is known but that: it stays shut.
    pub(super) fn of(block: &Block<'_>) -> Self {
        block.draft().unwrap_or_else(|_| Self::shut())
    }

    /// Nothing is known but that it denies.
    pub(super) fn shut() -> Self {
        Self { trust: Trust::Shut, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.groups.is_empty() && self.trust == Trust::Whole
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn take(&mut self, id: GrantId) {
        let ids = self.ids.get_or_insert_with(|| self.items.iter().map(|item| item.entry.id).collect());
        if ids.remove(&id) {
            self.items.retain(|item| item.entry.id != id);
        }
    }

    /// One more grant; one with this id is known not to be there.
    pub(super) fn push(&mut self, hash: u32, selector: &Selector, entry: Entry) {
        let begin = self.texts.len();
        if place::write(selector, &mut self.texts).is_none() {
            tracing::error!(grant = %entry.id, "its place has too long a name: whoever holds this grant is denied everything");
            self.trust = Trust::Shut;
            return;
        }
        if let Some(ids) = &mut self.ids {
            ids.insert(entry.id);
        }
        let text = begin..self.texts.len();
        self.items.push(Item { hash, class: place::class_bit(selector), text, entry });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{index::NEVER, terms::Terms};
    use ahash::RandomState;
    use portcullis_domain::{Conditions, GrantEffect, GrantSource, HypervisorName};
    use proptest::prelude::*;

    fn entry(n: u128) -> Entry {
        Entry {
            id: GrantId::new(Uuid::from_u128(n)),
            terms: Arc::new(Terms::new(Conditions::default())),
            from: 0,
            until: NEVER,
            role: 0,
            effect: GrantEffect::Allow,
            source: GrantSource::Setup,
        }
    }

    fn draft(hashes: &[u32]) -> Draft {
        let mut draft = Draft::default();
        for (n, hash) in hashes.iter().enumerate() {
            draft.push(*hash, &Selector::Tag(format!("tag-{n}")), entry(n as u128));
        }
        draft
    }

    fn person(n: u128) -> Holder {
        Holder::Person(UserId::new(Uuid::from_u128(n)))
    }

    fn hashes() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(prop_oneof![any::<u32>(), 0u32..40, Just(u32::MAX)], 0..300)
    }

    proptest! {
        #[test]
        fn a_hash_begins_where_halving_finds_it(
            mut hashes in hashes(),
            hash in prop_oneof![any::<u32>(), 0u32..40, Just(u32::MAX)],
        ) {
            let shard = Shard::of(vec![(person(1), Draft { groups: vec![GroupId::new(Uuid::nil())], ..draft(&hashes) })]);
            hashes.sort_unstable();
            let block = shard.find(person(1)).unwrap().unwrap();
            prop_assert_eq!(block.start(hash).unwrap(), hashes.partition_point(|h| *h < hash));
        }

        #[test]
        fn a_filter_says_no_of_nothing_that_is_there(hashes in hashes()) {
            prop_assume!(!hashes.is_empty());
            let shard = Shard::of(vec![(person(1), draft(&hashes))]);
            let block = shard.find(person(1)).unwrap().unwrap();
            for some in hashes.chunks(8) {
                prop_assert_eq!(block.sift(&Wanted::of(some)), (1 << some.len()) - 1);
            }
        }

        #[test]
        fn what_a_shard_was_made_of_is_read_from_it(all in proptest::collection::vec((hashes(), 0u128..4), 1..6)) {
            let made = |n: usize, (hashes, groups): &(Vec<u32>, u128)| {
                let groups = (0..*groups).map(|g| GroupId::new(Uuid::from_u128(g))).collect();
                (person(n as u128), Draft { groups, ..draft(hashes) })
            };
            let shard = Shard::of(all.iter().enumerate().map(|(n, one)| made(n, one)).collect());
            for (n, (hashes, groups)) in all.iter().enumerate() {
                let Some(block) = shard.find(person(n as u128)).unwrap() else {
                    prop_assert!(hashes.is_empty() && *groups == 0);
                    continue;
                };
                prop_assert_eq!((block.count, block.groups as u128), (hashes.len(), *groups));
                let mut grants: Vec<_> = block.grants().map(|g| g.unwrap()).map(|(e, s)| (e.id, s)).collect();
                grants.sort_by_key(|(id, _)| *id);
                for (n, (id, selector)) in grants.into_iter().enumerate() {
                    prop_assert_eq!(id, entry(n as u128).id);
                    prop_assert_eq!(selector, Selector::Tag(format!("tag-{n}")));
                }
                // Taken apart and put together again it is the same.
                let again = Shard::of(vec![(person(n as u128), Draft::of(&block))]);
                let again = again.find(person(n as u128)).unwrap().unwrap();
                let same = again.grants().zip(block.grants()).all(|(a, b)| a.unwrap().1 == b.unwrap().1);
                prop_assert!(same && again.count == block.count && again.classes == block.classes);
            }
            prop_assert!(shard.find(person(99)).unwrap().is_none());
            prop_assert!(shard.find(Holder::Group(GroupId::new(Uuid::from_u128(0)))).unwrap().is_none());
        }
    }

    #[test]
    fn a_group_with_the_id_of_a_person_is_somebody_else() {
        let group = Holder::Group(GroupId::new(Uuid::from_u128(1)));
        let shard = Shard::of(vec![(group, draft(&[1, 2])), (person(1), draft(&[3]))]);
        assert_eq!(shard.find(group).unwrap().unwrap().count, 2);
        assert_eq!(shard.find(person(1)).unwrap().unwrap().count, 1);
        assert_eq!(shard.len(), 2);
    }

    // Bytes that are missing or wrong must never read as "no prohibition".
    #[test]
    fn a_shard_that_is_cut_anywhere_says_so_or_finds_all() {
        let name: HypervisorName = "lab".parse().unwrap();
        let hasher = RandomState::new();
        let keys = Keys::new(&hasher, crate::Target::Hypervisor(&name));
        let (wanted, _) = keys.wanted(u16::MAX, 0);
        let mut draft = Draft { groups: vec![GroupId::new(Uuid::nil())], ..Draft::default() };
        let selector = Selector::Hypervisor(name.clone());
        draft.push(place::hash_of(&hasher, &selector), &selector, entry(1));
        let whole = Shard::of(vec![(person(1), draft)]);
        let seen = |shard: &Shard| -> Result<usize, Unread> {
            let Some(block) = shard.find(person(1))? else { return Ok(0) };
            let mut seen = 0;
            for n in 0..block.groups {
                block.group(n)?;
            }
            block.visit(&wanted, block.sift(&wanted), &keys, &|_| true, &mut |_| seen += 1)?;
            Ok(seen)
        };
        assert_eq!(seen(&whole), Ok(1));
        for length in 1..whole.head.len() {
            let cut = Shard { head: whole.head[..length].into(), entries: Arc::clone(&whole.entries) };
            assert_eq!(seen(&cut), Err(Unread), "cut to {length}");
        }
        assert_eq!(seen(&Shard { head: Arc::clone(&whole.head), entries: Arc::default() }), Err(Unread));
    }
}
