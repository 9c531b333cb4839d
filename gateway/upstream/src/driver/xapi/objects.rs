// SPDX-License-Identifier: Apache-2.0
//! What a pool's events tell: its machines, and which machines each of its objects belongs to.

use super::text;
use crate::fleet::MAX_MACHINES;
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState};
use portcullis_policy::classify::{Objects, Owner, reference, rpc::Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Classes whose objects belong to one VM, which their record names, and how the API writes them.
const PARTS: [(&str, &str); 6] =
    [("vbd", "VBD"), ("vif", "VIF"), ("console", "console"), ("vgpu", "VGPU"), ("vusb", "VUSB"), ("vtpm", "VTPM")];
/// The most objects that are kept.
const MAX_OBJECTS: usize = MAX_MACHINES * 20;

/// What is kept of a VM's record.
#[derive(PartialEq)]
struct Vm {
    uuid: String,
    name: String,
    power: String,
    role: Role,
    host: Option<Uuid>,
    tags: Vec<String>,
    metrics: Option<Uuid>,
    guest_metrics: Option<Uuid>,
    suspend: Option<Uuid>,
}

#[derive(PartialEq)]
enum Role {
    Machine,
    Template,
    /// Comes with the hypervisor, or is it.
    Hypervisor,
    SnapshotOf(Option<Uuid>),
}

/// Everything that was told so far.
pub(super) struct State {
    hypervisor: HypervisorName,
    vms: BTreeMap<Uuid, Vm>,
    /// Parts of a VM: class and VM.
    parts: HashMap<Uuid, (&'static str, Uuid)>,
    /// Disks that a part connects.
    disks: HashMap<Uuid, Uuid>,
    /// Disks, and their own uuid.
    vdis: HashMap<Uuid, Option<Uuid>>,
    groups: HashMap<Uuid, (&'static str, Vec<Uuid>)>,
    hosts: HashMap<Uuid, String>,
    pool: Option<String>,
}

/// Whom an object belongs to.
#[derive(Debug, Clone)]
struct Entry {
    class: &'static str,
    /// Empty: the hypervisor.
    machines: Box<[MachineId]>,
}

/// What belongs to what.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: HashMap<Uuid, Entry>,
    /// Machines that run on a host.
    hosts: HashMap<Uuid, Vec<MachineId>>,
}

impl Objects for Index {
    fn owner(&self, class: &str, object: Uuid) -> Option<Owner<'_>> {
        let entry = self.entries.get(&object).filter(|e| e.class == class)?;
        Some(if entry.machines.is_empty() { Owner::Hypervisor } else { Owner::Machines(&entry.machines) })
    }
}

impl Index {
    /// The class of an object.
    pub(super) fn class_of(&self, object: Uuid) -> Option<&'static str> {
        self.entries.get(&object).map(|e| e.class)
    }

    /// Whether objects of a class, in small letters, are learned by events.
    #[expect(clippy::unused_self, reason = "reads as the index's answer at the call")]
    pub(super) fn is_followed(&self, class: &str) -> bool {
        super::CLASSES.contains(&class)
    }

    /// The machines that run on a host.
    pub(super) fn on(&self, host: Uuid) -> &[MachineId] {
        self.hosts.get(&host).map(Vec::as_slice).unwrap_or_default()
    }
}

fn referred(record: &Value<'_>, name: &str) -> Option<Uuid> {
    text(record, name).and_then(reference)
}

fn is_true(record: &Value<'_>, name: &str) -> bool {
    matches!(record.member(name), Some(Value::Bool(true)))
}

fn all_referred(record: &Value<'_>, name: &str) -> Vec<Uuid> {
    let Some(Value::List(all)) = record.member(name) else { return Vec::new() };
    all.iter().filter_map(Value::text).filter_map(reference).collect()
}

impl State {
    pub(super) fn new(hypervisor: HypervisorName) -> Self {
        Self {
            hypervisor,
            vms: BTreeMap::new(),
            parts: HashMap::new(),
            disks: HashMap::new(),
            vdis: HashMap::new(),
            groups: HashMap::new(),
            hosts: HashMap::new(),
            pool: None,
        }
    }

    /// Takes one event; says whether it changed what is known.
    pub(super) fn learn(&mut self, event: &Value<'_>) -> bool {
        let (Some(class), Some(at)) = (text(event, "class"), referred(event, "ref")) else { return false };
        let class = class.to_ascii_lowercase();
        let record = match (text(event, "operation"), event.member("snapshot")) {
            (Some("add" | "mod"), Some(record @ Value::Map(_))) => Some(record),
            (Some("del"), _) => None,
            _ => return false,
        };
        let part = PARTS.iter().find(|(lower, _)| *lower == class).map(|(_, class)| *class);
        if record.is_some() && self.vms.len() + self.parts.len() + self.vdis.len() > MAX_OBJECTS {
            return false;
        }
        match (class.as_str(), part, record) {
            ("vm", _, Some(record)) => match Vm::read(record) {
                Some(vm) if self.vms.get(&at) == Some(&vm) => false,
                Some(vm) => {
                    self.vms.insert(at, vm);
                    true
                }
                None => self.vms.remove(&at).is_some(),
            },
            ("vm", _, None) => self.vms.remove(&at).is_some(),
            (_, Some(class), Some(record)) => {
                let Some(vm) = referred(record, "VM") else { return self.parts.remove(&at).is_some() };
                let before = self.disks.get(&at).copied();
                match referred(record, "VDI").filter(|_| class == "VBD") {
                    Some(disk) => drop(self.disks.insert(at, disk)),
                    None => drop(self.disks.remove(&at)),
                }
                let is_same = self.parts.insert(at, (class, vm)) == Some((class, vm));
                !is_same || before != self.disks.get(&at).copied()
            }
            (_, Some(_), None) => {
                self.disks.remove(&at);
                self.parts.remove(&at).is_some()
            }
            ("vdi", _, Some(record)) => {
                let uuid = text(record, "uuid").and_then(|u| Uuid::try_parse(u).ok());
                self.vdis.insert(at, uuid) != Some(uuid)
            }
            ("vdi", _, None) => self.vdis.remove(&at).is_some(),
            ("vm_appliance" | "vmss", _, record) => {
                let class = if class == "vmss" { "VMSS" } else { "VM_appliance" };
                match record {
                    Some(record) => {
                        let group = (class, all_referred(record, "VMs"));
                        self.groups.insert(at, group.clone()) != Some(group)
                    }
                    None => self.groups.remove(&at).is_some(),
                }
            }
            ("host", _, Some(record)) => {
                let name = text(record, "name_label").unwrap_or_default().to_owned();
                self.hosts.insert(at, name.clone()) != Some(name)
            }
            ("host", _, None) => self.hosts.remove(&at).is_some(),
            ("pool", _, Some(record)) => {
                let name = text(record, "name_label").filter(|n| !n.is_empty()).map(str::to_owned);
                std::mem::replace(&mut self.pool, name.clone()) != name
            }
            _ => false,
        }
    }

    /// The machines, what belongs to what, and what people should know.
    pub(super) fn told(&self) -> (Vec<Machine>, Index, Vec<String>) {
        let (mut machines, mut notes) = (Vec::new(), Vec::new());
        let mut index = Index::default();
        let mut ids: HashMap<Uuid, MachineId> = HashMap::new();
        for (at, vm) in &self.vms {
            let kind = match vm.role {
                Role::Machine => MachineKind::Guest,
                Role::Template => MachineKind::Template,
                Role::Hypervisor | Role::SnapshotOf(_) => continue,
            };
            match self.machine(vm, kind) {
                Some(machine) => {
                    ids.insert(*at, machine.at.machine.clone());
                    if let Some(host) = vm.host {
                        index.hosts.entry(host).or_default().push(machine.at.machine.clone());
                    }
                    machines.push(machine);
                }
                None => notes.push(format!("machine {} was left out: no id", super::clean_text(&vm.uuid))),
            }
        }
        // Whose a VM is; none where that is not known.
        let owner = |at: &Uuid| -> Option<Option<&MachineId>> {
            match &self.vms.get(at)?.role {
                Role::Machine | Role::Template => ids.get(at).map(Some),
                Role::Hypervisor => Some(None),
                // What is left of a machine that is gone is the hypervisor's.
                Role::SnapshotOf(of) => Some(of.and_then(|of| ids.get(&of))),
            }
        };
        let mut add = |at: Uuid, class: &'static str, owners: Vec<&MachineId>| {
            let mut machines: Vec<MachineId> = owners.into_iter().cloned().collect();
            machines.sort_unstable();
            machines.dedup();
            index.entries.insert(at, Entry { class, machines: machines.into() });
        };
        let mut of_disks: HashMap<Uuid, Vec<&MachineId>> = HashMap::new();
        // Whoever makes a disk may choose its uuid: it never stands in for a reference.
        let mut by_uuid: Vec<(Uuid, &'static str, Vec<&MachineId>)> = Vec::new();
        for (at, vm) in &self.vms {
            let Some(whose) = owner(at) else { continue };
            add(*at, "VM", whose.into_iter().collect());
            let own = [(vm.metrics, "VM_metrics"), (vm.guest_metrics, "VM_guest_metrics")];
            for (part, class) in own {
                if let Some(part) = part {
                    add(part, class, whose.into_iter().collect());
                }
            }
            if let Some(disk) = vm.suspend {
                of_disks.entry(disk).or_default().extend(whose);
            }
            // Requests beside the calls name it by its own uuid.
            if let Ok(uuid) = Uuid::try_parse(&vm.uuid) {
                by_uuid.push((uuid, "VM", whose.into_iter().collect()));
            }
        }
        for (at, (class, vm)) in &self.parts {
            let Some(whose) = owner(vm) else { continue };
            add(*at, class, whose.into_iter().collect());
            if let Some(disk) = self.disks.get(at) {
                of_disks.entry(*disk).or_default().extend(whose);
            }
        }
        for (at, uuid) in &self.vdis {
            let owners = of_disks.get(at).cloned().unwrap_or_default();
            if let Some(uuid) = uuid {
                by_uuid.push((*uuid, "VDI", owners.clone()));
            }
            add(*at, "VDI", owners);
        }
        for (at, (class, vms)) in &self.groups {
            // One that is not known makes all of it unknown.
            if let Some(owners) = vms.iter().map(owner).collect::<Option<Vec<_>>>() {
                add(*at, class, owners.into_iter().flatten().collect());
            }
        }
        for (at, class, owners) in by_uuid {
            let machines: BTreeSet<MachineId> = owners.into_iter().cloned().collect();
            let entry = || Entry { class, machines: machines.into_iter().collect() };
            index.entries.entry(at).or_insert_with(entry);
        }
        (machines, index, notes)
    }

    fn machine(&self, vm: &Vm, kind: MachineKind) -> Option<Machine> {
        let machine = Uuid::try_parse(&vm.uuid).ok()?.to_string().parse().ok()?;
        Some(Machine {
            at: MachineRef { hypervisor: self.hypervisor.clone(), machine },
            name: vm.name.clone(),
            kind,
            state: match vm.power.as_str() {
                "Running" => PowerState::Running,
                "Halted" => PowerState::Off,
                "Paused" | "Suspended" => PowerState::Paused,
                _ => PowerState::Unknown,
            },
            pool: self.pool.clone(),
            tags: vm.tags.clone(),
            node: vm.host.and_then(|h| self.hosts.get(&h)).filter(|n| !n.is_empty()).cloned(),
            console: if kind == MachineKind::Template { ConsoleKind::None } else { ConsoleKind::Vnc },
        })
    }
}

impl Vm {
    fn read(record: &Value<'_>) -> Option<Self> {
        let tags = match record.member("tags") {
            Some(Value::List(all)) => all.iter().filter_map(Value::text).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let role = if is_true(record, "is_control_domain") || is_true(record, "is_default_template") {
            Role::Hypervisor
        } else if is_true(record, "is_a_snapshot") {
            Role::SnapshotOf(referred(record, "snapshot_of"))
        } else if is_true(record, "is_a_template") {
            Role::Template
        } else {
            Role::Machine
        };
        Some(Self {
            uuid: text(record, "uuid")?.to_owned(),
            name: text(record, "name_label").unwrap_or_default().to_owned(),
            power: text(record, "power_state").unwrap_or_default().to_owned(),
            role,
            host: referred(record, "resident_on"),
            tags,
            metrics: referred(record, "metrics"),
            guest_metrics: referred(record, "guest_metrics"),
            suspend: referred(record, "suspend_VDI"),
        })
    }
}
