// SPDX-License-Identifier: Apache-2.0
//! What the parameters of a request ask beside its path: the machines that they name, and what else must be allowed.
//! A parameter that no set of the row knows is denied.

use super::volume;
use crate::Kind;
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

/// Most machines that one request may name.
const MAX_MACHINES: usize = 500;

/// Some keys of a set, as the file writes them. `net#` is `net0`, `net1`, and so on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamRow {
    set: String,
    keys: Vec<String>,
    #[serde(rename = "use", default)]
    usage: Usage,
    /// Asked as well, of the machine of the path or else of the hypervisor.
    action: Option<String>,
    /// Why it is refused.
    reason: Option<String>,
}

/// What a value says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Usage {
    /// Nothing that must be decided.
    #[default]
    Plain,
    /// The number of one machine: the action is asked of it.
    Machine,
    /// The numbers of the machines that the whole operation is done to.
    Machines,
    /// A volume: `storage` is asked of every other machine that it names.
    Volume,
    /// Names of other keys, which are taken back.
    Keys,
    /// Never passed on.
    Refuse,
}

/// One key's meaning.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    usage: Usage,
    action: Option<Action>,
    reason: String,
}

/// The sets of a table.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<String, BTreeMap<String, Rule>>);

/// What the parameters of a row may be.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// These.
    Known(BTreeMap<String, Rule>),
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
}

impl Sets {
    pub(super) fn read(rows: Vec<ParamRow>) -> Result<Self, String> {
        let mut sets = Self::default();
        for row in rows {
            let ParamRow { set, keys, usage, action, reason } = row;
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
            let known = sets.0.entry(set.clone()).or_default();
            for key in keys {
                let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_#".contains(&b));
                let rule = Rule { usage, action, reason: reason.clone().unwrap_or_default() };
                if !is_key || known.insert(key.clone(), rule).is_some() {
                    return Err(format!("parameters {set}: {key:?} is no key, or comes twice"));
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
        let mut all = BTreeMap::new();
        for key in plain {
            all.insert(key.clone(), Rule { usage: Usage::Plain, action: None, reason: String::new() });
        }
        for set in sets {
            let found = self.0.get(set).ok_or_else(|| format!("there is no set of parameters {set:?}"))?;
            for (key, rule) in found {
                if all.insert(key.clone(), rule.clone()).is_some() {
                    return Err(format!("{key:?} comes twice"));
                }
            }
        }
        Ok(Keys::Known(all))
    }
}

impl Keys {
    /// Whether a parameter names the machines of the operation.
    pub(super) fn name_machines(&self) -> bool {
        matches!(self, Self::Known(all) if all.values().any(|r| r.usage == Usage::Machines))
    }

    fn find(&self, key: &str) -> Option<&Rule> {
        let Self::Known(all) = self else { return None };
        let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let numbered = (1..=3).contains(&(key.len() - stem.len())).then(|| all.get(&format!("{stem}#")));
        all.get(key).filter(|_| !key.contains('#')).or(numbered.flatten())
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
        match rule.usage {
            Usage::Plain => {}
            Usage::Refuse => return Err(rule.reason.clone().into()),
            Usage::Machine => {
                let [value] = values else { return Err(no_machine(key)) };
                let machine = number(key, value)?;
                let at = MachineRef { hypervisor: place.hypervisor.clone(), machine };
                let action = rule.action.unwrap_or(place.action);
                return push(found, action, Resource::Machine(at));
            }
            Usage::Machines => {
                let split = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
                for text in values.iter().flat_map(|v| v.split(split)).filter(|t| !t.is_empty()) {
                    found.machines.push(number(key, text)?);
                    if found.machines.len() > MAX_MACHINES {
                        return Err(format!("That names more than {MAX_MACHINES} machines at once.").into());
                    }
                }
                return Ok(());
            }
            Usage::Volume => {
                for value in values {
                    for text in volume::machines(value)? {
                        let machine = number(key, text)?;
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
        rule.action.map_or(Ok(()), |action| ask(place, action, found))
    }
}

/// Asks an action of the path's machine, or of the hypervisor where it cannot be asked of a machine.
fn ask(place: Place<'_>, action: Action, found: &mut Found) -> Result<(), Cow<'static, str>> {
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

fn number(key: &str, text: &str) -> Result<MachineId, Cow<'static, str>> {
    Some(text).filter(|t| is_number(t)).and_then(|t| t.parse().ok()).ok_or_else(|| no_machine(key))
}

fn no_machine(key: &str) -> Cow<'static, str> {
    format!("{} names no machine by its number.", shown(key)).into()
}

fn unknown(key: &str) -> Cow<'static, str> {
    format!("The gateway does not know the query key {:?} here, so it is not passed on.", shown(key)).into()
}

fn shown(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Whether a text is the number of a machine, written in the one way: 100 to 999999999.
pub(crate) fn is_number(text: &str) -> bool {
    (3..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}
