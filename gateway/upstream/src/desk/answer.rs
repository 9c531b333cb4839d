// SPDX-License-Identifier: Apache-2.0
//! What of an answer goes out. Secrets never do. An object's properties stay where the object may be seen and the table of
//! the API says that whoever reads it is told; and a reference stays where it leads to something that may be seen.

use super::tree::MACHINE;
use crate::error::Fault;
use portcullis_domain::Action;
use portcullis_policy::classify::soap::{Call, ENTITIES, Element, Methods, Property, Reader, Reference, Space};
use std::collections::HashSet;

/// What somebody sees of a hypervisor.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The actions that they hold on the hypervisor.
    pub holds: Vec<Action>,
    /// Of its machines; none: every one, and with it everything else.
    pub part: Option<Part>,
}

/// Some of the machines of a hypervisor.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Machines, by their ids.
    pub machines: HashSet<String>,
    /// What these stand in: folders, pools, hosts and the like; and their snapshots.
    pub places: HashSet<String>,
    /// The tasks that they began.
    pub tasks: HashSet<String>,
}

const SNAPSHOT: &str = "VirtualMachineSnapshot";

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

/// The refusal's type: `NotAuthenticated`, `NoPermission`.
fn refusal(answer: &Element) -> Option<(&str, &str)> {
    let fault = is_refusal(answer).then_some(answer)?;
    let words = fault.child("faultstring").map_or("", |f| f.text.as_str());
    let detail = fault.child("detail").and_then(|d| d.children.first());
    let kind = detail.and_then(|d| d.kind().or(d.name.strip_suffix("Fault"))).unwrap_or_default();
    Some((kind, words))
}

fn is_refusal(answer: &Element) -> bool {
    answer.space == Space::Envelope && answer.name == "Fault"
}

/// Whether it is a refusal of a type.
pub(super) fn says(answer: &Element, kind: &str) -> bool {
    refusal(answer).is_some_and(|(found, _)| found == kind)
}

/// What an answer to the gateway itself returns.
pub(super) fn returned(answer: &Element, is_success: bool) -> Result<Vec<Element>, Fault> {
    if says(answer, super::UNKNOWN) {
        return Err(Fault::Unauthenticated);
    }
    if let Some((kind, words)) = refusal(answer) {
        let said = if words.is_empty() { kind } else { words };
        return Err(Fault::Refused(crate::driver::clean_text(said)));
    }
    if !is_success || !answer.name.ends_with("Response") {
        return Err(Fault::Protocol("an answer of another shape".to_owned()));
    }
    Ok(answer.all("returnval").cloned().collect())
}

/// Takes out of an answer what somebody may not see, and secrets.
pub(super) fn keep(answer: &mut Element, call: &Call, sight: &Sight) {
    strip(answer);
    let view = View { sight, table: Methods::builtin() };
    if is_refusal(answer) {
        view.unrefer(answer);
    } else if call.method == "Fetch" {
        // One property that is asked for by its path; one that could be two is none.
        let property = call.argument("prop").map(|p| p.text.clone()).filter(|p| !is_secret(p));
        match property.filter(|p| view.reads(&call.this, p)) {
            Some(property) => view.value(&call.this, &property, "returnval", answer),
            None => answer.children.clear(),
        }
    } else {
        view.objects(answer);
    }
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
        || is_untyped(&name)
}

/// A value of a vApp's property by its own path, in small letters: whether it is a password is not said beside it.
fn is_untyped(path: &str) -> bool {
    path.contains("vappconfig.property[") && [".value", ".defaultvalue"].iter().any(|end| path.ends_with(end))
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

impl Sight {
    /// Whether it has what a reference leads to.
    pub fn has(&self, reference: &Reference) -> bool {
        let Some(part) = &self.part else { return true };
        let sees_places = self.holds.contains(&Action::View);
        match reference.of.as_str() {
            MACHINE => part.machines.contains(&reference.id),
            SNAPSHOT => part.places.contains(&reference.id),
            "Task" => part.tasks.contains(&reference.id),
            of if ENTITIES.contains(&of) => sees_places || part.places.contains(&reference.id),
            "Alarm" | "ScheduledTask" | "Profile" | "HostProfile" | "ClusterProfile" => sees_places,
            // An id that looks like one of another type is none of these.
            _ => !is_of_machine(&reference.id) || part.machines.contains(&reference.id),
        }
    }

    /// Whether somebody is told of a property of an object that they see.
    fn is_told(&self, property: Property) -> bool {
        let holds = match property.reader {
            Reader::Anybody => true,
            Reader::Holder(action) => self.holds.contains(&action),
            Reader::Nobody => false,
        };
        holds && !(property.is_of_machines && self.part.is_some())
    }
}

/// Whether an id is one that vCenter gives to machines, under whatever type.
fn is_of_machine(id: &str) -> bool {
    id.strip_prefix("vm-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// An answer as somebody sees it.
struct View<'a> {
    sight: &'a Sight,
    table: Methods,
}

impl View<'_> {
    /// Whether a property of an object may be read. What nobody reviewed is told to nobody.
    fn reads(&self, of: &Reference, path: &str) -> bool {
        self.sight.has(of) && self.table.property(&of.of, path).is_some_and(|p| self.sight.is_told(p))
    }

    /// Takes out what may not be seen of an answer, which may hold objects with properties at any depth.
    fn objects(&self, element: &mut Element) {
        element.children.retain_mut(|child| {
            let holds_properties = ["propSet", "changeSet", "missingSet"].iter().any(|n| child.child(n).is_some());
            let is_update = child.child("obj").is_some() && child.child("kind").is_some();
            if holds_properties || is_update || matches!(child.name.as_str(), "objects" | "objectSet") {
                // Properties of nothing are nobody's.
                let of = child.child("obj").and_then(Element::as_reference);
                return of.is_some_and(|of| self.object(&of, child));
            }
            let stays = self.stays(child);
            if stays {
                self.objects(child);
            }
            // A filter of which nothing is left says nothing.
            stays && !(child.name == "filterSet" && child.child("objectSet").is_none())
        });
    }

    /// One object with properties: whether it stays.
    fn object(&self, of: &Reference, element: &mut Element) -> bool {
        if !self.sight.has(of) {
            return false;
        }
        element.children.retain_mut(|child| match child.name.as_str() {
            "propSet" | "changeSet" => {
                let name = child.child("name").map(|n| n.text.clone()).unwrap_or_default();
                if !self.reads(of, &name) {
                    return false;
                }
                let was_value = child.child("val").is_some();
                self.value(of, &name, "val", child);
                // A value of which nothing is left is none; one that was cleared says so.
                !was_value || child.child("val").is_some()
            }
            "missingSet" => {
                let path = child.child("path").map(|n| n.text.clone()).unwrap_or_default();
                child.children.retain(|c| c.name == "path" || c.name == "fault");
                self.unrefer(child);
                self.reads(of, &path)
            }
            _ => true,
        });
        true
    }

    /// The value of a property, in an element that holds it: without the parts that are told to others.
    fn value(&self, of: &Reference, path: &str, name: &str, holder: &mut Element) {
        let plain = path.split('[').next().unwrap_or_default();
        let is_hidden = |part: &str| {
            self.table.parts(&of.of, plain).any(|(known, property)| known == part && !self.sight.is_told(property))
        };
        for value in holder.children.iter_mut().filter(|c| c.name == name) {
            value.children.retain(|part| !is_hidden(&part.name));
        }
        // A task of one's own may say what came of it: what was made is not in the inventory yet.
        if of.of == "Task" {
            return;
        }
        self.prune(holder);
    }

    /// Takes out what tells of something that may not be seen, at any depth.
    fn prune(&self, element: &mut Element) {
        if self.sight.part.is_some() {
            element.children.retain_mut(|child| {
                let stays = self.stays(child);
                if stays {
                    self.prune(child);
                }
                stays
            });
        }
    }

    /// Takes out references to what may not be seen, at any depth, and leaves what stands beside them.
    fn unrefer(&self, element: &mut Element) {
        element.children.retain_mut(|child| {
            let stays = child.as_reference().is_none_or(|r| self.sight.has(&r));
            if stays {
                self.unrefer(child);
            }
            stays
        });
    }

    /// Whether a part of an answer stays: no reference to what may not be seen, and nothing that is about a machine that
    /// may not be. That says its name, or what happened to it, beside the reference.
    fn stays(&self, element: &Element) -> bool {
        if let Some(reference) = element.as_reference() {
            return self.sight.has(&reference);
        }
        if self.sight.part.is_none() {
            return true;
        }
        let hidden: Vec<&str> =
            element.children.iter().filter(|c| self.is_hidden_machine(c)).map(|c| c.name.as_str()).collect();
        // Several of one name are a list of machines; one alone is what the rest is about.
        let is_about = |name: &&str| element.all(name).count() == 1 && *name != "ManagedObjectReference";
        !hidden.iter().any(is_about) && !self.is_hidden_event(element)
    }

    fn is_hidden_machine(&self, element: &Element) -> bool {
        let reference = element.as_reference().filter(|r| matches!(r.of.as_str(), MACHINE | SNAPSHOT));
        reference.is_some_and(|r| !self.sight.has(&r))
    }

    /// An event is a sentence with names in it: it stays where it is about nothing hidden.
    fn is_hidden_event(&self, element: &Element) -> bool {
        let Some(part) = &self.sight.part else { return false };
        let is_event = element.kind().is_some_and(|kind| kind.contains("Event")) && element.child("chainId").is_some();
        let is_named = |id: &Element| is_of_machine(&id.text) && !part.machines.contains(&id.text);
        is_event && (self.tells(element) || element.child("objectId").is_some_and(is_named))
    }

    fn tells(&self, element: &Element) -> bool {
        self.is_hidden_machine(element) || element.children.iter().any(|c| self.tells(c))
    }
}

#[cfg(test)]
mod tests;
