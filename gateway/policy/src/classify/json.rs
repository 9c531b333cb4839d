// SPDX-License-Identifier: Apache-2.0
//! One reading of a body that is nested JSON (RFC 8259), and the patterns that a table speaks of it with.
//!
//! The body is sent as it came, so whatever two readers could read differently is refused: a key that comes twice at any
//! depth, another coding than UTF-8, more than 32 levels. A number is compared as it is written: readers differ on
//! `1e2`, and on whole numbers beyond 2⁵³.
//!
//! What is said is a list of leaves, each with the way to it. A step into a list is written `[]`, whichever entry it is.
//!
//! An API that takes XML as well is spoken of in one form for both: see [`Json::read_tree`].

use super::markup::Node;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// The largest body of nested JSON, in bytes.
pub const MAX_JSON: usize = 256 * 1024;
/// Most levels.
const MAX_DEPTH: usize = 32;
/// Most leaves.
pub(super) const MAX_LEAVES: usize = 5_000;
const JSON: &str = "application/json";
/// A step into a list.
pub(super) const ENTRY: &str = "[]";

/// A body of nested JSON: an object, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Json {
    /// The keys at the top, in their order.
    keys: Vec<String>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) written: Written,
}

/// What a body does to the object that it is sent to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Written {
    /// It is the whole of it: what it leaves out goes away.
    #[default]
    Whole,
    /// It says what becomes different (RFC 7396, RFC 6902).
    Changes,
}

/// How much of a thing a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it: what it does not name is taken away.
    All,
    /// What it names; the rest stays.
    Named,
}

/// One value that holds no others, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(super) way: Vec<String>,
    pub(super) value: Value,
}

/// What stands at the end of a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A number, `true`, `false` or `null`, as written; `{}` or `[]` with nothing inside.
    Plain(String),
}

impl Json {
    /// Changes of which none was read yet.
    pub(super) fn of_changes() -> Self {
        Self { written: Written::Changes, ..Self::default() }
    }

    /// Reads a body by its media type; the error is for the person.
    pub fn read(media_type: Option<&str>, body: &[u8]) -> Result<Self, &'static str> {
        let essence = essence(media_type.unwrap_or(JSON), body)?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        if essence != JSON && essence != "application/merge-patch+json" {
            return Err("The body is not said to be JSON, so the gateway cannot tell what it asks.");
        }
        let mut json = Self::of_json(body)?;
        if essence != JSON {
            json.written = Written::Changes;
        }
        Ok(json)
    }

    /// Reads a body that is nested JSON or XML, in one form for both: the root element has no name, an attribute is what an
    /// element of that name would be, and entries of a list stand where the list stands. The error is for the person.
    pub fn read_tree(media_type: Option<&str>, body: &[u8]) -> Result<Self, &'static str> {
        let essence = essence(media_type.unwrap_or_default(), body)?;
        match essence.as_str() {
            _ if body.is_empty() => Ok(Self::default()),
            JSON => {
                let mut json = Self::of_json(body)?;
                for leaf in &mut json.leaves {
                    leaf.way.retain(|step| step != ENTRY);
                }
                Ok(json)
            }
            "application/xml" | "text/xml" => {
                let text = str::from_utf8(body).map_err(|_| "The body is no valid UTF-8.")?;
                let root = Node::read(text, MAX_LEAVES).map_err(|_| "The body is no XML that has one meaning.")?;
                let keys = root.children.iter().map(|c| c.name.clone()).collect();
                let mut json = Self { keys, ..Self::default() };
                json.grow(root, &mut Vec::new())?;
                Ok(json)
            }
            _ => Err("The body is said to be neither XML nor JSON, so the gateway cannot tell what it asks."),
        }
    }

    fn grow(&mut self, node: Node, way: &mut Vec<String>) -> Result<(), &'static str> {
        let Node { attributes, text, children, .. } = node;
        let says = !text.trim().is_empty();
        if way.is_empty() && says {
            return Err("The body is a text and no XML of elements.");
        }
        // Something empty is said, too.
        if !way.is_empty() && children.is_empty() && (says || attributes.is_empty()) {
            self.leaves.push(Leaf { way: way.clone(), value: Value::Text(text) });
        }
        for (name, value) in attributes {
            let way = way.iter().cloned().chain([name]).collect();
            self.leaves.push(Leaf { way, value: Value::Text(value) });
        }
        for mut child in children {
            way.push(std::mem::take(&mut child.name));
            self.grow(child, way)?;
            way.pop();
        }
        if self.leaves.len() > MAX_LEAVES { Err("The body says too much at once.") } else { Ok(()) }
    }

    fn of_json(body: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(body).map_err(|_| "The body is no valid UTF-8.")?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|_| "The body is no JSON.")?;
        if !whole.get().starts_with('{') {
            return Err("The body is no JSON object.");
        }
        let mut json = Self::default();
        let mut way = Vec::new();
        json.walk(whole, &mut way)?;
        Ok(json)
    }

    pub(super) fn walk(&mut self, raw: &RawValue, way: &mut Vec<String>) -> Result<(), &'static str> {
        const UNREADABLE: &str = "The body is no JSON in which each key stands once.";
        let text = raw.get();
        let before = self.leaves.len();
        if way.len() > MAX_DEPTH {
            return Err("The body has more than 32 levels.");
        }
        match text.as_bytes().first() {
            Some(b'{') => {
                let Pairs(pairs) = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
                if way.is_empty() {
                    self.keys = pairs.iter().map(|(key, _)| key.clone()).collect();
                }
                for (key, value) in pairs {
                    way.push(key);
                    self.walk(value, way)?;
                    way.pop();
                }
            }
            Some(b'[') => {
                let Entries(entries) = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
                for entry in entries {
                    way.push(ENTRY.to_owned());
                    self.walk(entry, way)?;
                    way.pop();
                }
            }
            Some(b'"') => {
                let text = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
                self.leaves.push(Leaf { way: way.clone(), value: Value::Text(text) });
            }
            _ => self.leaves.push(Leaf { way: way.clone(), value: Value::Plain(text.to_owned()) }),
        }
        // Something empty is said, too.
        if self.leaves.len() == before && !way.is_empty() {
            let empty = if text.starts_with('{') { "{}" } else { ENTRY };
            self.leaves.push(Leaf { way: way.clone(), value: Value::Plain(empty.to_owned()) });
        }
        if self.leaves.len() > MAX_LEAVES { Err("The body says too much at once.") } else { Ok(()) }
    }

    /// The one key at the top, where there is exactly one.
    pub fn only_key(&self) -> Option<&str> {
        if let [one] = self.keys.as_slice() { Some(one) } else { None }
    }

    /// What stands within a key, where that is all that is said.
    #[must_use]
    pub(super) fn unwrapped(mut self, key: &str) -> Self {
        if self.only_key() != Some(key) {
            return self;
        }
        self.keys.clear();
        for leaf in &mut self.leaves {
            // A value in the place of an object stays where it is.
            if leaf.way.len() < 2 {
                continue;
            }
            leaf.way.remove(0);
            let top = leaf.way.first().filter(|top| !self.keys.contains(top));
            self.keys.extend(top.cloned());
        }
        self
    }

    /// The text, number or truth at a pointer (RFC 6901) through objects, as written.
    pub fn value(&self, pointer: &str) -> Option<&str> {
        self.at(pointer).map(Leaf::text)
    }

    fn at(&self, pointer: &str) -> Option<&Leaf> {
        let way = pointer.strip_prefix('/')?;
        let is_there = |l: &&Leaf| l.way.iter().map(String::as_str).eq(way.split('/')) && !way.contains(ENTRY);
        self.leaves.iter().find(is_there)
    }

    /// What it does to what is there.
    pub const fn written(&self) -> Written {
        self.written
    }

    /// The texts, numbers and truths one step below a pointer through objects, each with its key; `null` is none.
    pub fn below<'j>(&'j self, pointer: &'j str) -> impl Iterator<Item = (&'j str, Option<&'j str>)> {
        let way = pointer.strip_prefix('/').unwrap_or_default();
        self.leaves.iter().filter_map(move |l| {
            let (key, before) = l.way.split_last()?;
            let is_below = before.iter().map(String::as_str).eq(way.split('/'));
            let is_null = matches!(&l.value, Value::Plain(text) if text == "null");
            is_below.then(|| (key.as_str(), (!is_null).then(|| l.text())))
        })
    }

    /// Every text, number and truth in it.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().map(Leaf::text)
    }

    /// Whether it says anything of a key at the top.
    pub fn says(&self, top: &str) -> bool {
        self.leaves.iter().any(|leaf| leaf.way.first().is_some_and(|way| way == top))
    }

    /// What becomes another where `now` becomes this, as a body says it: each setting that is not the same on both sides
    /// with what it was and what it becomes, so that taking one away counts like writing it. A setting is a key at the
    /// top with all that is in it; within the objects that `within` names it is one of their entries, whole.
    #[must_use]
    pub fn changes(&self, now: &Self, within: &[&str], extent: Extent) -> Self {
        let (was, is) = (now.settings(within), self.settings(within));
        let named = is.keys().chain(was.keys().filter(|s| extent == Extent::All && !is.contains_key(*s)));
        let mut leaves = Vec::new();
        for setting in named.filter(|s| is.get(*s) != was.get(*s)) {
            leaves.extend([&is, &was].into_iter().filter_map(|side| side.get(setting)).flatten().copied().cloned());
        }
        Self { leaves, ..Self::default() }
    }

    fn settings(&self, within: &[&str]) -> BTreeMap<&[String], Vec<&Leaf>> {
        let mut all: BTreeMap<_, Vec<&Leaf>> = BTreeMap::new();
        for leaf in &self.leaves {
            let steps = if leaf.way.first().is_some_and(|top| within.contains(&top.as_str())) { 2 } else { 1 };
            let setting = leaf.way.get(..steps).unwrap_or(&leaf.way);
            all.entry(setting).or_default().push(leaf);
        }
        // Keys stand in any order; entries of one list keep theirs.
        for leaves in all.values_mut() {
            leaves.sort_by(|a, b| a.way.cmp(&b.way));
        }
        all
    }

    /// What of this another body leaves as it is: the settings, as of [`Self::changes`], of which it says nothing, or
    /// `null`.
    #[must_use]
    pub fn left_by(&self, said: &Self, within: &[&str]) -> Self {
        let says = |leaves: &Vec<&Leaf>| leaves.iter().any(|leaf| !leaf.is("null"));
        let said = said.settings(within);
        let left = self.settings(within).into_iter().filter(|(setting, _)| !said.get(setting).is_some_and(says));
        Self { leaves: left.flat_map(|(_, leaves)| leaves).cloned().collect(), ..Self::default() }
    }

    /// All but what these patterns speak of.
    #[must_use]
    pub fn without(mut self, patterns: &[&str]) -> Self {
        let patterns: Vec<Pattern> = patterns.iter().filter_map(|p| Pattern::read(p)).collect();
        self.leaves.retain(|leaf| !patterns.iter().any(|p| p.fits(leaf)));
        self
    }

    /// What either says.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.leaves.extend(other.leaves);
        self
    }

    /// The keys at the top that hold more than nothing (`""`, `false`, `null`, `[]`, `{}`).
    pub fn held(&self) -> impl Iterator<Item = &str> {
        let is_nothing =
            |l: &Leaf| l.way.len() == 1 && ["\"\"", "false", "null", ENTRY, "{}"].iter().any(|nothing| l.is(nothing));
        let holds =
            move |key: &str| self.leaves.iter().any(|l| l.way.first().is_some_and(|k| k == key) && !is_nothing(l));
        self.keys.iter().map(String::as_str).filter(move |key| holds(key))
    }

    /// The same, where it is a text.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer).and_then(|leaf| if let Value::Text(text) = &leaf.value { Some(text.as_str()) } else { None })
    }

    /// Every leaf.
    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }
}

/// What a body is said to be, without its character set, which is UTF-8.
fn essence(media_type: &str, body: &[u8]) -> Result<String, &'static str> {
    if body.len() > MAX_JSON {
        return Err("The body is longer than 256 KiB.");
    }
    let (essence, more) = media_type.split_once(';').unwrap_or((media_type, ""));
    if !body.is_empty() && !more.trim().is_empty() && !more.trim().eq_ignore_ascii_case("charset=utf-8") {
        return Err("The body's character set is not UTF-8.");
    }
    Ok(essence.trim().to_ascii_lowercase())
}

impl Leaf {
    /// The value; a text without its quotes.
    pub(crate) fn text(&self) -> &str {
        let (Value::Text(text) | Value::Plain(text)) = &self.value;
        text
    }

    /// Whether the value is one that a table writes as JSON.
    pub(crate) fn is(&self, spelled: &str) -> bool {
        match &self.value {
            Value::Text(text) => {
                spelled.strip_prefix('"').and_then(|s| s.strip_suffix('"')).is_some_and(|inside| inside == text)
            }
            Value::Plain(text) => spelled == text,
        }
    }

    /// The way to it, for people.
    pub(crate) fn shown(&self) -> String {
        self.way.iter().flat_map(|step| ["/", step]).collect()
    }
}

/// Ways as a table writes them: `/a/b`; `*` in a step stands for any text, `[]` for an entry of a list, and `**` at the
/// end for the thing itself and all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Exactly(String),
    Between(String, String),
    Rest,
}

impl Pattern {
    /// Reads a pattern; none where it is no pattern.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let steps: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
        let last = steps.len() - 1;
        let step = |(at, step): (usize, &&str)| match (*step, step.split_once('*')) {
            ("", _) => None,
            ("**", _) => (at == last).then_some(Step::Rest),
            (_, Some((before, after))) if !after.contains('*') => Some(Step::Between(before.into(), after.into())),
            (_, Some(_)) => None,
            (step, None) => Some(Step::Exactly(step.to_owned())),
        };
        steps.iter().enumerate().map(step).collect::<Option<_>>().map(Self)
    }

    /// Whether it speaks of a leaf.
    pub(crate) fn fits(&self, leaf: &Leaf) -> bool {
        let mut way = leaf.way.iter();
        for step in &self.0 {
            let here = match step {
                Step::Rest => return true,
                Step::Exactly(text) => way.next().is_some_and(|w| w == text),
                Step::Between(before, after) => way.next().is_some_and(|w| {
                    w != ENTRY && w.strip_prefix(before.as_str()).is_some_and(|rest| rest.ends_with(after.as_str()))
                }),
            };
            if !here {
                return false;
            }
        }
        way.next().is_none()
    }
}

/// The keys of an object with their values, each once. A key that looks like a step into a list, or holds what
/// separates steps, could be taken for another way.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
        let mut pairs: Vec<(String, &'de RawValue)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == ENTRY || key.contains('\0') || !seen.insert(key.clone()) {
                return Err(A::Error::custom("a key that comes twice, or that is none"));
            }
            pairs.push((key, map.next_value()?));
        }
        Ok(Pairs(pairs))
    }
}

/// The entries of a list.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = list.next_element()? {
            if all.len() >= MAX_LEAVES {
                return Err(A::Error::custom("a list that is too long"));
            }
            all.push(entry);
        }
        Ok(Entries(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> Result<Vec<String>, &'static str> {
        let json = Json::read(Some("application/json"), body.as_bytes())?;
        Ok(json.leaves().iter().map(|l| format!("{}={}", l.shown(), l.text())).collect())
    }

    #[test]
    fn every_value_is_said_with_the_way_to_it_and_as_it_is_written() {
        let body = r#" {"server": {"name": "a\u0062", "n": [{"uuid": 1e2}, {"uuid": 18446744073709551616}, 0.10],
            "meta": {}, "tags": [], "x": null, "y": false}} "#;
        let wanted = [
            "/server/name=ab",
            "/server/n/[]/uuid=1e2",
            "/server/n/[]/uuid=18446744073709551616",
            "/server/n/[]=0.10",
            "/server/meta={}",
            "/server/tags=[]",
            "/server/x=null",
            "/server/y=false",
        ];
        assert_eq!(said(body).unwrap(), wanted);
        assert_eq!(said("{}").unwrap(), [""; 0]);
        assert_eq!(Json::read(None, b"").unwrap(), Json::default());
        let json = Json::read(None, br#"{"os-start": null}"#).unwrap();
        assert_eq!(json.only_key(), Some("os-start"));
        assert_eq!(json.value("/os-start"), Some("null"));
        assert_eq!(Json::read(None, br#"{"a": 1, "b": 2}"#).unwrap().only_key(), None);
        assert_eq!(Json::read(None, b"{}").unwrap().only_key(), None);
    }

    // SEC-049
    #[test]
    fn a_body_that_two_readers_could_read_differently_is_refused() {
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(said(&deep(32)).is_ok());
        for body in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"y":{"a":1,"a":1}}]}"#,
            r#"{"a":{"[]":1}}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":01}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1,}"#,
            r#"{"a":1} {"a":2}"#,
            r#"{"a":1}x"#,
            r#"{"a":1 /* */}"#,
            "{'a':1}",
            "[1]",
            "1",
            "\"a\"",
            "null",
            "\u{feff}{}",
            &deep(33),
            &deep(10_000),
            &format!("{{\"a\":[{}1]}}", "1,".repeat(MAX_LEAVES)),
            &format!("{{\"a\":[{}1]}}", "[],".repeat(MAX_LEAVES)),
        ] {
            assert!(said(body).is_err(), "{}", body.get(..60).unwrap_or(body));
        }
        for (media, body) in [
            (Some("text/plain"), &b"{}"[..]),
            (Some("application/json; charset=utf-16"), b"{}"),
            (Some("application/json-patch+json"), b"{}"),
            (Some("application/x-www-form-urlencoded"), b"{}"),
            (Some(""), b"{}"),
            (Some("application/json"), b"{\"a\":\"\xff\"}"),
        ] {
            assert!(Json::read(media, body).is_err(), "{media:?}");
        }
        assert!(Json::read(None, &vec![b' '; MAX_JSON + 1]).is_err());
        assert!(Json::read(Some("Application/JSON;charset=UTF-8"), b"{}").is_ok());
    }

    #[test]
    fn xml_and_json_say_the_same() {
        let said = |media: &str, body: &str| {
            let tree = Json::read_tree(Some(media), body.as_bytes())?;
            let mut all: Vec<String> = tree.leaves().iter().map(|l| format!("{}={}", l.shown(), l.text())).collect();
            all.sort();
            Ok::<_, &str>(all)
        };
        let wanted = ["/cluster/id=c", "/name=a<b", "/tags/tag/id=2", "/tags/tag/name=x"];
        let xml = "<?xml version='1.0'?><vm>\n <name>a&lt;b</name><cluster id='c'/><tags><tag id='2'/><tag><name>x</name></tag></tags></vm>";
        let json = r#"{"name":"a<b","cluster":{"id":"c"},"tags":{"tag":[{"id":"2"},{"name":"x"}]}}"#;
        assert_eq!(said("application/xml", xml).unwrap(), wanted);
        assert_eq!(said("Text/XML; charset=UTF-8", xml).unwrap(), wanted);
        assert_eq!(said("application/json", json).unwrap(), wanted);
        assert_eq!(
            said("application/xml", "<vm id='1' href='/x'><a>t</a><b n='1'>t</b></vm>").unwrap(),
            ["/a=t", "/b/n=1", "/b=t", "/href=/x", "/id=1"]
        );
        assert_eq!(said("application/xml", "<vm><cluster/></vm>").unwrap(), ["/cluster="]);
        for nothing in [("application/xml", "<action/>"), ("application/json", "{}"), ("", "")] {
            assert_eq!(said(nothing.0, nothing.1).unwrap(), [""; 0], "{nothing:?}");
        }
        for (media, body) in [
            ("", "<vm/>"),
            ("application/json", "<vm/>"),
            ("application/xml", "{}"),
            ("text/plain", "<vm/>"),
            ("application/x-yaml", "vm: 1"),
            ("application/xml; charset=iso-8859-1", "<vm/>"),
            ("application/xml", "<vm>text</vm>"),
            ("application/xml", "<!DOCTYPE vm [<!ENTITY x 'y'>]><vm><name>&x;</name></vm>"),
            ("application/xml", "<vm><name>&x;</name></vm>"),
            ("application/xml", "<vm xmlns='urn:x'/>"),
            ("application/json", r#"{"a":1,"a":2}"#),
        ] {
            assert!(said(media, body).is_err(), "{media} {body}");
        }
    }

    #[test]
    fn a_pattern_fits_what_it_says_and_nothing_beside() {
        for (pattern, body, fits) in [
            ("/a/b", r#"{"a":{"b":1}}"#, true),
            ("/a/b", r#"{"a":{"b":{"c":1}}}"#, false),
            ("/a/b", r#"{"a":1}"#, false),
            ("/a", r#"{"a":{}}"#, true),
            ("/a/**", r#"{"a":{}}"#, true),
            ("/a/**", r#"{"a":1}"#, true),
            ("/a/**", r#"{"a":{"b":[[{"c":1}]]}}"#, true),
            ("/a/**", r#"{"ab":1}"#, false),
            ("/a/*", r#"{"a":{"b":1}}"#, true),
            ("/a/*", r#"{"a":[1]}"#, false),
            ("/a/[]", r#"{"a":[1]}"#, true),
            ("/a/*/c", r#"{"a":{"b/x":{"c":1}}}"#, true),
            ("/config/raw.*", r#"{"config":{"raw.lxc":"x"}}"#, true),
            ("/config/raw.*", r#"{"config":{"raw":"x"}}"#, false),
            ("/config/*.password", r#"{"config":{"a.password":"x"}}"#, true),
            ("/a/b", r#"{"a/b":1}"#, false),
        ] {
            let json = Json::read(None, body.as_bytes()).unwrap();
            assert_eq!(Pattern::read(pattern).unwrap().fits(&json.leaves()[0]), fits, "{pattern} {body}");
        }
        for bad in ["a", "", "/", "/a//b", "/a/**/b", "/a*b*c", "/***"] {
            assert_eq!(Pattern::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_change_is_what_comes_goes_or_becomes_another_and_nothing_that_stays() {
        let json = |body: &str| Json::read(None, body.as_bytes()).unwrap();
        let now = r#"{"a": "x", "list": ["p", "q"], "config": {"k": "1", "l": "2"}, "devices": {"d": {"t": "nic", "n": "br"}}}"#;
        for (then, all, named) in [
            (now, "", ""),
            // The order of keys says nothing, the order of a list does.
            (
                r#"{"devices": {"d": {"n": "br", "t": "nic"}}, "config": {"l": "2", "k": "1"}, "list": ["p", "q"], "a": "x"}"#,
                "",
                "",
            ),
            (r#"{"list": ["q", "p"]}"#, "/a /config/k /config/l /devices/d/n /devices/d/t /list/[]", "/list/[]"),
            (r#"{"config": {"k": "1"}}"#, "/a /config/l /devices/d/n /devices/d/t /list/[]", ""),
            (r#"{"config": {"k": "2"}}"#, "/a /config/k /config/l /devices/d/n /devices/d/t /list/[]", "/config/k"),
            (
                r#"{"config": {"m": ""}}"#,
                "/a /config/k /config/l /config/m /devices/d/n /devices/d/t /list/[]",
                "/config/m",
            ),
            // The same text is another value where it is no text.
            (r#"{"config": {"k": 1}}"#, "/a /config/k /config/l /devices/d/n /devices/d/t /list/[]", "/config/k"),
            // An entry is compared whole: what is missing in it was taken away.
            (
                r#"{"devices": {"d": {"t": "nic"}}}"#,
                "/a /config/k /config/l /devices/d/n /devices/d/t /list/[]",
                "/devices/d/n /devices/d/t",
            ),
            (r#"{"config": null}"#, "/a /config /config/k /config/l /devices/d/n /devices/d/t /list/[]", "/config"),
            ("", "/a /config/k /config/l /devices/d/n /devices/d/t /list/[]", ""),
        ] {
            let ways = |extent| {
                let changes = json(then).changes(&json(now), &["config", "devices"], extent);
                let mut ways: Vec<String> = changes.leaves().iter().map(Leaf::shown).collect();
                ways.sort_unstable();
                ways.dedup();
                ways.join(" ")
            };
            assert_eq!((ways(Extent::All).as_str(), ways(Extent::Named).as_str()), (all, named), "{then}");
        }
        // Both what it was and what it becomes are said.
        let changes = json(r#"{"a": "y"}"#).changes(&json(r#"{"a": "x"}"#), &[], Extent::All);
        assert_eq!(changes.leaves().iter().map(Leaf::text).collect::<Vec<_>>(), ["y", "x"]);
        let left = json(now).without(&["/config/*", "/list/**"]).and(json(r#"{"z": 1}"#));
        assert_eq!(
            left.leaves().iter().map(Leaf::shown).collect::<Vec<_>>().join(" "),
            "/a /devices/d/t /devices/d/n /z"
        );
    }

    #[test]
    fn a_value_is_the_one_that_a_table_writes_and_no_other_of_the_same_text() {
        let json = Json::read(None, br#"{"a":"null","b":null,"c":"","d":"false"}"#).unwrap();
        let is = |at: usize, spelled: &str| json.leaves()[at].is(spelled);
        assert!(is(0, "\"null\"") && !is(0, "null"));
        assert!(is(1, "null") && !is(1, "\"null\""));
        assert!(is(2, "\"\"") && !is(3, "false"));
        assert_eq!((json.text("/a"), json.text("/b"), json.text("/c")), (Some("null"), None, Some("")));
        // A key with a slash is no way.
        let json = Json::read(None, br#"{"a/b":"x","c":[{"d":"y"}]}"#).unwrap();
        assert_eq!((json.value("/a/b"), json.value("/c/[]/d")), (None, None));
    }
}
