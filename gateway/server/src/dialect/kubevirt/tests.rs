// SPDX-License-Identifier: Apache-2.0
use super::*;
use http::Uri;
use portcullis_domain::{ConsoleKind, MachineKind, PowerState};
use portcullis_policy::classify::{ApiKind, Asked, Body, Table};

const VM: &str = "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines";
const OWN: &str = "configure on kv/blue:web-1";
const ACCESS: &str = "access-admin on kv";

fn told(method: &Method, path: &str, media: &str, body: &str) -> String {
    let machine = Machine {
        at: "kv/blue:web-1".parse().expect("a machine"),
        name: "web-1".into(),
        kind: MachineKind::Guest,
        state: PowerState::Off,
        pool: Some("blue".into()),
        tags: vec!["env=prod".into(), "web".into()],
        node: None,
        console: ConsoleKind::Vnc,
    };
    let name = machine.at.hypervisor.clone();
    let inventory = Inventory::default().with(&name, vec![machine]);
    let table = Table::builtin(ApiKind::Kubevirt);
    let path = classify::canonical(path).expect("a path");
    let said = table.read_body(Some(media), body.as_bytes()).expect("a body");
    let Body::Json(json) = said.said() else { panic!("nested JSON") };
    let asked = Asked { method: method.as_str(), path: &path, query: None, upgrade: Upgrade::None, body: said.said() };
    let cutter = Cutter::new(name.clone(), "t/".to_owned());
    match settle(table.classify(&name, &asked), json, &cutter, &inventory) {
        Verdict::Operation { operation, also, .. } => {
            std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
        }
        Verdict::Denied(why) => format!("denied: {why}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn labels_ask_for_access_only_where_the_tags_become_others() {
    let at = format!("{VM}/web-1");
    let merge = |labels: &str| {
        told(&Method::PATCH, &at, "application/merge-patch+json", &format!(r#"{{"metadata":{{"labels":{labels}}}}}"#))
    };
    for same in [r#"{"app": "x"}"#, r#"{"t/web": ""}"#, r#"{"t/web": "true", "t/env": "prod"}"#, r#"{"app": null}"#] {
        assert_eq!(merge(same), OWN, "{same}");
    }
    for other in [r#"{"t/web": null}"#, r#"{"t/env": "test"}"#, r#"{"t/db": ""}"#, "{}", "null"] {
        assert_eq!(merge(other), format!("{OWN} + {ACCESS}"), "{other}");
    }
    let steps = |op: &str, path: &str, value: &str| {
        let value = if value.is_empty() { String::new() } else { format!(r#", "value": {value}"#) };
        let body = format!(r#"[{{"op": "{op}", "path": "{path}"{value}}}]"#);
        told(&Method::PATCH, &at, "application/json-patch+json", &body)
    };
    assert_eq!(steps("add", "/metadata/labels/t~1web", "\"\""), OWN);
    assert_eq!(steps("add", "/metadata/labels/app", "\"x\""), OWN);
    for (op, path, value) in [
        ("remove", "/metadata/labels/t~1web", ""),
        ("add", "/metadata/labels/t~1db", "\"\""),
        ("replace", "/metadata/labels", r#"{"t/web": "", "t/env": "prod"}"#),
        ("remove", "/metadata/labels", ""),
    ] {
        assert_eq!(steps(op, path, value), format!("{OWN} + {ACCESS}"), "{op} {path}");
    }
}

#[test]
fn the_whole_of_a_machine_takes_away_what_it_does_not_name() {
    let at = format!("{VM}/web-1");
    for (method, media) in [(Method::PUT, "application/json"), (Method::PATCH, "application/apply-patch+yaml")] {
        let whole = |labels: &str| told(&method, &at, media, &format!(r#"{{"metadata":{{"labels":{labels}}}}}"#));
        // With the same labels, too: what else it does not name goes away as well.
        for labels in [r#"{"t/web": "true", "t/env": "prod", "app": "x"}"#, r#"{"t/web": ""}"#, "{}"] {
            let said = whole(labels);
            let all = said.contains(OWN) && said.contains(ACCESS) && said.contains("node-admin on kv");
            assert!(all, "{method} {labels}: {said}");
        }
        let said = told(&method, &at, media, r#"{"metadata":{"annotations":{"a":"b"}}}"#);
        assert!(said.contains(OWN) && said.contains(ACCESS), "{method}: {said}");
    }
    // A machine that is not known has no tags that could be the same.
    let said =
        told(&Method::PUT, &format!("{VM}/web-2"), "application/json", r#"{"metadata":{"labels":{"t/web":""}}}"#);
    assert!(said.starts_with(ACCESS), "{said}");
    // Applied under its name, it would be made.
    let body = r#"{"metadata":{"annotations":{"a":"b"}}}"#;
    let said = told(&Method::PATCH, &format!("{VM}/web-2"), "application/apply-patch+yaml", body);
    assert!(said.split(" + ").any(|one| one == "create on kv"), "{said}");
    let said = told(&Method::PATCH, &format!("{VM}/web-1"), "application/apply-patch+yaml", body);
    assert!(!said.contains("create on kv"), "{said}");
    let said = told(&Method::PATCH, &format!("{VM}/web-2"), "application/merge-patch+json", body);
    assert!(!said.contains("create on kv"), "a change of what is not there makes nothing: {said}");
}

#[test]
fn a_new_machine_with_tags_gives_access() {
    let made =
        |labels: &str| told(&Method::POST, VM, "application/json", &format!(r#"{{"metadata":{{"labels":{labels}}}}}"#));
    assert_eq!(made(r#"{"app": "x"}"#), "create on kv");
    assert_eq!(made(r#"{"t/web": ""}"#), format!("create on kv + {ACCESS}"));
    // Of a snapshot they give none.
    let snapshots = "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinesnapshots";
    let body = r#"{"metadata":{"labels":{"t/db":""}},"spec":{"source":{"kind":"VirtualMachine","name":"web-1"}}}"#;
    assert_eq!(told(&Method::POST, snapshots, "application/json", body), "snapshot on kv/blue:web-1");
}

#[test]
fn what_stands_for_a_secret_is_not_written_over_it() {
    let body = r#"{"spec":{"template":{"spec":{"volumes":[{"name":"v","cloudInitNoCloud":{"userData":"CUT"}}]}}}}"#;
    let said =
        told(&Method::PATCH, &format!("{VM}/web-1"), "application/merge-patch+json", &body.replace("CUT", Cutter::CUT));
    assert!(said.starts_with("denied") && said.contains("stands for a secret"), "{said}");
}

#[test]
fn what_can_be_cut_is_all_that_is_accepted() {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (said, sent) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/vnd.kubernetes.protobuf,application/json", "application/json"),
        ("application/vnd.kubernetes.protobuf", "application/json"),
        (&format!("{table},application/json"), &format!("{table},application/json")),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json"),
        ("application/yaml, text/html", "application/json"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, said.parse().expect("a value"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let shape = negotiate(&mut headers);
        assert_eq!(
            (&headers[header::ACCEPT], headers.len()),
            (&HeaderValue::from_str(sent).expect("a value"), 1),
            "{said}"
        );
        assert_eq!(shape == Shape::Table, said.contains("Table"), "{said}");
    }
}

#[test]
fn a_query_is_written_anew_from_what_was_decided_on() {
    let sent = |query: &str| {
        let uri = format!("/a?{query}").parse::<Uri>().expect("an address");
        let mut request = Request::new(Sent::Whole(Full::default()));
        *request.uri_mut() = uri;
        rewrite(&mut request, "/a", &[("limit", "500")]).map(|()| request.uri().to_string()).ok()
    };
    assert_eq!(sent("labelSelector=a%3Db&limit=1").as_deref(), Some("/a?labelSelector=a%3Db&limit=500"));
    assert_eq!(sent("l%69mit=1").as_deref(), Some("/a?limit=500"));
    assert_eq!(sent("a=b+c&d"), Some("/a?a=b%20c&d=&limit=500".to_owned()));
    assert_eq!(sent("limit=1&limit=2"), None);
    for (query, watches) in [
        (None, Some(false)),
        (Some("watch=0"), Some(false)),
        (Some("watch=false"), Some(false)),
        (Some("watch"), Some(true)),
        (Some("w%61tch=1"), Some(true)),
        (Some("watch=true"), Some(true)),
        (Some("watch=True"), Some(true)),
        (Some("watch=False"), Some(false)),
        (Some("watch=yes"), None),
    ] {
        let pairs = classify::read_pairs(query).expect("pairs");
        assert_eq!(asks(&pairs, "watch"), watches, "{query:?}");
    }
}

#[test]
fn a_list_is_told_by_its_path() {
    let list = |path: &str| is_list(&classify::canonical(path).expect("a path"));
    for path in ["/apis/kubevirt.io/v1/virtualmachines", VM, "/apis/migrations.kubevirt.io/v1alpha1/migrationpolicies"]
    {
        assert!(list(path), "{path}");
    }
    for path in [
        "/apis",
        "/apis/kubevirt.io/v1",
        "/openapi/v3/apis/kubevirt.io/v1",
        &format!("{VM}/web-1"),
        "/apis/subresources.kubevirt.io/v1/namespaces/blue/expand-vm-spec",
        "/apis/subresources.kubevirt.io/v1/namespaces/blue/virtualmachineinstances/web-1/userlist",
    ] {
        assert!(!list(path), "{path}");
    }
}

#[test]
fn a_token_has_no_place_in_a_subprotocol() {
    let fits = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, value.parse().expect("a value"));
        }
        check(&headers).is_ok()
    };
    assert!(fits(&[]) && fits(&["plain.kubevirt.io"]));
    for bad in [
        &["base64url.bearer.authorization.k8s.io.eA"][..],
        &["plain.kubevirt.io, base64url.bearer.authorization.k8s.io.eA"],
        &["plain.kubevirt.io", "base64url.bearer.authorization.k8s.io.eA"],
        &["v4.channel.k8s.io"],
    ] {
        assert!(!fits(bad), "{bad:?}");
    }
}
