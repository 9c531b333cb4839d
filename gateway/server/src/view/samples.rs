// SPDX-License-Identifier: Apache-2.0
//! Every page filled three ways: plain, hostile and empty. The tests render them all.

mod access;
mod adding;
mod rows;

use super::*;
use askama::Template;
use portcullis_domain::{ConsoleMode, MachineKind, PowerState};
use rows::{console, effective, grants, grants_page, group_page, groups_page, link, machines, trail_rows, users};
use time::{Duration, macros::datetime};

/// How a page is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// As on a usual day.
    Plain,
    /// With names that attack, overflow, and run from right to left.
    Hostile,
    /// With nothing in it.
    Empty,
}

const SCRIPT: &str = "<script>alert(1)</script>";
const BREAKOUT: &str = "\"><img src=x onerror=alert(1)>' autofocus onfocus='alert(2)";
const LONG: &str =
    "the-machine-with-a-name-that-nobody-ever-thought-would-be-shown-on-a-telephone-because-it-goes-on-and-on-and-on";
const RTL: &str = "خادم الويب الرئيسي \u{202e}evil";
const NOW: OffsetDateTime = datetime!(2026-11-21 04:24:07 UTC);

fn when(minutes: i64) -> When {
    When::new(NOW + Duration::minutes(minutes), NOW)
}

/// A page's name, its HTML, and how it was filled.
pub(crate) struct Rendered {
    pub(crate) name: &'static str,
    pub(crate) fill: Fill,
    pub(crate) html: String,
}

struct Words {
    fill: Fill,
}

impl Words {
    fn name(&self, plain: &str) -> String {
        if self.fill == Fill::Hostile { format!("{plain}{SCRIPT}") } else { plain.to_owned() }
    }

    fn text(&self, plain: &str) -> String {
        if self.fill == Fill::Hostile { format!("{plain} {BREAKOUT}") } else { plain.to_owned() }
    }

    fn shell(&self) -> Shell {
        let doors =
            Doors { users: true, policy: true, hypervisors: true, sessions: true, recordings: true, trail: true };
        let who = Who {
            name: self.name("ada"),
            display_name: self.name("Ada Lovelace"),
            doors: if self.fill == Fill::Empty { Doors::default() } else { doors },
            fresh_until: (self.fill == Fill::Plain).then(|| when(4)),
            proofs: self.proofs(),
        };
        let recovery = (self.fill == Fill::Hostile).then(|| (when(-90), self.text("192.0.2.10")));
        Shell { recovery, ..Shell::signed_in("c5Rf-Token_0", who).with(self.flashes()) }
    }

    fn proofs(&self) -> Proofs {
        Proofs { code: self.fill != Fill::Empty, passkey: self.fill == Fill::Plain }
    }

    fn typed(&self) -> TokenDraft {
        let text = |plain: &str| if self.fill == Fill::Hostile { self.text(plain) } else { String::new() };
        TokenDraft {
            name: text("terraform"),
            hypervisor: text("lxd-1"),
            networks: text("10.1.0.0/16"),
            days: text("7"),
        }
    }

    fn stranger(&self) -> Shell {
        Shell::stranger("c5Rf-Token_0").with(self.flashes())
    }

    fn flashes(&self) -> Vec<Flash> {
        match self.fill {
            Fill::Hostile => vec![Flash::new(Tone::Bad, self.text("That did not work:")), Flash::new(Tone::Warn, LONG)],
            _ => vec![],
        }
    }

    fn problems(&self, fields: &[&'static str]) -> Problems {
        let mut problems = Problems::none();
        if self.fill == Fill::Hostile {
            for field in fields {
                problems.add(field, self.text("Type something else than"));
            }
        }
        problems
    }
}

/// Every page, filled in one way.
pub(crate) fn pages(fill: Fill) -> Vec<Rendered> {
    let w = Words { fill };
    let provider = (fill != Fill::Empty).then(|| ("/sign-in/with/corp".to_owned(), w.text("Example Corp")));
    let mut out = Vec::new();
    let mut add = |name: &'static str, page: Result<String, askama::Error>| {
        out.push(Rendered { name, fill, html: page.expect(name) });
    };
    let next = "/c/kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11".to_owned();
    add(
        "sign-in",
        SignIn {
            shell: w.stranger(),
            name: w.name(""),
            next: w.text(&next),
            providers: provider.clone().into_iter().collect(),
            passkeys: fill != Fill::Empty,
            problems: w.problems(&["", "name", "password", "passkey"]),
        }
        .render(),
    );
    add(
        "code",
        Code {
            shell: w.stranger(),
            name: w.name("ada"),
            next: next.clone(),
            proofs: w.proofs(),
            problems: w.problems(&["code", "passkey"]),
        }
        .render(),
    );
    let address = "https://id.example/end?id_token_hint=a.b.c&state=x".to_owned();
    add("signed-out", SignedOut { shell: w.stranger(), title: w.text("Example Corp"), address }.render());
    add("recovery", Recovery { shell: w.stranger(), problems: w.problems(&["code"]) }.render());
    for (name, kind) in [("set-up", SetUpKind::FirstAdministrator), ("invitation", SetUpKind::Invited)] {
        let problems = w.problems(&["token", "name", "display_name", "password"]);
        let page = SetUp {
            shell: w.stranger(),
            kind,
            shortest: 8,
            token: w.text(""),
            name: w.name(""),
            display_name: w.name(""),
            problems,
        };
        add(name, page.render());
    }
    let reason = match fill {
        Fill::Plain => EnrolReason::First,
        Fill::Hostile => EnrolReason::Lost,
        Fill::Empty => EnrolReason::Another,
    };
    let shell = if reason == EnrolReason::Another { w.shell() } else { w.stranger() };
    let svg = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 21 21"><path d="M0 0h7v7H0zm14 0h7v7h-7zM0 14h7v7H0zm9-5h3v3H9z"/></svg>"#;
    let enrol = Enrol {
        shell: shell.clone(),
        reason,
        key: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP".to_owned(),
        account: w.name("ada at console.example.org"),
        picture: Enrol::picture_of(svg),
        passkey: w.name("Chromium on Linux"),
        passkeys_off: (fill == Fill::Empty).then(|| "Passkeys are off here: they need a name.".to_owned()),
        problems: w.problems(&["", "code", "name", "passkey"]),
    };
    add("enrol", enrol.render());
    let codes = (0..10).map(|i| format!("7k3f-9qpd-2m{i}x-rw8t")).collect();
    add(
        "recovery-codes",
        RecoveryCodes { shell, codes, account: w.name("ada at console.example.org"), next: "/".to_owned() }.render(),
    );
    add(
        "step-up",
        StepUp {
            shell: w.shell(),
            intent: w.name("open the console of pay-db-01"),
            provider,
            minutes: if fill == Fill::Empty { 0 } else { 5 },
            what: w.text("POST /grants"),
            next,
            proofs: w.proofs(),
            problems: w.problems(&["code", "passkey"]),
        }
        .render(),
    );

    let notices = match fill {
        Fill::Empty => vec![],
        _ => vec![Notice::new(
            Tone::Warn,
            w.text(
                "esx-old does not answer since 7 minutes (connection refused). Its machines are shown as last seen.",
            ),
        )],
    };
    let rows = machines(&w);
    let total = if rows.is_empty() { 0 } else { 1240 };
    add("machines", Machines { shell: w.shell(), query: w.text(""), rows, total, notices }.render());
    add(
        "machines-none-found",
        Machines { shell: w.shell(), query: w.name("zzz"), rows: vec![], total: 7, notices: vec![] }.render(),
    );
    add("console", console(&w, ConsoleMode::Control, None).render());
    add("console-view", console(&w, ConsoleMode::View, None).render());
    add("console-closed", console(&w, ConsoleMode::Control, Some("pay-db-01 is off.")).render());

    let session = |device: &str, current| SessionRow {
        id: "01935d0a00007000800000000000000c".to_owned(),
        device: w.text(&super::device(device)),
        place: "2001:db8:85a3::8a2e:370:7334".to_owned(),
        started: when(-50),
        seen: when(-1),
        ends: when(11 * 60),
        proven: vec![("password", when(-50)), ("authenticator code", when(-4))],
        current,
    };
    let factor = |what: &str, removable: bool| FactorRow {
        id: "f1".to_owned(),
        what: w.text(what),
        added: when(-60 * 24 * 40),
        used: removable.then(|| when(-5)),
        removable,
    };
    let token = |name: &str, hypervisor: Option<&str>, state| TokenRow {
        id: "01935d0a00007000800000000000000d".to_owned(),
        name: w.name(name),
        hypervisor: hypervisor.map(str::to_owned),
        networks: if hypervisor.is_some() { vec!["10.1.0.0/16".into(), "2001:db8::/32".into()] } else { vec![] },
        created: when(-60 * 24 * 3),
        expires: when(60 * 24 * 27),
        used: (state == TokenState::Live).then(|| when(-2)),
        used_from: (state == TokenState::Live).then(|| w.text("build hall (10.1.2.3)")),
        keys: if state == TokenState::Live {
            vec![KeyRow { print: "3fa9c0d17be2".into(), hypervisor: "lxd-1".into(), since: when(-60 * 24) }]
        } else {
            vec![]
        },
        state,
    };
    let full = fill != Fill::Empty;
    let me = Me {
        shell: w.shell(),
        factors: if full {
            vec![factor("Authenticator app: Authenticator", true), factor("Passkey: Chromium on Linux", true)]
        } else {
            vec![factor("Authenticator app", false)]
        },
        recovery_left: if full { 9 } else { 1 },
        sessions: if full {
            vec![
                session("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", true),
                session(
                    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile Safari/604.1",
                    false,
                ),
            ]
        } else {
            vec![session("x", true)]
        },
        tokens: if full {
            vec![
                token("terraform", Some("lxd-1"), TokenState::Live),
                token("old", None, TokenState::Expired),
                token("leaked", None, TokenState::Revoked),
            ]
        } else {
            vec![]
        },
        typed: w.typed(),
        minted: (fill == Fill::Plain).then(|| "pct_7Jr0qv1JQyB9mU4eWn2sT6xZc8dKf3gH5pLaR0iYuXo".to_owned()),
        hypervisors: vec![Choice::new("lxd-1", w.name("lxd-1")), Choice::new("kvm-berlin", "kvm-berlin")],
        grants: if full {
            vec![
                w.text("administrator on everything, until revoked"),
                w.text("console-user on tag web, in 13 days it ends"),
            ]
        } else {
            vec![]
        },
        has_password: full,
        shortest: 8,
        problems: w.problems(&["old", "password", "token_name", "networks", "days"]),
    };
    add("me", me.render());

    let may = full;
    add(
        "users",
        Users {
            shell: w.shell(),
            rows: users(&w),
            may_write: may,
            link: link(&w),
            name: w.name(""),
            display_name: w.name(""),
            problems: w.problems(&["name", "display_name", "service_name"]),
        }
        .render(),
    );
    let user = Words { fill: if full { fill } else { Fill::Plain } };
    let person = PersonPage {
        shell: w.shell(),
        user: users(&user).remove(1),
        created: when(-60 * 24 * 200),
        provider: full.then(|| (w.text("Example Corp"), w.text("00u1x7"), when(-3600))),
        factors: if full { vec!["Authenticator app".to_owned(), w.text("9 recovery codes")] } else { vec![] },
        sessions: if full { vec![session("x", false), session("curl/8", false)] } else { vec![] },
        tokens: if full { vec![token("backup", Some("lxd-1"), TokenState::Live)] } else { vec![] },
        service: fill == Fill::Hostile,
        person: fill != Fill::Hostile,
        locked: (fill == Fill::Hostile).then(|| (when(-3), w.text("stolen laptop"), Some(when(120)))),
        training: (fill == Fill::Plain).then(|| (when(60 * 24 * 90), true)),
        asks_training: fill != Fill::Hostile,
        sends_mail: fill != Fill::Hostile,
        mail: (fill != Fill::Empty).then(|| (w.text("grace@example.org"), "as their identity provider says")),
        minted: (fill == Fill::Hostile).then(|| "pct_7Jr0qv1JQyB9mU4eWn2sT6xZc8dKf3gH5pLaR0iYuXo".to_owned()),
        hypervisors: vec![Choice::new("lxd-1", w.name("lxd-1"))],
        typed: w.typed(),
        may_end: full,
        may_lock: full,
        problems: w.problems(&["token_name", "networks", "days", "until"]),
        grants: grants(&w),
        may_write: true,
        may_grant: true,
        kept: (!full).then(|| "This is your own account: another administrator has to do that.".to_owned()),
        link: (fill == Fill::Hostile).then(|| link(&w)).flatten(),
    };
    add("person", person.render());
    let emergency = |id: &str, review| EmergencyRow {
        id: id.to_owned(),
        number: 1,
        used: when(-90),
        place: w.text("office (10.1.2.3)"),
        review,
    };
    let review = (w.name("Grace Hopper"), w.text("the provider was down"), w.name("ada"), when(-30));
    add(
        "emergencies",
        Emergencies {
            shell: Shell { emergencies: u64::from(full), ..w.shell() },
            rows: if full { vec![emergency("u1", None), emergency("u2", Some(review))] } else { vec![] },
            ready: usize::from(full),
            may_write: true,
            typed_who: w.name(""),
            typed_why: w.text(""),
            problems: w.problems(&[""]),
        }
        .render(),
    );
    add("break-glass", BreakGlass { shell: w.stranger(), problems: w.problems(&["code"]) }.render());
    let text = w.text("This system is for authorised use only.\nWhat you do here is written down.");
    for (name, page) in access::pages(&w).into_iter().chain(adding::pages(&w)) {
        add(name, page);
    }
    add("banner", Banner { shell: w.stranger(), text, next: w.text("/c/lab/web-1") }.render());
    let card = |name: &str, words: &str, may: &[&str], holders| RoleCard {
        name: name.to_owned(),
        words: w.text(words),
        may: may.iter().map(|m| (*m).to_owned()).collect(),
        must_not: if name == "auditor" { vec!["open a console".to_owned()] } else { vec![] },
        holders,
    };
    let roles = if full {
        vec![
            card("viewer", "Sees machines and their state.", &["see machines and their settings"], 1),
            card(
                "console-user",
                "Works at screens.",
                &["see machines and their settings", "watch screens", "use keyboard and mouse"],
                12,
            ),
            card(
                "operator",
                "Keeps machines running.",
                &["everything that console-user may", "start, stop and reset", "take snapshots"],
                4,
            ),
            card("auditor", "Reads what happened.", &["read the trail", "read recordings", "take evidence out"], 0),
        ]
    } else {
        vec![]
    };
    let matrix = if full {
        "                 view  console.view  console.control  power\nviewer           yes   -             -                -\nconsole-user     yes   yes           yes              -\noperator         yes   yes           yes              yes\n".to_owned()
    } else {
        String::new()
    };
    add("roles", Roles { shell: w.shell(), roles, matrix }.render());
    add("grants", grants_page(&w).render());
    add("effective", effective(&w).render());
    add("groups", groups_page(&w).render());
    add("group", group_page(&w).render());

    let live = |user: &str, mode| LiveRow {
        id: "01935d0a00007000800000000000000e".to_owned(),
        user: w.name(user),
        place: "192.0.2.17".to_owned(),
        hypervisor: "kvm-berlin".to_owned(),
        machine: "0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11".to_owned(),
        machine_name: w.name("pay-db-01"),
        mode,
        started: when(-18),
        ends: (mode == ConsoleMode::Control).then(|| when(60)),
        recorded: mode == ConsoleMode::Control,
    };
    let rows = if full { vec![live("ada", ConsoleMode::Control), live("grace", ConsoleMode::View)] } else { vec![] };
    add("live-consoles", LiveConsoles { shell: w.shell(), rows, may_end: true }.render());
    let hypervisor = |name: &str, kind: &str, state| HypervisorRow {
        name: name.to_owned(),
        kind: kind.to_owned(),
        address: w.text("https://10.0.0.7:8443"),
        trust: w.text("CA file, ends in 71 days"),
        api: ["lxd", "proxmox"].contains(&kind).then(|| format!("https://{name}.api.example.org")),
        machines: 41,
        state,
    };
    let rows = if full {
        vec![
            hypervisor("kvm-berlin", "libvirt", HypervisorState::Up),
            hypervisor("lxd-1", "lxd", HypervisorState::Warn(w.text("The certificate ends in 6 days."))),
            hypervisor("pve-1", "proxmox", HypervisorState::Up),
            hypervisor("esx-old", "qemu", HypervisorState::Down(w.text("Connection refused."), when(-7))),
        ]
    } else {
        vec![]
    };
    add("hypervisors", Hypervisors { shell: w.shell(), rows, may_lock: full, may_add: full }.render());
    let recording = |state| RecordingRow {
        id: "01935d0a00007000800000000000000f".to_owned(),
        user: w.name("ada"),
        machine: "kvm-berlin/0b1c6e9a-3a54-4a1e-9a61-2f6b6b0f4f11".to_owned(),
        machine_name: w.name("pay-db-01"),
        started: when(-75),
        length: span(Duration::seconds(4_000)),
        size: size(14_900_000),
        state,
    };
    let rows = if full {
        vec![
            recording(RecordingState::Live),
            recording(RecordingState::Whole(w.text("closed"))),
            recording(RecordingState::Broken(w.text("the recording could not be written"))),
        ]
    } else {
        vec![]
    };
    add(
        "recordings",
        Recordings { shell: w.shell(), rows, older: full.then(|| "/recordings?before=4".to_owned()) }.render(),
    );

    let verified = match fill {
        Fill::Plain => Verified::Whole { at: when(-12), events: 1_208 },
        Fill::Hostile => {
            Verified::Broken { at: when(-12), findings: vec![w.text("segment 3, offset 4,096: event 771 was changed")] }
        }
        Fill::Empty => Verified::NotYet,
    };
    let filter = if fill == Fill::Hostile {
        TrailFilter {
            who: w.text(""),
            what: w.text(""),
            machine: w.text(""),
            outcome: "denied".to_owned(),
            from: w.text("20"),
            to: "2026-11-21".to_owned(),
        }
    } else {
        TrailFilter::default()
    };
    let trail = Trail {
        shell: w.shell(),
        filter,
        rows: trail_rows(&w),
        older: full.then(|| "/trail?before=1200&who=%22".to_owned()),
        newest: (fill == Fill::Hostile).then(|| "/trail".to_owned()),
        verified,
        problems: w.problems(&["from", "to"]),
    };
    add("trail", trail.render());
    let event = TrailEvent {
        shell: w.shell(),
        row: trail_rows(&user).remove(4 * usize::from(!full)),
        phase: "opened".to_owned(),
        pair: full.then(|| ("/trail/01935d0a0000700080000000000000ff/1209".to_owned(), "closed by 1209".to_owned())),
        node: "01935d0a0000700080000000000000ff".to_owned(),
        request: "01935d0a000070008000000000000010".to_owned(),
        details: vec![
            ("peer".to_owned(), "192.0.2.17".to_owned()),
            (w.name("recording"), w.text("01935d0a00007000800000000000000f")),
        ],
    };
    add("trail-event", event.render());

    let status = match fill {
        Fill::Plain => 403,
        Fill::Hostile => 502,
        Fill::Empty => 401,
    };
    let mut error = ErrorPage::new(
        status,
        &w.name("Not found"),
        &w.text("There is nothing here, or nothing that you may know about."),
        "01935d0a000070008000000000000010",
    );
    error.ask = (fill == Fill::Plain).then(|| "/requests/new?on=machine%3Alab%2Fweb-1&role=viewer".to_owned());
    add("error", error.render());
    out
}
