// SPDX-License-Identifier: Apache-2.0
//! What of an object may be read by its properties, and by whom. A type or a property that nobody reviewed is told to
//! nobody. Whoever names one that asks for more than seeing the object is asked for that; an answer is cut down to the same
//! rows, because it may hold what nobody named: everything of an object, or of what it leads to.

use super::{ENTITIES, Why, file::PropertyRow};
use crate::{
    Kind,
    classify::soap::{Call, Element, Reference},
};
use portcullis_domain::Action;
use std::collections::HashMap;

/// Who is told of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Whoever sees the object.
    Anybody,
    /// Whoever sees it and holds an action on the hypervisor.
    Holder(Action),
    /// Nobody.
    Nobody,
}

/// What is known of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property {
    /// Who is told.
    pub reader: Reader,
    /// It speaks of any machine, in words, too: only for who sees every machine.
    pub is_of_machines: bool,
}

/// The properties of an API's types.
#[derive(Debug, Default)]
pub(super) struct Properties {
    /// What each type extends.
    bases: HashMap<String, String>,
    /// The rows of each type, by the property or a part of it.
    rows: HashMap<String, HashMap<String, Property>>,
    /// What reading a property of each name asks at most, of types that are not in the inventory.
    most: HashMap<String, Vec<Action>>,
}

impl PropertyRow {
    fn property(&self) -> Result<Property, String> {
        let reader = match (&self.action, self.seen, self.never) {
            (Some(action), false, false) => {
                let action = action.parse::<Action>().map_err(|e| e.to_string())?;
                if !Kind::Hypervisor.answers(action) {
                    return Err("an action that cannot be asked there".to_owned());
                }
                Reader::Holder(action)
            }
            (None, true, false) => Reader::Anybody,
            (None, false, true) => Reader::Nobody,
            _ => return Err("one of action, seen and never is needed".to_owned()),
        };
        Ok(Property { reader, is_of_machines: self.machines })
    }
}

impl Properties {
    /// Builds the table, of the rows and of the lines `@type Type Base property…` of the API's own list. Each property of
    /// the list has a row, and each row is of one.
    pub(super) fn read(rows: Vec<PropertyRow>, operations: &str) -> Result<Self, String> {
        let (mut table, mut own) = (Self::default(), HashMap::new());
        for line in operations.lines().filter_map(|l| l.strip_prefix("@type ")) {
            let mut words = line.split(' ');
            let (Some(of), Some(base)) = (words.next(), words.next()) else {
                return Err(format!("{line:?} is no type"));
            };
            table.bases.insert(of.to_owned(), base.to_owned());
            own.insert(of, words.collect::<Vec<_>>());
        }
        for row in rows {
            let property = row.property().map_err(|e| format!("properties {:?} of {:?}: {e}", row.names, row.of))?;
            for (of, name) in row.of.iter().flat_map(|of| row.names.iter().map(move |name| (of, name))) {
                let (base, part) = name.split_once('.').unwrap_or((name, ""));
                let has = |of: &str| own.get(of).is_some_and(|all| all.contains(&base));
                if !table.line(of).any(has) || part.contains('.') {
                    return Err(format!("{of} has no property {name}"));
                }
                if table.rows.entry(of.clone()).or_default().insert(name.clone(), property).is_some() {
                    return Err(format!("{name} of {of} stands twice"));
                }
            }
        }
        for (of, names) in &own {
            for name in names {
                let found = table.find(of, name).ok_or_else(|| format!("{name} of {of} has no row"))?;
                if let Reader::Holder(action) = found.reader
                    && action != Action::View
                    && !table.line(of).any(|t| t == "ManagedEntity")
                {
                    let all = table.most.entry((*name).to_owned()).or_default();
                    if !all.contains(&action) {
                        all.push(action);
                    }
                }
            }
        }
        Ok(table)
    }

    /// A type, and what it extends.
    fn line<'a>(&'a self, of: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::successors(Some(of), |of| self.bases.get(*of).map(String::as_str))
    }

    /// What is known of a property of a type. `path` may lead into it, as `config.extraConfig["x"].value` does.
    pub(super) fn find(&self, of: &str, path: &str) -> Option<Property> {
        let plain = path.split('[').next().unwrap_or_default();
        self.line(of).filter_map(|of| self.rows.get(of)).find_map(|rows| {
            let mut prefixes = std::iter::successors(Some(plain), |p| p.rsplit_once('.').map(|(front, _)| front));
            prefixes.find_map(|prefix| rows.get(prefix).copied())
        })
    }

    /// The parts of a property that have rows of their own.
    pub(super) fn parts<'a>(&'a self, of: &'a str, path: &'a str) -> impl Iterator<Item = (&'a str, Property)> {
        let rows = self.line(of).filter_map(|of| self.rows.get(of));
        rows.flatten().filter_map(move |(name, property)| {
            let part = name.strip_prefix(path)?.strip_prefix('.')?;
            Some((part, *property))
        })
    }

    /// What a call asks of the hypervisor, for the properties that it names. `is_free` is whether what it is called on is
    /// not in the inventory, so that nobody here knows its type: the hypervisor goes by the id, and tells it by that.
    pub(super) fn named(&self, call: &Call, is_free: bool) -> Result<Vec<Action>, Why> {
        let mut asked = Vec::new();
        if call.method == "Fetch" {
            for property in call.arguments.iter().filter(|a| a.name == "prop") {
                self.ask(&call.this.of, &property.text, &mut asked)?;
                if is_free && !is_of_session(&call.this) {
                    let name = property.text.split(['.', '[']).next().unwrap_or_default();
                    asked.extend(self.most.get(name).into_iter().flatten());
                }
            }
        }
        for argument in &call.arguments {
            self.sets(argument, &mut asked)?;
        }
        asked.sort_unstable();
        asked.dedup();
        Ok(asked)
    }

    fn ask(&self, of: &str, path: &str, asked: &mut Vec<Action>) -> Result<(), Why> {
        let unknown = || format!("The gateway does not know a property {path:.64} of {of:.64}, so it is not read.");
        match self.find(of, path).ok_or_else(unknown)?.reader {
            // Seeing is asked for anyway, and answers hold what is seen.
            Reader::Holder(action) if action != Action::View => asked.push(action),
            Reader::Holder(_) | Reader::Anybody | Reader::Nobody => {}
        }
        Ok(())
    }

    /// The sets of properties that an argument names, at any depth.
    fn sets(&self, element: &Element, asked: &mut Vec<Action>) -> Result<(), Why> {
        if element.name == "propSet" {
            let mut types = element.all("type");
            let (Some(of), None) = (types.next(), types.next()) else {
                return Err("A set of properties does not say of which type they are.".into());
            };
            for path in element.all("pathSet") {
                self.ask(&of.text, &path.text, asked)?;
            }
        }
        element.children.iter().try_for_each(|c| self.sets(c, asked))
    }
}

/// Whether an id is one that hypervisors give to tasks, or to what a session made for itself, and to nothing else.
fn is_of_session(reference: &Reference) -> bool {
    let id = reference.id.as_str();
    let is_number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    match reference.of.as_str() {
        "Task" => id.strip_prefix("task-").is_some_and(is_number) || id.starts_with("haTask-"),
        of => id.starts_with("session[") && !ENTITIES.contains(&of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "@type ManagedEntity - name permission\n@type Host ManagedEntity config vm\n@type Options - setting info\n\
                        @type Task - info";

    fn table(rows: &str) -> Result<Properties, String> {
        #[derive(serde::Deserialize)]
        struct File {
            property: Vec<PropertyRow>,
        }
        Properties::read(toml::from_str::<File>(rows).unwrap().property, LIST)
    }

    const ROWS: &str = r#"
        property = [
            { of = ["ManagedEntity"], names = ["name"], seen = true },
            { of = ["ManagedEntity"], names = ["permission"], action = "access-admin" },
            { of = ["Host"], names = ["vm"], action = "view", machines = true },
            { of = ["Host"], names = ["config"], action = "node-admin" },
            { of = ["Host"], names = ["config.product"], action = "view" },
            { of = ["Options"], names = ["setting", "info"], action = "node-admin" },
            { of = ["Task"], names = ["info"], seen = true },
        ]"#;

    #[test]
    fn a_property_is_found_by_the_longest_path_and_by_what_a_type_extends() {
        let table = table(ROWS).unwrap();
        let reader = |of: &str, path: &str| table.find(of, path).map(|p| p.reader);
        let holder = |action| Some(Reader::Holder(action));
        for (of, path, wanted) in [
            ("Host", "name", Some(Reader::Anybody)),
            ("Host", "permission", holder(Action::AccessAdmin)),
            ("Host", "config", holder(Action::NodeAdmin)),
            ("Host", "config.product.version", holder(Action::View)),
            ("Host", "config.products", holder(Action::NodeAdmin)),
            ("Host", "config.option[\"config.product\"].value", holder(Action::NodeAdmin)),
            ("Host", "config[\"x.y\"]", holder(Action::NodeAdmin)),
            ("Host", "configured", None),
            ("Host", "", None),
            ("Host", ".config", None),
            ("Options", "name", None),
            ("Unheard", "name", None),
            ("-", "name", None),
        ] {
            assert_eq!(reader(of, path), wanted, "{of} {path}");
        }
        assert!(table.find("Host", "vm").unwrap().is_of_machines);
        let parts: Vec<&str> = table.parts("Host", "config").map(|(part, _)| part).collect();
        assert_eq!(parts, ["product"]);
    }

    #[test]
    fn a_table_with_a_property_too_few_or_too_many_is_refused() {
        for (from, to, why) in [
            (r#"["setting", "info"]"#, r#"["setting"]"#, "has no row"),
            (r#"["vm"]"#, r#"["vms"]"#, "has no property"),
            (r#"of = ["Task"]"#, r#"of = ["Tasks"]"#, "has no property"),
            ("config.product", "config.product.name", "has no property"),
            (r#"["vm"]"#, r#"["vm", "vm"]"#, "stands twice"),
            ("seen = true", "machines = true", "is needed"),
            ("seen = true", "seen = true, never = true", "is needed"),
            ("node-admin", "console.view", "cannot be asked"),
        ] {
            let found = table(&ROWS.replacen(from, to, 1)).err().unwrap_or_default();
            assert!(found.contains(why), "{from} to {to}: {found}");
        }
    }
}
