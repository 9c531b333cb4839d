// SPDX-License-Identifier: Apache-2.0
//! The part of XML that XML-RPC is made of: elements without attributes, text, the five entities and character
//! references. Comments, CDATA, document types, processing instructions and attributes are refused. Nothing is copied
//! that holds no entity.

use super::{Call, MAX_DEPTH, Reply, Value, Wire};
use std::{borrow::Cow, fmt::Write as _};

const WRONG: &str = "The call is no XML-RPC that the gateway can read.";

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Without the declaration, which says nothing that is not known: the text is UTF-8.
    fn new(text: &'a str) -> Result<Self, &'static str> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
        let Some(declared) = text.strip_prefix("<?xml ") else { return Ok(Self { rest: text }) };
        let (inside, rest) = declared.split_once("?>").ok_or(WRONG)?;
        let lower = inside.to_ascii_lowercase();
        let other = lower.contains("encoding") && !["utf-8", "us-ascii"].iter().any(|c| lower.contains(c));
        if other || inside.contains('<') {
            return Err("The call's character set is not UTF-8.");
        }
        Ok(Self { rest })
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Takes `<name>`, spaces before it apart.
    fn open(&mut self, name: &str) -> Result<(), &'static str> {
        self.tag("<", name)
    }

    fn close(&mut self, name: &str) -> Result<(), &'static str> {
        self.tag("</", name)
    }

    fn tag(&mut self, begin: &str, name: &str) -> Result<(), &'static str> {
        self.space();
        let rest = self.rest.strip_prefix(begin).and_then(|r| r.strip_prefix(name)).ok_or(WRONG)?;
        self.rest = rest.trim_ascii_start().strip_prefix('>').ok_or(WRONG)?;
        Ok(())
    }

    /// Takes `<name/>`, or says that something else comes.
    fn empty(&mut self, name: &str) -> bool {
        let rest = self.rest.trim_ascii_start().strip_prefix('<').and_then(|r| r.strip_prefix(name));
        let rest = rest.and_then(|r| r.trim_ascii_start().strip_prefix("/>"));
        rest.is_some_and(|rest| {
            self.rest = rest;
            true
        })
    }

    fn comes(&self, begin: &str) -> bool {
        self.rest.trim_ascii_start().starts_with(begin)
    }

    /// Text up to the next tag.
    fn text(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let end = self.rest.find('<').ok_or(WRONG)?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or(WRONG)?;
        self.rest = rest;
        unescaped(text)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        if depth > MAX_DEPTH {
            return Err("The call nests too deep.");
        }
        if self.empty("value") {
            return Ok(Value::Text("".into()));
        }
        self.open("value")?;
        let value = if self.comes("<") && !self.rest.starts_with("</") && !self.comes("</") {
            self.typed(depth)?
        } else {
            Value::Text(self.text()?)
        };
        // After text only its own end may come; after an element spaces may.
        self.close("value")?;
        Ok(value)
    }

    fn typed(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        if self.empty("string") {
            return Ok(Value::Text("".into()));
        }
        if self.empty("nil") {
            return Ok(Value::Nil);
        }
        self.space();
        let name = self.rest.strip_prefix('<').and_then(|r| r.split_once('>')).map(|(name, _)| name.trim_ascii_end());
        match name.ok_or(WRONG)? {
            "string" => self.leaf("string").map(Value::Text),
            "struct" => self.members(depth),
            "array" => self.list(depth),
            "boolean" => match &*self.leaf("boolean")? {
                "1" => Ok(Value::Bool(true)),
                "0" => Ok(Value::Bool(false)),
                _ => Err("A truth is 0 or 1."),
            },
            "i4" => self.leaf("i4").and_then(|t| int(&t)),
            "int" => self.leaf("int").and_then(|t| int(&t)),
            "double" => self.leaf("double").and_then(|t| double(&t)),
            "dateTime.iso8601" => self.leaf("dateTime.iso8601").map(Value::Date),
            _ => Err("The call holds a kind of value that the gateway does not pass on."),
        }
    }

    fn leaf(&mut self, name: &str) -> Result<Cow<'a, str>, &'static str> {
        self.open(name)?;
        let text = self.text()?;
        self.close(name)?;
        Ok(text)
    }

    fn members(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        let mut all: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        if self.empty("struct") {
            return Ok(Value::Map(all));
        }
        self.open("struct")?;
        while self.comes("<member") {
            self.open("member")?;
            let name = if self.empty("name") { "".into() } else { self.leaf("name")? };
            let value = self.value(depth + 1)?;
            self.close("member")?;
            all.push((name, value));
        }
        self.close("struct")?;
        if has_twins(&all) {
            return Err("A member comes twice.");
        }
        Ok(Value::Map(all))
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        let mut all = Vec::new();
        self.open("array")?;
        if !self.empty("data") {
            self.open("data")?;
            while self.comes("<value") {
                all.push(self.value(depth + 1)?);
            }
            self.close("data")?;
        }
        self.close("array")?;
        Ok(Value::List(all))
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.rest.trim_ascii().is_empty() { Ok(()) } else { Err("Something follows the call.") }
    }
}

/// Whether a name comes twice.
pub(super) fn has_twins(all: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    if all.len() < 16 {
        return all.iter().enumerate().any(|(n, (name, _))| all.iter().take(n).any(|(other, _)| other == name));
    }
    let mut names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    names.array_windows().any(|[a, b]| a == b)
}

fn int<'a>(text: &str) -> Result<Value<'a>, &'static str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let number = if is_plain { text.parse().ok() } else { None };
    number.map(Value::Int).ok_or("A whole number is not written as one.")
}

fn double<'a>(text: &str) -> Result<Value<'a>, &'static str> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number = if is_plain { text.parse::<f64>().ok().filter(|n| n.is_finite()) } else { None };
    number.map(Value::Double).ok_or("A number is not written as one.")
}

fn unescaped(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if text.bytes().any(|b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) {
        return Err("The call holds a character that XML has not.");
    }
    if !text.contains('&') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';').ok_or(WRONG)?;
        let c = match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => character(name).ok_or("The call uses an entity that is not known.")?,
        };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// A character reference (XML 1.0 section 4.1) to a character that XML has (section 2.2).
fn character(name: &str) -> Option<char> {
    let number = name.strip_prefix('#')?;
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
    let is_plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| char::from(b).is_digit(radix));
    let c = if is_plain { char::from_u32(u32::from_str_radix(digits, radix).ok()?)? } else { return None };
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
        .then_some(c)
}

pub(super) fn read_call(text: &str) -> Result<Call<'_>, &'static str> {
    let mut reader = Reader::new(text)?;
    reader.open("methodCall")?;
    let method = reader.leaf("methodName")?;
    let mut params = Vec::new();
    if !reader.empty("params") && reader.comes("<params") {
        reader.open("params")?;
        while reader.comes("<param") {
            reader.open("param")?;
            params.push(reader.value(0)?);
            reader.close("param")?;
        }
        reader.close("params")?;
    }
    reader.close("methodCall")?;
    reader.end()?;
    Ok(Call { wire: Wire::Xml, method, params, id: "".into() })
}

pub(super) fn read_reply(text: &str) -> Option<Reply<'_>> {
    let mut reader = Reader::new(text).ok()?;
    reader.open("methodResponse").ok()?;
    if reader.comes("<fault") {
        reader.open("fault").ok()?;
        let fault = reader.value(0).ok()?;
        reader.close("fault").ok()?;
        let why = fault.member("faultString").and_then(Value::text).unwrap_or_default();
        return Some(Reply::Failed(vec!["INTERNAL_ERROR".into(), why.to_owned().into()]));
    }
    reader.open("params").ok()?;
    reader.open("param").ok()?;
    let value = reader.value(0).ok()?;
    reader.close("param").ok()?;
    reader.close("params").ok()?;
    reader.close("methodResponse").ok()?;
    reader.end().ok()?;
    let Value::Map(members) = value else { return None };
    let mut status = None;
    let (mut done, mut why) = (None, None);
    for (name, value) in members {
        match (&*name, value) {
            ("Status", Value::Text(text)) => status = Some(text),
            ("Value", value) => done = Some(value),
            ("ErrorDescription", Value::List(all)) => why = Some(all),
            _ => {}
        }
    }
    match status.as_deref()? {
        // What gives nothing is answered with an empty text, or with nothing.
        "Success" => Some(Reply::Done(done.unwrap_or(Value::Text("".into())))),
        "Failure" => Some(Reply::Failed(why?.into_iter().filter_map(text_of).collect())),
        _ => None,
    }
}

fn text_of(value: Value<'_>) -> Option<Cow<'_, str>> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '&', '\r']) {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let mut chars = after.chars();
        out.push_str(match chars.next() {
            Some('<') => "&lt;",
            Some('>') => "&gt;",
            Some('&') => "&amp;",
            // A reader turns a bare one into a line feed (XML 1.0 section 2.11).
            Some('\r') => "&#13;",
            _ => "",
        });
        rest = chars.as_str();
    }
    // Characters that XML has not come in no XML; from JSON they are never written here.
    out.push_str(rest);
}

fn write_value(out: &mut String, value: &Value<'_>) {
    out.push_str("<value>");
    // Writing to a string cannot fail.
    match value {
        Value::Text(text) => {
            out.push_str("<string>");
            escape(out, text);
            out.push_str("</string>");
        }
        Value::Int(n) => drop(write!(out, "<int>{n}</int>")),
        Value::Double(n) => drop(write!(out, "<double>{n}</double>")),
        Value::Bool(b) => drop(write!(out, "<boolean>{}</boolean>", u8::from(*b))),
        Value::Date(text) => {
            out.push_str("<dateTime.iso8601>");
            escape(out, text);
            out.push_str("</dateTime.iso8601>");
        }
        Value::Nil => out.push_str("<nil/>"),
        Value::List(all) => {
            out.push_str("<array><data>");
            for value in all {
                write_value(out, value);
            }
            out.push_str("</data></array>");
        }
        Value::Map(all) => {
            out.push_str("<struct>");
            for (name, value) in all {
                out.push_str("<member><name>");
                escape(out, name);
                out.push_str("</name>");
                write_value(out, value);
                out.push_str("</member>");
            }
            out.push_str("</struct>");
        }
    }
    out.push_str("</value>");
}

/// Writes a call whose first parameter is a hole; says where that is.
pub(super) fn write_call(out: &mut String, method: &str, args: &[Value<'_>]) -> usize {
    out.push_str("<?xml version=\"1.0\"?><methodCall><methodName>");
    out.push_str(method);
    out.push_str("</methodName><params><param><value><string>");
    let at = out.len();
    out.push_str("</string></value></param>");
    for value in args {
        out.push_str("<param>");
        write_value(out, value);
        out.push_str("</param>");
    }
    out.push_str("</params></methodCall>");
    at
}

pub(super) fn write_reply(out: &mut String, reply: &Reply<'_>) {
    out.push_str("<?xml version=\"1.0\"?><methodResponse><params><param><value><struct>");
    let mut member = |name: &str, value: &Value<'_>| {
        out.push_str("<member><name>");
        out.push_str(name);
        out.push_str("</name>");
        write_value(out, value);
        out.push_str("</member>");
    };
    match reply {
        Reply::Done(value) => {
            member("Status", &Value::from_text("Success"));
            member("Value", value);
        }
        Reply::Failed(why) => {
            member("Status", &Value::from_text("Failure"));
            let why = why.iter().map(|w| Value::from_text(&**w)).collect();
            member("ErrorDescription", &Value::List(why));
        }
    }
    out.push_str("</struct></value></param></params></methodResponse>");
}
