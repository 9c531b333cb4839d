// SPDX-License-Identifier: Apache-2.0
//! Machines as the cluster's objects tell of them. A machine is a VirtualMachine, or an instance that no VirtualMachine
//! owns; the instance of a VirtualMachine has its name and says where it runs.

use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) metadata: PageMeta,
    pub(super) items: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
}

/// A VirtualMachine.
#[derive(Deserialize)]
pub(super) struct Vm {
    metadata: Meta,
    #[serde(default)]
    spec: VmSpec,
    #[serde(default)]
    status: VmStatus,
}

#[derive(Default, Deserialize)]
struct VmSpec {
    #[serde(default)]
    template: Template,
}

#[derive(Default, Deserialize)]
struct Template {
    #[serde(default)]
    spec: VmiSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VmStatus {
    #[serde(default)]
    printable_status: String,
}

/// A VirtualMachineInstance.
#[derive(Deserialize)]
pub(super) struct Vmi {
    metadata: Meta,
    #[serde(default)]
    spec: VmiSpec,
    #[serde(default)]
    pub(super) status: VmiStatus,
}

#[derive(Default, Deserialize)]
struct VmiSpec {
    #[serde(default)]
    domain: Domain,
}

#[derive(Default, Deserialize)]
struct Domain {
    #[serde(default)]
    devices: Devices,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Devices {
    autoattach_graphics_device: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VmiStatus {
    #[serde(default)]
    pub(super) phase: String,
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What of the inventory has to be kept of one object.
pub(super) trait Row: for<'de> Deserialize<'de> + Send {
    /// Its id, if it can be one.
    fn id(&self) -> Option<MachineId>;
}

impl Row for Vm {
    fn id(&self) -> Option<MachineId> {
        id(&self.metadata.namespace, &self.metadata.name)
    }
}

impl Row for Vmi {
    fn id(&self) -> Option<MachineId> {
        id(&self.metadata.namespace, &self.metadata.name)
    }
}

/// `namespace:name`. Both are DNS names there, which hold no `:`; anything else is no id, so that two pairs never make one.
pub(super) fn id(namespace: &str, name: &str) -> Option<MachineId> {
    (is_name(namespace) && is_name(name)).then(|| format!("{namespace}:{name}").parse().ok())?
}

/// A name as Kubernetes has them (RFC 1123): lower case letters, digits, `-` and `.`, the first and last no `-` or `.`.
pub(super) fn is_name(text: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inside = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    let bytes = text.as_bytes();
    inside && text.len() <= 253 && is_end(bytes.first()) && is_end(bytes.last())
}

impl Vmi {
    /// Whether a VirtualMachine owns it: then its labels are no tags.
    pub(super) fn is_owned(&self) -> bool {
        self.metadata.owner_references.iter().any(|o| o.kind == "VirtualMachine")
    }

    fn state(&self) -> PowerState {
        let is_paused = self.status.conditions.iter().any(|c| c.kind == "Paused" && c.status == "True");
        match self.status.phase.as_str() {
            "Running" if is_paused => PowerState::Paused,
            "Running" => PowerState::Running,
            "Succeeded" => PowerState::Off,
            "Failed" => PowerState::Crashed,
            // It is being placed, or is about to begin.
            _ => PowerState::Unknown,
        }
    }
}

/// A machine, of its VirtualMachine, its instance or both; none where it can have no id.
pub(super) fn machine(
    hypervisor: &HypervisorName,
    prefix: &str,
    vm: Option<&Vm>,
    vmi: Option<&Vmi>,
) -> Option<Machine> {
    let meta = vm.map(|v| &v.metadata).or_else(|| vmi.map(|v| &v.metadata))?;
    let state = match (vmi, vm) {
        (Some(vmi), _) => vmi.state(),
        (None, Some(vm)) => match vm.status.printable_status.as_str() {
            "CrashLoopBackOff" => PowerState::Crashed,
            "Unknown" => PowerState::Unknown,
            _ => PowerState::Off,
        },
        (None, None) => PowerState::Unknown,
    };
    let domain = match (vmi, vm) {
        (Some(vmi), _) => &vmi.spec.domain,
        (None, Some(vm)) => &vm.spec.template.spec.domain,
        (None, None) => return None,
    };
    let node = vmi.map(|v| v.status.node_name.clone()).filter(|n| !n.is_empty());
    Some(Machine {
        at: MachineRef { hypervisor: hypervisor.clone(), machine: id(&meta.namespace, &meta.name)? },
        name: meta.name.clone(),
        kind: MachineKind::Guest,
        state,
        pool: Some(meta.namespace.clone()),
        tags: tags(prefix, meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        node,
        console: match domain.devices.autoattach_graphics_device {
            Some(false) => ConsoleKind::Text,
            Some(true) | None => ConsoleKind::Vnc,
        },
    })
}

/// The tags that labels are, sorted, each once.
pub(super) fn tags<'l>(prefix: &str, labels: impl Iterator<Item = (&'l str, &'l str)>) -> Vec<String> {
    let of = |(key, value): (&str, &str)| {
        let name = key.strip_prefix(prefix).filter(|n| !n.is_empty())?;
        Some(if matches!(value, "" | "true") { name.to_owned() } else { format!("{name}={value}") })
    };
    let mut tags: Vec<String> = labels.filter_map(of).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_two_machines_have_one_id() {
        assert_eq!(id("blue", "web-1").unwrap().as_str(), "blue:web-1");
        for (namespace, name) in
            [("blue", "a:b"), ("a:b", "c"), ("", "c"), ("blue", ""), ("blue", "../x"), ("blue", "A"), ("blue", "-a")]
        {
            assert!(id(namespace, name).is_none(), "{namespace} {name}");
        }
        assert!(id(&"n".repeat(63), &"x".repeat(63)).is_some() && id("n", &"x".repeat(200)).is_none());
    }

    #[test]
    fn labels_with_the_prefix_are_tags() {
        let labels = [("tag.p/web", ""), ("tag.p/db", "true"), ("tag.p/env", "prod"), ("tag.p/", "x"), ("app", "web")];
        assert_eq!(tags("tag.p/", labels.into_iter()), ["db", "env=prod", "web"]);
        assert_eq!(tags("", [("app", "web"), ("x", "")].into_iter()), ["app=web", "x"]);
    }

    #[test]
    fn what_runs_is_told_by_the_instance() {
        let name: HypervisorName = "kv".parse().unwrap();
        let vm: Vm = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "blue", "labels": {"t/web": ""}},
            "status": {"printableStatus": "Stopped"},
        }))
        .unwrap();
        let of = |vmi: Option<&Vmi>| machine(&name, "t/", Some(&vm), vmi).unwrap();
        let off = of(None);
        assert_eq!((off.state, off.pool.as_deref(), off.node), (PowerState::Off, Some("blue"), None));
        for (phase, paused, state) in [
            ("Running", "False", PowerState::Running),
            ("Running", "True", PowerState::Paused),
            ("Scheduling", "False", PowerState::Unknown),
            ("Failed", "False", PowerState::Crashed),
            ("Succeeded", "True", PowerState::Off),
        ] {
            let vmi: Vmi = serde_json::from_value(json!({
                "metadata": {"name": "web-1", "namespace": "blue", "labels": {"t/other": ""}},
                "spec": {"domain": {"devices": {"autoattachGraphicsDevice": false}}},
                "status": {"phase": phase, "nodeName": "n1", "conditions": [{"type": "Paused", "status": paused}]},
            }))
            .unwrap();
            let found = of(Some(&vmi));
            assert_eq!((found.state, found.console), (state, ConsoleKind::Text), "{phase}");
            assert_eq!((found.tags, found.node.as_deref()), (vec!["web".to_owned()], Some("n1")));
        }
    }
}
