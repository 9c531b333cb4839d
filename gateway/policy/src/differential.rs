// SPDX-License-Identifier: Apache-2.0
//! Two readings of the same rules, held against each other on random policies and questions: the index, and Casbin
//! itself, as a crate and as its Python library.

use crate::{
    Kind, MODEL, Moment, Passkey, Set, Snapshot, Target, Verdict, Who,
    oracle::{Answer, Oracle, facts_of_hypervisor, facts_of_machine, facts_of_own, moment},
    rights::questions,
    rules::Rules,
    set::{Given, GrantRow, Line, MemberRow},
};
use portcullis_domain::{
    Action, ConsoleKind, GrantChange, GrantId, GroupId, Holder, HypervisorName, Machine, MachineKind, PowerState,
    UserId,
};
use proptest::{
    prelude::Rng as _,
    test_runner::{TestRng, TestRunner},
};
use std::{
    collections::BTreeSet,
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
    sync::Arc,
};
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-27 17:30 UTC);
/// Steps of the longest chain of roles that Casbin follows whatever the order of rows.
const CHAIN: usize = 8;
const ROLES: [&str; CHAIN + 1] = ["a", "b", "ab", "a-b", "b-a", "a-b-c", "c", "d", "e"];
const PEOPLE: [&str; 5] = ["ann", "ann b", "a, admins", "x \"y\" #", "ghost"];
const GROUPS: [&str; 3] = ["ops", "o'ps", "p, q"];
const SELECTORS: [&str; 22] = [
    "everything",
    "hypervisor:lab",
    "hypervisor:la",
    "pool:lab/prod",
    "pool:lab/prod/a",
    "pool:la/prod",
    "tag:web",
    "tag:we",
    "tag:a, b",
    "tag:db;x=y",
    "machine:lab/1",
    "machine:lab/10",
    "machine:la/1",
    "pattern:*/*/*",
    "pattern:lab/*/*",
    "pattern:*/prod/*",
    "pattern:*/prod/a/*",
    "pattern:*/*/1",
    "pattern:la/*/10",
    "pattern:lab/prod/*",
    "pattern:lab/prod/a/1",
    "pattern:*/prod/10",
];
const WHENS: [&str; 20] = [
    "",
    "",
    "",
    "",
    "until=2026-11-28T00:00Z",
    "until=2026-11-27T17:00Z",
    "since=2026-11-27T17:30Z",
    "since=2026-11-27T16:00+01:00;until=2026-12-01T00:00:30.5Z",
    "hours=mon-fri 08:00-18:00 Europe/Berlin",
    "hours=fri 22:00-06:00 America/New_York",
    "hours=sat-sun 00:00-24:00 UTC",
    "hours=sun-mon,wed 23:00-01:30 Asia/Kolkata",
    "from=10.0.0.0/8",
    "from=192.0.2.7,2001:db8::/32",
    "kinds=guest",
    "kinds=container,template",
    "passkey",
    "passkey;from=10.0.0.0/8",
    "unrecorded;step-up=60;step-up-each;clipboard-in=5",
    "hours=mon-sun 06:00-20:00 Europe/London;from=10.0.0.0/8;kinds=guest",
];

fn pick<T: Clone>(rng: &mut TestRng, from: &[T]) -> T {
    from[usize::try_from(rng.next_u64() % from.len() as u64).unwrap()].clone()
}

fn below(rng: &mut TestRng, n: u64) -> u64 {
    rng.next_u64() % n
}

fn number(all: &[&str], name: &str) -> u128 {
    all.iter().position(|n| *n == name).unwrap() as u128
}

fn person(name: &str) -> UserId {
    UserId::new(Uuid::from_u128(1 + number(&PEOPLE, name)))
}

fn group(name: &str) -> GroupId {
    GroupId::new(Uuid::from_u128(1 + number(&GROUPS, name)))
}

/// A random set. Few questions, so that rules meet. Names such as `a`, `a-b`, `b` sit beside each other.
fn random_set(rng: &mut TestRng, questions: &[(Kind, Action)]) -> Set {
    let mut lines = BTreeSet::new();
    for role in ROLES {
        for _ in 0..=below(rng, 2) {
            let (kind, action) = pick(rng, questions);
            lines.insert(format!("g2, {kind}/{action}, {role}"));
        }
    }
    // The whole chain now and then; otherwise some steps. Only upwards in the list: no circles.
    let chain = below(rng, 4) == 0;
    for high in 1..ROLES.len() {
        if chain || below(rng, 3) == 0 {
            lines.insert(format!("g2, {}, {}", ROLES[high - 1], ROLES[high]));
        }
        if below(rng, 4) == 0 {
            lines.insert(format!("g2, {}, {}", pick(rng, &ROLES[..high]), ROLES[high]));
        }
    }
    let mut set = Set::read(&lines.into_iter().collect::<Vec<_>>().join("\n")).unwrap();
    let line = Line { file: "".into(), number: 1 };
    let mut seen = BTreeSet::new();
    for _ in 0..below(rng, 50) {
        let effect = if below(rng, 4) == 0 { "deny" } else { "allow" };
        // A role that is not there; one right by itself; a role.
        let role = match below(rng, 30) {
            0 => "gone".to_owned(),
            1..=5 => {
                let (kind, action) = pick(rng, questions);
                format!("{kind}/{action}")
            }
            _ => pick(rng, &ROLES).to_owned(),
        };
        let given = Given::read(&role, pick(rng, &SELECTORS), pick(rng, &WHENS), effect).unwrap();
        let who = if below(rng, 2) == 0 {
            Who::Person(pick(rng, &PEOPLE).to_owned())
        } else {
            Who::Group(pick(rng, &GROUPS).to_owned())
        };
        if seen.insert((who.clone(), given.columns())) {
            set.grants.push(GrantRow { line: line.clone(), who, given });
        }
    }
    for name in PEOPLE {
        for group in GROUPS {
            if name != "ghost" && below(rng, 3) == 0 {
                set.members.push(MemberRow { line: line.clone(), person: name.to_owned(), group: group.to_owned() });
            }
        }
    }
    // What is written and read back is what is asked about.
    let again = Set::read(&set.to_string()).unwrap();
    assert!(again.grants.iter().map(|g| (&g.who, &g.given)).eq(set.grants.iter().map(|g| (&g.who, &g.given))));
    set
}

fn changes(set: &Set) -> Vec<GrantChange> {
    let holder = |who: &Who| match who {
        Who::Person(name) => Holder::Person(person(name)),
        Who::Group(name) => Holder::Group(group(name)),
    };
    let grants = set.grants.iter().enumerate().map(|(n, row)| {
        let id = GrantId::new(Uuid::from_u128(n as u128));
        GrantChange::Put(holder(&row.who), row.given.grant(id, OffsetDateTime::UNIX_EPOCH))
    });
    let groups = GROUPS.map(|name| {
        let members = set.members.iter().filter(|m| m.group == name).map(|m| person(&m.person)).collect();
        GrantChange::Members(group(name), members)
    });
    grants.chain(groups).collect()
}

struct Ask {
    who: &'static str,
    kind: Kind,
    action: Action,
    target: What,
    at: OffsetDateTime,
    from: Option<IpAddr>,
    passkey: bool,
}

enum What {
    Machine(Machine),
    Hypervisor(HypervisorName),
    Own,
}

fn random_ask(rng: &mut TestRng, questions: &[(Kind, Action)]) -> Ask {
    let (kind, action) = pick(rng, questions);
    let hypervisor = pick(rng, &["lab", "la", "prod"]);
    let target = match kind {
        Kind::Machine => What::Machine(Machine {
            at: format!("{hypervisor}/{}", pick(rng, &["1", "10", "prod"])).parse().unwrap(),
            name: "m".into(),
            kind: pick(rng, &[MachineKind::Guest, MachineKind::Guest, MachineKind::Container, MachineKind::Template]),
            state: PowerState::Running,
            pool: pick(rng, &[None, Some("prod"), Some("prod/a"), Some("x")]).map(str::to_owned),
            tags: ["web", "we", "a, b", "db;x=y", "*"]
                .into_iter()
                .filter(|_| below(rng, 3) == 0)
                .map(str::to_owned)
                .collect(),
            node: None,
            console: ConsoleKind::Vnc,
        }),
        Kind::Hypervisor => What::Hypervisor(hypervisor.parse().unwrap()),
        Kind::Own(_) => What::Own,
    };
    Ask {
        who: pick(rng, &PEOPLE),
        kind,
        action,
        target,
        at: NOW + Duration::minutes(i64::try_from(below(rng, 7 * 24 * 60)).unwrap() * i64::from(below(rng, 3) != 0)),
        from: pick(rng, &[None, Some("10.1.2.3"), Some("192.0.2.7"), Some("2001:db8::1"), Some("::ffff:10.9.9.9")])
            .map(|ip| ip.parse().unwrap()),
        passkey: below(rng, 2) == 0,
    }
}

impl Ask {
    fn ours(&self, snapshot: &Snapshot) -> bool {
        let target = match &self.target {
            What::Machine(machine) => Target::Machine(machine),
            What::Hypervisor(name) => Target::Hypervisor(name),
            What::Own => Target::Own,
        };
        let passkey = if self.passkey { Passkey::Proven } else { Passkey::Missing };
        let at = Moment::new(self.at, self.from, passkey);
        snapshot.verdict(person(self.who), target, self.kind, self.action, &at) == Verdict::Allow
    }

    /// As Casbin is asked: who, right, on, at.
    fn words(&self) -> [String; 4] {
        let facts = match (&self.target, self.kind) {
            (What::Machine(machine), _) => facts_of_machine(machine),
            (What::Hypervisor(name), _) => facts_of_hypervisor(name.as_str()),
            (What::Own, Kind::Own(object)) => facts_of_own(object),
            (What::Own, _) => panic!(),
        };
        let right = format!("{}/{}", self.kind, self.action);
        [format!("person:{}", self.who), right, facts, moment(self.at, self.from, self.passkey)]
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn is_full() -> bool {
    std::env::var("PORTCULLIS_TEST_FULL").is_ok_and(|v| v == "1")
}

/// A random policy as both readings hold it, and questions about it.
fn case(rng: &mut TestRng, asks: usize) -> (Set, Snapshot, Vec<Ask>) {
    let all: Vec<_> = questions().collect();
    let questions: Vec<_> = (0..5)
        .map(|n| if n < 2 { (Kind::Machine, pick(rng, &[Action::View, Action::Power])) } else { pick(rng, &all) })
        .collect();
    let set = random_set(rng, &questions);
    let rules = Arc::new(Rules::of(&set).unwrap());
    // Half of it at once, the other half on top of that, in another order: it must not matter.
    let mut all = changes(&set);
    let later = all.split_off(all.len() / 2);
    let snapshot = Snapshot::new(rules).what_if(later).what_if(all);
    let asks = (0..asks).map(|_| random_ask(rng, &questions)).collect();
    (set, snapshot, asks)
}

// D2: no differences.
#[test]
fn random_decisions_are_what_casbin_says() {
    let (policies, each) = if is_full() { (10_000, 100) } else { (200, 50) };
    let mut runner = TestRunner::deterministic();
    let rng = runner.rng();
    let (mut asked, mut allowed) = (0, 0);
    for _ in 0..policies {
        let (set, snapshot, asks) = case(rng, each);
        let oracle = run(Oracle::new(&set)).unwrap();
        for ask in asks {
            let [who, right, facts, at] = ask.words();
            let theirs = oracle.ask(&who, ask.kind, ask.action, &facts, &at);
            assert_ne!(theirs, Answer::Fault, "{set}\n{who} {right} {facts:?} {at:?}");
            assert_eq!(ask.ours(&snapshot), theirs == Answer::Allow, "{set}\n{who} {right} {facts:?} {at:?}");
            allowed += usize::from(theirs == Answer::Allow);
            asked += 1;
        }
    }
    println!("{asked} decisions, {allowed} of them allowed, 0 differences");
    assert!(allowed * 20 > asked, "only {allowed} of {asked} were allowed: the test says little");
}

// The Python library is another program by other people: `PORTCULLIS_TEST_CASBIN` names a Python that has it.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests drive real peers")]
fn random_decisions_are_what_casbin_in_python_says() {
    let Ok(python) = std::env::var("PORTCULLIS_TEST_CASBIN") else {
        println!("left out: PORTCULLIS_TEST_CASBIN names no Python with casbin");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/support/peers/casbin/reference.py");
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let (policies, each) = if is_full() { (1_000, 100) } else { (40, 50) };
    let mut stdin = child.stdin.take().unwrap();
    let asking = std::thread::spawn(move || {
        let mut runner = TestRunner::deterministic();
        let rng = runner.rng();
        let mut ours = Vec::new();
        for _ in 0..policies {
            let (set, snapshot, asks) = case(rng, each);
            let words: Vec<_> = asks.iter().map(Ask::words).collect();
            let line = serde_json::json!({ "model": MODEL, "policy": set.to_string(), "asks": words });
            writeln!(stdin, "{line}").unwrap();
            let bits: String = asks.iter().map(|a| if a.ours(&snapshot) { '1' } else { '0' }).collect();
            ours.push((set, words, bits));
        }
        ours
    });
    let out = child.wait_with_output().unwrap();
    let ours = asking.join().unwrap();
    assert!(out.status.success());
    let theirs = String::from_utf8(out.stdout).unwrap();
    assert_eq!(theirs.lines().count(), policies);
    for (theirs, (set, words, bits)) in theirs.lines().zip(&ours) {
        for ((their, our), ask) in theirs.chars().zip(bits.chars()).zip(words) {
            assert_eq!(our, their, "{set}\n{ask:?}");
        }
    }
}
