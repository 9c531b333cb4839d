// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    Counts::{Elsewhere, NoSuchRole, NotYet, Over, Yes},
    MATRIX, Need, RULES,
};
use portcullis_domain::{
    Assurance, Conditions, ConsoleKind, Effect as Safety, Factor, Grant, GrantChange, GrantEffect, GrantSource,
    HypervisorName, MachineKind, PowerState, Selector, SessionId, TokenId, UserId, Via,
};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};
use time::macros::datetime;
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn builtin() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| run(Engine::builtin()).unwrap())
}

fn machine(at: &str, pool: Option<&str>, tags: &[&str]) -> Machine {
    let at: MachineRef = at.parse().unwrap();
    Machine {
        name: at.machine.to_string(),
        at,
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: pool.map(str::to_owned),
        tags: tags.iter().map(|t| (*t).to_owned()).collect(),
        node: None,
        console: ConsoleKind::Vnc,
    }
}

fn inventory() -> Inventory {
    Inventory::new([
        machine("one/own", Some("pay"), &["web"]),
        machine("one/other", Some("hr"), &["db"]),
        machine("two/own", Some("pay"), &["web"]),
    ])
}

fn grant(role: &str, selector: Selector) -> Grant {
    Grant {
        id: GrantId::new(id(fresh())),
        role: role.parse().unwrap(),
        selector,
        from: NOW - Duration::HOUR,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

fn on(at: &str) -> Selector {
    Selector::Machine(at.parse().unwrap())
}

/// A number that was not used before.
fn fresh() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new person who holds these grants under the roles that come with the gateway.
fn actor(grants: impl IntoIterator<Item = Grant>) -> Actor {
    seated(builtin(), fresh(), grants)
}

/// Somebody who holds these grants and no others in an engine.
fn seated(engine: &Engine, user: u128, grants: impl IntoIterator<Item = Grant>) -> Actor {
    let user = UserId::new(id(user));
    let before = engine.grants_of(user).into_iter().map(|g| GrantChange::Take(user.into(), g.id));
    engine.apply(before.chain(grants.into_iter().map(|g| GrantChange::Put(user.into(), g))));
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, NOW);
    assurance.prove(Factor::Totp, NOW);
    Actor {
        user,
        name: "ann".into(),
        via: Via::Session(SessionId::new(id(2))),
        assurance,
        scope: None,
        from: None,
        pass: None,
    }
}

fn token(mut actor: Actor, scope: Option<&str>) -> Actor {
    actor.via = Via::Token(TokenId::new(id(3)));
    actor.assurance = Assurance::default();
    actor.assurance.prove(Factor::Token, NOW - Duration::days(30));
    actor.scope = scope.map(|s| s.parse().unwrap());
    actor
}

fn ask(action: Action, resource: Resource) -> Operation {
    Operation { action, resource, effect: Safety::Unsafe }
}

fn at(machine: &str) -> Resource {
    Resource::Machine(machine.parse().unwrap())
}

fn decide(actor: &Actor, action: Action, resource: Resource) -> Decision {
    builtin().decide(actor, &ask(action, resource), &inventory(), NOW)
}

fn permitted(decision: Decision) -> Permit {
    match decision {
        Decision::Permit(p) => p,
        other => panic!("{other:?}"),
    }
}

fn denied(decision: Decision) -> Reason {
    match decision {
        Decision::Deny(r) => r,
        other => panic!("{other:?}"),
    }
}

// ---- who and where (1A)

// SEC-002
#[test]
fn a_grant_on_one_machine_reaches_that_machine_and_no_other_exists() {
    let ann = actor([grant("console-user", on("one/own"))]);
    for action in [Action::View, Action::ConsoleView, Action::ConsoleControl] {
        let permit = permitted(decide(&ann, action, at("one/own")));
        assert_eq!(permit.operation(), &ask(action, at("one/own")));
        let other = denied(decide(&ann, action, at("one/other")));
        let absent = denied(decide(&ann, action, at("one/absent")));
        let elsewhere = denied(decide(&ann, action, at("two/own")));
        let nowhere = denied(decide(&ann, action, at("three/own")));
        assert!(matches!(other, Reason::Hidden(_)));
        assert!([&absent, &elsewhere, &nowhere].iter().all(|r| **r == other && r.to_string() == other.to_string()));
    }
    assert!(matches!(
        denied(decide(&ann, Action::View, Resource::Hypervisor("one".parse().unwrap()))),
        Reason::Role(_)
    ));
    assert_eq!(builtin().visible(&ann, &inventory(), NOW).len(), 1);
}

#[test]
fn a_machine_that_may_be_seen_is_refused_with_the_role_that_opens_it() {
    let ann = actor([grant("viewer", on("one/own"))]);
    let reason = denied(decide(&ann, Action::ConsoleControl, at("one/own")));
    assert_eq!(
        reason.to_string(),
        "You need the role console-user (or operator, administrator) on this machine. Ask a security lead."
    );
    let reason = denied(decide(&ann, Action::Write, Resource::Own(OwnObject::Hypervisors)));
    assert_eq!(reason.to_string(), "You need the role administrator on everything. Ask a security lead.");
    let reason = denied(decide(&ann, Action::ConsoleUsb, at("one/own")));
    assert_eq!(reason.to_string(), "No role allows console.usb on this machine.");
}

#[test]
fn each_selector_covers_what_it_says_and_nothing_more() {
    let all = [
        at("one/own"),
        at("one/other"),
        at("two/own"),
        Resource::Hypervisor("one".parse().unwrap()),
        Resource::Hypervisor("two".parse().unwrap()),
    ];
    let h = |n: &str| n.parse::<HypervisorName>().unwrap();
    for (selector, covers) in [
        (Selector::Everything, [true, true, true, true, true]),
        (Selector::Hypervisor(h("one")), [true, true, false, true, false]),
        (Selector::Pool(h("one"), "pay".into()), [true, false, false, false, false]),
        (Selector::Tag("web".into()), [true, false, true, false, false]),
        (on("one/own"), [true, false, false, false, false]),
        (Selector::Tag("we".into()), [false; 5]),
        (Selector::Pool(h("one"), String::new()), [false; 5]),
    ] {
        let ann = actor([grant("administrator", selector.clone())]);
        let got: Vec<bool> =
            all.iter().map(|r| matches!(decide(&ann, Action::Power, r.clone()), Decision::Permit(_))).collect();
        assert_eq!(got, covers, "{selector}");
        let own = matches!(decide(&ann, Action::Read, Resource::Own(OwnObject::Users)), Decision::Permit(_));
        assert_eq!(own, selector == Selector::Everything, "{selector}");
    }
}

// SEC-004: what is asked together is joined with AND.
#[test]
fn all_of_a_hypervisor_is_seen_only_by_who_is_forbidden_none_of_it_now_or_later() {
    let one: HypervisorName = "one".parse().unwrap();
    let viewer = || grant("viewer", Selector::Hypervisor("one".parse().unwrap()));
    let forbidden = |selector| Grant { effect: GrantEffect::Deny, ..grant("viewer", selector) };
    let sees = |grants: Vec<Grant>| builtin().sees_every(&actor(grants), &one, NOW);
    assert!(sees(vec![viewer()]));
    assert!(sees(vec![grant("administrator", Selector::Everything)]));
    // The machines that there are now are not all that there may be.
    let pools = ["pay", "hr"].map(|p| grant("viewer", Selector::Pool("one".parse().unwrap(), p.to_owned())));
    assert!(!sees(pools.to_vec()));
    let right = |right: &str| grant(right, Selector::Hypervisor("one".parse().unwrap()));
    assert!(!sees(vec![right("hypervisor/view")]), "of the hypervisor alone");
    assert!(!sees(vec![right("machine/view")]), "of the machines alone");
    assert!(sees(vec![right("hypervisor/view"), right("machine/view")]));
    let of_guests = Conditions { kinds: vec![MachineKind::Guest], ..Conditions::default() };
    assert!(!sees(vec![right("hypervisor/view"), Grant { conditions: of_guests, ..right("machine/view") }]));
    for selector in [
        on("one/other"),
        on("one/unheard"),
        Selector::Tag("db".to_owned()),
        Selector::Pool("one".parse().unwrap(), "hr".to_owned()),
        Selector::Pattern("one/*/other".parse().unwrap()),
        Selector::Everything,
    ] {
        assert!(!sees(vec![viewer(), forbidden(selector.clone())]), "{selector:?}");
        let later = Grant { from: NOW + Duration::HOUR, ..forbidden(selector.clone()) };
        assert!(!sees(vec![viewer(), later]), "{selector:?}");
    }
    for (what, harmless) in [
        ("elsewhere", forbidden(on("two/own"))),
        ("elsewhere", forbidden(Selector::Hypervisor("two".parse().unwrap()))),
        ("over", Grant { until: Some(NOW), ..forbidden(on("one/other")) }),
        ("another right", Grant { effect: GrantEffect::Deny, ..grant("machine/power", on("one/other")) }),
    ] {
        assert!(sees(vec![viewer(), harmless]), "{what}");
    }
    let ann = actor([viewer()]);
    assert!(!builtin().sees_every(&token(ann.clone(), Some("two")), &one, NOW));
    assert!(builtin().sees_every(&token(ann, Some("one")), &one, NOW));
}

#[test]
fn several_machines_are_allowed_only_together() {
    let several =
        |ids: &[&str]| Resource::Machines("one".parse().unwrap(), ids.iter().map(|i| i.parse().unwrap()).collect());
    let ann = actor([grant("operator", on("one/own"))]);
    let both = actor([grant("operator", Selector::Hypervisor("one".parse().unwrap()))]);
    assert!(matches!(decide(&ann, Action::Power, several(&["own"])), Decision::Permit(_)));
    assert!(matches!(decide(&ann, Action::Power, several(&["own", "other"])), Decision::Deny(Reason::Hidden(_))));
    assert!(matches!(decide(&both, Action::Power, several(&["own", "other"])), Decision::Permit(_)));
    assert!(matches!(decide(&both, Action::Power, several(&["own", "absent"])), Decision::Deny(Reason::Hidden(_))));
    assert_eq!(denied(decide(&both, Action::Power, several(&[]))), Reason::Nothing);
}

// SEC-007: a word that names no action cannot become an operation; what cannot be asked of a kind is never allowed.
#[test]
fn what_cannot_be_asked_is_denied_to_everybody() {
    let root = actor(["administrator", "security-lead", "auditor"].map(|r| grant(r, Selector::Everything)));
    assert!("console.viewx".parse::<Action>().is_err());
    for (action, resource) in [
        (Action::Session, at("one/own")),
        (Action::Deny, at("one/own")),
        (Action::Read, at("one/own")),
        (Action::Create, at("one/own")),
        (Action::ConsoleView, Resource::Hypervisor("one".parse().unwrap())),
        (Action::View, Resource::Own(OwnObject::Users)),
    ] {
        assert!(matches!(denied(decide(&root, action, resource)), Reason::Impossible(..)), "{action}");
    }
}

// SEC-011, SEC-015
#[test]
fn every_credential_meets_every_limit() {
    let root = || actor(["administrator", "security-lead"].map(|r| grant(r, Selector::Everything)));
    let on_one = Resource::Hypervisor("one".parse().unwrap());
    let scoped = token(root(), Some("one"));
    assert!(matches!(decide(&scoped, Action::View, at("one/own")), Decision::Permit(_)));
    assert!(matches!(decide(&scoped, Action::NodeAdmin, on_one), Decision::Permit(_)), "fresh when it was made");
    assert!(matches!(denied(decide(&scoped, Action::View, at("two/own"))), Reason::Scope(_)));
    assert!(matches!(denied(decide(&scoped, Action::View, at("two/absent"))), Reason::Scope(_)));
    assert!(matches!(denied(decide(&scoped, Action::Read, Resource::Own(OwnObject::Users))), Reason::Scope(_)));
    assert_eq!(builtin().visible(&scoped, &inventory(), NOW).len(), 2);
    assert!(!builtin().may_see(&scoped, &Resource::Own(OwnObject::Users), &inventory(), NOW));
    let wide = token(root(), None);
    assert!(matches!(decide(&wide, Action::Read, Resource::Own(OwnObject::Users)), Decision::Permit(_)));
    for (action, object) in
        [(Action::Write, OwnObject::Users), (Action::Lock, OwnObject::Sessions), (Action::Approve, OwnObject::Requests)]
    {
        assert_eq!(denied(decide(&wide, action, Resource::Own(object))), Reason::TokenCannotStepUp);
    }
    // A token is never more than its owner.
    let bare = token(actor([grant("viewer", on("one/own"))]), Some("one"));
    assert!(matches!(decide(&bare, Action::Power, at("one/own")), Decision::Deny(Reason::Role(_))));
    // Fewer than two factors open nothing, whatever the grants.
    for factors in [vec![], vec![Factor::Password], vec![Factor::Totp], vec![Factor::Password, Factor::RecoveryCode]] {
        let mut weak = root();
        weak.assurance = Assurance::default();
        for factor in &factors {
            weak.assurance.prove(*factor, NOW);
        }
        assert_eq!(denied(decide(&weak, Action::View, at("one/own"))), Reason::Assurance, "{factors:?}");
        assert!(!builtin().may_see(&weak, &at("one/own"), &inventory(), NOW));
        assert!(builtin().visible(&weak, &inventory(), NOW).is_empty());
    }
}

// ---- when

#[test]
fn a_grant_counts_from_its_first_instant_until_its_last() {
    let window = Grant { from: NOW, until: Some(NOW + Duration::MINUTE), ..grant("viewer", on("one/own")) };
    let ann = actor([window]);
    let decide = |now| builtin().decide(&ann, &ask(Action::View, at("one/own")), &inventory(), now);
    assert!(matches!(decide(NOW - Duration::NANOSECOND), Decision::Deny(_)));
    assert_eq!(permitted(decide(NOW)).expires_at(), NOW + Duration::MINUTE, "never after the grant");
    assert!(matches!(decide(NOW + Duration::MINUTE - Duration::NANOSECOND), Decision::Permit(_)));
    assert!(matches!(decide(NOW + Duration::MINUTE), Decision::Deny(_)));
    let long = actor([grant("viewer", on("one/own"))]);
    let permit = permitted(builtin().decide(&long, &ask(Action::View, at("one/own")), &inventory(), NOW));
    assert_eq!(permit.expires_at(), NOW + LIFE);
    assert!(permit.is_good(NOW + LIFE - Duration::NANOSECOND) && !permit.is_good(NOW + LIFE));
}

#[test]
fn a_permit_lasts_until_the_last_grant_of_the_first_target_ends() {
    let until = |role: &str, selector: Selector, minutes: Option<i64>| Grant {
        until: minutes.map(|m| NOW + Duration::minutes(m)),
        ..grant(role, selector)
    };
    let lasts = |grants: Vec<Grant>, resource: Resource| {
        let asked = ask(Action::View, resource);
        permitted(builtin().decide(&actor(grants), &asked, &inventory(), NOW)).lasts_until() - NOW
    };
    let own = || on("one/own");
    assert_eq!(lasts(vec![until("viewer", own(), Some(90))], at("one/own")), Duration::minutes(90));
    let two = vec![until("viewer", own(), Some(30)), until("console-user", own(), Some(90))];
    assert_eq!(lasts(two, at("one/own")), Duration::minutes(90), "the one that is left allows it alone");
    let endless = vec![until("viewer", own(), Some(30)), until("viewer", own(), None)];
    assert_eq!(lasts(endless, at("one/own")), LONGEST, "renewing has an end of its own");
    let both = Resource::Machines("one".parse().unwrap(), ["own", "other"].map(|m| m.parse().unwrap()).to_vec());
    let per_machine = vec![until("viewer", own(), Some(90)), until("viewer", on("one/other"), Some(60))];
    assert_eq!(lasts(per_machine, both), Duration::minutes(60), "each machine must stay allowed");
    let elsewhere = vec![until("viewer", own(), Some(30)), until("viewer", on("two/own"), Some(90))];
    assert_eq!(lasts(elsewhere, at("one/own")), Duration::minutes(30));
}

#[test]
fn what_is_strong_asks_for_a_fresh_factor_within_the_window() {
    let everything = ["administrator", "security-lead", "auditor"].map(|r| grant(r, Selector::Everything));
    let mut ann = actor(everything);
    let asks = |ann: &Actor, action, resource: Resource, now| {
        matches!(builtin().decide(ann, &ask(action, resource), &inventory(), now), Decision::StepUp(_))
    };
    let later = NOW + Duration::seconds(301);
    for (action, resource, strong) in [
        (Action::View, at("one/own"), false),
        (Action::Power, at("one/own"), false),
        (Action::Configure, at("one/own"), false),
        (Action::ConsoleView, at("one/own"), true),
        (Action::ConsoleControl, at("one/own"), true),
        (Action::GuestExec, at("one/own"), true),
        (Action::Destroy, at("one/own"), true),
        (Action::NodeAdmin, Resource::Hypervisor("one".parse().unwrap()), true),
        (Action::AccessAdmin, Resource::Hypervisor("one".parse().unwrap()), true),
        (Action::Read, Resource::Own(OwnObject::Audit), false),
        (Action::Write, Resource::Own(OwnObject::Policy), true),
        (Action::Lock, Resource::Own(OwnObject::Sessions), true),
        (Action::Play, Resource::Own(OwnObject::Recordings), true),
        (Action::Export, Resource::Own(OwnObject::Audit), true),
        (Action::Approve, Resource::Own(OwnObject::Requests), true),
    ] {
        assert!(!asks(&ann, action, resource.clone(), NOW + Duration::seconds(300)), "{action}");
        assert_eq!(asks(&ann, action, resource, later), strong, "{action}");
    }
    // A clock set back makes no proof fresh.
    assert!(asks(&ann, Action::ConsoleView, at("one/own"), NOW - Duration::SECOND));
    // The command line has no exemption.
    ann.via = Via::CommandLine;
    assert!(asks(&ann, Action::ConsoleView, at("one/own"), later));
    // Whoever may not is not asked for a code first.
    let viewer = actor([grant("viewer", on("one/own"))]);
    assert!(matches!(
        builtin().decide(&viewer, &ask(Action::ConsoleView, at("one/own")), &inventory(), later),
        Decision::Deny(_)
    ));
}

#[test]
fn the_strictest_condition_of_the_grants_that_allow_counts() {
    let with = |role: &str, n, seconds, record, until| Grant {
        id: GrantId::new(id(n)),
        conditions: Conditions { step_up_seconds: seconds, record, ..Conditions::default() },
        until,
        ..grant(role, on("one/own"))
    };
    let end = NOW + Duration::MINUTE;
    let loose = || with("console-user", 1, 3600, false, None);
    let strict = || with("console-user", 2, 60, true, Some(end));
    let idle = || with("viewer", 3, 0, true, Some(NOW + Duration::SECOND));
    let get = |grants: Vec<Grant>, now| {
        builtin().decide(&seated(builtin(), 4711, grants), &ask(Action::ConsoleView, at("one/own")), &inventory(), now)
    };
    let permit = permitted(get(vec![loose()], NOW));
    assert!(!permit.must_record());
    // A grant that does not allow the operation says nothing about it.
    assert_eq!(permitted(get(vec![loose(), idle()], NOW)), permit);
    let both = permitted(get(vec![loose(), strict()], NOW));
    assert!(both.must_record());
    assert_eq!(both.expires_at(), end);
    assert_eq!(both.grants(), [GrantId::new(id(1)), GrantId::new(id(2))]);
    assert_eq!(get(vec![loose(), strict()], NOW + Duration::seconds(59)), {
        let first_at = NOW + Duration::seconds(59);
        let Decision::Permit(p) = get(vec![strict(), loose()], first_at) else { panic!() };
        assert_eq!(p.first_at(), first_at);
        get(vec![loose(), strict()], first_at)
    });
    let stale = || NOW + Duration::seconds(61);
    let endless = Grant { until: None, ..strict() };
    assert_eq!(get(vec![loose(), endless], stale()), Decision::StepUp(Need { window: Duration::seconds(60) }));
    assert!(matches!(get(vec![loose()], stale()), Decision::Permit(_)));
    // A window of nothing would ask for ever.
    let zero = with("console-user", 4, 0, true, None);
    assert!(matches!(get(vec![zero], NOW + Duration::seconds(10)), Decision::Permit(_)));
    // Recording is for screens.
    let power = actor([Grant { conditions: Conditions::default(), ..grant("operator", on("one/own")) }]);
    assert!(!permitted(decide(&power, Action::Power, at("one/own"))).must_record());
}

#[test]
fn renewing_asks_everything_anew_but_the_code() {
    let ann = actor([grant("console-user", on("one/own"))]);
    let permit = permitted(decide(&ann, Action::ConsoleControl, at("one/own")));
    let later = NOW + Duration::hours(6);
    let engine = builtin();
    let next = permitted(engine.renew(&permit, &ann, &inventory(), later));
    assert_eq!((next.first_at(), next.expires_at()), (NOW, later + LIFE));
    assert_eq!(next.operation(), permit.operation());
    // Somebody else's, another session, a revoked grant, a lost machine, a lost factor, a day later.
    let other = Actor { user: UserId::new(id(9)), ..ann.clone() };
    assert_eq!(denied(engine.renew(&permit, &other, &inventory(), later)), Reason::Stranger);
    let elsewhere = Actor { via: Via::Session(SessionId::new(id(9))), ..ann.clone() };
    assert_eq!(denied(engine.renew(&permit, &elsewhere, &inventory(), later)), Reason::Stranger);
    assert!(matches!(engine.renew(&permit, &ann, &Inventory::default(), later), Decision::Deny(Reason::Hidden(_))));
    let weak = Actor { assurance: Assurance::default(), ..ann.clone() };
    assert_eq!(denied(engine.renew(&permit, &weak, &inventory(), later)), Reason::Assurance);
    assert_eq!(denied(engine.renew(&permit, &ann, &inventory(), NOW + LONGEST)), Reason::Worn);
    assert_eq!(denied(engine.renew(&next, &ann, &inventory(), NOW + LONGEST)), Reason::Worn, "renewing adds no time");
    assert_eq!(denied(engine.renew(&permit, &ann, &inventory(), NOW - Duration::SECOND)), Reason::Worn);
    for held in engine.grants_of(ann.user) {
        engine.apply([GrantChange::Take(ann.user.into(), held.id)]);
    }
    assert!(matches!(engine.renew(&permit, &ann, &inventory(), later), Decision::Deny(Reason::Hidden(_))));
}

// ---- conditions and groups

fn with(conditions: Conditions) -> Grant {
    Grant { conditions, ..grant("console-user", on("one/own")) }
}

fn view(actor: &Actor, now: OffsetDateTime) -> Decision {
    builtin().decide(actor, &ask(Action::View, at("one/own")), &inventory(), now)
}

#[test]
fn a_grant_with_hours_counts_inside_them_and_a_stream_ends_with_them() {
    // NOW is a Saturday, 12:00 in London and 13:00 in Berlin.
    let hours = |text: &str| Conditions { hours: Some(text.parse().unwrap()), ..Conditions::default() };
    let ann = actor([with(hours("sat 08:00-13:30 Europe/Berlin"))]);
    let permit = permitted(view(&ann, NOW));
    let end = NOW + Duration::minutes(30);
    assert_eq!(permit.lasts_until(), end);
    assert!(matches!(view(&ann, end - Duration::SECOND), Decision::Permit(_)));
    assert!(matches!(view(&ann, end), Decision::Deny(Reason::Hidden(_))));
    assert!(matches!(builtin().renew(&permit, &ann, &inventory(), end - Duration::SECOND), Decision::Permit(_)));
    assert!(matches!(builtin().renew(&permit, &ann, &inventory(), end), Decision::Deny(_)));
    // One that counts on is there as well.
    let both = actor([with(hours("sat 08:00-13:30 Europe/Berlin")), with(hours("mon-sun 00:00-24:00 UTC"))]);
    assert_eq!(permitted(view(&both, NOW)).lasts_until(), NOW + LONGEST);
    let never = |text: &str| Grant { effect: GrantEffect::Deny, ..with(hours(text)) };
    let kept = actor([grant("viewer", on("one/own")), never("sat 08:00-13:30 Europe/Berlin")]);
    assert!(matches!(view(&kept, NOW), Decision::Deny(_)) && matches!(view(&kept, end), Decision::Permit(_)));
}

#[test]
fn a_zone_that_this_machine_does_not_know_gives_nothing_and_forbids() {
    let lost = Conditions { hours: Some("mon-sun 00:00-24:00 Mars/Olympus".parse().unwrap()), ..Conditions::default() };
    assert!(matches!(view(&actor([with(lost.clone())]), NOW), Decision::Deny(_)));
    let forbidden = actor([grant("viewer", on("one/own")), Grant { effect: GrantEffect::Deny, ..with(lost) }]);
    assert!(matches!(view(&forbidden, NOW), Decision::Deny(_)));
}

// SEC-011
#[test]
fn a_grant_for_a_network_counts_for_whoever_asks_from_there() {
    let near = Conditions { networks: vec!["10.0.0.0/8".parse().unwrap()], ..Conditions::default() };
    let from = |ann: &Actor, ip: Option<&str>| Actor { from: ip.map(|ip| ip.parse().unwrap()), ..ann.clone() };
    let ann = actor([with(near.clone())]);
    for (ip, allowed) in [
        (Some("10.9.8.7"), true),
        (Some("::ffff:10.9.8.7"), true),
        (Some("11.0.0.1"), false),
        (Some("::1"), false),
        (None, false),
    ] {
        assert_eq!(matches!(view(&from(&ann, ip), NOW), Decision::Permit(_)), allowed, "{ip:?}");
        let token = token(from(&ann, ip), None);
        assert_eq!(matches!(view(&token, NOW), Decision::Permit(_)), allowed, "{ip:?}, by token");
    }
    // A stream stays where it was opened, whatever is known of its person later.
    let permit = permitted(view(&from(&ann, Some("10.9.8.7")), NOW));
    assert!(matches!(builtin().renew(&permit, &from(&ann, None), &inventory(), NOW), Decision::Permit(_)));
    let barred = actor([grant("viewer", on("one/own")), Grant { effect: GrantEffect::Deny, ..with(near) }]);
    assert!(matches!(view(&from(&barred, Some("10.9.8.7")), NOW), Decision::Deny(_)));
    assert!(matches!(view(&from(&barred, None), NOW), Decision::Deny(_)), "nobody knows from where");
    assert!(matches!(view(&from(&barred, Some("192.0.2.1")), NOW), Decision::Permit(_)));
}

#[test]
fn a_grant_that_asks_for_a_passkey_says_so_to_whoever_has_none() {
    let ann = actor([with(Conditions { passkey: true, ..Conditions::default() })]);
    assert_eq!(denied(view(&ann, NOW)), Reason::Passkey);
    assert_eq!(denied(view(&token(ann.clone(), None), NOW)), Reason::Passkey);
    let mut proven = ann.clone();
    proven.assurance.prove(Factor::Passkey, NOW);
    assert!(matches!(view(&proven, NOW), Decision::Permit(_)));
    // What it does not allow is not a matter of passkeys.
    assert!(matches!(denied(decide(&proven, Action::Power, at("one/own"))), Reason::Role(_)));
    assert!(matches!(denied(decide(&ann, Action::View, at("one/other"))), Reason::Hidden(_)));
}

#[test]
fn a_grant_for_kinds_of_machines_covers_those_and_no_hypervisor() {
    let of = |kinds: &[MachineKind]| Grant {
        conditions: Conditions { kinds: kinds.to_vec(), ..Conditions::default() },
        ..grant("viewer", Selector::Everything)
    };
    assert!(matches!(view(&actor([of(&[MachineKind::Guest])]), NOW), Decision::Permit(_)));
    assert!(matches!(view(&actor([of(&[MachineKind::Container])]), NOW), Decision::Deny(_)));
    let one = Resource::Hypervisor("one".parse().unwrap());
    assert!(matches!(decide(&actor([of(&[MachineKind::Guest])]), Action::View, one), Decision::Deny(_)));
}

#[test]
fn the_smallest_limit_of_the_clipboard_counts() {
    let limits = |i, o| with(Conditions { clipboard_in: i, clipboard_out: o, ..Conditions::default() });
    let permit = permitted(view(&actor([limits(Some(10), None), limits(Some(3), Some(7)), limits(None, None)]), NOW));
    assert_eq!((permit.clipboard_in(), permit.clipboard_out()), (Some(3), Some(7)));
}

#[test]
fn whoever_is_in_a_group_holds_what_it_holds_for_as_long_as_they_are_in_it() {
    let engine = run(Engine::builtin()).unwrap();
    let (ann, bob) = (seated(&engine, 1, []), seated(&engine, 2, []));
    let ops = portcullis_domain::GroupId::new(id(9));
    let sees = |who: &Actor| {
        matches!(engine.decide(who, &ask(Action::View, at("one/own")), &inventory(), NOW), Decision::Permit(_))
    };
    let held = grant("viewer", on("one/own"));
    engine.apply([GrantChange::Put(ops.into(), held.clone()), GrantChange::Members(ops, vec![ann.user])]);
    assert!(sees(&ann) && !sees(&bob));
    assert_eq!(engine.grants_of(ann.user), [held]);
    engine.apply([GrantChange::Members(ops, vec![bob.user])]);
    assert!(!sees(&ann) && sees(&bob));
    let never = Grant { effect: GrantEffect::Deny, ..grant("viewer", Selector::Everything) };
    engine.apply([GrantChange::Put(ops.into(), never.clone())]);
    assert!(!sees(&bob));
    engine.apply([GrantChange::Take(ops.into(), never.id)]);
    assert!(sees(&bob));
    // What is tried changes nothing for anybody.
    let tried = engine.snapshot().what_if([GrantChange::Members(ops, vec![])]);
    assert!(tried.grants_of(bob.user).is_empty() && sees(&bob));
    engine.apply([GrantChange::Members(ops, vec![])]);
    assert!(!sees(&bob) && engine.grants_of(bob.user).is_empty());
}

#[test]
fn many_holders_that_come_one_after_another_all_keep_what_is_theirs() {
    let engine = run(Engine::builtin()).unwrap();
    let user = |n: u128| UserId::new(id(n));
    for some in 0..20 {
        engine.apply((0..100).map(|n| {
            let n = some * 100 + n;
            GrantChange::Put(user(n).into(), Grant { id: GrantId::new(id(n)), ..grant("viewer", on("one/own")) })
        }));
    }
    engine.apply((0..2_000).filter(|n| n % 3 == 0).map(|n| GrantChange::Take(user(n).into(), GrantId::new(id(n)))));
    let snapshot = engine.snapshot();
    let left: Vec<u128> = (0..2_000).filter(|n| n % 3 != 0).collect();
    assert_eq!((snapshot.grants(), snapshot.people().count()), (left.len(), left.len()));
    for n in 0..2_000 {
        let held: Vec<GrantId> = engine.grants_of(user(n)).iter().map(|g| g.id).collect();
        assert_eq!(held, if n % 3 == 0 { vec![] } else { vec![GrantId::new(id(n))] });
    }
}

// SEC-010
#[test]
fn whoever_depends_on_what_cannot_be_read_is_denied_everything() {
    let engine = run(Engine::builtin()).unwrap();
    let [ann, bob] = [1, 2].map(|n| seated(&engine, n, [grant("viewer", on("one/own"))]));
    let ops = portcullis_domain::GroupId::new(id(9));
    let view = |who: &Actor| engine.decide(who, &ask(Action::View, at("one/own")), &inventory(), NOW);
    engine.apply([GrantChange::Members(ops, vec![ann.user])]);
    assert!(matches!(view(&ann), Decision::Permit(_)));
    for shut in [GrantChange::Shut(ops.into()), GrantChange::Shut(ann.user.into())] {
        engine.apply([shut]);
        assert_eq!(denied(view(&ann)), Reason::Fault);
        assert!(!engine.may_see(&ann, &at("one/own"), &inventory(), NOW));
        assert!(matches!(view(&bob), Decision::Permit(_)), "it is none of theirs");
    }
    // Nothing that comes on top makes it readable again; all of it does.
    engine.apply([GrantChange::Put(ann.user.into(), grant("viewer", on("one/own")))]);
    assert_eq!(denied(view(&ann)), Reason::Fault);
    engine.apply([GrantChange::ShutAll]);
    assert_eq!(denied(view(&bob)), Reason::Fault);
    engine.reset([GrantChange::Put(ann.user.into(), grant("viewer", on("one/own")))]);
    assert!(matches!(view(&ann), Decision::Permit(_)) && matches!(view(&bob), Decision::Deny(Reason::Hidden(_))));
}

// ---- the policy itself

#[test]
fn a_grant_that_forbids_wins_over_every_grant_that_allows() {
    let csv = format!("{RULES}\ng2, machine/power, frozen\n");
    let engine = run(Engine::load(&csv)).unwrap();
    let never = |role: &str, on| Grant { effect: GrantEffect::Deny, ..grant(role, on) };
    let power = |grants: Vec<Grant>| {
        engine.decide(&seated(&engine, fresh(), grants), &ask(Action::Power, at("one/own")), &inventory(), NOW)
    };
    let operator = || grant("operator", on("one/own"));
    assert!(matches!(power(vec![operator()]), Decision::Permit(_)));
    for on in [on("one/own"), Selector::Everything, Selector::Tag("web".into())] {
        let reason = denied(power(vec![operator(), never("frozen", on)]));
        assert_eq!(reason.to_string(), "Your role frozen forbids power on this machine.");
    }
    // Whoever is forbidden something somewhere does not cover it anywhere.
    let lead = seated(&engine, fresh(), [grant("operator", Selector::Everything), never("frozen", on("one/own"))]);
    assert!(!engine.covers(&lead, &[grant("operator", on("one/other"))], NOW));
    assert!(engine.covers(&lead, &[grant("console-user", on("one/other"))], NOW));
    let both = [grant("operator", Selector::Everything), never("frozen", Selector::Everything)];
    assert!(engine.allows_everywhere(&both, Kind::Machine, Action::View));
    assert!(!engine.allows_everywhere(&both, Kind::Machine, Action::Power));
    assert!(!engine.allows_everywhere(&[operator()], Kind::Machine, Action::View));
    // Only where it is, and a role that the policy does not have gives nothing and takes nothing.
    assert!(matches!(power(vec![operator(), never("frozen", on("one/other"))]), Decision::Permit(_)));
    assert!(matches!(power(vec![operator(), never("gone", on("one/own"))]), Decision::Permit(_)));
}

// SEC-182
#[test]
fn a_refused_set_leaves_the_last_good_one_and_no_decision_sees_a_mixed_one() {
    let opens = "g2, machine/view, viewer\ng2, machine/power, viewer\n";
    let shuts = "g2, machine/view, viewer\ng2, machine/configure, viewer\n";
    let engine = run(Engine::load(opens)).unwrap();
    let ann = seated(&engine, fresh(), [grant("viewer", on("one/own"))]);
    let before = engine.generation();
    let yes = |a| matches!(engine.decide(&ann, &ask(a, at("one/own")), &inventory(), NOW), Decision::Permit(_));
    for bad in [
        "",
        "g2, viewer, machine",
        "g2, machine/view, viewer, maybe",
        "g2, machine/view, viewer\ng2, nobody, viewer",
        "g2, machine/viewx, viewer",
    ] {
        assert!(run(engine.replace(bad)).is_err(), "{bad}");
        assert!(run(engine.check(bad)).is_err(), "{bad}");
        assert!(yes(Action::Power) && !yes(Action::Configure), "{bad}");
    }
    assert_eq!(engine.generation(), before);
    // Each snapshot allows exactly one of the two actions. A reader that asks one snapshot twice must never find both
    // or neither.
    std::thread::scope(|s| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    for _ in 0..20_000 {
                        let snapshot = engine.snapshot();
                        let asked = |a| {
                            let freshness = Freshness::Asked { first_at: NOW };
                            let here = moment(&ann, None, NOW);
                            let decision =
                                snapshot.decide(&ann, &ask(a, at("one/own")), &inventory(), &here, freshness);
                            matches!(decision, Decision::Permit(_))
                        };
                        assert_ne!(asked(Action::Power), asked(Action::Configure));
                    }
                })
            })
            .collect();
        let mut turns = 0u64;
        while readers.iter().any(|r| !r.is_finished()) {
            turns += 1;
            run(engine.replace(if turns.is_multiple_of(2) { opens } else { shuts })).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(engine.generation(), before + turns);
    });
    run(engine.replace(shuts)).unwrap();
    assert!(!yes(Action::Power) && yes(Action::Configure), "an answer that was kept does not outlive its policy");
}

#[test]
fn the_matrix_is_the_reviewed_one() {
    let found = builtin().matrix();
    assert!(
        found == MATRIX,
        "the roles mean something else than policies/matrix.txt says. If that is wanted, run\n\
         portcullis policy matrix > policies/matrix.txt\nand review the difference.\n\n{found}"
    );
}

#[test]
fn roles_are_kept_apart() {
    let engine = builtin();
    let role = |name: &str| engine.roles().into_iter().find(|r| r.name.as_str() == name).unwrap();
    let has = |name: &str, kind, action| role(name).rights.contains(&(kind, action));
    let auditor = role("auditor");
    assert!(
        auditor
            .rights
            .iter()
            .all(|(k, a)| matches!(k, Kind::Own(_)) && matches!(a, Action::Read | Action::Play | Action::Export))
    );
    assert!(
        role("security-lead")
            .rights
            .iter()
            .all(|(_, a)| !a.is_console() && *a != Action::GuestExec && *a != Action::Play)
    );
    assert!(!has("administrator", Kind::Own(OwnObject::Policy), Action::Write), "an administrator gives no roles");
    assert!(!has("administrator", Kind::Own(OwnObject::Audit), Action::Read));
    for quiet in ["viewer", "console-user", "operator"] {
        assert!(role(quiet).rights.iter().all(|(k, _)| !matches!(k, Kind::Own(_))), "{quiet}");
    }
    for (lower, higher) in [("viewer", "console-user"), ("console-user", "operator"), ("operator", "administrator")] {
        let higher = role(higher);
        assert!(role(lower).rights.iter().all(|r| higher.rights.contains(r)), "{lower}");
    }
}

#[test]
fn an_explanation_names_the_grants_and_the_rules() {
    let grants = [
        grant("operator", on("one/own")),
        grant("auditor", on("two/own")),
        grant("gone", on("one/own")),
        Grant { from: NOW + Duration::HOUR, ..grant("viewer", on("one/own")) },
        Grant { until: Some(NOW), ..grant("viewer", on("one/own")) },
    ];
    let told = builtin().explain(&actor(grants), &ask(Action::Power, at("one/own")), &inventory(), NOW);
    assert_eq!(told.decision, "permit");
    assert_eq!(told.grants.iter().map(|g| g.counts).collect::<Vec<_>>(), [Yes, Elsewhere, NoSuchRole, NotYet, Over]);
    assert_eq!(told.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["console-user", "operator", "viewer"]);
    let [rule] = told.rules.as_slice() else { panic!("{told}") };
    let line = RULES.lines().nth(rule.line.number - 1).unwrap();
    assert_eq!(line, "g2, machine/power, operator");
    assert!(told.to_string().contains(&format!("{}: operator allows it", rule.line)), "{told}");
}

// SEC-006
#[test]
fn rights_are_covered_only_by_as_many_on_as_much() {
    let engine = builtin();
    let everything = |r| grant(r, Selector::Everything);
    let one = || Selector::Hypervisor("one".parse().unwrap());
    let covers = |held: Vec<Grant>, asked: &[Grant]| engine.covers(&actor(held), asked, NOW);
    assert!(covers(vec![everything("administrator")], &[everything("operator"), grant("viewer", on("one/own"))]));
    assert!(!covers(vec![everything("administrator")], &[everything("security-lead")]));
    assert!(!covers(vec![everything("security-lead")], &[everything("administrator")]));
    assert!(covers(
        vec![everything("security-lead"), everything("administrator")],
        &[everything("security-lead"), everything("administrator")]
    ));
    assert!(covers(vec![grant("administrator", one())], &[grant("administrator", on("one/own"))]));
    assert!(!covers(vec![grant("administrator", one())], &[grant("viewer", on("two/own"))]));
    assert!(!covers(vec![grant("administrator", one())], &[grant("viewer", Selector::Tag("web".into()))]));
    assert!(!covers(vec![grant("administrator", on("one/own"))], &[grant("viewer", one())]));
    assert!(!covers(vec![], &[grant("viewer", on("one/own"))]));
    assert!(covers(vec![], &[]));
    // What is over counts for nothing; what is yet to begin counts.
    assert!(covers(vec![], &[Grant { until: Some(NOW), ..everything("administrator") }]));
    assert!(!covers(vec![], &[Grant { from: NOW + Duration::DAY, ..everything("administrator") }]));
    assert!(!engine.covers(&token(actor([everything("administrator")]), Some("one")), &[everything("viewer")], NOW));
}

#[test]
fn a_person_with_ten_thousand_grants_is_decided_like_any_other() {
    let many = (0..10_000).map(|n| Grant { id: GrantId::new(id(n)), ..grant("operator", on(&format!("one/m{n}"))) });
    let ann = actor(many.chain([grant("operator", on("one/own"))]));
    assert!(matches!(decide(&ann, Action::Power, at("one/own")), Decision::Permit(_)));
    assert!(matches!(decide(&ann, Action::Power, at("one/other")), Decision::Deny(Reason::Hidden(_))));
    let everywhere = (0..10_000).map(|n| Grant { id: GrantId::new(id(n)), ..grant("operator", Selector::Everything) });
    assert_eq!(permitted(decide(&actor(everywhere), Action::Power, at("one/own"))).grants().len(), NAMED);
}

// ---- no mixing of questions (SEC-017)

#[test]
fn questions_asked_at_once_do_not_get_each_others_answers() {
    let csv = "g2, machine/view, a\ng2, machine/power, a-b\ng2, machine/configure, b\n";
    let engine = run(Engine::load(csv)).unwrap();
    let right = [("a", Action::View), ("a-b", Action::Power), ("b", Action::Configure)];
    std::thread::scope(|s| {
        for turn in 0..4usize {
            let engine = &engine;
            s.spawn(move || {
                for n in 0..5_000usize {
                    let (role, _) = right[(n + turn) % 3];
                    let (_, action) = right[n * 7 / 3 % 3];
                    let ann = seated(engine, turn as u128, [grant(role, on("one/own"))]);
                    let got = engine.decide(&ann, &ask(action, at("one/own")), &inventory(), NOW);
                    assert_eq!(matches!(got, Decision::Permit(_)), right.contains(&(role, action)), "{role} {action}");
                }
            });
        }
    });
}

#[test]
fn one_right_by_itself_is_given_and_forbidden_alone() {
    let power = grant("machine/power", on("one/own"));
    let actor_of = |grants: Vec<Grant>| actor(grants);
    let only = actor_of(vec![power.clone()]);
    permitted(decide(&only, Action::Power, at("one/own")));
    for action in [Action::View, Action::ConsoleView, Action::Snapshot] {
        denied(decide(&only, action, at("one/own")));
    }
    let mut no_keys = grant("machine/console.control", on("one/own"));
    no_keys.effect = GrantEffect::Deny;
    let watcher = actor_of(vec![grant("operator", on("one/own")), no_keys]);
    permitted(decide(&watcher, Action::ConsoleView, at("one/own")));
    let why = denied(decide(&watcher, Action::ConsoleControl, at("one/own")));
    assert!(matches!(&why, Reason::Forbidden { by, .. } if by.len() == 1), "{why:?}");
    // What is held one by one is held: it can be given on, and no more than it.
    let engine = builtin();
    assert!(engine.has_role(&"machine/power".parse().unwrap()));
    assert!(!engine.has_role(&"machine/create".parse().unwrap()), "no machine is asked to make one");
    let giver = actor_of(vec![grant("machine/power", Selector::Everything)]);
    assert!(engine.covers(&giver, [&power], NOW));
    assert!(!engine.covers(&giver, [&grant("viewer", on("one/own"))], NOW));
}
