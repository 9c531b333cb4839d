// SPDX-License-Identifier: Apache-2.0
//! Access requests and locks.

use super::*;
use portcullis_domain::Action;

fn some_of<T>(full: bool, rows: Vec<T>) -> Vec<T> {
    if full { rows } else { vec![] }
}

type Page = (&'static str, Result<String, askama::Error>);

fn request(w: &Words, who: &str, state: &'static str, class: &'static str) -> RequestRow {
    RequestRow {
        id: "01935d0a000070008000000000000020".to_owned(),
        who: w.name(who),
        role: "operator".to_owned(),
        on: w.text("machine kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11 (pay-db-01)"),
        reason: w.text("The disk is full and the nightly job stands still, INC-4711."),
        lasts: "4 hours".to_owned(),
        state,
        class,
        asked: when(-12),
        ends: matches!(state, "asked" | "active").then(|| ("ends", when(180))),
    }
}

fn proposal(w: &Words, waits: bool) -> ProposalRow {
    ProposalRow {
        id: "01935d0a000070008000000000000021".to_owned(),
        words: w.text("grace may act as operator on tag prod, until revoked, with fresh code every 5 minutes"),
        why: w.text("The night shift needs it."),
        by: w.name("ada"),
        at: when(-9),
        state: if waits { "waiting" } else { "done" },
        class: if waits { "warn" } else { "good" },
        expires: waits.then(|| when(60 * 72)),
        decided: (!waits).then(|| (when(-2), w.name("olga"), w.text("I asked them."))),
    }
}

pub(super) fn pages(w: &Words) -> Vec<Page> {
    let full = w.fill != Fill::Empty;
    let some = |rows: Vec<RequestRow>| if full { rows } else { vec![] };
    let list = RequestsPage {
        shell: Shell { to_decide: usize::from(full), ..w.shell() },
        changes: some_of(full, vec![proposal(w, true), proposal(w, false)]),
        to_decide: some(vec![request(w, "grace", "asked", "warn")]),
        mine: some(vec![request(w, "ada", "active", "good"), request(w, "ada", "refused", "bad")]),
        all: full.then(|| vec![request(w, "contractor-7", "over", "off")]),
    };
    let form = RequestForm {
        shell: w.shell(),
        roles: vec![
            Choice::new("console-user", w.name("console-user: works at screens")),
            Choice::new("viewer", "viewer"),
        ],
        times: vec![Choice::new("4", "4 hours"), Choice::new("24", "1 day")],
        role: "viewer".to_owned(),
        on: w.text("machine:kvm-berlin/web-1"),
        reason: w.text(""),
        hours: "4".to_owned(),
        start: String::new(),
        problems: w.problems(&["", "role", "on", "reason", "hours", "start"]),
    };
    let step =
        |what, by: &str, words: &str, at| RequestStep { at: when(at), what, by: w.name(by), words: w.text(words) };
    let one_use = |outcome, link: bool| RequestUse {
        at: when(-2),
        what: "console.control".to_owned(),
        on: w.text("kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11"),
        outcome,
        link: link.then(|| "/trail/01935d0a0000700080000000000000ff/12".to_owned()),
    };
    let asked = RequestPage {
        shell: w.shell(),
        row: request(w, "grace", "asked", "warn"),
        own: false,
        needs: full.then_some((2, 1)),
        moves: RequestMoves {
            approve: true,
            refuse: true,
            passkey_first: w.fill == Fill::Hostile,
            ..RequestMoves::default()
        },
        steps: vec![step("asked", "grace", "", -12), step("approved", "ada", "Only this once.", -3)],
        uses: None,
    };
    let active = RequestPage {
        shell: w.shell(),
        row: request(w, "ada", "active", "good"),
        own: true,
        needs: None,
        moves: RequestMoves { end: true, begin: !full, withdraw: !full, ..RequestMoves::default() },
        steps: vec![step("asked", "ada", "", -12), step("began", "ada", "", -3)],
        uses: Some(if full { vec![one_use("done", true), one_use("not over yet", false)] } else { vec![] }),
    };
    let lock = |what: &str, id: &str, until| LockRow {
        id: id.to_owned(),
        what: w.text(what),
        href: id.is_empty().then(|| "/users/01935d0a00007000800000000000000a".to_owned()),
        reason: w.text("A laptop was stolen."),
        by: w.name("ada"),
        since: when(-5),
        until,
    };
    let locks = LocksPage {
        shell: w.shell(),
        rows: if full {
            vec![lock("machine kvm-berlin/web-1", "l1", Some(when(240))), lock("person grace", "", None)]
        } else {
            vec![]
        },
        may_lock: full,
        kind: "hypervisor".to_owned(),
        value: w.text(""),
        reason: w.text(""),
        problems: w.problems(&["", "kind", "value", "hours", "reason"]),
    };
    let version = |number, newest| VersionRow {
        number,
        at: when(-60 * i64::from(number)),
        by: w.name("ada"),
        why: w.text("The night shift begins."),
        hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        newest,
    };
    let history = History {
        shell: w.shell(),
        versions: some_of(full, vec![version(2, true), version(1, false)]),
        changes: some_of(
            full,
            vec![ChangeRow {
                at: when(-30),
                by: w.name("ada"),
                about: w.name("grace"),
                words: w.text("operator on tag web, until revoked, was given"),
                link: Some("/trail/01935d0a0000700080000000000000ff/12".to_owned()),
            }],
        ),
        rows: w.text("p, person:ada, operator, tag:web, , allow"),
        preview: None,
        problems: w.problems(&["", "rows"]),
    };
    let shift = |gains| ShiftRow {
        who: w.name("Grace Hopper (grace)"),
        gains,
        actions: Action::deeds(&[Action::View, Action::ConsoleView]),
        on: w.text("kvm-berlin/web-1"),
    };
    let waiting = ProposalPage {
        shell: w.shell(),
        row: proposal(w, full),
        own: w.fill == Fill::Hostile,
        approves: w.fill == Fill::Plain,
        ends: full,
        passkey_first: w.fill == Fill::Hostile,
        objection: (w.fill == Fill::Hostile).then(|| w.text("You proposed it: somebody else must approve it.")),
        void: (w.fill == Fill::Hostile).then(|| w.text("There is no such person.")),
        preview: full.then(|| rows::preview(w)),
        seen: if full { "0".repeat(64) } else { String::new() },
    };
    let page_of_version = Version {
        shell: w.shell(),
        row: version(1, w.fill == Fill::Empty),
        shifts: some_of(full, vec![shift(true), shift(false)]),
        more_shifts: usize::from(full),
        came: some_of(full, vec![w.text("p, person:grace, operator, tag:web, , allow")]),
        went: some_of(full, vec![w.text("p, person:grace, viewer, tag:web, , allow")]),
        files: some_of(full, vec![(w.name("grants.csv"), w.text("p, person:grace, operator, tag:web, , allow"))]),
        preview: full.then(|| rows::preview(w)),
        kept: (w.fill == Fill::Hostile).then(|| w.text("This is the last one who can give roles.")),
        problems: w.problems(&["", "why"]),
    };
    vec![
        ("proposal", waiting.render()),
        ("history", history.render()),
        ("version", page_of_version.render()),
        ("requests", list.render()),
        ("request-form", form.render()),
        ("request", asked.render()),
        ("request-active", active.render()),
        ("locks", locks.render()),
    ]
}
