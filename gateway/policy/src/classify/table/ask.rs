// SPDX-License-Identifier: Apache-2.0
//! What one request asks beside its path: which of a path's rows it chooses, its parameters, and its task.

use super::{
    Ask, Inner, Leaf,
    file::{Bodies, BodyRule, MachineNaming, Shape, UpgradeRule},
};
use crate::classify::{
    Asked, Body, Task, Verdict,
    params::{self, Found, Place, is_number},
    query::Query,
};
use portcullis_domain::{HypervisorName, MachineId, MachineRef, Operation, Resource};
use std::borrow::Cow;

impl MachineNaming {
    /// The machine's id: `project:name`, or its number. Neither part may hold a `:`, or two pairs could make one id.
    pub(super) fn id(&self, name: &str, within: Option<&str>) -> Result<MachineId, Cow<'static, str>> {
        let wrong = || Cow::from("That is no name of a machine.");
        let Self { within: key, inside, default, shape, always, .. } = self;
        if let Some(always) = always {
            return always.parse().map_err(|_| wrong());
        }
        let is_shaped = |text: &str| match shape {
            Shape::Text => true,
            Shape::Number => is_number(text),
            Shape::Dns => text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')),
        };
        if name.is_empty() || name.contains(':') || !is_shaped(name) {
            return Err(wrong());
        }
        if key.is_none() && inside.is_none() {
            return name.parse().map_err(|_| wrong());
        }
        let within = within.filter(|w| !w.is_empty()).unwrap_or(default);
        if within.contains(':') || within.is_empty() || inside.is_some() && !is_shaped(within) {
            return Err(wrong());
        }
        format!("{within}:{name}").parse().map_err(|_| wrong())
    }
}

impl Leaf {
    /// Whether the row is the one for a request, as far as it was read.
    pub(super) fn fits(&self, asked: &Asked<'_>, query: &Query) -> bool {
        let by_head = self.method == asked.method && self.when.iter().all(|(k, v)| query.value(k) == Some(v.as_str()));
        let by_body = || match asked.body {
            // Whoever asks reads it first, and asks again.
            Body::Unread => true,
            Body::Json(json) => {
                let is_only = self.only.as_ref().is_none_or(|key| json.only_key() == Some(key));
                is_only && self.says.iter().all(|(at, v)| json.value(at) == Some(v.as_str()))
            }
            Body::Params(_) => !self.is_chosen_by_body(),
        };
        by_head && by_body()
    }

    /// Whether the body decides if the row is meant.
    pub(super) fn is_chosen_by_body(&self) -> bool {
        self.only.is_some() || !self.says.is_empty()
    }
}

impl Inner {
    /// What the parameters ask; none when they stand in a body that was not read yet.
    pub(super) fn params(
        &self,
        ask: &Ask,
        place: Place<'_>,
        query: &Query,
        asked: &Asked<'_>,
    ) -> Result<Option<Found>, Cow<'static, str>> {
        let mut found = Found::default();
        for action in &ask.also {
            params::ask(place, *action, &mut found)?;
        }
        for (key, value) in query.pairs() {
            ask.keys.read(place, key, &[value.to_owned()], &mut found)?;
        }
        let reads = matches!(asked.method, "GET" | "HEAD");
        let kind = match ask.body {
            BodyRule::Json => Bodies::Json,
            BodyRule::Usual | BodyRule::Stream => self.bodies,
        };
        match (kind, ask.body == BodyRule::Stream, asked.body) {
            (Bodies::Params | Bodies::Json | Bodies::Tree, _, _) if reads => {}
            (Bodies::Opaque, _, _) | (Bodies::Json | Bodies::Tree, true, _) => {}
            (Bodies::Params, true, _) => {
                // A server that puts the query's values over the body's would take them.
                if query.pairs().next().is_some() {
                    return Err("Parameters stand in the body here, not in the query.".into());
                }
            }
            (Bodies::Params | Bodies::Json | Bodies::Tree, false, Body::Unread) => return Ok(None),
            (Bodies::Json | Bodies::Tree, false, Body::Json(json)) => {
                for leaf in json.leaves() {
                    ask.keys.read_leaf(place, leaf, &mut found)?;
                }
            }
            (Bodies::Params, false, Body::Json(_)) | (Bodies::Json | Bodies::Tree, false, Body::Params(_)) => {
                return Err("The body was read as another kind than this API has.".into());
            }
            (Bodies::Params, false, Body::Params(form)) => {
                if !form.is_empty() && query.pairs().next().is_some() {
                    return Err("Parameters stand in the query and in the body: put all of them in one place.".into());
                }
                for (key, values) in form.pairs() {
                    ask.keys.read(place, key, values, &mut found)?;
                }
            }
        }
        Ok(Some(found))
    }

    pub(super) fn task(
        &self,
        hypervisor: &HypervisorName,
        ask: &Ask,
        id: &str,
        query: &Query,
    ) -> Result<Verdict, Cow<'static, str>> {
        let wrong = || "That is no id of a task.";
        let &Ask { action, effect, answer, .. } = ask;
        if let Some(inside) = &self.task.inside {
            let parts: Vec<&str> = id.split(':').collect();
            if id.len() > 256 || parts.len() != inside.parts || parts.first().copied() != Some(&inside.begins) {
                return Err(wrong().into());
            }
            let machine = parts.get(inside.machine).copied().filter(|m| is_number(m));
            let (action, resource) = match machine {
                Some(m) => {
                    let machine = m.parse().map_err(|_| wrong())?;
                    (action, Resource::Machine(MachineRef { hypervisor: hypervisor.clone(), machine }))
                }
                None => (inside.otherwise.parse().map_err(|_| wrong())?, Resource::Hypervisor(hypervisor.clone())),
            };
            let about = Some(Operation { action, resource, effect });
            let task = Task {
                hypervisor: hypervisor.clone(),
                action: ask.action,
                effect,
                id: id.to_owned(),
                about,
                secret: None,
            };
            return Ok(Verdict::Task { task, answer });
        }
        let id = Some(id).filter(|id| is_task(id, &self.task.marks)).ok_or_else(wrong)?.to_owned();
        let secret = self.task.secret.as_ref().and_then(|s| query.value(s));
        let secret = secret.filter(|s| !s.is_empty()).map(str::to_owned);
        if ask.upgrade == UpgradeRule::Always && secret.is_none() {
            return Err("A stream of a task needs its secret.".into());
        }
        Ok(Verdict::Task {
            task: Task { hypervisor: hypervisor.clone(), action, effect, id, about: None, secret },
            answer,
        })
    }
}

fn is_task(id: &str, marks: &str) -> bool {
    let most = if marks.is_empty() { 64 } else { 256 };
    (1..=most).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || marks.contains(c))
}
