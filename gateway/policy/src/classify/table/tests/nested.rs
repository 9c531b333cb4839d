// SPDX-License-Identifier: Apache-2.0
//! How bodies of nested JSON choose a row, name machines, and ask for more.

use super::*;

const NESTED: &str = r#"
api = "Nested"
bodies = "json"
[machine]
name = "id"
[task]
id = "task"
[query]
everywhere = []

[[params]]
set = "start"
keys = ["/start"]

[[params]]
set = "settings"
keys = ["/name", "/config/**", "/devices/*/type", "/tags/[]"]
[[params]]
set = "settings"
keys = ["/config/raw.*", "/devices/*/source"]
action = "node-admin"
[[params]]
set = "settings"
keys = ["/config/own.*"]
except = ["/config/own.plain"]
action = "snapshot"
[[params]]
set = "settings"
keys = ["/config/raw.note"]
use = "refuse"
unless = ['""', "null"]
reason = "No notes."
[[params]]
set = "settings"
keys = ["/pool"]
action = "storage"
unless = ['""']
[[params]]
set = "settings"
keys = ["/copy/of"]
use = "machine"
action = "snapshot"
[[params]]
set = "several"
keys = ["/ids/[]"]
use = "machines"

[[rule]]
operations = ["POST /m/{id}/action"]
only = "start"
action = "power"
object = "machine"
effect = "unsafe"
params = ["start"]
[[rule]]
operations = ["POST /m/{id}/action"]
only = "burn"
deny = "Nothing is burned here."
[[rule]]
operations = ["PUT /m/{id}/state"]
says = { "/how/to" = "stop" }
action = "destroy"
object = "machine"
effect = "unsafe"
params = ["settings"]
query = []
[[rule]]
operations = ["PUT /m/{id}"]
action = "configure"
object = "machine"
effect = "unsafe"
params = ["settings"]
[[rule]]
operations = ["PUT /m"]
action = "power"
object = "machines"
effect = "unsafe"
params = ["several"]
[[rule]]
operations = ["POST /upload"]
action = "storage"
object = "hypervisor"
effect = "unsafe"
body = "stream"
[[rule]]
operations = ["GET /m/{id}", "DELETE /m/{id}/x"]
action = "configure"
object = "machine"
effect = "unsafe"
"#;

fn told(method: &str, path: &str, body: &str) -> String {
    let table = Table::read(NESTED).unwrap();
    let path = canonical(path).unwrap();
    let content = match table.read_body(Some("application/json"), body.as_bytes()) {
        Ok(content) => content,
        Err(why) => return format!("denied: {why}"),
    };
    let asked = Asked { method, path: &path, query: None, upgrade: Upgrade::None, body: content.said() };
    match table.classify(&"h".parse().unwrap(), &asked) {
        Verdict::Operation { operation, also, .. } => {
            std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
        }
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_only_key_of_a_body_chooses_what_is_asked() {
    assert_eq!(told("POST", "/m/a/action", r#"{"start": null}"#), "power on h/a");
    for (body, why) in [
        (r#"{"burn": null}"#, "Nothing is burned"),
        ("{}", "this variant"),
        ("", "this variant"),
        (r#"{"stop": null}"#, "this variant"),
        (r#"{"start": null, "burn": null}"#, "this variant"),
        (r#"{"burn": null, "start": null}"#, "this variant"),
        (r#"{"start": null, "start": null}"#, "each key stands once"),
        (r#"{"Start": null}"#, "this variant"),
        (r#"{"start": {"force": true}}"#, "\"/start/force\""),
        (r#"["start"]"#, "no JSON object"),
    ] {
        let told = told("POST", "/m/a/action", body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{body}: {told}");
    }
}

#[test]
fn a_value_of_a_body_chooses_what_is_asked() {
    let told = |body: &str| told("PUT", "/m/a/state", body);
    assert!(told(r#"{"how": {"to": "stop"}}"#).contains("\"/how/to\""), "a value that chooses is still to be known");
    for body in [r#"{"how": {"to": "start"}}"#, r#"{"how/to": "stop"}"#, r#"{"how": [{"to": "stop"}]}"#, "{}", ""] {
        assert!(told(body).contains("this variant"), "{body}");
    }
}

#[test]
fn what_a_body_reaches_is_asked_for_and_a_wide_pattern_hides_no_narrow_one() {
    for (body, what) in [
        (r#"{"name": "x", "config": {"a": 1, "b": {"c": [1]}}, "tags": ["x", "y"]}"#, "configure on h/a"),
        (r#"{"config": {"raw.qemu": "-x"}}"#, "configure on h/a + node-admin on h"),
        (r#"{"config": {"raw.note": ""}}"#, "configure on h/a + node-admin on h"),
        (r#"{"devices": {"d": {"type": "disk", "source": "/etc"}}}"#, "configure on h/a + node-admin on h"),
        (r#"{"config": {"own.x": "1"}}"#, "configure on h/a + snapshot on h/a"),
        (r#"{"config": {"own.plain": "1"}}"#, "configure on h/a"),
        (r#"{"pool": ""}"#, "configure on h/a"),
        (r#"{"pool": "ssd"}"#, "configure on h/a + storage on h/a"),
        (r#"{"pool": null}"#, "configure on h/a + storage on h/a"),
        (r#"{"copy": {"of": "b"}}"#, "configure on h/a + snapshot on h/b"),
        ("", "configure on h/a"),
    ] {
        assert_eq!(told("PUT", "/m/a", body), what, "{body}");
    }
    for (body, why) in [
        (r#"{"config": {"raw.note": "x"}}"#, "No notes."),
        (r#"{"config": {"raw.note": "null"}}"#, "No notes."),
        (r#"{"copy": {"of": "b:c"}}"#, "no machine"),
        (r#"{"Config": {"a": 1}}"#, "\"/Config/a\""),
        (r#"{"tags": "x"}"#, "\"/tags\""),
        (r#"{"tags": [["x"]]}"#, "\"/tags/[]/[]\""),
        (r#"{"devices": {"d": {"path": "x"}}}"#, "\"/devices/d/path\""),
        (r#"{"unheard": {}}"#, "\"/unheard\""),
    ] {
        let told = told("PUT", "/m/a", body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{body}: {told}");
    }
    assert_eq!(told("PUT", "/m", r#"{"ids": ["b", "a", "b"]}"#), "power on h/a,b");
    assert!(told("PUT", "/m", r#"{"ids": []}"#).contains("denied"));
    assert!(told("DELETE", "/m/a/x", r#"{"x": 1}"#).contains("\"/x\""), "a body where none belongs");
}

#[test]
fn a_body_is_read_before_it_is_decided_on_and_a_stream_is_not() {
    let table = Table::read(NESTED).unwrap();
    for (method, path, is_read_first) in [
        ("POST", "/m/a/action", true),
        ("PUT", "/m/a/state", true),
        ("PUT", "/m/a", true),
        ("DELETE", "/m/a/x", true),
        ("GET", "/m/a", false),
        ("POST", "/upload", false),
    ] {
        let at = canonical(path).unwrap();
        let asked = Asked { method, path: &at, query: None, upgrade: Upgrade::None, body: Body::Unread };
        let verdict = table.classify(&"h".parse().unwrap(), &asked);
        assert_eq!(verdict == Verdict::Unread, is_read_first, "{method} {path}: {verdict:?}");
    }
    let (at, form) = (canonical("/m/a").unwrap(), crate::classify::Form::default());
    let asked = Asked { method: "PUT", path: &at, query: None, upgrade: Upgrade::None, body: Body::Params(&form) };
    assert!(matches!(table.classify(&"h".parse().unwrap(), &asked), Verdict::Denied(_)));
}

#[test]
fn a_wrong_row_of_a_nested_table_is_refused() {
    let with = |more: &str| Table::read(&format!("{NESTED}\n{more}")).map(|_| ()).map_err(|e| e.to_string());
    let row = |more: &str| {
        with(&format!(
            "[[rule]]\noperations = [\"POST /m/{{id}}/action\"]\naction = \"power\"\nobject = \"machine\"\n\
             effect = \"unsafe\"\n{more}"
        ))
    };
    assert_eq!(row("only = \"stop\""), Ok(()));
    assert!(row("only = \"start\"").unwrap_err().contains("never match"));
    assert!(row("only = \"start\"\nsays = { \"/start\" = \"x\" }").unwrap_err().contains("never match"));
    assert!(row("only = \"stop\"\nbody = \"stream\"").unwrap_err().contains("chooses nothing"));
    for set in [
        "keys = [\"/a/**/b\"]",
        "keys = [\"/a\"]\nuse = \"keys\"",
        "keys = [\"/a\"]\nuse = \"volume\"",
        "keys = [\"a\"]\nunless = [\"null\"]",
        "keys = [\"/a\"]\nuse = \"refuse\"",
        "keys = [\"/a/*\"]\nexcept = [\"a/b\"]",
        "keys = [\"a\"]\nexcept = [\"/a\"]",
    ] {
        assert!(with(&format!("[[params]]\nset = \"s\"\n{set}")).is_err(), "{set}");
    }
    let opaque = NESTED.replace("bodies = \"json\"", "bodies = \"params\"");
    assert!(Table::read(&opaque).is_err(), "a body that is not read chooses nothing");
}
