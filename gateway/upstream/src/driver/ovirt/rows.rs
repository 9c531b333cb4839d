// SPDX-License-Identifier: Apache-2.0
//! What of the engine's answers people get, as XML or as JSON: of lists the rows of what they may see, and nothing that
//! opens a machine, its screen or its disks. A row that names nothing known is left out.

use crate::{broker::is_secret_name, error::Fault, fleet::Seen};
use portcullis_policy::classify::Node;
use serde_json::{Map, Value};

/// The most elements of an answer.
const MAX_ELEMENTS: usize = 500_000;
/// Beside what is a secret by its name: what runs in a guest as its administrator, and addresses that hold a ticket.
const SECRETS: [&str; 4] = ["authorized_ssh_keys", "custom_script", "transfer_url", "proxy_url"];
/// Where a screen is.
const PLACE: [&str; 6] = ["address", "port", "secure_port", "tls_port", "certificate", "proxy"];
/// What stays of a cluster or host that one of the machines is in or on.
const REDUCED: [&str; 4] = ["id", "href", "name", "status"];

/// What the entrance says of the whole engine, and of the gateway's own account.
const WHOLE: [&str; 3] = ["summary", "authenticated_user", "effective_user"];

/// Whether something in a thing goes to nobody. `screen`: the thing says where a screen is.
fn is_hidden(thing: &str, screen: bool, name: &str) -> bool {
    is_secret_name(name)
        // What a machine is given on a disk to start with: answers to installers, with their passwords.
        || thing == "file" && name == "content"
        || SECRETS.contains(&name)
        || screen && PLACE.contains(&name)
        // The whole of a machine once more, as text.
        || thing == "initialization" && name == "configuration"
}

/// Whether a thing says where a screen is, by its name, or by its protocol where it has no name.
fn is_screen(thing: &str, protocol: Option<&str>) -> bool {
    matches!(thing, "display" | "graphics_console") || matches!(protocol, Some("vnc" | "spice"))
}

/// What a row is about, and what is known of it.
struct Row<'r> {
    id: Option<&'r str>,
    name: Option<&'r str>,
    machine: Option<&'r str>,
}

/// What becomes of a row.
enum Fate {
    Whole,
    Reduced,
    Dropped,
}

impl Row<'_> {
    fn fate(&self, of: &str, seen: &Seen<'_>) -> Fate {
        let is_in = |text: Option<&str>, all: &std::collections::HashSet<&str>| text.is_some_and(|t| all.contains(t));
        match of {
            "vm" if is_in(self.id, &seen.machines) => Fate::Whole,
            "event" if is_in(self.machine, &seen.machines) => Fate::Whole,
            "cluster" if is_in(self.name, &seen.pools) => Fate::Reduced,
            "host" if is_in(self.name, &seen.nodes) => Fate::Reduced,
            _ => Fate::Dropped,
        }
    }
}

fn wrong() -> Fault {
    Fault::Protocol("an answer that is neither XML nor JSON".to_owned())
}

enum Answer {
    Xml(Node),
    Json(Value),
}

impl Answer {
    fn read(answer: &[u8]) -> Result<Self, Fault> {
        let text = str::from_utf8(answer).map_err(|_| wrong())?;
        if text.trim_start().starts_with('<') {
            return Node::read(text, MAX_ELEMENTS).map(Self::Xml).map_err(|why| Fault::Protocol(why.to_owned()));
        }
        serde_json::from_str(text).map(Self::Json).map_err(|_| wrong())
    }

    fn write(self) -> Vec<u8> {
        match self {
            Self::Xml(root) => root.document().into_bytes(),
            Self::Json(value) => value.to_string().into_bytes(),
        }
    }

    fn stripped(mut self) -> Vec<u8> {
        match &mut self {
            Self::Xml(root) => strip_node(root),
            Self::Json(value) => strip_value("", value),
        }
        self.write()
    }
}

/// An answer without secrets.
pub(super) fn strip(answer: &[u8]) -> Result<Vec<u8>, Fault> {
    Answer::read(answer).map(Answer::stripped)
}

/// What of a list somebody may see; secrets are taken out, too.
pub(super) fn keep(answer: &[u8], seen: &Seen<'_>) -> Result<Vec<u8>, Fault> {
    let kept = match Answer::read(answer)? {
        Answer::Xml(root) => Answer::Xml(keep_nodes(root, seen)),
        Answer::Json(Value::Object(list)) => Answer::Json(Value::Object(keep_values(list, seen))),
        Answer::Json(_) => return Err(Fault::Protocol("a list that is none".to_owned())),
    };
    Ok(kept.stripped())
}

fn keep_nodes(root: Node, seen: &Seen<'_>) -> Node {
    match root.name.as_str() {
        "fault" => return refusal(&root),
        "api" => {
            let mut entrance = root;
            entrance.children.retain(|c| !WHOLE.contains(&c.name.as_str()));
            return entrance;
        }
        _ => {}
    }
    let kept = root.children.into_iter().filter_map(|mut row| {
        let about = Row {
            id: row.attribute("id"),
            name: row.child("name").map(|n| n.text.as_str()),
            machine: row.child("vm").and_then(|vm| vm.attribute("id")),
        };
        match about.fate(&row.name, seen) {
            Fate::Dropped => return None,
            Fate::Whole => {}
            Fate::Reduced => {
                row.attributes.retain(|(name, _)| REDUCED.contains(&name.as_str()));
                row.children.retain(|c| REDUCED.contains(&c.name.as_str()) && c.children.is_empty());
            }
        }
        Some(row)
    });
    // Nothing else of the list, which may count what was left out.
    Node::of_children(&root.name, kept.collect())
}

/// A refusal says nothing but its reason.
fn refusal(fault: &Node) -> Node {
    let said = ["reason", "detail"].into_iter().filter_map(|n| fault.child(n));
    Node::of_children("fault", said.map(|s| Node::of_text(&s.name, &s.text)).collect())
}

fn keep_values(list: Map<String, Value>, seen: &Seen<'_>) -> Map<String, Value> {
    if list.contains_key("reason") {
        return list.into_iter().filter(|(k, v)| matches!(k.as_str(), "reason" | "detail") && v.is_string()).collect();
    }
    if list.contains_key("product_info") {
        return list.into_iter().filter(|(k, _)| !WHOLE.contains(&k.as_str())).collect();
    }
    let rows = |of: &str, rows: Vec<Value>| {
        let kept = rows.into_iter().filter_map(|row| {
            let Value::Object(mut row) = row else { return None };
            let text = |key: &str| row.get(key).and_then(Value::as_str);
            let machine = row.get("vm").and_then(|vm| vm.get("id")).and_then(Value::as_str);
            let about = Row { id: text("id"), name: text("name"), machine };
            match about.fate(of, seen) {
                Fate::Dropped => return None,
                Fate::Whole => {}
                Fate::Reduced => row.retain(|key, value| REDUCED.contains(&key.as_str()) && value.is_string()),
            }
            Some(Value::Object(row))
        });
        Value::Array(kept.collect())
    };
    let lists = list.into_iter().filter_map(|(of, value)| match value {
        Value::Array(all) => {
            let kept = rows(&of, all);
            Some((of, kept))
        }
        _ => None,
    });
    lists.collect()
}

// Depth is bounded by how answers are read: 64 levels of XML, 128 of JSON.
fn strip_node(node: &mut Node) {
    let screen = is_screen(&node.name, node.child("protocol").map(|p| p.text.as_str()));
    let hides = |name: &str| is_hidden(&node.name, screen, name);
    node.attributes.retain(|(name, _)| !hides(name));
    let mut children = std::mem::take(&mut node.children);
    children.retain(|c| !hides(&c.name));
    children.iter_mut().for_each(strip_node);
    node.children = children;
}

fn strip_value(thing: &str, value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|v| strip_value(thing, v)),
        Value::Object(map) => {
            let screen = is_screen(thing, map.get("protocol").and_then(Value::as_str));
            map.retain(|name, _| !is_hidden(thing, screen, name));
            map.iter_mut().for_each(|(name, v)| strip_value(name, v));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen() -> Seen<'static> {
        Seen { machines: ["a", "b"].into(), nodes: ["kvm1"].into(), pools: ["blue"].into() }
    }

    fn kept(answer: &str) -> Option<String> {
        keep(answer.as_bytes(), &seen()).ok().map(|t| String::from_utf8(t).unwrap())
    }

    fn xml(body: &str) -> String {
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n{body}")
    }

    #[test]
    fn only_rows_of_what_somebody_may_see_stay() {
        for (answer, wanted) in [
            (
                "<vms total='3'><vm id='a'><name>x</name></vm><vm id='c'/><vm/><host id='a'/><vm id='b'/></vms>",
                "<vms><vm id=\"a\"><name>x</name></vm><vm id=\"b\"/></vms>",
            ),
            (
                "<events><event id='1'><vm id='a'/></event><event id='2'><vm id='c'/></event><event id='3'/></events>",
                "<events><event id=\"1\"><vm id=\"a\"/></event></events>",
            ),
            (
                "<clusters><cluster id='1' href='/c'><name>blue</name><cpu><type>x</type></cpu></cluster><cluster id='2'><name>red</name></cluster></clusters>",
                "<clusters><cluster id=\"1\" href=\"/c\"><name>blue</name></cluster></clusters>",
            ),
            (
                "<hosts><host id='1'><address>h</address><name>kvm1</name><status>up</status></host><host id='2'><name>kvm2</name></host></hosts>",
                "<hosts><host id=\"1\"><name>kvm1</name><status>up</status></host></hosts>",
            ),
            ("<vms/>", "<vms/>"),
            (
                "<api><product_info><name>e</name></product_info><summary><vms><total>9</total></vms></summary><effective_user id='u'/></api>",
                "<api><product_info><name>e</name></product_info></api>",
            ),
            (
                "<fault><detail>d</detail><reason>r</reason><vm id='c'/></fault>",
                "<fault><reason>r</reason><detail>d</detail></fault>",
            ),
        ] {
            assert_eq!(kept(answer), Some(xml(wanted)), "{answer}");
        }
        for (answer, wanted) in [
            (
                json!({"vm": [{"id": "a", "name": "x"}, {"id": "c"}, {"id": 1}, {}, "a"], "total": 5}),
                json!({"vm": [{"id": "a", "name": "x"}]}),
            ),
            (
                json!({"event": [{"id": "1", "vm": {"id": "a"}}, {"id": "2", "vm": {"id": "c"}}]}),
                json!({"event": [{"id": "1", "vm": {"id": "a"}}]}),
            ),
            (
                json!({"host": [{"name": "kvm1", "address": "h", "cluster": {"id": "1"}}]}),
                json!({"host": [{"name": "kvm1"}]}),
            ),
            (json!({}), json!({})),
            (json!({"product_info": {"name": "e"}, "summary": {"vms": 9}}), json!({"product_info": {"name": "e"}})),
            (json!({"reason": "r", "detail": "d", "vm": [{"id": "c"}]}), json!({"reason": "r", "detail": "d"})),
        ] {
            let shown = kept(&answer.to_string()).map(|t| serde_json::from_str::<Value>(&t).unwrap());
            assert_eq!(shown, Some(wanted), "{answer}");
        }
        for bad in ["[]", "\"a\"", "vm: a", "", "<vms>", "<!DOCTYPE vms><vms/>", "<vms><!-- a --></vms>"] {
            assert_eq!(kept(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_stays_that_opens_a_machine_or_its_screen() {
        let strip = |answer: &str| String::from_utf8(super::strip(answer.as_bytes()).unwrap()).unwrap();
        let answer = "<vm id='a'><display><address>h</address><port>5900</port><type>vnc</type></display><initialization>\
            <root_password>x</root_password><authorized_ssh_keys>x</authorized_ssh_keys><custom_script>x</custom_script>\
            <configuration><data>x</data></configuration><host_name>n</host_name></initialization>\
            <graphics_consoles><graphics_console id='1'><protocol>vnc</protocol><address>h</address><tls_port>1</tls_port></graphics_console></graphics_consoles>\
            <ticket><value>x</value></ticket></vm>";
        let wanted = "<vm id=\"a\"><display><type>vnc</type></display><initialization><host_name>n</host_name></initialization>\
            <graphics_consoles><graphics_console id=\"1\"><protocol>vnc</protocol></graphics_console></graphics_consoles></vm>";
        assert_eq!(strip(answer), xml(wanted));
        let answer = json!({
            "initialization": {"root_password": "x", "authorized_ssh_keys": "x", "configuration": {"data": "x"}, "host_name": "n"},
            "display": {"address": "h", "secure_port": 1, "type": "vnc"},
            "graphics_console": [{"protocol": "spice", "address": "h"}],
            "storage_connection": [{"password": "x", "address": "nfs"}],
        });
        let wanted = json!({
            "initialization": {"host_name": "n"}, "display": {"type": "vnc"}, "graphics_console": [{"protocol": "spice"}],
            "storage_connection": [{"address": "nfs"}],
        });
        assert_eq!(serde_json::from_str::<Value>(&strip(&answer.to_string())).unwrap(), wanted);
        // One console alone has no name in JSON.
        let alone = json!({"id": "1", "protocol": "vnc", "address": "h", "port": 5900});
        assert_eq!(
            serde_json::from_str::<Value>(&strip(&alone.to_string())).unwrap(),
            json!({"id": "1", "protocol": "vnc"})
        );
        assert!(super::strip(b"PNG").is_err());
    }

    #[test]
    fn what_a_machine_is_given_on_a_disk_to_start_with_goes_to_nobody() {
        let strip = |answer: &str| String::from_utf8(super::strip(answer.as_bytes()).unwrap()).unwrap();
        let answer = "<vms><vm id='a'><payloads><payload><type>floppy</type><files><file><name>unattend.xml</name>\
            <content>canary</content></file><file><name>b</name><content type='x'>canary</content></file></files>\
            </payload></payloads></vm></vms>";
        let wanted = "<vms><vm id=\"a\"><payloads><payload><type>floppy</type><files><file><name>unattend.xml</name></file>\
            <file><name>b</name></file></files></payload></payloads></vm></vms>";
        assert_eq!(strip(answer), xml(wanted));
        assert_eq!(kept(answer), Some(xml(wanted)), "nor in a list");
        let file = |content: &str| json!({"name": "b", "content": content});
        for files in [json!([file("canary"), file("canary")]), file("canary")] {
            let answer =
                json!({"vm": [{"id": "a", "payloads": {"payload": [{"type": "cdrom", "files": {"file": files}}]}}]});
            for said in [strip(&answer.to_string()), kept(&answer.to_string()).unwrap()] {
                assert!(
                    !said.contains("canary") && said.contains("\"name\":\"b\"") && said.contains("cdrom"),
                    "{said}"
                );
            }
        }
        // A file of something else has a name and no content that is hidden.
        assert!(strip("<file id='1'><content_type>iso</content_type></file>").contains("iso"));
    }
}
