// SPDX-License-Identifier: Apache-2.0
//! What pages do, done by a script that reads JSON.

use crate::support::{Person, TestGateway, page};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use std::{fs::File, process::Stdio};

const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"vm-1\"\n\
                   tags = [\"web\"]\nvnc = \"127.0.0.1:9\"\n";

/// Holds an answer against the schema that a document has for it.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(place) = schema["$ref"].as_str() {
        return fits(document, document.pointer(place.trim_start_matches('#')).expect("a schema"), value, at);
    }
    if let Some(either) = schema["oneOf"].as_array() {
        let schema = either.iter().find(|s| (s["type"] == "null") == value.is_null()).expect("one of them");
        return fits(document, schema, value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    assert!(kinds.contains(&kind.into()), "{at}: {value} is none of {kinds:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, at);
    }
    let Some(fields) = value.as_object() else { return };
    for (name, value) in fields {
        let known = schema["properties"].get(name);
        fits(
            document,
            known.unwrap_or_else(|| panic!("{at}: nothing is said of {name}")),
            value,
            &format!("{at}.{name}"),
        );
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(name.as_str().expect("a name")), "{at}: {name} is missing in {value}");
    }
}

/// Holds the answer of a door against the document.
pub(super) fn as_described(document: &Value, method: &str, path: &str, answer: &Value) {
    let operation = &document["paths"][path][method];
    fits(document, &operation["responses"]["200"]["content"]["application/json"]["schema"], answer, path);
}

async fn send(person: &Person<'_>, path: &str, body: &Value) -> (StatusCode, Value) {
    let csrf = page::csrf(&person.page("/me").await).expect("a token");
    let request = person.browser.post(format!("{}{path}", person.gateway.url()));
    let request = request.header(header::ORIGIN, person.gateway.url()).header("sec-fetch-site", "same-origin");
    let answer = request.header("x-csrf-token", csrf).json(body).send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_locks_and_effective_access_are_asked_and_answered_in_json() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    let wish = json!({ "role": "viewer", "on": "machine:lab/vm-1", "reason": "to look at it", "hours": 1 });
    // The document is there for anybody, and says what the doors answer.
    let document: Value =
        Person::stranger(&gateway, "nobody").get("/api/v1/openapi.json").await.json().await.expect("JSON");
    let (status, told) = send(&zoe, "/api/v1/requests", &wish).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    as_described(&document, "post", "/api/v1/requests", &told);
    let at = told["at"].as_str().expect("where it is").to_owned();
    assert!(at.starts_with("/requests/"), "{told}");
    let api = format!("/api/v1{at}");
    // What is wrong is a problem document, as everywhere.
    for (body, says) in [
        (json!({ "role": "viewer", "on": "machine:lab/vm-1", "reason": "to look at it", "hours": 1 }), "already"),
        (json!({ "role": "viewer", "on": "vm", "reason": "to look at it", "hours": 1 }), "Write what it is about"),
        (json!({ "role": "viewer", "on": "tag:web", "reason": "x", "hours": 1, "more": 1 }), "unknown"),
        (json!({ "role": ["viewer"], "on": "tag:web", "reason": "x", "hours": 1 }), "unknown"),
        (json!(7), "unknown"),
    ] {
        let (status, told) = send(&zoe, "/api/v1/requests", &body).await;
        assert!(
            status == StatusCode::BAD_REQUEST && told["detail"].as_str().is_some_and(|d| d.contains(says)),
            "{told}"
        );
        fits(&document, &json!({ "$ref": "#/components/schemas/Problem" }), &told, "a problem");
    }
    let (status, _) = send(&zoe, &format!("{api}/approve"), &json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "nobody decides on their own");
    ada.step_up().await;
    let (status, told) = send(&ada, &format!("{api}/approve"), &json!({ "reason": "yes" })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (status, told) = send(&zoe, &format!("{api}/begin"), &json!({})).await;
    assert_eq!((status, &told["told"]), (StatusCode::OK, &"You have access now.".into()), "{told}");

    for list in ["machines", "requests", "proposals", "locks", "hypervisors"] {
        let path = format!("/api/v1/{list}");
        let told: Value = ada.get(&path).await.json().await.expect("JSON");
        as_described(&document, "get", &path, &told);
    }
    let told: Value = ada.get("/api/v1/hypervisors/lab").await.json().await.expect("JSON");
    as_described(&document, "get", "/api/v1/hypervisors/{name}", &told);
    let user = gateway.user_id("zoe").await;
    let told: Value = ada.get(&format!("/api/v1/access?user={user}")).await.json().await.expect("JSON");
    as_described(&document, "get", "/api/v1/access", &told);
    assert_eq!(told["access"], json!([{ "on": "lab/vm-1", "may": [{ "action": "view", "last": null }] }]), "{told}");
    let told: Value = ada.get("/api/v1/access?on=lab/vm-1").await.json().await.expect("JSON");
    as_described(&document, "get", "/api/v1/access", &told);
    let who: Vec<&str> = told["access"].as_array().expect("rows").iter().filter_map(|r| r["who"].as_str()).collect();
    assert_eq!(who, ["ada", "zoe"], "{told}");
    for query in ["", "?user=x", "?on=lab/nothing", &format!("?user={user}&on=lab")] {
        assert_eq!(ada.get(&format!("/api/v1/access{query}")).await.status(), StatusCode::BAD_REQUEST, "{query}");
    }

    let lock = json!({ "kind": "machine", "value": "lab/vm-1", "reason": "evidence", "hours": 2 });
    assert_eq!(send(&zoe, "/api/v1/locks", &lock).await.0, StatusCode::FORBIDDEN);
    let (status, told) = send(&ada, "/api/v1/locks", &lock).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (status, _) = send(&ada, "/api/v1/locks", &json!({ "kind": "machine", "value": "lab", "reason": "x" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let list: Value = ada.get("/api/v1/locks").await.json().await.expect("JSON");
    as_described(&document, "get", "/api/v1/locks", &list);
    let id = list["locks"][0]["id"].as_str().expect("an id");
    assert_eq!(send(&ada, "/api/v1/locks/end", &json!({ "id": id })).await.0, StatusCode::OK);
    let (status, told) = send(&zoe, &format!("{api}/end"), &json!({ "reason": "seen" })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert!(gateway.grants_of("zoe").await.is_empty());
    // Without the token of the session nothing is sent from anywhere.
    let bare =
        zoe.browser.post(format!("{}/api/v1/requests", gateway.url())).json(&wish).send().await.expect("an answer");
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_whose_output_nobody_hears_does_all_that_it_does_and_says_so_by_its_exit_code() {
    let gateway = TestGateway::start(LAB).await;
    Person::first_administrator(&gateway, "ada").await;
    // A reader that has gone (`| head`), and a disk that is full.
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("a full disk"));
    let verbs: [(&str, &[&str]); 3] = [
        ("zoe", &["user", "service", "zoe"]),
        ("max", &["user", "service", "max"]),
        ("ivy", &["user", "service", "ivy", "--json"]),
    ];
    for (name, verb) in verbs {
        let (code, said) = gateway.shell_into(verb, if name == "zoe" { gone() } else { full() }).await;
        assert_eq!(code, Some(3), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert_eq!(said.contains("could not all be printed"), name != "zoe", "{name}: {said}");
        let (_, list) = gateway.shell(&["user", "list", "--json"]);
        assert!(list.contains(&format!("\"{name}\"")), "{name} was not added: {list}");
    }
    // No stays no, and what could not be done could not.
    for (verb, expected) in [(&["hypervisor", "remove", "nothing"][..], 1), (&["user", "disable", "nobody"], 2)] {
        let (code, _) = gateway.shell_into(verb, gone()).await;
        assert_eq!(code, Some(expected), "{verb:?}");
    }
    for verb in [&["user", "list"][..], &["audit", "verify"], &["audit", "search"]] {
        let (code, said) = gateway.shell_into(verb, gone()).await;
        assert_eq!((code, said.as_str()), (Some(3), ""), "{verb:?}");
    }
}
