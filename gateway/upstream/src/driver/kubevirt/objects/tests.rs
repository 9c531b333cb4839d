// SPDX-License-Identifier: Apache-2.0
use super::*;

const VMS: &str = "/apis/kubevirt.io/v1/virtualmachines";

fn cutter() -> Cutter {
    Cutter::new("kv".parse().unwrap(), "t/".to_owned())
}

/// Somebody who may see what has the tag `web`, and what the inventory knows as `blue:web-1`.
fn told(path: &str, answer: &Value, basis: Basis) -> Result<Cut, Fault> {
    let machine = |m: &Machine| m.tags.iter().any(|t| t == "web");
    let known = |m: &MachineId| m.as_str() == "blue:web-1";
    let gaze = Gaze { whole: false, machine: &machine, known: &known };
    cutter().answer(path, answer.to_string().as_bytes(), basis, &gaze)
}

fn shown(path: &str, answer: &Value) -> Value {
    match told(path, answer, Basis::Objects).unwrap() {
        Cut::Shown(value) => value,
        Cut::Hidden => json!("hidden"),
    }
}

fn vm(namespace: &str, name: &str, tag: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace, "labels": {tag: ""}}, "spec": {}})
}

#[test]
fn a_list_holds_what_may_be_seen_by_the_labels_that_came_with_it() {
    let list = json!({"kind": "VirtualMachineList", "apiVersion": "kubevirt.io/v1",
        "metadata": {"resourceVersion": "7", "continue": "cmVkL3BheXJvbGw", "remainingItemCount": 9},
        "items": [vm("blue", "new", "t/web"), vm("red", "payroll", "t/red"), vm("red", "x", "web"), "text", null,
            {"metadata": {"name": 7, "namespace": "blue"}}, {"metadata": {"labels": {"t/web": ""}}},
            {"metadata": {"name": "a:b", "namespace": "blue", "labels": {"t/web": ""}}}]});
    let mut shown = shown(VMS, &list);
    assert_eq!(shown["items"], json!([vm("blue", "new", "t/web")]));
    assert_eq!(Cutter::next(&mut shown).as_deref(), Some("cmVkL3BheXJvbGw"));
    assert_eq!(shown["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(Cutter::next(&mut shown), None);
    // What it calls itself decides nothing.
    let mut posing = list;
    posing["kind"] = json!("SecretList");
    assert_eq!(super::tests::shown(VMS, &posing)["items"].as_array().map(Vec::len), Some(1));
    for bad in [json!([]), json!("text"), json!({"items": {"a": 1}}), json!(null)] {
        assert!(told(VMS, &bad, Basis::Objects).is_err(), "{bad}");
    }
    assert!(
        cutter()
            .answer(VMS, b"<html>", Basis::Objects, &Gaze { whole: true, machine: &|_| true, known: &|_| true })
            .is_err()
    );
}

#[test]
fn what_belongs_to_a_machine_is_seen_with_it() {
    for (path, spec, seen) in [
        ("/apis/kubevirt.io/v1/namespaces/blue/virtualmachineinstancemigrations/m", json!({"vmiName": "web-1"}), true),
        ("/apis/kubevirt.io/v1/namespaces/blue/virtualmachineinstancemigrations/m", json!({"vmiName": "db"}), false),
        (
            "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinesnapshots/m",
            json!({"source": {"kind": "VirtualMachine", "name": "web-1"}}),
            true,
        ),
        (
            "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinesnapshots/m",
            json!({"source": {"kind": "Other", "name": "web-1"}}),
            false,
        ),
        (
            "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinesnapshotcontents/m",
            json!({"source": {"virtualMachine": {"metadata": {"name": "web-1"}}}}),
            true,
        ),
        (
            "/apis/export.kubevirt.io/v1/namespaces/blue/virtualmachineexports/m",
            json!({"source": {"name": "web-1"}}),
            false,
        ),
        ("/apis/pool.kubevirt.io/v1beta1/namespaces/blue/virtualmachinepools/web-1", json!({}), false),
        ("/apis/kubevirt.io/v1/namespaces/blue/virtualmachineinstances/web-1", json!({}), false),
    ] {
        let object = json!({"kind": "X", "metadata": {"name": "m", "namespace": "blue"}, "spec": spec});
        assert_eq!(told(path, &object, Basis::Objects).unwrap() != Cut::Hidden, seen, "{path} {object}");
        let elsewhere = json!({"kind": "X", "metadata": {"name": "m", "namespace": "red"}, "spec": spec});
        assert_eq!(told(path, &elsewhere, Basis::Objects).unwrap(), Cut::Hidden, "{path}");
        assert_ne!(told(path, &elsewhere, Basis::Decided).unwrap(), Cut::Hidden, "it was decided on");
    }
}

#[test]
fn a_tables_rows_are_left_out_by_the_objects_in_them() {
    let table = json!({"kind": "Table", "metadata": {}, "columnDefinitions": [{"name": "Name"}], "rows": [
        {"cells": ["web"], "object": vm("blue", "web", "t/web")},
        {"cells": ["payroll"], "object": vm("red", "payroll", "t/red")},
        {"cells": ["payroll"]},
        {"cells": ["payroll"], "object": null},
    ]});
    let rows = shown(VMS, &table)["rows"].clone();
    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "web", "namespace": "blue", "labels": {"t/web": ""}}});
    assert_eq!(rows, json!([{"cells": ["web"], "object": object}]));
}

#[test]
fn secrets_are_cut_wherever_they_stand() {
    let object = json!({"kind": "VirtualMachine", "metadata": {"name": "web-1", "namespace": "blue", "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{\"spec\":{\"v\":[{\"userData\":\"canary\"}],\"a\":1}}",
            "kubevirt.io/ignitiondata": "canary", "note": "userData"}},
        "spec": {"volumes": [{"cloudInitNoCloud": {"userData": "canary", "secretRef": {"name": "s"}, "userDataBase64": ""}},
            {"cloudInitConfigDrive": {"networkData": "canary", "networkDataBase64": "canary"}},
            {"secret": {"secretName": "kept"}}]},
        "status": {"nested": [{"password": "canary", "token": "canary", "tokenSecretRef": "kept"}]}});
    let shown = match told(&format!("{VMS}/web-1"), &object, Basis::Decided).unwrap() {
        Cut::Shown(value) => value,
        Cut::Hidden => panic!("hidden"),
    };
    let text = shown.to_string();
    assert!(!text.contains("canary") && text.matches(Cutter::CUT).count() == 7, "{text}");
    assert_eq!(shown["spec"]["volumes"][2]["secret"]["secretName"], "kept");
    assert_eq!(shown["spec"]["volumes"][0]["cloudInitNoCloud"]["secretRef"]["name"], "s");
    assert_eq!(shown["metadata"]["annotations"]["note"], "userData");
    // Not even for who may see everything.
    let gaze = Gaze { whole: true, machine: &|_| true, known: &|_| true };
    let Ok(Cut::Shown(whole)) = cutter().answer(VMS, object.to_string().as_bytes(), Basis::Objects, &gaze) else {
        panic!("shown")
    };
    assert!(!whole.to_string().contains("canary"));
    // What cannot be read in an annotation goes as a whole.
    let odd = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{canary"}}});
    let gaze = Gaze { whole: true, machine: &|_| true, known: &|_| true };
    let Ok(Cut::Shown(odd)) = cutter().answer(VMS, odd.to_string().as_bytes(), Basis::Objects, &gaze) else {
        panic!("shown")
    };
    assert!(!odd.to_string().contains("canary"));
}

#[test]
fn what_kubectl_wrote_last_is_left_to_the_letter_unless_something_stands_in_it() {
    let shown = |text: &str| {
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": text});
        let object = json!({"kind": "VirtualMachine", "metadata": {"name": "web-1", "namespace": "blue", "annotations": annotations}});
        let Cut::Shown(value) = told(&format!("{VMS}/web-1"), &object, Basis::Decided).unwrap() else {
            panic!("hidden")
        };
        value["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for same in ["{\"a\":1,\"b\":[\"x\"]}\n", "{\"a\":\"\\u003cb\\u003e \\u0026 c\"}\n", "{}"] {
        assert_eq!(shown(same), same);
    }
    for twice in ["{\"userData\":\"canary\",\"userData\":\"\"}", "{\"a\":{\"token\":\"canary\"},\"a\":1}\n"] {
        let text = shown(twice);
        assert!(!text.contains("canary"), "{text}");
    }
    assert_eq!(shown("{\"token\":\"canary\"}\n"), format!("{{\"token\":\"{}\"}}", Cutter::CUT));
}

#[test]
fn what_is_shown_to_others_and_written_as_text_is_cut_too() {
    let url = |url: &str| json!({"source": {"http": {"url": url}}});
    let object = json!({"kind": "VirtualMachine", "metadata": {"name": "web-1", "namespace": "blue"}, "spec": {
        "dataVolumeTemplates": [
            {"spec": {"source": {"http": {"url": "https://images/kept", "secretExtraHeaders": ["kept"],
                "extraHeaders": ["Authorization: Basic canary", "X-Token: canary"]}}}},
            {"spec": url("https://user:canary@images/x")}, {"spec": url("docker://canary@images/x?y=@")},
            {"spec": url("https://images/kept?mail=a@b#@")}, {"spec": url("canary@images:1/x")}],
        "template": {"spec": {"readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [
            {"name": "Authorization", "value": "canary"}, {"name": "Host", "value": "canary"}]}}}},
        "customizeComponents": {"patches": [{"resourceName": "canary", "patch": "{\"password\":\"canary\"}"}, "canary"]},
        "patches": ["{\"op\":\"add\",\"path\":\"/spec/x/userData\",\"value\":\"canary\"}"]}});
    for basis in [Basis::Decided, Basis::Objects] {
        let gaze = Gaze { whole: true, machine: &|_| true, known: &|_| true };
        let path = format!("{VMS}/web-1");
        let Ok(Cut::Shown(shown)) = cutter().answer(&path, object.to_string().as_bytes(), basis, &gaze) else {
            panic!("shown")
        };
        let text = shown.to_string();
        assert!(!text.contains("canary") && text.matches(Cutter::CUT).count() == 10, "{text}");
        assert_eq!(text.matches("kept").count(), 3, "{text}");
        let headers = &shown["spec"]["template"]["spec"]["readinessProbe"]["httpGet"]["httpHeaders"];
        assert_eq!(headers[0], json!({"name": "Authorization", "value": Cutter::CUT}));
        // What a list holds is cut as well.
        let list = json!({"kind": "VirtualMachineList", "items": [object.clone()]});
        let Ok(Cut::Shown(list)) = cutter().answer(VMS, list.to_string().as_bytes(), basis, &gaze) else {
            panic!("shown")
        };
        assert!(!list.to_string().contains("canary"), "{list}");
    }
}

#[test]
fn of_the_cluster_only_kubevirts_part_is_found() {
    let group = |name: &str, versions: &[&str]| {
        let all: Vec<Value> =
            versions.iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
        json!({"name": name, "versions": all, "preferredVersion": all[0], "serverAddressByClientCIDRs": []})
    };
    let groups = json!({"kind": "APIGroupList", "groups": [group("apps", &["v1"]), group("kubevirt.io", &["v2", "v1"]),
        group("cdi.kubevirt.io", &["v1beta1"])]});
    let found = shown("/apis", &groups);
    assert_eq!(found["groups"].as_array().map(Vec::len), Some(1));
    let own = json!({"groupVersion": "kubevirt.io/v1", "version": "v1"});
    assert_eq!(found["groups"][0], json!({"name": "kubevirt.io", "versions": [own], "preferredVersion": own}));
    let core =
        json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"serverAddress": "x"}]});
    assert_eq!(shown("/api", &core), json!({"kind": "APIVersions", "versions": []}));
    let items = json!({"kind": "APIGroupDiscoveryList", "items": [
        {"metadata": {"name": ""}, "versions": [{"version": "v1"}]},
        {"metadata": {"name": "kubevirt.io"}, "versions": [{"version": "v1"}, {"version": "v1alpha3"}]},
        {"metadata": {"name": "apps"}, "versions": [{"version": "v1"}]}]});
    assert_eq!(
        shown("/apis", &items)["items"],
        json!([{"metadata": {"name": "kubevirt.io"}, "versions": [{"version": "v1"}]}])
    );
    for (path, object) in [
        ("/apis/kubevirt.io", json!({"kind": "APIGroup", "name": "apps", "versions": [{"groupVersion": "apps/v1"}]})),
        ("/apis/kubevirt.io/v1", json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": []})),
    ] {
        assert_eq!(told(path, &object, Basis::Objects).unwrap(), Cut::Hidden);
    }
    let index = json!({"paths": {"apis/kubevirt.io/v1": {"a": 1}, "apis/apps/v1": {"b": 1}, "api/v1": {}}});
    assert_eq!(shown("/openapi/v3", &index), json!({"paths": {"apis/kubevirt.io/v1": {"a": 1}}}));
    let of = |name: &str| json!({"get": {"schema": {"$ref": format!("#/definitions/{name}")}}});
    let whole = json!({"swagger": "2.0", "paths": {"/apis/kubevirt.io/v1/x": of("A"), "/api/v1/secrets": of("Secret")},
        "definitions": {"A": {"p": {"$ref": "#/definitions/B"}}, "B": {"p": {"$ref": "#/definitions/A"}}, "Secret": {}}});
    let cut = shown("/openapi/v2", &whole);
    let names: Vec<&str> = cut["definitions"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((names, cut["paths"].as_object().map(Map::len)), (vec!["A", "B"], Some(1)));
}
