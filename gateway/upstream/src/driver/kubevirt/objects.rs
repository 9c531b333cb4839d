// SPDX-License-Identifier: Apache-2.0
//! The cluster's answers, cut down to what somebody may see: lists, tables, single objects and what clients ask to find
//! out what there is. Secrets in objects are cut for everybody.
//!
//! What an object is about is told by the address that it was asked at, never by what it calls itself. Whether a
//! VirtualMachine may be seen is decided on its own labels as they came, so that one that was just made or changed is
//! neither shown too early nor lost.

use super::rows::{self, Vm, Vmi};
use crate::error::Fault;
use portcullis_domain::{HypervisorName, Machine, MachineId};
use portcullis_policy::classify::{ApiKind, Table};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

/// Keys whose text is a secret wherever they stand: what a machine is set up with holds passwords and keys.
const SECRETS: [&str; 7] =
    ["userData", "userDataBase64", "networkData", "networkDataBase64", "password", "token", "launchSecret"];
/// Keys of lists of texts that are: what is shown where a disk is fetched, and changes as text, with all that these hold.
const SECRET_LISTS: [&str; 2] = ["extraHeaders", "patches"];
/// Annotations that are one.
const SECRET_ANNOTATIONS: [&str; 1] = ["kubevirt.io/ignitiondata"];
/// The annotation in which `kubectl apply` keeps the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who looks: what is decided for them, at this instant.
#[derive(Clone, Copy)]
pub struct Gaze<'a> {
    /// Whether they may see the whole cluster.
    pub whole: bool,
    /// Whether they may see a machine as it is told of.
    pub machine: &'a dyn Fn(&Machine) -> bool,
    /// Whether they may see a machine that the inventory knows by this id.
    pub known: &'a dyn Fn(&MachineId) -> bool,
}

/// By what an answer may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// What it is about was decided on before it was asked for. Lists are looked at all the same.
    Decided,
    /// What each object tells of itself.
    Objects,
}

/// What came of an answer.
#[derive(Debug, PartialEq)]
pub enum Cut {
    /// What of it may be shown.
    Shown(Value),
    /// It is an object that they may not see.
    Hidden,
}

/// What the objects at an address are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// VirtualMachines.
    Vms,
    /// Instances of machines.
    Instances,
    /// Something that names the machine that it belongs to: by a reference, or by its bare name.
    Named(&'static str),
    /// The cluster, or many machines at once.
    Cluster,
}

/// Resources whose objects name a machine, and where.
const NAMED: [(&str, &str, &str); 6] = [
    ("kubevirt.io", "virtualmachineinstancemigrations", "/spec/vmiName"),
    ("snapshot.kubevirt.io", "virtualmachinesnapshots", "/spec/source"),
    ("snapshot.kubevirt.io", "virtualmachinerestores", "/spec/target"),
    ("snapshot.kubevirt.io", "virtualmachinesnapshotcontents", "/spec/source/virtualMachine/metadata"),
    ("export.kubevirt.io", "virtualmachineexports", "/spec/source"),
    ("backup.kubevirt.io", "virtualmachinebackups", "/spec/source"),
];

impl About {
    /// By the path that was asked for.
    pub(super) fn at(path: &str) -> Self {
        let mut parts = path.trim_start_matches('/').split('/');
        let (Some("apis"), Some(group), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            return Self::Cluster;
        };
        let resource = match parts.next() {
            Some("namespaces") => parts.nth(1),
            other => other,
        };
        match (group, resource) {
            ("kubevirt.io", Some("virtualmachines")) => Self::Vms,
            ("kubevirt.io", Some("virtualmachineinstances")) => Self::Instances,
            (group, Some(resource)) => {
                let named = NAMED.iter().find(|(g, r, _)| *g == group && *r == resource);
                named.map_or(Self::Cluster, |(_, _, at)| Self::Named(at))
            }
            _ => Self::Cluster,
        }
    }
}

impl About {
    /// What the objects are called that are machines.
    pub(super) const fn kind(self) -> Option<&'static str> {
        match self {
            Self::Vms => Some("VirtualMachine"),
            Self::Instances => Some("VirtualMachineInstance"),
            Self::Named(_) | Self::Cluster => None,
        }
    }

    /// The machine that an object is about.
    pub(super) fn machine_of(self, object: &Value) -> Option<MachineId> {
        let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = at("/metadata/namespace")?;
        match self {
            Self::Vms | Self::Instances => rows::id(namespace, at("/metadata/name")?),
            Self::Named(place) => match object.pointer(place)? {
                Value::String(name) => rows::id(namespace, name),
                Value::Object(reference) => {
                    let kind = reference.get("kind").and_then(Value::as_str);
                    let is_machine = kind == Some("VirtualMachine") || kind.is_none() && place.ends_with("/metadata");
                    rows::id(namespace, reference.get("name").and_then(Value::as_str).filter(|_| is_machine)?)
                }
                _ => None,
            },
            Self::Cluster => None,
        }
    }
}

/// How a cluster's objects are cut.
#[derive(Debug, Clone)]
pub struct Cutter {
    hypervisor: HypervisorName,
    prefix: String,
}

impl Cutter {
    /// Stands where a secret was cut. A body that holds it is refused: it would write it over the secret.
    pub const CUT: &str = "[not shown by the gateway]";

    /// For a hypervisor whose labels of this prefix are tags.
    pub const fn new(hypervisor: HypervisorName, prefix: String) -> Self {
        Self { hypervisor, prefix }
    }

    pub(super) fn machine(&self, vm: Option<&Vm>, vmi: Option<&Vmi>) -> Option<Machine> {
        rows::machine(&self.hypervisor, &self.prefix, vm, vmi)
    }

    /// The tags that these labels are, sorted.
    pub fn tags<'l>(&self, labels: impl Iterator<Item = (&'l str, &'l str)>) -> Vec<String> {
        rows::tags(&self.prefix, labels)
    }

    /// Whether a label of this key is a tag.
    pub fn is_tag(&self, key: &str) -> bool {
        key.len() > self.prefix.len() && key.starts_with(&self.prefix)
    }

    /// Whether a text that a client sends stands for a secret that was cut.
    pub fn is_cut(text: &str) -> bool {
        text.contains(Self::CUT)
    }

    /// What of an answer may be shown.
    pub fn answer(&self, path: &str, answer: &[u8], basis: Basis, sight: &Gaze<'_>) -> Result<Cut, Fault> {
        let wrong = || Fault::Protocol("an answer of another shape".to_owned());
        let mut value: Value = serde_json::from_slice(answer).map_err(|_| wrong())?;
        clean(&mut value);
        let Value::Object(object) = value else { return Err(wrong()) };
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = About::at(path);
        let shown = match kind.as_str() {
            "Status" => object,
            "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList" | "APIGroupDiscoveryList" => {
                return Ok(discovered(object));
            }
            "Table" => self.table(about, object, basis, sight).ok_or_else(wrong)?,
            // What a guest says of itself, which was decided on with its machine.
            _ if basis == Basis::Decided && path.starts_with("/apis/subresources.kubevirt.io/") => object,
            _ if object.contains_key("items") => self.list(about, object, sight).ok_or_else(wrong)?,
            _ if path.starts_with("/openapi/") => described(path, object).ok_or_else(wrong)?,
            _ if path == "/version" => object,
            _ if basis == Basis::Decided || self.sees(about, &Value::Object(object.clone()), sight) => object,
            _ => return Ok(Cut::Hidden),
        };
        Ok(Cut::Shown(Value::Object(shown)))
    }

    /// The place of a list to go on from, where it has more.
    pub fn next(list: &mut Value) -> Option<String> {
        let meta = list.get_mut("metadata")?.as_object_mut()?;
        meta.remove("remainingItemCount");
        match meta.remove("continue")? {
            Value::String(next) if !next.is_empty() => Some(next),
            _ => None,
        }
    }

    fn list(&self, about: About, mut list: Map<String, Value>, sight: &Gaze<'_>) -> Option<Map<String, Value>> {
        let items = match list.remove("items")? {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            _ => return None,
        };
        let items: Vec<Value> = items.into_iter().filter(|item| self.sees(about, item, sight)).collect();
        list.insert("items".to_owned(), Value::Array(items));
        Some(list)
    }

    fn table(
        &self,
        about: About,
        mut table: Map<String, Value>,
        basis: Basis,
        sight: &Gaze<'_>,
    ) -> Option<Map<String, Value>> {
        let rows = match table.remove("rows") {
            Some(Value::Array(rows)) => rows,
            Some(Value::Null) | None => Vec::new(),
            Some(_) => return None,
        };
        let kept = rows.into_iter().filter_map(|mut row| {
            let object = row.get_mut("object")?;
            if basis == Basis::Objects && !self.sees(about, object, sight) {
                return None;
            }
            reduce(object);
            Some(row)
        });
        let kept: Vec<Value> = kept.collect();
        table.insert("rows".to_owned(), Value::Array(kept));
        Some(table)
    }

    /// Whether an object may be seen.
    pub(super) fn sees(&self, about: About, object: &Value, sight: &Gaze<'_>) -> bool {
        if sight.whole {
            return true;
        }
        match about {
            About::Vms => self.vm(object).is_some_and(|m| (sight.machine)(&m)),
            About::Instances | About::Named(_) => {
                about.machine_of(object).is_some_and(|machine| (sight.known)(&machine))
            }
            About::Cluster => false,
        }
    }

    /// A VirtualMachine as the inventory would know it.
    fn vm(&self, object: &Value) -> Option<Machine> {
        self.machine(Some(&Vm::deserialize(object).ok()?), None)
    }
}

/// Of an object in a table's row its metadata alone: that is what clients expect there.
pub(super) fn reduce(object: &mut Value) {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    *object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
}

/// Cuts secrets out, wherever they stand. The depth is bounded by the reader's own limit of 128.
pub(super) fn clean(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(clean),
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if SECRETS.contains(&key.as_str()) && !text.is_empty() => {
                        Cutter::CUT.clone_into(text);
                    }
                    Value::String(url) if key == "url" && has_login(url) => Cutter::CUT.clone_into(url),
                    Value::Array(all) if SECRET_LISTS.contains(&key.as_str()) => all.iter_mut().for_each(cut),
                    Value::Array(all) if key == "httpHeaders" => {
                        all.iter_mut().filter_map(|one| one.get_mut("value")).for_each(cut);
                    }
                    Value::Object(annotations) if key == "annotations" => annotate(annotations),
                    other => clean(other),
                }
            }
        }
        _ => {}
    }
}

fn cut(value: &mut Value) {
    *value = Cutter::CUT.into();
}

/// Whether an address says as whom it is asked.
fn has_login(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

fn annotate(annotations: &mut Map<String, Value>) {
    for (key, value) in annotations.iter_mut() {
        let Value::String(text) = value else {
            clean(value);
            continue;
        };
        if SECRET_ANNOTATIONS.contains(&key.as_str()) {
            Cutter::CUT.clone_into(text);
        } else if key == LAST_APPLIED {
            // The whole object once more.
            match serde_json::from_str(text) {
                Ok(mut object) => {
                    let is_as_read = is_written_so(text, &object);
                    let before = object.clone();
                    clean(&mut object);
                    // As it was, to the letter: `kubectl apply` changes what differs from what it would write itself.
                    if object != before || !is_as_read {
                        *text = object.to_string();
                    }
                }
                Err(_) => Cutter::CUT.clone_into(text),
            }
        }
    }
}

/// Whether a text is an object as kubectl writes it, on one line and with Go's escapes: nothing else stands in it, such as a
/// key that comes twice.
fn is_written_so(text: &str, object: &Value) -> bool {
    let plain = ["\\u003c", "\\u003e", "\\u0026"].iter().zip(["<", ">", "&"]);
    let text = text.strip_suffix('\n').unwrap_or(text).to_owned();
    // Texts are compared: a `Value` beside a text would count as the text that it holds.
    let written = object.to_string();
    plain.fold(text, |text, (escape, letter)| text.replace(escape, letter)) == written
}

/// The groups and versions that the table knows anything of.
static PASSED: LazyLock<BTreeSet<(String, String)>> = LazyLock::new(|| {
    let of = |pattern: &str| {
        let mut parts = pattern.strip_prefix("/apis/")?.split('/');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    Table::builtin(ApiKind::Kubevirt).entries().iter().filter_map(|e| of(&e.pattern)).collect()
});

fn passes(group: &str, version: &str) -> bool {
    PASSED.iter().any(|(g, v)| g == group && v == version)
}

/// `group/version`
fn passes_both(both: &str) -> bool {
    both.split_once('/').is_some_and(|(group, version)| passes(group, version))
}

/// What there is in the cluster, as far as it is passed on.
fn discovered(mut object: Map<String, Value>) -> Cut {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Where the cluster has its servers.
    object.remove("serverAddressByClientCIDRs");
    match object.get("kind").and_then(Value::as_str) {
        // Of the core there is nothing.
        Some("APIVersions") => _ = object.insert("versions".to_owned(), json!([])),
        Some("APIResourceList") if !passes_both(&text(&Value::Object(object.clone()), "groupVersion")) => {
            return Cut::Hidden;
        }
        Some("APIResourceList") => {}
        Some("APIGroup") => {
            let mut group = Value::Object(object);
            return if keep_group(&mut group) { Cut::Shown(group) } else { Cut::Hidden };
        }
        Some("APIGroupList") => {
            if let Some(Value::Array(groups)) = object.get_mut("groups") {
                groups.retain_mut(keep_group);
            }
        }
        _ => {
            if let Some(Value::Array(items)) = object.get_mut("items") {
                items.retain_mut(|item| {
                    let group = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
                    let Some(Value::Array(versions)) = item.get_mut("versions") else { return false };
                    versions.retain(|v| passes(&group, &text(v, "version")));
                    !versions.is_empty()
                });
            }
        }
    }
    Cut::Shown(Value::Object(object))
}

/// Leaves the versions of a group that are passed on; whether there are any.
fn keep_group(group: &mut Value) -> bool {
    let both = |v: &Value| v.get("groupVersion").and_then(Value::as_str).is_some_and(passes_both);
    let Some(all) = group.as_object_mut() else { return false };
    all.remove("serverAddressByClientCIDRs");
    let Some(Value::Array(versions)) = all.get_mut("versions") else { return false };
    versions.retain(both);
    let first = versions.first().cloned();
    let preferred = all.get("preferredVersion").is_some_and(both);
    match (first, preferred) {
        (None, _) => return false,
        (Some(first), false) => _ = all.insert("preferredVersion".to_owned(), first),
        (Some(_), true) => {}
    }
    true
}

/// The description of the API, as far as it is passed on.
fn described(path: &str, mut object: Map<String, Value>) -> Option<Map<String, Value>> {
    let keeps = |at: &str| {
        let mut parts = at.trim_start_matches('/').split('/');
        parts.next() == Some("apis")
            && matches!((parts.next(), parts.next()), (Some(group), Some(version)) if passes(group, version))
    };
    if let Some(Value::Object(paths)) = object.get_mut("paths") {
        paths.retain(|at, _| keeps(at));
    }
    if path == "/openapi/v2" {
        let used = used(object.get("paths")?, object.get("definitions")?);
        object.get_mut("definitions")?.as_object_mut()?.retain(|name, _| used.contains(name));
    }
    Some(object)
}

/// The names of all definitions that a part of a description refers to, directly or by others.
fn used(paths: &Value, definitions: &Value) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut look = vec![paths];
    while let Some(value) = look.pop() {
        match value {
            Value::Array(all) => look.extend(all),
            Value::Object(map) => {
                let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/definitions/"));
                if let Some(name) = name
                    && found.insert(name.to_owned())
                {
                    look.extend(definitions.get(name));
                }
                look.extend(map.values());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
