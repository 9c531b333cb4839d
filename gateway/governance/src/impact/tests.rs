// SPDX-License-Identifier: Apache-2.0
use super::*;
use portcullis_domain::{Conditions, ConsoleKind, GrantId, GrantSource, Machine, MachineKind, PowerState, Selector};
use time::{Duration, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

fn machine(at: &str) -> Machine {
    Machine {
        at: at.parse().unwrap(),
        name: "web".into(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: None,
        tags: vec!["web".into()],
        node: None,
        console: ConsoleKind::Vnc,
    }
}

fn grant(role: &str, kind: &str, value: &str) -> Grant {
    Grant {
        id: GrantId::new(Uuid::now_v7()),
        role: role.parse().unwrap(),
        selector: Selector::parse(kind, value).unwrap(),
        effect: GrantEffect::Allow,
        from: NOW,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
    }
}

fn user(n: u128) -> UserId {
    UserId::new(Uuid::from_u128(n))
}

fn asked(user: UserId, action: Action, resource: &str, allowed: bool) -> Decided {
    let name = "somebody".to_owned();
    Decided { at: NOW, user, user_name: name, peer: None, action, resource: resource.into(), allowed }
}

struct Scene {
    engine: Engine,
    inventory: Inventory,
    hypervisors: Vec<HypervisorName>,
}

impl Scene {
    async fn new() -> Self {
        Self {
            engine: Engine::builtin().await.unwrap(),
            inventory: Inventory::new(["lab/1", "lab/2", "kvm/1"].map(machine)),
            hypervisors: vec!["kvm".parse().unwrap(), "lab".parse().unwrap()],
        }
    }

    fn ground(&self) -> Ground<'_> {
        Ground { inventory: &self.inventory, hypervisors: &self.hypervisors, now: NOW }
    }
}

#[tokio::test]
async fn a_change_names_what_each_person_gains_and_loses_and_nobody_else() {
    let s = Scene::new().await;
    let (ada, bob) = (user(1), user(2));
    let view = grant("viewer", "hypervisor", "lab");
    let before = HashMap::from([(ada, vec![view.clone()]), (bob, vec![view.clone()])]);
    let mut deny = grant("viewer", "machine", "lab/2");
    deny.effect = GrantEffect::Deny;
    let after =
        HashMap::from([(ada, vec![view.clone(), grant("console-user", "tag", "web"), deny]), (bob, vec![view])]);
    let side = |held| Side { engine: &s.engine, held };
    let shifts = compare(side(&before), side(&after), s.ground());
    assert!(shifts.iter().all(|s| s.user == ada), "{shifts:?}");
    let told: Vec<String> = shifts
        .iter()
        .map(|s| {
            let actions: Vec<_> = s.actions.iter().map(|a| a.word()).collect();
            let on: Vec<_> = s.on.iter().map(ToString::to_string).collect();
            format!("{} {} on {}", s.turn.word(), actions.join(" "), on.join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "gains view console.view console.control on kvm/1",
            "gains console.view console.control on lab/1 lab/2",
            "loses view on lab/2"
        ]
    );
}

#[tokio::test]
async fn what_counts_at_some_hours_is_something_that_somebody_may_do() {
    let s = Scene::new().await;
    let mut sometimes = grant("viewer", "machine", "lab/1");
    sometimes.conditions.hours = Some("mon-fri 08:00-18:00 UTC".parse().unwrap());
    sometimes.conditions.networks = vec!["10.0.0.0/8".parse().unwrap()];
    let mut forbidden = sometimes.clone();
    forbidden.effect = GrantEffect::Deny;
    let held = HashMap::from([(user(1), vec![sometimes, forbidden])]);
    let side = Side { engine: &s.engine, held: &held };
    let lab_1 = Resource::Machine("lab/1".parse().unwrap());
    assert_eq!(access_of(side, user(1), s.ground()), [(lab_1.clone(), vec![Action::View])]);
    assert_eq!(access_to(side, &lab_1, s.ground()), BTreeMap::from([(user(1), vec![Action::View])]));
    assert_eq!(access_of(side, user(2), s.ground()), []);
}

#[tokio::test]
async fn the_past_is_asked_again_and_what_is_not_known_is_only_counted() {
    let s = Scene::new().await;
    let ada = user(1);
    let before = HashMap::from([(ada, vec![grant("operator", "hypervisor", "lab")])]);
    let after = HashMap::from([(ada, vec![grant("viewer", "everything", "")])]);
    let side = |held| Side { engine: &s.engine, held };
    let past = vec![
        asked(ada, Action::Power, "lab/1", true),
        asked(ada, Action::View, "lab/1", true),
        asked(ada, Action::View, "kvm/1", false),
        asked(ada, Action::Power, "lab/1,2", true),
        asked(ada, Action::View, "lab/gone", true),
        asked(ada, Action::View, "gone", true),
        asked(ada, Action::Read, "gateway:users", false),
        asked(user(9), Action::View, "lab/1", true),
        asked(ada, Action::View, "lab/../1", true),
    ];
    let sum = replay(past, side(&before), side(&after), s.ground());
    assert_eq!((sum.asked, sum.unknown, sum.unlike_then), (9, 4, 3));
    let told: Vec<_> = sum.otherwise.iter().map(|o| (o.turn, o.asked.resource.as_str())).collect();
    assert_eq!(told, [(Turn::Loses, "lab/1"), (Turn::Gains, "kvm/1"), (Turn::Loses, "lab/1,2")]);
}

/// Prints how long a replay of 100,000 operations takes; the rule is that it takes no more than 5 seconds.
#[tokio::test]
#[ignore = "measures: run it in a release build"]
async fn replay_of_a_hundred_thousand_operations() {
    let s = Scene::new().await;
    let held = |role: &str| -> HashMap<UserId, Vec<Grant>> {
        let grants = || (0..20).map(|i| grant(role, "machine", &format!("lab/{i}"))).collect();
        (0..500).map(|n| (user(n), grants())).collect()
    };
    let (before, after) = (held("operator"), held("viewer"));
    let side = |held| Side { engine: &s.engine, held };
    let past: Vec<Decided> = (0..100_000)
        .map(|n| asked(user(n % 500), Action::Power, if n % 2 == 0 { "lab/1" } else { "lab/2" }, true))
        .collect();
    let began = std::time::Instant::now();
    let sum = replay(past, side(&before), side(&after), s.ground());
    assert_eq!((sum.asked, sum.otherwise.len()), (100_000, 100_000));
    let took = began.elapsed();
    println!("100000 operations asked again in {} ms", took.as_millis());
    assert!(took < Duration::seconds(5), "{took:?}");
}
