// SPDX-License-Identifier: Apache-2.0
//! The places that grants cover, and where to look for those that cover what is asked.

use ahash::RandomState;
use portcullis_domain::{HypervisorName, Machine, MachineKind, MachineRef, Pattern, Segment, Selector};

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

// Classes of places: each has a way of its own to be looked up. Patterns have one for each set of segments with names.
const EVERYTHING: u32 = 0;
const HYPERVISOR: u32 = 1;
const POOL: u32 = 2;
const TAG: u32 = 3;
const MACHINE: u32 = 4;
const PATTERN: u32 = 5;
const CLASSES: usize = 5 + 8;
/// Which names a place has; for a pattern, bits of its class.
const NAMED_HYPERVISOR: u32 = 1;
const NAMED_POOL: u32 = 2;
/// A machine's, or a tag's.
const NAMED_LAST: u32 = 4;

/// The names of a selector in the order of the bits above; the last is a machine's or a tag's.
type Names<'s> = [Option<&'s str>; 3];

/// The class of a selector, and its names.
fn parts(selector: &Selector) -> (u32, Names<'_>) {
    match selector {
        Selector::Everything => (EVERYTHING, [None; 3]),
        Selector::Hypervisor(h) => (HYPERVISOR, [Some(h.as_str()), None, None]),
        Selector::Pool(h, pool) => (POOL, [Some(h.as_str()), Some(pool), None]),
        Selector::Tag(tag) => (TAG, [None, None, Some(tag)]),
        Selector::Machine(at) => (MACHINE, [Some(at.hypervisor.as_str()), None, Some(at.machine.as_str())]),
        Selector::Pattern(Pattern { hypervisor, pool, machine }) => {
            let names = [
                if let Segment::Is(h) = hypervisor { Some(h.as_str()) } else { None },
                if let Segment::Is(p) = pool { Some(p.as_str()) } else { None },
                if let Segment::Is(m) = machine { Some(m.as_str()) } else { None },
            ];
            let bits = [NAMED_HYPERVISOR, NAMED_POOL, NAMED_LAST];
            (PATTERN + names.iter().zip(bits).filter(|(n, _)| n.is_some()).map(|(_, bit)| bit).sum::<u32>(), names)
        }
    }
}

/// Which names a place of a class has; none for what is no class.
fn named(class: u32) -> Option<u32> {
    match class {
        EVERYTHING => Some(0),
        HYPERVISOR => Some(NAMED_HYPERVISOR),
        POOL => Some(NAMED_HYPERVISOR | NAMED_POOL),
        TAG => Some(NAMED_LAST),
        MACHINE => Some(NAMED_HYPERVISOR | NAMED_LAST),
        pattern => pattern.checked_sub(PATTERN).filter(|bits| *bits < 8),
    }
}

/// A place's class as the bit that stands for it.
pub(super) fn class_bit(selector: &Selector) -> u16 {
    1 << parts(selector).0
}

/// The same of a place that was written.
pub(super) fn class_of(text: &[u8]) -> Option<u16> {
    text.first().and_then(|class| 1u16.checked_shl(u32::from(*class)))
}

/// Writes a selector as what is compared with what is asked: its class, and its names, each behind its length. Nothing
/// when a name has more than 65,535 bytes.
pub(super) fn write(selector: &Selector, into: &mut Vec<u8>) -> Option<()> {
    let (class, names) = parts(selector);
    let lengths = names.map(|name| name.map_or(Some(0), |n| u16::try_from(n.len()).ok()));
    into.push(u8::try_from(class).ok()?);
    for (name, length) in names.into_iter().zip(lengths) {
        let length = length?;
        if let Some(name) = name {
            into.extend(length.to_le_bytes());
            into.extend(name.as_bytes());
        }
    }
    Some(())
}

/// A place as it was written.
struct Written<'t> {
    class: u32,
    names: [Option<&'t [u8]>; 3],
    /// What follows it.
    rest: &'t [u8],
}

impl<'t> Written<'t> {
    /// None when it is no place.
    fn read(text: &'t [u8]) -> Option<Self> {
        let (class, mut rest) = text.split_first()?;
        let class = u32::from(*class);
        let named = named(class)?;
        let mut name = |bit| {
            if named & bit == 0 {
                return Some(None);
            }
            let (length, after) = rest.split_first_chunk()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = after;
            Some(Some(name))
        };
        let names = [name(NAMED_HYPERVISOR)?, name(NAMED_POOL)?, name(NAMED_LAST)?];
        Some(Self { class, names, rest })
    }
}

/// Whether the place at the beginning of a text covers what is asked; none when there is no place.
pub(super) fn covers(text: &[u8], target: Target<'_>) -> Option<bool> {
    let Written { class, names: [hypervisor, pool, last], .. } = Written::read(text)?;
    let is = |name: Option<&[u8]>, own: &str| name.is_none_or(|name| name == own.as_bytes());
    Some(match target {
        Target::Machine(machine) if class == TAG => machine.tags.iter().any(|tag| is(last, tag)),
        Target::Machine(machine) => {
            is(hypervisor, machine.at.hypervisor.as_str())
                && is(last, machine.at.machine.as_str())
                && pool.is_none_or(|pool| machine.pool.as_deref().is_some_and(|own| is(Some(pool), own)))
        }
        Target::Hypervisor(own) => class == EVERYTHING || class == HYPERVISOR && is(hypervisor, own.as_str()),
        Target::Own => class == EVERYTHING,
    })
}

/// The place at the beginning of a text, and nothing of what follows it.
pub(super) fn cut(text: &[u8]) -> Option<&[u8]> {
    let after = Written::read(text)?.rest.len();
    text.get(..text.len().checked_sub(after)?)
}

/// The selector that was written.
pub(super) fn read(text: &[u8]) -> Option<Selector> {
    let Written { class, names, .. } = Written::read(text)?;
    let [hypervisor, pool, last] = names.map(|name| name.and_then(|n| str::from_utf8(n).ok()));
    Some(match class {
        EVERYTHING => Selector::Everything,
        HYPERVISOR => Selector::Hypervisor(hypervisor?.parse().ok()?),
        POOL => Selector::Pool(hypervisor?.parse().ok()?, pool?.to_owned()),
        TAG => Selector::Tag(last?.to_owned()),
        MACHINE => {
            Selector::Machine(MachineRef { hypervisor: hypervisor?.parse().ok()?, machine: last?.parse().ok()? })
        }
        _ => {
            let any = [hypervisor.is_none(), pool.is_none(), last.is_none()];
            if any != names.map(|name| name.is_none()) {
                return None;
            }
            Selector::Pattern(Pattern {
                hypervisor: hypervisor.map_or(Some(Segment::Any), |h| h.parse().ok().map(Segment::Is))?,
                pool: pool.map_or(Segment::Any, |p| Segment::Is(p.to_owned())),
                machine: last.map_or(Some(Segment::Any), |m| m.parse().ok().map(Segment::Is))?,
            })
        }
    })
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
    let (class, names) = parts(selector);
    mixed(class, names.map(|name| name.map_or(0, |n| hash(hasher, n))))
}

/// Places that are looked for together: all classes, and most machines' tags.
pub(super) const TOGETHER: usize = 32;

/// Hashes of places that would cover one target.
pub(super) struct Wanted {
    hashes: [u32; TOGETHER],
    count: usize,
}

impl Wanted {
    #[cfg(test)]
    pub(super) fn of(all: &[u32]) -> Self {
        let mut wanted = Self { hashes: [0; TOGETHER], count: 0 };
        for hash in all {
            wanted.push(*hash);
        }
        wanted
    }

    fn push(&mut self, hash: u32) {
        if let Some(slot) = self.hashes.get_mut(self.count) {
            *slot = hash;
            self.count += 1;
        }
    }

    pub(super) fn hashes(&self) -> &[u32] {
        self.hashes.get(..self.count).unwrap_or_default()
    }
}

/// Where the places lie that would cover one target.
pub(super) struct Keys<'a> {
    hasher: &'a RandomState,
    target: Target<'a>,
    hypervisor: u64,
    pool: Option<u64>,
    machine: u64,
}

impl<'a> Keys<'a> {
    pub(super) fn new(hasher: &'a RandomState, target: Target<'a>) -> Self {
        let mut keys = Self { hasher, target, hypervisor: 0, pool: None, machine: 0 };
        match target {
            Target::Machine(machine) => {
                keys.hypervisor = hash(hasher, machine.at.hypervisor.as_str());
                keys.machine = hash(hasher, machine.at.machine.as_str());
                keys.pool = machine.pool.as_deref().map(|pool| hash(hasher, pool));
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
    const fn classes(&self) -> u16 {
        match self.target {
            Target::Machine(_) => (1 << CLASSES) - 1,
            Target::Hypervisor(_) => 1 << EVERYTHING | 1 << HYPERVISOR,
            Target::Own => 1 << EVERYTHING,
        }
    }

    /// The places of some classes (bits), but for the tags before one; and the tag to go on with, where more are left.
    pub(super) fn wanted(&self, classes: u16, first_tag: usize) -> (Wanted, Option<usize>) {
        let mut wanted = Wanted { hashes: [0; TOGETHER], count: 0 };
        let classes = classes & self.classes();
        let mut single = if first_tag == 0 { classes & !(1 << TAG) } else { 0 };
        while single != 0 {
            if let Some(hash) = self.find(single.trailing_zeros()) {
                wanted.push(hash);
            }
            single &= single - 1;
        }
        let tags: &[String] = match self.target {
            Target::Machine(machine) if classes >> TAG & 1 == 1 => &machine.tags,
            _ => &[],
        };
        let room = TOGETHER - wanted.count;
        for tag in tags.iter().skip(first_tag).take(room) {
            wanted.push(mixed(TAG, [0, 0, hash(self.hasher, tag)]));
        }
        let next = first_tag + room;
        (wanted, (next < tags.len()).then_some(next))
    }

    /// Where the one place of a class lies; none when no place of that class can cover it.
    fn find(&self, class: u32) -> Option<u32> {
        let named = named(class)?;
        let names = [
            if named & NAMED_HYPERVISOR == 0 { 0 } else { self.hypervisor },
            if named & NAMED_POOL == 0 { 0 } else { self.pool? },
            if named & NAMED_LAST == 0 { 0 } else { self.machine },
        ];
        Some(mixed(class, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, PowerState};

    fn machine(pool: Option<&str>, tags: &[&str]) -> Machine {
        Machine {
            at: "lab/101".parse().unwrap(),
            name: "web".into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: pool.map(str::to_owned),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            node: None,
            console: ConsoleKind::Vnc,
        }
    }

    const COVERING: [(&str, &str); 13] = [
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
    ];
    const OTHER: [(&str, &str); 12] = [
        ("hypervisor", "la"),
        ("hypervisor", "labx"),
        ("pool", "lab/prod"),
        ("pool", "la/prod/a"),
        ("tag", "d"),
        ("tag", "dbx"),
        ("tag", "101"),
        ("machine", "lab/10"),
        ("machine", "la/101"),
        ("pattern", "la/*/101"),
        ("pattern", "*/prod/101"),
        ("pattern", "lab/a/*"),
    ];

    fn selectors() -> impl Iterator<Item = Selector> {
        COVERING.into_iter().chain(OTHER).map(|(kind, value)| Selector::parse(kind, value).unwrap())
    }

    #[test]
    fn a_selector_is_looked_for_where_it_is_kept() {
        let hasher = RandomState::new();
        let machine = machine(Some("prod/a"), &["web", "db"]);
        let keys = Keys::new(&hasher, Target::Machine(&machine));
        for (kind, value) in COVERING {
            let selector = Selector::parse(kind, value).unwrap();
            assert!(selector.covers(&machine), "{selector}");
            let (wanted, more) = keys.wanted(class_bit(&selector), 0);
            assert!(wanted.hashes().contains(&hash_of(&hasher, &selector)), "{selector}");
            assert_eq!(more, None);
        }
    }

    #[test]
    fn every_tag_is_looked_for_once_however_many_there_are() {
        let hasher = RandomState::new();
        let tags: Vec<String> = (0..100).map(|n| format!("tag-{n}")).collect();
        let machine = machine(Some("prod"), &tags.iter().map(String::as_str).collect::<Vec<_>>());
        let keys = Keys::new(&hasher, Target::Machine(&machine));
        let (mut all, mut next) = (Vec::new(), Some(0));
        while let Some(first) = next {
            let (wanted, more) = keys.wanted(u16::MAX, first);
            all.extend_from_slice(wanted.hashes());
            next = more;
        }
        let of_tags = tags.iter().map(|t| hash_of(&hasher, &Selector::Tag(t.clone())));
        assert_eq!(all.len(), CLASSES - 1 + 100);
        assert!(of_tags.eq(all.iter().skip(CLASSES - 1).copied()));
    }

    #[test]
    fn what_is_written_covers_what_the_selector_covers_and_is_read_back() {
        let hypervisors: [HypervisorName; 2] = ["lab".parse().unwrap(), "la".parse().unwrap()];
        let machines = [
            machine(Some("prod/a"), &["web", "db"]),
            machine(Some("prod"), &[]),
            machine(None, &["d"]),
            machine(Some("a"), &["101", "lab"]),
        ];
        let targets: Vec<Target<'_>> = machines.iter().map(Target::Machine).collect();
        let targets = targets.into_iter().chain(hypervisors.iter().map(Target::Hypervisor)).chain([Target::Own]);
        for selector in selectors() {
            let mut text = Vec::new();
            write(&selector, &mut text).unwrap();
            let length = text.len();
            text.extend(b"more");
            assert_eq!(cut(&text).unwrap().len(), length, "{selector}");
            assert_eq!(read(&text).unwrap(), selector);
            for target in targets.clone() {
                assert_eq!(covers(&text, target), Some(target.is_covered_by(&selector)), "{selector} {target:?}");
            }
        }
    }

    #[test]
    fn what_is_no_place_covers_nothing_and_says_so() {
        for selector in selectors() {
            let mut text = Vec::new();
            write(&selector, &mut text).unwrap();
            for length in 0..text.len() {
                assert_eq!(covers(&text[..length], Target::Own), None, "{selector} cut to {length}");
                assert_eq!(read(&text[..length]), None);
            }
        }
        assert_eq!(covers(&[13], Target::Own), None);
        assert_eq!(covers(&[255, 0, 0], Target::Own), None);
        assert_eq!(write(&Selector::Tag("x".repeat(65_536)), &mut Vec::new()), None);
        assert_eq!(write(&Selector::Tag("x".repeat(65_535)), &mut Vec::new()), Some(()));
    }
}
