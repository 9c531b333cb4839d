// SPDX-License-Identifier: Apache-2.0
//! What can be asked: one vocabulary over every hypervisor and over the gateway itself.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an action")]
pub struct UnknownAction(String);

// One table for writing and reading: the two cannot disagree.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every variant, in the order of the vocabulary.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word used in policies, events and pages.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = UnknownAction;
            fn from_str(word: &str) -> Result<Self, UnknownAction> {
                match word { $($word => Ok(Self::$variant),)* _ => Err(UnknownAction(word.chars().take(64).collect())) }
            }
        }
    };
}

words! {
    /// What one request asks.
    Action {
        /// See that it exists, its state and its settings.
        View = "view",
        /// Watch the screen.
        ConsoleView = "console.view",
        /// Use keyboard and mouse.
        ConsoleControl = "console.control",
        /// Put text into the guest's clipboard.
        ConsoleClipboardIn = "console.clipboard-in",
        /// Take text out of the guest's clipboard.
        ConsoleClipboardOut = "console.clipboard-out",
        /// Take one picture of the screen.
        ConsoleScreenshot = "console.screenshot",
        /// End another person's session to take the screen.
        ConsoleTakeover = "console.takeover",
        /// Redirect USB devices.
        ConsoleUsb = "console.usb",
        /// Move files through the console.
        ConsoleFiles = "console.files",
        /// Start, stop, reset, suspend.
        Power = "power",
        /// Change settings.
        Configure = "configure",
        /// Snapshots and backups.
        Snapshot = "snapshot",
        /// Move to another place.
        Migrate = "migrate",
        /// Make a new machine.
        Create = "create",
        /// Delete or rebuild a machine.
        Destroy = "destroy",
        /// Change storage and images.
        Storage = "storage",
        /// Change networks.
        Network = "network",
        /// Run or read inside the guest.
        GuestExec = "guest-exec",
        /// Change the hypervisor's own users and certificates.
        AccessAdmin = "access-admin",
        /// Change the hypervisor itself.
        NodeAdmin = "node-admin",
        /// Sign-in calls of the hypervisor's API: the gateway answers, never forwards. Not grantable.
        Session = "session",
        /// Never forwarded. Not grantable.
        Deny = "deny",
        /// Read one of the gateway's own things.
        Read = "read",
        /// Change one of the gateway's own things.
        Write = "write",
        /// Approve a request or a review.
        Approve = "approve",
        /// Play a recording.
        Play = "play",
        /// Take data out.
        Export = "export",
        /// Cut somebody or something off.
        Lock = "lock",
    }
}

impl Action {
    /// What it is in a sentence that people read: `you may …`, `gains, on lab/web-1: …`. Of `its` what the sentence is
    /// about. The words of policies, events and programs are those of [`Action::word`].
    pub const fn deed(self) -> &'static str {
        match self {
            Self::View => "see it",
            Self::ConsoleView => "watch its screen",
            Self::ConsoleControl => "use its keyboard and mouse",
            Self::ConsoleClipboardIn => "paste into it",
            Self::ConsoleClipboardOut => "copy out of it",
            Self::ConsoleScreenshot => "take a picture of its screen",
            Self::ConsoleTakeover => "take its screen over",
            Self::ConsoleUsb => "redirect USB devices to it",
            Self::ConsoleFiles => "move files through its console",
            Self::Power => "switch its power",
            Self::Configure => "change its settings",
            Self::Snapshot => "make snapshots and backups of it",
            Self::Migrate => "move it",
            Self::Create => "make machines on it",
            Self::Destroy => "delete or rebuild it",
            Self::Storage => "change its storage and images",
            Self::Network => "change its networks",
            Self::GuestExec => "run commands inside it",
            Self::AccessAdmin => "change its users and certificates",
            Self::NodeAdmin => "change the hypervisor itself",
            Self::Read => "read it",
            Self::Write => "change it",
            Self::Approve => "approve in it",
            Self::Play => "play it",
            Self::Export => "take data out of it",
            Self::Lock => "cut off what is in it",
            // Neither can be granted.
            Self::Session => "sign in to its API",
            Self::Deny => "do what nobody may",
        }
    }

    /// Several of them in one sentence.
    pub fn deeds(actions: &[Self]) -> String {
        actions.iter().map(|action| action.deed()).collect::<Vec<_>>().join(", ")
    }

    /// Whether a role may hold it. `session` and `deny` cannot be granted.
    pub const fn is_grantable(self) -> bool {
        !matches!(self, Self::Session | Self::Deny)
    }

    /// Whether it is a part of `console`.
    pub const fn is_console(self) -> bool {
        matches!(
            self,
            Self::ConsoleView
                | Self::ConsoleControl
                | Self::ConsoleClipboardIn
                | Self::ConsoleClipboardOut
                | Self::ConsoleScreenshot
                | Self::ConsoleTakeover
                | Self::ConsoleUsb
                | Self::ConsoleFiles
        )
    }

    /// Whether it is an action on the gateway's own things.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Approve | Self::Play | Self::Export | Self::Lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_reads_back_from_its_word() {
        for a in Action::ALL {
            assert_eq!(a.word().parse::<Action>(), Ok(*a));
        }
    }

    #[test]
    fn every_action_has_words_of_its_own_for_people() {
        let said: std::collections::BTreeSet<_> = Action::ALL.iter().map(|a| a.deed()).collect();
        assert_eq!(said.len(), Action::ALL.len());
        // None looks like a word of a policy.
        assert!(said.iter().all(|deed| deed.contains(' ') && !deed.contains(['.', '-'])), "{said:?}");
        assert_eq!(Action::deeds(&[Action::View, Action::Power]), "see it, switch its power");
    }

    #[test]
    fn near_words_name_no_action() {
        for w in ["", "console", "console.viewx", "console/clipboard", "View", "view ", "*"] {
            assert!(w.parse::<Action>().is_err(), "{w:?}");
        }
    }
}
