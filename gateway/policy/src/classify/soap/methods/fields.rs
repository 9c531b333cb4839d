// SPDX-License-Identifier: Apache-2.0
//! What the fields of an argument reach. A field that nobody reviewed is denied, and so is a device, or what stands behind
//! one, of a type that nobody reviewed.

use super::file::{FieldRow, KindRow, Usage};
use crate::{Kind, classify::soap::Element};
use portcullis_domain::Action;
use std::{borrow::Cow, collections::HashMap};

/// What an action is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Machine,
    Hypervisor,
}

fn push_all(asks: &[(Whose, Action)], push: &mut dyn FnMut(Whose, Action)) {
    for (whose, action) in asks {
        push(*whose, *action);
    }
}

/// What comes of a question: the error is for the person.
type Done = Result<(), Cow<'static, str>>;

#[derive(Debug, Clone)]
enum Field {
    Deny(String),
    Ask { asks: Vec<(Whose, Action)>, inside: Option<String>, usage: Option<Usage> },
}

#[derive(Debug, Default)]
pub(super) struct Sets {
    fields: HashMap<String, HashMap<String, Field>>,
    devices: HashMap<String, Vec<(Whose, Action)>>,
    backings: HashMap<String, Vec<(Whose, Action)>>,
}

fn asks(machine: Option<&String>, hypervisor: Option<&String>) -> Result<Vec<(Whose, Action)>, String> {
    let mut found = Vec::new();
    for (whose, kind, text) in
        [(Whose::Machine, Kind::Machine, machine), (Whose::Hypervisor, Kind::Hypervisor, hypervisor)]
    {
        let Some(text) = text else { continue };
        let action: Action = text.parse().map_err(|e| format!("{e}"))?;
        if !kind.answers(action) {
            return Err(format!("{action} cannot be asked of a {kind}"));
        }
        found.push((whose, action));
    }
    Ok(found)
}

impl Sets {
    pub(super) fn read(fields: Vec<FieldRow>, devices: Vec<KindRow>, backings: Vec<KindRow>) -> Result<Self, String> {
        let mut sets = Self::default();
        for row in fields {
            let asks = asks(row.machine.as_ref(), row.hypervisor.as_ref())?;
            let more = !asks.is_empty() || row.inside.is_some() || row.usage.is_some();
            let field = match row.deny {
                Some(_) if more => return Err(format!("fields {:?}: deny stands alone", row.keys)),
                Some(why) => Field::Deny(why),
                None => Field::Ask { asks, inside: row.inside, usage: row.usage },
            };
            let set = sets.fields.entry(row.set).or_default();
            for key in row.keys {
                if set.insert(key.clone(), field.clone()).is_some() {
                    return Err(format!("the field {key} stands twice"));
                }
            }
        }
        for (rows, into) in [(devices, &mut sets.devices), (backings, &mut sets.backings)] {
            for row in rows {
                let asks = asks(row.machine.as_ref(), row.hypervisor.as_ref())?;
                for kind in row.kinds {
                    if into.insert(kind.clone(), asks.clone()).is_some() {
                        return Err(format!("the type {kind} stands twice"));
                    }
                }
            }
        }
        for field in sets.fields.values().flat_map(HashMap::values) {
            if let Field::Ask { inside: Some(inside), .. } = field
                && !sets.has(inside)
            {
                return Err(format!("there are no fields called {inside}"));
            }
        }
        Ok(sets)
    }

    pub(super) fn has(&self, set: &str) -> bool {
        self.fields.contains_key(set)
    }

    /// Asks for everything that the fields of an element reach.
    pub(super) fn ask(&self, set: &str, element: &Element, push: &mut dyn FnMut(Whose, Action)) -> Done {
        let known = self.fields.get(set).ok_or("The table of this API is broken.")?;
        for field in &element.children {
            match known.get(&field.name) {
                None => return Err(format!("The gateway does not know the field {} here.", field.name).into()),
                Some(Field::Deny(why)) => return Err(why.clone().into()),
                Some(Field::Ask { asks, inside, usage }) => {
                    push_all(asks, push);
                    if let Some(inside) = inside {
                        self.ask(inside, field, push)?;
                    }
                    match usage {
                        Some(Usage::Device) => self.device(field, push)?,
                        Some(Usage::Option) => option(field, push)?,
                        Some(Usage::Paths) => paths(field, push),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// One device that is added, changed or removed.
    fn device(&self, change: &Element, push: &mut dyn FnMut(Whose, Action)) -> Done {
        let parts = ["operation", "fileOperation", "device", "profile", "changeMode"];
        if let Some(other) = change.children.iter().find(|c| !parts.contains(&c.name.as_str())) {
            return Err(format!("The gateway does not know the field {} here.", other.name).into());
        }
        let mut devices = change.all("device");
        let (Some(device), None) = (devices.next(), devices.next()) else {
            return Err("A change of a device names none, or several.".into());
        };
        let kind = device.kind().and_then(|kind| self.devices.get(kind));
        let kind = kind.ok_or("The gateway does not know this type of device.")?;
        push_all(kind, push);
        // A device that is there is found by its key, whatever type is said here.
        let mut operations = change.all("operation");
        let is_added = operations.next().is_some_and(|o| o.text == "add") && operations.next().is_none();
        if !is_added {
            push(Whose::Machine, Action::Storage);
            push(Whose::Machine, Action::Network);
        }
        let mut operations = change.all("fileOperation");
        let is_new = operations.next().is_some_and(|o| o.text == "create") && operations.next().is_none();
        for backing in device.all("backing") {
            let kind = backing.kind().and_then(|kind| self.backings.get(kind));
            let kind = kind.ok_or("The gateway does not know what stands behind this device.")?;
            push_all(kind, push);
            // A file that is there already may be another machine's.
            if !is_new || backing.child("parent").is_some() {
                files(backing, push);
            }
        }
        Ok(())
    }
}

/// Asks for storage of the hypervisor where a file is named that is no image of a disc.
fn files(element: &Element, push: &mut dyn FnMut(Whose, Action)) {
    let names = ["fileName", "diskObjectId", "backingObjectId", "vDiskId", "descriptorFileName", "lunUuid"];
    let is_image = |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("iso"));
    let is_iso = element.kind() == Some("VirtualCdromIsoBackingInfo");
    for child in &element.children {
        let is_named = names.contains(&child.name.as_str()) && !is_bare(&child.text);
        if is_named && !(is_iso && is_image(&child.text)) {
            push(Whose::Hypervisor, Action::Storage);
        }
        files(child, push);
    }
}

/// Whether a path names no file: it is empty, or a datastore alone.
fn is_bare(path: &str) -> bool {
    let path = path.trim();
    path.is_empty() || path.starts_with('[') && path.find(']') == Some(path.len() - 1)
}

/// One line of a machine's settings file.
fn option(element: &Element, push: &mut dyn FnMut(Whose, Action)) -> Done {
    let mut keys = element.all("key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err("A line of the settings file has no key.".into());
    };
    // The guest reads these, and does what some of them say.
    if key.text.starts_with("guestinfo.") {
        push(Whose::Machine, Action::GuestExec);
    } else {
        push(Whose::Hypervisor, Action::NodeAdmin);
    }
    Ok(())
}

fn paths(element: &Element, push: &mut dyn FnMut(Whose, Action)) {
    if element.children.iter().any(|c| !is_bare(&c.text)) {
        push(Whose::Hypervisor, Action::Storage);
    }
}
