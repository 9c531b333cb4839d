// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

fn wrong(text: &str) -> String {
    match Rules::read(text) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("was taken: {text:?}"),
    }
}

const GOOD: &str = "g2, machine/view, viewer\n";

#[test]
fn a_role_that_does_not_exist_cannot_be_included() {
    assert!(wrong(&format!("{GOOD}g2, nobody, viewer\n")).contains("line 2: there is no role nobody"));
}

#[test]
fn an_empty_set_is_refused() {
    for text in ["", "\n\n", "# nothing\n", "p, person:ann, viewer, everything, , allow\n"] {
        assert!(wrong(text).contains("shut everybody out"), "{text:?}");
    }
}

#[test]
fn circles_and_chains_of_more_than_ten_are_refused_in_any_order() {
    assert!(wrong(&format!("{GOOD}g2, b, viewer\ng2, c, b\ng2, viewer, c\n")).contains("circle"));
    let chain = |n: usize| {
        let mut lines: Vec<String> = (0..n).map(|i| format!("g2, r{}, r{i}", i + 1)).collect();
        lines.push(format!("g2, machine/view, r{n}"));
        lines
    };
    let read = |mut lines: Vec<String>, turned: usize| {
        let n = lines.len();
        lines.rotate_left(turned % n);
        Rules::read(&lines.join("\n"))
    };
    for turned in 0..12 {
        let rules = read(chain(10), turned).unwrap();
        let first = rules.role(rules.find(&"r0".parse().unwrap()).unwrap()).unwrap();
        assert_eq!((first.closure.iter().count(), first.depth), (11, 10));
        assert!(first.rights.allow(Kind::Machine, Action::View));
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

proptest! {
    #[test]
    fn a_role_has_its_rows_and_those_of_what_it_includes_and_no_others(
        rows in proptest::collection::vec((0usize..6, 0usize..100, 0usize..100), 1..40),
        steps in proptest::collection::vec((0usize..6, 0usize..6), 0..8),
    ) {
        let kinds: Vec<Kind> = Kind::all().collect();
        let mut lines: BTreeSet<String> = (0..6).map(|r| format!("g2, machine/view, r{r}")).collect();
        let mut own = vec![BTreeSet::from([(Kind::Machine, Action::View)]); 6];
        for (role, kind, action) in rows {
            let kind = kinds[kind % kinds.len()];
            let actions: Vec<Action> = Action::ALL.iter().copied().filter(|a| kind.answers(*a)).collect();
            let action = actions[action % actions.len()];
            lines.insert(format!("g2, {kind}/{action}, r{role}"));
            own[role].insert((kind, action));
        }
        // Only upwards: no circles.
        let steps: BTreeSet<(usize, usize)> = steps.into_iter().filter(|(a, b)| a < b).collect();
        lines.extend(steps.iter().map(|(a, b)| format!("g2, r{a}, r{b}")));
        let rules = Rules::read(&lines.into_iter().collect::<Vec<_>>().join("\n")).unwrap();
        for role in 0..6 {
            let mut all = BTreeSet::from([role]);
            for _ in 0..6 {
                all.extend(steps.iter().filter(|(_, b)| all.contains(b)).map(|(a, _)| *a).collect::<Vec<_>>());
            }
            let want: BTreeSet<_> = all.iter().flat_map(|r| own[*r].iter().copied()).collect();
            let rights = rules.rights(&format!("r{role}").parse().unwrap());
            let got: BTreeSet<_> = crate::rights::questions().filter(|(k, a)| rights.allow(*k, *a)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
