// SPDX-License-Identifier: Apache-2.0
//! Words that several pages use for the same thing.

use portcullis_domain::{Action, GrantEffect, RoleName};

/// What an action is in a sentence: `you may …`, `lets you …`. Of `its` what the sentence is about.
pub(crate) const fn deed(action: Action) -> &'static str {
    match action {
        Action::View => "see it",
        Action::ConsoleView => "watch its screen",
        Action::ConsoleControl => "use its keyboard and mouse",
        Action::ConsoleClipboardIn => "paste into it",
        Action::ConsoleClipboardOut => "copy out of it",
        Action::ConsoleScreenshot => "take a picture of its screen",
        Action::ConsoleTakeover => "take its screen over",
        Action::ConsoleUsb => "redirect USB devices to it",
        Action::ConsoleFiles => "move files through its console",
        Action::Power => "switch its power",
        Action::Configure => "change its settings",
        Action::Snapshot => "make snapshots and backups of it",
        Action::Migrate => "move it",
        Action::Create => "make machines on it",
        Action::Destroy => "delete or rebuild it",
        Action::Storage => "change its storage and images",
        Action::Network => "change its networks",
        Action::GuestExec => "run commands inside it",
        Action::AccessAdmin => "change its users and certificates",
        Action::NodeAdmin => "change the hypervisor itself",
        Action::Read => "read it",
        Action::Write => "change it",
        Action::Approve => "approve in it",
        Action::Play => "play it",
        Action::Export => "take it out",
        Action::Lock => "cut off what is in it",
        // Neither can be granted.
        Action::Session | Action::Deny => "do this to it",
    }
}

/// What a grant gives, in a sentence: a role's name, or what the one right means.
pub(crate) fn given(role: &RoleName) -> String {
    role.right().map_or_else(|| role.to_string(), |(_, action)| format!("{} ({role})", deed(action)))
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
