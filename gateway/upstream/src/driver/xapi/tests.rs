// SPDX-License-Identifier: Apache-2.0

use super::{
    objects::State,
    rows::{Keeping, keep},
};
use crate::fleet::Seen;
use portcullis_domain::{MachineKind, PowerState};
use portcullis_policy::classify::{
    Back, Methods, MethodsKind, Objects as _, Owner,
    rpc::{Caller, Reply, Wire},
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

fn at(number: u128) -> String {
    format!("OpaqueRef:{}", Uuid::from_u128(number))
}

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

fn event(class: &str, operation: &str, number: u128, snapshot: Json) -> Json {
    let mut event = json!({"id": "1", "class": class, "operation": operation, "ref": at(number)});
    if operation != "del" {
        event["snapshot"] = snapshot;
    }
    event
}

fn vm(number: u128, name: &str, more: &Json) -> Json {
    let mut record = json!({"uuid": id(number + 0x100), "name_label": name, "power_state": "Running", "resident_on": at(0x51),
        "tags": ["t"], "metrics": at(number + 0x200)});
    for (key, value) in more.as_object().expect("an object") {
        record[key] = value.clone();
    }
    event("vm", "add", number, record)
}

/// Machines 1 and 2 and a template 3; a snapshot 4 of 1, one 5 of nothing, a control domain 6; disks 0x31 of 1, 0x32 of
/// both, 0x33 of none.
fn pool() -> State {
    let mut state = State::new("xen".parse().expect("a name"));
    for event in [
        event("host", "add", 0x51, json!({"name_label": "xs1"})),
        event("pool", "add", 0x61, json!({"name_label": "lab"})),
        vm(1, "one", &json!({})),
        vm(2, "two", &json!({"power_state": "Suspended", "suspend_VDI": at(0x34)})),
        vm(3, "three", &json!({"is_a_template": true, "power_state": "Halted", "resident_on": "OpaqueRef:NULL"})),
        vm(4, "four", &json!({"is_a_snapshot": true, "is_a_template": true, "snapshot_of": at(1)})),
        vm(5, "five", &json!({"is_a_snapshot": true, "snapshot_of": "OpaqueRef:NULL"})),
        vm(6, "six", &json!({"is_control_domain": true})),
        event("vbd", "add", 0x21, json!({"VM": at(1), "VDI": at(0x31)})),
        event("vbd", "add", 0x22, json!({"VM": at(1), "VDI": at(0x32)})),
        event("vbd", "add", 0x23, json!({"VM": at(2), "VDI": at(0x32)})),
        event("vbd", "add", 0x24, json!({"VM": at(99), "VDI": "OpaqueRef:NULL"})),
        event("vif", "add", 0x25, json!({"VM": at(4)})),
        event("vdi", "add", 0x31, json!({"uuid": id(0x41)})),
        event("vdi", "add", 0x32, json!({"uuid": id(0x42)})),
        event("vdi", "add", 0x33, json!({"uuid": id(0x43)})),
        event("vdi", "add", 0x34, json!({"uuid": id(0x44)})),
        event("vm_appliance", "add", 0x71, json!({"VMs": [at(1), at(2)]})),
        event("vm_appliance", "add", 0x72, json!({"VMs": [at(1), at(99)]})),
    ] {
        assert!(learn(&mut state, &event), "{event}");
    }
    state
}

fn learn(state: &mut State, event: &Json) -> bool {
    let text = json!({"result": event}).to_string();
    let Some(Reply::Done(event)) = Reply::read(Wire::Json, text.as_bytes()) else { panic!("an event") };
    state.learn(&event)
}

#[test]
fn parts_belong_to_their_machines_and_what_is_not_known_to_nobody() {
    let mut state = pool();
    let (machines, index, notes) = state.told();
    let names: Vec<_> = machines.iter().map(|m| (m.name.as_str(), m.kind, m.state)).collect();
    assert_eq!(
        names,
        [
            ("one", MachineKind::Guest, PowerState::Running),
            ("two", MachineKind::Guest, PowerState::Paused),
            ("three", MachineKind::Template, PowerState::Off),
        ]
    );
    assert_eq!((machines[0].node.as_deref(), machines[0].pool.as_deref()), (Some("xs1"), Some("lab")));
    assert_eq!(machines[0].at.machine.as_str(), id(0x101));
    assert!(notes.is_empty());
    let whose = |index: &super::Index, class: &str, number: u128| match index.owner(class, Uuid::from_u128(number)) {
        None => "unknown".to_owned(),
        Some(Owner::Hypervisor) => "hypervisor".to_owned(),
        Some(Owner::Machines(all)) => all.iter().map(|m| m.as_str()[33..].to_owned()).collect::<Vec<_>>().join(" "),
    };
    for (class, number, owner) in [
        ("VM", 1, "101"),
        ("VM", 3, "103"),
        ("VM", 4, "101"),
        ("VM", 5, "hypervisor"),
        ("VM", 6, "hypervisor"),
        ("VM", 99, "unknown"),
        ("VM", 0x31, "unknown"),
        ("VM", 0x101, "101"),
        ("VM_metrics", 0x201, "101"),
        ("VBD", 0x21, "101"),
        ("VBD", 0x24, "unknown"),
        ("VIF", 0x25, "101"),
        ("VDI", 0x31, "101"),
        ("VDI", 0x32, "101 102"),
        ("VDI", 0x33, "hypervisor"),
        ("VDI", 0x34, "102"),
        ("VDI", 0x42, "101 102"),
        ("VM_appliance", 0x71, "101 102"),
        ("VM_appliance", 0x72, "unknown"),
        ("VBD", 0x25, "unknown"),
    ] {
        assert_eq!(whose(&index, class, number), owner, "{class} {number:x}");
    }
    // Whoever makes a disk may choose its uuid. Another object's reference stays that object's.
    for (made, chosen) in [(0x35, 0x31), (0x36, 1)] {
        learn(&mut state, &event("vdi", "add", made, json!({"uuid": id(chosen)})));
    }
    let (_, index, _) = state.told();
    assert_eq!(whose(&index, "VDI", 0x31), "101");
    assert_eq!(whose(&index, "VM", 1), "101");
    // A disk that is unplugged is nobody's; a machine that is gone has no parts, and no snapshots.
    assert!(learn(&mut state, &event("vbd", "del", 0x21, Json::Null)));
    assert!(learn(&mut state, &event("vm", "del", 2, Json::Null)));
    let (machines, index, _) = state.told();
    assert_eq!(machines.len(), 2);
    assert_eq!(whose(&index, "VDI", 0x31), "hypervisor");
    assert_eq!(whose(&index, "VDI", 0x32), "101");
    assert_eq!(whose(&index, "VBD", 0x23), "unknown");
    assert!(!learn(&mut state, &vm(1, "one", &json!({}))), "nothing new");
    for odd in [
        json!({}),
        json!({"class": "vm", "ref": "x", "operation": "add"}),
        json!("x"),
        event("vm", "grow", 1, json!({})),
    ] {
        assert!(!learn(&mut state, &odd), "{odd}");
    }
}

#[test]
fn answers_keep_what_the_person_may_see_and_of_the_rest_no_more_than_names() {
    let (_, index, _) = pool().told();
    let methods = Methods::builtin(MethodsKind::Xapi);
    let one = id(0x101);
    let seen = Seen { machines: [one.as_str()].into(), ..Seen::default() };
    let began = |task: &str| task == id(0x81);
    let shown = |back: Back, result: Json, everything: bool| -> (Option<Json>, bool) {
        let seen = (!everything).then_some(&seen);
        let keeping = Keeping { index: &index, methods: &methods, seen, by: None, began: &began };
        let text = json!({"jsonrpc": "2.0", "result": result, "id": 1}).to_string();
        match keep(text.as_bytes(), &Caller::of(Wire::Json), back, &keeping) {
            Err(_) => (None, false),
            Ok(kept) => {
                let answer: Json = serde_json::from_slice(&kept.body).expect("JSON");
                (Some(answer.get("result").cloned().unwrap_or(answer["error"]["message"].clone())), kept.may_change)
            }
        }
    };
    let part = |back, result| shown(back, result, false);
    let all = json!({at(1): {"name_label": "one"}, at(2): {"name_label": "secret"}, at(4): {"name_label": "four"}, at(99): {}});
    assert_eq!(
        part(Back::Rows("VM"), all.clone()),
        (Some(json!({at(1): {"name_label": "one"}, at(4): {"name_label": "four"}})), true)
    );
    assert_eq!(shown(Back::Rows("VM"), all.clone(), true).0, Some(all));
    assert_eq!(part(Back::Rows("VDI"), json!([at(0x31), at(0x32), at(0x33)])), (Some(json!([at(0x31)])), false));
    assert_eq!(part(Back::Rows("VM"), json!(at(1))), (Some(json!(at(1))), false));
    assert_eq!(part(Back::Rows("VM"), json!(at(2))), (Some(json!("UUID_INVALID")), false));
    assert_eq!(part(Back::Rows("task"), json!([at(0x81), at(0x82)])), (Some(json!([at(0x81)])), false));
    assert_eq!(part(Back::Rows("host"), json!([at(0x51), at(0x52)])), (Some(json!([at(0x51)])), false));
    let host = json!({"name_label": "xs1", "license_params": {"key": "x"}, "other_config": {}});
    assert_eq!(part(Back::Record("host"), host).0, Some(json!({"name_label": "xs1"})));
    for odd in [json!([1]), json!(1), json!([[at(1)]])] {
        assert_eq!(part(Back::Rows("VM"), odd).0, None);
    }
    let batch = json!({"token": "t", "valid_ref_counts": {"vm": 7}, "more": 1, "events": [
        event("vm", "mod", 1, json!({"name_label": "one"})), event("vm", "mod", 2, json!({"name_label": "secret"})),
        event("vbd", "add", 0x23, json!({})), event("vm", "add", 99, json!({})), event("vm", "del", 98, json!({})),
        event("network", "mod", 0x91, json!({})), event("session", "add", 0x92, json!({})),
        event("secret", "add", 0x93, json!({})), event("pbd", "mod", 0x94, json!({"device_config": {"password": "x"}})),
        event("subject", "mod", 0x95, json!({})), event("user", "mod", 0x96, json!({})),
        event("role", "mod", 0x97, json!({})), event("pool", "mod", 0x61, json!({"name_label": "lab", "wlb_url": "x"})),
    ]});
    let (kept, has_unknown) = part(Back::Events, batch.clone());
    let pool = event("pool", "mod", 0x61, json!({"name_label": "lab"}));
    assert_eq!(
        kept,
        Some(json!({"token": "t", "valid_ref_counts": {},
        "events": [event("vm", "mod", 1, json!({"name_label": "one"})), pool]}))
    );
    assert!(has_unknown);
    let (kept, _) = shown(Back::Events, batch, true);
    let kept = kept.expect("events");
    assert_eq!(kept["valid_ref_counts"], json!({"vm": 7}));
    assert_eq!(kept["events"].as_array().map(Vec::len), Some(7), "all but the pool's own secrets");
    assert_eq!(part(Back::Events, json!({"events": []})).0, None);
}

#[test]
fn what_is_looked_for_and_hidden_is_answered_like_what_is_not_there() {
    let (_, index, _) = pool().told();
    let methods = Methods::builtin(MethodsKind::Xapi);
    let one = id(0x101);
    let seen = Seen { machines: [one.as_str()].into(), ..Seen::default() };
    let began = |_: &str| false;
    let uuid = id(0x777);
    let shown = |answer: Json| {
        let keeping = Keeping { index: &index, methods: &methods, seen: Some(&seen), by: Some(&uuid), began: &began };
        let mut text = json!({"jsonrpc": "2.0", "id": 1});
        text.as_object_mut().expect("an object").extend(answer.as_object().expect("an object").clone());
        let kept = keep(text.to_string().as_bytes(), &Caller::of(Wire::Json), Back::Rows("VM"), &keeping);
        let kept = kept.unwrap_or_else(|_| panic!("{answer}"));
        (String::from_utf8(kept.body).expect("text"), kept.may_change)
    };
    // A pool may say it in other words: they are not passed on.
    let absent = shown(json!({"error": {"code": 1, "message": "UUID_INVALID", "data": ["VM", "in other words"]}}));
    assert!(absent.0.contains("UUID_INVALID") && absent.0.contains(&uuid) && absent.1, "{absent:?}");
    for (what, found) in [("hidden", 2), ("not known yet", 99), ("of another class", 0x31), ("the hypervisor's", 6)] {
        assert_eq!(shown(json!({"result": at(found)})), absent, "{what}");
    }
    // By a name there may be several: nothing of them is one answer, whether there are some or none.
    let none = shown(json!({"result": []}));
    assert!(none.1, "all of it takes as long");
    for found in [json!([at(2)]), json!([at(99)]), json!([at(2), at(99)])] {
        assert_eq!(shown(json!({"result": found})), none, "{found}");
    }
    for found in [json!([at(1)]), json!([at(1), at(2)]), json!([at(1), at(99)])] {
        let (text, may_change) = shown(json!({"result": found}));
        assert!(text.contains(&at(1)) && !text.contains(&at(2)) && !text.contains(&at(99)) && !may_change, "{text}");
    }
}
