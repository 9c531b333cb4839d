// SPDX-License-Identifier: Apache-2.0
//! What the roles of a set allow, worked out: inheritance flattened, rights as one mask a role.

use crate::{
    Error, Kind,
    right::{Right, Rights},
    roleset::{MAX_ROLES, RoleIndex, RoleSet},
    set::{Line, LineError, Set},
};
use ahash::AHashMap;
use portcullis_domain::{Action, RoleName};
use std::collections::BTreeSet;

/// Longest chain of roles that include each other.
const MAX_DEPTH: usize = 10;

/// One right of one role, by a row of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) line: Line,
    pub(crate) role: RoleIndex,
    pub(crate) kind: Kind,
    pub(crate) action: Action,
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
    /// How many steps its longest chain of included roles has.
    pub(crate) depth: usize,
    /// Everything that it allows, inheritance included.
    pub(crate) rights: Rights,
}

/// The roles of a set that was found good.
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

    /// What a role allows, inheritance included, or the one right that is named; nothing for a name that is neither.
    pub(crate) fn rights(&self, name: &RoleName) -> Rights {
        match single(name) {
            Some(right) => {
                let mut rights = Rights::NONE;
                rights.insert(right);
                rights
            }
            None => self.find(name).and_then(|i| self.role(i)).map_or(Rights::NONE, |r| r.rights),
        }
    }

    /// Whether a name is a role, or a right that can be asked.
    pub(crate) fn knows(&self, name: &RoleName) -> bool {
        single(name).is_some() || self.find(name).is_some()
    }

    /// How many steps a role's longest chain has.
    pub(crate) fn depth(&self, index: RoleIndex) -> usize {
        self.role(index).map_or(0, |r| r.depth)
    }

    /// Reads a file and works it out.
    #[cfg(test)]
    pub(crate) fn read(text: &str) -> Result<Self, Error> {
        Self::of(&Set::read(text)?)
    }

    /// Works out what the roles of a set mean. Refuses the whole of it when any of them is wrong.
    pub(crate) fn of(set: &Set) -> Result<Self, Error> {
        let mut names: BTreeSet<RoleName> = set.rights.iter().map(|r| r.role.clone()).collect();
        names.extend(set.includes.iter().map(|i| i.role.clone()));
        let wrong: Vec<LineError> = set
            .includes
            .iter()
            .filter(|i| !names.contains(&i.included))
            .map(|i| LineError { line: i.line.clone(), what: format!("there is no role {}", i.included) })
            .collect();
        if !wrong.is_empty() {
            return Err(Error::Rules(wrong));
        }
        if set.rights.is_empty() {
            return Err(Error::Set("it gives no role any right, so it would shut everybody out".to_owned()));
        }
        if names.len() > MAX_ROLES {
            return Err(Error::Set(format!("it has {} roles; {MAX_ROLES} is the most", names.len())));
        }
        let places: AHashMap<RoleName, RoleIndex> =
            names.iter().enumerate().filter_map(|(p, n)| Some((n.clone(), RoleIndex::new(p)?))).collect();
        let mut edges: Vec<Vec<(&Line, RoleIndex)>> = vec![Vec::new(); names.len()];
        for row in &set.includes {
            if let (Some(from), Some(to)) = (places.get(&row.role), places.get(&row.included))
                && let Some(out) = edges.get_mut(from.place())
            {
                out.push((&row.line, *to));
            }
        }
        let mut closures = Closures { edges: &edges, done: vec![None; names.len()], wrong: None };
        for place in 0..names.len() {
            closures.walk(place, 0);
        }
        if let Some(wrong) = closures.wrong {
            return Err(Error::Rules(vec![wrong]));
        }
        let rows: Vec<Rule> = set
            .rights
            .iter()
            .filter_map(|r| {
                let (kind, action) = (r.kind, r.action);
                Some(Rule { line: r.line.clone(), role: places.get(&r.role).copied()?, kind, action })
            })
            .collect();
        let mut own = vec![Rights::NONE; names.len()];
        for row in &rows {
            if let (Some(rights), Some(right)) = (own.get_mut(row.role.place()), Right::of(row.kind, row.action)) {
                rights.insert(right);
            }
        }
        let roles = names
            .into_iter()
            .zip(closures.done)
            .zip(&edges)
            .map(|((name, closure), out)| {
                let (closure, depth) = closure.unwrap_or((RoleSet::EMPTY, 0));
                let mut rights = Rights::NONE;
                closure.iter().filter_map(|i| own.get(i.place())).for_each(|r| rights.add(*r));
                let words = set.words.get(&name).cloned().unwrap_or_default();
                Role { words, includes: out.iter().map(|(_, to)| *to).collect(), closure, depth, rights, name }
            })
            .collect();
        Ok(Self { roles, places, rows })
    }
}

/// The right that a name is by itself. No role has a slash in its name.
fn single(name: &RoleName) -> Option<Right> {
    let (kind, action) = name.right()?;
    Right::of(kind.parse().ok()?, action)
}

/// Works out what each role includes. Deeper than [`MAX_DEPTH`] is a circle or a mistake: both are refused.
struct Closures<'a> {
    edges: &'a [Vec<(&'a Line, RoleIndex)>],
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
            // More steps than the limit, from whichever role the walk began: a circle never gets further than this.
            let (below, length) = if above < MAX_DEPTH { self.walk(to.place(), above + 1) } else { (set, MAX_DEPTH) };
            set.add(below);
            depth = depth.max(length + 1);
            if depth > MAX_DEPTH && self.wrong.is_none() {
                let what = format!("roles include each other in a circle, or more than {MAX_DEPTH} deep");
                self.wrong = Some(LineError { line: (*line).clone(), what });
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
