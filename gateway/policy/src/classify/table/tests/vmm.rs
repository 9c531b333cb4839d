// SPDX-License-Identifier: Apache-2.0
//! What the tables of Cloud Hypervisor and Firecracker say: one machine a socket, and the host where a body names it.

use super::*;

const OF_CLOUD_HYPERVISOR: &str = include_str!("../../../../../../policies/classify/cloud-hypervisor-operations.txt");
const OF_FIRECRACKER: &str = include_str!("../../../../../../policies/classify/firecracker-operations.txt");

fn told(table: &Table, method: &str, path: &str, body: &str) -> String {
    let path = canonical(path).unwrap();
    let asked = Asked { method, path: &path, query: None, upgrade: Upgrade::None, body: Body::Unread };
    match settled(table, "v", &asked, body) {
        Verdict::Operation { operation, also, .. } => {
            std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
        }
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_operation_of_both_has_a_verdict_of_its_own() {
    for (text, operations, least) in [(CLOUD_HYPERVISOR, OF_CLOUD_HYPERVISOR, 31), (FIRECRACKER, OF_FIRECRACKER, 38)] {
        let table = Table::read(text).unwrap();
        let mut known = 0;
        for line in operations.lines().filter(|l| !l.starts_with('#')) {
            let (method, path) = line.split_once(' ').unwrap();
            let body = match path {
                "/actions" => r#"{"action_type": "InstanceStart"}"#,
                "/vm" => r#"{"state": "Paused"}"#,
                _ => "{}",
            };
            let told = told(&table, method, &path.replace(['{', '}'], ""), if method == "GET" { "" } else { body });
            assert!(!told.starts_with("denied"), "{line}: {told}");
            known += 1;
        }
        assert_eq!(known, least);
        println!("{known} operations asked for, none without a verdict");
        for entry in table.entries().iter().filter(|e| e.method != "GET") {
            assert_ne!(entry.action, Some(Action::View), "{entry:?}");
        }
    }
}

#[test]
fn what_names_the_host_asks_for_it() {
    let (ch, fc) = (Table::read(CLOUD_HYPERVISOR).unwrap(), Table::read(FIRECRACKER).unwrap());
    for (table, method, path, body, what) in [
        (&ch, "GET", "/api/v1/vm.info", "", "view on v/vm"),
        (&ch, "PUT", "/api/v1/vm.power-button", "", "power on v/vm"),
        (&ch, "PUT", "/api/v1/vm.resize", r#"{"desired_vcpus": 2}"#, "configure on v/vm"),
        (&ch, "PUT", "/api/v1/vm.add-disk", r#"{"path": "/etc/shadow"}"#, "node-admin on v + storage on v/vm"),
        (&ch, "PUT", "/api/v1/vm.create", r#"{"payload": {"kernel": "/k"}}"#, "node-admin on v + configure on v/vm"),
        (&ch, "PUT", "/api/v1/vmm.shutdown", "", "node-admin on v"),
        (&fc, "GET", "/", "", "view on v/vm"),
        (&fc, "GET", "/mmds", "", "configure on v/vm"),
        (&fc, "PUT", "/actions", r#"{"action_type": "SendCtrlAltDel"}"#, "power on v/vm"),
        (&fc, "PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#, "configure on v/vm"),
        (&fc, "PATCH", "/vm", r#"{"state": "Resumed"}"#, "power on v/vm"),
        (&fc, "PUT", "/drives/d", r#"{"drive_id": "d", "path_on_host": "/x"}"#, "node-admin on v + storage on v/vm"),
        (&fc, "PUT", "/logger", r#"{"log_path": "/x"}"#, "node-admin on v"),
        (&fc, "PUT", "/machine-config", r#"{"vcpu_count": 2, "mem_size_mib": 128}"#, "configure on v/vm"),
    ] {
        assert_eq!(told(table, method, path, body), what, "{method} {path} {body}");
    }
    for (table, method, path, body) in [
        (&ch, "PUT", "/api/v1/vm.boot", r#"{"x": 1}"#),
        (&ch, "PUT", "/api/v1/vm.resize", r#"{"desired_vcpus": 2, "unheard_of": "/x"}"#),
        (&ch, "PUT", "/api/v1/vm.unheard-of", ""),
        (&ch, "PUT", "/vm.boot", ""),
        (&fc, "PUT", "/actions", r#"{"action_type": "UnheardOf"}"#),
        (&fc, "PUT", "/actions", r#"{"action_type": "InstanceStart", "action_type": "FlushMetrics"}"#),
        (&fc, "PUT", "/actions", r#"{"action_type": ["InstanceStart"]}"#),
        (&fc, "PATCH", "/vm", r#"{"state": "Gone"}"#),
        (&fc, "PATCH", "/network-interfaces/e", r#"{"iface_id": "e", "host_dev_name": "tap9"}"#),
    ] {
        assert!(told(table, method, path, body).starts_with("denied: "), "{method} {path} {body}");
    }
}
