// SPDX-License-Identifier: Apache-2.0
// SEC-123, as far as a decision goes: what was spent is told from what was not by whoever acts on the permit.
use super::*;
use crate::{Decision, Engine};
use portcullis_domain::{
    Action, Assurance, Conditions, ConsoleKind, Effect, Factor, Grant, GrantChange, GrantEffect, GrantId, GrantSource,
    Inventory, Machine, MachineKind, OwnObject, PowerState, Resource, Selector, SessionId, TokenId, UserId,
};
use std::sync::OnceLock;
use time::macros::datetime;
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

/// Whose grants ask for a confirmation of each intent, among others that do not: the strictest condition counts.
const EACH: UserId = UserId::new(Uuid::from_u128(1));
/// Whose grants do not.
const PLAIN: UserId = UserId::new(Uuid::from_u128(4));

fn builtin() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let built = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(Engine::builtin());
        let engine = built.unwrap();
        let roles = ["administrator", "security-lead", "auditor"];
        let rows = roles.iter().zip(0..).flat_map(|(role, n)| {
            [(EACH, false), (EACH, true), (PLAIN, false)]
                .into_iter()
                .zip(0..)
                .map(move |((user, each), k)| GrantChange::Put(user.into(), grant(n * 10 + k, role, each)))
        });
        engine.apply(rows);
        engine
    })
}

fn grant(n: u128, role: &str, each: bool) -> Grant {
    Grant {
        id: GrantId::new(Uuid::from_u128(n)),
        role: role.parse().unwrap(),
        selector: Selector::Everything,
        from: NOW - Duration::HOUR,
        until: None,
        conditions: Conditions { step_up_each: each, step_up_seconds: 3_600, ..Conditions::default() },
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

fn inventory() -> Inventory {
    let machine = |at: &str| Machine {
        at: at.parse().unwrap(),
        name: at.into(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        tags: vec![],
        pool: None,
        node: None,
        console: ConsoleKind::Vnc,
    };
    Inventory::new(["one/a", "one/b"].map(machine))
}

/// Somebody who may do everything everywhere, and confirms each intent, with both factors proven just now.
fn somebody() -> Actor {
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, NOW);
    assurance.prove(Factor::Totp, NOW);
    Actor {
        user: EACH,
        name: "ann".into(),
        via: Via::Session(SessionId::new(Uuid::from_u128(2))),
        assurance,
        scope: None,
        pass: None,
        from: None,
    }
}

fn on(action: Action, machine: &str) -> Operation {
    Operation { action, resource: Resource::Machine(machine.parse().unwrap()), effect: Effect::Unsafe }
}

fn own(action: Action, object: OwnObject) -> Operation {
    Operation { action, resource: Resource::Own(object), effect: Effect::Unsafe }
}

fn decide(actor: &Actor, operation: &Operation, now: OffsetDateTime) -> Decision {
    builtin().decide(actor, operation, &inventory(), now)
}

fn lasts(actor: &Actor, operation: &Operation, now: OffsetDateTime) -> Option<Lasts> {
    match decide(actor, operation, now) {
        Decision::Permit(permit) => Some(permit.proof().expect("it stands on a proof of its own").lasts),
        Decision::StepUp(_) => None,
        Decision::Deny(reason) => panic!("{reason}"),
    }
}

#[test]
fn a_confirmation_counts_for_its_own_intent_only_and_five_minutes_at_most() {
    let everything = [
        on(Action::ConsoleView, "one/a"),
        on(Action::ConsoleView, "one/b"),
        on(Action::Destroy, "one/a"),
        on(Action::GuestExec, "one/a"),
        own(Action::Write, OwnObject::Policy),
        own(Action::Write, OwnObject::Users),
        own(Action::Play, OwnObject::Recordings),
    ];
    let told =
        [Lasts::WhileOpen, Lasts::WhileOpen, Lasts::Once, Lasts::InWindow, Lasts::Once, Lasts::Once, Lasts::InWindow];
    for operation in &everything {
        assert_eq!(lasts(&somebody(), operation, NOW), None, "{operation}: signing in is no confirmation");
        let mut ann = somebody();
        ann.assurance.prove_for(Intent::of(operation).unwrap(), NOW);
        for (other, expected) in everything.iter().zip(told) {
            let expected = (operation == other).then_some(expected);
            assert_eq!(lasts(&ann, other, NOW), expected, "for {operation}: {other}");
        }
        let last = NOW + Duration::minutes(5);
        assert!(lasts(&ann, operation, last).is_some());
        assert_eq!(
            lasts(&ann, operation, last + Duration::SECOND),
            None,
            "the grant's hour is too long for one intent"
        );
        assert_eq!(lasts(&ann, operation, NOW - Duration::SECOND), None, "a clock that was set back");
    }
}

#[test]
fn watching_and_using_one_screen_is_confirmed_once() {
    let mut ann = somebody();
    ann.assurance.prove_for(Intent::of(&on(Action::ConsoleView, "one/a")).unwrap(), NOW);
    assert_eq!(lasts(&ann, &on(Action::ConsoleControl, "one/a"), NOW), Some(Lasts::WhileOpen));
    // A console that goes on is not asked again.
    let Decision::Permit(permit) = decide(&ann, &on(Action::ConsoleControl, "one/a"), NOW) else { panic!() };
    let later = builtin().renew(&permit, &ann, &inventory(), NOW + Duration::HOUR);
    assert!(matches!(later, Decision::Permit(_)), "{later:?}");
}

#[test]
fn a_token_cannot_confirm_an_intent_and_hears_why() {
    let mut tool = somebody();
    tool.via = Via::Token(TokenId::new(Uuid::from_u128(3)));
    tool.assurance = Assurance::default();
    tool.assurance.prove(Factor::Token, NOW);
    for action in [Action::Destroy, Action::GuestExec, Action::ConsoleView] {
        match decide(&tool, &on(action, "one/a"), NOW) {
            Decision::Deny(reason) => assert!(reason.to_string().contains("a token cannot give"), "{reason}"),
            other => panic!("{action}: {other:?}"),
        }
    }
    // What asks for no fresh factor is as before.
    assert!(matches!(decide(&tool, &on(Action::Power, "one/a"), NOW), Decision::Permit(_)));
    tool.user = PLAIN;
    assert!(matches!(decide(&tool, &on(Action::Destroy, "one/a"), NOW), Decision::Permit(_)));
}

#[test]
fn without_such_a_grant_nothing_is_bound_and_an_emergency_asks_nothing() {
    let mut ann = somebody();
    ann.user = PLAIN;
    let Decision::Permit(permit) = decide(&ann, &on(Action::Destroy, "one/a"), NOW) else { panic!() };
    assert_eq!(permit.proof(), None);
    let mut glass = somebody();
    glass.assurance = Assurance::default();
    glass.assurance.prove(Factor::BreakGlass, NOW);
    let Decision::Permit(permit) = decide(&glass, &on(Action::Destroy, "one/a"), NOW + Duration::minutes(59)) else {
        panic!("the factors themselves may be what is broken")
    };
    assert_eq!(permit.proof(), None);
}
