// SPDX-License-Identifier: Apache-2.0
use super::*;

fn object(name: &str, tag: &str) -> Value {
    json!({"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1", "metadata": {"name": name, "namespace": "blue",
        "uid": format!("uid-{name}"), "resourceVersion": "5", "labels": {tag: ""}}, "spec": {"secret-project": 1}})
}

struct Person {
    watched: Watched,
    cutter: Cutter,
    /// What the inventory shows them.
    known: Vec<&'static str>,
    /// What the inventory has.
    has: Vec<&'static str>,
}

impl Person {
    fn new(path: &str, at_first: &[&str], hidden: &[&str]) -> Self {
        let ids = |all: &[&str]| all.iter().map(|n| n.parse().unwrap()).collect();
        Self {
            watched: Watched::new(path, false, ids(at_first), ids(hidden)),
            cutter: Cutter::new("kv".parse().unwrap(), "t/".to_owned()),
            known: at_first.iter().map(|n| -> &'static str { n.to_string().leak() }).collect(),
            has: Vec::new(),
        }
    }

    fn hears(&mut self, kind: &str, object: &Value) -> Result<Step, Fault> {
        let line = json!({"type": kind, "object": object}).to_string();
        let known = |m: &MachineId| self.known.contains(&m.as_str());
        let has = |m: &MachineId| self.has.contains(&m.as_str()) || known(m);
        let machine = |m: &portcullis_domain::Machine| m.tags == ["web"];
        let gaze = Gaze { whole: false, machine: &machine, known: &known };
        self.watched.event(&self.cutter, line.as_bytes(), &gaze, &has)
    }

    /// What of it came out: its type, or nothing.
    fn told(&mut self, kind: &str, object: &Value) -> Option<String> {
        match self.hears(kind, object).unwrap() {
            Step::Send(event) => {
                let kind = event["type"].as_str().unwrap().to_owned();
                assert!(
                    kind != "DELETED"
                        || !event.to_string().contains("labels")
                        || object["metadata"]["labels"]["t/web"] == ""
                );
                Some(kind)
            }
            Step::Skip => None,
            Step::Wait => Some("wait".to_owned()),
        }
    }

    fn looks(&mut self) -> Option<Vec<Value>> {
        let known = |m: &MachineId| self.known.contains(&m.as_str());
        self.watched.look(&Gaze { whole: false, machine: &|_| false, known: &known })
    }
}

const VMS: &str = "/apis/kubevirt.io/v1/virtualmachines";

#[test]
fn an_object_that_enters_is_added_and_one_that_leaves_is_deleted_by_its_name() {
    let mut bob = Person::new(VMS, &[], &[]);
    let (seen, hidden) = (object("a", "t/web"), object("a", "t/red"));
    let told = |bob: &mut Person, kind: &str, object: &Value| bob.told(kind, object).unwrap_or_default();
    assert_eq!(told(&mut bob, "ADDED", &hidden), "");
    assert_eq!(told(&mut bob, "MODIFIED", &hidden), "");
    assert_eq!(told(&mut bob, "MODIFIED", &seen), "ADDED");
    assert_eq!(told(&mut bob, "MODIFIED", &seen), "MODIFIED");
    assert_eq!(told(&mut bob, "MODIFIED", &hidden), "DELETED");
    assert_eq!(told(&mut bob, "MODIFIED", &hidden), "");
    assert_eq!(told(&mut bob, "DELETED", &hidden), "");
    assert_eq!(told(&mut bob, "ADDED", &seen), "ADDED");
    assert_eq!(told(&mut bob, "DELETED", &seen), "DELETED");
    // What left says nothing of what it became.
    told(&mut bob, "ADDED", &seen);
    let Ok(Step::Send(gone)) = bob.hears("MODIFIED", &hidden) else { panic!("an event") };
    assert!(!gone.to_string().contains("secret-project") && !gone.to_string().contains("labels"), "{gone}");
}

#[test]
fn what_a_client_listed_is_known_to_it() {
    let mut bob = Person::new(VMS, &["blue:a"], &["blue:c"]);
    assert_eq!(bob.told("MODIFIED", &object("a", "t/web")).as_deref(), Some("MODIFIED"));
    assert_eq!(bob.told("MODIFIED", &object("b", "t/web")).as_deref(), Some("ADDED"));
    let mut bob = Person::new(VMS, &["blue:a"], &[]);
    assert_eq!(bob.told("MODIFIED", &object("a", "t/red")).as_deref(), Some("DELETED"));
    assert_eq!(bob.told("DELETED", &object("a", "t/red")), None, "once");
    let mut bob = Person::new(VMS, &["blue:a"], &[]);
    bob.known.clear();
    assert_eq!(bob.told("DELETED", &object("a", "t/red")).as_deref(), Some("DELETED"));
}

#[test]
fn what_changes_without_an_event_is_told_or_ends_the_watch() {
    let mut bob = Person::new(VMS, &["blue:a"], &["blue:c"]);
    bob.told("ADDED", &object("b", "t/web"));
    bob.known.push("blue:b");
    assert_eq!(bob.looks(), Some(vec![]));
    // Access is taken away.
    bob.known.clear();
    let left = bob.looks().unwrap();
    let names: Vec<_> = left.iter().map(|e| (e["type"].as_str(), e["object"]["metadata"]["name"].as_str())).collect();
    assert_eq!(names, [(Some("DELETED"), Some("b")), (Some("DELETED"), Some("a"))]);
    assert_eq!(bob.looks(), Some(vec![]), "once");
    // And given.
    bob.known.push("blue:c");
    assert_eq!(bob.looks(), None);
    let mut bob = Person::new(VMS, &[], &[]);
    bob.told("ADDED", &object("d", "t/red"));
    assert_eq!(bob.looks(), Some(vec![]));
    bob.known.push("blue:d");
    assert_eq!(bob.looks(), None, "an event of it was left out");
    // One that came into view by an event of its own needs no new list.
    let mut bob = Person::new(VMS, &[], &["blue:f"]);
    assert_eq!(bob.told("MODIFIED", &object("f", "t/web")).as_deref(), Some("ADDED"));
    bob.known.push("blue:f");
    assert_eq!(bob.looks(), Some(vec![]));
    // One that was told of before the inventory heard of it has not left.
    let mut bob = Person::new(VMS, &[], &[]);
    bob.told("ADDED", &object("e", "t/web"));
    assert_eq!(bob.looks(), Some(vec![]));
}

#[test]
fn an_instance_waits_for_its_machine_to_be_known() {
    let mut bob = Person::new("/apis/kubevirt.io/v1/virtualmachineinstances", &[], &[]);
    assert_eq!(bob.told("ADDED", &object("a", "t/web")).as_deref(), Some("wait"));
    bob.has.push("blue:a");
    assert_eq!(bob.told("ADDED", &object("a", "t/web")), None, "its own labels are no tags");
    bob.known.push("blue:a");
    assert_eq!(bob.told("MODIFIED", &object("a", "t/red")).as_deref(), Some("ADDED"));
}

#[test]
fn a_table_keeps_its_columns_and_its_rows_to_what_is_seen() {
    let mut bob = Person::new(VMS, &[], &[]);
    let row = |name: &str, tag: &str, columns: Value| json!({"kind": "Table", "columnDefinitions": columns, "rows": [{"cells": [name, 1], "object": object(name, tag)}]});
    let columns = json!([{"name": "Name"}, {"name": "Age"}]);
    assert_eq!(bob.told("ADDED", &row("c", "t/red", columns.clone())), None);
    let Ok(Step::Send(event)) = bob.hears("ADDED", &row("a", "t/web", json!([]))) else { panic!("an event") };
    assert_eq!(event["object"]["columnDefinitions"], columns, "they came with an event that was left out");
    assert_eq!(event["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let Ok(Step::Send(gone)) = bob.hears("MODIFIED", &row("a", "t/red", json!([]))) else { panic!("an event") };
    assert_eq!((&gone["type"], &gone["object"]["rows"][0]["cells"]), (&json!("DELETED"), &json!(["a", ""])));
    let mut two = row("a", "t/web", json!([]));
    two["rows"] = json!([two["rows"][0], {"cells": ["payroll"], "object": object("p", "t/red")}]);
    assert!(bob.hears("ADDED", &two).is_err());
}

#[test]
fn bookmarks_come_to_who_asked_and_hold_a_version_alone() {
    let mark = json!({"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1", "spec": {"secret-project": 1},
        "metadata": {"resourceVersion": "9", "name": "secret-project",
            "annotations": {"k8s.io/initial-events-end": "true", "x": "secret-project"}}});
    let mut bob = Person::new(VMS, &[], &[]);
    assert_eq!(bob.told("BOOKMARK", &mark), None);
    bob.watched = Watched::new(VMS, true, HashSet::new(), HashSet::new());
    let Ok(Step::Send(event)) = bob.hears("BOOKMARK", &mark) else { panic!("an event") };
    assert_eq!(event["object"]["metadata"]["resourceVersion"], "9");
    assert_eq!(event["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert!(!event.to_string().contains("secret-project"), "{event}");
}

#[test]
fn what_is_no_event_ends_the_watch() {
    let mut bob = Person::new(VMS, &[], &[]);
    for (kind, object) in
        [("INVENTED", object("a", "t/web")), ("ADDED", json!("text")), ("ADDED", json!({"metadata": {}}))]
    {
        assert!(bob.hears(kind, &object).is_err(), "{kind} {object}");
    }
}
