// SPDX-License-Identifier: Apache-2.0
//! Tests of policies: this person, this operation, this verdict. They stand in `tests/*.toml` beside the rules and are
//! run on the files alone, without a store.

use portcullis_domain::{
    Action, Actor, Assurance, ConsoleKind, Effect, Factor, GrantChange, GrantId, GroupId, Holder, Inventory, Machine,
    MachineKind, MachineRef, Operation, OwnObject, PowerState, Resource, UserId, Via,
};
use portcullis_governance::Files;
use portcullis_policy::{Decision, Engine, Set, Who};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    test: Vec<Test>,
}

/// One question and its answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    /// `person:NAME`, or `group:NAME` for somebody who is in that group alone.
    who: String,
    action: String,
    /// `HYPERVISOR/MACHINE`, `HYPERVISOR`, or a thing of the gateway.
    on: String,
    pool: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    kind: Option<MachineKind>,
    from: Option<IpAddr>,
    /// An instant such as `2026-12-01T10:00:00Z`.
    at: String,
    #[serde(default)]
    passkey: bool,
    /// `permit`, `step-up` or `deny`.
    verdict: String,
}

/// What came of the tests.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) passed: usize,
    /// File, number and what was wrong.
    pub(crate) failed: Vec<String>,
}

/// People and groups get numbers of their own here: no store knows them.
#[derive(Default)]
struct Numbers(BTreeMap<String, u128>);

impl Numbers {
    fn of(&mut self, name: &str) -> Uuid {
        let next = self.0.len() as u128 + 1;
        Uuid::from_u128(*self.0.entry(name.to_owned()).or_insert(next))
    }

    fn person(&mut self, name: &str) -> UserId {
        UserId::new(self.of(&format!("person:{name}")))
    }

    fn group(&mut self, name: &str) -> GroupId {
        GroupId::new(self.of(&format!("group:{name}")))
    }
}

/// Runs every test of a set; the engine holds its roles.
pub(crate) fn run(engine: &Engine, set: &Set, files: &Files) -> Result<Told, portcullis_governance::Error> {
    let mut numbers = Numbers::default();
    let mut members: BTreeMap<GroupId, BTreeSet<UserId>> = BTreeMap::new();
    for row in &set.members {
        members.entry(numbers.group(&row.group)).or_default().insert(numbers.person(&row.person));
    }
    let mut told = Told::default();
    for (name, text) in files.0.iter().filter(|(name, _)| Path::new(name).extension().is_some_and(|e| e == "toml")) {
        let wrong = |why: String| portcullis_governance::Error::BadPolicy(format!("{name}: {why}"));
        let file: File = toml::from_str(text).map_err(|e| wrong(e.to_string().trim().to_owned()))?;
        for (number, test) in file.test.iter().enumerate() {
            let why = match holds(engine, set, &mut numbers, &members, test) {
                Ok(got) if got == test.verdict => None,
                Ok(got) => Some(format!("{} {} on {}: {got}, not {}", test.who, test.action, test.on, test.verdict)),
                Err(why) => Some(why),
            };
            match why {
                None => told.passed += 1,
                Some(why) => told.failed.push(format!("{name}: test {}: {why}", number + 1)),
            }
        }
    }
    Ok(told)
}

fn holds(
    engine: &Engine,
    set: &Set,
    numbers: &mut Numbers,
    members: &BTreeMap<GroupId, BTreeSet<UserId>>,
    test: &Test,
) -> Result<&'static str, String> {
    if !["permit", "step-up", "deny"].contains(&test.verdict.as_str()) {
        return Err(format!("{:?} is no verdict: use permit, step-up or deny", test.verdict));
    }
    let now = OffsetDateTime::parse(&test.at, &Rfc3339).map_err(|e| format!("at: {e}"))?;
    let action: Action = test.action.parse().map_err(|e| format!("{e}"))?;
    let mut members = members.clone();
    let user = match test.who.split_once(':') {
        Some(("person", name)) => numbers.person(name),
        Some(("group", name)) => {
            let user = UserId::new(Uuid::nil());
            members.entry(numbers.group(name)).or_default().insert(user);
            user
        }
        _ => return Err(format!("{:?} is neither person:NAME nor group:NAME", test.who)),
    };
    let grants = set.grants.iter().map(|row| {
        let holder: Holder = match &row.who {
            Who::Person(name) => numbers.person(name).into(),
            Who::Group(name) => numbers.group(name).into(),
        };
        // A row without a beginning has always counted.
        GrantChange::Put(holder, row.given.grant(GrantId::new(Uuid::now_v7()), OffsetDateTime::UNIX_EPOCH))
    });
    let grants: Vec<GrantChange> = grants.collect();
    let groups = members.into_iter().map(|(group, users)| GrantChange::Members(group, users.into_iter().collect()));
    engine.reset(grants.into_iter().chain(groups));
    let resource = match OwnObject::ALL.iter().find(|o| o.word() == test.on) {
        Some(own) => Resource::Own(*own),
        None if test.on.contains('/') => Resource::Machine(test.on.parse::<MachineRef>().map_err(|e| e.to_string())?),
        None => Resource::Hypervisor(test.on.parse().map_err(|e| format!("{e}"))?),
    };
    let machine = |at: &MachineRef| Machine {
        at: at.clone(),
        name: at.machine.to_string(),
        kind: test.kind.unwrap_or(MachineKind::Guest),
        state: PowerState::Running,
        pool: test.pool.clone(),
        tags: test.tags.clone(),
        node: None,
        console: ConsoleKind::Vnc,
    };
    let inventory = match &resource {
        Resource::Machine(at) => Inventory::new([machine(at)]),
        _ => Inventory::default(),
    };
    let mut assurance = Assurance::default();
    assurance.prove(if test.passkey { Factor::Passkey } else { Factor::Password }, now);
    if !test.passkey {
        assurance.prove(Factor::Totp, now);
    }
    let actor = Actor {
        user,
        name: test.who.as_str().into(),
        via: Via::CommandLine,
        assurance,
        scope: None,
        from: test.from,
        pass: None,
    };
    let operation = Operation { action, resource, effect: Effect::Safe };
    Ok(match engine.decide(&actor, &operation, &inventory, now) {
        Decision::Permit(_) => "permit",
        Decision::StepUp(_) => "step-up",
        Decision::Deny(_) => "deny",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(rules: &str, tests: &str) -> Result<Told, String> {
        let files = Files(BTreeMap::from([
            ("grants.csv".to_owned(), rules.to_owned()),
            ("tests/a.toml".to_owned(), tests.to_owned()),
        ]));
        let set = files.set().expect("good rules");
        run(&Engine::builtin().await.expect("roles"), &set, &files).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_test_says_who_may_do_what_and_a_wrong_one_says_where() {
        let rules = "p, group:night, console-user, tag:web, passkey, allow\ng, person:zoe, group:night\n\
                     p, person:bob, viewer, hypervisor:lab, until=2026-12-01T00:00Z, allow\n\
                     p, person:zoe, console-user, machine:lab/9, , deny\n";
        let test = |who: &str, action: &str, on: &str, more: &str, verdict: &str| {
            format!(
                "[[test]]\nwho = \"{who}\"\naction = \"{action}\"\non = \"{on}\"\nat = \"2026-11-28T10:00:00Z\"\n\
                 tags = [\"web\"]\n{more}\nverdict = \"{verdict}\"\n"
            )
        };
        let good = [
            test("person:zoe", "console.view", "lab/1", "passkey = true", "permit"),
            test("person:zoe", "console.view", "lab/1", "", "deny"),
            test("person:zoe", "console.view", "lab/9", "passkey = true", "deny"),
            test("group:night", "view", "lab/1", "passkey = true", "permit"),
            test("person:bob", "view", "lab/1", "", "permit"),
            test("person:bob", "power", "lab/1", "", "deny"),
            test("person:nobody", "view", "lab", "", "deny"),
            test("person:zoe", "write", "gateway:users", "", "deny"),
        ];
        let all = told(rules, &good.concat()).await.expect("tests");
        assert_eq!((all.passed, all.failed), (8, vec![]));
        for (wrong, says) in [
            (
                test("person:bob", "view", "lab/1", "", "deny"),
                "tests/a.toml: test 1: person:bob view on lab/1: permit, not deny",
            ),
            (test("bob", "view", "lab/1", "", "deny"), "neither person"),
            (test("person:bob", "fly", "lab/1", "", "deny"), "not an action"),
            (test("person:bob", "view", "lab/1", "", "maybe"), "no verdict"),
        ] {
            let all = told(rules, &wrong).await.expect("tests");
            assert!(all.failed.len() == 1 && all.failed[0].contains(says), "{:?}", all.failed);
        }
        let unknown = told(rules, &test("person:bob", "view", "lab/1", "because = 1", "permit")).await;
        assert!(unknown.is_err_and(|why| why.starts_with("tests/a.toml: ")));
    }
}
