// SPDX-License-Identifier: Apache-2.0
//! What the parameters of a request ask beside its path: the machines that they name, and what else must be allowed.
//! A parameter that no set of the row knows is denied.

use super::{
    json::{Leaf, Pattern},
    volume,
};
use crate::Kind;
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

/// Most machines that one request may name.
const MAX_MACHINES: usize = 500;

/// Some keys of a set, as the file writes them. `net#` is `net0`, `net1`, and so on; what begins with `/` is a way into
/// nested JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamRow {
    set: String,
    keys: Vec<String>,
    #[serde(rename = "use", default)]
    usage: Usage,
    /// Asked as well, of the machine of the path or else of the hypervisor.
    action: Option<String>,
    /// Where the action is asked, if not there.
    #[serde(default)]
    of: Of,
    /// Why it is refused.
    reason: Option<String>,
    /// Values, as JSON writes them, that say nothing: with one of these nothing is asked and nothing refused.
    #[serde(default)]
    unless: Vec<String>,
    /// What may stand in the value, with commas between; a `*` at the end of one stands for a name.
    #[serde(default)]
    words: Vec<String>,
    /// Ways within the keys that it does not speak of.
    #[serde(default)]
    except: Vec<String>,
}

/// What a value says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Usage {
    /// Nothing that must be decided.
    #[default]
    Plain,
    /// The id of one machine: the action is asked of it.
    Machine,
    /// The ids of the machines that the whole operation is done to.
    Machines,
    /// A volume: `storage` is asked of every other machine that it names.
    Volume,
    /// Names of other keys, which are taken back.
    Keys,
    /// Words with commas between, each of them one of a list.
    Words,
    /// A file in a datastore: the action is asked where it is no image of a disc by its name.
    Image,
    /// Never passed on.
    Refuse,
}

/// What an action is asked of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Of {
    /// The machine of the path, or else the hypervisor.
    #[default]
    Machine,
    /// The hypervisor, whatever the path names.
    Hypervisor,
}

/// One key's meaning.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    usage: Usage,
    action: Option<Action>,
    of: Of,
    reason: String,
    unless: Vec<String>,
    words: Vec<String>,
    except: Vec<Pattern>,
}

impl Rule {
    const PLAIN: Self = Self {
        usage: Usage::Plain,
        action: None,
        of: Of::Machine,
        reason: String::new(),
        unless: Vec::new(),
        words: Vec::new(),
        except: Vec::new(),
    };
}

/// The keys and ways of one set.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    keys: BTreeMap<String, Rule>,
    ways: Vec<(Pattern, Rule)>,
}

/// The sets of a table.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<String, Known>);

/// What the parameters of a row may be.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// These.
    Known(Known),
    /// Any: what they name is all within what is asked.
    Any,
}

/// What the parameters of one request ask.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Must be allowed, too.
    pub(super) also: Vec<Operation>,
    /// What the operation is done to, where parameters name it.
    pub(super) machines: Vec<MachineId>,
}

/// Where parameters are read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) hypervisor: &'a HypervisorName,
    /// The machine of the path.
    pub(super) own: Option<&'a MachineId>,
    /// What the row asks.
    pub(super) action: Action,
    /// The machine that a value names.
    pub(super) machine: &'a dyn Fn(&str) -> Option<MachineId>,
}

impl Sets {
    pub(super) fn read(rows: Vec<ParamRow>) -> Result<Self, String> {
        let mut sets = Self::default();
        for row in rows {
            let ParamRow { set, keys, usage, action, of, reason, unless, words, except } = row;
            let wrong = |why: &str| format!("parameters {set}: {why}");
            let action = action.map(|a| a.parse::<Action>()).transpose().map_err(|e| wrong(&e.to_string()))?;
            if (usage == Usage::Refuse) != reason.is_some() || reason.as_deref() == Some("") {
                return Err(wrong("a key that is refused, and no other, says why"));
            }
            if action.is_some_and(|a| !Kind::Machine.answers(a) && !Kind::Hypervisor.answers(a)) {
                return Err(wrong("the action cannot be asked of a hypervisor or machine"));
            }
            if action.is_some() && matches!(usage, Usage::Machines | Usage::Refuse | Usage::Keys) {
                return Err(wrong("has an action that would not count"));
            }
            if (usage == Usage::Words) == words.is_empty() {
                return Err(wrong("a key with words, and no other, says which"));
            }
            if usage == Usage::Image && action.is_none() {
                return Err(wrong("a file that is no image asks for an action"));
            }
            if of == Of::Hypervisor
                && (!matches!(usage, Usage::Plain | Usage::Image)
                    || !action.is_some_and(|a| Kind::Hypervisor.answers(a)))
            {
                return Err(wrong("the hypervisor is asked for an action that it has"));
            }
            let patterns = except.iter().map(|way| Pattern::read(way)).collect::<Option<Vec<_>>>();
            let except = patterns.ok_or_else(|| wrong("an exception is a way into nested JSON"))?;
            let known = sets.0.entry(set.clone()).or_default();
            for key in keys {
                let bad = || format!("parameters {set}: {key:?} is no key, or comes twice");
                let reason = reason.clone().unwrap_or_default();
                let (values, ways) = (unless.clone(), except.clone());
                let rule = Rule { usage, action, of, reason, unless: values, words: words.clone(), except: ways };
                if key.starts_with('/') {
                    if matches!(usage, Usage::Keys | Usage::Volume) {
                        return Err(bad());
                    }
                    known.ways.push((Pattern::read(&key).ok_or_else(bad)?, rule));
                    continue;
                }
                let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_#".contains(&b));
                if !is_key || !unless.is_empty() || !except.is_empty() || known.keys.insert(key.clone(), rule).is_some()
                {
                    return Err(bad());
                }
            }
        }
        Ok(sets)
    }

    /// What a row takes: its plain keys, and its sets.
    pub(super) fn keys<'k>(
        &self,
        plain: impl IntoIterator<Item = &'k String>,
        sets: &[String],
    ) -> Result<Keys, String> {
        let mut all = Known::default();
        for key in plain {
            all.keys.insert(key.clone(), Rule::PLAIN);
        }
        for set in sets {
            let found = self.0.get(set).ok_or_else(|| format!("there is no set of parameters {set:?}"))?;
            for (key, rule) in &found.keys {
                if all.keys.insert(key.clone(), rule.clone()).is_some() {
                    return Err(format!("{key:?} comes twice"));
                }
            }
            all.ways.extend(found.ways.iter().cloned());
        }
        Ok(Keys::Known(all))
    }
}

impl Keys {
    /// Whether a parameter names the machines of the operation.
    pub(super) fn name_machines(&self) -> bool {
        let Self::Known(all) = self else { return false };
        all.keys.values().chain(all.ways.iter().map(|(_, rule)| rule)).any(|r| r.usage == Usage::Machines)
    }

    fn find(&self, key: &str) -> Option<&Rule> {
        let Self::Known(all) = self else { return None };
        let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let numbered = (1..=3).contains(&(key.len() - stem.len())).then(|| all.keys.get(&format!("{stem}#")));
        all.keys.get(key).filter(|_| !key.contains('#')).or(numbered.flatten())
    }

    /// Reads one parameter; the error is for the person.
    pub(super) fn read(
        &self,
        place: Place<'_>,
        key: &str,
        values: &[String],
        found: &mut Found,
    ) -> Result<(), Cow<'static, str>> {
        if matches!(self, Self::Any) {
            return Ok(());
        }
        let rule = self.find(key).ok_or_else(|| unknown(key))?;
        self.follow(rule, place, key, values, found)
    }

    /// Reads one value of a nested body. Every rule that speaks of it counts, so that a wide pattern takes nothing from
    /// a narrow one.
    pub(super) fn read_leaf(&self, place: Place<'_>, leaf: &Leaf, found: &mut Found) -> Result<(), Cow<'static, str>> {
        let Self::Known(all) = self else { return Ok(()) };
        let mut is_known = false;
        let speaks =
            |(pattern, rule): &&(Pattern, Rule)| pattern.fits(leaf) && !rule.except.iter().any(|p| p.fits(leaf));
        for (_, rule) in all.ways.iter().filter(speaks) {
            is_known = true;
            if !rule.unless.iter().any(|u| leaf.is(u)) {
                self.follow(rule, place, &leaf.shown(), &[leaf.text().to_owned()], found)?;
            }
        }
        if is_known { Ok(()) } else { Err(unknown_way(&leaf.shown())) }
    }

    fn follow(
        &self,
        rule: &Rule,
        place: Place<'_>,
        key: &str,
        values: &[String],
        found: &mut Found,
    ) -> Result<(), Cow<'static, str>> {
        let named = |text: &str| (place.machine)(text).ok_or_else(|| no_machine(key));
        match rule.usage {
            Usage::Plain => {}
            Usage::Words => {
                let is_one = |word: &&str| rule.words.iter().any(|r| is_word(word, r));
                let odd = values.iter().flat_map(|v| v.split(',')).find(|w| !is_one(w));
                if let Some(odd) = odd {
                    let (key, odd) = (shown(key), shown(odd));
                    return Err(
                        format!("The gateway does not know {odd:?} in {key:?} here, so it is not passed on.").into()
                    );
                }
            }
            Usage::Image => {
                if values.iter().all(|value| is_image(value)) {
                    return Ok(());
                }
            }
            Usage::Refuse => return Err(rule.reason.clone().into()),
            Usage::Machine => {
                let [value] = values else { return Err(no_machine(key)) };
                let machine = named(value)?;
                let at = MachineRef { hypervisor: place.hypervisor.clone(), machine };
                let action = rule.action.unwrap_or(place.action);
                return push(found, action, Resource::Machine(at));
            }
            Usage::Machines => {
                let split = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
                for text in values.iter().flat_map(|v| v.split(split)).filter(|t| !t.is_empty()) {
                    found.machines.push(named(text)?);
                    if found.machines.len() > MAX_MACHINES {
                        return Err(format!("That names more than {MAX_MACHINES} machines at once.").into());
                    }
                }
                return Ok(());
            }
            Usage::Volume => {
                for value in values {
                    for text in volume::machines(value)? {
                        let machine = named(text)?;
                        if place.own != Some(&machine) {
                            let at = MachineRef { hypervisor: place.hypervisor.clone(), machine };
                            push(found, Action::Storage, Resource::Machine(at))?;
                        }
                    }
                }
            }
            Usage::Keys => {
                let split = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
                for text in values.iter().flat_map(|v| v.split(split)).filter(|t| !t.is_empty()) {
                    let named = self.find(text).ok_or_else(|| unknown(text))?;
                    if named.usage == Usage::Refuse {
                        return Err(named.reason.clone().into());
                    }
                    if let Some(action) = named.action {
                        ask(place, action, found)?;
                    }
                }
            }
        }
        let place = if rule.of == Of::Hypervisor { Place { own: None, ..place } } else { place };
        rule.action.map_or(Ok(()), |action| ask(place, action, found))
    }
}

/// Asks an action of the path's machine, or of the hypervisor where it cannot be asked of a machine.
pub(super) fn ask(place: Place<'_>, action: Action, found: &mut Found) -> Result<(), Cow<'static, str>> {
    let resource = match place.own {
        Some(own) if Kind::Machine.answers(action) => {
            Resource::Machine(MachineRef { hypervisor: place.hypervisor.clone(), machine: own.clone() })
        }
        _ if Kind::Hypervisor.answers(action) => Resource::Hypervisor(place.hypervisor.clone()),
        _ => return Err("What this parameter asks cannot be asked here.".into()),
    };
    push(found, action, resource)
}

fn push(found: &mut Found, action: Action, resource: Resource) -> Result<(), Cow<'static, str>> {
    let operation = Operation { action, resource, effect: Effect::Unsafe };
    if !found.also.contains(&operation) {
        found.also.push(operation);
    }
    if found.also.len() > MAX_MACHINES { Err("That names too much at once.".into()) } else { Ok(()) }
}

fn no_machine(key: &str) -> Cow<'static, str> {
    format!("{} names no machine by its id.", shown(key)).into()
}

fn unknown_way(way: &str) -> Cow<'static, str> {
    format!("The gateway does not know {:?} in this body, so it is not passed on.", shown(way)).into()
}

fn unknown(key: &str) -> Cow<'static, str> {
    format!("The gateway does not know the query key {:?} here, so it is not passed on.", shown(key)).into()
}

fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Whether a text is one of a table's words, whose `*` at the end is a name: letters, digits, `.`, `-` and `_`.
fn is_word(text: &str, word: &str) -> bool {
    let Some(before) = word.strip_suffix('*') else { return text == word };
    let is_name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    text.strip_prefix(before).is_some_and(is_name)
}

/// Whether a path in a datastore is an image of a disc by its name.
fn is_image(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("iso"))
}

/// Whether a text is the number of a machine, written in the one way: 100 to 999999999.
pub(crate) fn is_number(text: &str) -> bool {
    (3..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}
