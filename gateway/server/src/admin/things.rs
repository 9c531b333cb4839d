// SPDX-License-Identifier: Apache-2.0
//! What a grant is for, as people write it: one thing a line, by a machine's name or by what a tag, pool or hypervisor
//! is called. A pasted list is read as it is.

use portcullis_domain::{Inventory, Machine, Selector};

/// Kinds that a line may begin with.
const KINDS: [&str; 5] = ["tag", "machine", "pool", "hypervisor", "pattern"];
/// Machines of one name that are told where it means several.
const TOLD: usize = 5;

/// Reads a list. What is wrong is said with the line as it was written.
pub(super) fn read(text: &str, inventory: &Inventory) -> Result<Vec<Selector>, String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let has_kind = line.split_once(':').is_some_and(|(kind, _)| KINDS.contains(&kind));
        let parts: Vec<&str> = if has_kind { vec![line] } else { line.split([',', ';']).map(str::trim).collect() };
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            found.push(one(part, inventory)?);
        }
    }
    if found.is_empty() { Err("Name at least one thing.".to_owned()) } else { Ok(found) }
}

fn one(text: &str, inventory: &Inventory) -> Result<Selector, String> {
    if text == "everything" {
        return Ok(Selector::Everything);
    }
    if let Some((kind, value)) = text.split_once(':').filter(|(kind, _)| KINDS.contains(kind)) {
        return Selector::parse(kind, value.trim()).map_err(|e| format!("{text}: {e}."));
    }
    // Three parts are a path with wildcards; two are a machine, as every page writes it.
    match text.matches('/').count() {
        0 => named(text, inventory),
        1 => Selector::parse("machine", text).map_err(|e| format!("{text}: {e}.")),
        _ => Selector::parse("pattern", text).map_err(|e| format!("{text}: {e}.")),
    }
}

/// The one machine of a name. Two of the same name are told apart, never chosen between.
fn named(text: &str, inventory: &Inventory) -> Result<Selector, String> {
    let is = |m: &&Machine| m.name.eq_ignore_ascii_case(text) || m.at.machine.as_str() == text;
    let all: Vec<&Machine> = inventory.iter().filter(is).collect();
    match all.as_slice() {
        [one] => Ok(Selector::Machine(one.at.clone())),
        [] => Err(format!("{text}: no machine has this name. Write tag:{text} or hypervisor:{text} if you mean that.")),
        several => {
            let places: Vec<String> = several.iter().take(TOLD).map(|m| m.at.to_string()).collect();
            Err(format!("{text}: {} machines have this name. Write which: {}.", several.len(), places.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, MachineKind, PowerState};

    /// A list as [`read`] takes it.
    fn write(selectors: &[Selector]) -> String {
        let line = |s: &Selector| match s.columns() {
            ("everything", _) => "everything".to_owned(),
            (kind, value) => format!("{kind}:{value}"),
        };
        selectors.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn inventory() -> Inventory {
        Inventory::new([("lab/1", "web"), ("lab/2", "db"), ("kvm/9", "db")].map(|(at, name)| Machine {
            at: at.parse().unwrap(),
            name: name.into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: None,
            tags: vec![],
            node: None,
            console: ConsoleKind::Vnc,
        }))
    }

    #[test]
    fn a_pasted_list_is_read_as_it_is() {
        let text = "web, lab/2;kvm/9\n\n tag:pay, roll \nhypervisor:lab\npool:lab/web tier\n*/prod/*\neverything";
        let all = read(text, &inventory()).unwrap();
        let lines = "machine:lab/1\nmachine:lab/2\nmachine:kvm/9\ntag:pay, roll\nhypervisor:lab\npool:lab/web tier\n\
                     pattern:*/prod/*\neverything";
        assert_eq!(write(&all), lines);
        assert_eq!(read(lines, &inventory()).unwrap(), all);
    }

    #[test]
    fn a_name_that_is_nobodys_or_of_two_is_not_guessed() {
        for (text, says) in [
            ("db", "lab/2"),
            ("db", "kvm/9"),
            ("mail", "no machine has this name"),
            ("", "at least one"),
            ("tag:", "tag"),
            ("hypervisor:LAB", "LAB"),
            ("pool:lab", "pool"),
            ("lab/", "machine"),
            ("everything:x", "no machine"),
            ("a/b/../c d", "machine id"),
        ] {
            let why = read(text, &inventory()).expect_err(text);
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
