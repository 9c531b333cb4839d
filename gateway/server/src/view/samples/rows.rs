// SPDX-License-Identifier: Apache-2.0
//! What stands in the lists of the sample pages.

use super::*;
use portcullis_domain::{Action, Outcome};

pub(super) fn machines(w: &Words) -> Vec<MachineRow> {
    let row = |name: &str, hypervisor: &str, state, console, tags: &[&str]| MachineRow {
        hypervisor: hypervisor.to_owned(),
        id: "0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11".to_owned(),
        name: w.name(name),
        kind: MachineKind::Guest,
        state,
        pool: None,
        tags: tags.iter().map(|t| w.name(t)).collect(),
        node: None,
        favourite: false,
        console,
        power: Power::for_state(state),
        no_power: None,
    };
    let closed = |why: &str| ConsoleDoor::Closed(w.text(why));
    match w.fill {
        Fill::Empty => vec![],
        _ => vec![
            MachineRow {
                favourite: true,
                ..row("pay-db-01", "kvm-berlin", PowerState::Running, ConsoleDoor::Control, &["pay", "tier-0"])
            },
            MachineRow {
                favourite: true,
                pool: Some("web".to_owned()),
                node: Some("node-3".to_owned()),
                ..row("web-1", "pve-paris", PowerState::Running, ConsoleDoor::Control, &["web", "public"])
            },
            row("build-agent", "kvm-berlin", PowerState::Paused, ConsoleDoor::View, &["ci"]),
            row(
                "domain-controller",
                "kvm-berlin",
                PowerState::Off,
                closed("It is off. Power it on first."),
                &["tier-0"],
            ),
            MachineRow {
                power: vec![],
                ..row(
                    "legacy-erp",
                    "esx-old",
                    PowerState::Unknown,
                    closed("esx-old does not answer since 7 minutes."),
                    &[],
                )
            },
            MachineRow {
                power: vec![],
                no_power: Some(shut(w, Action::Power)),
                ..row(
                    "hr-files",
                    "kvm-berlin",
                    PowerState::Running,
                    ConsoleDoor::Shut(Box::new(shut(w, Action::ConsoleView))),
                    &["hr"],
                )
            },
            row("crash-test", "kvm-berlin", PowerState::Crashed, ConsoleDoor::Control, &[]),
            MachineRow {
                kind: MachineKind::Container,
                id: "default:c1".to_owned(),
                pool: Some("default".to_owned()),
                ..row(
                    "c1",
                    "lxd-1",
                    PowerState::Running,
                    closed("Its text console opens with: lxc console c1"),
                    &["ci", "short-lived"],
                )
            },
            MachineRow {
                name: LONG.to_owned(),
                tags: vec![LONG.to_owned()],
                ..row("x", "kvm-berlin", PowerState::Running, ConsoleDoor::Control, &[])
            },
            MachineRow {
                name: RTL.to_owned(),
                ..row("x", "kvm-berlin", PowerState::Running, ConsoleDoor::Control, &["ويب"])
            },
        ],
    }
}

fn shut(w: &Words, action: Action) -> Shut {
    Shut {
        what: action.deed(),
        why: w.text("Your role operator on tag hr counts at these hours only: mon-fri 08:00-18:00 Europe/Berlin."),
        needs: vec![w.text("You need the role operator on this machine. Ask a security lead.")],
        fresh: action.is_console(),
        ask: Some((w.text("/requests/new?on=machine:x&role=operator"), "Ask for it")),
        rules: vec!["01935d0a00007000800000000000000a".to_owned()],
    }
}

pub(super) fn console(w: &Words, mode: ConsoleMode, closed: Option<&str>) -> ConsolePage {
    let state = if closed.is_some() { PowerState::Off } else { PowerState::Running };
    ConsolePage {
        shell: w.shell(),
        hypervisor: "kvm-berlin".to_owned(),
        id: "0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11".to_owned(),
        name: w.name("pay-db-01"),
        state,
        mode,
        may_control: true,
        recorded: if mode == ConsoleMode::Control { Recorded::Yes } else { Recorded::No },
        power: Power::for_state(state),
        closed: closed.map(|c| w.text(c)),
        no_power: (mode == ConsoleMode::View).then(|| shut(w, Action::Power)),
        no_keys: (mode == ConsoleMode::View).then(|| shut(w, Action::ConsoleControl)),
        may_lock: w.fill != Fill::Empty,
        problems: w.problems(&[""]),
    }
}

pub(super) fn users(w: &Words) -> Vec<UserRow> {
    let row = |name: &str, display: &str, state, roles: &[&str], seen| UserRow {
        id: "01935d0a00007000800000000000000a".to_owned(),
        name: w.name(name),
        display_name: w.name(display),
        state,
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        seen,
    };
    match w.fill {
        Fill::Empty => vec![],
        _ => vec![
            row("ada", "Ada Lovelace", UserState::Active, &["administrator", "console-user"], Some(when(-3))),
            row("grace", "Grace Hopper", UserState::Active, &["operator"], Some(when(-60 * 26))),
            row("contractor-7", "Contractor (until December)", UserState::Invited, &[], None),
            row("old-timer", "Old Timer", UserState::Disabled, &["viewer"], Some(when(-60 * 24 * 90))),
            row("fresh", RTL, UserState::NoFactor, &[], None),
        ],
    }
}

pub(super) fn grants(w: &Words) -> Vec<GrantRow> {
    let row = |user: &str, role: &str, on: &str, machines, state, until| GrantRow {
        id: format!("01935d0a000070008000{}{}{}", user.len(), role.len(), on.len()),
        href: "/users/01935d0a00007000800000000000000a".to_owned(),
        user: w.name(user),
        verb: if user == "old-timer" { "must not act as" } else { "may act as" },
        role: role.to_owned(),
        on: w.text(on),
        machines,
        from: when(if state == GrantState::Coming { 600 } else { -600 }),
        until,
        with: vec!["fresh code every 5 minutes".to_owned(), "recorded".to_owned()],
        source: "an administrator".to_owned(),
        state,
        kept: None,
    };
    match w.fill {
        Fill::Empty => vec![],
        _ => vec![
            GrantRow {
                source: "the set-up".to_owned(),
                kept: Some("The last administrator cannot be taken away.".to_owned()),
                ..row("ada", "administrator", "everything", None, GrantState::Active, None)
            },
            row("grace", "operator", "hypervisor kvm-berlin", Some(41), GrantState::Active, Some(when(60 * 24 * 13))),
            row("contractor-7", "console-user", "tag vendor-x", Some(1), GrantState::Coming, Some(when(60 * 24 * 14))),
            row("old-timer", "viewer", "machine pve-paris/100", Some(1), GrantState::Ended, Some(when(-60 * 24 * 2))),
            row("grace", "viewer", "pool web of pve-paris", Some(3), GrantState::Ended, None),
        ],
    }
}

pub(super) fn preview(w: &Words) -> Preview {
    let shift = |gains| ShiftRow {
        who: w.name("grace"),
        gains,
        actions: "view, console.view, console.control".to_owned(),
        on: w.text("kvm-berlin/c1, kvm-berlin/c2, pve-paris/100 and 9 more"),
    };
    let otherwise = |allowed| OtherwiseRow {
        at: when(-90),
        who: w.name("grace"),
        what: w.text("console.control on pve-paris/100"),
        allowed,
    };
    Preview {
        sentence: w
            .text("grace may act as console-user on tag web, until 2026-12-05 04:24:07 UTC, with consoles recorded"),
        shifts: vec![shift(true), shift(false)],
        more_shifts: 3,
        days: 30,
        asked: 412,
        unknown: 3,
        otherwise: vec![otherwise(true), otherwise(false)],
        more_otherwise: 7,
    }
}

pub(super) fn grants_page(w: &Words) -> Grants {
    let full = w.fill != Fill::Empty;
    let problems = [
        "",
        "user",
        "role",
        "on",
        "hours",
        "until",
        "note",
        "step_up_seconds",
        "week",
        "networks",
        "clipboard_in",
        "clipboard_out",
    ];
    let form =
        GrantForm { on: w.text("tag:web\nkvm-berlin/c1"), forbid: w.fill == Fill::Hostile, ..GrantForm::default() };
    Grants {
        shell: w.shell(),
        rows: grants(w),
        may_write: full,
        users: vec![Choice::new("01935d0a00007000800000000000000a", w.name("Grace Hopper (grace)"))],
        groups: vec![Choice::new("group:01935d0a00007000800000000000000b", w.name("night shift"))],
        roles: vec![Choice::new("console-user", "console-user: works at screens"), Choice::new("viewer", "viewer")],
        rights: vec![Choice::new("machine/power", "machine: switch its power (power)")],
        things: vec![
            Choice::new(w.name("tag:web"), "3 machines now"),
            Choice::new("machine:kvm-berlin/c1", w.name("c1")),
        ],
        form: if full { form } else { GrantForm::default() },
        preview: full.then(|| preview(w)),
        problems: w.problems(&problems),
    }
}

fn group(w: &Words, name: &str, directory: bool) -> GroupRow {
    GroupRow {
        id: "01935d0a00007000800000000000000b".to_owned(),
        name: w.name(name),
        words: w.text("who keeps it running at night"),
        directory,
        members: 7,
        roles: vec!["operator on hypervisor kvm-berlin".to_owned()],
    }
}

pub(super) fn effective(w: &Words) -> Effective {
    let full = w.fill != Fill::Empty;
    let row = |what: &str| ReachRow {
        what: w.name(what),
        href: "/access?on=lab%2Fweb-1".to_owned(),
        actions: [(Action::View, Some(-60)), (Action::ConsoleView, Some(-60 * 24)), (Action::Power, None)]
            .map(|(action, last)| (action.deed(), action.word(), last.map(when)))
            .to_vec(),
    };
    Effective {
        shell: w.shell(),
        about: full.then(|| w.name("Grace Hopper (grace)")),
        things: full,
        rows: if full { vec![row("lab/web-1"), row("lab/db-1")] } else { vec![] },
        file: "/access?user=01935d0a00007000800000000000000a&as=csv".to_owned(),
        people: vec![Choice::new("01935d0a00007000800000000000000a", w.name("Grace Hopper (grace)"))],
        choices: vec![Choice::new("lab/web-1", w.name("web-1"))],
        user: String::new(),
        on: w.name(""),
        problems: w.problems(&["", "user", "on"]),
    }
}

pub(super) fn groups_page(w: &Words) -> Groups {
    let full = w.fill != Fill::Empty;
    Groups {
        shell: w.shell(),
        rows: if full { vec![group(w, "night shift", false), group(w, "Domain Admins", true)] } else { vec![] },
        may_write: full,
        name: w.name(""),
        words: w.text(""),
        problems: w.problems(&["", "name", "words"]),
    }
}

pub(super) fn group_page(w: &Words) -> GroupPage {
    let full = w.fill != Fill::Empty;
    let person = |name: &str| Choice::new("01935d0a00007000800000000000000a", w.name(name));
    GroupPage {
        shell: w.shell(),
        group: group(w, "night shift", !full),
        created: when(-60 * 24 * 20),
        members: if full { vec![person("Grace Hopper (grace)"), person("ada")] } else { vec![] },
        others: vec![person("bob")],
        grants: grants(w),
        may_write: full,
        may_grant: full,
        problems: w.problems(&["", "user"]),
    }
}

pub(super) fn link(w: &Words) -> Option<OneTimeLink> {
    (w.fill != Fill::Empty).then(|| OneTimeLink {
        url: "https://console.example.org/invitation#r3Ycm0p1mS8Q4n7wq9d1yvJ3sQ2bX5aZ".to_owned(),
        who: w.name("contractor-7"),
        expires: when(15),
    })
}

pub(super) fn trail_rows(w: &Words) -> Vec<TrailRow> {
    let row = |number, minutes, who: &str, what: &str, on: &str, outcome, reason: &str| TrailRow {
        href: format!("/trail/01935d0a0000700080000000000000ff/{number}"),
        number,
        at: when(minutes),
        who: if who.is_empty() { String::new() } else { w.name(who) },
        what: what.to_owned(),
        on: if on.is_empty() { String::new() } else { w.text(on) },
        outcome,
        reason: if reason.is_empty() { String::new() } else { w.text(reason) },
    };
    match w.fill {
        Fill::Empty => vec![],
        _ => vec![
            row(
                1207,
                -1,
                "ada",
                "console.control",
                "kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11",
                Outcome::Pending,
                "",
            ),
            row(1206, -2, "ada", "step-up", "", Outcome::Done, "authenticator code"),
            row(
                1205,
                -2,
                "ada",
                "console.control",
                "kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11",
                Outcome::StepUp,
                "the last code is 31 minutes old",
            ),
            row(
                1204,
                -9,
                "grace",
                "power",
                "pve-paris/100",
                Outcome::Denied,
                "no role of yours holds power on pve-paris/100; operator would",
            ),
            row(1203, -12, "", "sign-in", "", Outcome::Denied, "wrong name or password"),
            row(1202, -44, "grace", "view", "lxd-1", Outcome::Failed, "lxd-1 did not answer within 10 s"),
            row(
                1201,
                -600,
                "grace",
                "console.view",
                "kvm-berlin/c1",
                Outcome::Abandoned,
                "open when the gateway was stopped",
            ),
        ],
    }
}
