// SPDX-License-Identifier: Apache-2.0
//! What the table of vSphere's Automation API says.

use super::*;
use std::collections::BTreeSet;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/vsphere-rest-operations.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(VSPHERE).unwrap());

fn table() -> Table {
    TABLE.clone()
}

fn ask(method: &str, target: &str, body: &str) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = match canonical(path) {
        Ok(path) => path,
        Err(why) => return Verdict::Denied(why.to_string().into()),
    };
    let asked = Asked { method, path: &path, query, upgrade: Upgrade::None, body: Body::Unread };
    settled(&table(), "vc", &asked, body)
}

/// Everything that is asked, or the reason.
fn told(method: &str, target: &str, body: &str) -> String {
    match ask(method, target, body) {
        Verdict::Operation { operation, also, .. } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(" + ")
        }
        Verdict::Visible { hypervisor, answer } => format!("visible of {hypervisor} ({answer:?})"),
        Verdict::Task { task, .. } => format!("task {} {}", task.action, task.id),
        Verdict::Denied(why) => format!("denied: {why}"),
        Verdict::Unread => panic!("{method} {target}: unread"),
    }
}

/// A body that says as little as an operation has to say.
fn least(line: &str) -> &'static str {
    if line.contains("/iso/image") && !line.contains("id:{vm}") {
        return r#"{"vm": "vm-1"}"#;
    }
    if line.contains("list-attached-tags") || line.contains("list-attachable-tags") {
        return r#"{"object_id": {"type": "VirtualMachine", "id": "vm-1"}}"#;
    }
    ""
}

#[test]
fn every_operation_of_the_api_has_a_verdict_of_its_own() {
    let table = table();
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    let mut seen = BTreeSet::new();
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let (method, target) = line.split_once(' ').unwrap();
        let (pattern, query) = target.split_once('?').unwrap_or((target, ""));
        let when: std::collections::BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let of = |e: &&Entry| e.method == method && e.pattern == pattern && e.when == when;
        let entry = table.entries().iter().find(of);
        seen.insert((method, pattern, when.clone()));
        let parts = pattern.split('/').map(|p| match p {
            "{vm}" => "vm-1",
            _ if p.starts_with("id:{") => "id:vm-1",
            _ if p.starts_with('{') => "x-7",
            p => p,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let question = if query.is_empty() { String::new() } else { format!("?{query}") };
        let [new, old] = ["/api", "/rest"].map(|base| ask(method, &format!("{base}{path}{question}"), least(line)));
        if new != old {
            wrong.push(format!("{line}: {new:?} and {old:?}"));
        }
        match (entry, new) {
            (Some(e), Verdict::Operation { operation, .. }) if e.action == Some(operation.action) => known += 1,
            (Some(e), Verdict::Visible { .. }) if e.action == Some(Action::View) => known += 1,
            (Some(e), Verdict::Task { task, .. }) if e.action == Some(task.action) => known += 1,
            (Some(e), Verdict::Denied(_)) if e.action.is_none() => denied += 1,
            (_, got) => wrong.push(format!("{line}: {got:?}")),
        }
    }
    println!(
        "vSphere REST: {known} operations asked for, {denied} denied with a reason, {} without a verdict",
        wrong.len()
    );
    assert_eq!(wrong, [""; 0]);
    assert!(known > 1_500 && denied > 60, "{known} {denied}");
    // And no row speaks of what the list does not have.
    let stale = table.entries().iter().filter(|e| e.pattern != "/");
    let stale: Vec<String> = stale
        .filter(|e| !seen.contains(&(e.method.as_str(), e.pattern.as_str(), e.when.clone())))
        .map(|e| format!("{} {} {:?}", e.method, e.pattern, e.when))
        .collect();
    assert_eq!(stale, [""; 0]);
}

#[test]
fn a_change_is_never_a_view() {
    for entry in table().entries().iter().filter(|e| e.method != "GET") {
        // What only reads though it is no GET says so in its own name.
        let reads = entry
            .when
            .values()
            .any(|word| word == "get" || word == "find" || word == "fingerprint" || word.starts_with("list-"));
        assert!(reads || entry.action != Some(Action::View), "{entry:?}");
        assert!(reads || entry.effect == Effect::Unsafe, "{entry:?}");
    }
}

#[test]
fn a_row_that_reads_has_to_be_named_so() {
    let row = |operation: &str| {
        format!(
            "api = \"x\"\nbodies = \"json\"\n[machine]\nname = \"vm\"\n[task]\nid = \"t\"\n[query]\neverywhere = []\n\
             [[rule]]\noperations = [\"{operation}\"]\nobject = \"hypervisor\"\naction = \"view\"\neffect = \"safe\"\nreads = true\n"
        )
    };
    for good in ["POST /a?action=list", "POST /a?~action=get", "POST /a?action=list-tags", "POST /a?action=find"] {
        assert!(Table::read(&row(good)).is_ok(), "{good}");
    }
    for bad in
        ["POST /a", "POST /a?action=start", "DELETE /a", "POST /a?action=getaway", "POST /a?action=", "POST /list"]
    {
        assert!(Table::read(&row(bad)).is_err(), "{bad}");
    }
}

#[test]
fn each_operation_asks_what_was_reviewed_in_both_forms() {
    for (method, path, body, wanted) in [
        ("GET", "/vcenter/vm", "", "visible of vc (Rows)"),
        ("GET", "/vcenter/vm?names=a&names=b&hosts=host-1", "", "visible of vc (Rows)"),
        ("GET", "/vcenter/vm?filter.names=a&filter.names=b", "", "visible of vc (Rows)"),
        ("GET", "/vcenter/vm/vm-1", "", "view on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/power?action=start", "", "power on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/power?action=start", "{}", "power on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/power/stop", "", "power on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/guest/power?action=shutdown", "", "power on vc/vm-1"),
        ("DELETE", "/vcenter/vm/vm-1", "", "destroy on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1?action=unregister", "", "destroy on vc/vm-1"),
        ("PATCH", "/vcenter/vm/vm-1/hardware/cpu", r#"{"count": 4}"#, "configure on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/hardware/serial", "{}", "configure on vc/vm-1 + node-admin on vc"),
        (
            "POST",
            "/vcenter/vm/vm-1/guest/processes?action=create",
            r#"{"spec": {"path": "/bin/sh"}}"#,
            "guest-exec on vc/vm-1",
        ),
        ("PUT", "/vcenter/vm/vm-1/guest/customization", r#"{"name": "x"}"#, "guest-exec on vc/vm-1"),
        ("POST", "/vcenter/vm/vm-1/tools?action=upgrade", "", "guest-exec on vc/vm-1"),
        (
            "PATCH",
            "/vcenter/vm/vm-1/storage/policy",
            r#"{"vm_home": {"type": "USE_DEFAULT_POLICY"}}"#,
            "storage on vc/vm-1",
        ),
        ("GET", "/vcenter/host", "", "visible of vc (Rows)"),
        ("GET", "/vcenter/datastore/datastore-1", "", "view on vc"),
        ("DELETE", "/vcenter/host/host-1", "", "node-admin on vc + destroy on vc"),
        ("DELETE", "/vcenter/resource-pool/resgroup-1", "", "node-admin on vc + access-admin on vc"),
        ("GET", "/appliance/health/system", "", "node-admin on vc"),
        ("PUT", "/appliance/access/ssh", r#"{"enabled": true}"#, "access-admin on vc + node-admin on vc"),
        (
            "GET",
            "/vcenter/deployment/install/initial-config/remote-psc/thumbprint?address=x",
            "",
            "access-admin on vc + node-admin on vc",
        ),
        ("GET", "/cis/tasks/52a1-b:com.vmware.vcenter.VM", "", "task view 52a1-b:com.vmware.vcenter.VM"),
        ("POST", "/cis/tasks/52a1-b:x?action=cancel", "", "task configure 52a1-b:x"),
        ("POST", "/vcenter/iso/image?action=mount", r#"{"library_item": "l", "vm": "vm-1"}"#, "storage on vc/vm-1"),
        (
            "POST",
            "/com/vmware/vcenter/iso/image/id:vm-1?~action=unmount",
            r#"{"cdrom": "16000"}"#,
            "storage on vc/vm-1",
        ),
        ("POST", "/content/library?action=find", r#"{"name": "x"}"#, "view on vc"),
        ("POST", "/content/local-library", r#"{"name": "x"}"#, "storage on vc"),
    ] {
        for base in ["/api", "/rest"] {
            assert_eq!(told(method, &format!("{base}{path}"), body), wanted, "{method} {base}{path} {body}");
        }
    }
}

#[test]
fn a_copy_asks_for_all_that_it_brings() {
    let copy = "create on vc + node-admin on vc + access-admin on vc + storage on vc/vm-1";
    for (target, body) in [
        ("/api/vcenter/vm?action=clone", r#"{"source": "vm-1", "name": "x"}"#),
        (
            "/api/vcenter/vm?action=clone&vmw-task=true",
            r#"{"source": "vm-1", "name": "x", "placement": {"folder": "f"}}"#,
        ),
        ("/api/vcenter/vm?action=instant-clone", r#"{"source": "vm-1", "name": "x"}"#),
        ("/rest/vcenter/vm?action=clone", r#"{"spec": {"source": "vm-1", "name": "x"}}"#),
        (
            "/rest/vcenter/vm?action=instant-clone",
            r#"{"spec": {"source": "vm-1", "name": "x", "disconnect_all_nics": true}}"#,
        ),
    ] {
        assert_eq!(told("POST", target, body), copy, "{target}");
    }
    let template = "create on vc + storage on vc + node-admin on vc + access-admin on vc";
    for (target, body, wanted) in [
        ("/api/vcenter/vm-template/library-items", r#"{"source_vm": "vm-1", "name": "x", "library": "l"}"#, true),
        (
            "/rest/com/vmware/vcenter/ovf/library-item",
            r#"{"source": {"type": "VirtualMachine", "id": "vm-1"}, "target": {"library_id": "l"}, "create_spec": {"name": "x"}}"#,
            true,
        ),
        ("/api/vcenter/ovf/library-item/x?action=deploy", r#"{"target": {"resource_pool_id": "r"}}"#, false),
    ] {
        let wanted = if wanted { format!("{template} + storage on vc/vm-1") } else { template.to_owned() };
        assert_eq!(told("POST", target, body), wanted, "{target}");
    }
    for (target, body) in [
        // A folder of machines, or an id without a type.
        ("/api/vcenter/ovf/library-item", r#"{"source": {"type": "VirtualApp", "id": "vm-1"}}"#),
        ("/api/vcenter/vm?action=clone", r#"{"source": ["vm-1", "vm-2"], "name": "x"}"#),
        ("/api/vcenter/vm?action=clone", r#"{"source": {"id": "vm-1"}}"#),
        ("/api/vcenter/vm?action=clone", r#"{"source": "vm-1", "source": "vm-2"}"#),
        ("/api/vcenter/vm?action=clone", r#"{"source": "a:b"}"#),
        ("/api/vcenter/vm?action=clone", r#"{"spec": {"source": "vm-1"}, "source": "vm-2"}"#),
        ("/api/vcenter/vm?action=clone", r#"["vm-1"]"#),
    ] {
        assert!(told("POST", target, body).starts_with("denied: "), "{body}: {}", told("POST", target, body));
    }
}

#[test]
fn what_stands_behind_a_device_is_asked_for() {
    let at = |device: &str, body: &str| told("POST", &format!("/api/vcenter/vm/vm-1/hardware/{device}"), body);
    let wrapped = |device: &str, body: &str| {
        told("POST", &format!("/rest/vcenter/vm/vm-1/hardware/{device}"), &format!("{{\"spec\": {body}}}"))
    };
    for (device, body, wanted) in [
        ("disk", r#"{"new_vmdk": {"capacity": 1024}}"#, "storage on vc/vm-1"),
        (
            "disk",
            r#"{"backing": {"type": "VMDK_FILE", "vmdk_file": "[ds] payroll/payroll.vmdk"}}"#,
            "storage on vc/vm-1 + storage on vc",
        ),
        ("cdrom", r#"{"backing": {"type": "ISO_FILE", "iso_file": "[ds] iso/debian.ISO"}}"#, "storage on vc/vm-1"),
        (
            "cdrom",
            r#"{"backing": {"type": "ISO_FILE", "iso_file": "[ds] payroll/payroll-flat.vmdk"}}"#,
            "storage on vc/vm-1 + storage on vc",
        ),
        ("cdrom", r#"{"backing": {"type": "HOST_DEVICE"}}"#, "storage on vc/vm-1 + node-admin on vc"),
        ("cdrom", r#"{"backing": {"type": "UNHEARD"}}"#, "storage on vc/vm-1 + node-admin on vc"),
        (
            "floppy",
            r#"{"backing": {"type": "IMAGE_FILE", "image_file": "[ds] x.flp"}}"#,
            "storage on vc/vm-1 + storage on vc",
        ),
        (
            "floppy",
            r#"{"backing": {"type": "HOST_DEVICE", "host_device": "/dev/fd0"}}"#,
            "storage on vc/vm-1 + node-admin on vc",
        ),
        (
            "ethernet",
            r#"{"type": "VMXNET3", "backing": {"type": "STANDARD_PORTGROUP", "network": "network-7"}}"#,
            "network on vc/vm-1",
        ),
        (
            "ethernet",
            r#"{"backing": {"type": "HOST_DEVICE", "host_device": "eth0"}}"#,
            "network on vc/vm-1 + node-admin on vc",
        ),
        ("adapter/scsi", r#"{"type": "PVSCSI", "sharing": "NONE"}"#, "storage on vc/vm-1"),
    ] {
        assert_eq!(at(device, body), wanted, "{device} {body}");
        assert_eq!(wrapped(device, body), wanted, "{device} {body}");
    }
    for (device, body) in [
        ("disk", r#"{"backing": {"type": "VMDK_FILE", "device": "x"}}"#),
        ("ethernet", r#"{"type": "SRIOV"}"#),
        ("ethernet", r#"{"unheard": 1}"#),
        ("cpu", "{}"),
    ] {
        assert!(at(device, body).starts_with("denied: "), "{device} {body}");
    }
    for (body, wanted) in [
        (
            r#"{"name": "x", "guest_OS": "DEBIAN_12_64", "placement": {"folder": "group-v1"}, "disks": [{"new_vmdk": {"capacity": 1}}]}"#,
            "create on vc",
        ),
        (r#"{"disks": [{"new_vmdk": {}}, {"backing": {"vmdk_file": "[ds] a.vmdk"}}]}"#, "create on vc + storage on vc"),
        (r#"{"cdroms": [{"backing": {"type": "ISO_FILE", "iso_file": "[ds] a.iso"}}]}"#, "create on vc"),
        (r#"{"cdroms": [{"backing": {"type": "HOST_DEVICE"}}]}"#, "create on vc + node-admin on vc"),
        (
            r#"{"serial_ports": [{"backing": {"type": "NETWORK_CLIENT", "network_location": "tcp://10.0.0.1:1"}}]}"#,
            "create on vc + node-admin on vc",
        ),
        (r#"{"parallel_ports": [{}]}"#, "create on vc + node-admin on vc"),
        (r#"{"nics": [{"backing": {"type": "HOST_DEVICE"}}]}"#, "create on vc + node-admin on vc"),
    ] {
        assert_eq!(told("POST", "/api/vcenter/vm", body), wanted, "{body}");
        assert_eq!(told("POST", "/rest/vcenter/vm", &format!("{{\"spec\": {body}}}")), wanted, "{body}");
    }
    assert!(told("POST", "/api/vcenter/vm", r#"{"vtpm": {}}"#).starts_with("denied: "), "what nobody reviewed");
}

#[test]
fn where_a_machine_goes_is_asked_for() {
    for (body, wanted) in [
        (r#"{"placement": {"host": "host-1"}}"#, "migrate on vc/vm-1"),
        (r#"{"placement": {"host": "host-1", "folder": null}}"#, "migrate on vc/vm-1"),
        (r#"{"placement": {"datastore": "datastore-1"}}"#, "migrate on vc/vm-1 + storage on vc/vm-1"),
        (r#"{"placement": {"folder": "group-v2"}}"#, "migrate on vc/vm-1 + access-admin on vc"),
        (r#"{"placement": {"resource_pool": "resgroup-2"}}"#, "migrate on vc/vm-1 + access-admin on vc"),
    ] {
        assert_eq!(told("POST", "/api/vcenter/vm/vm-1?action=relocate", body), wanted, "{body}");
        let wrapped = format!("{{\"spec\": {body}}}");
        assert_eq!(told("POST", "/rest/vcenter/vm/vm-1?action=relocate", &wrapped), wanted, "{body}");
    }
}

#[test]
fn tags_are_access_and_every_machine_that_is_named_counts() {
    let vm = r#"{"object_id": {"type": "VirtualMachine", "id": "vm-1"}}"#;
    let folder = r#"{"object_id": {"type": "Folder", "id": "group-v1"}}"#;
    for (target, body, wanted) in [
        (
            "/rest/com/vmware/cis/tagging/tag-association/id:t?~action=attach",
            vm,
            "access-admin on vc + configure on vc/vm-1",
        ),
        (
            "/rest/com/vmware/cis/tagging/tag-association/id:t?~action=detach",
            vm,
            "access-admin on vc + configure on vc/vm-1",
        ),
        ("/api/cis/tagging/tag-association/t?action=attach", vm, "access-admin on vc + configure on vc/vm-1"),
        ("/api/cis/tagging/tag-association/t?action=attach", folder, "access-admin on vc"),
        ("/rest/com/vmware/cis/tagging/tag-association?~action=list-attached-tags", vm, "view on vc/vm-1"),
        ("/api/cis/tagging/tag-association?action=list-attached-tags", vm, "view on vc/vm-1"),
        ("/api/cis/tagging/tag-association?action=list-attached-tags", folder, "view on vc"),
        ("/api/cis/tagging/tag-association/t?action=list-attached-objects", "", "visible of vc (Rows)"),
        // As govmomi says nothing.
        (
            "/rest/com/vmware/cis/tagging/tag-association/id:t?~action=list-attached-objects",
            "null\n",
            "visible of vc (Rows)",
        ),
        (
            "/rest/com/vmware/cis/tagging/tag",
            r#"{"create_spec": {"name": "x", "category_id": "c"}}"#,
            "access-admin on vc",
        ),
        (
            "/api/cis/tagging/tag-association/t?action=attach-tag-to-multiple-objects",
            r#"{"object_ids": [{"type": "VirtualMachine", "id": "vm-1"}, {"type": "VirtualMachine", "id": "vm-2"}]}"#,
            "access-admin on vc + configure on vc/vm-1 + configure on vc/vm-2",
        ),
    ] {
        assert_eq!(told("POST", target, body), wanted, "{target} {body}");
    }
    assert!(told("POST", "/api/cis/tagging/tag-association?action=list-attached-tags", "").starts_with("view on vc"));
}

#[test]
fn what_could_be_read_in_two_ways_is_denied() {
    for (method, target) in [
        ("POST", "/api/vcenter/vm/vm-1%2f../vm-2/power?action=start"),
        ("POST", "/api/vcenter/vm/vm-1%252fx/power?action=start"),
        ("POST", "/api/vcenter/vm/../vm/vm-1/power?action=start"),
        ("POST", "/api/vcenter/vm/vm-1;vm-2/power?action=start"),
        ("POST", "/api/vcenter/vm/vm-1/power"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=explode"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=start&action=stop"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=start&~action=stop"),
        ("POST", "/rest/vcenter/vm/vm-1/power?~action=start"),
        ("POST", "/api/vcenter/vm/vm-1/power?ACTION=start"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=START"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=start&vm=vm-2"),
        ("POST", "/api/vcenter/vm/vm-1/power?action=start&vmw-task=true"),
        ("POST", "/api/vcenter/vm/vm-1/power/start?action=stop"),
        // Making a machine is no clone, whatever stands beside it.
        ("POST", "/api/vcenter/vm?~action=clone"),
        ("POST", "/api/vcenter/vm?action=clone&~action=register"),
        ("GET", "/api/vcenter/vm?action=clone"),
        ("GET", "/api/vcenter/vm/vm-1?vmw-task=true"),
        ("GET", "/api/vcenter/vm?power_states=POWERED_ON&marker=x"),
        ("GET", "/API/vcenter/vm"),
        ("GET", "/api/VCENTER/vm"),
        ("GET", "/Rest/vcenter/vm"),
        ("GET", "/api/vcenter//vm"),
        ("GET", "/apix/vcenter/vm"),
        ("HEAD", "/api/vcenter/vm"),
        ("PUT", "/api/vcenter/vm/vm-1/power?action=start"),
        ("GET", "/rest/com/vmware/content/library/l"),
        ("DELETE", "/rest/com/vmware/content/local-library/ID:l"),
        ("GET", "/rest/com/vmware/unheard"),
        ("POST", "/api"),
        ("GET", "/rest"),
        ("POST", "/api/vcenter/vm/vm-1/console/tickets"),
        ("POST", "/rest/vcenter/vm/vm-1/console/tickets"),
        ("GET", "/api/vcenter/guest/customization-specs/x"),
        ("POST", "/api/session"),
        ("GET", "/folder/x"),
        ("GET", "/ui/"),
        ("GET", "/sdk/vim25/8.0/x"),
        ("GET", "/cis/data/x"),
    ] {
        let said = told(method, target, "");
        assert!(said.starts_with("denied: "), "{method} {target}: {said}");
    }
    // An id is one id: with others in it, it is none that there is.
    for id in ["vm-1,vm-2", "VM-1", "vm-1%20", "id:vm-1"] {
        let said = told("POST", &format!("/api/vcenter/vm/{id}/power?action=start"), "");
        assert!(
            said.starts_with("denied: ") || said == format!("power on vc/{}", id.replace("%20", " ")),
            "{id}: {said}"
        );
        assert_ne!(said, "power on vc/vm-1");
    }
    assert_eq!(
        told("POST", "/api/vcenter/iso/image?action=mount", r#"{"vm": "vm-1,vm-2"}"#),
        "storage on vc/vm-1,vm-2"
    );
    assert!(told("POST", "/api/vcenter/iso/image?action=mount", r#"{"library_item": "x"}"#).starts_with("denied: "));
}
