// SPDX-License-Identifier: Apache-2.0
//! Rights as numbers: what can be asked fits into one word of 128 bits, so that what a role allows is one mask.

use crate::Kind;
use portcullis_domain::{Action, OwnObject};

/// One thing that can be asked: its place in the order of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Right(u8);

const KINDS: usize = 2 + OwnObject::ALL.len();
const ACTIONS: usize = Action::ALL.len();
/// In the table: cannot be asked.
const NONE: u8 = u8::MAX;

/// The number of each kind and action, worked out by the compiler.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses a place that is outside")]
const TABLE: [[u8; ACTIONS]; KINDS] = {
    let mut table = [[NONE; ACTIONS]; KINDS];
    let (mut kind, mut next) = (0, 0);
    while kind < KINDS {
        let of = match kind {
            0 => Kind::Machine,
            1 => Kind::Hypervisor,
            own => Kind::Own(OwnObject::ALL[own - 2]),
        };
        let mut action = 0;
        while action < ACTIONS {
            if of.answers(Action::ALL[action]) {
                table[kind][action] = next;
                next += 1;
            }
            action += 1;
        }
        kind += 1;
    }
    assert!(next <= 128, "more rights than bits");
    table
};

impl Right {
    /// The number of an action on a kind; none when it cannot be asked of it.
    pub(crate) fn of(kind: Kind, action: Action) -> Option<Self> {
        let row = match kind {
            Kind::Machine => 0,
            Kind::Hypervisor => 1,
            Kind::Own(object) => 2 + object as usize,
        };
        let number = *TABLE.get(row)?.get(action as usize)?;
        (number != NONE).then_some(Self(number))
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Rights(u128);

impl Rights {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn insert(&mut self, right: Right) {
        self.0 |= 1 << right.0;
    }

    pub(crate) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) const fn has(self, right: Right) -> bool {
        self.0 >> right.0 & 1 == 1
    }

    /// Whether an action on a kind is in it.
    pub(crate) fn allow(self, kind: Kind, action: Action) -> bool {
        Right::of(kind, action).is_some_and(|r| self.has(r))
    }

    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::questions;

    #[test]
    fn every_question_has_a_number_of_its_own_and_nothing_else_has_one() {
        let numbers: Vec<u8> = questions().map(|(k, a)| Right::of(k, a).unwrap().0).collect();
        assert_eq!(numbers, (0..u8::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
        for kind in Kind::all() {
            for action in Action::ALL {
                assert_eq!(Right::of(kind, *action).is_some(), kind.answers(*action), "{action} on {kind}");
            }
        }
    }
}
