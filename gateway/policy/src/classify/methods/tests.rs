// SPDX-License-Identifier: Apache-2.0

use super::{super::rpc::Wire, *};
use std::collections::BTreeSet;

/// Messages of the description, and those that are generated for every class.
const METHODS: usize = 2007 + 62;

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
    let (methods, requests) = (table.entries().count(), table.addresses().count());
    println!("XAPI: {methods} of {METHODS} methods and {requests} of 52 requests have a verdict, {missing:?} have none");
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
        "VBD.assert_attachable", "VM.assert_agile", "VM.assert_can_boot_here", "VM.assert_operation_valid",
        "VM.compute_memory_overhead", "VM.maximise_memory", "VM.query_data_source", "VM.query_services",
        "VM.retrieve_wlb_recommendations", "VM.wait_memory_target_live", "SR.query_data_source", "event.from",
        "host.compute_free_memory", "host.compute_memory_overhead", "host.has_extension", "host.list_methods",
        "host.list_timezones", "host.query_data_source", "pool.has_extension",
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

