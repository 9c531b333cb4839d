// SPDX-License-Identifier: Apache-2.0
//! What one confirmation is for: one action on one object.

use crate::{
    action::Action,
    resource::{Operation, Resource},
};
use serde::{Deserialize, Serialize};

/// More machines at once than this are no intent that one confirmation could be for.
const MOST: usize = 64;

/// What somebody is about to do, as far as one confirmation goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    what: What,
    on: Resource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// Everything that belongs to one console: its page, its ticket, its stream, to watch and to use.
    Console,
    Action(Action),
}

impl Intent {
    /// The intent behind an operation; none where it is on more machines than one confirmation can be for.
    pub fn of(operation: &Operation) -> Option<Self> {
        if matches!(&operation.resource, Resource::Machines(_, ids) if ids.len() > MOST) {
            return None;
        }
        let what = if operation.action.is_console() { What::Console } else { What::Action(operation.action) };
        Some(Self { what, on: operation.resource.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Effect;

    fn intent(action: Action, at: &str) -> Intent {
        let operation = Operation { action, resource: Resource::Machine(at.parse().unwrap()), effect: Effect::Unsafe };
        Intent::of(&operation).unwrap()
    }

    #[test]
    fn watching_and_using_one_screen_are_one_intent_and_nothing_else_is() {
        let console = intent(Action::ConsoleView, "lab/101");
        assert_eq!(console, intent(Action::ConsoleControl, "lab/101"));
        assert_ne!(console, intent(Action::ConsoleView, "lab/102"));
        assert_ne!(console, intent(Action::ConsoleView, "other/101"));
        assert_ne!(console, intent(Action::Destroy, "lab/101"));
        assert_ne!(intent(Action::Destroy, "lab/101"), intent(Action::GuestExec, "lab/101"));
    }

    #[test]
    fn many_machines_are_one_intent_only_as_exactly_these() {
        let of = |ids: &[&str]| {
            let ids = ids.iter().map(|id| id.parse().unwrap()).collect();
            let resource = Resource::Machines("lab".parse().unwrap(), ids);
            Intent::of(&Operation { action: Action::Destroy, resource, effect: Effect::Unsafe })
        };
        assert_eq!(of(&["101", "102"]), of(&["101", "102"]));
        assert_ne!(of(&["101", "102"]), of(&["101", "103"]));
        assert_ne!(of(&["101"]), Some(intent(Action::Destroy, "lab/101")));
        assert_eq!(of(&vec!["1"; MOST + 1]), None);
    }
}
