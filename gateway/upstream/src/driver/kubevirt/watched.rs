// SPDX-License-Identifier: Apache-2.0
//! A watch as one person may follow it: events of what they may not see are left out, what enters their view is ADDED, and
//! what leaves it is DELETED, without more of it than its name.
//!
//! What a client knows from its list is what its owner could see as the watch began. An object that comes into view without
//! an event of its own, because access was given, cannot be told of: the watch then ends with 410, and the client lists
//! anew, as it does whenever a cluster has forgotten its place.

use super::objects::{About, Cutter, Gaze, clean};
use crate::error::Fault;
use portcullis_domain::MachineId;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// Most objects that one watch keeps in mind.
const MAX_KEPT: usize = 100_000;

/// What comes of an event.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// This goes to the client.
    Send(Value),
    /// Nothing does.
    Skip,
    /// The machine that it is about is not known yet: ask again in a moment.
    Wait,
}

/// One watch.
#[derive(Debug)]
pub struct Watched {
    about: About,
    /// Whether bookmarks were asked for.
    bookmarks: bool,
    /// What of a table comes with its first event only.
    columns: Option<Value>,
    /// What the client was told of in this watch, by its uid.
    shown: HashMap<String, Shown>,
    /// Machines that could be seen as it began: what the client listed is theirs.
    at_first: HashSet<MachineId>,
    /// Machines that could not, and of which something was left out.
    hidden: HashSet<MachineId>,
}

/// What an event is about.
struct Told {
    uid: String,
    machine: Option<MachineId>,
    name: Value,
    /// Whether it may be seen.
    sees: bool,
}

#[derive(Debug)]
struct Shown {
    machine: Option<MachineId>,
    /// Whether the inventory knew the machine, and it could be seen there.
    was_known: bool,
    /// What is said of it when it leaves the view.
    name: Value,
}

impl Watched {
    /// A watch of what is at a path. `at_first` and `hidden` are the machines that somebody may see and may not see now,
    /// where the client goes on from a list; both are empty where the watch itself begins with everything.
    pub fn new(path: &str, bookmarks: bool, at_first: HashSet<MachineId>, hidden: HashSet<MachineId>) -> Self {
        Self { about: About::at(path), bookmarks, columns: None, shown: HashMap::new(), at_first, hidden }
    }

    /// What comes of one event. A machine that `is_known` does not know is to be waited for.
    pub fn event(
        &mut self,
        cutter: &Cutter,
        line: &[u8],
        sight: &Gaze<'_>,
        is_known: &dyn Fn(&MachineId) -> bool,
    ) -> Result<Step, Fault> {
        let wrong = || Fault::Protocol("an event of another shape".to_owned());
        let mut event: Value = serde_json::from_slice(line).map_err(|_| wrong())?;
        clean(&mut event);
        let kind = event.get("type").and_then(Value::as_str).ok_or_else(wrong)?.to_owned();
        let object = event.get_mut("object").filter(|o| o.is_object()).ok_or_else(wrong)?;
        match kind.as_str() {
            "ERROR" => Ok(Step::Send(event)),
            "BOOKMARK" if self.bookmarks => {
                let at = |pointer: &str| object.pointer(pointer).cloned();
                let mut metadata = Map::new();
                metadata.extend(at("/metadata/resourceVersion").map(|v| ("resourceVersion".to_owned(), v)));
                if let Some(end) = at("/metadata/annotations/k8s.io~1initial-events-end") {
                    metadata.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": end}));
                }
                let (kind, version) = (at("/kind"), at("/apiVersion"));
                let mark = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
                Ok(Step::Send(json!({"type": "BOOKMARK", "object": mark})))
            }
            "BOOKMARK" => Ok(Step::Skip),
            "ADDED" | "MODIFIED" | "DELETED" => {
                let is_table = object.get("kind").and_then(Value::as_str) == Some("Table");
                if is_table {
                    self.columns(object);
                }
                let subject = if is_table { object.pointer("/rows/0/object") } else { Some(&*object) };
                let subject = subject.cloned().ok_or_else(wrong)?;
                if is_table && object.pointer("/rows/1").is_some() {
                    return Err(wrong());
                }
                let uid = subject.pointer("/metadata/uid").and_then(Value::as_str).ok_or_else(wrong)?.to_owned();
                let machine = self.about.machine_of(&subject);
                let by_inventory = kind != "DELETED" && self.about != About::Vms && !sight.whole;
                if by_inventory && machine.as_ref().is_some_and(|m| !is_known(m)) {
                    return Ok(Step::Wait);
                }
                let told =
                    Told { sees: cutter.sees(self.about, &subject, sight), name: name_of(&subject), uid, machine };
                Ok(self.tell(&kind, event, told, sight))
            }
            _ => Err(wrong()),
        }
    }

    /// The columns of a table come with the first event of the cluster's; the client needs them with the first of its own.
    fn columns(&mut self, table: &mut Value) {
        let Some(map) = table.as_object_mut() else { return };
        let said = map.get("columnDefinitions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty()));
        if let Some(columns) = said {
            self.columns = Some(columns.clone());
        } else if self.shown.is_empty()
            && let Some(columns) = &self.columns
        {
            map.insert("columnDefinitions".to_owned(), columns.clone());
        }
    }

    fn tell(&mut self, kind: &str, mut event: Value, told: Told, sight: &Gaze<'_>) -> Step {
        let Told { uid, machine, name, sees } = told;
        let was_listed = machine.as_ref().is_some_and(|m| self.at_first.contains(m));
        let was_shown = self.shown.contains_key(&uid);
        if kind == "DELETED" || !sees {
            self.shown.remove(&uid);
            if let Some(machine) = machine.as_ref().filter(|_| self.about.kind().is_some()) {
                self.at_first.remove(machine);
            }
            if kind == "DELETED" {
                return match (was_shown || was_listed || sight.whole, sees) {
                    (true, true) => sent(event),
                    (true, false) => Step::Send(self.gone(&name)),
                    // The client was never told of it, or was told already that it is gone.
                    (false, _) => Step::Skip,
                };
            }
            if let Some(machine) = machine.filter(|_| self.hidden.len() < MAX_KEPT) {
                self.hidden.insert(machine);
            }
            return if was_shown || was_listed { Step::Send(self.gone(&name)) } else { Step::Skip };
        }
        let is_new = !was_shown && !was_listed && kind == "MODIFIED" && !sight.whole;
        if let Some(kind) = event.get_mut("type").filter(|_| is_new) {
            *kind = json!("ADDED");
        }
        // It came into view with an event of its own. What belongs to a machine may be several objects.
        if let Some(machine) = machine.as_ref().filter(|_| self.about.kind().is_some()) {
            self.hidden.remove(machine);
        }
        if self.shown.len() < MAX_KEPT {
            let was_known = machine.as_ref().is_some_and(|m| (sight.known)(m));
            self.shown.insert(uid, Shown { machine, was_known, name });
        }
        sent(event)
    }

    /// What left the view without an event of its own. None where something came into it: the client lists anew.
    pub fn look(&mut self, sight: &Gaze<'_>) -> Option<Vec<Value>> {
        if sight.whole {
            return self.hidden.is_empty().then(Vec::new);
        }
        if self.hidden.iter().any(|machine| (sight.known)(machine)) {
            return None;
        }
        let mut left = Vec::new();
        let hidden = &mut self.hidden;
        let mut hide = |machine: &MachineId| {
            if hidden.len() < MAX_KEPT {
                hidden.insert(machine.clone());
            }
        };
        self.shown.retain(|_, shown| {
            let Some(machine) = &shown.machine else { return true };
            let is_known = (sight.known)(machine);
            if shown.was_known && !is_known {
                left.push(shown.name.take());
                self.at_first.remove(machine);
                hide(machine);
                return false;
            }
            shown.was_known |= is_known;
            true
        });
        if let Some(kind) = self.about.kind() {
            self.at_first.retain(|machine| {
                let stays = (sight.known)(machine);
                if !stays {
                    let (namespace, name) = machine.as_str().split_once(':').unwrap_or_default();
                    let metadata = json!({"name": name, "namespace": namespace});
                    left.push(json!({"kind": kind, "apiVersion": "kubevirt.io/v1", "metadata": metadata}));
                    hide(machine);
                }
                stays
            });
        }
        Some(left.iter().map(|name| self.gone(name)).collect())
    }

    /// The event for something that left the view. A table's has its name in the first cell, and nothing in the others.
    fn gone(&self, name: &Value) -> Value {
        let Some(columns) = &self.columns else { return json!({"type": "DELETED", "object": name}) };
        let mut cells = vec![Value::from(""); columns.as_array().map_or(1, Vec::len)];
        if let Some(first) = cells.first_mut() {
            *first = name.pointer("/metadata/name").cloned().unwrap_or_default();
        }
        let mut object = name.clone();
        super::objects::reduce(&mut object);
        let table = json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns,
            "rows": [{"cells": cells, "object": object}],
        });
        json!({"type": "DELETED", "object": table})
    }
}

/// An event as it goes out: of a table's object the metadata alone.
fn sent(mut event: Value) -> Step {
    if let Some(object) = event.pointer_mut("/object/rows/0/object") {
        super::objects::reduce(object);
    }
    Step::Send(event)
}

/// What is said of something that left the view: its name, and not what it is now.
fn name_of(object: &Value) -> Value {
    let at = |key: &str| object.pointer(key).cloned().unwrap_or_default();
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    json!({"kind": at("/kind"), "apiVersion": at("/apiVersion"), "metadata": metadata})
}

#[cfg(test)]
mod tests;
