// SPDX-License-Identifier: Apache-2.0
//! The table of one hypervisor API: read strictly, then asked for each request.
//!
//! A row says which operations it speaks of, and for all of them the action, the object and where it is named, the
//! effect, which keys the query may have, and what must be done to the answer. A table that could classify a change as
//! a read, or that has a row which can never match, is refused as a whole.

use super::{
    Answer, Asked, Body, Content, Form, Json, MAX_FORM, MAX_JSON, Upgrade, Verdict,
    params::{Found, Keys, Place, Sets},
    query::Query,
    tree::{self, Match, Part, Tree},
};
use crate::{Error, Kind};
use file::{Bodies, BodyRule, File, MachineNaming, Object, Refuse, Row, TaskNaming, UpgradeRule};
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use row::is_reading;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

/// An API that has a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKind {
    /// LXD 5.0.
    Lxd,
    /// Incus.
    Incus,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// Firecracker.
    Firecracker,
    /// Proxmox VE 8 and 9.
    Proxmox,
    /// OpenStack: Nova, behind a Keystone that the gateway plays.
    OpenStack,
    /// oVirt and RHV, by their API 4.
    Ovirt,
    /// XCP-ng and XenServer: its calls have a table of methods, and of addresses it has none.
    Xapi,
    /// vSphere 6.5 to 9: what of it is no SOAP.
    Vsphere,
    /// KubeVirt 1.x, of a Kubernetes cluster's API.
    Kubevirt,
}

const LXD: &str = include_str!("../../../../policies/classify/lxd.toml");
const INCUS: &str = include_str!("../../../../policies/classify/incus.toml");
const PROXMOX: &str = include_str!("../../../../policies/classify/proxmox.toml");
const CLOUD_HYPERVISOR: &str = include_str!("../../../../policies/classify/cloud-hypervisor.toml");
const FIRECRACKER: &str = include_str!("../../../../policies/classify/firecracker.toml");
const OPENSTACK: &str = include_str!("../../../../policies/classify/openstack.toml");
const OVIRT: &str = include_str!("../../../../policies/classify/ovirt.toml");
const VSPHERE: &str = include_str!("../../../../policies/classify/vsphere-rest.toml");

const KUBEVIRT: &str = include_str!("../../../../policies/classify/kubevirt.toml");

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// What a row says, once checked.
#[derive(Debug)]
enum Meaning {
    Deny(String),
    Ask(Ask),
}

/// What a row asks.
#[derive(Debug)]
struct Ask {
    action: Action,
    object: Object,
    effect: Effect,
    /// Asked of the machine of the path, too.
    machine: Option<Action>,
    also: Vec<Action>,
    keys: Keys,
    body: BodyRule,
    answer: Answer,
    upgrade: UpgradeRule,
}

/// One operation that a table knows, for tests and reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The method.
    pub method: String,
    /// The pattern of the path.
    pub pattern: String,
    /// What the query has to say for it.
    pub when: BTreeMap<String, String>,
    /// The one key of the body that chooses it, where one does.
    pub only: Option<String>,
    /// What it asks; none when it is never passed on.
    pub action: Option<Action>,
    /// Whether it can change something.
    pub effect: Effect,
}

#[derive(Debug)]
struct Leaf {
    method: String,
    when: BTreeMap<String, String>,
    only: Option<String>,
    says: BTreeMap<String, String>,
    /// Which row it came from.
    row: usize,
    /// The place of the parameter that names the machine or the task.
    named_at: Option<usize>,
    /// The place of the one that says where the machine's name counts.
    inside_at: Option<usize>,
    /// The name has [`tree::ID`] before it.
    is_marked: bool,
}

#[derive(Debug)]
struct Inner {
    base: Vec<String>,
    bodies: Bodies,
    patches: bool,
    wrapped: Option<String>,
    /// Some of its rows read bodies of nested JSON.
    reads_nested: bool,
    answer: Answer,
    machine: MachineNaming,
    task: TaskNaming,
    everywhere: Vec<String>,
    repeated: Vec<String>,
    /// Keys by which the query chooses a row: one that a row does not say chooses another.
    choosing: BTreeSet<String>,
    refuse: Vec<Refuse>,
    sets: Sets,
    meanings: Vec<Meaning>,
    tree: Tree<Vec<Leaf>>,
    entries: Vec<Entry>,
}

/// The table of one API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table(Arc<Inner>);

static BUILTIN_LXD: LazyLock<Table> = LazyLock::new(|| builtin(LXD));
/// What Incus has beside what it has in common with LXD.
static BUILTIN_INCUS: LazyLock<Table> = LazyLock::new(|| builtin(&[LXD, INCUS].concat()));
static BUILTIN_CLOUD_HYPERVISOR: LazyLock<Table> = LazyLock::new(|| builtin(CLOUD_HYPERVISOR));
static BUILTIN_FIRECRACKER: LazyLock<Table> = LazyLock::new(|| builtin(FIRECRACKER));
static BUILTIN_PROXMOX: LazyLock<Table> = LazyLock::new(|| builtin(PROXMOX));
static BUILTIN_OPENSTACK: LazyLock<Table> = LazyLock::new(|| builtin(OPENSTACK));
static BUILTIN_OVIRT: LazyLock<Table> = LazyLock::new(|| builtin(OVIRT));
static BUILTIN_VSPHERE: LazyLock<Table> = LazyLock::new(|| builtin(VSPHERE));
static BUILTIN_KUBEVIRT: LazyLock<Table> = LazyLock::new(|| builtin(KUBEVIRT));

fn builtin(text: &str) -> Table {
    Table::read(text).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of an API is wrong: every request is denied");
        empty()
    })
}

/// A table that denies everything.
fn empty() -> Table {
    let machine = MachineNaming::default();
    Table(Arc::new(Inner {
        base: Vec::new(),
        bodies: Bodies::default(),
        patches: false,
        wrapped: None,
        reads_nested: false,
        answer: Answer::StripSecrets,
        machine,
        task: TaskNaming { id: String::new(), marks: String::new(), secret: None, inside: None },
        everywhere: Vec::new(),
        repeated: Vec::new(),
        choosing: BTreeSet::new(),
        refuse: Vec::new(),
        sets: Sets::default(),
        meanings: Vec::new(),
        tree: Tree::default(),
        entries: Vec::new(),
    }))
}

impl Table {
    /// The table that comes with the gateway.
    pub fn builtin(kind: ApiKind) -> Self {
        match kind {
            ApiKind::Lxd => BUILTIN_LXD.clone(),
            ApiKind::Incus => BUILTIN_INCUS.clone(),
            ApiKind::CloudHypervisor => BUILTIN_CLOUD_HYPERVISOR.clone(),
            ApiKind::Firecracker => BUILTIN_FIRECRACKER.clone(),
            ApiKind::Proxmox => BUILTIN_PROXMOX.clone(),
            ApiKind::OpenStack => BUILTIN_OPENSTACK.clone(),
            ApiKind::Ovirt => BUILTIN_OVIRT.clone(),
            ApiKind::Xapi => empty(),
            ApiKind::Vsphere => BUILTIN_VSPHERE.clone(),
            ApiKind::Kubevirt => BUILTIN_KUBEVIRT.clone(),
        }
    }

    /// Reads a table. Refuses the whole of it when any row is wrong.
    pub fn read(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|e| Error::Table(e.to_string()))?;
        build(file).map(|inner| Self(Arc::new(inner))).map_err(Error::Table)
    }

    /// Reads a body as the table wants it, by its media type; the error is for the person.
    pub fn read_body(&self, media_type: Option<&str>, body: &[u8]) -> Result<Content, &'static str> {
        if self.0.bodies == Bodies::Tree {
            // A form is what somebody says who signs in; no row reads one.
            if media_type.is_some_and(Form::is_said) {
                Form::read(media_type, body).map(Content::Params)
            } else {
                Json::read_tree(media_type, body).map(Content::Json)
            }
        } else if self.0.patches {
            Json::read_patched(media_type, body).map(Content::Json)
        } else if self.0.reads_nested {
            // Where a body is one value in a wrapper, nothing to say is written as `null` (govmomi).
            let is_nothing = self.0.wrapped.is_some() && body.trim_ascii() == b"null";
            let json = Json::read(media_type, if is_nothing { b"" } else { body });
            json.map(|json| Content::Json(self.0.wrapped.iter().fold(json, |json, key| json.unwrapped(key))))
        } else {
            Form::read(media_type, body).map(Content::Params)
        }
    }

    /// The largest body that it reads, in bytes.
    pub fn max_body(&self) -> usize {
        if self.0.reads_nested { MAX_JSON } else { MAX_FORM }
    }

    /// Whether a request is told by its body, too. Then a read has none.
    pub fn reads_bodies(&self) -> bool {
        self.0.reads_nested || self.0.bodies != Bodies::Opaque
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
    let File { api, base, bodies, patches, wrapped, answer, machine, task, query, refuse, params, rule: rows } = file;
    let sets = Sets::read(params).map_err(|e| format!("{api}: {e}"))?;
    let mut inner = Inner {
        base,
        bodies,
        patches,
        wrapped,
        reads_nested: false,
        answer,
        machine,
        task,
        everywhere: query.everywhere,
        repeated: query.repeated,
        choosing: BTreeSet::new(),
        refuse,
        sets,
        meanings: Vec::new(),
        tree: Tree::default(),
        entries: Vec::new(),
    };
    for path in inner.refuse.iter().map(|r| &r.under).chain(&inner.base) {
        tree::parts(path).map_err(|e| format!("{api}: {e}"))?;
    }
    if let Some(inside) = &inner.task.inside {
        let otherwise = inside.otherwise.parse::<Action>().map_err(|e| format!("{api}: {e}"))?;
        if !Kind::Hypervisor.answers(otherwise) || otherwise == Action::View || inside.machine >= inside.parts {
            return Err(format!("{api}: a task that is about no machine asks more than view of the hypervisor"));
        }
    }
    for (number, row) in rows.into_iter().enumerate() {
        let name = row.operations.first().cloned().unwrap_or_default();
        inner.add(number, &row).map_err(|e| format!("{api}: row {} ({name}): {e}", number + 1))?;
    }
    Ok(inner)
}

impl Inner {
    fn add(&mut self, number: usize, row: &Row) -> Result<(), String> {
        if row.operations.is_empty() {
            return Err("it names no operation".to_owned());
        }
        let chosen = row.only.is_some() || !row.says.is_empty();
        let is_nested = row.body == BodyRule::Json || row.body == BodyRule::Usual && self.bodies.are_nested();
        if chosen && !is_nested {
            return Err("a body that is not read as nested JSON chooses nothing".to_owned());
        }
        if row.body == BodyRule::Json && self.bodies == Bodies::Params {
            return Err("the bodies of a table are read in one way".to_owned());
        }
        self.reads_nested |= is_nested;
        let meaning = row.meaning(self)?;
        for operation in &row.operations {
            let (method, target) =
                operation.split_once(' ').ok_or_else(|| format!("{operation:?} is not METHOD /path"))?;
            let (pattern, when) = row.chosen(target)?;
            if pattern != target {
                self.choosing.extend(when.keys().cloned());
            }
            if !METHODS.contains(&method) {
                return Err(format!("{method:?} is no method that is passed on"));
            }
            let parts = tree::parts(pattern)?;
            if let Some(refuse) = self.refuse.iter().find(|r| under(pattern, &r.under)) {
                return Err(format!("{pattern} can never match: everything under {} is refused", refuse.under));
            }
            let reads = matches!(method, "GET" | "HEAD") || row.reads;
            if row.reads && !when.values().any(|word| is_reading(word)) {
                return Err(format!("{operation} does not say that it only reads"));
            }
            let place = |name: &str| parts.iter().position(|p| p.name() == Some(name));
            let (action, effect, named_at) = match &meaning {
                Meaning::Deny(_) => (None, Effect::Unsafe, None),
                Meaning::Ask(Ask { action, object, effect, machine, .. }) => {
                    if !reads && (*effect == Effect::Safe || *action == Action::View) {
                        return Err(format!("{operation} changes something: it is neither safe nor a view"));
                    }
                    let named_at = match object {
                        Object::Hypervisor | Object::Machine if self.machine.always.is_some() => None,
                        Object::Hypervisor if machine.is_some() => {
                            Some(place(&self.machine.name).ok_or("its path names no machine")?)
                        }
                        Object::Hypervisor | Object::Machines | Object::Visible => None,
                        Object::Machine => Some(place(&self.machine.name).ok_or("its path names no machine")?),
                        Object::Task => Some(place(&self.task.id).ok_or("its path names no task")?),
                    };
                    (Some(*action), *effect, named_at)
                }
            };
            let inside_at = self.machine.inside.as_deref().and_then(place);
            let leaves = self.tree.place(&parts).get_or_insert_default();
            // The first leaf that fits counts: one without a condition hides all that follow it, but for those that a key
            // chooses which it does not say.
            let chosen = |l: &Leaf| when.keys().any(|key| self.choosing.contains(key) && !l.when.contains_key(key));
            let hidden = |l: &Leaf| {
                l.method == method
                    && !chosen(l)
                    && l.when.iter().all(|(k, v)| when.get(k) == Some(v))
                    && l.says.iter().all(|(k, v)| row.says.get(k) == Some(v))
                    && (l.only.is_none() || l.only == row.only)
            };
            if leaves.iter().any(hidden) {
                return Err(format!("{operation} can never match: an earlier row takes it"));
            }
            let (only, says) = (row.only.clone(), row.says.clone());
            let (method, row) = (method.to_owned(), number);
            let is_marked = named_at.is_some_and(|at| matches!(parts.get(at), Some(Part::Id(_))));
            let leaf = Leaf {
                method: method.clone(),
                when: when.clone(),
                only: only.clone(),
                says,
                row,
                named_at,
                inside_at,
                is_marked,
            };
            leaves.push(leaf);
            self.entries.push(Entry { method, pattern: pattern.to_owned(), when, only, action, effect });
        }
        self.meanings.push(meaning);
        Ok(())
    }

    fn classify(&self, hypervisor: &HypervisorName, asked: &Asked<'_>) -> Result<Verdict, Cow<'static, str>> {
        let refused =
            |path: &str| self.refuse.iter().find(|r| under(path, &r.under)).map(|r| Cow::from(r.reason.clone()));
        let (path, skip) =
            self.below(asked.path.as_str()).map_err(|why| refused(asked.path.as_str()).unwrap_or(why.into()))?;
        if let Some(reason) = refused(path) {
            return Err(reason);
        }
        let leaves = match self.tree.find(asked.path.segments().skip(skip).collect::<Vec<_>>().into_iter()) {
            Match::One(leaves) => leaves,
            Match::Crossed => return Err("The path could mean two things, so it is not passed on.".into()),
            Match::None => {
                return Err("The gateway does not know this operation of the API, so it is not passed on.".into());
            }
        };
        if !leaves.iter().any(|l| l.method == asked.method) {
            return Err("The gateway does not know this method for this path, so it is not passed on.".into());
        }
        let query = Query::read_with(asked.query, &self.repeated)?;
        let fits = |l: &&Leaf| {
            let chooses = |key: &str| self.choosing.contains(key) && !l.when.contains_key(key);
            l.fits(asked, &query) && !query.pairs().any(|(key, _)| chooses(key))
        };
        let leaf = leaves.iter().find(fits).ok_or("The gateway does not know this variant of the operation.")?;
        if leaf.is_chosen_by_body() && matches!(asked.body, Body::Unread) {
            return Ok(Verdict::Unread);
        }
        let ask = match self.meanings.get(leaf.row) {
            Some(Meaning::Ask(ask)) => ask,
            Some(Meaning::Deny(reason)) => return Err(reason.clone().into()),
            None => return Err("The table of this API is broken.".into()),
        };
        match (ask.upgrade, asked.upgrade) {
            (UpgradeRule::Never, Upgrade::None) | (UpgradeRule::Always, Upgrade::WebSocket) => {}
            (UpgradeRule::Never, Upgrade::WebSocket) => return Err("This operation has no stream.".into()),
            (UpgradeRule::Always, Upgrade::None) => {
                return Err("This operation is a stream: ask for a WebSocket.".into());
            }
        }
        let named = leaf.named_at.and_then(|at| asked.path.segments().nth(skip + at));
        let named = named.map(|n| n.strip_prefix(tree::ID).filter(|_| leaf.is_marked).unwrap_or(n));
        let within = match &self.machine.within {
            Some(key) => query.value(key),
            None => leaf.inside_at.and_then(|at| asked.path.segments().nth(skip + at)),
        };
        let own = match (ask.object, ask.machine) {
            (Object::Machine, _) | (_, Some(_)) => Some(self.machine.id(named.unwrap_or_default(), within)?),
            _ => None,
        };
        let machine = |text: &str| self.machine.id(text, within).ok();
        let place = Place { hypervisor, own: own.as_ref(), action: ask.action, machine: &machine };
        let Some(found) = self.params(ask, place, &query, asked)? else { return Ok(Verdict::Unread) };
        let Found { mut also, machines } = found;
        let of = |machine: MachineId| Resource::Machine(MachineRef { hypervisor: hypervisor.clone(), machine });
        let (action, effect, answer) = (ask.action, ask.effect, ask.answer);
        let resource = match (ask.object, own) {
            (Object::Visible, _) => return Ok(Verdict::Visible { hypervisor: hypervisor.clone(), answer }),
            (Object::Task, _) => return self.task(hypervisor, ask, named.unwrap_or_default(), &query),
            (Object::Machine, Some(own)) => of(own),
            (Object::Machines, _) => {
                let mut machines = machines;
                machines.sort_unstable();
                machines.dedup();
                match <[MachineId; 1]>::try_from(machines) {
                    Ok([one]) => of(one),
                    Err(none) if none.is_empty() => return Err("That names no machine, or all of them.".into()),
                    Err(several) => Resource::Machines(hypervisor.clone(), several),
                }
            }
            (Object::Hypervisor, own) => {
                if let (Some(own), Some(action)) = (own, ask.machine) {
                    also.push(Operation { action, resource: of(own), effect });
                }
                Resource::Hypervisor(hypervisor.clone())
            }
            (Object::Machine, None) => return Err("That is no name of a machine.".into()),
        };
        let operation = Operation { action, resource, effect };
        also.retain(|o| *o != operation);
        Ok(Verdict::Operation { operation, also, answer })
    }

    /// The path below the API's base, and how many parts the base has.
    fn below<'p>(&self, path: &'p str) -> Result<(&'p str, usize), &'static str> {
        if self.base.is_empty() {
            return Ok((path, 0));
        }
        let base = self.base.iter().find(|b| under(path, b));
        let base = base.ok_or("The gateway does not know this part of the API, so it is not passed on.")?;
        let rest = path.strip_prefix(base.as_str()).unwrap_or_default();
        Ok((rest, base.split('/').count() - 1))
    }
}

/// Whether a path is another one or lies below it.
fn under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

mod ask;
mod file;
mod row;
#[cfg(test)]
mod tests;
