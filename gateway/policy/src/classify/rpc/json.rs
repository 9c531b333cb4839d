// SPDX-License-Identifier: Apache-2.0
//! JSON-RPC 2.0 (jsonrpc.org/specification), one call at a time: batches, notifications and members that nobody knows
//! are refused, and so is a number that is not the same one to every reader.

use super::{Call, MAX_EXACT, Reply, Value, Wire, xml::has_twins};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value<'de>, E> {
        i64::try_from(n).map_or_else(|_| Err(E::custom("a number that is not exact")), |n| self.visit_i64(n))
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value<'de>, E> {
        if n.is_finite() { Ok(Value::Double(n)) } else { Err(E::custom("a number that is none")) }
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Nil)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element()? {
            all.push(value);
        }
        Ok(Value::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut all: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            all.push((name, map.next_value()?));
        }
        if has_twins(&all) { Err(A::Error::custom("a member comes twice")) } else { Ok(Value::Map(all)) }
    }
}

/// A name, without a copy where it holds no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a name that is no text")),
        }
    }
}

pub(super) fn read_call(text: &str) -> Result<Call<'_>, &'static str> {
    const WRONG: &str = "The call is no JSON-RPC that the gateway can read.";
    let members = match serde_json::from_str(text) {
        Ok(Value::Map(members)) => members,
        Ok(Value::List(_)) => return Err("Send calls one by one: the gateway decides on each."),
        Ok(_) | Err(_) => return Err(WRONG),
    };
    let (mut version, mut method, mut params, mut id) = (None, None, None, None);
    for (name, value) in members {
        match (&*name, value) {
            ("jsonrpc", Value::Text(text)) => version = Some(text),
            ("method", Value::Text(text)) => method = Some(text),
            ("params", Value::List(all)) => params = Some(all),
            ("id", Value::Int(n)) => id = Some(n.to_string()),
            ("id", Value::Text(text)) if text.len() <= 128 => id = Some(quoted(&text)),
            _ => return Err(WRONG),
        }
    }
    if version.as_deref() != Some("2.0") {
        return Err("Say that the call is JSON-RPC 2.0.");
    }
    let (Some(method), Some(id)) = (method, id) else { return Err(WRONG) };
    if !params.iter().flatten().all(is_exact) {
        return Err("The call holds a number that is not the same one to every reader.");
    }
    Ok(Call { wire: Wire::Json, method, params: params.unwrap_or_default(), id: id.into() })
}

/// Whether every number in it is the same one to every reader of JSON.
fn is_exact(value: &Value<'_>) -> bool {
    match value {
        Value::Int(n) => n.abs() <= MAX_EXACT,
        // What is larger may have been another whole number.
        Value::Double(n) => n.abs() < 9_007_199_254_740_992.0,
        Value::List(all) => all.iter().all(is_exact),
        Value::Map(all) => all.iter().all(|(_, value)| is_exact(value)),
        Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::Nil => true,
    }
}

pub(super) fn read_reply(text: &str) -> Option<Reply<'_>> {
    let Ok(Value::Map(members)) = serde_json::from_str(text) else { return None };
    let (mut done, mut why) = (None, None);
    for (name, value) in members {
        match (&*name, value) {
            ("result", value) => done = Some(value),
            ("error", Value::Map(error)) => why = Some(error),
            _ => {}
        }
    }
    let Some(error) = why else { return done.map(Reply::Done) };
    let mut all = Vec::new();
    for (name, value) in error {
        match (&*name, value) {
            ("message", Value::Text(code)) => all.insert(0, code),
            ("data", Value::List(more)) => all.extend(more.into_iter().filter_map(|v| match v {
                Value::Text(text) => Some(text),
                _ => None,
            })),
            _ => {}
        }
    }
    Some(Reply::Failed(all))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text);
    out
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    let is_plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(is_plain) {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
    }
    out.push('"');
}

fn write_value(out: &mut String, value: &Value<'_>) {
    match value {
        Value::Text(text) | Value::Date(text) => quote(out, text),
        // Writing to a string cannot fail.
        Value::Int(n) => drop(write!(out, "{n}")),
        // With a point, so that it stays what it was.
        Value::Double(n) => drop(write!(out, "{n:?}")),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Nil => out.push_str("null"),
        Value::List(all) => {
            out.push('[');
            for (n, value) in all.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_value(out, value);
            }
            out.push(']');
        }
        Value::Map(all) => {
            out.push('{');
            for (n, (name, value)) in all.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                quote(out, name);
                out.push(':');
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

/// Writes a call whose first parameter is a hole; says where that is.
pub(super) fn write_call(out: &mut String, method: &str, args: &[Value<'_>], id: &str) -> usize {
    out.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"");
    out.push_str(method);
    out.push_str("\",\"params\":[\"");
    let at = out.len();
    out.push('"');
    for value in args {
        out.push(',');
        write_value(out, value);
    }
    out.push_str("],\"id\":");
    out.push_str(id);
    out.push('}');
    at
}

/// A call with all of its parameters.
pub(super) fn first_call(method: &str, params: &[Value<'_>]) -> String {
    let mut out = String::from("{\"jsonrpc\":\"2.0\",\"method\":\"");
    out.push_str(method);
    out.push_str("\",\"params\":");
    write_value(&mut out, &Value::List(params.to_vec()));
    out.push_str(",\"id\":1}");
    out
}

pub(super) fn write_reply(out: &mut String, reply: &Reply<'_>, id: &str) {
    out.push_str("{\"jsonrpc\":\"2.0\",");
    match reply {
        Reply::Done(value) => {
            out.push_str("\"result\":");
            write_value(out, value);
        }
        Reply::Failed(why) => {
            let code = why.first().map_or("INTERNAL_ERROR", |c| c);
            out.push_str("\"error\":{\"code\":1,\"message\":");
            quote(out, code);
            out.push_str(",\"data\":");
            let more = why.iter().skip(1).map(|w| Value::from_text(&**w)).collect();
            write_value(out, &Value::List(more));
            out.push('}');
        }
    }
    out.push_str(",\"id\":");
    out.push_str(id);
    out.push('}');
}
