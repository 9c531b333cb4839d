// SPDX-License-Identifier: Apache-2.0
//! A set of rules as files hold it: rights of roles, grants, members of groups.
//!
//! One row a rule, in Casbin's own form, so that Casbin itself reads the same file:
//!
//! ```text
//! g2, machine/view, viewer               a role holds a right
//! g2, viewer, console-user               a role (the second) includes another
//! p, person:ann, operator, tag:web, until=2027-01-01T00:00Z;hours=mon-fri 08:00-18:00 Europe/Berlin, allow
//! g, person:ann, group:ops               a person is in a group
//! ```

mod reader;
mod when;

pub(crate) use reader::check_role;
pub use when::Given;

use crate::{Error, Kind};
use portcullis_domain::{Action, RoleName};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Line {
    /// The file; empty where there is only one.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub number: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            write!(f, "line {}", self.number)
        } else {
            write!(f, "{}:{}", self.file, self.number)
        }
    }
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Which line.
    pub line: Line,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

pub(crate) fn list(wrong: &[LineError]) -> String {
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    format!("the policy was refused:\n{}", lines.join("\n"))
}

/// Who holds a grant, by the name that people use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A person, by the name they sign in with.
    Person(String),
    /// A group.
    Group(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "person:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// `g2, KIND/ACTION, role`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RightRow {
    /// Where it stands.
    pub line: Line,
    /// The role that holds the right.
    pub role: RoleName,
    /// On which kind of thing.
    pub kind: Kind,
    /// What may be done.
    pub action: Action,
}

/// `g2, included, role`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncludeRow {
    /// Where it stands.
    pub line: Line,
    /// The role that is included.
    pub included: RoleName,
    /// The role that includes it.
    pub role: RoleName,
}

/// `p, who, role, on, when, allow|deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// Where it stands.
    pub line: Line,
    /// Whose it is.
    pub who: Who,
    /// What it says.
    pub given: Given,
}

/// `g, person:NAME, group:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Where it stands.
    pub line: Line,
    /// The person.
    pub person: String,
    /// The group.
    pub group: String,
}

/// Rules that were read, whole: every row is well-formed and none stands twice. Whether its roles exist and include each
/// other sensibly is looked at when it becomes a policy ([`Set::check`], [`crate::Engine::check`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set {
    /// What roles allow.
    pub rights: Vec<RightRow>,
    /// Which roles include others.
    pub includes: Vec<IncludeRow>,
    /// What roles are for.
    pub words: BTreeMap<RoleName, String>,
    /// Who holds which role on what.
    pub grants: Vec<GrantRow>,
    /// Who is in which group.
    pub members: Vec<MemberRow>,
}

impl Set {
    /// Reads one file. Refuses the whole of it when any line is wrong.
    pub fn read(text: &str) -> Result<Self, Error> {
        Self::read_all([("", text)])
    }

    /// Reads several files as one set; each with its name.
    pub fn read_all<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, Error> {
        reader::read(files)
    }

    /// Whether its roles are well-formed by themselves: each that is included exists, none includes itself in a circle
    /// or more than ten deep, and each that is granted is one of the set's, where the set has roles at all.
    pub fn check(&self) -> Result<(), Error> {
        if self.rights.is_empty() && self.includes.is_empty() {
            return Ok(());
        }
        let rules = crate::rules::Rules::of(self)?;
        let wrong: Vec<LineError> = self
            .grants
            .iter()
            .filter(|g| !rules.knows(&g.given.role))
            .map(|g| LineError { line: g.line.clone(), what: format!("there is no role {}", g.given.role) })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Error::Rules(wrong)) }
    }
}

/// One column as it is written: in quotes where another reader might take it for something else.
fn column(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ',' | '#' | '\'' | '\\');
    let edges = text.starts_with(' ') || text.ends_with(' ');
    if !edges && text.chars().all(|c| plain(c) || c == ' ') {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('"', "\"\""))
    }
}

/// The set as a file: what is read back from it is the same set, but for the places of its rows.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (role, words) in &self.words {
            writeln!(f, "# {role}: {words}")?;
        }
        for row in &self.rights {
            writeln!(f, "g2, {}/{}, {}", row.kind, row.action, row.role)?;
        }
        for row in &self.includes {
            writeln!(f, "g2, {}, {}", row.included, row.role)?;
        }
        for MemberRow { person, group, .. } in &self.members {
            let (person, group) = (format!("person:{person}"), format!("group:{group}"));
            writeln!(f, "g, {}, {}", column(&person), column(&group))?;
        }
        for GrantRow { who, given, .. } in &self.grants {
            let [role, on, when, effect] = given.columns();
            let (who, on, when) = (column(&who.to_string()), column(&on), column(&when));
            writeln!(f, "p, {who}, {role}, {on}, {when}, {effect}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
