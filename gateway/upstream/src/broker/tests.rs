// SPDX-License-Identifier: Apache-2.0
use super::*;
use portcullis_domain::{
    Action, Assurance, Conditions, ConsoleKind, Effect, Factor, Grant, GrantChange, GrantEffect, GrantId, GrantSource,
    Inventory, Machine, MachineKind, ManualClock, PowerState, Selector, TokenId, Via,
};
use portcullis_policy::{Decision, Engine};
use time::macros::datetime;

const TASK: &str = "0190f3a0-0000-7000-8000-000000000001";
const REAL: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CONTROL: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn broker() -> (Broker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
    (Broker::new(Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

fn user(n: u128) -> UserId {
    UserId::new(Uuid::from_u128(n))
}

fn actor(user: UserId) -> Actor {
    let now = datetime!(2026-01-01 00:00 UTC);
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, now);
    assurance.prove(Factor::Totp, now);
    Actor {
        user,
        name: "u".into(),
        via: Via::Token(TokenId::new(Uuid::from_u128(8))),
        assurance,
        scope: None,
        pass: None,
        from: None,
    }
}

fn grant(role: &str) -> Grant {
    Grant {
        id: GrantId::new(Uuid::new_v4()),
        role: role.parse().unwrap(),
        selector: Selector::Everything,
        from: datetime!(2026-01-01 00:00 UTC),
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

async fn permit(n: u128) -> Permit {
    let now = datetime!(2026-01-01 00:00 UTC);
    let inventory = Inventory::new([Machine {
        at: machine(),
        name: "c1".into(),
        kind: MachineKind::Container,
        state: PowerState::Running,
        pool: None,
        tags: vec![],
        node: None,
        console: ConsoleKind::Text,
    }]);
    let operation =
        Operation { action: Action::ConsoleControl, resource: Resource::Machine(machine()), effect: Effect::Unsafe };
    let engine = Engine::builtin().await.unwrap();
    let roles = ["administrator", "operator", "console-user"];
    engine.apply(roles.map(|role| GrantChange::Put(user(n).into(), grant(role))));
    match engine.decide(&actor(user(n)), &operation, &inventory, now) {
        Decision::Permit(permit) => permit,
        _ => panic!("no permit"),
    }
}

fn machine() -> MachineRef {
    "lab/default:c1".parse().unwrap()
}

fn hypervisor() -> HypervisorName {
    "lab".parse().unwrap()
}

fn answer() -> Vec<u8> {
    format!(
        r#"{{"type":"async","operation":"/1.0/operations/{TASK}","metadata":{{"id":"{TASK}","class":"websocket","metadata":
        {{"fds":{{"0":"{REAL}","control":"{CONTROL}"}},"command":["sh"]}}}}}}"#
    )
    .into_bytes()
}

fn fds(body: &[u8]) -> HashMap<String, String> {
    let json: Value = serde_json::from_slice(body).unwrap();
    serde_json::from_value(json.pointer("/metadata/metadata/fds").unwrap().clone()).unwrap()
}

#[tokio::test]
async fn a_channel_secret_stays_here_and_the_minted_one_is_good_once_for_its_owner() {
    let (broker, _) = broker();
    let out = broker.exchange(&permit(1).await, Reuse::Once, &answer()).unwrap();
    let text = String::from_utf8(out.clone()).unwrap();
    assert!(!text.contains(REAL) && !text.contains(CONTROL));
    let minted = fds(&out);
    assert!(minted["0"].len() == 43 && minted["0"] != minted["control"]);
    let other = "0190f3a0-0000-7000-8000-000000000002";
    assert!(broker.redeem(user(2), &hypervisor(), TASK, &minted["0"]).is_none(), "another person");
    assert!(broker.redeem(user(1), &"other".parse().unwrap(), TASK, &minted["0"]).is_none(), "another hypervisor");
    assert!(broker.redeem(user(1), &hypervisor(), other, &minted["0"]).is_none(), "another operation");
    assert!(broker.redeem(user(1), &hypervisor(), TASK, REAL).is_none(), "the real one is no key");
    let task = |secret: &str| Task {
        hypervisor: hypervisor(),
        action: Action::View,
        effect: Effect::Unsafe,
        id: TASK.to_owned(),
        about: None,
        secret: Some(secret.to_owned()),
    };
    let resolved = broker.resolve(&task(&minted["0"]), &actor(user(1))).unwrap();
    assert_eq!((resolved.action, resolved.resource), (Action::ConsoleControl, Resource::Machine(machine())));
    assert!(broker.resolve(&task(&minted["0"]), &actor(user(2))).is_none());
    assert!(broker.resolve(&task(REAL), &actor(user(1))).is_none());
    let good = broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).unwrap();
    assert_eq!(good.secret.expose_text(), Some(REAL));
    assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).is_none(), "spent");
    assert_eq!(
        broker.redeem(user(1), &hypervisor(), TASK, &minted["control"]).unwrap().secret.expose_text(),
        Some(CONTROL)
    );
}

#[tokio::test]
async fn an_unused_secret_is_forgotten_after_thirty_seconds() {
    let (broker, clock) = broker();
    let minted = fds(&broker.exchange(&permit(1).await, Reuse::Once, &answer()).unwrap());
    clock.advance(Duration::seconds(31));
    assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).is_none());
    let minted = fds(&broker.exchange(&permit(1).await, Reuse::Once, &answer()).unwrap());
    broker.forget(user(1));
    assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).is_none());
}

#[tokio::test]
async fn a_vga_channel_opens_again_and_its_control_channel_does_not() {
    let (broker, clock) = broker();
    let minted = fds(&broker.exchange(&permit(1).await, Reuse::WhileLive, &answer()).unwrap());
    for _ in 0..4 {
        assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).is_some());
        clock.advance(Duration::minutes(10));
    }
    assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["control"]).is_none(), "control was left unused");
    clock.advance(Duration::hours(13));
    assert!(broker.redeem(user(1), &hypervisor(), TASK, &minted["0"]).is_none());
}

#[tokio::test]
async fn one_person_cannot_fill_the_table() {
    let (broker, clock) = broker();
    let mut made = 0;
    while broker.exchange(&permit(1).await, Reuse::Once, &answer()).is_ok() {
        made += 2;
        assert!(made <= MAX_CHANNELS_OF_USER);
    }
    assert_eq!(made, MAX_CHANNELS_OF_USER);
    assert!(broker.exchange(&permit(2).await, Reuse::Once, &answer()).is_ok());
    clock.advance(Duration::seconds(31));
    assert!(broker.exchange(&permit(1).await, Reuse::Once, &answer()).is_ok());
}

#[tokio::test]
async fn odd_answers_are_refused_and_plain_ones_pass_without_secrets() {
    let (broker, _) = broker();
    let permit = permit(1).await;
    let go = |text: &str| broker.exchange(&permit, Reuse::Once, text.as_bytes());
    for bad in [
        "",
        "{",
        r#"{"metadata":{"metadata":{"fds":{"0":"s"}}}}"#,
        r#"{"metadata":{"id":"x","metadata":{"fds":{"0":"s"}}}}"#,
        &format!(r#"{{"metadata":{{"id":"{TASK}","metadata":{{"fds":["s"]}}}}}}"#),
        &format!(r#"{{"metadata":{{"id":"{TASK}","metadata":{{"fds":{{"0":1}}}}}}}}"#),
        &"x".repeat(MAX_ANSWER + 1),
    ] {
        assert!(go(bad).is_err(), "{}", &bad[..bad.len().min(80)]);
    }
    let passed = go(r#"{"type":"error","error":"not found","error_code":404,"secret":"s3cr3t"}"#).unwrap();
    let text = String::from_utf8(passed).unwrap();
    assert!(text.contains("not found") && !text.contains("s3cr3t"));
}

#[test]
fn secrets_are_stripped_wherever_they_stand() {
    let json = format!(
        r#"{{"metadata":[{{"class":"websocket","metadata":{{"control":"{REAL}","fs":"{CONTROL}","fds":{{"0":"{REAL}"}},"n":1}},
        "x":{{"secret":"a1b2","deep":[{{"websocket_secrets":{{"q":"zzz1"}},"core.trust_password":"zzz2","user_token":"zzz3"}}]}}}}],
        "fingerprint":"{CONTROL}","resources":{{"containers":["/1.0/containers/c1"]}}}}"#
    );
    let out = String::from_utf8(strip_secrets(json.as_bytes()).unwrap()).unwrap();
    for gone in [REAL, "a1b2", "zzz"] {
        assert!(!out.contains(gone), "{gone} in {out}");
    }
    assert!(out.contains("/1.0/containers/c1") && out.contains("fingerprint") && out.contains("\"n\":1"));
    assert!(strip_secrets(b"[1,").is_err());
    assert!(strip_secrets("[".repeat(100_000).as_bytes()).is_err(), "depth is bounded");
}

#[test]
fn a_task_is_known_by_its_address_or_its_id_on_its_own_hypervisor() {
    let (broker, _) = broker();
    let resource = Resource::Machine(machine());
    let operation = Operation { action: Action::Power, resource, effect: Effect::Unsafe };
    broker.remember(
        &hypervisor(),
        &format!("/1.0/operations/{TASK}?project=p"),
        TaskOwner { user: user(1), operation },
    );
    assert_eq!(broker.owner(&hypervisor(), TASK).unwrap().user, user(1));
    let (id, secret) = (TASK.to_owned(), None);
    let task = Task { hypervisor: hypervisor(), action: Action::View, effect: Effect::Safe, id, about: None, secret };
    assert_eq!(broker.resolve(&task, &actor(user(1))).unwrap().resource, Resource::Machine(machine()));
    assert!(broker.resolve(&task, &actor(user(2))).is_none(), "another person's task");
    assert!(broker.owner(&"other".parse().unwrap(), TASK).is_none());
    assert!(broker.owner(&hypervisor(), "0190f3a0-0000-7000-8000-00000000ffff").is_none());
}
