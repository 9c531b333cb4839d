// SPDX-License-Identifier: Apache-2.0
//! What the table of OpenStack's API says.

use super::*;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/openstack-operations.txt");
const ID: &str = "6f70656e-7374-4163-8b00-000000000001";

fn table() -> Table {
    Table::read(OPENSTACK).unwrap()
}

fn ask(method: &str, target: &str, body: &str) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let table = table();
    let content = match table.read_body(Some("application/json"), body.as_bytes()) {
        Ok(content) => content,
        Err(why) => return Verdict::Denied(why.into()),
    };
    let asked = Asked { method, path: &path, query, upgrade: Upgrade::None, body: content.said() };
    table.classify(&"os".parse().unwrap(), &asked)
}

/// Everything that is asked, or the reason.
fn told(method: &str, path: &str, body: &str) -> String {
    match ask(method, &format!("/v2.1{path}"), body) {
        Verdict::Operation { operation, also, .. } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(" + ").replace(ID, "web")
        }
        Verdict::Visible { hypervisor, .. } => format!("visible of {hypervisor}"),
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{method} {path}: {other:?}"),
    }
}

fn action(body: &str) -> String {
    told("POST", &format!("/servers/{ID}/action"), body)
}

#[test]
fn every_operation_of_the_api_has_a_verdict_of_its_own() {
    let table = table();
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ');
        let (method, pattern, only) = (words.next().unwrap(), words.next().unwrap(), words.next());
        let pattern = match pattern {
            // The list of versions is the gateway's own answer.
            "/" => continue,
            "/{api_version}/" => "",
            pattern => pattern,
        };
        // Names of parameters differ between the reference and the policies.
        let shape =
            |p: &str| p.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect::<Vec<_>>().join("/");
        let is_it = |e: &&Entry| {
            e.method == method
                && shape(e.pattern.trim_end_matches('/')) == shape(pattern)
                && (e.only.is_none() || e.only.as_deref() == only)
        };
        let entry = table.entries().iter().find(is_it);
        let parts: Vec<&str> = pattern.split('/').map(|p| if p.starts_with('{') { ID } else { p }).collect();
        // Nothing but the key that chooses: what else the body has to say is for Nova to miss.
        let body = only.map_or(String::new(), |key| format!("{{\"{key}\": null}}"));
        let unsaid = |why: &str| only.is_some_and(|key| why.contains(&format!("\"/{key}\" in this body")));
        match (entry, ask(method, &format!("/v2.1{}", parts.join("/")), &body)) {
            (Some(e), Verdict::Operation { operation, .. }) if e.action == Some(operation.action) => known += 1,
            (Some(e), Verdict::Visible { .. }) if e.action == Some(Action::View) => known += 1,
            (Some(e), Verdict::Denied(_)) if e.action.is_none() => denied += 1,
            // The key is known, and wants more in it.
            (Some(e), Verdict::Denied(why)) if e.only.is_some() && unsaid(&why) => known += 1,
            (None, Verdict::Denied(why)) if !why.contains("does not know") => denied += 1,
            (_, got) => wrong.push(format!("{line}: {got:?}")),
        }
    }
    println!(
        "OpenStack: {known} operations asked for, {denied} denied with a reason, {} without a verdict",
        wrong.len()
    );
    assert_eq!(wrong, [""; 0]);
    assert!(known > 130 && denied > 60, "{known} {denied}");
}

#[test]
fn a_change_is_never_a_view() {
    for entry in table().entries().iter().filter(|e| e.method != "GET") {
        assert_ne!(entry.action, Some(Action::View), "{entry:?}");
        assert_eq!(entry.effect, Effect::Unsafe, "{entry:?}");
    }
}

#[test]
fn the_key_of_the_body_says_what_is_done_to_a_server() {
    for (body, what) in [
        (r#"{"os-start": null}"#, "power on os/web"),
        (r#"{"reboot": {"type": "HARD"}}"#, "power on os/web"),
        (r#"{"unshelve": null}"#, "power on os/web"),
        (r#"{"unshelve": {"host": "cmp1"}}"#, "power on os/web + node-admin on os"),
        (r#"{"createImage": {"name": "a", "metadata": {"x": "y"}}}"#, "snapshot on os/web"),
        (r#"{"os-migrateLive": {"host": null, "block_migration": "auto"}}"#, "migrate on os/web"),
        (
            r#"{"os-migrateLive": {"host": "cmp1", "block_migration": "auto", "force": true}}"#,
            "migrate on os/web + node-admin on os",
        ),
        (r#"{"evacuate": {"adminPass": "x"}}"#, "migrate on os/web + guest-exec on os/web"),
        (r#"{"rebuild": {"imageRef": "i"}}"#, "destroy on os/web"),
        (r#"{"rebuild": {"imageRef": "i", "user_data": "x"}}"#, "destroy on os/web + guest-exec on os/web"),
        (r#"{"rescue": null}"#, "configure on os/web"),
        (r#"{"rescue": {"rescue_image_ref": "i"}}"#, "configure on os/web + guest-exec on os/web"),
        (r#"{"changePassword": {"adminPass": "x"}}"#, "guest-exec on os/web"),
        (r#"{"os-resetState": {"state": "active"}}"#, "node-admin on os + power on os/web"),
        (r#"{"os-getConsoleOutput": {"length": 50}}"#, "console.view on os/web"),
        (r#"{"forceDelete": null}"#, "destroy on os/web"),
    ] {
        assert_eq!(action(body), what, "{body}");
    }
    for (body, why) in [
        (r#"{"os-getVNCConsole": {"type": "novnc"}}"#, "in the browser"),
        (r#"{"os-start": null, "os-getConsoleOutput": {}}"#, "this variant"),
        (r#"{"os-start": null, "forceDelete": null}"#, "this variant"),
        (r#"{"os-start": null, "os-start": {}}"#, "each key stands once"),
        (r#"{"unheardOf": null}"#, "this variant"),
        (r#"{"reboot": {"type": "HARD", "host": "x"}}"#, "\"/reboot/host\""),
        (r#"{"os-stop": {"rebuild": {}}}"#, "\"/os-stop/rebuild\""),
        ("{}", "this variant"),
        ("", "this variant"),
    ] {
        let told = action(body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{body}: {told}");
    }
}

#[test]
fn what_reaches_past_a_server_asks_for_more() {
    let server = format!("/servers/{ID}");
    for (method, path, body, what) in [
        ("GET", "/servers/detail?all_tenants=1&limit=5", "", "visible of os"),
        ("GET", "/flavors/detail", "", "visible of os"),
        ("GET", &server, "", "view on os/web"),
        ("DELETE", &server, "", "destroy on os/web"),
        ("PUT", &server, r#"{"server": {"name": "n"}}"#, "configure on os/web"),
        ("PUT", &format!("{server}/tags"), r#"{"tags": ["pay"]}"#, "access-admin on os + configure on os/web"),
        ("PUT", &format!("{server}/tags/pay"), "", "access-admin on os + configure on os/web"),
        ("DELETE", &format!("{server}/tags/pay"), "", "access-admin on os + configure on os/web"),
        (
            "POST",
            &format!("{server}/os-volume_attachments"),
            r#"{"volumeAttachment": {"volumeId": "v"}}"#,
            "storage on os + storage on os/web",
        ),
        ("POST", "/servers", r#"{"server": {"name": "n", "flavorRef": "1", "networks": "none"}}"#, "create on os"),
        ("POST", "/servers", r#"{"server": {"tags": ["prod"]}}"#, "create on os + access-admin on os"),
        ("POST", "/servers", r#"{"server": {"networks": [{"uuid": "x"}]}}"#, "create on os + network on os"),
        (
            "POST",
            "/servers",
            r#"{"server": {"name": "n", "host": "cmp1"}, "os:scheduler_hints": {"same_host": ["x"]}}"#,
            "create on os + node-admin on os + migrate on os",
        ),
        (
            "POST",
            "/servers",
            r#"{"server": {"name": "n", "block_device_mapping_v2": [{"uuid": "v", "source_type": "volume"}]}}"#,
            "create on os + storage on os",
        ),
        ("POST", "/flavors/1/os-extra_specs", r#"{"extra_specs": {"pci_passthrough:alias": "a"}}"#, "node-admin on os"),
        ("GET", "/os-hypervisors/detail", "", "node-admin on os"),
        ("PUT", "/os-quota-sets/t", r#"{"quota_set": {"cores": 9}}"#, "access-admin on os"),
        ("GET", &format!("{server}/os-server-password"), "", "guest-exec on os/web"),
    ] {
        assert_eq!(told(method, path, body), what, "{method} {path} {body}");
    }
    for (method, path, body, why) in [
        ("GET", "/os-hosts/h/reboot", "", "removed from Nova"),
        ("GET", "/os-console-auth-tokens/x", "", "stays with the gateway"),
        ("POST", &format!("{server}/remote-consoles"), r#"{"remote_console": {"protocol": "vnc"}}"#, "in the browser"),
        ("POST", "/os-server-external-events", r#"{"events": []}"#, "own services"),
        ("POST", "/servers", r#"{"server": {"unheardOf": 1}}"#, "\"/server/unheardOf\""),
        ("POST", "/os-keypairs", r#"{"keypair": {"name": "n", "user_id": "u"}}"#, "own account"),
        ("GET", "/servers?unheardOf=1", "", "\"unheardOf\""),
        ("GET", "/unheard-of", "", "does not know"),
        ("GET", "/servers/a:b", "", "no name of a machine"),
    ] {
        let told = told(method, path, body);
        assert!(told.starts_with("denied: ") && told.contains(why), "{method} {path} {body}: {told}");
    }
    for path in ["/", "/v3/users", "/v2/servers", "/v2.1x/servers", "/v2.0/servers", "/placement"] {
        assert!(matches!(ask("GET", path, ""), Verdict::Denied(_)), "{path}");
    }
    assert!(matches!(ask("GET", "/compute/v2.1/servers", ""), Verdict::Visible { .. }));
}
