// SPDX-License-Identifier: Apache-2.0

use super::{super::rpc::Wire, *};
use std::collections::BTreeSet;

/// Messages of the description, those that are generated for every class, and the one that names them all.
const METHODS: usize = 2007 + 62 + 1;

fn lines() -> impl Iterator<Item = &'static str> {
    XAPI_OPERATIONS.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("record "))
}

/// `class.message` or `METHOD /path`.
fn name(line: &'static str) -> &'static str {
    if line.contains(" /") { line } else { line.split(' ').next().unwrap() }
}

#[test]
fn every_method_and_request_of_the_api_has_a_verdict() {
    let table = Methods::read(XAPI, XAPI_OPERATIONS).unwrap();
    let known: BTreeSet<&str> = table.entries().map(|e| e.name).chain(table.addresses()).collect();
    let missing: Vec<&str> = lines().map(name).filter(|n| !known.contains(n)).collect();
    // A method that has an exception comes twice.
    let methods: BTreeSet<&str> = table.entries().map(|e| e.name).collect();
    let (methods, requests) = (methods.len(), table.addresses().count());
    println!(
        "XAPI: {methods} of {METHODS} methods and {requests} of 52 requests have a verdict, {missing:?} have none"
    );
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!((methods, requests), (METHODS, 52));
}

#[test]
fn no_method_that_changes_something_passes_for_a_view() {
    let table = Methods::read(XAPI, XAPI_OPERATIONS).unwrap();
    let views: Vec<MethodEntry<'_>> = table.entries().filter(|e| e.action == Some(Action::View)).collect();
    assert!(views.len() > 1000);
    // Reviewed one by one.
    let reads = [
        "VBD.assert_attachable",
        "VM.assert_agile",
        "VM.assert_can_boot_here",
        "VM.assert_operation_valid",
        "VM.compute_memory_overhead",
        "VM.maximise_memory",
        "VM.query_data_source",
        "VM.query_services",
        "VM.retrieve_wlb_recommendations",
        "VM.wait_memory_target_live",
        "SR.query_data_source",
        "event.from",
        "event.inject",
        "host.compute_free_memory",
        "host.compute_memory_overhead",
        "host.has_extension",
        "host.list_methods",
        "host.list_timezones",
        "host.query_data_source",
        "pool.has_extension",
    ];
    for entry in views {
        let message = entry.name.split_once('.').unwrap().1;
        assert!(message.starts_with("get_") || message == "get" || reads.contains(&entry.name), "{entry:?}");
        assert_eq!(entry.effect, Effect::Safe, "{entry:?}");
    }
    for entry in table.entries().filter(|e| e.effect == Effect::Safe) {
        let message = entry.name.split_once('.').unwrap().1;
        for change in ["set_", "add_", "remove_", "create", "destroy", "forget", "enable", "disable"] {
            assert!(!message.starts_with(change), "{entry:?}");
        }
    }
}

const VM: &str = "OpaqueRef:00000000-0000-0000-0000-00000000000a";
const OTHER: &str = "OpaqueRef:00000000-0000-0000-0000-00000000000b";
const DISK: &str = "OpaqueRef:00000000-0000-0000-0000-0000000000d1";
const SHARED: &str = "OpaqueRef:00000000-0000-0000-0000-0000000000d2";
const FREE: &str = "OpaqueRef:00000000-0000-0000-0000-0000000000d3";
const PART: &str = "OpaqueRef:00000000-0000-0000-0000-0000000000e1";
const GROUP: &str = "OpaqueRef:00000000-0000-0000-0000-0000000000f1";
const HOST: &str = "OpaqueRef:00000000-0000-0000-0000-000000000101";

/// Machine `a` with a part and a disk, machine `b`, a disk that both have, one that nobody has.
struct Known(Vec<MachineId>);

impl Objects for Known {
    fn owner(&self, class: &str, object: Uuid) -> Option<Owner<'_>> {
        let (a, b) = (Owner::Machines(&self.0[..1]), Owner::Machines(&self.0[1..]));
        match (class, object.as_u128()) {
            ("VM", 0xa) | ("VDI", 0xd1) | ("VIF" | "VBD" | "console" | "VM_metrics", 0xe1) => Some(a),
            ("VM", 0xb) => Some(b),
            ("VDI", 0xd2) | ("VM_appliance", 0xf1) => Some(Owner::Machines(&self.0)),
            ("VDI", 0xd3) => Some(Owner::Hypervisor),
            _ => None,
        }
    }
}

fn told(method: &str, args: &str) -> String {
    let table = Methods::builtin(MethodsKind::Xapi);
    let comma = if args.is_empty() { "" } else { "," };
    let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":["OpaqueRef:s"{comma}{args}],"id":1}}"#);
    let call = Call::read(Wire::Json, Some("application/json"), body.as_bytes()).unwrap();
    let known = Known(vec!["a".parse().unwrap(), "b".parse().unwrap()]);
    match table.classify(&"xen".parse().unwrap(), &call, &known) {
        Err(why) => format!("denied: {why}"),
        Ok(Told::Session(entrance)) => format!("{entrance:?}"),
        Ok(Told::TaskChange(_, otherwise)) => format!("task, otherwise {otherwise}"),
        Ok(Told::Unknown(class, text)) => format!("unknown {class} {text}"),
        Ok(Told::Asked(Verdict::Visible { .. }, back)) => format!("visible {back:?}"),
        Ok(Told::Asked(Verdict::Task { task, .. }, _)) => format!("task {}", task.action),
        Ok(Told::Asked(Verdict::Operation { operation, also, .. }, back)) => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            format!("{}{}", all.join(" + "), if back == Back::Task { " as a task" } else { "" })
        }
        Ok(other) => panic!("{other:?}"),
    }
}

#[test]
fn each_method_asks_what_was_reviewed() {
    for (method, args, what) in [
        ("session.login_with_password", "", "Login"),
        ("session.logout", "", "Logout"),
        ("VM.get_all_records", "", "visible Rows(\"VM\")"),
        ("VM.get_all_records_where", r#""true""#, "visible Rows(\"VM\")"),
        ("VM.get_by_uuid", r#""x""#, "visible Rows(\"VM\")"),
        ("pool.get_all", "", "visible Whole"),
        ("host.get_record", &format!("\"{HOST}\""), "visible Record(\"host\")"),
        ("event.from", r#"["*"],"",30.0"#, "visible Events"),
        ("event.inject", &format!("\"pool\",\"{HOST}\""), "visible Whole"),
        ("event.inject", &format!("\"VM\",\"{VM}\""), "node-admin on xen"),
        ("event.inject", &format!("[\"pool\"],\"{VM}\""), "node-admin on xen"),
        ("system.listMethods", "", "Listing"),
        ("VM.get_record", &format!("\"{VM}\""), "view on xen/a"),
        ("VM_metrics.get_record", &format!("\"{PART}\""), "view on xen/a"),
        ("console.get_location", &format!("\"{PART}\""), "view on xen/a"),
        ("VDI.get_record", &format!("\"{SHARED}\""), "view on xen/a,b"),
        ("VDI.get_record", &format!("\"{FREE}\""), "view on xen"),
        ("network.get_all_records", "", "view on xen"),
        ("VM.start", &format!("\"{VM}\",false,false"), "power on xen/a"),
        ("Async.VM.start", &format!("\"{VM}\",false,false"), "power on xen/a as a task"),
        ("VM.start_on", &format!("\"{VM}\",\"{HOST}\",false,false"), "power on xen/a"),
        ("VM.pool_migrate", &format!("\"{VM}\",\"{HOST}\",{{}}"), "migrate on xen/a"),
        ("VM_appliance.start", &format!("\"{GROUP}\",false"), "power on xen/a,b"),
        ("VM.snapshot", &format!("\"{VM}\",\"s\""), "snapshot on xen/a"),
        ("VM.revert", &format!("\"{VM}\""), "snapshot on xen/a + access-admin on xen + node-admin on xen"),
        ("VM.destroy", &format!("\"{VM}\""), "destroy on xen/a"),
        ("VM.clone", &format!("\"{VM}\",\"n\""), "create on xen + storage on xen/a + node-admin on xen"),
        ("VM.create", r#"{"name_label":"n"}"#, "create on xen + node-admin on xen"),
        (
            "VM.create",
            &format!("{{\"snapshot_of\":\"{OTHER}\",\"VBDs\":[]}}"),
            "create on xen + storage on xen/b + node-admin on xen",
        ),
        ("VM.set_memory", &format!("\"{VM}\",1"), "configure on xen/a"),
        ("VM.add_tags", &format!("\"{VM}\",\"production\""), "configure on xen/a + access-admin on xen"),
        ("VM.set_other_config", &format!("\"{VM}\",{{}}"), "configure on xen/a + node-admin on xen"),
        ("VM.set_PV_kernel", &format!("\"{VM}\",\"/etc/shadow\""), "configure on xen/a + node-admin on xen"),
        ("VM.call_plugin", &format!("\"{VM}\",\"p\",\"f\",{{}}"), "guest-exec on xen/a"),
        ("VM.call_host_plugin", &format!("\"{VM}\",\"p\",\"f\",{{}}"), "guest-exec on xen/a + node-admin on xen"),
        ("VIF.move", &format!("\"{PART}\",\"{HOST}\""), "network on xen/a"),
        ("VBD.create", &format!("{{\"VM\":\"{VM}\",\"VDI\":\"{DISK}\"}}"), "storage on xen/a"),
        ("VBD.create", &format!("{{\"VDI\":\"{SHARED}\",\"VM\":\"{VM}\"}}"), "storage on xen/a + storage on xen/b"),
        ("VBD.create", &format!("{{\"VM\":\"{VM}\",\"VDI\":\"{FREE}\"}}"), "storage on xen/a + storage on xen"),
        ("VBD.create", &format!("{{\"VM\":\"{VM}\",\"VDI\":\"OpaqueRef:NULL\"}}"), "storage on xen/a"),
        ("VBD.insert", &format!("\"{PART}\",\"{FREE}\""), "storage on xen/a + storage on xen"),
        ("VDI.copy", &format!("\"{DISK}\",\"{HOST}\",\"{SHARED}\""), "storage on xen/a + storage on xen/b"),
        ("VDI.destroy", &format!("\"{FREE}\""), "storage on xen"),
        ("VGPU.create", &format!("\"{VM}\",\"{HOST}\""), "configure on xen/a + node-admin on xen"),
        (
            "pool.ha_compute_vm_failover_plan",
            &format!("[],[\"{VM}\",\"{OTHER}\"]"),
            "node-admin on xen + view on xen/a + view on xen/b",
        ),
        ("host.shutdown", &format!("\"{HOST}\""), "node-admin on xen"),
        ("subject.get_all", "", "access-admin on xen"),
        ("PBD.get_device_config", &format!("\"{HOST}\""), "storage on xen"),
        ("task.get_status", &format!("\"{HOST}\""), "task view"),
        ("task.cancel", &format!("\"{HOST}\""), "task, otherwise node-admin on xen"),
    ] {
        assert_eq!(told(method, args), what, "{method} {args}");
    }
}

#[test]
fn what_is_not_known_or_leads_past_the_gateway_is_denied() {
    for (method, args, why) in [
        ("VM.unheard_of", "", "does not know this method"),
        ("Async.system.listMethods", "", "does not know this method"),
        ("Async.event.inject", "\"pool\",\"x\"", "does not know this method"),
        ("event.inject", "\"pool\"", "takes 2 parameters"),
        ("system.multicall", "[]", "does not know this method"),
        ("InternalAsync.VM.start", "", "does not know this method"),
        ("Async.Async.VM.start", "", "does not know this method"),
        ("Async.session.login_with_password", "", "does not know this method"),
        ("Async.VM.get_all", "", "does not know this method"),
        ("session.get_record", "\"x\"", "keeps the sessions"),
        ("session.slave_local_login_with_password", "\"x\"", "keeps the sessions"),
        ("event.next", "", "event.from"),
        ("secret.get_value", "\"x\"", "secret of the hypervisor"),
        ("VDI.get_nbd_info", &format!("\"{DISK}\""), "session"),
        ("VM.migrate_send", &format!("\"{VM}\",{{}},true,{{}},{{}},{{}}"), "session"),
        ("host.migrate_receive", &format!("\"{HOST}\",\"{HOST}\",{{}}"), "session"),
        ("VM.start", &format!("\"{VM}\""), "takes 3 parameters"),
        ("VM.start", &format!("\"{VM}\",false,false,true"), "takes 3 parameters"),
        ("VM.snapshot", "", "parameters"),
        ("VM.start", "7,false,false", "another shape"),
        ("VM.start", &format!("[\"{VM}\"],false,false"), "another shape"),
        ("VBD.create", &format!("{{\"VM\":[\"{VM}\"]}}"), "another shape"),
        ("VBD.create", &format!("\"{VM}\""), "another shape"),
        ("task.get_status", "\"x\"", "no reference of a task"),
        ("VM.start", &format!("\"{}\",false,false", &VM[10..]), "unknown VM 0"),
        ("VM.start", "\"OpaqueRef:1\",false,false", "unknown VM OpaqueRef:1"),
        // A reference of another class names nothing here.
        ("VM.start", &format!("\"{DISK}\",false,false"), "unknown VM"),
        ("VBD.create", &format!("{{\"VM\":\"{VM}\",\"VDI\":\"{VM}\"}}"), "unknown VDI"),
        ("VM.snapshot", &format!("\"{VM}\",\"s\",[\"OpaqueRef:2\"]"), "unknown VDI OpaqueRef:2"),
    ] {
        let told = told(method, args);
        assert!(
            (told.starts_with("denied: ") || told.starts_with("unknown ")) && told.contains(why),
            "{method} {args}: {told}"
        );
    }
}

#[test]
fn requests_beside_the_calls_name_one_thing_and_take_no_key_that_nobody_reviewed() {
    let table = Methods::builtin(MethodsKind::Xapi);
    let known = Known(vec!["a".parse().unwrap(), "b".parse().unwrap()]);
    let ask = |method: &str, path: &str, query: &str| match table.classify_web(
        &"xen".parse().unwrap(),
        (method, path, Some(query).filter(|q| !q.is_empty())),
        &known,
    ) {
        Verdict::Operation { operation, .. } => operation.to_string(),
        Verdict::Denied(why) => format!("denied: {why}"),
        other => panic!("{other:?}"),
    };
    let id = &VM[10..];
    for (method, path, query, what) in [
        ("GET", "/export", format!("uuid={id}"), "storage on xen/a"),
        ("GET", "/export", format!("ref={VM}&use_compression=true"), "storage on xen/a"),
        ("GET", "/export_raw_vdi", format!("vdi={FREE}&format=vhd"), "storage on xen"),
        ("PUT", "/import", "sr_id=x".to_owned(), "node-admin on xen"),
        ("GET", "/vm_rrds", format!("uuid={id}"), "view on xen/a"),
        ("GET", "/vncsnapshot", format!("uuid={id}"), "console.screenshot on xen/a"),
        // What is not there is asked for like what is hidden.
        ("GET", "/export", "uuid=00000000-0000-0000-0000-0000000000ff".to_owned(), "storage on xen/-"),
        ("GET", "/export", format!("ref={FREE}"), "storage on xen/-"),
        ("GET", "/export", "uuid=none".to_owned(), "storage on xen/-"),
    ] {
        assert_eq!(ask(method, path, &query), what, "{path} {query}");
    }
    for (method, path, query, why) in [
        ("GET", "/export", String::new(), "does not name"),
        ("GET", "/export", format!("uuid={id}&ref={OTHER}"), "two things"),
        ("GET", "/export", format!("uuid={id}&uuid={id}"), "twice"),
        ("GET", "/export", format!("uuid={id}&all=true"), "\"all\""),
        ("GET", "/export/", format!("uuid={id}"), "does not know this part"),
        ("POST", "/export", format!("uuid={id}"), "does not know this part"),
        ("GET", "/console", format!("uuid={id}"), "portal"),
        ("POST", "/cli", String::new(), "commands"),
        ("GET", "/host_backup", String::new(), "secret"),
        ("GET", "/unheard_of", String::new(), "does not know this part"),
    ] {
        let told = ask(method, path, &query);
        assert!(told.starts_with("denied: ") && told.contains(why), "{method} {path} {query}: {told}");
    }
}

#[test]
fn nobody_lets_the_hypervisor_wait_for_longer_than_the_table_says() {
    let table = Methods::builtin(MethodsKind::Xapi);
    let waits = |timeout: &str| {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"event.from","params":["OpaqueRef:x",["*"],"",{timeout}]}}"#);
        let mut call = Call::read(Wire::Json, Some("application/json"), body.as_bytes()).unwrap();
        table.shorten(&mut call);
        format!("{:?}", call.params[3])
    };
    for long in ["61", "60.1", "86400", "-1", "-0.5", "\"1\"", "true", "[]"] {
        assert_eq!(waits(long), "Double(60.0)", "{long}");
    }
    assert_eq!([waits("0"), waits("60"), waits("30.5")], ["Int(0)", "Int(60)", "Double(30.5)"]);
}

#[test]
fn a_table_that_takes_a_change_for_a_read_or_forgets_an_object_is_refused() {
    const OPERATIONS: &str =
        "VM.get_all\nVM.start vm:VM\nVM.set_name self:VM value\nhost.evict vms:[VM]\nhost.get_log\n";
    let head = "api = \"x\"\nnames = {}\nweb = []\n[machine]\nclasses = [\"VM\"]\n";
    let row = |methods: &str, rest: &str| format!("{head}[[rule]]\nmethods = [{methods}]\n{rest}\n");
    let ask = |action: &str, object: &str, effect: &str| {
        format!("action = \"{action}\"\nobject = \"{object}\"\neffect = \"{effect}\"")
    };
    for (methods, rest, why) in [
        ("\"VM.set_*\"", ask("view", "named", "safe"), "calls it safe"),
        ("\"VM.set_name\"", ask("configure", "named", "safe"), "calls it safe"),
        ("\"VM.st*\"", ask("view", "named", "safe"), "only get_"),
        ("\"VM.start\"", ask("view", "named", "unsafe"), "a view is safe"),
        ("\"VM.get_all\"", ask("view", "named", "safe"), "no parameter names"),
        ("\"VM.start\"", ask("create", "named", "unsafe"), "cannot be asked"),
        ("\"host.evict\"", ask("node-admin", "hypervisor", "unsafe"), "say what is asked of it"),
        ("\"host.unheard\"", ask("view", "hypervisor", "safe"), "speaks of no method"),
        ("\"host.get_log\", \"host.get_*\"", ask("view", "hypervisor", "safe"), "speaks of no method"),
        ("\"VM.start\"", "deny = \"\"".to_owned(), "says why"),
        ("\"VM.start\"", "colour = 1".to_owned(), "colour"),
        ("\"VM.start\"", format!("first = [\"x\"]\n{}", ask("power", "named", "unsafe")), "speaks of no method"),
        ("\"VM.start\"", format!("{}\nlongest = 60", ask("power", "named", "unsafe")), "no number of seconds"),
    ] {
        let error = Methods::read(&row(methods, &rest), OPERATIONS).unwrap_err().to_string();
        assert!(error.contains(why), "{methods}: {error}");
    }
    assert!(Methods::read(&row("\"VM.start\"", &ask("power", "named", "unsafe")), OPERATIONS).is_ok());
}
