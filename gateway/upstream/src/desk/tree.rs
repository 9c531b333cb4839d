// SPDX-License-Identifier: Apache-2.0
//! What is known of a hypervisor's objects: which machine a reference belongs to, in which folders and pools it is, and
//! what of all that somebody sees who sees some machines.

use portcullis_domain::{HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState};
use portcullis_policy::classify::soap::{Element, Reference, Way};
use std::collections::{HashMap, HashSet};

/// How far up a path is followed.
const MAX_DEPTH: usize = 32;
/// The most snapshots of a machine.
const MAX_SNAPSHOTS: usize = 1_000;

/// The type of machines.
pub(crate) const MACHINE: &str = "VirtualMachine";
const SNAPSHOT: &str = "VirtualMachineSnapshot";
const DATACENTER: &str = "Datacenter";

/// What is read of each type. What is below one of these is sent with it.
pub(crate) const PROPERTIES: [(&str, &[&str]); 6] = [
    (
        MACHINE,
        &[
            "name",
            "parent",
            "parentVApp",
            "resourcePool",
            "runtime.powerState",
            "runtime.host",
            "config.template",
            "snapshot",
            "datastore",
            "network",
            "customValue",
        ],
    ),
    ("Folder", &["name", "parent"]),
    (DATACENTER, &["name", "parent", "vmFolder", "hostFolder", "datastoreFolder", "networkFolder"]),
    ("ComputeResource", &["name", "parent"]),
    ("ResourcePool", &["name", "parent", "owner"]),
    ("HostSystem", &["name", "parent"]),
];

/// One object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Object {
    of: String,
    name: String,
    /// What it stands in.
    parent: Option<Reference>,
    /// What else it refers to: pool, host, datastores, networks, by the property.
    refers: HashMap<String, Vec<Reference>>,
    state: String,
    is_template: bool,
    snapshots: Vec<String>,
    /// Custom attributes, by the number of each.
    attributes: HashMap<String, String>,
}

/// What of a vCenter is a pool.
pub(crate) use crate::config::PoolsOf;

/// The objects, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    objects: HashMap<String, Object>,
    /// The machine of each snapshot.
    snapshots: HashMap<String, String>,
    /// The number of the attribute that holds tags.
    pub(crate) tags: Option<String>,
}

impl Tree {
    /// Takes one object's update: what is new, or that it is gone.
    pub(crate) fn apply(&mut self, update: &Element) {
        let Some(reference) = update.child("obj").and_then(Element::as_reference) else { return };
        let id = reference.id;
        if update.child("kind").is_some_and(|k| k.text == "leave") {
            self.objects.remove(&id);
            self.snapshots.retain(|_, machine| *machine != id);
            return;
        }
        let object = self.objects.entry(id.clone()).or_default();
        object.of = reference.of;
        let mut has_snapshots = false;
        for change in update.all("changeSet") {
            let Some(name) = change.child("name") else { continue };
            object.set(&name.text, change.child("val"));
            has_snapshots |= name.text == "snapshot";
        }
        if has_snapshots {
            let all = object.snapshots.clone();
            self.snapshots.retain(|_, machine| *machine != id);
            self.snapshots.extend(all.into_iter().map(|s| (s, id.clone())));
        }
    }

    /// What an id is.
    pub(crate) fn find(&self, id: &str) -> Option<Way> {
        if let Some(machine) = self.snapshots.get(id) {
            return Some(Way { of: SNAPSHOT.to_owned(), machine: machine.parse().ok() });
        }
        let object = self.objects.get(id)?;
        let machine = if object.of == MACHINE { Some(id.parse().ok()?) } else { None };
        Some(Way { of: object.of.clone(), machine })
    }

    /// Everything that some machines stand in, run on or consist of.
    pub(crate) fn places(&self, machines: &[&MachineId]) -> HashSet<String> {
        let mut seen = HashSet::new();
        let ids: HashSet<&str> = machines.iter().map(|m| m.as_str()).collect();
        for id in &ids {
            let Some(machine) = self.objects.get(*id) else { continue };
            let all = machine.parent.iter().chain(machine.refers.values().flatten());
            for reference in all {
                self.climb(&reference.id, &mut seen);
            }
        }
        // Clients ask a datacenter for its four folders at once, whatever they look for.
        let centers = seen.iter().filter_map(|id| self.objects.get(id)).filter(|o| o.of == DATACENTER);
        let folders: Vec<String> = centers.flat_map(|o| o.refers.values().flatten()).map(|r| r.id.clone()).collect();
        seen.extend(folders);
        let of_seen = self.snapshots.iter().filter(|(_, machine)| ids.contains(machine.as_str()));
        seen.extend(of_seen.map(|(snapshot, _)| snapshot.clone()));
        seen
    }

    fn climb(&self, from: &str, seen: &mut HashSet<String>) {
        let mut next = Some(from.to_owned());
        for _ in 0..MAX_DEPTH {
            let Some(id) = next else { return };
            let object = self.objects.get(&id);
            if !seen.insert(id) {
                return;
            }
            next = object.and_then(|o| o.parent.as_ref()).map(|p| p.id.clone());
        }
    }

    /// The machines, and what people should know of those that are left out.
    pub(crate) fn machines(&self, hypervisor: &HypervisorName, pools: PoolsOf) -> (Vec<Machine>, Vec<String>) {
        let (mut machines, mut notes) = (Vec::new(), Vec::new());
        for (id, object) in self.objects.iter().filter(|(_, o)| o.of == MACHINE) {
            let Ok(machine) = id.parse() else {
                notes.push("a machine was left out: its id is none".to_owned());
                continue;
            };
            let host = object.one("runtime.host").and_then(|h| self.objects.get(&h.id));
            let tags = self.tags.as_ref().and_then(|key| object.attributes.get(key));
            let pool = match pools {
                PoolsOf::Folders => self.path(object.parent.as_ref(), "Folder"),
                PoolsOf::ResourcePools => self.path(object.one("resourcePool"), "ResourcePool"),
            };
            machines.push(Machine {
                at: MachineRef { hypervisor: hypervisor.clone(), machine },
                name: object.name.clone(),
                kind: if object.is_template { MachineKind::Template } else { MachineKind::Guest },
                state: match object.state.as_str() {
                    "poweredOn" => PowerState::Running,
                    "poweredOff" => PowerState::Off,
                    "suspended" => PowerState::Paused,
                    _ => PowerState::Unknown,
                },
                pool,
                tags: tags.iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).collect(),
                node: host.map(|h| h.name.clone()),
                console: if object.is_template {
                    portcullis_domain::ConsoleKind::None
                } else {
                    portcullis_domain::ConsoleKind::Vnc
                },
            });
        }
        (machines, notes)
    }

    /// The names from the top down to a folder or pool. A slash inside of a name is written `%2f` by the hypervisor. What
    /// stands straight in the root that every datacenter and cluster has is in no pool.
    fn path(&self, from: Option<&Reference>, of: &str) -> Option<String> {
        let mut names: Vec<&str> = Vec::new();
        let mut next = from.and_then(|f| self.objects.get(&f.id));
        let first = next?;
        let is_root = |o: &Object| {
            let above = o.parent.as_ref().and_then(|p| self.objects.get(&p.id));
            o.of == of && above.is_none_or(|a| a.of != of)
        };
        if first.of != of || is_root(first) {
            return None;
        }
        for _ in 0..MAX_DEPTH {
            let Some(object) = next else { break };
            let above = object.parent.as_ref().and_then(|p| self.objects.get(&p.id));
            // Roots have names that say nothing, and so have a datacenter's own folders and the one of everything.
            let is_own_folder = object.of == "Folder" && above.is_some_and(|a| a.of == "Datacenter");
            if !is_root(object) && !is_own_folder && object.parent.is_some() {
                names.push(&object.name);
            }
            next = above;
        }
        names.reverse();
        Some(names.join("/"))
    }
}

impl Object {
    fn one(&self, property: &str) -> Option<&Reference> {
        self.refers.get(property).and_then(|all| all.first())
    }

    fn set(&mut self, property: &str, value: Option<&Element>) {
        let text = || value.map(|v| v.text.clone()).unwrap_or_default();
        match property {
            "name" => self.name = text(),
            "parent" => self.parent = value.and_then(Element::as_reference),
            "runtime.powerState" => self.state = text(),
            "config.template" => self.is_template = text() == "true",
            "snapshot" => {
                self.snapshots.clear();
                if let Some(value) = value {
                    snapshots(value, &mut self.snapshots);
                }
            }
            "customValue" => {
                let all = value.iter().flat_map(|v| v.children.iter());
                let of = |v: &Element| Some((v.child("key")?.text.clone(), v.child("value")?.text.clone()));
                self.attributes = all.filter_map(of).collect();
            }
            other => {
                let mut found = Vec::new();
                if let Some(value) = value {
                    value.references(&mut found);
                }
                self.refers.insert(other.to_owned(), found);
            }
        }
    }
}

/// The snapshots of a tree of them.
fn snapshots(tree: &Element, found: &mut Vec<String>) {
    let mut references = Vec::new();
    tree.references(&mut references);
    found.extend(references.into_iter().filter(|r| r.of == SNAPSHOT).map(|r| r.id).take(MAX_SNAPSHOTS));
    found.sort_unstable();
    found.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(of: &str, id: &str, properties: Vec<(&str, Element)>) -> Element {
        let change = |(name, val): (&str, Element)| {
            Element::of_children("changeSet", vec![Element::text("name", name), Element::text("op", "assign"), val])
        };
        let mut parts = vec![Element::text("kind", "enter"), Element::reference("obj", of, id)];
        parts.extend(properties.into_iter().map(change));
        Element::of_children("objectSet", parts)
    }

    fn entity(of: &str, id: &str, name: &str, parent: Option<(&str, &str)>) -> Element {
        let mut properties = vec![("name", Element::text("val", name))];
        properties.extend(parent.map(|(of, id)| ("parent", Element::reference("val", of, id))));
        update(of, id, properties)
    }

    fn lab() -> Tree {
        let mut tree = Tree { tags: Some("7".to_owned()), ..Tree::default() };
        for entity in [
            entity("Folder", "group-d1", "Datacenters", None),
            entity("Folder", "group-d2", "north", Some(("Folder", "group-d1"))),
            entity("Datacenter", "datacenter-3", "DC0", Some(("Folder", "group-d2"))),
            entity("Folder", "group-v4", "vm", Some(("Datacenter", "datacenter-3"))),
            entity("Folder", "group-v5", "blue", Some(("Folder", "group-v4"))),
            entity("Folder", "group-v6", "red", Some(("Folder", "group-v4"))),
            entity("Folder", "group-h7", "host", Some(("Datacenter", "datacenter-3"))),
            entity("ClusterComputeResource", "domain-c8", "C0", Some(("Folder", "group-h7"))),
            entity("ResourcePool", "resgroup-9", "Resources", Some(("ClusterComputeResource", "domain-c8"))),
            entity("ResourcePool", "resgroup-10", "gold", Some(("ResourcePool", "resgroup-9"))),
            entity("HostSystem", "host-11", "esx1", Some(("ClusterComputeResource", "domain-c8"))),
            entity("HostSystem", "host-12", "esx2", Some(("ClusterComputeResource", "domain-c8"))),
        ] {
            tree.apply(&entity);
        }
        let machine = |id: &str, name: &str, folder: &str, pool: &str| {
            let snapshot = Element::of_children(
                "val",
                vec![
                    Element::reference("currentSnapshot", SNAPSHOT, &format!("snapshot-{id}")),
                    Element::of_children(
                        "rootSnapshotList",
                        vec![
                            Element::reference("snapshot", SNAPSHOT, &format!("snapshot-{id}")),
                            Element::reference("vm", MACHINE, id),
                        ],
                    ),
                ],
            );
            let tag = Element::of_children(
                "CustomFieldValue",
                vec![Element::text("key", "7"), Element::text("value", "a, b")],
            );
            update(
                MACHINE,
                id,
                vec![
                    ("name", Element::text("val", name)),
                    ("parent", Element::reference("val", "Folder", folder)),
                    ("resourcePool", Element::reference("val", "ResourcePool", pool)),
                    ("runtime.host", Element::reference("val", "HostSystem", "host-11")),
                    ("runtime.powerState", Element::text("val", "poweredOn")),
                    ("config.template", Element::text("val", "false")),
                    ("snapshot", snapshot),
                    ("customValue", Element::of_children("val", vec![tag])),
                ],
            )
        };
        tree.apply(&machine("vm-20", "web", "group-v5", "resgroup-10"));
        tree.apply(&machine("vm-21", "payroll", "group-v6", "resgroup-9"));
        tree.apply(&machine("vm-22", "loose", "group-v4", "resgroup-9"));
        tree
    }

    fn pools(pools: PoolsOf) -> Vec<(String, Option<String>)> {
        let (mut machines, _) = lab().machines(&"vc".parse().unwrap(), pools);
        machines.sort_by(|a, b| a.at.cmp(&b.at));
        machines.into_iter().map(|m| (m.name, m.pool)).collect()
    }

    #[test]
    fn a_pool_is_the_whole_path_of_a_folder_or_of_a_resource_pool() {
        let text = |t: &str| Some(t.to_owned());
        let wanted =
            [("web".into(), text("north/DC0/blue")), ("payroll".into(), text("north/DC0/red")), ("loose".into(), None)];
        assert_eq!(pools(PoolsOf::Folders), wanted);
        let wanted = [("web".into(), text("north/DC0/C0/gold")), ("payroll".into(), None), ("loose".into(), None)];
        assert_eq!(pools(PoolsOf::ResourcePools), wanted);
    }

    #[test]
    fn a_machine_makes_its_own_places_visible_and_no_others() {
        let tree = lab();
        let web: MachineId = "vm-20".parse().unwrap();
        let mut places: Vec<String> = tree.places(&[&web]).into_iter().collect();
        places.sort_unstable();
        let wanted = [
            "datacenter-3",
            "domain-c8",
            "group-d1",
            "group-d2",
            "group-h7",
            "group-v4",
            "group-v5",
            "host-11",
            "resgroup-10",
            "resgroup-9",
            "snapshot-vm-20",
        ];
        assert_eq!(places, wanted);
        assert!(tree.places(&[]).is_empty());
        // A datacenter has four folders, and shows all of them.
        let mut tree = tree;
        let folders = ["vmFolder", "hostFolder", "datastoreFolder", "networkFolder"].map(|name| {
            let id = if name == "vmFolder" { "group-v4".to_owned() } else { format!("group-{name}") };
            (name, Element::reference("val", "Folder", &id))
        });
        tree.apply(&update("Datacenter", "datacenter-3", folders.into()));
        let seen = tree.places(&[&web]);
        assert!(seen.contains("group-networkFolder") && seen.contains("group-datastoreFolder"), "{seen:?}");
        assert_eq!(seen.len(), wanted.len() + 3);
    }

    #[test]
    fn references_are_known_by_what_they_are_and_forgotten_with_it() {
        let mut tree = lab();
        let way = |of: &str, machine: Option<&str>| {
            Some(Way { of: of.to_owned(), machine: machine.map(|m| m.parse().unwrap()) })
        };
        assert_eq!(tree.find("vm-20"), way(MACHINE, Some("vm-20")));
        assert_eq!(tree.find("snapshot-vm-20"), way(SNAPSHOT, Some("vm-20")));
        assert_eq!(tree.find("group-v5"), way("Folder", None));
        assert_eq!(tree.find("vm-99"), None);
        let gone = vec![Element::text("kind", "leave"), Element::reference("obj", MACHINE, "vm-20")];
        tree.apply(&Element::of_children("objectSet", gone));
        assert_eq!((tree.find("vm-20"), tree.find("snapshot-vm-20")), (None, None));
        let (machines, _) = tree.machines(&"vc".parse().unwrap(), PoolsOf::Folders);
        assert_eq!(machines.len(), 2);
        assert_eq!(machines[0].tags, ["a", "b"]);
        assert_eq!(machines[0].node.as_deref(), Some("esx1"));
    }
}
