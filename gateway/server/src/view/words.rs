// SPDX-License-Identifier: Apache-2.0
//! Words that several pages use for the same thing.

use portcullis_domain::{GrantEffect, RoleName};

/// What a grant gives, in a sentence: a role's name, or what the one right means.
pub(crate) fn given(role: &RoleName) -> String {
    role.right().map_or_else(|| role.to_string(), |(_, action)| format!("{} ({role})", action.deed()))
}

/// The verb before it.
pub(crate) fn verb(role: &RoleName, effect: GrantEffect) -> &'static str {
    match (role.right(), effect) {
        (None, GrantEffect::Allow) => "may act as",
        (None, GrantEffect::Deny) => "must not act as",
        (Some(_), GrantEffect::Allow) => "may",
        (Some(_), GrantEffect::Deny) => "must not",
    }
}

/// Why a button is greyed, and what would open it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shut {
    /// What cannot be done: `you may not …`.
    pub(crate) what: &'static str,
    /// What decided.
    pub(crate) why: String,
    /// What would open it, each a sentence.
    pub(crate) needs: Vec<String>,
    /// Whether a fresh factor comes on top when it is open.
    pub(crate) fresh: bool,
    /// Where they ask for it, and what that link says.
    pub(crate) ask: Option<(String, &'static str)>,
    /// The ids of the grants that decided, for those who may read the policy.
    pub(crate) rules: Vec<String>,
}
