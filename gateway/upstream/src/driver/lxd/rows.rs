// SPDX-License-Identifier: Apache-2.0
//! Lists of LXD and Incus for somebody who may see some of the instances: their rows, and the names of the projects that
//! they are in. Of the server itself, what a client has to know before it asks anything. What names nothing known is left
//! out.

use crate::{broker::strip, error::Fault, fleet::Seen};
use serde_json::{Map, Value};

/// What stays of an answer around its rows.
const ENVELOPE: [&str; 6] = ["type", "status", "status_code", "operation", "error_code", "error"];
/// What stays of the server's own description, and of the part of it that describes its host.
const SERVER: [&str; 6] = ["api_extensions", "api_status", "api_version", "auth", "auth_methods", "public"];
const ENVIRONMENT: [&str; 4] = ["architectures", "server", "server_version", "server_clustered"];

/// What of an answer somebody may see; secrets are taken out, too.
pub(super) fn keep(answer: &[u8], seen: &Seen<'_>) -> Result<Vec<u8>, Fault> {
    let wrong = || Fault::Protocol("a list that is none".to_owned());
    let Ok(Value::Object(mut envelope)) = serde_json::from_slice(answer) else { return Err(wrong()) };
    let metadata = match envelope.remove("metadata") {
        Some(Value::Array(rows)) => rows.into_iter().filter(|row| is_seen(row, seen)).collect(),
        Some(Value::Object(server)) if server.contains_key("api_extensions") => Value::Object(reduced(server)),
        Some(Value::Null) | None => Value::Null,
        Some(_) => return Err(wrong()),
    };
    envelope.retain(|key, _| ENVELOPE.contains(&key.as_str()));
    envelope.insert("metadata".to_owned(), metadata);
    let mut shown = Value::Object(envelope);
    strip(&mut shown);
    Ok(shown.to_string().into_bytes())
}

fn is_seen(row: &Value, seen: &Seen<'_>) -> bool {
    let is_machine = |project: &str, name: &str| seen.machines.contains(format!("{project}:{name}").as_str());
    match row {
        Value::String(address) => {
            let (path, query) = address.split_once('?').unwrap_or((address, ""));
            if let Some(project) = path.strip_prefix("/1.0/projects/") {
                return query.is_empty() && seen.pools.contains(project);
            }
            let project = match query {
                "" => "default",
                query => query.strip_prefix("project=").unwrap_or_default(),
            };
            path.strip_prefix("/1.0/instances/").is_some_and(|name| is_machine(project, name))
        }
        Value::Object(row) => {
            let text = |key: &str| row.get(key).and_then(Value::as_str);
            text("project").zip(text("name")).is_some_and(|(project, name)| is_machine(project, name))
        }
        _ => false,
    }
}

/// The server, without what it is set to and what it runs on.
fn reduced(mut server: Map<String, Value>) -> Map<String, Value> {
    let environment = server.remove("environment");
    server.retain(|key, _| SERVER.contains(&key.as_str()));
    if let Some(Value::Object(mut environment)) = environment {
        environment.retain(|key, _| ENVIRONMENT.contains(&key.as_str()));
        server.insert("environment".to_owned(), Value::Object(environment));
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(metadata: &Value) -> Result<Value, Fault> {
        let seen =
            Seen { machines: ["default:c1", "blue:c1"].into(), pools: ["default", "blue"].into(), ..Seen::default() };
        let answer = json!({"type": "sync", "status_code": 200, "total": 9, "metadata": metadata});
        keep(answer.to_string().as_bytes(), &seen)
            .map(|t| serde_json::from_slice::<Value>(&t).unwrap()["metadata"].clone())
    }

    #[test]
    fn only_rows_of_visible_instances_and_names_of_their_projects_stay() {
        let row = |project: &str, name: &str| json!({"name": name, "project": project, "type": "container"});
        let list = json!([
            row("default", "c1"), row("blue", "c1"), row("red", "c1"), row("default", "c2"), row("default", "c1:x"),
            {"name": "c1"}, {"project": "default"}, {"name": 1, "project": "default"}, null, 7, [row("default", "c1")],
        ]);
        assert_eq!(shown(&list).unwrap(), json!([row("default", "c1"), row("blue", "c1")]));
        let addresses = json!([
            "/1.0/instances/c1",
            "/1.0/instances/c1?project=blue",
            "/1.0/instances/c1?project=red",
            "/1.0/instances/c1?project=",
            "/1.0/instances/c1?x=y",
            "/1.0/instances/c2",
            "/1.0/instances/c1/snapshots",
            "/1.0/projects/blue",
            "/1.0/projects/red",
            "/1.0/projects/blue?x=y",
            "/1.0/images/default",
            "c1",
            "",
        ]);
        let wanted = json!(["/1.0/instances/c1", "/1.0/instances/c1?project=blue", "/1.0/projects/blue"]);
        assert_eq!(shown(&addresses).unwrap(), wanted);
    }

    #[test]
    fn of_the_server_stays_what_a_client_has_to_know() {
        let server = json!({
            "api_extensions": ["instances"], "api_version": "1.0", "auth": "trusted", "auth_methods": ["tls"],
            "public": false, "auth_user_name": "x", "config": {"core.https_address": "10.0.0.1:8443"},
            "environment": {"server": "lxd", "server_version": "5.0.2", "server_name": "pay-host", "kernel": "x",
                "addresses": ["10.0.0.1:8443"], "certificate": "PEM"},
        });
        let wanted = json!({
            "api_extensions": ["instances"], "api_version": "1.0", "auth": "trusted", "auth_methods": ["tls"],
            "public": false, "environment": {"server": "lxd", "server_version": "5.0.2"},
        });
        assert_eq!(shown(&server).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_list_is_withheld_and_a_refusal_says_why() {
        for bad in [json!("text"), json!(1), json!({"name": "c2", "project": "default"})] {
            assert!(shown(&bad).is_err(), "{bad}");
        }
        assert_eq!(shown(&json!(null)).unwrap(), json!(null));
        assert!(keep(b"no JSON", &Seen::default()).is_err() && keep(b"[]", &Seen::default()).is_err());
        let refused = json!({"type": "error", "error": "not found", "error_code": 404, "metadata": null, "more": "x"});
        let text = keep(refused.to_string().as_bytes(), &Seen::default()).unwrap();
        let wanted = json!({"type": "error", "error": "not found", "error_code": 404, "metadata": null});
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), wanted);
    }
}
