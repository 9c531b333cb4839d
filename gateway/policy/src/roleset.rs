// SPDX-License-Identifier: Apache-2.0
//! A set of roles of one policy snapshot, small enough to be a key that is compared in full.

/// Most roles that a policy may have.
pub(crate) const MAX_ROLES: usize = 256;

/// A role's number in its snapshot: its place in the sorted list of names, below [`MAX_ROLES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoleIndex(u8);

impl RoleIndex {
    pub(crate) fn new(place: usize) -> Option<Self> {
        u8::try_from(place).ok().map(Self)
    }

    pub(crate) fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of roles as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct RoleSet {
    low: u128,
    high: u128,
}

impl RoleSet {
    pub(crate) const EMPTY: Self = Self { low: 0, high: 0 };

    pub(crate) fn insert(&mut self, role: RoleIndex) {
        if role.0 < 128 {
            self.low |= 1 << role.0;
        } else {
            self.high |= 1 << (role.0 - 128);
        }
    }

    pub(crate) const fn contains(self, role: RoleIndex) -> bool {
        if role.0 < 128 { self.low >> role.0 & 1 == 1 } else { self.high >> (role.0 - 128) & 1 == 1 }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.low |= other.low;
        self.high |= other.high;
    }

    #[cfg(test)]
    const fn is_empty(self) -> bool {
        self.low == 0 && self.high == 0
    }

    /// The roles in it, lowest first.
    pub(crate) fn iter(self) -> impl Iterator<Item = RoleIndex> {
        (0..=u8::MAX).map(RoleIndex).filter(move |r| self.contains(*r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in_and_nothing_else(places in proptest::collection::btree_set(0usize..256, 0..40)) {
            let mut set = RoleSet::EMPTY;
            for p in &places {
                set.insert(RoleIndex::new(*p).unwrap());
            }
            let back: Vec<usize> = set.iter().map(RoleIndex::place).collect();
            prop_assert_eq!(back, places.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.is_empty(), places.is_empty());
        }
    }

    #[test]
    fn there_is_no_257th_role() {
        assert!(RoleIndex::new(MAX_ROLES - 1).is_some());
        assert!(RoleIndex::new(MAX_ROLES).is_none());
    }
}
