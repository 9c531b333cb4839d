// SPDX-License-Identifier: Apache-2.0
//! What of the Automation API's answers people get: of lists the rows that are about what they may see, and no secrets. A
//! row that names nothing is left out.

use crate::{
    broker::is_secret_name,
    desk::{Sight, tree::MACHINE},
    error::Fault,
};
use portcullis_policy::classify::soap::{ENTITIES, Reference};
use serde_json::{Map, Value};

/// What names something in a row, and of what type that is.
const NAMES: [(&str, &str); 8] = [
    ("vm", MACHINE),
    ("host", "HostSystem"),
    ("folder", "Folder"),
    ("datacenter", "Datacenter"),
    ("cluster", "ClusterComputeResource"),
    ("resource_pool", "ResourcePool"),
    ("datastore", "Datastore"),
    ("network", "Network"),
];
/// Addresses that lead to the hypervisor itself and hold what opens them.
const ADDRESSES: [&str; 5] = ["download_endpoint", "upload_endpoint", "session_id", "ssl_key", "private_key"];

/// Takes the secrets out of an answer.
pub(super) fn strip(answer: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut value = read(answer)?;
    clean(&mut value);
    Ok(value.to_string().into_bytes())
}

/// The task that an answer names, where that is all that it says. Ids of tasks have a `:` in them, and no others do.
pub(super) fn task(answer: &[u8]) -> Option<String> {
    let said = match serde_json::from_slice(answer).ok()? {
        Value::Object(mut map) if map.len() == 1 => map.remove("value")?,
        other => other,
    };
    said.as_str().filter(|id| id.contains(':')).map(str::to_owned)
}

/// Leaves in a list what somebody sees, and takes the secrets out.
pub(crate) fn keep(answer: &[u8], sight: &Sight) -> Result<Vec<u8>, Fault> {
    let mut value = read(answer)?;
    clean(&mut value);
    if sight.part.is_some() {
        match &mut value {
            Value::Object(map) if map.len() == 1 && map.contains_key("value") => {
                map.values_mut().for_each(|inner| rows(inner, sight));
            }
            other => rows(other, sight),
        }
    }
    Ok(value.to_string().into_bytes())
}

fn read(answer: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(answer).map_err(|_| Fault::Protocol("an answer that is no JSON".to_owned()))
}

// Depth is bounded by serde_json's own limit of 128.
fn clean(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(clean),
        Value::Object(map) => {
            map.retain(|name, _| !is_secret_name(name) && !ADDRESSES.contains(&name.as_str()));
            map.values_mut().for_each(clean);
        }
        _ => {}
    }
}

/// Leaves out what is hidden of a list, or of the lists of an answer that comes in pages. Of anything else nothing stays.
fn rows(value: &mut Value, sight: &Sight) {
    match value {
        Value::Array(all) => all.retain_mut(|row| stays(row, sight)),
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                match inner {
                    Value::Array(all) => all.retain_mut(|row| stays(row, sight)),
                    // Where the next page begins, and whether there is one.
                    Value::String(_) if matches!(name.as_str(), "marker" | "status") => {}
                    other => *other = Value::Null,
                }
            }
        }
        other => *other = Value::Null,
    }
}

fn has(sight: &Sight, of: &str, id: &str) -> bool {
    sight.has(&Reference { of: of.to_owned(), id: id.to_owned() })
}

/// Whether a row stays: everything that it names may be seen, and it names something.
fn stays(row: &mut Value, sight: &Sight) -> bool {
    let Value::Object(map) = row else {
        // The id of a machine alone.
        return row.as_str().is_some_and(|id| has(sight, MACHINE, id));
    };
    // Objects of one tag, each of which is looked at by itself.
    if let Some(Value::Array(all)) = map.get_mut("object_ids") {
        all.retain(|object| object.as_object().is_some_and(|o| is_seen(o, sight)));
        return !all.is_empty();
    }
    if is_object(map) {
        return is_seen(map, sight);
    }
    let inner = ["object", "object_id"].iter().filter_map(|name| map.get(*name));
    let mut named: Vec<bool> =
        inner.map(|object| object.as_object().is_some_and(|object| is_seen(object, sight))).collect();
    for (name, of) in NAMES {
        match map.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) => named.push(has(sight, of, id)),
            Some(_) => named.push(false),
        }
    }
    !named.is_empty() && named.iter().all(|seen| *seen)
}

/// Whether this is a reference: a type and an id.
fn is_object(map: &Map<String, Value>) -> bool {
    map.get("id").is_some_and(Value::is_string) && map.get("type").is_some_and(Value::is_string)
}

fn is_seen(object: &Map<String, Value>, sight: &Sight) -> bool {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    match (text("type"), text("id")) {
        // What has a type that is none of these is on nobody's way.
        (Some(of), Some(id)) if is_known(of) => has(sight, of, id),
        _ => false,
    }
}

fn is_known(of: &str) -> bool {
    of == MACHINE || ENTITIES.contains(&of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Part;
    use serde_json::json;

    fn sight() -> Sight {
        let set = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect();
        let part =
            Part { machines: set(&["vm-1"]), places: set(&["host-1", "group-v1", "datastore-1"]), tasks: set(&[]) };
        Sight { holds: Vec::new(), part: Some(part) }
    }

    fn kept(answer: &Value) -> Value {
        serde_json::from_slice(&keep(answer.to_string().as_bytes(), &sight()).unwrap()).unwrap()
    }

    #[test]
    fn a_row_stays_where_everything_that_it_names_is_seen() {
        for (answer, wanted) in [
            (json!([{"vm": "vm-1", "name": "a"}, {"vm": "vm-2", "name": "b"}]), json!([{"vm": "vm-1", "name": "a"}])),
            (json!({"value": [{"vm": "vm-1"}, {"vm": "vm-2"}]}), json!({"value": [{"vm": "vm-1"}]})),
            (json!([{"host": "host-1"}, {"host": "host-2"}]), json!([{"host": "host-1"}])),
            // Both are named, and one is hidden.
            (json!([{"vm": "vm-1", "host": "host-2"}, {"vm": "vm-2", "host": "host-1"}]), json!([])),
            // Neither a number nor a list is an id, and what names nothing is about nothing.
            (json!([{"vm": ["vm-1"]}, {"vm": 1}, {"name": "vm-1"}, {}, 7, null, "vm-1", "vm-2"]), json!(["vm-1"])),
            // An id of one type is none of another.
            (json!([{"host": "vm-1"}, {"vm": "host-1"}, {"folder": "group-v1"}]), json!([{"folder": "group-v1"}])),
            (
                json!([{"type": "VirtualMachine", "id": "vm-2"}, {"type": "VirtualMachine", "id": "vm-1"},
                       {"type": "Unheard", "id": "vm-2"}, {"type": "Unheard", "id": "x"}]),
                json!([{"type": "VirtualMachine", "id": "vm-1"}]),
            ),
            (
                json!({"associations": [{"tag": "t", "object": {"type": "VirtualMachine", "id": "vm-2"}},
                       {"tag": "t", "object": {"type": "Folder", "id": "group-v1"}}], "marker": "m", "status": "NOT_LAST_PAGE",
                       "more": {"vm": "vm-2"}}),
                json!({"associations": [{"tag": "t", "object": {"type": "Folder", "id": "group-v1"}}], "marker": "m",
                       "status": "NOT_LAST_PAGE", "more": null}),
            ),
            (
                json!([{"tag_id": "t", "object_ids": [{"type": "VirtualMachine", "id": "vm-2"}, {"type": "VirtualMachine", "id": "vm-1"}]},
                       {"tag_id": "u", "object_ids": [{"type": "VirtualMachine", "id": "vm-2"}]}]),
                json!([{"tag_id": "t", "object_ids": [{"type": "VirtualMachine", "id": "vm-1"}]}]),
            ),
            (json!("vm-2"), Value::Null),
            (json!({"value": "vm-2"}), json!({"value": null})),
        ] {
            assert_eq!(kept(&answer), wanted, "{answer}");
        }
        assert!(keep(b"not JSON", &sight()).is_err());
        let all = json!([{"name": "x", "password": "y"}]);
        let all = keep(all.to_string().as_bytes(), &Sight::default()).unwrap();
        assert_eq!(String::from_utf8(all).unwrap(), r#"[{"name":"x"}]"#, "whoever sees everything sees no secrets");
    }

    #[test]
    fn secrets_go_at_any_depth_and_tasks_are_told_by_their_ids() {
        let answer = json!({"value": {"a": [{"user_password": "p", "b": 1}], "session_id": "s", "download_endpoint": {"uri": "u"}}});
        let clean = strip(answer.to_string().as_bytes()).unwrap();
        assert_eq!(String::from_utf8(clean).unwrap(), r#"{"value":{"a":[{"b":1}]}}"#);
        assert_eq!(task(b"\"52a1:com.vmware.x\"").as_deref(), Some("52a1:com.vmware.x"));
        assert_eq!(task(b"{\"value\": \"52a1:x\"}").as_deref(), Some("52a1:x"));
        for none in ["\"vm-12\"", "{\"value\": \"vm-12\"}", "{\"a\": \"1:2\"}", "[]", ""] {
            assert_eq!(task(none.as_bytes()), None, "{none}");
        }
    }
}
