// SPDX-License-Identifier: Apache-2.0
//! A decision allocates nothing. Alone in its program: the counter counts every thread.

use portcullis_domain::{ConsoleKind, GrantChange, GrantId, GroupId, Machine, MachineKind, PowerState, UserId};
use portcullis_policy::{Engine, Given, Kind, Moment, Passkey, Target, Verdict};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use time::macros::datetime;
use uuid::Uuid;

#[global_allocator]
static ALLOCATED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_decision_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engine = runtime.block_on(Engine::builtin()).unwrap();
    let now = datetime!(2026-11-27 12:00 UTC);
    let (user, group) = (UserId::new(Uuid::from_u128(1)), GroupId::new(Uuid::from_u128(2)));
    let rows = [
        ("tag:web", "", "allow"),
        ("pattern:lab/*/*", "hours=mon-fri 08:00-18:00 Europe/Berlin;from=10.0.0.0/8", "allow"),
        ("pool:lab/prod", "passkey", "allow"),
        ("machine:lab/2", "kinds=guest", "deny"),
        ("hypervisor:lab", "until=2027-01-01T00:00Z", "allow"),
    ];
    let grants = rows.iter().enumerate().map(|(n, (on, when, effect))| {
        let holder = if n % 2 == 0 { user.into() } else { group.into() };
        let given = Given::read("operator", on, when, effect).unwrap();
        GrantChange::Put(holder, given.grant(GrantId::new(Uuid::from_u128(n as u128)), now))
    });
    engine.apply(grants.chain([GrantChange::Members(group, vec![user])]));
    let machine = |id: &str| Machine {
        at: format!("lab/{id}").parse().unwrap(),
        name: String::new(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: Some("prod".into()),
        tags: vec!["web".into(), "other".into()],
        node: None,
        console: ConsoleKind::Vnc,
    };
    let machines = [machine("1"), machine("2")];
    let at = Moment::new(now, "10.1.2.3".parse().ok(), Passkey::Missing);
    let all = || {
        let snapshot = engine.snapshot_now();
        machines
            .each_ref()
            .map(|m| snapshot.verdict(user, Target::Machine(m), Kind::Machine, portcullis_domain::Action::Power, &at))
    };
    // The first look of a thread may set up what it keeps.
    assert_eq!(all(), [Verdict::Allow, Verdict::Deny]);
    let region = Region::new(ALLOCATED);
    for _ in 0..1_000 {
        assert_eq!(all(), [Verdict::Allow, Verdict::Deny]);
    }
    assert_eq!(region.change().allocations, 0);
}
