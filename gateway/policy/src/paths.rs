// SPDX-License-Identifier: Apache-2.0
//! Rights reach people by their own grants and by groups that they are in, and by nothing else: random groups, changed
//! step by step, against a model of a few lines. People and groups have the same numbers here, and a machine, its pool,
//! its tag and its hypervisor the same names, so that whatever is taken for something else is seen.

use crate::{Engine, Kind, Moment, Passkey, Target, Verdict};
use portcullis_domain::{
    Action, Conditions, ConsoleKind, Grant, GrantChange, GrantEffect, GrantId, GrantSource, GroupId, Holder, Machine,
    MachineKind, PowerState, RoleName, Selector, UserId,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);
/// People, groups: 1 to this.
const MANY: u128 = 4;
const ROLES: [&str; 4] = ["viewer", "operator", "machine/power", "gone"];
/// The same word as each kind of place.
const PLACES: [&str; 6] =
    ["hypervisor:one", "pool:one/one", "tag:one", "machine:one/one", "pool:two/one", "everything"];

#[derive(Debug, Clone)]
enum Step {
    Give {
        grant: u128,
        group: bool,
        holder: u128,
        role: usize,
        place: usize,
        forbids: bool,
    },
    Take {
        grant: u128,
    },
    /// Bit n: person n + 1 is in it.
    Members {
        group: u128,
        who: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..12_u128, any::<bool>(), 1..=MANY, 0..ROLES.len(), 0..PLACES.len(), prop::bool::weighted(0.2)).prop_map(
            |(grant, group, holder, role, place, forbids)| Step::Give { grant, group, holder, role, place, forbids },
        ),
        1 => (1..12_u128).prop_map(|grant| Step::Take { grant }),
        3 => (1..=MANY, 0..16_u8).prop_map(|(group, who)| Step::Members { group, who }),
    ]
}

fn person(n: u128) -> UserId {
    UserId::new(Uuid::from_u128(n))
}

fn group(n: u128) -> GroupId {
    GroupId::new(Uuid::from_u128(n))
}

fn selector(text: &str) -> Selector {
    let (kind, value) = text.split_once(':').unwrap_or((text, ""));
    Selector::parse(kind, value).unwrap()
}

fn machines() -> Vec<Machine> {
    let machine = |at: &str, pool: Option<&str>, tags: &[&str]| Machine {
        at: at.parse().unwrap(),
        name: "one".into(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: pool.map(str::to_owned),
        tags: tags.iter().map(|t| (*t).to_owned()).collect(),
        node: None,
        console: ConsoleKind::Vnc,
    };
    vec![
        machine("one/one", None, &[]),
        machine("one/two", Some("one"), &[]),
        machine("two/one", None, &[]),
        machine("two/two", Some("one"), &[]),
        machine("three/three", None, &["one"]),
        machine("three/four", Some("three"), &["three"]),
    ]
}

/// What is so, without an index.
#[derive(Default)]
struct Model {
    grants: BTreeMap<u128, (Holder, Grant)>,
    members: BTreeMap<u128, BTreeSet<u128>>,
}

impl Model {
    fn allows(&self, engine: &Engine, who: u128, machine: &Machine, action: Action) -> bool {
        let holds = |holder: &Holder| match holder {
            Holder::Person(user) => *user == person(who),
            Holder::Group(id) => self.members.iter().any(|(n, all)| group(*n) == *id && all.contains(&who)),
        };
        let reach = self.grants.values().filter(|(holder, grant)| {
            holds(holder) && grant.selector.covers(machine) && engine.role_allows(&grant.role, Kind::Machine, action)
        });
        let effects: Vec<GrantEffect> = reach.map(|(_, grant)| grant.effect).collect();
        effects.contains(&GrantEffect::Allow) && !effects.contains(&GrantEffect::Deny)
    }
}

/// The roles alone, and not those that come with the gateway: reading them takes Casbin a while.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let roles = "g2, machine/view, viewer\ng2, viewer, operator\ng2, machine/console.view, operator\n";
        runtime.block_on(Engine::load(roles)).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // SEC-006
    #[test]
    fn nobody_gets_a_right_by_a_path_that_is_not_there(steps in prop::collection::vec(step(), 1..30)) {
        let (engine, machines, mut model) = (engine(), machines(), Model::default());
        engine.reset([]);
        let at = Moment::new(NOW, None, Passkey::Missing);
        for step in steps {
            let change = match step {
                Step::Give { grant, group: to_group, holder, role, place, forbids } => {
                    // An id is given once.
                    if model.grants.contains_key(&grant) {
                        continue;
                    }
                    let holder = if to_group { Holder::Group(group(holder)) } else { Holder::Person(person(holder)) };
                    let given = Grant {
                        id: GrantId::new(Uuid::from_u128(grant)),
                        role: ROLES[role].parse::<RoleName>().unwrap(),
                        selector: selector(PLACES[place]),
                        effect: if forbids { GrantEffect::Deny } else { GrantEffect::Allow },
                        from: OffsetDateTime::UNIX_EPOCH,
                        until: None,
                        conditions: Conditions::default(),
                        source: GrantSource::Administrator,
                    };
                    model.grants.insert(grant, (holder, given.clone()));
                    GrantChange::Put(holder, given)
                }
                Step::Take { grant } => match model.grants.remove(&grant) {
                    Some((holder, taken)) => GrantChange::Take(holder, taken.id),
                    None => continue,
                },
                Step::Members { group: of, who } => {
                    let all: BTreeSet<u128> = (1..=MANY).filter(|n| who >> (n - 1) & 1 == 1).collect();
                    let change = GrantChange::Members(group(of), all.iter().map(|n| person(*n)).collect());
                    model.members.insert(of, all);
                    change
                }
            };
            engine.apply([change]);
            let snapshot = engine.snapshot();
            for who in 1..=MANY + 1 {
                for machine in &machines {
                    for action in [Action::View, Action::ConsoleView, Action::Power] {
                        let is = snapshot.verdict(person(who), Target::Machine(machine), Kind::Machine, action, &at);
                        let should = model.allows(engine, who, machine, action);
                        prop_assert_eq!(is == Verdict::Allow, should, "{} {} of {}", who, action, machine.at);
                    }
                }
            }
        }
    }
}
