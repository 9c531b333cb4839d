// SPDX-License-Identifier: Apache-2.0
//! The places that grants cover, and where to look for those that cover what is asked.

use ahash::RandomState;
use portcullis_domain::{HypervisorName, Machine, MachineKind, Pattern, Segment, Selector};
use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// One thing that grants must cover.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A machine.
    Machine(&'a Machine),
    /// A hypervisor itself.
    Hypervisor(&'a HypervisorName),
    /// One of the gateway's own things.
    Own,
}

impl Target<'_> {
    /// Whether a selector covers it.
    pub fn is_covered_by(self, selector: &Selector) -> bool {
        match (selector, self) {
            (selector, Target::Machine(machine)) => selector.covers(machine),
            (Selector::Everything, _) => true,
            (Selector::Hypervisor(h), Target::Hypervisor(at)) => h == at,
            (_, Target::Own | Target::Hypervisor(_)) => false,
        }
    }

    /// The kind of the machine, if it is one.
    pub(crate) const fn kind(self) -> Option<MachineKind> {
        match self {
            Self::Machine(machine) => Some(machine.kind),
            Self::Hypervisor(_) | Self::Own => None,
        }
    }
}

/// A place that grants cover; kept once, however many grants cover it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) selector: Selector,
}

/// For the set of all places.
#[derive(Debug, Clone)]
pub(super) struct SharedPlace(pub(super) Arc<Place>);

impl Borrow<Selector> for SharedPlace {
    fn borrow(&self) -> &Selector {
        &self.0.selector
    }
}

impl PartialEq for SharedPlace {
    fn eq(&self, other: &Self) -> bool {
        self.0.selector == other.0.selector
    }
}

impl Eq for SharedPlace {}

impl Hash for SharedPlace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.selector.hash(state);
    }
}

// Classes of places: each has a way of its own to be looked up. Patterns have one for each set of segments with names.
const EVERYTHING: u32 = 0;
const HYPERVISOR: u32 = 1;
const POOL: u32 = 2;
pub(super) const TAG: u32 = 3;
const MACHINE: u32 = 4;
const PATTERN: u32 = 5;
const CLASSES: usize = 5 + 8;
/// Bits of a pattern's class: which of its segments are names.
const NAMED_HYPERVISOR: u32 = 1;
const NAMED_POOL: u32 = 2;
const NAMED_MACHINE: u32 = 4;

/// The class of a selector.
pub(super) fn class(selector: &Selector) -> u32 {
    match selector {
        Selector::Everything => EVERYTHING,
        Selector::Hypervisor(_) => HYPERVISOR,
        Selector::Pool(..) => POOL,
        Selector::Tag(_) => TAG,
        Selector::Machine(_) => MACHINE,
        Selector::Pattern(Pattern { hypervisor, pool, machine }) => {
            let bit = |named: bool, bit: u32| if named { bit } else { 0 };
            PATTERN
                + bit(*hypervisor != Segment::Any, NAMED_HYPERVISOR)
                + bit(*pool != Segment::Any, NAMED_POOL)
                + bit(*machine != Segment::Any, NAMED_MACHINE)
        }
    }
}

/// A keyed hash of one name.
fn hash(hasher: &RandomState, name: &str) -> u64 {
    hasher.hash_one(name)
}

/// Where a place is looked for: its class and the hashes of its names, mixed. What is found there is compared in full.
fn mixed(class: u32, [a, b, c]: [u64; 3]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = a.wrapping_add(u64::from(class)).wrapping_mul(ODD) ^ b.rotate_left(29);
    let mix = mix.wrapping_mul(ODD) ^ c.rotate_left(47);
    u32::try_from(mix.wrapping_mul(ODD) >> 32).unwrap_or(0)
}

/// Where a selector is kept.
pub(super) fn hash_of(hasher: &RandomState, selector: &Selector) -> u32 {
    let hash = |name: &str| hash(hasher, name);
    let names = match selector {
        Selector::Everything => [0; 3],
        Selector::Hypervisor(h) => [hash(h.as_str()), 0, 0],
        Selector::Pool(h, pool) => [hash(h.as_str()), hash(pool), 0],
        Selector::Tag(tag) => [0, 0, hash(tag)],
        Selector::Machine(at) => [hash(at.hypervisor.as_str()), 0, hash(at.machine.as_str())],
        Selector::Pattern(Pattern { hypervisor, pool, machine }) => [
            if let Segment::Is(h) = hypervisor { hash(h.as_str()) } else { 0 },
            if let Segment::Is(p) = pool { hash(p) } else { 0 },
            if let Segment::Is(m) = machine { hash(m.as_str()) } else { 0 },
        ],
    };
    mixed(class(selector), names)
}

/// Tags whose hashes are kept while a decision goes on; more of them are worked out again for each holder.
const TAGS: usize = 8;

/// Where the places lie that would cover one target.
pub(super) struct Keys<'a> {
    hasher: &'a RandomState,
    target: Target<'a>,
    hypervisor: u64,
    pool: Option<u64>,
    machine: u64,
    tags: [u32; TAGS],
}

impl<'a> Keys<'a> {
    pub(super) fn new(hasher: &'a RandomState, target: Target<'a>) -> Self {
        let mut keys = Self { hasher, target, hypervisor: 0, pool: None, machine: 0, tags: [0; TAGS] };
        match target {
            Target::Machine(machine) => {
                keys.hypervisor = hash(hasher, machine.at.hypervisor.as_str());
                keys.machine = hash(hasher, machine.at.machine.as_str());
                keys.pool = machine.pool.as_deref().map(|pool| hash(hasher, pool));
                for (key, tag) in keys.tags.iter_mut().zip(&machine.tags) {
                    *key = mixed(TAG, [0, 0, hash(hasher, tag)]);
                }
            }
            Target::Hypervisor(h) => keys.hypervisor = hash(hasher, h.as_str()),
            Target::Own => {}
        }
        keys
    }

    pub(super) const fn target(&self) -> Target<'a> {
        self.target
    }

    /// The classes of places that can cover it, as bits.
    pub(super) const fn classes(&self) -> u16 {
        match self.target {
            Target::Machine(_) => (1 << CLASSES) - 1,
            Target::Hypervisor(_) => 1 << EVERYTHING | 1 << HYPERVISOR,
            Target::Own => 1 << EVERYTHING,
        }
    }

    /// Where the tags of the machine lie.
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        let tags: &[String] = if let Target::Machine(machine) = self.target { &machine.tags } else { &[] };
        let known = self.tags.iter().take(tags.len()).copied();
        known.chain(tags.iter().skip(TAGS).map(|tag| mixed(TAG, [0, 0, hash(self.hasher, tag)])))
    }

    /// Where the one place of a class lies; none when no place of that class can cover it.
    pub(super) fn find(&self, class: u32) -> Option<u32> {
        let names = match class {
            EVERYTHING => [0; 3],
            HYPERVISOR => [self.hypervisor, 0, 0],
            POOL => [self.hypervisor, self.pool?, 0],
            MACHINE => [self.hypervisor, 0, self.machine],
            pattern => {
                let named = pattern.checked_sub(PATTERN)?;
                [
                    if named & NAMED_HYPERVISOR == 0 { 0 } else { self.hypervisor },
                    if named & NAMED_POOL == 0 { 0 } else { self.pool? },
                    if named & NAMED_MACHINE == 0 { 0 } else { self.machine },
                ]
            }
        };
        Some(mixed(class, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, PowerState};

    #[test]
    fn a_selector_is_looked_for_where_it_is_kept() {
        let hasher = RandomState::new();
        let machine = Machine {
            at: "lab/101".parse().unwrap(),
            name: "web".into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: Some("prod/a".into()),
            tags: vec!["web".into(), "db".into()],
            node: None,
            console: ConsoleKind::Vnc,
        };
        for (kind, value) in [
            ("everything", ""),
            ("hypervisor", "lab"),
            ("pool", "lab/prod/a"),
            ("tag", "db"),
            ("machine", "lab/101"),
            ("pattern", "*/*/*"),
            ("pattern", "lab/*/*"),
            ("pattern", "*/prod/a/*"),
            ("pattern", "lab/prod/a/*"),
            ("pattern", "*/*/101"),
            ("pattern", "lab/*/101"),
            ("pattern", "*/prod/a/101"),
            ("pattern", "lab/prod/a/101"),
        ] {
            let selector = Selector::parse(kind, value).unwrap();
            assert!(selector.covers(&machine), "{selector}");
            let keys = Keys::new(&hasher, Target::Machine(&machine));
            let class = class(&selector);
            let kept = hash_of(&hasher, &selector);
            let found = if class == TAG { keys.tags().any(|h| h == kept) } else { keys.find(class) == Some(kept) };
            assert!(found && keys.classes() >> class & 1 == 1, "{selector}");
        }
    }
}
