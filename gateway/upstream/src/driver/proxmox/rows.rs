// SPDX-License-Identifier: Apache-2.0
//! Lists for somebody who may see some of the machines: their rows, and of what they stand on no more than the name.
//! A row that names nothing known is left out.

use crate::{broker::strip, error::Fault, fleet::Seen};
use serde_json::{Map, Value};

/// What stays of a node that runs one of the machines.
const NODE: [&str; 4] = ["id", "node", "type", "status"];
/// What stays of a pool that holds one of them.
const POOL: [&str; 3] = ["id", "poolid", "type"];

/// What of an answer somebody may see; secrets are taken out, too.
pub(super) fn keep(answer: &[u8], seen: &Seen<'_>) -> Result<Vec<u8>, Fault> {
    let wrong = || Fault::Protocol("a list that is none".to_owned());
    let Ok(Value::Object(mut envelope)) = serde_json::from_slice(answer) else { return Err(wrong()) };
    let data = match envelope.remove("data") {
        Some(Value::Array(rows)) => rows.into_iter().filter_map(|row| kept(row, seen)).collect(),
        // One pool.
        Some(Value::Object(pool)) if pool.contains_key("members") => {
            Value::Object(members(pool, seen).ok_or_else(wrong)?)
        }
        Some(Value::Null) | None => Value::Null,
        Some(_) => return Err(wrong()),
    };
    // Everything else of the envelope may count what was left out.
    let mut shown = Map::new();
    if let Some(success) = envelope.remove("success") {
        shown.insert("success".to_owned(), success);
    }
    shown.insert("data".to_owned(), data);
    let mut shown = Value::Object(shown);
    strip(&mut shown);
    Ok(shown.to_string().into_bytes())
}

fn kept(row: Value, seen: &Seen<'_>) -> Option<Value> {
    let Value::Object(mut row) = row else { return None };
    if row.contains_key("vmid") {
        return machine(&row, "vmid").is_some_and(|m| seen.machines.contains(&*m)).then_some(Value::Object(row));
    }
    let text = |key: &str| row.get(key).and_then(Value::as_str);
    if let Some(upid) = text("upid") {
        let of_machine = upid.split(':').nth(6).is_some_and(|m| seen.machines.contains(m));
        return of_machine.then_some(Value::Object(row));
    }
    if row.contains_key("members") {
        return members(row, seen).map(Value::Object);
    }
    if let Some(pool) = text("poolid").or_else(|| text("pool")) {
        return seen.pools.contains(pool).then(|| reduced(&mut row, &POOL));
    }
    let is_node = text("type").is_none_or(|t| t == "node");
    let node = text("node").filter(|n| is_node && seen.nodes.contains(n));
    node.is_some().then(|| reduced(&mut row, &NODE))
}

/// A pool with those of its members that may be seen; none when there are none.
fn members(mut pool: Map<String, Value>, seen: &Seen<'_>) -> Option<Map<String, Value>> {
    let Some(Value::Array(all)) = pool.remove("members") else { return None };
    let of_machines = all.into_iter().filter(|m| m.get("vmid").is_some());
    let shown: Vec<Value> = of_machines.filter_map(|m| kept(m, seen)).collect();
    if shown.is_empty() {
        return None;
    }
    let mut small = Map::new();
    if let Some(id) = pool.remove("poolid") {
        small.insert("poolid".to_owned(), id);
    }
    small.insert("members".to_owned(), Value::Array(shown));
    Some(small)
}

fn reduced(row: &mut Map<String, Value>, keys: &[&str]) -> Value {
    row.retain(|key, _| keys.contains(&key.as_str()));
    Value::Object(std::mem::take(row))
}

/// The number under a key, as a machine's id.
fn machine(row: &Map<String, Value>, key: &str) -> Option<String> {
    match row.get(key)? {
        Value::Number(number) => number.as_u64().map(|n| n.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(answer: &Value) -> Result<Value, Fault> {
        let seen = Seen { machines: ["100", "101"].into(), nodes: ["pve1"].into(), pools: ["blue"].into() };
        keep(answer.to_string().as_bytes(), &seen).map(|t| serde_json::from_slice(&t).unwrap())
    }

    #[test]
    fn only_rows_of_visible_machines_and_the_names_below_them_stay() {
        let answer = json!({"total": 9, "data": [
            {"vmid": 100, "name": "web", "node": "pve1", "type": "qemu", "pool": "blue"},
            {"vmid": "101", "name": "db", "node": "pve1"},
            {"vmid": 200, "name": "secret-project", "node": "pve1", "type": "qemu"},
            {"vmid": 1001, "name": "secret-project"},
            {"vmid": null, "name": "secret-project"},
            {"id": "node/pve1", "type": "node", "node": "pve1", "status": "online", "maxcpu": 8, "ssl_fingerprint": "x"},
            {"id": "node/pve2", "type": "node", "node": "pve2"},
            {"id": "storage/pve1/local", "type": "storage", "node": "pve1", "storage": "local"},
            {"id": "/pool/blue", "type": "pool", "pool": "blue", "comment": "secret-project"},
            {"poolid": "red", "comment": "secret-project"},
            {"upid": "UPID:pve1:0:0:0:qmstart:100:u@pam:", "type": "qmstart", "node": "pve1"},
            {"upid": "UPID:pve1:0:0:0:qmstart:200:u@pam:", "node": "pve1"},
            {"upid": "UPID:pve1:0:0:0:vzdump::u@pam:", "node": "pve1"},
            {"unheard": 1},
            "text",
        ]});
        assert_eq!(
            shown(&answer).unwrap(),
            json!({"data": [
                {"vmid": 100, "name": "web", "node": "pve1", "type": "qemu", "pool": "blue"},
                {"vmid": "101", "name": "db", "node": "pve1"},
                {"id": "node/pve1", "type": "node", "node": "pve1", "status": "online"},
                {"id": "/pool/blue", "type": "pool"},
                {"upid": "UPID:pve1:0:0:0:qmstart:100:u@pam:", "type": "qmstart", "node": "pve1"},
            ]})
        );
    }

    #[test]
    fn a_pool_shows_the_members_that_may_be_seen() {
        let pool = json!({"data": {"poolid": "blue", "comment": "secret-project", "members": [
            {"vmid": 100, "name": "web"}, {"vmid": 200, "name": "secret-project"}, {"storage": "local", "node": "pve1"},
        ]}});
        let wanted = json!({"data": {"poolid": "blue", "members": [{"vmid": 100, "name": "web"}]}});
        assert_eq!(shown(&pool).unwrap(), wanted);
        let other = json!({"data": {"poolid": "red", "members": [{"vmid": 200}]}});
        assert!(shown(&other).is_err(), "a pool with nothing to see is no answer");
    }

    #[test]
    fn what_is_no_list_is_withheld() {
        for bad in [json!([]), json!({"data": "text"}), json!({"data": {"name": "secret-project"}})] {
            assert!(shown(&bad).is_err(), "{bad}");
        }
        assert_eq!(shown(&json!({"data": null, "message": "no"})).unwrap(), json!({"data": null}));
        assert!(keep(b"no JSON", &Seen::default()).is_err());
    }
}
