// SPDX-License-Identifier: Apache-2.0
//! The kinds of things that a rule can speak about.

use portcullis_domain::{Action, OwnObject, Resource};
use std::{fmt, str::FromStr};

/// The second column of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A machine.
    Machine,
    /// A hypervisor, or a thing of it that is no machine.
    Hypervisor,
    /// One of the gateway's own things.
    Own(OwnObject),
}

impl Kind {
    /// Every kind, in the order of the matrix.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Machine, Self::Hypervisor].into_iter().chain(OwnObject::ALL.iter().map(|o| Self::Own(*o)))
    }

    /// The kind of a resource.
    pub const fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Hypervisor(_) => Self::Hypervisor,
            Resource::Machine(_) | Resource::Machines(..) => Self::Machine,
            Resource::Own(object) => Self::Own(*object),
        }
    }

    /// The word used in rules.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Hypervisor => "hypervisor",
            Self::Own(object) => object.word(),
        }
    }

    /// Whether an action can be asked of it. What cannot be asked cannot be granted, and is never permitted.
    pub const fn answers(self, action: Action) -> bool {
        if !action.is_grantable() {
            return false;
        }
        match self {
            Self::Own(_) => action.is_own(),
            Self::Machine => {
                !action.is_own() && !matches!(action, Action::Create | Action::AccessAdmin | Action::NodeAdmin)
            }
            Self::Hypervisor => !action.is_own() && !action.is_console() && !matches!(action, Action::GuestExec),
        }
    }

    /// Whether the action needs a fresh factor.
    pub(crate) const fn asks_fresh(self, action: Action) -> bool {
        match self {
            Self::Own(_) => !matches!(action, Action::Read),
            Self::Machine | Self::Hypervisor => {
                action.is_console()
                    || matches!(action, Action::GuestExec | Action::Destroy | Action::AccessAdmin | Action::NodeAdmin)
            }
        }
    }

    /// `on` what, in a sentence for people.
    pub(crate) const fn place(self) -> &'static str {
        match self {
            Self::Machine => "on this machine",
            Self::Hypervisor => "on this hypervisor",
            Self::Own(_) => "on everything",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        Self::all().find(|k| k.word() == word).ok_or(())
    }
}
