// SPDX-License-Identifier: Apache-2.0
//! What the bodies of LXD's and Incus's API ask, and that every operation of Incus has a verdict.

use super::*;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/incus-operations.txt");

fn incus() -> Table {
    Table::read(&[LXD, INCUS].concat()).unwrap()
}

/// Everything that is asked, or the reason: the same of LXD and Incus.
fn told(method: &str, target: &str, body: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let asked = Asked { method, path: &path, query, upgrade: Upgrade::None, body: Body::Unread };
    let [one, two] = [lxd(), incus()].map(|table| match settled(&table, "i", &asked, body) {
        Verdict::Operation { operation, also, .. } => {
            std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
        }
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{other:?}"),
    });
    assert_eq!(one, two, "{method} {target} {body}");
    two.replace("default:", "")
}

#[test]
fn every_operation_of_incus_has_a_verdict_of_its_own() {
    let table = incus();
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let (method, pattern) = line.split_once(' ').unwrap();
        let shape =
            |p: &str| p.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect::<Vec<_>>().join("/");
        let mut entries = table.entries().iter().filter(|e| e.method == method && shape(&e.pattern) == shape(pattern));
        let path = canonical(&pattern.replace(['{', '}'], "")).unwrap();
        let verdicts = [Upgrade::None, Upgrade::WebSocket].map(|upgrade| {
            let query = pattern.ends_with("/websocket").then_some("secret=s");
            settled(&table, "i", &Asked { method, path: &path, query, upgrade, body: Body::Unread }, "{}")
        });
        let actions: Vec<Action> = verdicts
            .iter()
            .filter_map(|v| match v {
                Verdict::Operation { operation, .. } => Some(operation.action),
                Verdict::Task { task, .. } => Some(task.action),
                Verdict::Visible { .. } => Some(Action::View),
                _ => None,
            })
            .collect();
        match entries.next() {
            Some(e) if e.action.is_none() && actions.is_empty() => denied += 1,
            Some(e) if e.action.is_some_and(|a| actions.contains(&a)) => known += 1,
            // Of several rows another one is meant here.
            Some(_) if entries.any(|e| e.action.is_some_and(|a| actions.contains(&a))) => known += 1,
            _ => wrong.push(format!("{line}: {verdicts:?}")),
        }
    }
    println!("Incus: {known} operations asked for, {denied} denied with a reason, {} without a verdict", wrong.len());
    assert_eq!(wrong, [""; 0]);
    assert!(known > 240 && denied >= 1, "{known} {denied}");
}

#[test]
fn what_a_body_reaches_is_asked_for() {
    let one = "/1.0/instances/c1";
    for (method, path, body, what) in [
        ("PATCH", one, r#"{"config": {"limits.cpu": "2", "user.note": "x"}}"#, "configure on i/c1"),
        ("PATCH", one, r#"{"config": {"user.tags": "pay"}}"#, "configure on i/c1 + access-admin on i"),
        ("PATCH", one, r#"{"config": {"raw.lxc": "x"}}"#, "configure on i/c1 + node-admin on i"),
        ("PATCH", one, r#"{"config": {"security.privileged": "true"}}"#, "configure on i/c1 + node-admin on i"),
        ("PATCH", one, r#"{"config": {"security.protection.delete": "true"}}"#, "configure on i/c1"),
        ("PATCH", one, r#"{"profiles": ["default"]}"#, "configure on i/c1"),
        ("PATCH", one, r#"{"profiles": ["default", "gpu"]}"#, "configure on i/c1 + node-admin on i"),
        (
            "PATCH",
            one,
            r#"{"devices": {"d": {"type": "disk", "source": "/etc", "path": "/mnt"}}}"#,
            "configure on i/c1 + node-admin on i",
        ),
        (
            "PATCH",
            one,
            r#"{"devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}}"#,
            "configure on i/c1 + storage on i/c1",
        ),
        (
            "PATCH",
            one,
            r#"{"devices": {"e": {"type": "nic", "network": "lxdbr0"}}}"#,
            "configure on i/c1 + network on i/c1",
        ),
        (
            "PATCH",
            one,
            r#"{"devices": {"p": {"type": "proxy", "listen": "tcp:0.0.0.0:1", "connect": "tcp:127.0.0.1:2"}}}"#,
            "configure on i/c1 + node-admin on i",
        ),
        (
            "PATCH",
            one,
            r#"{"restore": "s0"}"#,
            "configure on i/c1 + snapshot on i/c1 + access-admin on i + node-admin on i",
        ),
        ("PATCH", one, r#"{"config": {"volatile.idmap.next": "[]"}}"#, "configure on i/c1 + node-admin on i"),
        ("PATCH", one, r#"{"config": {"volatile.base_image": "f0"}}"#, "configure on i/c1"),
        ("PUT", one, r#"{"config": {}}"#, "access-admin on i + configure on i/c1"),
        ("PUT", "/1.0/instances/c1/state", r#"{"action": "stop", "force": true, "timeout": 30}"#, "power on i/c1"),
        ("POST", one, r#"{"name": "c2"}"#, "access-admin on i + configure on i/c1"),
        (
            "POST",
            one,
            r#"{"name": "c2", "migration": false, "pool": "", "project": "", "target": null}"#,
            "access-admin on i + configure on i/c1",
        ),
        (
            "POST",
            one,
            r#"{"name": "c1", "migration": true, "target": {"operation": "https://x"}}"#,
            "migrate on i/c1 + access-admin on i",
        ),
        ("POST", "/1.0/instances/c1/snapshots/s0", r#"{"name": "s1"}"#, "snapshot on i/c1 + access-admin on i"),
        (
            "POST",
            "/1.0/instances/c1/snapshots/s0",
            r#"{"name": "s0", "migration": true}"#,
            "migrate on i/c1 + access-admin on i",
        ),
        (
            "POST",
            "/1.0/instances/c1/backups",
            r#"{"name": "b", "target": {"url": "https://s3"}}"#,
            "snapshot on i/c1 + migrate on i/c1",
        ),
        (
            "POST",
            "/1.0/instances/c1/console",
            r#"{"type": "vga", "width": 80, "height": 24}"#,
            "console.control on i/c1",
        ),
        (
            "POST",
            "/1.0/instances/c1/console",
            r#"{"force": true}"#,
            "console.control on i/c1 + console.takeover on i/c1",
        ),
        ("POST", "/1.0/instances", r#"{"name": "n", "source": {"type": "image", "alias": "a"}}"#, "create on i"),
        (
            "POST",
            "/1.0/instances",
            r#"{"name": "n", "source": {"type": "copy", "source": "c9"}}"#,
            "create on i + storage on i/c9",
        ),
        (
            "POST",
            "/1.0/instances?project=pay",
            r#"{"source": {"type": "copy", "source": "c9"}}"#,
            "create on i + storage on i/pay:c9",
        ),
        ("POST", "/1.0/instances", r#"{"config": {"raw.qemu": "x"}}"#, "create on i + node-admin on i"),
        ("PUT", "/1.0/profiles/p", r#"{"config": {"raw.qemu": "x"}}"#, "configure on i + node-admin on i"),
        ("PUT", "/1.0/networks/n", r#"{"config": {"ipv4.nat": "true"}}"#, "network on i"),
        ("PUT", "/1.0/networks/n", r#"{"config": {"raw.dnsmasq": "x"}}"#, "network on i + node-admin on i"),
        (
            "POST",
            "/1.0/storage-pools",
            r#"{"name": "p", "driver": "dir", "config": {"source": "/"}}"#,
            "storage on i + node-admin on i",
        ),
    ] {
        assert_eq!(told(method, path, body), what, "{method} {path} {body}");
    }
    for (method, path, body, why) in [
        // Go reads keys of its own objects without regard to case.
        ("PATCH", one, r#"{"Config": {"raw.lxc": "x"}}"#, "\"/Config/raw.lxc\""),
        ("PATCH", one, r#"{"CONFIG": {"user.tags": "x"}}"#, "\"/CONFIG/user.tags\""),
        ("PATCH", one, r#"{"config": {"unheard.of": "x"}}"#, "\"/config/unheard.of\""),
        ("PATCH", one, r#"{"config": {"user.tags": "a", "user.tags": "b"}}"#, "each key stands once"),
        ("PUT", "/1.0/instances/c1/state", r#"{"action": "start", "Action": "stop"}"#, "\"/Action\""),
        ("PUT", "/1.0/instances/c1/state", r#"{"action": "burn"}"#, "no change of power"),
        ("POST", one, r#"{"name": "c2", "pool": "other"}"#, "moves a machine"),
        ("POST", one, r#"{"name": "c2", "Migration": true}"#, "\"/Migration\""),
        ("POST", one, r#"{"migration": true, "Config": {"raw.lxc": "x"}}"#, "Move first"),
        (
            "POST",
            "/1.0/instances?target=n2",
            r#"{"source": {"type": "copy", "source": "c9", "project": "pay"}}"#,
            "within one project",
        ),
        ("POST", "/1.0/instances", r#"{"source": {"source": "pay:c9"}}"#, "names no machine"),
        ("POST", "/1.0/instances", r#"{"source": {"source": "c9/s0"}}"#, "names no machine"),
    ] {
        let told = told(method, path, body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{method} {path} {body}: {told}");
    }
}
