// SPDX-License-Identifier: Apache-2.0
//! The table as the file writes it.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) api: String,
    pub(super) events: Events,
    pub(super) rule: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    pub(super) own: Vec<String>,
    pub(super) never: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) calls: Vec<String>,
    pub(super) deny: Option<String>,
    pub(super) action: Option<String>,
    pub(super) object: Option<Object>,
    pub(super) effect: Option<RowEffect>,
    pub(super) flags: Option<Flags>,
    #[serde(default)]
    pub(super) raise: Vec<Raise>,
    #[serde(default)]
    pub(super) secrets: u32,
    #[serde(default)]
    pub(super) unless: u32,
    #[serde(default)]
    pub(super) needs: u32,
    #[serde(default)]
    pub(super) also: Vec<String>,
    #[serde(default)]
    pub(super) paths: Vec<String>,
    #[serde(default)]
    pub(super) document: BTreeMap<String, Document>,
    pub(super) labels: Option<String>,
    #[serde(default)]
    pub(super) way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Object {
    Machine,
    Hypervisor,
    Visible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowEffect {
    Safe,
    Unsafe,
}

/// Bits, or the word `any`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Flags {
    Bits(u32),
    Word(String),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raise {
    pub(super) bits: u32,
    pub(super) action: String,
}

/// What an argument of XML describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Document {
    /// A whole machine that is defined: the one with its id, where there is one, or a new one.
    Machine,
    /// A whole machine that is started as it is described.
    Start,
    /// The machine of the call, or of a file, in whole.
    Domain,
    /// One device of the call's machine.
    Device,
    /// A disk of it.
    Disk,
    /// A snapshot.
    Snapshot,
    /// A checkpoint.
    Checkpoint,
    /// A volume of a storage pool.
    Volume,
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// It is passed on, and so is its answer.
    #[default]
    Pass,
    /// By the gateway: a step of signing in.
    SignIn,
    /// It opens the connection.
    Open,
    /// It ends the connection.
    Close,
    /// It asks what the daemon knows; some of that is the gateway's to say.
    Feature,
    /// It is passed on; machines that the person may not see are left out of the answer.
    Rows,
    /// The same, for a list that is counted: the whole list is asked for.
    List,
    /// Made from the list: the ids of running machines.
    ActiveIds,
    /// Made from the list: the names of machines that do not run.
    InactiveNames,
    /// Counted from the list: machines that run.
    CountActive,
    /// Counted from the list: machines that do not run.
    CountInactive,
    /// It is passed on twice where passwords are asked for, and the answer with them goes out only where there are none.
    Description,
    /// It is passed on; what it asks is told better with what the machine is now and what the snapshot holds.
    Back,
    /// It is passed on; what it asks is told better with what the machine is now and what it goes on with, where its memory
    /// was saved.
    On,
    /// A stream from the daemon follows.
    StreamDown,
    /// A stream to the daemon follows.
    StreamUp,
    /// A stream both ways follows.
    StreamBoth,
}

impl Way {
    /// Whether the gateway itself reads an argument of such a call.
    pub(super) const fn reads(self) -> bool {
        use Way::{ActiveIds, Back, Feature, InactiveNames, List, On, Open, Rows};
        matches!(self, Open | Feature | List | ActiveIds | InactiveNames | Rows | Back | On)
    }

    /// Whether a stream follows the answer.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::StreamDown | Self::StreamUp | Self::StreamBoth)
    }
}
