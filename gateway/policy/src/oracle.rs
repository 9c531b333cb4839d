// SPDX-License-Identifier: Apache-2.0
//! Casbin itself, reading the same rules: what the index is held against. The only file that knows the crate.
//!
//! Casbin interprets every row on every call and has faults that matter on the path of requests (it panics on some
//! texts, cuts long chains of roles, keeps two role graphs in one). So it decides nothing here: [`crate::Engine::check`]
//! compares what the roles of a file mean with what Casbin says they mean, and tests compare decisions by the million.

use crate::{
    Error, Kind, MODEL,
    rights::questions,
    rules::Rules,
    set::{Given, Set},
};
use casbin::{CoreApi as _, DefaultModel, Enforcer, MgmtApi as _, function_map::OperatorFunction, rhai::Dynamic};
use portcullis_domain::{Action, GrantEffect, MachineKind, OwnObject, micros};
use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
};
use time::OffsetDateTime;

/// Longest chain of roles that Casbin follows whatever the order of rows.
const FOLLOWED: usize = 8;

/// What Casbin said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow,
    Deny,
    /// It failed or panicked.
    Fault,
}

/// Casbin with one set of rules.
pub(crate) struct Oracle(Enforcer);

/// What is asked about, as Casbin's third argument: one fact a line, because no name holds a line's end.
#[cfg(test)]
pub(crate) fn facts_of_machine(machine: &portcullis_domain::Machine) -> String {
    let kind = match machine.kind {
        MachineKind::Guest => "guest",
        MachineKind::Container => "container",
        MachineKind::Template => "template",
    };
    let pool = machine.pool.as_deref().unwrap_or("");
    let facts = format!("machine\n{}\n{}\n{kind}\n{pool}", machine.at.hypervisor, machine.at.machine);
    machine.tags.iter().fold(facts, |facts, tag| facts + "\n" + tag.as_str())
}

/// The same for a hypervisor.
pub(crate) fn facts_of_hypervisor(name: &str) -> String {
    format!("hypervisor\n{name}")
}

/// The same for one of the gateway's own things.
pub(crate) fn facts_of_own(object: OwnObject) -> String {
    format!("own\n{object}", object = object.word())
}

/// When, from where and with what, as Casbin's fourth argument.
pub(crate) fn moment(now: OffsetDateTime, from: Option<IpAddr>, passkey: bool) -> String {
    let from = from.map(|ip| ip.to_string()).unwrap_or_default();
    format!("{}\n{from}\n{}", micros(now), if passkey { "passkey" } else { "" })
}

/// Whether the column `on` of a grant covers what is asked about.
fn covers(on: &str, facts: &str) -> bool {
    let facts: Vec<&str> = facts.split('\n').collect();
    let (kind, value) = on.split_once(':').unwrap_or((on, ""));
    match (kind, facts.as_slice()) {
        ("everything", _) => value.is_empty(),
        ("hypervisor", ["hypervisor", own] | ["machine", own, ..]) => value == *own,
        ("pool", ["machine", hypervisor, _, _, pool, ..]) => {
            !pool.is_empty() && value == format!("{hypervisor}/{pool}")
        }
        ("tag", ["machine", _, _, _, _, tags @ ..]) => tags.contains(&value),
        ("machine", ["machine", hypervisor, id, ..]) => value == format!("{hypervisor}/{id}"),
        ("pattern", ["machine", hypervisor, id, _, pool, ..]) => {
            let same = |pattern: &str, name: &str| pattern == "*" || (!name.is_empty() && pattern == name);
            value
                .split_once('/')
                .and_then(|(h, rest)| Some((h, rest.rsplit_once('/')?)))
                .is_some_and(|(h, (p, m))| same(h, hypervisor) && same(p, pool) && same(m, id))
        }
        _ => false,
    }
}

/// Whether the times and conditions of a grant hold. What cannot be told gives nothing and forbids.
fn holds(when: &str, effect: &str, facts: &str, at: &str) -> Option<bool> {
    let given = Given::read("any", "everything", when, effect).ok()?;
    let forbids = given.effect == GrantEffect::Deny;
    let mut at = at.split('\n');
    let (now, from, passkey) = (at.next()?.parse::<i64>().ok()?, at.next()?, at.next()?);
    let (conditions, instant) =
        (&given.conditions, OffsetDateTime::from_unix_timestamp_nanos(i128::from(now) * 1000).ok()?);
    if given.from.is_some_and(|t| instant < t) || given.until.is_some_and(|t| t <= instant) {
        return Some(false);
    }
    let mut facts = facts.split('\n');
    let kind = if facts.next() == Some("machine") { facts.nth(2) } else { None };
    let word = |k: &MachineKind| match k {
        MachineKind::Guest => "guest",
        MachineKind::Container => "container",
        MachineKind::Template => "template",
    };
    if !conditions.kinds.is_empty() && !conditions.kinds.iter().any(|k| kind == Some(word(k))) {
        return Some(false);
    }
    if let Some(hours) = &conditions.hours {
        let local =
            jiff::tz::TimeZone::get(hours.zone()).ok()?.to_datetime(jiff::Timestamp::from_microsecond(now).ok()?);
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).ok()?;
        if !hours.contain(u8::try_from(local.weekday().to_monday_zero_offset()).ok()?, minute) {
            return Some(false);
        }
    }
    if !conditions.networks.is_empty() {
        let inside = match from.parse::<IpAddr>() {
            Ok(address) => conditions.networks.iter().any(|n| n.contains(address)),
            Err(_) => forbids,
        };
        if !inside {
            return Some(false);
        }
    }
    Some(forbids || !conditions.passkey || passkey == "passkey")
}

fn text(value: &Dynamic) -> String {
    casbin::function_map::dynamic_to_str(value).to_string()
}

impl Oracle {
    /// Casbin with the model that comes with the gateway, and these rules.
    pub(crate) async fn new(set: &Set) -> Result<Self, Error> {
        let model = DefaultModel::from_str(MODEL).await.map_err(Error::Casbin)?;
        let mut enforcer = Enforcer::new(model, ()).await.map_err(Error::Casbin)?;
        enforcer.add_function("covers", OperatorFunction::Arg2(|on, facts| covers(&text(&on), &text(&facts)).into()));
        enforcer.add_function(
            "holds",
            OperatorFunction::Arg4(|when, effect, facts, at| {
                let (when, effect, facts, at) = (text(&when), text(&effect), text(&facts), text(&at));
                holds(&when, &effect, &facts, &at).unwrap_or(effect == "deny").into()
            }),
        );
        let rights = set.rights.iter().map(|r| vec![format!("{}/{}", r.kind, r.action), r.role.to_string()]);
        let includes = set.includes.iter().map(|i| vec![i.included.to_string(), i.role.to_string()]);
        let members =
            set.members.iter().map(|m| vec![format!("person:{}", m.person), format!("group:{}", m.group)]).collect();
        let grants = set.grants.iter().map(|g| {
            let [role, on, when, effect] = g.given.columns();
            vec![g.who.to_string(), role, on, when, effect]
        });
        // All or nothing: false means that some row was there before, and then none was added.
        let twice = || Error::Set("two rows are the same".to_owned());
        let roles: Vec<_> = rights.chain(includes).collect();
        if !enforcer.add_named_grouping_policies("g2", roles).await.map_err(Error::Casbin)?
            || !enforcer.add_named_grouping_policies("g", members).await.map_err(Error::Casbin)?
            || !enforcer.add_policies(grants.collect()).await.map_err(Error::Casbin)?
        {
            return Err(twice());
        }
        Ok(Self(enforcer))
    }

    /// Casbin's answer. It and its script engine may panic; nothing of ours is left half-done by that.
    pub(crate) fn ask(&self, who: &str, kind: Kind, action: Action, facts: &str, at: &str) -> Answer {
        let right = format!("{kind}/{action}");
        match catch_unwind(AssertUnwindSafe(|| self.0.enforce((who, right.as_str(), facts, at)))) {
            Ok(Ok(true)) => Answer::Allow,
            Ok(Ok(false)) => Answer::Deny,
            Ok(Err(error)) => {
                tracing::error!(%error, %kind, %action, "Casbin could not evaluate the policy");
                Answer::Fault
            }
            Err(_) => {
                tracing::error!(%kind, %action, "Casbin panicked");
                Answer::Fault
            }
        }
    }

    /// Where Casbin reads the roles of a set differently; chains that it does not follow to their end are left out.
    pub(crate) async fn differences(set: &Set, rules: &Rules) -> Result<Vec<String>, Error> {
        let roles_only = Set { grants: Vec::new(), members: Vec::new(), ..set.clone() };
        let mut oracle = Self::new(&roles_only).await?;
        let at = moment(OffsetDateTime::UNIX_EPOCH, None, false);
        let mut found = Vec::new();
        for (_, role) in rules.roles().filter(|(i, _)| rules.depth(*i) <= FOLLOWED) {
            let row: Vec<String> =
                ["person:any", role.name.as_str(), "everything", "", "allow"].map(str::to_owned).into();
            oracle.0.add_policy(row.clone()).await.map_err(Error::Casbin)?;
            for (kind, action) in questions() {
                let facts = match kind {
                    Kind::Machine => "machine\nany\nany\nguest\n".to_owned(),
                    Kind::Hypervisor => facts_of_hypervisor("any"),
                    Kind::Own(object) => facts_of_own(object),
                };
                let ours = if role.rights.allow(kind, action) { Answer::Allow } else { Answer::Deny };
                if oracle.ask("person:any", kind, action, &facts, &at) != ours {
                    found.push(format!("Casbin reads {kind}/{action} of {} differently", role.name));
                }
            }
            oracle.0.remove_policy(row).await.map_err(Error::Casbin)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn casbin_reads_the_roles_that_come_with_the_gateway_as_we_do() {
        let set = Set::read(crate::RULES).unwrap();
        let rules = Rules::of(&set).unwrap();
        assert_eq!(Oracle::differences(&set, &rules).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_panic_or_an_error_of_casbin_is_no_permission() {
        let set = Set::read(crate::RULES).unwrap();
        let oracle = Oracle::new(&set).await.unwrap();
        for (who, facts, at) in
            [("é*", "é", "é"), ("", "", ""), ("person:x", "machine", "\n\n"), ("g2(", "machine\n", "1\n\n")]
        {
            assert_ne!(oracle.ask(who, Kind::Machine, Action::View, facts, at), Answer::Allow, "{who}");
        }
    }

    #[test]
    fn what_cannot_be_told_gives_nothing_and_forbids() {
        for (when, allow, deny) in [
            ("from=10.0.0.0/8", false, true),
            ("passkey", false, true),
            ("", true, true),
            ("until=1970-01-01T00:00Z", false, false),
        ] {
            assert_eq!(holds(when, "allow", "own\nx", "1\n\n"), Some(allow), "{when}");
            assert_eq!(holds(when, "deny", "own\nx", "1\n\n"), Some(deny), "{when}");
        }
    }
}
