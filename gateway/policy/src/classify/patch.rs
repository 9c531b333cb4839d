// SPDX-License-Identifier: Apache-2.0
//! One reading of changes to an object: a JSON patch (RFC 6902), and an applied configuration of Kubernetes, which is said
//! to be YAML and is taken where it is JSON, because the two then mean the same.
//!
//! What a patch touches is told in the same ways as what a whole object holds: `remove` is a value of `null`, and an
//! object put in another one's place says `{}` there beside what it holds, since what it leaves out goes away.

use super::json::{ENTRY, Json, Leaf, MAX_JSON, MAX_LEAVES, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step<'a> {
    op: String,
    path: String,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

impl Json {
    /// Reads a body that may be a patch, by its media type; the error is for the person.
    pub(super) fn read_patched(media_type: Option<&str>, body: &[u8]) -> Result<Self, &'static str> {
        let (essence, more) = media_type.map_or(("", ""), |t| t.split_once(';').unwrap_or((t, "")));
        let is_utf8 = more.trim().is_empty() || more.trim().eq_ignore_ascii_case("charset=utf-8");
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json-patch+json" if is_utf8 => read_steps(body),
            "application/apply-patch+yaml" if is_utf8 => {
                let applied = Self::read(None, body).map_err(|_| "An applied configuration is taken as JSON here.")?;
                // To a reader of YAML this key is another thing than to one of JSON.
                if applied.leaves.iter().any(|l| l.way.iter().any(|step| step == "<<")) {
                    return Err("The body has a key that YAML reads differently.");
                }
                Ok(applied)
            }
            "application/strategic-merge-patch+json" => {
                Err("These objects take no strategic merge patch: send a merge patch (--type merge) or a JSON patch.")
            }
            _ => Self::read(media_type, body),
        }
    }
}

fn read_steps(body: &[u8]) -> Result<Json, &'static str> {
    if body.len() > MAX_JSON {
        return Err("The body is longer than 256 KiB.");
    }
    let steps: Vec<Step<'_>> =
        serde_json::from_slice(body).map_err(|_| "The body is no JSON patch of add, replace, remove and test.")?;
    let mut json = Json::of_changes();
    for Step { op, path, value } in steps {
        let mut way = way(&path)?;
        match (op.as_str(), value) {
            ("remove", None) => json.leaves.push(Leaf { way, value: Value::Plain("null".to_owned()) }),
            ("add" | "replace", Some(value)) => {
                if value.get().starts_with('{') {
                    json.leaves.push(Leaf { way: way.clone(), value: Value::Plain("{}".to_owned()) });
                }
                json.walk(value, &mut way)?;
            }
            // Nothing becomes different by it; what it asks about is said all the same.
            ("test", Some(value)) => json.walk(value, &mut way)?,
            _ => {
                return Err("A JSON patch is made of add, replace, remove and test here: say a move or copy by these.");
            }
        }
        if json.leaves.len() > MAX_LEAVES {
            return Err("The body says too much at once.");
        }
    }
    Ok(json)
}

/// A pointer (RFC 6901) as steps. A number, or `-`, is an entry of a list.
fn way(path: &str) -> Result<Vec<String>, &'static str> {
    const WRONG: &str = "The patch names a place that is none.";
    let steps = path.strip_prefix('/').ok_or("A patch that replaces the whole object is not passed on.")?;
    let step = |text: &str| {
        let is_entry = text == "-" || !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if is_entry {
            return Ok(ENTRY.to_owned());
        }
        let mut plain = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            plain.push(match (c, if c == '~' { rest.next() } else { None }) {
                ('~', Some('0')) => '~',
                ('~', Some('1')) => '/',
                ('~', _) => return Err(WRONG),
                (c, _) => c,
            });
        }
        if plain == ENTRY || plain.contains('\0') { Err(WRONG) } else { Ok(plain) }
    };
    let steps: Vec<String> = steps.split('/').map(step).collect::<Result<_, _>>()?;
    if steps.len() > 32 { Err("The body has more than 32 levels.") } else { Ok(steps) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Written;

    fn said(media: &str, body: &str) -> Result<(Vec<String>, Written), &'static str> {
        let json = Json::read_patched(Some(media), body.as_bytes())?;
        Ok((json.leaves().iter().map(|l| format!("{}={}", l.shown(), l.text())).collect(), json.written()))
    }

    #[test]
    fn a_patch_says_what_it_touches_in_the_ways_of_a_whole_object() {
        let patch = |body: &str| said("application/json-patch+json", body).map(|(leaves, _)| leaves);
        let body = r#"[{"op": "replace", "path": "/spec/running", "value": true},
            {"op": "add", "path": "/metadata/labels/tag.p~1web~0", "value": "x"},
            {"op": "remove", "path": "/metadata/annotations"},
            {"op": "add", "path": "/spec/volumes/-", "value": {"name": "v", "hostDisk": {"path": "/"}}},
            {"op": "replace", "path": "/spec/volumes/0/name", "value": "w"},
            {"op": "replace", "path": "/metadata", "value": {"name": "n"}}]"#;
        let wanted = [
            "/spec/running=true",
            "/metadata/labels/tag.p/web~=x",
            "/metadata/annotations=null",
            "/spec/volumes/[]={}",
            "/spec/volumes/[]/name=v",
            "/spec/volumes/[]/hostDisk/path=/",
            "/spec/volumes/[]/name=w",
            "/metadata={}",
            "/metadata/name=n",
        ];
        assert_eq!(patch(body).unwrap(), wanted);
        assert_eq!(said("application/json-patch+json", "[]").unwrap().1, Written::Changes);
        for bad in [
            r#"[{"op": "replace", "path": "", "value": {}}]"#,
            r#"[{"op": "move", "path": "/a", "from": "/b"}]"#,
            r#"[{"op": "copy", "path": "/a", "from": "/b"}]"#,
            r#"[{"op": "add", "path": "/a"}]"#,
            r#"[{"op": "remove", "path": "/a", "value": 1}]"#,
            r#"[{"op": "Replace", "path": "/a", "value": 1}]"#,
            r#"[{"op": "add", "path": "a", "value": 1}]"#,
            r#"[{"op": "add", "path": "/a~2", "value": 1}]"#,
            r#"[{"op": "add", "path": "/[]", "value": 1}]"#,
            r#"[{"op": "add", "path": "/a", "value": {"b": 1, "b": 2}}]"#,
            r#"[{"op": "add", "op": "remove", "path": "/a", "value": 1}]"#,
            r#"[{"op": "add", "path": "/a", "path": "/b", "value": 1}]"#,
            r#"{"op": "add"}"#,
            "",
        ] {
            assert!(patch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_read_as_what_it_is_said_to_be() {
        let object = r#"{"spec": {"running": true}}"#;
        let one = vec!["/spec/running=true".to_owned()];
        assert_eq!(said("application/json", object), Ok((one.clone(), Written::Whole)));
        assert_eq!(said("application/merge-patch+json", object), Ok((one.clone(), Written::Changes)));
        // What it leaves out goes away, if the same manager said it before.
        assert_eq!(said("application/apply-patch+yaml", object), Ok((one, Written::Whole)));
        for (media, body) in [
            ("application/apply-patch+yaml", "spec:\n  running: true\n"),
            ("application/apply-patch+yaml", r#"{"<<": {"spec": 1}}"#),
            ("application/apply-patch+yaml; charset=utf-16", object),
            ("application/json-patch+json", object),
            ("application/strategic-merge-patch+json", object),
            ("application/yaml", "spec: 1"),
            ("application/vnd.kubernetes.protobuf", "k8s\0"),
        ] {
            assert!(said(media, body).is_err(), "{media}");
        }
    }
}
