// SPDX-License-Identifier: Apache-2.0
//! Lists of servers for somebody who may see some of them. A row that names nothing known is left out.

use crate::{broker::strip, error::Fault, fleet::Seen};
use serde_json::{Map, Value};

/// What of an answer somebody may see; secrets are taken out, too.
pub(super) fn keep(answer: &[u8], seen: &Seen<'_>) -> Result<Vec<u8>, Fault> {
    let wrong = || Fault::Protocol("a list that is none".to_owned());
    let Ok(Value::Object(mut list)) = serde_json::from_slice(answer) else { return Err(wrong()) };
    let Some(Value::Array(rows)) = list.remove("servers") else {
        // A refusal says nothing of servers.
        return refusal(list).ok_or_else(wrong);
    };
    let id = |row: &Value| row.get("id").and_then(Value::as_str).is_some_and(|id| seen.machines.contains(id));
    let ends_known = rows.last().is_some_and(id);
    let mut shown = Map::new();
    shown.insert("servers".to_owned(), rows.into_iter().filter(id).collect());
    // The way to the next page names the last server of this one.
    if ends_known && let Some(links) = list.remove("servers_links") {
        shown.insert("servers_links".to_owned(), links);
    }
    let mut shown = Value::Object(shown);
    strip(&mut shown);
    Ok(shown.to_string().into_bytes())
}

/// `{"badRequest": {"code": 400, "message": "…"}}`.
fn refusal(list: Map<String, Value>) -> Option<Vec<u8>> {
    let mut all = list.into_iter();
    let (name, Value::Object(said)) = all.next()? else { return None };
    let is_refusal = said.contains_key("code") && said.values().all(|v| v.is_string() || v.is_number());
    let body = serde_json::json!({ name: said });
    (is_refusal && all.next().is_none()).then(|| body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(answer: &Value) -> Option<Value> {
        let seen = Seen { machines: ["a", "b"].into(), ..Seen::default() };
        keep(answer.to_string().as_bytes(), &seen).ok().map(|t| serde_json::from_slice(&t).unwrap())
    }

    #[test]
    fn only_rows_of_visible_servers_stay() {
        let rows = json!([{"id": "a", "adminPass": "x", "OS-EXT-SRV-ATTR:user_data": "x"}, {"id": "c"}, {"id": 1}, {}, "x", {"id": "b"}]);
        let list = json!({"servers": rows, "servers_links": [{"rel": "next", "href": "/x?marker=b"}], "count": 9});
        let wanted =
            json!({"servers": [{"id": "a"}, {"id": "b"}], "servers_links": [{"rel": "next", "href": "/x?marker=b"}]});
        assert_eq!(shown(&list), Some(wanted));
        let list = json!({"servers": [{"id": "a"}, {"id": "c"}], "servers_links": [{"href": "/x?marker=c"}]});
        assert_eq!(shown(&list), Some(json!({"servers": [{"id": "a"}]})), "nobody learns the id of a hidden server");
    }

    #[test]
    fn what_is_no_list_is_withheld() {
        for bad in
            [json!([]), json!({"servers": "a"}), json!({"server": {"id": "c"}}), json!({"a": {"code": 1}, "b": 1})]
        {
            assert_eq!(shown(&bad), None, "{bad}");
        }
        let refusal = json!({"badRequest": {"code": 400, "message": "no"}});
        assert_eq!(shown(&refusal), Some(refusal));
    }
}
