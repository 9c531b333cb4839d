// SPDX-License-Identifier: Apache-2.0
//! The table of one hypervisor API: read strictly, then asked for each request.
//!
//! A row says which operations it speaks of, and for all of them the action, the object and where it is named, the
//! effect, which keys the query may have, and what must be done to the answer. A table that could classify a change as
//! a read, or that has a row which can never match, is refused as a whole.

use super::{
    Answer, Asked, Task, Upgrade, Verdict,
    query::Query,
    tree::{self, Match, Part, Tree},
};
use crate::{Error, Kind};
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// An API that has a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKind {
    /// LXD 5.0.
    Lxd,
}

const LXD: &str = include_str!("../../../../policies/classify/lxd.toml");

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// A table as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    api: String,
    machine: MachineNaming,
    task: TaskNaming,
    query: QueryKeys,
    #[serde(default)]
    refuse: Vec<Refuse>,
    rule: Vec<Row>,
}

/// Where a request names its machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineNaming {
    /// The parameter of the path that holds the name.
    name: String,
    /// The key of the query that says where the name counts: its value and the name, joined by `:`, are the id.
    within: String,
    /// What counts when the key is absent or empty.
    default: String,
}

/// Where a request names its task.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskNaming {
    /// The parameter of the path that holds the id.
    id: String,
    /// The key of the query that holds the secret of one of its streams.
    secret: String,
}

/// Keys that every operation takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryKeys {
    everywhere: Vec<String>,
}

/// Everything under a path, never passed on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    under: String,
    reason: String,
}

/// One row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    operations: Vec<String>,
    /// Only for requests whose query has these values.
    #[serde(default)]
    when: BTreeMap<String, String>,
    action: Option<String>,
    object: Option<Object>,
    effect: Option<RowEffect>,
    #[serde(default)]
    query: Vec<String>,
    #[serde(default = "pass")]
    answer: Answer,
    #[serde(default)]
    upgrade: UpgradeRule,
    /// Never passed on, and why.
    deny: Option<String>,
}

const fn pass() -> Answer {
    Answer::Pass
}

/// What a row's operations are done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Object {
    Machine,
    Hypervisor,
    Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RowEffect {
    Safe,
    Unsafe,
}

/// Whether the operation changes the protocol of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UpgradeRule {
    #[default]
    Never,
    Always,
}

/// What a row says, once checked.
#[derive(Debug)]
enum Meaning {
    Deny(String),
    Ask { action: Action, object: Object, effect: Effect, query: Vec<String>, answer: Answer, upgrade: UpgradeRule },
}

/// One operation that a table knows, for tests and reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The method.
    pub method: String,
    /// The pattern of the path.
    pub pattern: String,
    /// What it asks; none when it is never passed on.
    pub action: Option<Action>,
    /// Whether it can change something.
    pub effect: Effect,
}

#[derive(Debug)]
struct Leaf {
    method: String,
    when: BTreeMap<String, String>,
    /// Which row it came from.
    row: usize,
    /// The place of the parameter that names the machine or the task.
    named_at: Option<usize>,
}

#[derive(Debug)]
struct Inner {
    machine: MachineNaming,
    task: TaskNaming,
    everywhere: Vec<String>,
    refuse: Vec<Refuse>,
    meanings: Vec<Meaning>,
    tree: Tree<Vec<Leaf>>,
    entries: Vec<Entry>,
}

/// The table of one API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table(Arc<Inner>);

static BUILTIN_LXD: LazyLock<Table> = LazyLock::new(|| {
    Table::read(LXD).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of the LXD API is wrong: every request is denied");
        Table(Arc::new(Inner {
            machine: MachineNaming { name: String::new(), within: String::new(), default: String::new() },
            task: TaskNaming { id: String::new(), secret: String::new() },
            everywhere: Vec::new(),
            refuse: Vec::new(),
            meanings: Vec::new(),
            tree: Tree::default(),
            entries: Vec::new(),
        }))
    })
});

impl Table {
    /// The table that comes with the gateway.
    pub fn builtin(kind: ApiKind) -> Self {
        match kind {
            ApiKind::Lxd => BUILTIN_LXD.clone(),
        }
    }

    /// Reads a table. Refuses the whole of it when any row is wrong.
    pub fn read(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|e| Error::Table(e.to_string()))?;
        build(file).map(|inner| Self(Arc::new(inner))).map_err(Error::Table)
    }

    /// Every operation that it knows.
    pub fn entries(&self) -> &[Entry] {
        &self.0.entries
    }

    /// What a request asks of a hypervisor. What is not in the table is denied.
    pub fn classify(&self, hypervisor: &HypervisorName, asked: &Asked<'_>) -> Verdict {
        self.0.classify(hypervisor, asked).unwrap_or_else(Verdict::Denied)
    }
}

fn build(file: File) -> Result<Inner, String> {
    let File { api, machine, task, query, refuse, rule: rows } = file;
    let mut inner = Inner {
        machine,
        task,
        everywhere: query.everywhere,
        refuse,
        meanings: Vec::new(),
        tree: Tree::default(),
        entries: Vec::new(),
    };
    for r in &inner.refuse {
        tree::parts(&r.under).map_err(|e| format!("{api}: {e}"))?;
    }
    for (number, row) in rows.into_iter().enumerate() {
        let name = row.operations.first().cloned().unwrap_or_default();
        inner.add(number, &row).map_err(|e| format!("{api}: row {} ({name}): {e}", number + 1))?;
    }
    Ok(inner)
}

impl Row {
    /// What the row says, if it says something sensible.
    fn meaning(&self) -> Result<Meaning, String> {
        if let Some(reason) = &self.deny {
            let more = self.action.is_some() || self.object.is_some() || self.effect.is_some();
            return if more || reason.is_empty() {
                Err("a row with deny says why, and nothing else".to_owned())
            } else {
                Ok(Meaning::Deny(reason.clone()))
            };
        }
        let (Some(action), Some(object), Some(effect)) = (&self.action, self.object, self.effect) else {
            return Err("action, object and effect are needed".to_owned());
        };
        let action: Action = action.parse().map_err(|e| format!("{e}"))?;
        let kind = if object == Object::Hypervisor { Kind::Hypervisor } else { Kind::Machine };
        if !kind.answers(action) {
            return Err(format!("{action} cannot be asked of a {kind}"));
        }
        let effect = if effect == RowEffect::Safe { Effect::Safe } else { Effect::Unsafe };
        if self.upgrade == UpgradeRule::Always && self.answer != Answer::Events && effect == Effect::Safe {
            return Err("a stream both ways is not safe".to_owned());
        }
        if (self.answer == Answer::Events) != (self.upgrade == UpgradeRule::Always && object == Object::Hypervisor) {
            return Err("events are a stream of the hypervisor, and the only one".to_owned());
        }
        if self.answer == Answer::ConsoleSecrets && object != Object::Machine {
            return Err("secrets of streams belong to a machine".to_owned());
        }
        let mut query = self.query.clone();
        query.extend(self.when.keys().cloned());
        Ok(Meaning::Ask { action, object, effect, query, answer: self.answer, upgrade: self.upgrade })
    }
}

impl Inner {
    fn add(&mut self, number: usize, row: &Row) -> Result<(), String> {
        if row.operations.is_empty() {
            return Err("it names no operation".to_owned());
        }
        let meaning = row.meaning()?;
        for operation in &row.operations {
            let (method, pattern) =
                operation.split_once(' ').ok_or_else(|| format!("{operation:?} is not METHOD /path"))?;
            if !METHODS.contains(&method) {
                return Err(format!("{method:?} is no method that is passed on"));
            }
            let parts = tree::parts(pattern)?;
            if let Some(refuse) = self.refuse.iter().find(|r| under(pattern, &r.under)) {
                return Err(format!("{pattern} can never match: everything under {} is refused", refuse.under));
            }
            let reads = matches!(method, "GET" | "HEAD");
            let place = |name: &str| parts.iter().position(|p| matches!(p, Part::Any(n) if n == name));
            let (action, effect, named_at) = match &meaning {
                Meaning::Deny(_) => (None, Effect::Unsafe, None),
                Meaning::Ask { action, object, effect, .. } => {
                    if !reads && (*effect == Effect::Safe || *action == Action::View) {
                        return Err(format!("{operation} changes something: it is neither safe nor a view"));
                    }
                    let named_at = match object {
                        Object::Hypervisor => None,
                        Object::Machine => Some(place(&self.machine.name).ok_or("its path names no machine")?),
                        Object::Task => Some(place(&self.task.id).ok_or("its path names no task")?),
                    };
                    (Some(*action), *effect, named_at)
                }
            };
            let leaves = self.tree.place(&parts).get_or_insert_default();
            // The first leaf that fits counts: one without a condition hides all that follow it.
            let hidden = |l: &Leaf| l.method == method && l.when.iter().all(|(k, v)| row.when.get(k) == Some(v));
            if leaves.iter().any(hidden) {
                return Err(format!("{operation} can never match: an earlier row takes it"));
            }
            leaves.push(Leaf { method: method.to_owned(), when: row.when.clone(), row: number, named_at });
            self.entries.push(Entry { method: method.to_owned(), pattern: pattern.to_owned(), action, effect });
        }
        self.meanings.push(meaning);
        Ok(())
    }

    fn classify(&self, hypervisor: &HypervisorName, asked: &Asked<'_>) -> Result<Verdict, Cow<'static, str>> {
        let path = asked.path.as_str();
        if let Some(refuse) = self.refuse.iter().find(|r| under(path, &r.under)) {
            return Err(refuse.reason.clone().into());
        }
        let leaves = match self.tree.find(asked.path.segments().collect::<Vec<_>>().into_iter()) {
            Match::One(leaves) => leaves,
            Match::Crossed => return Err("The path could mean two things, so it is not passed on.".into()),
            Match::None => {
                return Err("The gateway does not know this operation of the API, so it is not passed on.".into());
            }
        };
        if !leaves.iter().any(|l| l.method == asked.method) {
            return Err("The gateway does not know this method for this path, so it is not passed on.".into());
        }
        let query = Query::read(asked.query)?;
        let fits =
            |l: &&Leaf| l.method == asked.method && l.when.iter().all(|(k, v)| query.value(k) == Some(v.as_str()));
        let leaf = leaves.iter().find(fits).ok_or("The gateway does not know this variant of the operation.")?;
        let (action, object, effect, keys, answer, upgrade) = match self.meanings.get(leaf.row) {
            Some(Meaning::Ask { action, object, effect, query, answer, upgrade }) => {
                (*action, *object, *effect, query, *answer, *upgrade)
            }
            Some(Meaning::Deny(reason)) => return Err(reason.clone().into()),
            None => return Err("The table of this API is broken.".into()),
        };
        if let Some(key) = query.keys().find(|k| !self.everywhere.iter().chain(keys).any(|known| known == k)) {
            let key: String = key.chars().take(64).collect();
            return Err(format!("The gateway does not know the query key {key:?} here, so it is not passed on.").into());
        }
        match (upgrade, asked.upgrade) {
            (UpgradeRule::Never, Upgrade::None) | (UpgradeRule::Always, Upgrade::WebSocket) => {}
            (UpgradeRule::Never, Upgrade::WebSocket) => return Err("This operation has no stream.".into()),
            (UpgradeRule::Always, Upgrade::None) => {
                return Err("This operation is a stream: ask for a WebSocket.".into());
            }
        }
        let named = leaf.named_at.and_then(|at| asked.path.segments().nth(at));
        let resource = match object {
            Object::Hypervisor => Resource::Hypervisor(hypervisor.clone()),
            Object::Machine => Resource::Machine(MachineRef {
                hypervisor: hypervisor.clone(),
                machine: self.machine(named.unwrap_or_default(), &query)?,
            }),
            Object::Task => {
                let id = named.filter(|id| is_task(id)).ok_or("That is no id of a task.")?.to_owned();
                let secret = query.value(&self.task.secret).filter(|s| !s.is_empty()).map(str::to_owned);
                if upgrade == UpgradeRule::Always && secret.is_none() {
                    return Err("A stream of a task needs its secret.".into());
                }
                let task = Task { hypervisor: hypervisor.clone(), action, effect, id, secret };
                return Ok(Verdict::Task { task, answer });
            }
        };
        Ok(Verdict::Operation { operation: Operation { action, resource, effect }, answer })
    }

    /// The machine's id: `project:name`. Neither part may hold a `:`, or two pairs could make one id.
    fn machine(&self, name: &str, query: &Query) -> Result<MachineId, Cow<'static, str>> {
        let within = query.value(&self.machine.within).filter(|w| !w.is_empty()).unwrap_or(&self.machine.default);
        if within.contains(':') || name.contains(':') || within.is_empty() || name.is_empty() {
            return Err("That is no name of a machine.".into());
        }
        format!("{within}:{name}").parse().map_err(|_| "That is no name of a machine.".into())
    }
}

/// Whether a path is another one or lies below it.
fn under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_task(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests;
