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

/// Where a place is looked for: the upper half of a keyed hash of its class and its names.
fn hash(hasher: &RandomState, class: u32, names: [&str; 3]) -> u32 {
    u32::try_from(hasher.hash_one((class, names)) >> 32).unwrap_or(0)
}

/// Where a selector is kept.
pub(super) fn hash_of(hasher: &RandomState, selector: &Selector) -> u32 {
    let names: [&str; 3] = match selector {
        Selector::Everything => ["", "", ""],
        Selector::Hypervisor(h) => [h.as_str(), "", ""],
        Selector::Pool(h, pool) => [h.as_str(), pool, ""],
        Selector::Tag(tag) => [tag, "", ""],
        Selector::Machine(at) => [at.hypervisor.as_str(), at.machine.as_str(), ""],
        Selector::Pattern(Pattern { hypervisor, pool, machine }) => [
            if let Segment::Is(h) = hypervisor { h.as_str() } else { "" },
            if let Segment::Is(p) = pool { p } else { "" },
            if let Segment::Is(m) = machine { m.as_str() } else { "" },
        ],
    };
    hash(hasher, class(selector), names)
}

/// Where the places lie that would cover one target. Each is worked out when it is first needed.
pub(super) struct Keys<'a> {
    hasher: &'a RandomState,
    target: Target<'a>,
    known: [Option<u32>; CLASSES],
}

impl<'a> Keys<'a> {
    pub(super) const fn new(hasher: &'a RandomState, target: Target<'a>) -> Self {
        Self { hasher, target, known: [None; CLASSES] }
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
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> + use<'a> {
        let hasher = self.hasher;
        let tags: &[String] = if let Target::Machine(machine) = self.target { &machine.tags } else { &[] };
        tags.iter().map(move |tag| hash(hasher, TAG, [tag, "", ""]))
    }

    /// Where the one place of a class lies; none when no place of that class can cover it.
    pub(super) fn find(&mut self, class: u32) -> Option<u32> {
        let known = self.known.get_mut(usize::try_from(class).ok()?)?;
        if known.is_none() {
            let names: [&str; 3] = match (class, self.target) {
                (EVERYTHING, _) => ["", "", ""],
                (HYPERVISOR, Target::Machine(m)) => [m.at.hypervisor.as_str(), "", ""],
                (HYPERVISOR, Target::Hypervisor(h)) => [h.as_str(), "", ""],
                (POOL, Target::Machine(m)) => [m.at.hypervisor.as_str(), m.pool.as_deref()?, ""],
                (MACHINE, Target::Machine(m)) => [m.at.hypervisor.as_str(), m.at.machine.as_str(), ""],
                (pattern, Target::Machine(m)) => {
                    let named = pattern.checked_sub(PATTERN)?;
                    let hypervisor = if named & NAMED_HYPERVISOR != 0 { m.at.hypervisor.as_str() } else { "" };
                    let pool = if named & NAMED_POOL != 0 { m.pool.as_deref()? } else { "" };
                    let machine = if named & NAMED_MACHINE != 0 { m.at.machine.as_str() } else { "" };
                    [hypervisor, pool, machine]
                }
                _ => return None,
            };
            *known = Some(hash(self.hasher, class, names));
        }
        *known
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
            let mut keys = Keys::new(&hasher, Target::Machine(&machine));
            let class = class(&selector);
            let kept = hash_of(&hasher, &selector);
            let found = if class == TAG { keys.tags().any(|h| h == kept) } else { keys.find(class) == Some(kept) };
            assert!(found && keys.classes() >> class & 1 == 1, "{selector}");
        }
    }
}
