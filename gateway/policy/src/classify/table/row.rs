// SPDX-License-Identifier: Apache-2.0
//! What one row of a table says, if it says something sensible.

use super::{
    Ask, Inner, Meaning,
    file::{Object, Row, RowEffect, UpgradeRule},
};
use crate::{
    Kind,
    classify::{Answer, params::Keys},
};
use portcullis_domain::{Action, Effect};
use std::collections::BTreeMap;

impl Row {
    /// What the row says, if it says something sensible.
    pub(super) fn meaning(&self, inner: &Inner) -> Result<Meaning, String> {
        if let Some(reason) = &self.deny {
            let more = self.action.is_some() || self.object.is_some() || self.effect.is_some();
            return if more || reason.is_empty() {
                Err("a row with deny says why, and nothing else".to_owned())
            } else {
                Ok(Meaning::Deny(reason.clone()))
            };
        }
        let (Some(action), Some(object), Some(effect)) = (&self.action, self.object, self.effect) else {
            return Err("action, object and effect are needed".to_owned());
        };
        let action: Action = action.parse().map_err(|e| format!("{e}"))?;
        let kind = if object == Object::Hypervisor { Kind::Hypervisor } else { Kind::Machine };
        if !kind.answers(action) {
            return Err(format!("{action} cannot be asked of a {kind}"));
        }
        let effect = if effect == RowEffect::Safe { Effect::Safe } else { Effect::Unsafe };
        let answer = self.answer.unwrap_or(inner.answer);
        if self.upgrade == UpgradeRule::Always && answer != Answer::Events && effect == Effect::Safe {
            return Err("a stream both ways is not safe".to_owned());
        }
        if answer == Answer::Events && (self.upgrade == UpgradeRule::Never || object != Object::Visible) {
            return Err("events are a stream of what somebody may see".to_owned());
        }
        if answer == Answer::ConsoleSecrets && object != Object::Machine {
            return Err("secrets of streams belong to a machine".to_owned());
        }
        if object == Object::Visible && (action != Action::View || effect != Effect::Safe) {
            return Err("what somebody may see is a safe view".to_owned());
        }
        if matches!(answer, Answer::Rows | Answer::CleanRows) && object != Object::Visible {
            return Err("rows are left out for those who may see a part".to_owned());
        }
        let machine = self.machine.as_ref().map(|a| a.parse::<Action>()).transpose().map_err(|e| format!("{e}"))?;
        if machine.is_some_and(|a| object != Object::Hypervisor || !Kind::Machine.answers(a)) {
            return Err("what the machine of the path is asked goes with the hypervisor".to_owned());
        }
        let also: Vec<Action> =
            self.also.iter().map(|a| a.parse()).collect::<Result<_, _>>().map_err(|e| format!("{e}"))?;
        let is_asked =
            |a: &Action| Kind::Hypervisor.answers(*a) || object == Object::Machine && Kind::Machine.answers(*a);
        if !also.iter().all(is_asked) || !also.is_empty() && !matches!(object, Object::Machine | Object::Hypervisor) {
            return Err("what is asked as well cannot be asked here".to_owned());
        }
        let keys = self.keys(inner, object)?;
        if (object == Object::Machines) != keys.name_machines() {
            return Err("machines are named by a parameter, and by nothing else".to_owned());
        }
        let (body, upgrade) = (self.body, self.upgrade);
        Ok(Meaning::Ask(Ask { action, object, effect, machine, also, keys, body, answer, upgrade }))
    }

    fn keys(&self, inner: &Inner, object: Object) -> Result<Keys, String> {
        if self.query.iter().any(|k| k == "*") {
            let alone = self.query.len() == 1 && self.params.is_empty() && self.when.is_empty();
            // What is asked of one machine must not reach another one by a key that nobody looked at.
            return if alone && object == Object::Hypervisor && self.machine.is_none() {
                Ok(Keys::Any)
            } else {
                Err("any key goes only with the whole hypervisor".to_owned())
            };
        }
        let said = self.operations.iter().filter_map(|o| o.split_once('?')).flat_map(|(_, q)| q.split('&'));
        let said: Vec<String> = said.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect();
        inner.sets.keys(self.query.iter().chain(self.when.keys()).chain(&said).chain(&inner.everywhere), &self.params)
    }

    /// The path of one of its operations, and what the query has to say for it.
    pub(super) fn chosen<'o>(&self, target: &'o str) -> Result<(&'o str, BTreeMap<String, String>), String> {
        let Some((pattern, query)) = target.split_once('?') else { return Ok((target, self.when.clone())) };
        let mut when = self.when.clone();
        for pair in query.split('&') {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("{target:?}: {pair:?} is no key and value"))?;
            if when.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("{target:?}: {key} comes twice"));
            }
        }
        Ok((pattern, when))
    }
}

/// Whether a word that chooses an operation says that it only reads.
pub(super) fn is_reading(word: &str) -> bool {
    let first = word.split('-').next().unwrap_or_default();
    matches!(first, "get" | "list" | "find" | "fingerprint")
}
