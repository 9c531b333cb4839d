// SPDX-License-Identifier: Apache-2.0
//! A table of methods as its two files write it. Every key that is not here is refused, and so is a row that could take
//! a change for a read, speaks of nothing, or forgets an object that a parameter names.

use super::{Back, Entrance, Inner, Method};
use crate::Kind;
use ahash::AHashMap;
use portcullis_domain::{Action, Effect};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Beginnings of methods that change something, whatever a row says.
const CHANGES: [&str; 12] = [
    "set_",
    "add_",
    "remove_",
    "create",
    "destroy",
    "forget",
    "enable",
    "disable",
    "introduce",
    "apply",
    "unplug",
    "plug",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    api: String,
    machine: MachineRule,
    /// What stays of a record of a class whose things are of no machine, for somebody who may see a part.
    names: BTreeMap<String, Vec<String>>,
    /// What of such a record is there all the same, and empty: clients do not do without it.
    #[serde(default)]
    emptied: BTreeMap<String, Vec<String>>,
    rule: Vec<Row>,
    web: Vec<WebLine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineRule {
    /// Classes whose objects are machines or parts of them.
    classes: BTreeSet<String>,
}

/// One row: methods by `class.message`, where either may end with `*`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    methods: Vec<String>,
    /// It speaks of a call only where the first parameter is one of these texts; another row speaks of the rest.
    #[serde(default)]
    first: Vec<String>,
    action: Option<String>,
    object: Option<Object>,
    effect: Option<RowEffect>,
    /// What is asked of other objects that parameters name.
    others: Option<String>,
    /// Asked of the hypervisor, too.
    #[serde(default)]
    hypervisor: Vec<String>,
    #[serde(default)]
    answer: RowAnswer,
    session: Option<RowSession>,
    /// The most that its last parameter may be: for how many seconds it waits.
    longest: Option<u32>,
    /// Never passed on, and why.
    deny: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebLine {
    operations: Vec<String>,
    action: Option<String>,
    effect: Option<RowEffect>,
    /// Keys of the query that name an object of a class.
    #[serde(default)]
    named: BTreeMap<String, String>,
    /// Keys of the query that say nothing.
    #[serde(default)]
    query: Vec<String>,
    deny: Option<String>,
}

/// What a method is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Object {
    /// What the first parameter with an object of a machine names.
    Named,
    Hypervisor,
    /// A task.
    Task,
    /// What the person may see of the hypervisor.
    Visible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RowEffect {
    Safe,
    Unsafe,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RowAnswer {
    #[default]
    Whole,
    Rows,
    Record,
    Events,
    Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RowSession {
    Login,
    Logout,
    Listing,
}

/// What a row says, once checked.
#[derive(Debug)]
pub(super) enum Meaning {
    Deny(String),
    Session(Entrance),
    Ask(Ask),
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) action: Action,
    pub(super) object: Object,
    pub(super) effect: Effect,
    pub(super) others: Action,
    pub(super) hypervisor: Vec<Action>,
    /// The most that the last parameter may be.
    pub(super) longest: Option<u32>,
    answer: RowAnswer,
}

impl Ask {
    /// What comes back from a method of a class.
    pub(super) fn back(&self, class: &'static str) -> Back {
        match self.answer {
            RowAnswer::Whole => Back::Whole,
            RowAnswer::Rows => Back::Rows(class),
            RowAnswer::Record => Back::Record(class),
            RowAnswer::Events => Back::Events,
            RowAnswer::Task => Back::Task,
        }
    }
}

/// What is asked by a request beside the calls.
#[derive(Debug)]
pub(super) enum WebRow {
    Deny(String),
    Ask(WebAsk),
}

#[derive(Debug)]
pub(super) struct WebAsk {
    pub(super) action: Action,
    pub(super) effect: Effect,
    pub(super) named: BTreeMap<String, String>,
    pub(super) query: Vec<String>,
}

/// What a parameter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arg {
    /// It names no object.
    Plain,
    /// It names an object that is of no machine.
    Other,
    /// It names a machine or a part of one.
    Object(&'static str),
    Set(Box<Arg>),
    Table(Box<Arg>, Box<Arg>),
    Record(Arc<Vec<(&'static str, Arg)>>),
}

impl Arg {
    fn names_objects(&self) -> bool {
        match self {
            Self::Plain | Self::Other => false,
            Self::Object(_) => true,
            Self::Set(inner) => inner.names_objects(),
            Self::Table(keys, values) => keys.names_objects() || values.names_objects(),
            Self::Record(fields) => fields.iter().any(|(_, arg)| arg.names_objects()),
        }
    }
}

/// What the API's own description says.
#[derive(Default)]
struct Described {
    /// `class.message`, its parameters, and how many of them must be there; in the order of the file.
    methods: Vec<(&'static str, Vec<Arg>, usize)>,
    web: BTreeSet<&'static str>,
}

pub(super) fn build(verdicts: &str, operations: &'static str) -> Result<Inner, String> {
    let File { api, machine, names, emptied, rule, web } = toml::from_str(verdicts).map_err(|e| e.to_string())?;
    let described = describe(operations, &machine.classes).map_err(|e| format!("{api}: {e}"))?;
    let mut inner = Inner { names, emptied, ..Inner::default() };
    let mut meanings = Vec::new();
    for (number, row) in rule.iter().enumerate() {
        let at = |e: String| format!("{api}: row {} ({}): {e}", number + 1, row.methods.first().map_or("", |m| m));
        let meaning = row.meaning().map_err(at)?;
        meanings.push(Arc::new(meaning));
    }
    let mut used = BTreeSet::new();
    for (name, args, least) in described.methods {
        // A row that names a method wins over one with a pattern; of patterns the first one wins.
        let by = |whole: bool, is_exception: bool| {
            let rows = rule.iter().enumerate().filter(|(_, r)| r.first.is_empty() != is_exception);
            rows.into_iter().find_map(|(row, r)| {
                let pattern = r.methods.iter().find(|p| p.contains('*') != whole && matches(p, name))?;
                Some((row, pattern))
            })
        };
        let take = |(row, pattern): (usize, &'_ String)| -> Result<Option<Arc<Meaning>>, String> {
            let Some(meaning) = meanings.get(row) else { return Ok(None) };
            check(name, pattern, &args, rule.get(row), meaning).map_err(|e| format!("{api}: {name}: {e}"))?;
            Ok(Some(Arc::clone(meaning)))
        };
        let Some(found) = by(true, false).or_else(|| by(false, false)) else { continue };
        used.insert(found);
        let Some(meaning) = take(found)? else { continue };
        let mut exception = None;
        if let Some((row, pattern)) = by(true, true) {
            used.insert((row, pattern));
            let texts = rule.get(row).map(|r| r.first.clone()).unwrap_or_default();
            exception = take((row, pattern))?.map(|meaning| (texts, meaning));
        }
        let class = name.split_once('.').map_or(name, |(class, _)| class);
        inner.methods.insert(name.to_owned(), Method { name: name.to_owned(), class, args, least, meaning, exception });
    }
    for (row, r) in rule.iter().enumerate() {
        if let Some(stale) = r.methods.iter().find(|p| !used.contains(&(row, *p))) {
            return Err(format!("{api}: {stale} speaks of no method, or of none that an earlier row has not"));
        }
    }
    for line in web {
        line.add(&described.web, &machine.classes, &mut inner.web).map_err(|e| format!("{api}: {e}"))?;
    }
    Ok(inner)
}

fn matches(pattern: &str, name: &str) -> bool {
    let (Some((pc, pm)), Some((class, message))) = (pattern.split_once('.'), name.split_once('.')) else {
        return false;
    };
    let fits = |p: &str, text: &str| p.strip_suffix('*').map_or(p == text, |begin| text.starts_with(begin));
    fits(pc, class) && fits(pm, message)
}

/// Whether a row may speak of a method.
fn check(name: &str, pattern: &str, args: &[Arg], row: Option<&Row>, meaning: &Meaning) -> Result<(), String> {
    let Meaning::Ask(ask) = meaning else { return Ok(()) };
    let message = name.split_once('.').map_or(name, |(_, message)| message);
    if ask.effect == Effect::Safe {
        if CHANGES.iter().any(|c| message.starts_with(c)) {
            return Err("it changes something, and the row calls it safe".to_owned());
        }
        if pattern.contains('*') && !message.starts_with("get_") {
            return Err("a pattern may call only get_… safe".to_owned());
        }
    }
    if ask.longest.is_some() && !args.last().is_some_and(|a| *a == Arg::Plain) {
        return Err("its last parameter is no number of seconds".to_owned());
    }
    let objects = args.iter().filter(|a| a.names_objects()).count();
    match ask.object {
        Object::Named if objects == 0 => Err("no parameter names a machine or a part of one".to_owned()),
        Object::Hypervisor | Object::Visible | Object::Task
            if objects > 0 && row.is_none_or(|r| r.others.is_none()) =>
        {
            Err("a parameter names a machine or a part of one: say what is asked of it (others)".to_owned())
        }
        _ => Ok(()),
    }
}

fn effect_of(effect: Option<RowEffect>) -> Option<Effect> {
    effect.map(|e| if e == RowEffect::Safe { Effect::Safe } else { Effect::Unsafe })
}

fn action_of(text: Option<&String>) -> Result<Option<Action>, String> {
    text.map(|a| a.parse::<Action>()).transpose().map_err(|e| e.to_string())
}

impl Row {
    fn meaning(&self) -> Result<Meaning, String> {
        if self.methods.is_empty() {
            return Err("it names no method".to_owned());
        }
        if let Some(reason) = &self.deny {
            let more =
                self.action.is_some() || self.object.is_some() || self.effect.is_some() || self.session.is_some();
            let wrong = more || reason.is_empty();
            return if wrong {
                Err("a row with deny says why, and nothing else".into())
            } else {
                Ok(Meaning::Deny(reason.clone()))
            };
        }
        if let Some(session) = self.session {
            let more = self.action.is_some() || self.object.is_some() || self.effect.is_some();
            let entrance = match session {
                RowSession::Login => Entrance::Login,
                RowSession::Logout => Entrance::Logout,
                RowSession::Listing => Entrance::Listing,
            };
            return if more {
                Err("a row with session says nothing else".into())
            } else {
                Ok(Meaning::Session(entrance))
            };
        }
        let (Some(action), Some(object), Some(effect)) =
            (action_of(self.action.as_ref())?, self.object, effect_of(self.effect))
        else {
            return Err("action, object and effect are needed".to_owned());
        };
        let kind = if object == Object::Named { Kind::Machine } else { Kind::Hypervisor };
        if !kind.answers(action) {
            return Err(format!("{action} cannot be asked of a {kind}"));
        }
        if action == Action::View && effect != Effect::Safe && object != Object::Task {
            return Err("a view is safe".to_owned());
        }
        if object == Object::Visible && action != Action::View {
            return Err("what somebody may see is a safe view".to_owned());
        }
        let part = matches!(self.answer, RowAnswer::Rows | RowAnswer::Record | RowAnswer::Events);
        if part != (object == Object::Visible) && self.answer != RowAnswer::Whole {
            return Err("answers are cut down for those who may see a part, and for nobody else".to_owned());
        }
        let others = action_of(self.others.as_ref())?.unwrap_or(action);
        let asked_too = self.hypervisor.iter().map(|a| a.parse::<Action>());
        let hypervisor = asked_too.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        if self.others.is_some() && !Kind::Machine.answers(others)
            || hypervisor.iter().any(|a| !Kind::Hypervisor.answers(*a))
        {
            return Err("that cannot be asked of it".to_owned());
        }
        let (longest, answer) = (self.longest, self.answer);
        Ok(Meaning::Ask(Ask { action, object, effect, others, hypervisor, longest, answer }))
    }
}

impl WebLine {
    fn add(
        self,
        described: &BTreeSet<&'static str>,
        classes: &BTreeSet<String>,
        web: &mut BTreeMap<String, WebRow>,
    ) -> Result<(), String> {
        let Self { operations, action, effect, named, query, deny } = self;
        for operation in operations {
            let wrong = |why: &str| format!("{operation}: {why}");
            if !described.contains(operation.as_str()) {
                return Err(wrong("there is no such request"));
            }
            let row = match (&deny, action_of(action.as_ref())?, effect_of(effect)) {
                (Some(reason), None, None) => WebRow::Deny(reason.clone()),
                (None, Some(action), Some(effect)) => {
                    let kind = if named.is_empty() { Kind::Hypervisor } else { Kind::Machine };
                    if !kind.answers(action) || named.values().any(|c| !classes.contains(c)) {
                        return Err(wrong("that cannot be asked of it"));
                    }
                    if effect == Effect::Safe && !operation.starts_with("GET ") {
                        return Err(wrong("it changes something, and the row calls it safe"));
                    }
                    WebRow::Ask(WebAsk { action, effect, named: named.clone(), query: query.clone() })
                }
                _ => return Err(wrong("say deny, or action and effect")),
            };
            if web.insert(operation.clone(), row).is_some() {
                return Err(wrong("it comes twice"));
            }
        }
        Ok(())
    }
}

/// Reads the API's own description: `Class.message name:Class name:[Class] name:{Class,Class} name:Class* name?`,
/// `record Class field:…` and `METHOD /path`.
fn describe(text: &'static str, classes: &BTreeSet<String>) -> Result<Described, String> {
    let is_record = |l: &&&'static str| l.starts_with("record ");
    let lines: Vec<&'static str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let mut records: AHashMap<&'static str, Arc<Vec<(&'static str, Arg)>>> = AHashMap::new();
    for line in lines.iter().filter(is_record) {
        let mut words = line.split(' ').skip(1);
        let class = words.next().unwrap_or_default();
        let mut fields = Vec::new();
        for word in words {
            let (name, what) = word.split_once(':').ok_or_else(|| format!("{line}: {word:?} is no field"))?;
            fields.push((name, arg(what, classes, &AHashMap::new())?));
        }
        records.insert(class, Arc::new(fields));
    }
    let mut described = Described::default();
    for line in lines.iter().filter(|l| !is_record(l)) {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        if !name.contains('.') {
            described.web.insert(line);
            continue;
        }
        let (mut args, mut least) = (Vec::new(), 0);
        for (n, word) in words.enumerate() {
            let (word, needed) = word.strip_suffix('?').map_or((word, true), |w| (w, false));
            if needed {
                least = n + 1;
            }
            args.push(word.split_once(':').map_or(Ok(Arg::Plain), |(_, what)| arg(what, classes, &records))?);
        }
        described.methods.push((name, args, least));
    }
    Ok(described)
}

fn arg(
    what: &'static str,
    classes: &BTreeSet<String>,
    records: &AHashMap<&'static str, Arc<Vec<(&'static str, Arg)>>>,
) -> Result<Arg, String> {
    if let Some(inside) = what.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
        return Ok(Arg::Set(Box::new(arg(inside, classes, records)?)));
    }
    if let Some(inside) = what.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
        let (keys, values) = inside.split_once(',').ok_or_else(|| format!("{what:?} is no table"))?;
        return Ok(Arg::Table(Box::new(arg(keys, classes, records)?), Box::new(arg(values, classes, records)?)));
    }
    if let Some(class) = what.strip_suffix('*') {
        let fields = records.get(class).ok_or_else(|| format!("there is no record of {class}"))?;
        return Ok(Arg::Record(Arc::clone(fields)));
    }
    Ok(match what {
        "-" => Arg::Plain,
        class if classes.contains(class) => Arg::Object(class),
        _ => Arg::Other,
    })
}
