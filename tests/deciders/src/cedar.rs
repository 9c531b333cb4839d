// SPDX-License-Identifier: Apache-2.0
//! Cedar: one policy a grant, and the hierarchies as entities.
//!
//! | of a grant | in Cedar |
//! |---|---|
//! | who | `principal == Person::…`, or `principal in Group::…`: a person's entity lies in those of their groups |
//! | role | `action in Action::"role"`: a right lies in the roles that hold it, a role in those that include it |
//! | hypervisor, pool, tag | `resource in …`: a machine lies in its pool, that one in its hypervisor, and in its tags |
//! | machine | `resource == Machine::…` |
//! | pattern | `resource in` for its hypervisor and for its pool of whatever hypervisor, `resource.id` for its machine |
//! | deny | `forbid`, which wins in Cedar too |
//! | since, until, from, kinds, passkey | `when`, with `context` and the machine's kind; a passkey is not asked of a `forbid` |
//!
//! Nothing decides by more than this, so every answer is held against ours. Not expressed, as no grant here has it: hours
//! in a time zone, and an address that is not known. Whatever else stands in a condition is asked after the decision,
//! with us as well (step-up, recording), or ends the run. Requests are made beforehand, and no schema is checked.

use crate::{Ask, World, say, time_of};
use anyhow::{Context as _, Result, bail};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, Policy, PolicyId, PolicySet, Request,
    RestrictedExpression as Value,
};
use std::collections::{HashMap, HashSet};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The kind of every machine of this world.
const KIND: &str = "guest";

/// A text as Cedar writes it. The names of this world are plain.
fn quoted(kind: &str, name: &str) -> String {
    format!("{kind}::{name:?}")
}

fn uid(kind: &str, name: &str) -> Result<EntityUid> {
    Ok(quoted(kind, name).parse()?)
}

/// `person:ann` as an entity.
fn holder(who: &str) -> Result<(&'static str, &str)> {
    match who.split_once(':') {
        Some(("person", name)) => Ok(("Person", name)),
        Some(("group", name)) => Ok(("Group", name)),
        _ => bail!("{who}: neither a person nor a group"),
    }
}

/// What a selector asks of the resource: first what stands in the policy's head, where anything does.
fn places(on: &str) -> Result<Vec<String>> {
    let (kind, value) = on.split_once(':').unwrap_or((on, ""));
    let inside = |kind: &str, name: &str| format!("resource in {}", quoted(kind, name));
    Ok(match kind {
        "everything" => Vec::new(),
        "hypervisor" => vec![inside("Hypervisor", value)],
        "pool" => vec![inside("Pool", value)],
        "tag" => vec![inside("Tag", value)],
        "machine" => vec![format!("resource == {}", quoted("Machine", value))],
        "pattern" => {
            let (hypervisor, rest) = value.split_once('/').context("a pattern")?;
            let (pool, machine) = rest.rsplit_once('/').context("a pattern")?;
            let mut all = Vec::new();
            all.extend((hypervisor != "*").then(|| inside("Hypervisor", hypervisor)));
            all.extend((pool != "*").then(|| inside("PoolAnywhere", pool)));
            all.extend((machine != "*").then(|| format!("resource.id == {machine:?}")));
            all
        }
        _ => bail!("{on}: no selector that is known here"),
    })
}

fn seconds(instant: &str) -> Result<i64> {
    // As the gateway writes it: without seconds where there are none.
    let full =
        if instant.len() == "2026-11-27T12:00Z".len() { instant.replace('Z', ":00Z") } else { instant.to_owned() };
    Ok(OffsetDateTime::parse(&full, &Rfc3339)?.unix_timestamp())
}

/// What the times and conditions of a grant ask.
fn conditions(when: &str, forbids: bool) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for one in when.split(';').filter(|w| !w.is_empty()) {
        match one.split_once('=').unwrap_or((one, "")) {
            ("since", at) => all.push(format!("context.now >= {}", seconds(at)?)),
            ("until", at) => all.push(format!("context.now < {}", seconds(at)?)),
            ("from", networks) => {
                let any: Vec<_> = networks.split(',').map(|n| format!("context.from.isInRange(ip({n:?}))")).collect();
                all.push(format!("({})", any.join(" || ")));
            }
            ("kinds", kinds) => {
                let any: Vec<_> = kinds.split(',').map(|k| format!("resource.kind == {k:?}")).collect();
                all.push(format!("({})", any.join(" || ")));
            }
            ("passkey", _) if forbids => {}
            ("passkey", _) => all.push("context.passkey".to_owned()),
            ("unrecorded" | "record" | "step-up" | "step-up-each", _) => {}
            // The number that makes each of Casbin's rows another one.
            (number, "") if number.bytes().all(|b| b.is_ascii_digit()) => {}
            _ => bail!("{one}: a condition that is not expressed here"),
        }
    }
    Ok(all)
}

/// One grant as a policy.
fn policy([who, role, on, when, effect]: &[String; 5]) -> Result<String> {
    let forbids = effect == "deny";
    let (kind, name) = holder(who)?;
    let principal = format!("principal {} {}", if kind == "Person" { "==" } else { "in" }, quoted(kind, name));
    let mut asked = places(on)?;
    // An attribute cannot stand in the head.
    let resource = match asked.first() {
        Some(first) if !first.starts_with("resource.") => asked.remove(0),
        _ => "resource".to_owned(),
    };
    asked.extend(conditions(when, forbids)?);
    let when = if asked.is_empty() { String::new() } else { format!(" when {{ {} }}", asked.join(" && ")) };
    let verb = if forbids { "forbid" } else { "permit" };
    Ok(format!("{verb}({principal}, action in {}, {resource}){when};", quoted("Action", role)))
}

/// People in groups, rights in roles, machines in pools, hypervisors and tags.
fn entities(world: &World) -> Result<Entities> {
    let mut parents: HashMap<EntityUid, HashSet<EntityUid>> = HashMap::new();
    for [person, group] in &world.members {
        let ((kind, name), (outer, group)) = (holder(person)?, holder(group)?);
        parents.entry(uid(kind, name)?).or_default().insert(uid(outer, group)?);
    }
    for [held, role] in &world.roles {
        parents.entry(uid("Action", held)?).or_default().insert(uid("Action", role)?);
    }
    let mut all = Vec::new();
    for machine in &world.machines {
        let hypervisor = uid("Hypervisor", &machine.hypervisor)?;
        let mut inside: HashSet<EntityUid> = machine.tags.iter().map(|tag| uid("Tag", tag)).collect::<Result<_>>()?;
        if let Some(pool) = &machine.pool {
            let own = uid("Pool", &format!("{}/{pool}", machine.hypervisor))?;
            parents.entry(own.clone()).or_default().insert(hypervisor.clone());
            inside.extend([own, uid("PoolAnywhere", pool)?]);
        }
        inside.insert(hypervisor);
        let facts = [("id", machine.id.as_str()), ("kind", KIND)];
        let facts = facts.map(|(name, value)| (name.to_owned(), Value::new_string(value.to_owned())));
        let name = format!("{}/{}", machine.hypervisor, machine.id);
        all.push(Entity::new(uid("Machine", &name)?, facts.into(), inside)?);
    }
    all.extend(parents.into_iter().map(|(own, above)| Entity::new_no_attrs(own, above)));
    Ok(Entities::from_entities(all, None)?)
}

fn request(world: &World, ask: &Ask) -> Result<Request> {
    let machine = world.machine(ask)?;
    let context = Context::from_pairs([
        ("now".to_owned(), Value::new_long(world.now)),
        ("from".to_owned(), Value::new_ip(&world.from)),
        ("passkey".to_owned(), Value::new_bool(world.passkey)),
    ])?;
    let (kind, name) = holder(&ask.who)?;
    let (who, action) = (uid(kind, name)?, uid("Action", &ask.right)?);
    let on = uid("Machine", &format!("{}/{}", machine.hypervisor, machine.id))?;
    Ok(Request::new(who, action, on, context, None)?)
}

pub fn measure(rules: usize, world: &World, seconds: f64) -> Result<()> {
    let entities = entities(world)?;
    let mut policies = PolicySet::new();
    for (n, grant) in world.grants.iter().enumerate() {
        let text = policy(grant)?;
        policies.add(Policy::parse(Some(PolicyId::new(n.to_string())), &text).with_context(|| text.clone())?)?;
    }
    let authorizer = Authorizer::new();
    for allowed in [true, false] {
        let wanted = if allowed { Decision::Allow } else { Decision::Deny };
        let requests: Vec<Request> = world.asks(allowed).map(|a| request(world, a)).collect::<Result<_>>()?;
        let time = time_of(&requests, seconds, |request| {
            let answer = authorizer.is_authorized(request, &policies, &entities);
            if answer.decision() != wanted || answer.diagnostics().errors().next().is_some() {
                bail!("Cedar answers {:?} and not {wanted:?}: {request}", answer);
            }
            Ok(())
        })?;
        say(rules, if allowed { "cedar, allowed" } else { "cedar, denied" }, time);
    }
    Ok(())
}
