// SPDX-License-Identifier: Apache-2.0
//! What the table of KubeVirt's API says.

use super::*;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/kubevirt-operations.txt");
const VM: &str = "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines";
const SUB: &str = "/apis/subresources.kubevirt.io/v1/namespaces/blue";
const OWN: &str = "configure on kv/blue:web-1";
const NODE: &str = "node-admin on kv";

fn ask(method: &str, target: &str, media: &str, body: &str) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let table = Table::read(KUBEVIRT).unwrap();
    let content = match table.read_body(Some(media), body.as_bytes()) {
        Ok(content) => content,
        Err(why) => return Verdict::Denied(why.into()),
    };
    let streams = ["/vnc", "/console", "/usbredir", "/vsock"].iter().any(|end| path.as_str().ends_with(end));
    let streams = streams || path.as_str().contains("/portforward/");
    let upgrade = if streams { Upgrade::WebSocket } else { Upgrade::None };
    let asked = Asked { method, path: &path, query, upgrade, body: content.said() };
    table.classify(&"kv".parse().unwrap(), &asked)
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Operation { operation, also, .. } => {
            std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
        }
        Verdict::Visible { hypervisor, answer } => format!("visible of {hypervisor} ({answer:?})"),
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{other:?}"),
    }
}

fn told(method: &str, target: &str, body: &str) -> String {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    words(ask(method, target, media, body))
}

fn patched(body: &str) -> String {
    told("PATCH", &format!("{VM}/web-1"), body)
}

#[test]
fn every_operation_of_the_api_has_a_verdict_of_its_own() {
    let table = Table::read(KUBEVIRT).unwrap();
    let (mut known, mut denied, mut viewing, mut wrong) = (0, 0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let (method, pattern) = line.split_once(' ').unwrap();
        // The last row of several is the one without a condition.
        let entry = table.entries().iter().rfind(|e| e.method == method && e.pattern == pattern);
        let Some(entry) = entry else {
            wrong.push(format!("{line}: no row"));
            continue;
        };
        let place = |p: &str| match p {
            "{namespace}" => "blue".to_owned(),
            "{name}" => "web-1".to_owned(),
            "{port}" => "22".to_owned(),
            other => other.replace(['{', '}'], ""),
        };
        let path = pattern.split('/').map(place).collect::<Vec<_>>().join("/");
        // What makes something for a machine names it in its body.
        let body = match (method, pattern.rsplit('/').next().unwrap()) {
            ("POST", "virtualmachinesnapshots" | "virtualmachineexports" | "virtualmachinebackups") => {
                r#"{"spec": {"source": {"kind": "VirtualMachine", "name": "web-1"}}}"#
            }
            ("POST", "virtualmachinerestores") => {
                r#"{"spec": {"target": {"kind": "VirtualMachine", "name": "web-1"}}}"#
            }
            ("POST", "virtualmachineinstancemigrations") => r#"{"spec": {"vmiName": "web-1"}}"#,
            _ => "",
        };
        match (entry.action, ask(method, &path, "application/json", body)) {
            (Some(action), Verdict::Operation { operation, .. }) if action == operation.action => {
                known += 1;
                let views = action == Action::View || operation.effect == Effect::Safe;
                viewing += u32::from(views);
                if views && method != "GET" {
                    wrong.push(format!("{line}: a change that is a view"));
                }
            }
            (Some(Action::View), Verdict::Visible { .. }) if method == "GET" => {
                known += 1;
                viewing += 1;
            }
            (None, Verdict::Denied(why)) if !why.contains("does not know") => denied += 1,
            (_, got) => wrong.push(format!("{line}: {got:?}")),
        }
    }
    println!(
        "KubeVirt: {known} operations asked for, {viewing} of them views, {denied} denied with a reason, {} without a verdict",
        wrong.len()
    );
    assert_eq!(wrong, [""; 0]);
    assert_eq!(known + denied, 293);
}

#[test]
fn a_get_that_does_more_than_look_is_no_view() {
    for (target, what) in [
        ("virtualmachineinstances/web-1/vnc?preserveSession=true", "console.control"),
        ("virtualmachineinstances/web-1/vnc/screenshot", "console.screenshot"),
        ("virtualmachineinstances/web-1/usbredir", "console.usb"),
        ("virtualmachineinstances/web-1/vsock?port=22&tls=true", "guest-exec"),
        ("virtualmachineinstances/web-1/portforward/22", "guest-exec"),
        ("virtualmachines/web-1/portforward/22/udp", "guest-exec"),
        ("virtualmachineinstances/web-1/userlist", "view"),
    ] {
        assert_eq!(told("GET", &format!("{SUB}/{target}"), ""), format!("{what} on kv/blue:web-1"), "{target}");
    }
    // It takes the screen away from whoever has it, and is a screen with a keyboard all the same. A serial console cannot be
    // asked for in another way.
    for more in ["vnc", "vnc?preserveSession=false", "vnc?preserveSession=1", "console"] {
        let said = told("GET", &format!("{SUB}/virtualmachineinstances/web-1/{more}"), "");
        assert_eq!(said, "console.control on kv/blue:web-1 + console.takeover on kv/blue:web-1", "{more}");
    }
    for path in ["/start-profiler", "/apis/subresources.kubevirt.io/v1/start-cluster-profiler"] {
        assert_eq!(told("GET", path, ""), NODE);
    }
}

#[test]
fn nothing_of_the_cluster_passes_but_kubevirts_part() {
    for path in ["/api", "/apis", "/version", "/openapi/v2", "/apis/kubevirt.io", "/apis/kubevirt.io/v1"] {
        assert_eq!(told("GET", &format!("{path}?timeout=32s"), ""), "visible of kv (Objects)", "{path}");
    }
    for target in [VM, "/apis/kubevirt.io/v1/virtualmachines"] {
        let target = format!("{target}?limit=500&labelSelector=app%3Dweb&watch=true&resourceVersion=7");
        assert_eq!(told("GET", &target, ""), "visible of kv (Objects)");
    }
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/api/v1"),
        ("GET", "/api/v1/namespaces/blue/secrets"),
        ("GET", "/api/v1/namespaces/blue/pods/p/exec"),
        ("GET", "/apis/apps/v1"),
        ("GET", "/apis/apps/v1/namespaces/blue/deployments"),
        ("GET", "/apis/kubevirt.io/v1alpha3"),
        ("GET", "/apis/cdi.kubevirt.io/v1beta1"),
        ("GET", "/openapi/v3/api/v1"),
        ("GET", "/metrics"),
        ("GET", "/apis/kubevirt.io/v1/watch/virtualmachines"),
        ("GET", "/apis/kubevirt.io/v1/virtualmachines?continue=x"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines/web-1?watch=true"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines/web-1/status"),
        ("PUT", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines/web-1/status"),
        ("POST", "/apis/kubevirt.io/v1/virtualmachines"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines/a:b"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/a:b/virtualmachines/c"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/Blue/virtualmachines/web"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ] {
        let said = told(method, path, "");
        assert!(said.starts_with("denied: "), "{method} {path}: {said}");
    }
}

#[test]
fn what_reaches_the_node_or_a_secret_asks_for_more_than_the_machine() {
    let spec = |inside: &str| patched(&format!(r#"{{"spec": {{"template": {{"spec": {inside}}}}}}}"#));
    let devices = |inside: &str| spec(&format!(r#"{{"domain": {{"devices": {inside}}}}}"#));
    let volume = |inside: &str| spec(&format!(r#"{{"volumes": [{{"name": "v", {inside}}}]}}"#));
    let node = format!("{OWN} + {NODE}");
    let disk = format!("{OWN} + storage on kv/blue:web-1");
    for (said, what) in [
        (patched(r#"{"spec": {"runStrategy": "Always"}}"#), format!("{OWN} + power on kv/blue:web-1")),
        (patched(r#"{"spec": {"running": null}}"#), format!("{OWN} + power on kv/blue:web-1")),
        (patched(r#"{"metadata": {"annotations": {"note": "x"}}}"#), OWN.to_owned()),
        (patched(r#"{"metadata": {"labels": {"tag.portcullis/web": ""}}}"#), format!("{OWN} + access-admin on kv")),
        (patched(r#"{"metadata": {"labels": null}}"#), format!("{OWN} + access-admin on kv")),
        (patched(r#"{"metadata": {"finalizers": []}}"#), node.clone()),
        // The list as a whole: every other one would be gone.
        (patched(r#"{"metadata": {"finalizers": ["kubevirt.io/virtualMachineControllerFinalize"]}}"#), node.clone()),
        (devices("null"), node.clone()),
        (devices(r#"{"autoattachPodInterface": true}"#), format!("{OWN} + network on kv/blue:web-1")),
        (patched(r#"{"metadata": {"ownerReferences": [{"kind": "X", "name": "y"}]}}"#), node.clone()),
        (patched(r#"{"spec": {"instancetype": {"name": "gpu"}}}"#), node.clone()),
        (patched(r#"{"spec": {"preference": null}}"#), node.clone()),
        (
            patched(
                r#"{"spec": {"template": {"metadata": {"annotations": {"hooks.kubevirt.io/hookSidecars": "[]"}}}}}"#,
            ),
            node.clone(),
        ),
        (
            patched(r#"{"spec": {"template": {"metadata": {"labels": {"app": "db"}}}}}"#),
            format!("{OWN} + network on kv/blue:web-1"),
        ),
        (spec(r#"{"nodeSelector": {"kubernetes.io/hostname": "n1"}}"#), node.clone()),
        (spec(r#"{"tolerations": [{"operator": "Exists"}]}"#), node.clone()),
        (
            spec(r#"{"accessCredentials": [{"userPassword": {"source": {"secret": {"secretName": "s"}}}}]}"#),
            node.clone(),
        ),
        (spec(r#"{"livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80}}}"#), node.clone()),
        (spec(r#"{"readinessProbe": {"exec": {"command": ["id"]}}}"#), format!("{OWN} + guest-exec on kv/blue:web-1")),
        (devices(r#"{"hostDevices": [{"name": "d", "deviceName": "x"}]}"#), node.clone()),
        (devices(r#"{"gpus": [{"name": "g", "deviceName": "x"}]}"#), node.clone()),
        (
            devices(r#"{"interfaces": [{"name": "n", "sriov": {}}]}"#),
            format!("{OWN} + network on kv/blue:web-1 + {NODE}"),
        ),
        (devices(r#"{"interfaces": [{"name": "n", "masquerade": {}}]}"#), format!("{OWN} + network on kv/blue:web-1")),
        (devices(r#"{"disks": [{"name": "v", "disk": {"bus": "virtio"}}]}"#), disk.clone()),
        (devices(r#"{"rng": {}}"#), OWN.to_owned()),
        (volume(r#""hostDisk": {"path": "/etc/shadow", "type": "Disk"}"#), format!("{disk} + {NODE}")),
        (volume(r#""serviceAccount": {"serviceAccountName": "admin"}"#), format!("{disk} + {NODE}")),
        (volume(r#""secret": {"secretName": "s"}"#), format!("{disk} + {NODE}")),
        (volume(r#""containerDisk": {"image": "evil.example/x"}"#), format!("{disk} + storage on kv")),
        (volume(r#""persistentVolumeClaim": {"claimName": "payroll"}"#), format!("{disk} + storage on kv")),
        (volume(r#""emptyDisk": {"capacity": "1Gi"}"#), disk.clone()),
        (volume(r#""cloudInitNoCloud": {"userData": "x"}"#), format!("{disk} + guest-exec on kv/blue:web-1")),
        (volume(r#""cloudInitNoCloud": {"secretRef": {"name": "s"}}"#), format!("{disk} + {NODE}")),
        (spec(r#"{"domain": {"cpu": {"cores": 4}, "memory": {"guest": "2Gi"}}}"#), OWN.to_owned()),
        (spec(r#"{"domain": {"cpu": {"dedicatedCpuPlacement": true}}}"#), node.clone()),
        (spec(r#"{"domain": {"firmware": {"kernelBoot": {"container": {"image": "x"}}}}}"#), node),
        (
            spec(r#"{"networks": [{"name": "n", "multus": {"networkName": "red/net"}}]}"#),
            format!("{OWN} + network on kv/blue:web-1 + network on kv"),
        ),
    ] {
        assert_eq!(said, what);
    }
    // A device by the name of a resource, a field that is new, another spelling, and the whole of something.
    for bad in [
        r#"{"domain": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}"#,
        r#"{"domain": {"devices": {"unheardOf": true}}}"#,
        r#"{"domain": {"devices": {"HostDevices": [{"deviceName": "x"}]}}}"#,
        r#"{"Volumes": [{"name": "v"}]}"#,
        "null",
    ] {
        let said = spec(bad);
        assert!(said.contains("does not know") && said.starts_with("denied"), "{bad}: {said}");
    }
}

#[test]
fn a_patch_is_read_like_what_it_makes() {
    let steps = |body: &str| words(ask("PATCH", &format!("{VM}/web-1"), "application/json-patch+json", body));
    assert_eq!(
        steps(r#"[{"op": "replace", "path": "/spec/running", "value": true}]"#),
        format!("{OWN} + power on kv/blue:web-1")
    );
    assert_eq!(
        steps(r#"[{"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"hostDisk": {"path": "/"}}}]"#),
        format!("{OWN} + storage on kv/blue:web-1 + {NODE}")
    );
    for access in ["/metadata/labels/tag.portcullis~1web", "/metadata/labels"] {
        let body = format!(r#"[{{"op": "remove", "path": "{access}"}}]"#);
        assert_eq!(steps(&body), format!("{OWN} + access-admin on kv"), "{access}");
    }
    // What is replaced whole says nothing of what it takes away.
    for whole in ["/metadata", "/spec", "/spec/template", "/spec/template/spec", ""] {
        let body = format!(r#"[{{"op": "replace", "path": "{whole}", "value": {{}}}}]"#);
        assert!(steps(&body).starts_with("denied"), "{whole}");
    }
    for media in ["application/strategic-merge-patch+json", "application/vnd.kubernetes.protobuf", "application/yaml"] {
        let said = words(ask("PATCH", &format!("{VM}/web-1"), media, "{}"));
        assert!(said.starts_with("denied"), "{media}: {said}");
    }
}

#[test]
fn making_and_replacing_ask_for_what_the_body_brings() {
    let body = r#"{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "n"},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"volumes": [{"name": "v", INSIDE}]}}}}"#;
    let made = |inside: &str| told("POST", VM, &body.replace("INSIDE", inside));
    // Whoever makes a machine says what runs in it.
    let init = r#""cloudInitNoCloud": {"userData": "x"}"#;
    assert_eq!(made(init), "create on kv + power on kv + storage on kv");
    assert_eq!(made(r#""hostDisk": {"path": "/"}"#), format!("create on kv + power on kv + storage on kv + {NODE}"));
    let put = told("PUT", &format!("{VM}/web-1"), &body.replace("INSIDE", init));
    let all = ["access-admin on kv", OWN, "power on kv/blue:web-1", "guest-exec on kv/blue:web-1"];
    assert!(all.iter().all(|a| put.contains(a)), "{put}");
    assert_eq!(told("DELETE", &format!("{VM}/web-1?propagationPolicy=Background"), ""), "destroy on kv/blue:web-1");
    assert_eq!(told("DELETE", &format!("{VM}?labelSelector=a"), ""), "destroy on kv");
}

#[test]
fn what_belongs_to_a_machine_is_asked_of_the_machine_that_its_body_names() {
    let snapshots = "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinesnapshots";
    let of = |kind: &str, name: &str| {
        let body =
            format!(r#"{{"metadata": {{"name": "s"}}, "spec": {{"source": {{"kind": "{kind}", "name": "{name}"}}}}}}"#);
        told("POST", snapshots, &body)
    };
    assert_eq!(of("VirtualMachine", "web-1"), "snapshot on kv/blue:web-1");
    for (kind, name) in [("PersistentVolumeClaim", "web-1"), ("VirtualMachine", "red:payroll"), ("VirtualMachine", "")]
    {
        assert!(of(kind, name).starts_with("denied"), "{kind} {name}");
    }
    assert!(told("POST", snapshots, r#"{"metadata": {"name": "s"}}"#).starts_with("denied"), "it names none");
    assert_eq!(told("DELETE", &format!("{snapshots}/s"), ""), "snapshot on kv");
    let moves = "/apis/kubevirt.io/v1/namespaces/blue/virtualmachineinstancemigrations";
    assert_eq!(told("POST", moves, r#"{"spec": {"vmiName": "web-1"}}"#), "migrate on kv/blue:web-1");
    assert_eq!(
        told("PUT", &format!("{SUB}/virtualmachines/web-1/migrate"), r#"{"addedNodeSelector": {"a": "b"}}"#),
        format!("migrate on kv/blue:web-1 + {NODE}")
    );
    assert_eq!(
        told("PUT", &format!("{SUB}/virtualmachines/web-1/memorydump"), r#"{"claimName": "c"}"#),
        "storage on kv + guest-exec on kv/blue:web-1"
    );
    assert_eq!(told("PUT", &format!("{SUB}/virtualmachines/web-1/start"), ""), "power on kv/blue:web-1");
    assert!(told("PUT", &format!("{SUB}/virtualmachines/web-1/start"), r#"{"x": 1}"#).starts_with("denied"));
}

#[test]
fn a_copy_has_what_its_machine_has_of_the_node() {
    let clones = "/apis/clone.kubevirt.io/v1beta1/namespaces/blue/virtualmachineclones";
    let body = |source: &str| {
        format!(r#"{{"metadata": {{"name": "c"}}, "spec": {{"source": {source}, "target": {{"name": "web-2"}}}}}}"#)
    };
    let said = told("POST", clones, &body(r#"{"kind": "VirtualMachine", "name": "web-1"}"#));
    let mut all: Vec<&str> = said.split(" + ").collect();
    all.sort_unstable();
    assert_eq!(all, ["create on kv", NODE, "storage on kv/blue:web-1"]);
    let other = told("POST", clones, &body(r#"{"kind": "VirtualMachineSnapshot", "name": "s"}"#));
    assert!(other.starts_with("denied") && other.contains("whose it is"), "{other}");
    // Applied under a name that nothing has, it makes one: what it says is not looked into.
    let restores = "/apis/snapshot.kubevirt.io/v1beta1/namespaces/blue/virtualmachinerestores";
    for address in [clones, restores] {
        for (media, said) in [("application/apply-patch+yaml", "{}"), ("application/merge-patch+json", "{}")] {
            let said = words(ask("PATCH", &format!("{address}/new?fieldManager=x"), media, said));
            assert_eq!(said, NODE, "{address} {media}");
        }
        assert_eq!(told("PUT", &format!("{address}/new"), &body("{}")), NODE);
    }
    assert_eq!(told("DELETE", &format!("{clones}/c"), ""), "create on kv");
}
