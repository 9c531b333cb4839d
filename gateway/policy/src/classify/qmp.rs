// SPDX-License-Identifier: Apache-2.0
//! What a command of QEMU's monitor asks. One reviewed table over one list of commands; what is in neither is never sent.
//! No client reaches a monitor through the gateway: the table holds what the gateway sends there itself.

use crate::{Error, Kind};
use portcullis_domain::{Action, Effect};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

const TABLE: &str = include_str!("../../../../policies/classify/qmp.toml");
const LIST: &str = include_str!("../../../../policies/classify/qmp-commands.txt");

/// Commands that only read and do not begin like one.
const READERS: [&str; 3] = ["device-list-properties", "qom-list-properties", "qom-list-types"];

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// Of the connection itself.
    Own,
    Ask(Action, Effect),
    Deny(String),
}

/// The table. Read once.
#[derive(Debug, Default)]
pub struct Commands(BTreeMap<String, Meaning>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    commands: Vec<String>,
    action: Option<String>,
    effect: Option<RowEffect>,
    #[serde(default)]
    own: bool,
    deny: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RowEffect {
    Safe,
    Unsafe,
}

static BUILTIN: LazyLock<Commands> = LazyLock::new(|| {
    Commands::read(TABLE, LIST).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of QEMU's monitor is wrong: no command is sent");
        Commands::default()
    })
});

impl Commands {
    /// The table that comes with the gateway.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads a table over a list of commands. Refuses the whole of it when anything in it is wrong, or when a command has
    /// no verdict.
    pub fn read(table: &str, list: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Table(format!("QMP: {why}"));
        let file: File = toml::from_str(table).map_err(|e| wrong(e.to_string()))?;
        let lines = list.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        let names = lines.map(|l| l.split_once(' ').map(|(_, name)| name)).collect::<Option<Vec<&str>>>();
        let names = names.ok_or_else(|| wrong("a line of the list is no module and name".to_owned()))?;
        let mut all = BTreeMap::new();
        for row in &file.rule {
            let meaning = row.meaning().map_err(wrong)?;
            for name in &row.commands {
                if !names.contains(&name.as_str()) {
                    return Err(wrong(format!("{name} is no command")));
                }
                if matches!(meaning, Meaning::Ask(Action::View, _))
                    && !name.starts_with("query-")
                    && !READERS.contains(&name.as_str())
                {
                    return Err(wrong(format!("{name} does not only read: it is no view")));
                }
                if all.insert(name.clone(), meaning.clone()).is_some() {
                    return Err(wrong(format!("{name} stands there twice")));
                }
            }
        }
        match names.into_iter().find(|name| !all.contains_key(*name)) {
            Some(name) => Err(wrong(format!("{name} has no verdict"))),
            None => Ok(Self(all)),
        }
    }

    /// Whether a command may be sent where an action was permitted, and nothing else by it; none is the connection itself.
    /// The error says why not.
    pub fn check(&self, command: &str, permitted: Option<Action>) -> Result<(), Cow<'static, str>> {
        match (self.0.get(command), permitted) {
            (None, _) => Err(format!("{command:?} has no verdict, so it is not sent").into()),
            (Some(Meaning::Deny(why)), _) => Err(format!("{command} is never sent: {why}").into()),
            (Some(Meaning::Own), None) => Ok(()),
            (Some(Meaning::Ask(action, _)), Some(permitted)) if *action == permitted => Ok(()),
            (Some(Meaning::Own | Meaning::Ask(..)), _) => Err(format!("{command} is not what was permitted").into()),
        }
    }
}

impl Row {
    fn meaning(&self) -> Result<Meaning, String> {
        match (&self.action, self.effect, self.own, &self.deny) {
            (None, None, true, None) => Ok(Meaning::Own),
            (None, None, false, Some(why)) if !why.is_empty() => Ok(Meaning::Deny(why.clone())),
            (Some(action), Some(effect), false, None) => {
                let action: Action = action.parse().map_err(|e| format!("{e}"))?;
                if !Kind::Machine.answers(action) && !Kind::Hypervisor.answers(action) {
                    return Err(format!("{action} cannot be asked of a machine or its hypervisor"));
                }
                let effect = if effect == RowEffect::Safe { Effect::Safe } else { Effect::Unsafe };
                if action == Action::View && effect == Effect::Unsafe {
                    return Err("a view is safe".to_owned());
                }
                Ok(Meaning::Ask(action, effect))
            }
            _ => Err(format!("{:?}: a rule has action and effect, or own, or deny with its reason", self.commands)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_one_verdict_and_none_that_changes_something_is_a_view() {
        let all = Commands::read(TABLE, LIST).unwrap();
        let count = |of: fn(&Meaning) -> bool| all.0.values().filter(|m| of(m)).count();
        let (own, denied) = (count(|m| *m == Meaning::Own), count(|m| matches!(m, Meaning::Deny(_))));
        let views = count(|m| matches!(m, Meaning::Ask(Action::View, _)));
        assert_eq!((all.0.len(), own), (240, 1));
        println!("240 commands: {denied} denied, {views} views, {} ask more", 240 - own - denied - views);
        for (name, meaning) in &all.0 {
            let reads = name.starts_with("query-") || READERS.contains(&name.as_str());
            assert!(reads || !matches!(meaning, Meaning::Ask(Action::View, _)), "{name}");
        }
    }

    #[test]
    fn what_shows_files_memory_or_secrets_is_no_view_whatever_it_is_called() {
        let all = Commands::builtin();
        for name in [
            "query-block",
            "query-named-block-nodes",
            "query-chardev",
            "query-vnc",
            "query-spice",
            "query-memdev",
            "query-migrate-parameters",
            "x-query-virtio-queue-element",
            "x-query-ramblock",
            "qom-get",
            "ringbuf-read",
            "pmemsave",
        ] {
            assert!(all.0.contains_key(name), "{name}");
            assert!(all.check(name, Some(Action::View)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_command_is_sent_for_what_it_asks_and_for_nothing_else() {
        let all = Commands::builtin();
        for (command, permitted) in [
            ("qmp_capabilities", None),
            ("query-status", Some(Action::View)),
            ("quit", Some(Action::Power)),
            ("screendump", Some(Action::NodeAdmin)),
        ] {
            assert_eq!(all.check(command, permitted), Ok(()), "{command}");
        }
        for (command, permitted, why) in [
            ("qmp_capabilities", Some(Action::Power), "not what was permitted"),
            ("query-status", None, "not what was permitted"),
            ("quit", Some(Action::View), "not what was permitted"),
            ("device_add", Some(Action::Power), "not what was permitted"),
            ("human-monitor-command", Some(Action::NodeAdmin), "never sent"),
            ("qom-get", Some(Action::View), "never sent"),
            ("QUIT", Some(Action::Power), "no verdict"),
            ("", Some(Action::View), "no verdict"),
        ] {
            let told = all.check(command, permitted).unwrap_err();
            assert!(told.contains(why), "{command}: {told}");
        }
    }

    #[test]
    fn a_table_with_a_wrong_row_is_refused() {
        let list = "# all\nm query-a\nm b\n";
        let row = |commands: &str, more: &str| format!("[[rule]]\ncommands = [{commands}]\n{more}\n");
        let view = "action = \"view\"\neffect = \"safe\"";
        let good = [row("\"query-a\"", view), row("\"b\"", "deny = \"no\"")].concat();
        assert!(Commands::read(&good, list).is_ok());
        for (table, why) in [
            (row("\"query-a\"", view), "b has no verdict"),
            (format!("{good}{}", row("\"c\"", view)), "c is no command"),
            (format!("{good}{}", row("\"b\"", "own = true")), "twice"),
            (row("\"query-a\", \"b\"", view), "no view"),
            (row("\"query-a\", \"b\"", "action = \"view\"\neffect = \"unsafe\""), "a view is safe"),
            (row("\"query-a\", \"b\"", "action = \"power\""), "action and effect"),
            (row("\"query-a\", \"b\"", "deny = \"\""), "with its reason"),
            (row("\"query-a\", \"b\"", "own = true\ndeny = \"no\""), "with its reason"),
            (row("\"query-a\", \"b\"", "action = \"deny\"\neffect = \"unsafe\""), "cannot be asked"),
            (row("\"query-a\", \"b\"", "action = \"read\"\neffect = \"safe\""), "cannot be asked"),
            (row("\"query-a\", \"b\"", "colour = 1"), "colour"),
        ] {
            let told = Commands::read(&table, list).unwrap_err().to_string();
            assert!(told.contains(why), "{table}: {told}");
        }
        assert!(Commands::read(&good, "query-a").unwrap_err().to_string().contains("no module"));
    }
}
