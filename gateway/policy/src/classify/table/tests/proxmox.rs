// SPDX-License-Identifier: Apache-2.0
//! What the table of the Proxmox VE API says.

use super::*;
use crate::classify::Form;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/proxmox-operations.txt");

fn table() -> Table {
    Table::read(PROXMOX).unwrap()
}

fn ask(method: &str, target: &str, body: &str) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let media = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
    let form = match Form::read(Some(media), body.as_bytes()) {
        Ok(form) => form,
        Err(why) => return Verdict::Denied(why.into()),
    };
    let asked = Asked { method, path: &path, query, upgrade: Upgrade::None, body: Body::Params(&form) };
    table().classify(&"pve".parse().unwrap(), &asked)
}

/// Everything that is asked, or the reason.
fn told(method: &str, path: &str, body: &str) -> String {
    match ask(method, &format!("/api2/json{path}"), body) {
        Verdict::Operation { operation, also, .. } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(" + ")
        }
        Verdict::Visible { hypervisor, .. } => format!("visible of {hypervisor}"),
        Verdict::Task { task, .. } => format!("task: {}", task.about.expect("what it is about")),
        Verdict::Denied(why) => format!("denied: {why}"),
        Verdict::Unread => panic!("{method} {path} was not read"),
    }
}

/// A path that a pattern of the operations' list stands for.
fn example(pattern: &str) -> String {
    let part = |part: &str| match part {
        "{vmid}" => "100".to_owned(),
        "{upid}" => "UPID:pve1:0000F0F0:00AABBCC:65000000:qmstart:100:root@pam:".to_owned(),
        other if other.starts_with('{') => format!("x{}", other.len()),
        other => other.to_owned(),
    };
    let parts: Vec<String> = pattern.split('/').map(part).collect();
    format!("/api2/json{}", parts.join("/"))
}

#[test]
fn every_operation_of_the_api_has_a_verdict_of_its_own() {
    let table = table();
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let (method, pattern) = line.split_once(' ').unwrap();
        let entry = table.entries().iter().find(|e| e.method == method && e.pattern == pattern);
        let body = if pattern.ends_with("all") || pattern.contains("bulk-action/guest/") {
            "vms=100"
        } else if pattern.ends_with("/vzdump") {
            "vmid=100"
        } else {
            ""
        };
        let reached = ask(method, &example(pattern), if method == "GET" { "" } else { body });
        match (entry, reached) {
            (Some(e), Verdict::Operation { operation, .. }) if e.action == Some(operation.action) => known += 1,
            (Some(e), Verdict::Task { task, .. }) if e.action == Some(task.action) => known += 1,
            (Some(e), Verdict::Visible { .. }) if e.action == Some(Action::View) => known += 1,
            (Some(e), Verdict::Denied(_)) if e.action.is_none() => denied += 1,
            (entry, reached) => wrong.push(format!("{line}: {entry:?} {reached:?}")),
        }
    }
    println!("{known} operations are decided, {denied} are never passed on, {} have no verdict", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(known + denied, 649);
    // Beyond the list: volumes whose names have slashes of their own.
    let listed = |e: &&Entry| !OPERATIONS.contains(&format!("{} {}\n", e.method, e.pattern));
    let beyond: Vec<_> = table.entries().iter().filter(listed).map(|e| &e.pattern).collect();
    assert!(beyond.iter().all(|p| p.starts_with("/nodes/{node}/storage/{storage}/content/{volume}/")), "{beyond:?}");
}

#[test]
fn nothing_that_changes_something_is_a_view_or_safe() {
    for entry in table().entries().iter().filter(|e| e.method != "GET") {
        assert_ne!(entry.action, Some(Action::View), "{entry:?}");
        assert_eq!(entry.effect, Effect::Unsafe, "{entry:?}");
    }
    // GETs that do more than tell: they wait for their event, like a change.
    for pattern in [
        "/nodes/{node}/qemu/{vmid}/agent/file-read",
        "/nodes/{node}/qemu/{vmid}/agent/exec-status",
        "/nodes/{node}/scan/nfs",
        "/nodes/{node}/query-url-metadata",
        "/nodes/{node}/storage/{storage}/file-restore/download",
    ] {
        let table = table();
        let entry = table.entries().iter().find(|e| e.pattern == pattern).unwrap();
        assert_eq!(entry.effect, Effect::Unsafe, "{entry:?}");
        assert_ne!(entry.action, Some(Action::View), "{entry:?}");
    }
}

#[test]
fn each_operation_asks_what_was_reviewed() {
    const VM: &str = "/nodes/pve1/qemu/100";
    for (method, path, body, what) in [
        ("GET", "/cluster/resources?type=vm", "", "visible of pve"),
        ("GET", "/nodes/pve1/qemu", "", "visible of pve"),
        ("GET", "/pools/blue", "", "visible of pve"),
        ("GET", "/version", "", "visible of pve"),
        ("GET", &format!("{VM}/status/current"), "", "view on pve/100"),
        ("GET", &format!("{VM}/config?current=1"), "", "view on pve/100"),
        ("POST", &format!("{VM}/status/start"), "", "power on pve/100"),
        ("POST", &format!("{VM}/status/stop"), "timeout=5", "power on pve/100"),
        ("POST", "/nodes/pve1/lxc/200/status/start", "{}", "power on pve/200"),
        ("DELETE", &format!("{VM}?purge=1"), "", "destroy on pve/100"),
        ("POST", &format!("{VM}/snapshot"), "snapname=a", "snapshot on pve/100"),
        ("GET", &format!("{VM}/agent/file-read?file=/etc/shadow"), "", "guest-exec on pve/100"),
        ("POST", &format!("{VM}/agent/exec"), r#"{"command":["id","-u"]}"#, "guest-exec on pve/100"),
        ("GET", &format!("{VM}/agent/network-get-interfaces"), "", "view on pve/100"),
        ("PUT", &format!("{VM}/sendkey"), "key=ctrl-alt-delete", "console.control on pve/100"),
        ("POST", &format!("{VM}/migrate"), "target=pve2&online=1", "migrate on pve/100"),
        // What a parameter reaches is asked for, too.
        ("PUT", &format!("{VM}/config"), "cores=4&name=a", "configure on pve/100"),
        ("PUT", &format!("{VM}/config"), "net0=virtio,bridge=vmbr0", "configure on pve/100 + network on pve/100"),
        ("PUT", &format!("{VM}/config"), "delete=net0,cores", "configure on pve/100 + network on pve/100"),
        ("PUT", &format!("{VM}/config"), "scsi1=local-lvm:32", "configure on pve/100 + storage on pve/100"),
        ("PUT", &format!("{VM}/config"), "scsi1=local-lvm:vm-100-disk-1", "configure on pve/100 + storage on pve/100"),
        (
            "PUT",
            &format!("{VM}/config"),
            "scsi1=local-lvm:vm-200-disk-0",
            "configure on pve/100 + storage on pve/200 + storage on pve/100",
        ),
        (
            "POST",
            &format!("{VM}/config"),
            r#"{"scsi1":"local-lvm:0,import-from=local-lvm:vm-200-disk-0"}"#,
            "configure on pve/100 + storage on pve/200 + storage on pve/100",
        ),
        ("PUT", &format!("{VM}/config"), "cipassword=x", "configure on pve/100 + guest-exec on pve/100"),
        ("PUT", &format!("{VM}/config"), "tags=production", "configure on pve/100 + access-admin on pve"),
        ("PUT", &format!("{VM}/config"), "delete=tags", "configure on pve/100 + access-admin on pve"),
        ("PUT", &format!("{VM}/config"), "args=-monitor+x", "configure on pve/100 + node-admin on pve"),
        ("PUT", &format!("{VM}/config"), "hostpci0=0000:01:00", "configure on pve/100 + node-admin on pve"),
        ("POST", &format!("{VM}/clone"), "newid=300", "create on pve + storage on pve/100"),
        ("POST", &format!("{VM}/move_disk"), "disk=scsi0&storage=b", "storage on pve/100"),
        ("POST", &format!("{VM}/move_disk"), "disk=scsi0&target-vmid=200", "storage on pve/100 + storage on pve/200"),
        ("POST", "/nodes/pve1/qemu", "vmid=300&memory=512&scsi0=local-lvm:8", "create on pve"),
        (
            "POST",
            "/nodes/pve1/qemu",
            "vmid=300&archive=local:backup/vzdump-qemu-200-2026.vma.zst",
            "create on pve + storage on pve/200 + node-admin on pve",
        ),
        (
            "POST",
            "/nodes/pve1/lxc",
            "vmid=300&restore=1&ostemplate=local:backup/vzdump-lxc-200-2026.tar.zst",
            "create on pve + node-admin on pve + storage on pve/200",
        ),
        (
            "POST",
            &format!("{VM}/clone"),
            "newid=300&snapname=s0",
            "create on pve + node-admin on pve + storage on pve/100",
        ),
        (
            "POST",
            &format!("{VM}/snapshot/s0/rollback"),
            "start=1",
            "snapshot on pve/100 + configure on pve/100 + access-admin on pve + node-admin on pve",
        ),
        ("POST", "/nodes/pve1/startall", "vms=100,200%3B100", "power on pve/100,200"),
        ("POST", "/nodes/pve1/startall", "vms=100", "power on pve/100"),
        ("POST", "/cluster/bulk-action/guest/shutdown", r#"{"vms":[100,200]}"#, "power on pve/100,200"),
        ("POST", "/nodes/pve1/migrateall", "vms=100&target=pve2", "migrate on pve/100"),
        ("POST", "/nodes/pve1/vzdump", "vmid=100,200&storage=b", "snapshot on pve/100,200"),
        (
            "GET",
            "/nodes/pve1/tasks/UPID:pve1:0000F0F0:00AABBCC:65000000:qmstart:100:u@pam:/status",
            "",
            "task: view on pve/100",
        ),
        (
            "GET",
            "/nodes/pve1/tasks/UPID:pve1:0000F0F0:00AABBCC:65000000:vzdump::u@pam:/log",
            "",
            "task: node-admin on pve",
        ),
        (
            "DELETE",
            "/nodes/pve1/tasks/UPID:pve1:0000F0F0:00AABBCC:65000000:qmigrate:100:u@pam:",
            "",
            "task: configure on pve/100",
        ),
        ("GET", "/nodes/pve1/storage/local/content/local:iso/x.iso", "", "view on pve"),
        ("DELETE", "/nodes/pve1/storage/local/content/local:100/vm-100-disk-0.raw", "", "storage on pve"),
        ("PUT", "/pools/blue", "vms=100", "access-admin on pve"),
        ("PUT", "/access/acl", "path=/&roles=Administrator&users=x@pam", "access-admin on pve"),
        ("GET", "/access/users", "", "access-admin on pve"),
        ("POST", "/nodes/pve1/status", "command=reboot", "node-admin on pve"),
    ] {
        assert_eq!(told(method, path, body), what, "{method} {path} {body}");
    }
}

#[test]
fn what_is_not_known_or_reaches_past_the_gateway_is_denied() {
    const VM: &str = "/nodes/pve1/qemu/100";
    for (method, path, body, why) in [
        ("POST", "/access/ticket", "username=a&password=b", "token for tools"),
        ("POST", "/access/openid/login", "", "token for tools"),
        ("POST", "/access/users/a@pam/token/t", "", "past this gateway"),
        ("POST", &format!("{VM}/vncproxy"), "websocket=1", "console in the portal"),
        ("POST", &format!("{VM}/termproxy"), "", "console in the portal"),
        ("POST", &format!("{VM}/spiceproxy"), "", "console in the portal"),
        ("GET", &format!("{VM}/vncwebsocket?port=5900&vncticket=x"), "", "console in the portal"),
        ("POST", "/nodes/pve1/termproxy", "", "shell on the host"),
        ("POST", "/nodes/pve1/execute", "commands=x", "many calls in one"),
        ("POST", &format!("{VM}/monitor"), "command=info", "raw monitor"),
        ("POST", &format!("{VM}/remote_migrate"), "target-vmid=1", "another cluster"),
        ("GET", &format!("{VM}/cloudinit/dump?type=user"), "", "password"),
        // Parameters that nobody reviewed, values that name nothing known.
        ("POST", &format!("{VM}/status/start"), "skiplock=1", "\"skiplock\""),
        ("POST", &format!("{VM}/status/start"), "stateuri=tcp:0", "\"stateuri\""),
        ("PUT", &format!("{VM}/config"), "unheard=1", "\"unheard\""),
        ("PUT", &format!("{VM}/config"), "net=1", "\"net\""),
        ("PUT", &format!("{VM}/config"), "net0000=1", "\"net0000\""),
        ("PUT", &format!("{VM}/config"), "net%23=1", "\"net#\""),
        ("PUT", &format!("{VM}/config"), "delete=unheard", "\"unheard\""),
        ("PUT", &format!("{VM}/config"), "scsi0=/dev/sda", "cannot tell"),
        ("PUT", &format!("{VM}/config"), "vmid=200", "\"vmid\""),
        ("POST", "/nodes/pve1/qemu", "vmid=300&archive=local:iso/x&force=1", "destroy that one first"),
        ("POST", "/nodes/pve1/qemu", "vmid=300&archive=-", "cannot tell"),
        // Bulk calls that mean more than they name.
        ("POST", "/nodes/pve1/startall", "", "no machine, or all"),
        ("POST", "/nodes/pve1/startall", "vms=", "no machine, or all"),
        ("POST", "/nodes/pve1/startall", "vms=all", "no machine by its id"),
        ("POST", "/nodes/pve1/startall", "vms=0100", "no machine by its id"),
        ("POST", "/nodes/pve1/vzdump", "all=1", "without naming them"),
        ("POST", "/nodes/pve1/vzdump", "vmid=100&pool=blue", "without naming them"),
        ("POST", "/nodes/pve1/vzdump", "vmid=100&script=/x", "\"script\""),
        // Read in two ways.
        ("POST", &format!("{VM}/status/start?timeout=1"), "timeout=2", "in one place"),
        ("POST", &format!("{VM}/status/start"), "timeout=1&timeout=2", "comes twice"),
        ("POST", &format!("{VM}/status/start?timeout=1;x=2"), "", "differently"),
        ("GET", "/nodes/pve1/qemu/0100/config", "", "no name of a machine"),
        ("GET", "/nodes/pve1/qemu/100a/config", "", "no name of a machine"),
        ("GET", "/nodes/pve1/qemu/99/config", "", "no name of a machine"),
        ("GET", "/nodes/pve1/tasks/UPID:pve1:x:100:/status", "", "no id of a task"),
        ("GET", "/nodes/pve1/unheard-of", "", "does not know this operation"),
        ("HEAD", "/version", "", "does not know this method"),
        ("PATCH", &format!("{VM}/config"), "", "does not know this method"),
    ] {
        let told = told(method, path, body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{method} {path} {body}: {told}");
    }
    for path in ["/", "/api2", "/api2/html/version", "/api2/spiceconfig/version", "/api2/jsonx/version", "/pve2/ext6"] {
        assert!(matches!(ask("GET", path, ""), Verdict::Denied(_)), "{path}");
    }
    assert!(matches!(ask("GET", "/api2/extjs/version", ""), Verdict::Visible { .. }));
}

#[test]
fn a_change_is_told_only_with_its_body() {
    let path = canonical("/api2/json/nodes/pve1/qemu/100/status/start").unwrap();
    let asked = Asked { method: "POST", path: &path, query: None, upgrade: Upgrade::None, body: Body::Unread };
    assert_eq!(table().classify(&"pve".parse().unwrap(), &asked), Verdict::Unread);
    let path = canonical("/api2/json/nodes/pve1/storage/local/upload").unwrap();
    let asked = Asked { path: &path, ..asked };
    assert!(matches!(table().classify(&"pve".parse().unwrap(), &asked), Verdict::Operation { .. }));
    let asked = Asked { query: Some("content=iso"), ..asked };
    assert!(matches!(table().classify(&"pve".parse().unwrap(), &asked), Verdict::Denied(_)));
}
