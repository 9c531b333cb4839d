// SPDX-License-Identifier: Apache-2.0
//! What of an answer goes out. Secrets never do. For somebody who sees some machines, an object's properties stay where the
//! object may be seen: all of a machine, the name and the place of what it stands in, nothing of everything else; and a
//! reference stays where it leads to something that may be seen.

use super::tree::MACHINE;
use crate::error::Fault;
use portcullis_policy::classify::soap::{Call, Element, Reference, Space};
use std::collections::HashSet;

/// What somebody sees of a hypervisor.
#[derive(Debug, Clone)]
pub enum Sight {
    /// All of it.
    Whole,
    /// Some machines, by their ids; the ids of what these stand in; and the tasks that they began.
    Part {
        /// Machines.
        machines: HashSet<String>,
        /// Folders, pools, hosts and the like, and snapshots of the machines.
        places: HashSet<String>,
        /// Tasks.
        tasks: HashSet<String>,
    },
}

impl Sight {
    /// Whether it has what a reference leads to.
    pub fn has(&self, reference: &Reference) -> bool {
        match self {
            Self::Whole => true,
            Self::Part { machines, places, tasks } => Part { machines, places, tasks }.sees(reference),
        }
    }
}

/// Types that are seen as places: only where a visible machine stands in, runs on, or has one.
const PLACES: [&str; 16] = [
    "Folder",
    "Datacenter",
    "ComputeResource",
    "ClusterComputeResource",
    "ResourcePool",
    "VirtualApp",
    "HostSystem",
    "Datastore",
    "StoragePod",
    "Network",
    "OpaqueNetwork",
    "DistributedVirtualPortgroup",
    "DistributedVirtualSwitch",
    "VmwareDistributedVirtualSwitch",
    "ManagedEntity",
    "VirtualMachineSnapshot",
];

/// What may be read of what is no machine, by whoever sees a part.
const READABLE: [(&str, &[&str]); 19] = [
    ("Folder", &["name", "parent", "childEntity", "childType"]),
    ("Datacenter", &["name", "parent", "vmFolder", "hostFolder", "datastoreFolder", "networkFolder"]),
    ("ComputeResource", &["name", "parent", "resourcePool", "host"]),
    ("ClusterComputeResource", &["name", "parent", "resourcePool", "host"]),
    ("ResourcePool", &["name", "parent", "owner", "vm", "resourcePool"]),
    ("VirtualApp", &["name", "parent", "owner", "vm", "resourcePool"]),
    ("HostSystem", &["name", "parent", "vm"]),
    ("Datastore", &["name"]),
    ("Network", &["name"]),
    ("OpaqueNetwork", &["name"]),
    ("DistributedVirtualPortgroup", &["name", "key"]),
    ("VirtualMachineSnapshot", &["vm", "config", "childSnapshot"]),
    ("ServiceInstance", &["content", "serverClock", "capability"]),
    ("ContainerView", &["view", "container", "type", "recursive"]),
    ("ListView", &["view"]),
    ("InventoryView", &["view"]),
    ("PropertyCollector", &["filter"]),
    ("PropertyFilter", &["spec", "partialUpdates"]),
    ("Task", &["info"]),
];

/// What of a machine says who may do what, or holds other things than itself.
const HIDDEN: [&str; 6] =
    ["permission", "effectiveRole", "declaredAlarmState", "triggeredAlarmState", "alarmActionsEnabled", "recentTask"];

/// Fields that hold secrets, wherever they stand.
const SECRETS: [&str; 20] = [
    "password",
    "passwd",
    "adminPassword",
    "domainAdminPassword",
    "newPassword",
    "ticket",
    "cloneTicket",
    "privateKey",
    "secret",
    "sharedSecret",
    "challengeResponse",
    "authToken",
    "sessionKey",
    "sessionId",
    "vncPassword",
    "encryptionKey",
    "chapSecret",
    "mutualChapSecret",
    "readOnlyCommunities",
    "licenseKey",
];

/// What an answer holds: one response, or one refusal.
pub(super) fn body(root: &Element) -> Option<&Element> {
    let is_envelope = |e: &Element, name: &str| e.space == Space::Envelope && e.name == name;
    let body = root.children.iter().find(|c| is_envelope(c, "Body")).filter(|_| is_envelope(root, "Envelope"))?;
    match body.children.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

/// The refusal's type: `NotAuthenticated`, `NoPermission`.
fn refusal(root: &Element) -> Option<(&str, &str)> {
    let fault = body(root).filter(|b| b.space == Space::Envelope && b.name == "Fault")?;
    let words = fault.child("faultstring").map_or("", |f| f.text.as_str());
    let detail = fault.child("detail").and_then(|d| d.children.first());
    let kind = detail.and_then(|d| d.kind().or(d.name.strip_suffix("Fault"))).unwrap_or_default();
    Some((kind, words))
}

/// Whether it is a refusal of a type.
pub(super) fn says(root: &Element, kind: &str) -> bool {
    refusal(root).is_some_and(|(found, _)| found == kind)
}

/// What an answer to the gateway itself returns.
pub(super) fn returned(root: &Element, is_success: bool) -> Result<Vec<Element>, Fault> {
    if says(root, super::UNKNOWN) {
        return Err(Fault::Unauthenticated);
    }
    if let Some((kind, words)) = refusal(root) {
        let said = if words.is_empty() { kind } else { words };
        return Err(Fault::Refused(crate::driver::clean_text(said)));
    }
    let wrong = || Fault::Protocol("an answer of another shape".to_owned());
    let response = body(root).filter(|b| is_success && b.name.ends_with("Response")).ok_or_else(wrong)?;
    Ok(response.all("returnval").cloned().collect())
}

/// Takes out of an answer what somebody may not see, and secrets.
pub(super) fn keep(root: &mut Element, call: &Call, sight: &Sight) -> Result<(), Fault> {
    if body(root).is_none() {
        return Err(Fault::Protocol("an answer of another shape".to_owned()));
    }
    // A header of SOAP's own is for this hop.
    root.children.retain(|c| c.name == "Body");
    strip(root);
    // One property that is asked for by its path; one that could be two is none.
    let property = call.argument("prop").map(|p| p.text.clone()).filter(|p| !is_secret(p));
    if call.method == "Fetch"
        && property.is_none()
        && let Some(answer) = root.children.first_mut().and_then(|b| b.children.first_mut())
        && answer.name != "Fault"
    {
        answer.children.clear();
    }
    let Sight::Part { machines, places, tasks } = sight else { return Ok(()) };
    let part = Part { machines, places, tasks };
    let Some(answer) = root.children.first_mut().and_then(|b| b.children.first_mut()) else { return Ok(()) };
    if answer.name == "Fault" {
        part.prune(answer);
    } else if call.method == "Fetch" {
        if property.is_some_and(|p| part.reads(&call.this, &p)) {
            part.prune_unless_own(&call.this, answer);
        } else {
            answer.children.clear();
        }
    } else {
        part.objects(answer);
    }
    Ok(())
}

/// Whether a line of settings, or a property that is asked for by its path, holds a secret by what it is called.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "password",
        "secret",
        "token",
        "remotedisplay.vnc.key",
        "userdata",
        "session.key",
        "sessionlist",
        "community",
        "chap",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Takes secrets out, at any depth.
fn strip(element: &mut Element) {
    let is_session = element.kind() == Some("UserSession") || element.name == "UserSession";
    let is_password = element.child("type").is_some_and(|t| t.text.to_ascii_lowercase().starts_with("password"));
    element.children.retain(|c| {
        let is_field = SECRETS.contains(&c.name.as_str()) && c.children.is_empty();
        let named = |name: &str| c.child(name).is_some_and(|n| is_secret(&n.text));
        let is_setting = c.child("value").is_some() && named("key");
        let is_property = c.child("val").is_some() && named("name");
        let of_session = is_session && matches!(c.name.as_str(), "key" | "ipAddress" | "userAgent");
        // What a machine is told when it starts, where its type says that it is a password.
        let of_password = is_password && matches!(c.name.as_str(), "value" | "defaultValue");
        !(is_field || is_setting || is_property || of_session || of_password)
    });
    element.children.iter_mut().for_each(strip);
}

struct Part<'a> {
    machines: &'a HashSet<String>,
    places: &'a HashSet<String>,
    tasks: &'a HashSet<String>,
}

impl Part<'_> {
    /// Whether a reference leads to something that may be seen. What is no object of the inventory says nothing.
    fn sees(&self, reference: &Reference) -> bool {
        match reference.of.as_str() {
            MACHINE => self.machines.contains(&reference.id),
            "Task" => self.tasks.contains(&reference.id),
            of if PLACES.contains(&of) => self.places.contains(&reference.id),
            "Alarm" | "ScheduledTask" | "Profile" | "HostProfile" | "ClusterProfile" => false,
            // An id that looks like one of another type is none of these.
            _ => !self.is_entity(&reference.id),
        }
    }

    /// Whether an id is one that vCenter gives to machines, under whatever type.
    fn is_entity(&self, id: &str) -> bool {
        id.strip_prefix("vm-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) && !self.machines.contains(id)
    }

    /// Whether a property of an object may be read.
    fn reads(&self, of: &Reference, property: &str) -> bool {
        if !self.sees(of) {
            return false;
        }
        let base = property.split(['.', '[']).next().unwrap_or_default();
        if of.of == MACHINE {
            return !HIDDEN.contains(&base);
        }
        let known = READABLE.iter().find(|(name, _)| *name == of.of);
        known.is_some_and(|(_, properties)| properties.contains(&base))
    }

    /// Takes out what may not be seen of an answer, which may hold objects with properties at any depth.
    fn objects(&self, element: &mut Element) {
        element.children.retain_mut(|child| {
            let of = child.child("obj").and_then(Element::as_reference);
            let holds_properties =
                ["propSet", "changeSet", "missingSet", "kind"].iter().any(|n| child.child(n).is_some());
            let is_object = matches!(child.name.as_str(), "objects" | "objectSet") || holds_properties;
            match of {
                Some(of) if is_object => self.object(&of, child),
                _ => {
                    let stays = child.as_reference().is_none_or(|r| self.sees(&r));
                    if stays {
                        self.objects(child);
                    }
                    // A filter of which nothing is left says nothing.
                    stays && !(child.name == "filterSet" && child.child("objectSet").is_none())
                }
            }
        });
    }

    /// One object with properties: whether it stays.
    fn object(&self, of: &Reference, element: &mut Element) -> bool {
        if !self.sees(of) {
            return false;
        }
        element.children.retain_mut(|child| match child.name.as_str() {
            "propSet" | "changeSet" => {
                let name = child.child("name").map(|n| n.text.clone()).unwrap_or_default();
                if !self.reads(of, &name) {
                    return false;
                }
                let was_value = child.child("val").is_some();
                self.prune_unless_own(of, child);
                // A value of which nothing is left is none; one that was cleared says so.
                !was_value || child.child("val").is_some()
            }
            "missingSet" => {
                let path = child.child("path").map(|n| n.text.clone()).unwrap_or_default();
                child.children.retain(|c| c.name == "path" || c.name == "fault");
                self.prune(child);
                self.reads(of, &path)
            }
            _ => true,
        });
        true
    }

    /// A task of one's own may say what came of it: what was made is not in the inventory yet.
    fn prune_unless_own(&self, of: &Reference, element: &mut Element) {
        if of.of != "Task" {
            self.prune(element);
        }
    }

    /// Takes out references to what may not be seen, at any depth.
    fn prune(&self, element: &mut Element) {
        element.children.retain_mut(|child| {
            let stays = child.as_reference().is_none_or(|r| self.sees(&r));
            if stays {
                self.prune(child);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
