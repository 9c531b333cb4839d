// SPDX-License-Identifier: Apache-2.0
//! What the table of oVirt's API says.

use super::*;

const OPERATIONS: &str = include_str!("../../../../../../policies/classify/ovirt-operations.txt");
const ID: &str = "6f566972-7400-4000-8b00-000000000001";
const OTHER: &str = "6f566972-7400-4000-8b00-000000000002";
const XML: &str = "application/xml";
const JSON: &str = "application/json";

fn table() -> Table {
    Table::read(OVIRT).unwrap()
}

fn ask(method: &str, target: &str, media: &str, body: &str) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let table = table();
    let content = match table.read_body(Some(media), body.as_bytes()) {
        Ok(content) => content,
        Err(why) => return Verdict::Denied(why.into()),
    };
    let asked = Asked { method, path: &path, query, upgrade: Upgrade::None, body: content.said() };
    table.classify(&"rhv".parse().unwrap(), &asked)
}

/// Everything that is asked, or the reason.
fn told_as(media: &str, method: &str, path: &str, body: &str) -> String {
    match ask(method, &format!("/ovirt-engine/api{path}"), media, body) {
        Verdict::Operation { operation, also, .. } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(" + ").replace(ID, "web").replace(OTHER, "db")
        }
        Verdict::Visible { hypervisor, .. } => format!("visible of {hypervisor}"),
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{method} {path}: {other:?}"),
    }
}

fn told(method: &str, path: &str, body: &str) -> String {
    told_as(if body.starts_with('{') { JSON } else { XML }, method, path, body)
}

#[test]
fn every_operation_of_the_api_has_a_verdict_of_its_own() {
    let table = table();
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with('#')) {
        let (method, pattern) = line.split_once(' ').unwrap();
        let shape =
            |p: &str| p.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect::<Vec<_>>().join("/");
        let entry = table.entries().iter().find(|e| e.method == method && shape(&e.pattern) == shape(pattern));
        let parts: Vec<&str> = pattern.split('/').map(|p| if p.starts_with('{') { ID } else { p }).collect();
        let target = format!("/ovirt-engine/api{}", parts.join("/").trim_end_matches('/'));
        match (entry, ask(method, &target, XML, "")) {
            (Some(e), Verdict::Operation { operation, .. }) if e.action == Some(operation.action) => known += 1,
            (Some(e), Verdict::Visible { .. }) if e.action == Some(Action::View) => known += 1,
            (Some(e), Verdict::Denied(_)) if e.action.is_none() => denied += 1,
            (None, Verdict::Denied(why)) if !why.contains("does not know") => denied += 1,
            (_, got) => wrong.push(format!("{line}: {got:?}")),
        }
    }
    println!("oVirt: {known} operations asked for, {denied} denied with a reason, {} without a verdict", wrong.len());
    assert_eq!(wrong, [""; 0]);
    assert_eq!((known, denied), (865, 18));
    // Nothing is in the table that the API has not.
    let listed: Vec<&str> = OPERATIONS.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(listed.len(), 883);
    assert!(table.entries().len() <= listed.len());
}

#[test]
fn a_change_is_never_a_view() {
    for entry in table().entries().iter().filter(|e| e.method != "GET") {
        assert_ne!(entry.action, Some(Action::View), "{entry:?}");
        assert_eq!(entry.effect, Effect::Unsafe, "{entry:?}");
    }
}

#[test]
fn what_is_done_to_a_machine_is_asked_of_it_and_of_what_its_body_reaches() {
    let vm = format!("/vms/{ID}");
    let at = |verb: &str| format!("{vm}/{verb}");
    for (method, path, body, what) in [
        ("GET", vm.clone(), "", "view on rhv/web"),
        ("GET", at("snapshots?max=5&follow=disks"), "", "denied"),
        ("GET", format!("{vm}?follow=nics,disk_attachments.disk&all_content=true"), "", "view on rhv/web"),
        ("POST", at("start"), "<action/>", "power on rhv/web"),
        ("POST", at("start"), "", "power on rhv/web"),
        (
            "POST",
            at("start"),
            "<action><pause>true</pause><use_cloud_init>false</use_cloud_init></action>",
            "power on rhv/web",
        ),
        (
            "POST",
            at("start"),
            "<action><use_cloud_init>true</use_cloud_init></action>",
            "power on rhv/web + guest-exec on rhv/web",
        ),
        ("POST", at("start"), r#"{"use_cloud_init": true}"#, "power on rhv/web + guest-exec on rhv/web"),
        ("POST", at("start"), r#"{"use_cloud_init": "false", "use_sysprep": false}"#, "power on rhv/web"),
        (
            "POST",
            at("start"),
            "<action><vm><initialization><root_password>x</root_password></initialization></vm></action>",
            "power on rhv/web + guest-exec on rhv/web",
        ),
        (
            "POST",
            at("start"),
            "<action><vm><custom_properties><custom_property><name>qemu_cmdline</name></custom_property></custom_properties></vm></action>",
            "power on rhv/web + node-admin on rhv",
        ),
        ("POST", at("stop?async=true"), "<action><force>true</force></action>", "power on rhv/web"),
        ("POST", at("migrate"), "<action><host id='h'/></action>", "migrate on rhv/web"),
        (
            "POST",
            at("migrate"),
            "<action><cluster id='c'/><force>true</force></action>",
            "migrate on rhv/web + access-admin on rhv + node-admin on rhv",
        ),
        ("POST", at("snapshots"), "<snapshot><description>a</description></snapshot>", "snapshot on rhv/web"),
        (
            "POST",
            at("clone"),
            "<action><vm><name>n</name></vm></action>",
            "create on rhv + node-admin on rhv + storage on rhv/web",
        ),
        (
            "POST",
            at("export"),
            "<action><host><name>h</name></host><directory>/etc</directory></action>",
            "storage on rhv + node-admin on rhv + storage on rhv/web",
        ),
        ("POST", at("screenshot"), "<action/>", "console.screenshot on rhv/web"),
        ("PUT", vm.clone(), "<vm><memory>1</memory></vm>", "configure on rhv/web"),
        ("PUT", vm.clone(), r#"{"cluster": {"id": "c"}}"#, "configure on rhv/web + access-admin on rhv"),
        ("PUT", vm.clone(), "<vm><cluster><name>c</name></cluster></vm>", "configure on rhv/web + access-admin on rhv"),
        (
            "PUT",
            vm.clone(),
            "<vm><tags><tag><name>x</name></tag></tags></vm>",
            "configure on rhv/web + access-admin on rhv",
        ),
        (
            "PUT",
            vm.clone(),
            "<vm><os><kernel>/etc/shadow</kernel></os></vm>",
            "configure on rhv/web + node-admin on rhv",
        ),
        (
            "PUT",
            vm.clone(),
            "<vm><placement_policy><hosts><host id='h'/></hosts></placement_policy></vm>",
            "configure on rhv/web + migrate on rhv/web",
        ),
        ("DELETE", vm.clone(), "", "destroy on rhv/web"),
        ("DELETE", format!("{vm}?detach_only=true"), "", "destroy on rhv/web"),
        ("POST", at("tags"), "<tag><name>pay</name></tag>", "access-admin on rhv + configure on rhv/web"),
        ("DELETE", at("tags/t"), "", "access-admin on rhv + configure on rhv/web"),
        ("POST", at("nics"), "<nic><name>n</name><vnic_profile id='p'/></nic>", "network on rhv/web"),
        (
            "POST",
            at("diskattachments"),
            "<disk_attachment><disk id='d'/></disk_attachment>",
            "storage on rhv + storage on rhv/web",
        ),
        ("DELETE", at("diskattachments/d"), "", "storage on rhv/web"),
        ("POST", at("hostdevices"), "<host_device id='d'/>", "node-admin on rhv + configure on rhv/web"),
        ("POST", at("permissions"), "<permission><role id='r'/></permission>", "access-admin on rhv"),
        ("GET", at("permissions"), "", "access-admin on rhv"),
        ("POST", at("detach"), "<action/>", "access-admin on rhv + configure on rhv/web"),
    ] {
        let said = told(method, &path, body);
        if what == "denied" {
            assert!(said.starts_with("denied: "), "{method} {path} {body}: {said}");
        } else {
            assert_eq!(said, what, "{method} {path} {body}");
        }
    }
}

#[test]
fn what_reaches_past_machines_asks_for_more() {
    for (method, path, body, what) in [
        ("GET", "", "", "visible of rhv".to_owned()),
        ("GET", "/vms?search=name%3Dweb&max=10&follow=tags", "", "visible of rhv".into()),
        ("GET", "/events?from=5", "", "visible of rhv".into()),
        ("GET", "/hosts?search=name%3Dkvm-1.example&max=1", "", "visible of rhv".into()),
        ("GET", "/templates", "", "view on rhv".into()),
        ("GET", "/options/x", "", "node-admin on rhv".into()),
        ("GET", "/hosts/h/fenceagents", "", "node-admin on rhv".into()),
        ("GET", "/users", "", "access-admin on rhv".into()),
        (
            "POST",
            "/vms",
            "<vm><name>n</name><cluster><name>c</name></cluster><template><name>Blank</name></template></vm>",
            "create on rhv".into(),
        ),
        ("POST", "/vms", "<vm><name>n</name><nics><nic/></nics></vm>", "create on rhv + network on rhv".into()),
        (
            "POST",
            "/vms?clone_permissions=true",
            "<vm><name>n</name></vm>",
            "create on rhv + access-admin on rhv".into(),
        ),
        (
            "POST",
            "/vms",
            "<vm><snapshots><snapshot id='s'/></snapshots></vm>",
            "create on rhv + storage on rhv + node-admin on rhv".into(),
        ),
        (
            "POST",
            "/templates",
            &format!("<template><name>t</name><vm id='{OTHER}'/></template>"),
            "create on rhv + storage on rhv/db + node-admin on rhv".into(),
        ),
        (
            "POST",
            "/vmpools",
            &format!("<vm_pool><name>p</name><vm id='{OTHER}'/></vm_pool>"),
            "create on rhv + storage on rhv/db + node-admin on rhv".into(),
        ),
        ("PUT", "/clusters/c", "<cluster><name>n</name></cluster>", "node-admin on rhv + access-admin on rhv".into()),
        ("PUT", "/clusters/c", "<cluster><comment>n</comment></cluster>", "node-admin on rhv".into()),
        (
            "POST",
            "/templates/t/export",
            "<action><host id='h'/><directory>/etc</directory></action>",
            "storage on rhv + node-admin on rhv".into(),
        ),
        ("PUT", "/vmpools/p", "<vm_pool><cluster id='c'/></vm_pool>", "configure on rhv + access-admin on rhv".into()),
        (
            "POST",
            "/vnicprofiles",
            "<vnic_profile><custom_properties><custom_property/></custom_properties></vnic_profile>",
            "network on rhv + node-admin on rhv".into(),
        ),
        ("POST", "/tags", "<tag><name>n</name></tag>", "access-admin on rhv".into()),
        (
            "POST",
            "/affinitylabels/l/vms",
            &format!("<vm id='{OTHER}'/>"),
            "node-admin on rhv + migrate on rhv/db".into(),
        ),
        ("POST", "/hosts/h/fence", "<action><fence_type>restart</fence_type></action>", "node-admin on rhv".into()),
        ("DELETE", "/disks/d", "", "storage on rhv".into()),
        (
            "POST",
            "/externalvmimports",
            "<external_vm_import><url>x</url></external_vm_import>",
            "node-admin on rhv + create on rhv".into(),
        ),
        ("POST", "/storagedomains/s/vms/v/register", "<action/>", "create on rhv + node-admin on rhv".into()),
        ("POST", "/storagedomains/s/templates/t/import", "<action/>", "create on rhv + node-admin on rhv".into()),
    ] {
        assert_eq!(told(method, path, body), what, "{method} {path} {body}");
    }
}

#[test]
fn what_cannot_be_read_in_one_way_or_leads_elsewhere_is_denied() {
    let vm = format!("/vms/{ID}");
    let console = format!("{vm}/graphicsconsoles/c");
    for (media, method, path, body, why) in [
        (XML, "POST", format!("{console}/ticket"), "<action/>", "in the browser"),
        (XML, "POST", format!("{console}/proxyticket"), "<action/>", "in the browser"),
        (XML, "POST", format!("{console}/remoteviewerconnectionfile"), "<action/>", "in the browser"),
        (XML, "POST", format!("{vm}/ticket"), "<action/>", "in the browser"),
        (XML, "POST", format!("{vm}/logon"), "<action/>", "the gateway itself"),
        (XML, "POST", "/imagetransfers".into(), "", "another address"),
        (XML, "GET", "/imagetransfers/t".into(), "", "another address"),
        (XML, "GET", "/openstackvolumeproviders/p/authenticationkeys".into(), "", "stay with the engine"),
        (XML, "GET", format!("{vm}?follow=permissions"), "", "\"permissions\""),
        (XML, "GET", format!("{vm}?follow=host.vms"), "", "\"host.vms\""),
        (XML, "GET", format!("{vm}?follow=nics,,cluster"), "", "does not know"),
        (XML, "GET", "/vms?follow=cluster.permissions".into(), "", "does not know"),
        (XML, "GET", format!("{vm}?correlation_id=x"), "", "\"correlation_id\""),
        (XML, "GET", "/hosts?search=vms.name%3Dpayroll".into(), "", "in \"search\""),
        (XML, "GET", "/hosts?search=name%3Dkvm1+and+vms.name%3Dpayroll".into(), "", "in \"search\""),
        (XML, "GET", "/clusters?search=name%3D*".into(), "", "in \"search\""),
        (XML, "GET", "/hosts?search=name%3D".into(), "", "in \"search\""),
        (XML, "GET", "/vms?max=1&max=2".into(), "", "comes twice"),
        (XML, "GET", "/v3/vms".into(), "", "does not know"),
        (XML, "GET", "/vms/a:b".into(), "", "no name of a machine"),
        (XML, "GET", "/unheard-of".into(), "", "does not know"),
        (XML, "POST", format!("{vm}/unheardof"), "<action/>", "does not know"),
        (XML, "PUT", vm.clone(), "<vm><unheard_of>1</unheard_of></vm>", "\"/unheard_of\""),
        (XML, "PUT", vm.clone(), "<vm><memory>1</memory>x</vm>", "one meaning"),
        (XML, "PUT", vm.clone(), "<!DOCTYPE vm [<!ENTITY x 'y'>]><vm><name>&x;</name></vm>", "one meaning"),
        (
            XML,
            "PUT",
            vm.clone(),
            "<vm xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:type='Host'/>",
            "one meaning",
        ),
        (JSON, "PUT", vm.clone(), r#"{"name": "a", "name": "b"}"#, "each key stands once"),
        (JSON, "PUT", vm.clone(), "<vm/>", "no JSON"),
        ("text/plain", "PUT", vm.clone(), "<vm/>", "neither XML nor JSON"),
        ("", "PUT", vm.clone(), "<vm/>", "neither XML nor JSON"),
        ("application/x-www-form-urlencoded", "PUT", vm.clone(), "name=x", "another kind"),
        (XML, "POST", "/vms".into(), "<vm id='x'/>", "\"/id\""),
        (
            XML,
            "POST",
            "/vms".into(),
            "<vm><initialization><configuration><data>x</data></configuration></initialization></vm>",
            "configuration file",
        ),
        (XML, "POST", "/templates".into(), "<template><vm><name>db</name></vm></template>", "by its id"),
        (XML, "POST", "/templates".into(), "<template><vm href='/ovirt-engine/api/vms/1'/></template>", "by its id"),
        (XML, "POST", "/affinitylabels/l/vms".into(), "<vm><name>db</name></vm>", "by its id"),
    ] {
        let said = told_as(media, method, &path, body);
        assert!(said.starts_with("denied: ") && said.contains(why), "{media} {method} {path} {body}: {said}");
    }
    for path in [
        "/",
        "/ovirt-engine",
        "/ovirt-engine/webadmin",
        "/ovirt-engine/services/pki-resource",
        "/ovirt-engine/apix/vms",
        "/api/vms",
    ] {
        assert!(matches!(ask("GET", path, XML, ""), Verdict::Denied(_)), "{path}");
    }
}

#[test]
fn a_set_of_words_says_which_and_no_other_set_does() {
    let table = |param: &str| {
        let head =
            "api = \"T\"\nbodies = \"tree\"\n[machine]\nname = \"vm\"\n[task]\nid = \"t\"\n[query]\neverywhere = []\n";
        let rule = "[[rule]]\noperations = [\"GET /a\"]\naction = \"view\"\nobject = \"hypervisor\"\neffect = \"safe\"\nparams = [\"s\"]\n";
        Table::read(&format!("{head}[[params]]\nset = \"s\"\nkeys = [\"follow\"]\n{param}\n{rule}")).map(drop)
    };
    assert!(table("use = \"words\"\nwords = [\"nics\"]").is_ok());
    for bad in [
        "use = \"words\"",
        "use = \"words\"\nwords = []",
        "words = [\"nics\"]",
        "use = \"refuse\"\nreason = \"no\"\nwords = [\"a\"]",
    ] {
        assert!(table(bad).is_err_and(|e| e.to_string().contains("words")), "{bad}");
    }
}

#[test]
fn going_back_to_a_snapshot_asks_all_that_it_may_bring_back() {
    for path in ["previewsnapshot", "commitsnapshot", "undosnapshot", &format!("snapshots/{OTHER}/restore")] {
        let said = told("POST", &format!("/vms/{ID}/{path}"), "<action/>");
        for asked in [
            "snapshot on rhv/web",
            "network on rhv/web",
            "storage on rhv/web",
            "node-admin on rhv",
            "access-admin on rhv",
        ] {
            assert!(said.split(" + ").any(|one| one == asked), "{path}: {asked}: {said}");
        }
    }
}

/// Every way of a set with what it asks, as JSON bodies say it.
fn ways_of(set: &str) -> Vec<(String, String)> {
    let file: toml::Table = toml::from_str(OVIRT).unwrap();
    let rows = file["params"].as_array().unwrap().iter().filter(|r| r["set"].as_str() == Some(set));
    let asking = rows.filter_map(|r| Some((r.get("action")?.as_str()?, r["keys"].as_array()?)));
    asking
        .flat_map(|(action, keys)| keys.iter().map(move |key| (key.as_str().unwrap().to_owned(), action.to_owned())))
        .filter(|(key, _)| key.starts_with('/'))
        .collect()
}

/// A body that says something at a way, below another one.
fn saying(within: &str, way: &str) -> String {
    let steps: Vec<&str> = within.split('/').chain(way.split('/')).filter(|s| !s.is_empty()).collect();
    let end = serde_json::json!("x");
    steps
        .iter()
        .rev()
        .fold(end, |inside, step| serde_json::json!({ if *step == "**" { "any" } else { step }: inside }))
        .to_string()
}

#[test]
fn what_machines_are_made_from_asks_all_that_a_machine_asks() {
    let mut wrong = Vec::new();
    let mut asks = |method: &str, path: &str, body: &str, action: &str| {
        let said = told(method, path, body);
        if !said.split(" + ").any(|one| one == format!("{action} on rhv")) {
            wrong.push(format!("{method} {path} {body} does not ask {action}: {said}"));
        }
    };
    let ways = ways_of("creating");
    assert!(ways.len() > 20, "{ways:?}");
    for (way, action) in &ways {
        asks("POST", "/vms", &saying("", way), action);
        // What a copy of a snapshot brings is told of a machine that is named, by its id.
        if way == "/snapshots/snapshot/id" && action == "node-admin" {
            continue;
        }
        for (method, path) in
            [("POST", "/templates"), ("POST", "/vmpools"), ("PUT", "/templates/t"), ("PUT", "/vmpools/p")]
        {
            for within in ["", "/vm"] {
                asks(method, path, &saying(within, way), action);
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}
