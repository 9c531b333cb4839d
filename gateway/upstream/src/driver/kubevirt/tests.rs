// SPDX-License-Identifier: Apache-2.0
use super::*;
use serde_json::json;

fn known() -> Known<Vm> {
    let now = Instant::now();
    Known { path: VMS, rows: BTreeMap::new(), version: "1".into(), watch: None, begun_at: now, heard_at: now }
}

fn vm(name: &str, version: &str) -> serde_json::Value {
    json!({"kind": "VirtualMachine", "metadata": {"name": name, "namespace": "blue", "resourceVersion": version}})
}

#[test]
fn a_token_is_sent_whole_or_not_taken() {
    let value = authorization(&Secret::from("eyJh.b_c-d==".to_owned())).unwrap();
    assert_eq!(value, "Bearer eyJh.b_c-d==");
    for bad in ["", "a b", "a\nb", "tök", "a,b"] {
        assert!(authorization(&Secret::from(bad.to_owned())).is_none(), "{bad:?}");
    }
}

#[test]
fn a_watch_tells_what_changed_and_where_to_go_on() {
    let mut known = known();
    let mut hear = |kind: &str, object: serde_json::Value| {
        let line = json!({"type": kind, "object": object}).to_string();
        let heard = known.hear(line.as_bytes());
        (heard, known.rows.keys().map(ToString::to_string).collect::<Vec<_>>(), known.version.clone())
    };
    assert!(matches!(hear("ADDED", vm("a", "2")), (Ok(Heard::Changed), rows, v) if rows == ["blue:a"] && v == "2"));
    assert!(matches!(hear("MODIFIED", vm("b", "3")), (Ok(Heard::Changed), rows, _) if rows == ["blue:a", "blue:b"]));
    assert!(matches!(hear("DELETED", vm("a", "4")), (Ok(Heard::Changed), rows, v) if rows == ["blue:b"] && v == "4"));
    let mark = json!({"metadata": {"resourceVersion": "9"}});
    assert!(matches!(hear("BOOKMARK", mark), (Ok(Heard::Nothing), _, v) if v == "9"));
    // One without a proper name hides no other.
    let odd = json!({"metadata": {"name": "A:b", "namespace": "blue", "resourceVersion": "10"}});
    assert!(matches!(hear("ADDED", odd), (Ok(Heard::Nothing), rows, _) if rows == ["blue:b"]));
    assert!(matches!(hear("ERROR", json!({"kind": "Status", "code": 410})), (Ok(Heard::Forgotten), ..)));
    let (denied, ..) = hear("ERROR", json!({"kind": "Status", "code": 403, "message": "no"}));
    assert!(denied.err().is_some_and(|f| f.to_string().contains("no")));
    for (kind, object) in [("INVENTED", vm("c", "1")), ("ADDED", json!("text")), ("ADDED", json!({"metadata": {}}))] {
        assert!(hear(kind, object).0.is_err(), "{kind}");
    }
    assert!(known.hear(b"no JSON").is_err());
}

#[test]
fn only_what_can_be_a_name_stands_in_an_address() {
    let at = |id: &str| Kubevirt::place("virtualmachines", &id.parse().unwrap());
    let good = "/apis/subresources.kubevirt.io/v1/namespaces/blue/virtualmachines/web-1";
    assert_eq!(at("blue:web-1").unwrap(), good);
    for bad in ["web-1", "blue:web:1", "blue:", "Blue:web", "a:b_c", "a:.."] {
        assert!(at(bad).is_err(), "{bad}");
    }
}
