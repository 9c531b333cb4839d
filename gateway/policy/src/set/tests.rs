// SPDX-License-Identifier: Apache-2.0
use super::*;
use portcullis_domain::{Conditions, GrantEffect};
use proptest::prelude::*;

fn wrong(text: &str) -> String {
    match Set::read(text) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("was taken: {text:?}"),
    }
}

const GOOD: &str = "g2, machine/view, viewer\n";

#[test]
fn a_wrong_line_refuses_the_whole_set_and_is_named() {
    for (bad, says) in [
        ("p, person:ann, viewer, everything, allow", "columns"),
        ("p, person:ann, viewer, everything, , allow, allow", "columns"),
        ("p, viewer, machine, view, allow, x, y", "columns"),
        ("p", "columns"),
        ("g, person:ann", "columns"),
        ("g2, viewer", "columns"),
        ("g2, a, b, c", "columns"),
        ("g3, a, b", "begins with"),
        ("viewer, machine, view, allow", "begins with"),
        ("g2, machine/viewx, viewer", "is not an action"),
        ("g2, machine/console, viewer", "is not an action"),
        ("g2, machine/console.viewx, viewer", "is not an action"),
        ("g2, machine/console/clipboard, viewer", "is not an action"),
        ("g2, machine/, viewer", "is not an action"),
        ("g2, /view, viewer", "no kind"),
        ("g2, machines/view, viewer", "no kind"),
        ("g2, gateway:everything/read, viewer", "no kind"),
        ("g2, machine/read, viewer", "cannot be asked"),
        ("g2, gateway:users/power, viewer", "cannot be asked"),
        ("g2, machine/session, viewer", "cannot be granted"),
        ("g2, machine/deny, viewer", "cannot be granted"),
        ("g2, machine/power, -a", "role name"),
        ("g2, machine/power, ", "role name"),
        ("g2, machine/power, *", "role name"),
        ("g2, machine/*, viewer", "is not an action"),
        ("g2, viewer, viewer", "itself"),
        ("g2, person:ann, viewer", "role name"),
        ("g2, machine/view, viewer", "repeats line 1"),
        ("g2,machine/view,\"viewer\"", "repeats line 1"),
        ("p, person:ann, viewer, everything, , Deny", "neither"),
        ("p, person:ann, viewer, everything, , denied", "neither"),
        ("p, person:ann, viewer, everything, ,", "neither"),
        ("p, ann, viewer, everything, , allow", "neither person"),
        ("p, person:, viewer, everything, , allow", "no name"),
        ("p, \"person: ann\", viewer, everything, , allow", "no name"),
        ("p, person:ann, Viewer, everything, , allow", "role name"),
        ("p, person:ann, viewer, everywhere, , allow", "selector"),
        ("p, person:ann, viewer, everything:x, , allow", "selector"),
        ("p, person:ann, viewer, hypervisor:La, , allow", "hypervisor name"),
        ("p, person:ann, viewer, machine:lab/10*, , allow", "machine id"),
        ("p, person:ann, viewer, pattern:lab, , allow", "pattern"),
        ("p, person:ann, viewer, everything, until=tomorrow, allow", "no instant"),
        ("p, person:ann, viewer, everything, until=2026-12-01, allow", "no instant"),
        ("p, person:ann, viewer, everything, until=2026-12-01T00:00, allow", "no instant"),
        (
            "p, person:ann, viewer, everything, since=2026-12-01T00:00Z;until=2026-12-01T00:00Z, allow",
            "before it begins",
        ),
        ("p, person:ann, viewer, everything, passkey;passkey, allow", "twice"),
        ("p, person:ann, viewer, everything, record;unrecorded, allow", "exclude"),
        ("p, person:ann, viewer, everything, passkey=no, allow", "no condition"),
        ("p, person:ann, viewer, everything, hour, allow", "no condition"),
        ("p, person:ann, viewer, everything, hours=mon-fri 08:00-18:00 Mars/Olympus, allow", "no time zone"),
        ("p, person:ann, viewer, everything, step-up=86401, allow", "step-up"),
        ("p, person:ann, viewer, everything, step-up=+1, allow", "step-up"),
        ("p, person:ann, viewer, everything, from=10.1.2.3/8, allow", "network"),
        ("p, person:ann, viewer, everything, kinds=guests, allow", "kind of machine"),
        ("g, person:ann, person:bob", "member"),
        ("g, group:ops, group:all", "member"),
        ("g, group:ops, person:ann", "member"),
        ("g2, machine/power, viewer # why", "not allowed here"),
        ("g, person:a\"b\", group:ops", "not allowed here"),
        ("g, \"person:a\" b, group:ops", "something follows"),
        ("g, \"person:a, group:ops", "not closed"),
        ("g2, machine/power, viewer\u{0}", "not allowed"),
        ("g2,\tmachine/power, viewer", "not allowed"),
        ("g, person:a\u{2028}b, group:ops", "not allowed"),
        ("g, person:a\u{85}b, group:ops", "not allowed"),
        ("g2, machine/power, viewer\u{a0}", "role name"),
    ] {
        let text = format!("{GOOD}{bad}\n");
        let why = wrong(&text);
        assert!(why.contains("line 2"), "{bad:?}: {why}");
        assert!(why.contains(says), "{bad:?}: {why}");
    }
}

#[test]
fn a_lone_return_inside_a_line_is_refused() {
    assert!(wrong("g2, machine/view, viewer\rg, person:eve, group:admins\n").contains("not allowed"));
}

#[test]
fn every_wrong_line_is_named_at_once_with_its_file() {
    let files = [("roles.csv", "g2, machine/view\n"), ("people.csv", "g2, machine/view, viewer\nq, x\n")];
    let why = Set::read_all(files).unwrap_err().to_string();
    assert!(why.contains("roles.csv:1") && why.contains("people.csv:2"), "{why}");
    let twice = [("a", GOOD), ("b", GOOD)];
    assert!(Set::read_all(twice).unwrap_err().to_string().contains("b:1: it repeats a:1"));
}

#[test]
fn a_role_that_is_granted_exists_where_the_set_has_roles() {
    let grant = "p, group:ops, operator, tag:web, , allow\n";
    assert!(Set::read(grant).unwrap().check().is_ok(), "the roles may stand elsewhere");
    let why = Set::read(&format!("{GOOD}{grant}")).unwrap().check().unwrap_err().to_string();
    assert!(why.contains("line 2: there is no role operator"), "{why}");
}

#[test]
fn a_row_of_a_grant_means_what_it_says() {
    let set = Set::read(
        "p, person:ann, operator, hypervisor:lab, \
         \"until=2026-12-01T00:00Z;hours=mon-fri 08:00-18:00 Europe/Berlin;from=10.0.0.0/8,::1;unrecorded;passkey;\
         kinds=guest,container;step-up=60;step-up-each;clipboard-in=0;clipboard-out=100\", deny\n\
         p, \"person:O'Hara, \"\"Q\"\" #1\", viewer, everything, , allow\n",
    )
    .unwrap();
    let [first, second] = set.grants.as_slice() else { panic!() };
    assert_eq!((first.who.clone(), first.given.effect), (Who::Person("ann".into()), GrantEffect::Deny));
    assert_eq!(first.given.until, Some(time::macros::datetime!(2026-12-01 00:00 UTC)));
    let c = &first.given.conditions;
    assert!(c.passkey && c.step_up_each && !c.record);
    assert_eq!((c.networks.len(), c.kinds.len(), c.step_up_seconds), (2, 2, 60));
    assert_eq!((c.clipboard_in, c.clipboard_out), (Some(0), Some(100)));
    assert_eq!(second.who, Who::Person("O'Hara, \"Q\" #1".into()));
    assert_eq!(second.given.conditions, Conditions::default());
    assert_eq!(Set::read(&set.to_string()).unwrap().grants, set.grants);
}

#[test]
fn the_set_that_comes_with_the_gateway_survives_writing() {
    let set = Set::read(crate::RULES).unwrap();
    let again = Set::read(&set.to_string()).unwrap();
    assert_eq!(crate::rules::Rules::of(&again).unwrap().roles().count(), 6);
    assert_eq!((again.rights.len(), again.words), (set.rights.len(), set.words.clone()));
}

// SEC-181: whatever a name holds, it stays one column of one row, and gives no right to anybody else.
#[test]
fn one_right_stands_in_a_grant_alone_and_never_where_a_role_is_meant() {
    let row = "p, person:ann, machine/power, tag:web, , allow";
    let set = Set::read(row).unwrap();
    assert_eq!(set.grants[0].given.role.as_str(), "machine/power");
    assert_eq!(set.to_string().trim(), "p, person:ann, machine/power, tag:web, \"\", allow".replace("\"\"", ""));
    set.check().unwrap();
    for wrong in [
        "p, person:ann, machine/create, tag:web, , allow",
        "p, person:ann, machine/session, tag:web, , allow",
        "p, person:ann, machine/deny, tag:web, , allow",
        "p, person:ann, gateway:users/power, everything, , allow",
        "p, person:ann, machines/power, tag:web, , allow",
        "p, person:ann, machine/*, tag:web, , allow",
        "p, person:ann, machine/power/x, tag:web, , allow",
        "p, person:ann, /power, tag:web, , allow",
        "g2, machine/power, machine/view",
        "g2, viewer, machine/power",
        "g2, machine/view, machine/view",
    ] {
        assert!(Set::read(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn no_name_becomes_structure(
        name in "[a-z, \"'#\\\\:.;=*/\u{ff0c}-]{1,40}|.{1,20}|(a, administrator|x\"\",\"\"y|a\"\ng, person:eve, group:admins|#|\\*)",
        group in any::<bool>(),
    ) {
        let who = if group { Who::Group(name.clone()) } else { Who::Person(name.clone()) };
        let line = Line { file: "".into(), number: 1 };
        let given = Given::read("operator", "tag:web", "", "allow").unwrap();
        let set = Set {
            grants: vec![GrantRow { line: line.clone(), who, given }],
            members: vec![MemberRow { line, person: name.clone(), group: name.clone() }],
            ..Set::default()
        };
        match Set::read(&set.to_string()) {
            Ok(back) => {
                prop_assert_eq!(back.grants.len(), 1);
                prop_assert_eq!(&back.grants[0].who, &set.grants[0].who);
                prop_assert_eq!(&back.grants[0].given, &set.grants[0].given);
                prop_assert_eq!(back.members.len(), 1);
                prop_assert_eq!((&back.members[0].person, &back.members[0].group), (&name, &name));
                prop_assert!(back.rights.is_empty() && back.includes.is_empty());
            }
            // A name that cannot be written is refused, never changed.
            Err(_) => prop_assert!(
                name.trim() != name || name.chars().any(|c| c.is_control() || "\u{2028}\u{2029}".contains(c)),
                "{:?}", name
            ),
        }
    }

    #[test]
    fn no_text_in_a_column_becomes_structure(
        column in 1usize..6,
        text in "[a-z, \"'#\\n\\r\\\\:.\\-\u{2028}\u{85}\u{ff0c}]{0,40}|.{0,20}|(a, administrator|x\\ng2, machine/destroy, viewer|\"a\"\"b\"|viewer,machine,power,allow)",
    ) {
        let mut columns = ["p", "person:ann", "viewer", "everything", "", "allow"].map(str::to_owned);
        columns[column] = text.clone();
        let written = format!("{GOOD}{}\n", columns.join(","));
        if let Ok(set) = Set::read(&written) {
            // What was taken is what the columns say, one row for one row.
            let rows = written.lines().filter(|l| !l.trim_matches(' ').is_empty()).count();
            prop_assert_eq!(set.rights.len() + set.includes.len() + set.grants.len() + set.members.len(), rows);
            let right = |r: &RightRow| text.contains(&format!("g2, {}/{}, {}", r.kind, r.action, r.role));
            prop_assert!(set.rights.iter().skip(1).all(right), "{:?}", set.rights);
        }
    }
}
