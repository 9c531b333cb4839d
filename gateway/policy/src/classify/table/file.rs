// SPDX-License-Identifier: Apache-2.0
//! A table as its file writes it. Every key that is not here is refused.

use crate::classify::{Answer, params::ParamRow};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A table as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) api: String,
    /// What every path begins with, one of these; none where paths stand as they are.
    #[serde(default)]
    pub(super) base: Vec<String>,
    #[serde(default)]
    pub(super) bodies: Bodies,
    /// Bodies of nested JSON may be patches of it.
    #[serde(default)]
    pub(super) patches: bool,
    /// The key that an older form of the API writes around all that a body says.
    pub(super) wrapped: Option<String>,
    /// What must be done to answers, where a row says nothing.
    #[serde(default = "pass")]
    pub(super) answer: Answer,
    pub(super) machine: MachineNaming,
    pub(super) task: TaskNaming,
    pub(super) query: QueryKeys,
    #[serde(default)]
    pub(super) refuse: Vec<Refuse>,
    #[serde(default)]
    pub(super) params: Vec<ParamRow>,
    pub(super) rule: Vec<Row>,
}

/// Where a request names its machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineNaming {
    /// The parameter of the path that holds the name.
    #[serde(default)]
    pub(super) name: String,
    /// The id of the one machine that there is, where nothing names it.
    pub(super) always: Option<String>,
    /// The key of the query that says where the name counts: its value and the name, joined by `:`, are the id.
    pub(super) within: Option<String>,
    /// The parameter of the path that does the same.
    pub(super) inside: Option<String>,
    /// What counts when the key is absent or empty.
    #[serde(default)]
    pub(super) default: String,
    #[serde(default)]
    pub(super) shape: Shape,
}

/// What a machine's id looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shape {
    /// Any text without `:`.
    #[default]
    Text,
    /// 100 to 999999999.
    Number,
    /// As Kubernetes has names: lower case letters, digits, `-` and `.`.
    Dns,
}

/// Whether the bodies of requests say what is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Bodies {
    /// They are not looked at.
    #[default]
    Opaque,
    /// They hold parameters, as forms or flat JSON, and are read before anything is decided.
    Params,
    /// They are nested JSON, and are read before anything is decided.
    Json,
    /// They are nested JSON or XML, spoken of in one form, and are read before anything is decided.
    Tree,
}

impl Bodies {
    /// Whether they are nested.
    pub(super) const fn are_nested(self) -> bool {
        matches!(self, Self::Json | Self::Tree)
    }
}

/// Where a request names its task.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskNaming {
    /// The parameter of the path that holds the id.
    pub(super) id: String,
    /// What an id may have in it beside letters, digits and `-`.
    #[serde(default)]
    pub(super) marks: String,
    /// The key of the query that holds the secret of one of its streams.
    pub(super) secret: Option<String>,
    /// Where the id itself says what it is about.
    pub(super) inside: Option<TaskInside>,
}

/// How a task's id says what it is about: parts with `:` between them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskInside {
    /// What the first part is.
    pub(super) begins: String,
    /// How many parts there are.
    pub(super) parts: usize,
    /// Which of them, from 0, is the machine.
    pub(super) machine: usize,
    /// What is asked of the hypervisor where it is no machine.
    pub(super) otherwise: String,
}

/// Keys that every operation takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryKeys {
    pub(super) everywhere: Vec<String>,
    /// Keys that may come several times, and all of them count.
    #[serde(default)]
    pub(super) repeated: Vec<String>,
}

/// Everything under a path, never passed on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refuse {
    pub(super) under: String,
    pub(super) reason: String,
}

/// One row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// `METHOD /path`, or `METHOD /path?key=value` where the query chooses it.
    pub(super) operations: Vec<String>,
    /// Only for requests whose query has these values.
    #[serde(default)]
    pub(super) when: BTreeMap<String, String>,
    /// Only for requests whose body is an object with this one key.
    pub(super) only: Option<String>,
    /// Only for requests whose body has these values, by JSON pointers.
    #[serde(default)]
    pub(super) says: BTreeMap<String, String>,
    pub(super) action: Option<String>,
    pub(super) object: Option<Object>,
    pub(super) effect: Option<RowEffect>,
    /// What only reads, though it is no GET: the query that chooses it says so, too.
    #[serde(default)]
    pub(super) reads: bool,
    /// Asked of the machine of the path, too, where the object is the hypervisor.
    pub(super) machine: Option<String>,
    /// Asked as well: of the machine of the path, or of the hypervisor where it cannot be asked of a machine.
    #[serde(default)]
    pub(super) also: Vec<String>,
    /// Keys that it takes and that say nothing; `*`: any.
    #[serde(default)]
    pub(super) query: Vec<String>,
    /// Sets of parameters that it takes.
    #[serde(default)]
    pub(super) params: Vec<String>,
    /// Its body is no parameters: it is streamed.
    #[serde(default)]
    pub(super) body: BodyRule,
    pub(super) answer: Option<Answer>,
    #[serde(default)]
    pub(super) upgrade: UpgradeRule,
    /// Never passed on, and why.
    pub(super) deny: Option<String>,
}

pub(super) const fn pass() -> Answer {
    Answer::Pass
}

/// What a row's operations are done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Object {
    Machine,
    /// Machines that a parameter names.
    Machines,
    Hypervisor,
    Task,
    /// What the person may see of the hypervisor.
    Visible,
}

/// How the body of a row's operations travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BodyRule {
    /// As the table says for all.
    #[default]
    Usual,
    /// As it comes.
    Stream,
    /// It is nested JSON, and read before anything is decided.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RowEffect {
    Safe,
    Unsafe,
}

/// Whether the operation changes the protocol of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UpgradeRule {
    #[default]
    Never,
    Always,
}
