// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

fn wrong(text: &str) -> String {
    match Rules::read(text) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("was taken: {text:?}"),
    }
}

const GOOD: &str = "p, viewer, machine, view, allow\n";

#[test]
fn a_wrong_line_refuses_the_whole_set_and_is_named() {
    for (bad, says) in [
        ("p, viewer, machine, view", "columns"),
        ("p, viewer, machine, view, allow, allow", "columns"),
        ("p", "columns"),
        ("g, viewer", "columns"),
        ("g2, a, b", "begins with"),
        ("viewer, machine, view, allow", "begins with"),
        ("p, viewer, machine, viewx, allow", "is not an action"),
        ("p, viewer, machine, console, allow", "is not an action"),
        ("p, viewer, machine, console.viewx, allow", "is not an action"),
        ("p, viewer, machines, view, allow", "no kind"),
        ("p, viewer, gateway:everything, read, allow", "no kind"),
        ("p, viewer, machine, read, allow", "cannot be asked"),
        ("p, viewer, gateway:users, power, allow", "cannot be asked"),
        ("p, viewer, machine, session, allow", "cannot be granted"),
        ("p, viewer, machine, deny, allow", "cannot be granted"),
        ("p, viewer, machine, power, Deny", "not allowed"),
        ("p, viewer, machine, power, denied", "neither"),
        ("p, viewer, machine, power,", "neither"),
        ("p, , machine, power, allow", "role name"),
        ("p, -a, machine, power, allow", "role name"),
        ("p, *, machine, power, allow", "not allowed"),
        ("p, viewer, machine, *, allow", "not allowed"),
        ("p, \"viewer\", machine, power, allow", "not allowed"),
        ("p, viewer, machine, power, allow # why", "not allowed"),
        ("p, viewer, machine, power, allow\u{0}", "not allowed"),
        ("p,\tviewer, machine, power, allow", "not allowed"),
        ("p, viewer\u{a0}, machine, power, allow", "not allowed"),
        ("g, viewer, nobody", "no role nobody"),
        ("g, viewer, viewer", "itself"),
        ("p, viewer, machine, view, allow", "repeats line 1"),
    ] {
        let text = format!("{GOOD}{bad}\n");
        let why = wrong(&text);
        assert!(why.contains("line 2"), "{bad:?}: {why}");
        assert!(why.contains(says), "{bad:?}: {why}");
    }
}

#[test]
fn a_lone_return_inside_a_line_is_refused() {
    assert!(wrong("p, viewer, machine, view, allow\rg, eve, viewer\n").contains("not allowed"));
}

#[test]
fn every_wrong_line_is_named_at_once() {
    let why = wrong("p, viewer\np, viewer, machine, view, allow\nq, x\n");
    assert!(why.contains("line 1") && why.contains("line 3"), "{why}");
}

#[test]
fn an_empty_set_is_refused() {
    for text in ["", "\n\n", "# nothing\n"] {
        assert!(wrong(text).contains("no rule"), "{text:?}");
    }
}

#[test]
fn circles_and_chains_of_more_than_ten_are_refused_in_any_order() {
    assert!(wrong(&format!("{GOOD}g, viewer, b\ng, b, c\ng, c, viewer\n")).contains("circle"));
    let chain = |n: usize| {
        let mut lines: Vec<String> = (0..n).map(|i| format!("g, r{i}, r{}", i + 1)).collect();
        lines.push(format!("p, r{n}, machine, view, allow"));
        lines
    };
    let read = |mut lines: Vec<String>, turned: usize| {
        let n = lines.len();
        lines.rotate_left(turned % n);
        Rules::read(&lines.join("\n"))
    };
    for turned in 0..12 {
        let rules = read(chain(10), turned).unwrap();
        let first = rules.find(&"r0".parse().unwrap()).unwrap();
        assert_eq!(rules.closure(first).iter().count(), 11);
        assert!(read(chain(11), turned).is_err());
    }
}

#[test]
fn a_comment_that_names_a_role_describes_it() {
    let rules = Rules::read(&format!("# viewer: sees things\n{GOOD}")).unwrap();
    let words: Vec<&str> = rules.roles().map(|(_, r)| r.words.as_str()).collect();
    assert_eq!(words, ["sees things"]);
}

#[test]
fn the_set_that_comes_with_the_gateway_is_good() {
    let rules = Rules::read(crate::RULES).unwrap();
    let names: Vec<&str> = rules.roles().map(|(_, r)| r.name.as_str()).collect();
    assert_eq!(names, ["administrator", "auditor", "console-user", "operator", "security-lead", "viewer"]);
    assert!(rules.roles().all(|(_, r)| !r.words.is_empty()), "each role is described");
}

// SEC-181: whatever is put into a column, no right and no role appears that was not there.
proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn no_text_in_a_column_becomes_structure(
        column in 1usize..5,
        text in "[a-z, \"'#\\n\\r\\\\:.\\-\u{2028}\u{85}\u{ff0c}]{0,40}|.{0,20}|(a, administrator|x\\ng, viewer, administrator|\"a\"\"b\"|viewer,machine,power,allow)",
    ) {
        let mut columns = ["p", "viewer", "machine", "view", "allow"].map(str::to_owned);
        columns[column] = text.clone();
        let set = format!("p, administrator, machine, destroy, allow\n{}\n", columns.join(","));
        if let Ok(rules) = Rules::read(&set) {
            // What was taken is what the columns say, one row for one row.
            let rows = set.lines().filter(|l| !l.trim_matches(' ').is_empty()).count();
            prop_assert_eq!(rules.rows.len() + rules.roles().map(|(_, r)| r.includes.len()).sum::<usize>(), rows);
            let admin = rules.find(&"administrator".parse().unwrap()).unwrap();
            for (index, role) in rules.roles().filter(|(i, _)| *i != admin) {
                let written = format!(" {text} ").contains(&format!("g, {}, administrator", role.name));
                prop_assert!(written || !rules.closure(index).contains(admin), "{:?} became an administrator", role.name);
            }
        }
    }

    #[test]
    fn rows_of_words_survive_writing_and_reading(
        roles in proptest::collection::vec("[a-z]([a-z0-9-]{0,20}[a-z0-9])?", 1..6),
        picks in proptest::collection::vec((0usize..6, 0usize..100, 0usize..100, any::<bool>()), 1..30),
    ) {
        let mut rows: Vec<(String, Kind, Action, Effect)> = Vec::new();
        for (role, kind, action, allow) in picks {
            let kinds: Vec<Kind> = Kind::all().collect();
            let kind = kinds[kind % kinds.len()];
            let actions: Vec<Action> = Action::ALL.iter().copied().filter(|a| kind.answers(*a)).collect();
            let row = (roles[role % roles.len()].clone(), kind, actions[action % actions.len()],
                if allow { Effect::Allow } else { Effect::Deny });
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        let lines: Vec<String> = rows.iter().map(|(r, k, a, e)| format!("p, {r}, {k}, {a}, {}", e.word())).collect();
        let rules = Rules::read(&lines.join("\n")).unwrap();
        let back: Vec<_> = rules.rows.iter()
            .map(|r| (rules.role(r.role).unwrap().name.to_string(), r.kind, r.action, r.effect)).collect();
        prop_assert_eq!(back, rows);
    }
}
