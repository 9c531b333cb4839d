// SPDX-License-Identifier: Apache-2.0
//! The strict reader of the rules. It takes the whole set or nothing.
//!
//! Casbin's own reader is not used: it takes a quote, a newline or a misspelt `deny` for what it is not, and a rule
//! with too few columns would fail only when somebody is refused because of it. Casbin gets columns that were checked.

use crate::{
    Error, Kind,
    roleset::{MAX_ROLES, RoleIndex, RoleSet},
};
use ahash::AHashMap;
use portcullis_domain::{Action, RoleName};
use std::{collections::BTreeSet, fmt};

/// Largest set, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most wrong lines that are told at once.
const MAX_WRONG: usize = 50;
/// Longest chain of roles that include each other.
const MAX_DEPTH: usize = 10;

/// Whether a rule opens or shuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It allows.
    Allow,
    /// It forbids, whatever others allow.
    Deny,
}

impl Effect {
    /// The word in the last column.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

pub(crate) fn list(wrong: &[LineError]) -> String {
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    format!("the policy was refused:\n{}", lines.join("\n"))
}

/// One right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) line: usize,
    pub(crate) role: RoleIndex,
    pub(crate) kind: Kind,
    pub(crate) action: Action,
    pub(crate) effect: Effect,
}

/// One role.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) name: RoleName,
    pub(crate) words: String,
    /// The roles it includes by rows of its own.
    pub(crate) includes: Vec<RoleIndex>,
    /// Itself and everything it includes, directly or not.
    pub(crate) closure: RoleSet,
}

/// A whole set that was found good.
#[derive(Debug)]
pub(crate) struct Rules {
    roles: Vec<Role>,
    places: AHashMap<RoleName, RoleIndex>,
    pub(crate) rows: Vec<Rule>,
}

impl Rules {
    /// Every role, by name.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (RoleIndex, &Role)> {
        self.roles.iter().enumerate().filter_map(|(place, role)| Some((RoleIndex::new(place)?, role)))
    }

    /// The number of a role.
    pub(crate) fn find(&self, name: &RoleName) -> Option<RoleIndex> {
        self.places.get(name).copied()
    }

    /// A role by its number.
    pub(crate) fn role(&self, index: RoleIndex) -> Option<&Role> {
        self.roles.get(index.place())
    }

    /// A role with all that it includes; nothing for a number of another set.
    pub(crate) fn closure(&self, index: RoleIndex) -> RoleSet {
        self.role(index).map_or(RoleSet::EMPTY, |r| r.closure)
    }

    /// Role names separated by spaces: a name holds none.
    pub(crate) fn names(&self, set: RoleSet) -> String {
        let names: Vec<&str> = set.iter().filter_map(|i| self.role(i)).map(|r| r.name.as_str()).collect();
        names.join(" ")
    }

    /// Reads a set. Refuses the whole of it when any line is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::Set(format!("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)));
        }
        let mut reader = Reader::default();
        for (number, line) in text.lines().enumerate() {
            reader.line(number + 1, line);
        }
        reader.finish()
    }
}

/// A row as written, its words checked.
struct Right {
    line: usize,
    role: RoleName,
    kind: Kind,
    action: Action,
    effect: Effect,
}

#[derive(Default)]
struct Reader {
    rights: Vec<Right>,
    includes: Vec<(usize, RoleName, RoleName)>,
    words: AHashMap<RoleName, String>,
    seen: AHashMap<String, usize>,
    wrong: Vec<LineError>,
}

impl Reader {
    fn complain(&mut self, line: usize, what: impl Into<String>) {
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(LineError { line, what: what.into() });
        }
    }

    fn line(&mut self, number: usize, line: &str) {
        if let Err(what) = self.take(number, line) {
            self.complain(number, what);
        }
    }

    fn take(&mut self, number: usize, line: &str) -> Result<(), String> {
        if let Some(c) = line.chars().find(|c| c.is_control()) {
            return Err(format!("the character {} is not allowed", c.escape_unicode()));
        }
        let line = line.trim_matches(' ');
        if let Some(comment) = line.strip_prefix('#') {
            self.describe(comment);
            return Ok(());
        }
        if line.is_empty() {
            return Ok(());
        }
        // Quotes and # mean different things to different readers of CSV: no name needs them.
        if let Some(c) = line.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | ':' | ',' | ' ')) {
            return Err(format!(
                "{c:?} is not allowed: names hold only a-z, 0-9, '-', '.' and ':', and a comment has a line of its own"
            ));
        }
        let columns: Vec<&str> = line.split(',').map(|c| c.trim_matches(' ')).collect();
        let key = columns.join(",");
        if let Some(first) = self.seen.get(&key) {
            return Err(format!("it repeats line {first}"));
        }
        match columns.as_slice() {
            ["p", role, kind, action, effect] => self.right(number, role, kind, action, effect)?,
            ["g", role, included] => {
                let (role, included) = (role_name(role)?, role_name(included)?);
                if role == included {
                    return Err(format!("the role {role} includes itself"));
                }
                self.includes.push((number, role, included));
            }
            ["p", rest @ ..] => {
                return Err(format!("{} columns after p, not 4: p, role, kind, action, allow|deny", rest.len()));
            }
            ["g", rest @ ..] => return Err(format!("{} columns after g, not 2: g, role, included role", rest.len())),
            _ => return Err("a row begins with p (a right) or g (a role that includes another)".to_owned()),
        }
        self.seen.insert(key, number);
        Ok(())
    }

    fn right(&mut self, line: usize, role: &str, kind: &str, action: &str, effect: &str) -> Result<(), String> {
        let role = role_name(role)?;
        let kind: Kind = kind.parse().map_err(|()| {
            let all: Vec<&str> = Kind::all().map(Kind::word).collect();
            format!("{kind:?} is no kind: use one of {}", all.join(", "))
        })?;
        let action: Action = action.parse().map_err(|e| format!("{e}"))?;
        if !action.is_grantable() {
            return Err(format!("{action} cannot be granted"));
        }
        if !kind.answers(action) {
            return Err(format!("{action} cannot be asked of a {kind}"));
        }
        let effect = match effect {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            _ => return Err(format!("{effect:?} is neither allow nor deny")),
        };
        self.rights.push(Right { line, role, kind, action, effect });
        Ok(())
    }

    /// `# role: words` describes a role.
    fn describe(&mut self, comment: &str) {
        if let Some((name, words)) = comment.split_once(": ")
            && let Ok(name) = name.trim_matches(' ').parse::<RoleName>()
        {
            self.words.entry(name).or_insert_with(|| words.trim().to_owned());
        }
    }

    fn finish(mut self) -> Result<Rules, Error> {
        let mut names: BTreeSet<RoleName> = self.rights.iter().map(|r| r.role.clone()).collect();
        names.extend(self.includes.iter().map(|(_, role, _)| role.clone()));
        let unknown: Vec<(usize, RoleName)> = self
            .includes
            .iter()
            .filter(|(_, _, included)| !names.contains(included))
            .map(|(line, _, included)| (*line, included.clone()))
            .collect();
        for (line, included) in unknown {
            self.complain(line, format!("there is no role {included}"));
        }
        if !self.wrong.is_empty() {
            self.wrong.sort_by_key(|w| w.line);
            return Err(Error::Rules(self.wrong));
        }
        if self.rights.is_empty() {
            return Err(Error::Set("it has no rule, so it would shut everybody out".to_owned()));
        }
        if names.len() > MAX_ROLES {
            return Err(Error::Set(format!("it has {} roles; {MAX_ROLES} is the most", names.len())));
        }
        let names: Vec<RoleName> = names.into_iter().collect();
        let places: AHashMap<RoleName, RoleIndex> =
            names.iter().enumerate().filter_map(|(p, n)| Some((n.clone(), RoleIndex::new(p)?))).collect();
        let mut edges: Vec<Vec<(usize, RoleIndex)>> = vec![Vec::new(); names.len()];
        for (line, role, included) in &self.includes {
            if let (Some(from), Some(to)) = (places.get(role), places.get(included))
                && let Some(out) = edges.get_mut(from.place())
            {
                out.push((*line, *to));
            }
        }
        let mut closures = Closures { edges: &edges, done: vec![None; names.len()], wrong: None };
        for place in 0..names.len() {
            closures.walk(place, 0);
        }
        if let Some(wrong) = closures.wrong {
            return Err(Error::Rules(vec![wrong]));
        }
        let closures = closures.done;
        let roles = names
            .into_iter()
            .zip(closures)
            .zip(&edges)
            .map(|((name, closure), out)| Role {
                words: self.words.remove(&name).unwrap_or_default(),
                includes: out.iter().map(|(_, to)| *to).collect(),
                closure: closure.map_or(RoleSet::EMPTY, |(set, _)| set),
                name,
            })
            .collect();
        let rows = self
            .rights
            .into_iter()
            .filter_map(|Right { line, role, kind, action, effect }| {
                Some(Rule { line, role: places.get(&role).copied()?, kind, action, effect })
            })
            .collect();
        Ok(Rules { roles, places, rows })
    }
}

fn role_name(text: &str) -> Result<RoleName, String> {
    text.parse().map_err(|_| format!("{text:?} is no role name: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends"))
}

/// Works out what each role includes. Deeper than [`MAX_DEPTH`] is a cycle or a mistake: both are refused.
struct Closures<'a> {
    edges: &'a [Vec<(usize, RoleIndex)>],
    done: Vec<Option<(RoleSet, usize)>>,
    wrong: Option<LineError>,
}

impl Closures<'_> {
    /// The set of a role and the length of its longest chain.
    fn walk(&mut self, place: usize, above: usize) -> (RoleSet, usize) {
        if let Some(Some(known)) = self.done.get(place) {
            return *known;
        }
        let mut set = RoleSet::EMPTY;
        if let Some(index) = RoleIndex::new(place) {
            set.insert(index);
        }
        let mut depth = 0;
        for (line, to) in self.edges.get(place).into_iter().flatten() {
            // More steps than the limit, from whichever role the walk began: a cycle never gets further than this.
            let (below, length) = if above < MAX_DEPTH { self.walk(to.place(), above + 1) } else { (set, MAX_DEPTH) };
            set.add(below);
            depth = depth.max(length + 1);
            if depth > MAX_DEPTH && self.wrong.is_none() {
                let what = format!("roles include each other in a circle, or more than {MAX_DEPTH} deep");
                self.wrong = Some(LineError { line: *line, what });
            }
            if self.wrong.is_some() {
                return (set, depth);
            }
        }
        if let Some(slot) = self.done.get_mut(place) {
            *slot = Some((set, depth));
        }
        (set, depth)
    }
}

#[cfg(test)]
mod tests;
