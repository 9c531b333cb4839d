// SPDX-License-Identifier: Apache-2.0
//! Patterns of paths as a tree: `/a/{b}/c`, where `{b}` stands for any one part that is not empty, and `id:{b}` for one
//! that begins with these letters.
//!
//! A path that several patterns match belongs to the one that is literal wherever another one is. Where two patterns
//! are each more literal than the other, no reader can be relied on to choose as we would: such a path matches nothing.

use ahash::AHashMap;

/// Most parts of a pattern, one bit each.
const MAX_PARTS: usize = 32;

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Any(String),
    /// After [`ID`].
    Id(String),
}

/// What stands before a name in a part of the older paths of some APIs.
pub(crate) const ID: &str = "id:";

impl Part {
    /// What a part of a path is called that stands for something.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Any(name) | Self::Id(name) => Some(name),
        }
    }
}

/// A pattern read from its text; the error says what is wrong.
pub(crate) fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    let inside = pattern.strip_prefix('/').ok_or_else(|| format!("{pattern:?} does not begin with /"))?;
    if inside.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Part> = Vec::new();
    for text in inside.split('/') {
        let plain = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let named = |text: &str| text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).map(str::to_owned);
        let part = match (named(text), text.strip_prefix(ID).and_then(named)) {
            (Some(name), _) if plain(&name) => Part::Any(name),
            (_, Some(name)) if plain(&name) => Part::Id(name),
            (None, None) if plain(text) => Part::Literal(text.to_owned()),
            _ => return Err(format!("{pattern:?}: {text:?} is no part of a pattern")),
        };
        if part.name().is_some_and(|name| found.iter().any(|other| other.name() == Some(name))) {
            return Err(format!("{pattern:?}: {text} comes twice"));
        }
        found.push(part);
    }
    if found.len() > MAX_PARTS { Err(format!("{pattern:?} has more than {MAX_PARTS} parts")) } else { Ok(found) }
}

/// A tree of patterns, each with something of its own.
#[derive(Debug)]
pub(crate) struct Tree<T> {
    literals: AHashMap<String, Tree<T>>,
    id: Option<Box<Tree<T>>>,
    any: Option<Box<Tree<T>>>,
    here: Option<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { literals: AHashMap::new(), id: None, any: None, here: None }
    }
}

/// What a path matches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match<'t, T> {
    One(&'t T),
    None,
    /// Two patterns, neither of which comes first.
    Crossed,
}

impl<T> Tree<T> {
    /// The place of a pattern. Patterns that differ only in the names of their parameters share one.
    pub(crate) fn place(&mut self, parts: &[Part]) -> &mut Option<T> {
        match parts.split_first() {
            None => &mut self.here,
            Some((Part::Literal(text), rest)) => self.literals.entry(text.clone()).or_default().place(rest),
            Some((Part::Id(_), rest)) => self.id.get_or_insert_default().place(rest),
            Some((Part::Any(_), rest)) => self.any.get_or_insert_default().place(rest),
        }
    }

    /// The pattern that a path belongs to.
    pub(crate) fn find<'p>(&self, segments: impl Iterator<Item = &'p str> + Clone) -> Match<'_, T> {
        // The best match so far and which of its parts are literal, and all that any match had literal.
        let mut best: Option<(&T, u32)> = None;
        let mut every = 0;
        self.walk(segments, 0, 0, &mut |found, literal| {
            every |= literal;
            if best.is_none_or(|(_, bits)| bits | literal != bits) {
                best = Some((found, literal));
            }
        });
        match best {
            None => Match::None,
            Some((found, bits)) if bits == every => Match::One(found),
            Some(_) => Match::Crossed,
        }
    }

    fn walk<'t, 'p>(
        &'t self,
        mut segments: impl Iterator<Item = &'p str> + Clone,
        depth: usize,
        literal: u32,
        found: &mut impl FnMut(&'t T, u32),
    ) {
        let Some(segment) = segments.next() else {
            if let Some(here) = &self.here {
                found(here, literal);
            }
            return;
        };
        if depth >= MAX_PARTS || segment.is_empty() {
            return;
        }
        if let Some(next) = self.literals.get(segment) {
            next.walk(segments.clone(), depth + 1, literal | 1 << depth, found);
        }
        if let Some(next) = self.id.as_ref().filter(|_| segment.len() > ID.len() && segment.starts_with(ID)) {
            next.walk(segments.clone(), depth + 1, literal | 1 << depth, found);
        }
        if let Some(next) = &self.any {
            next.walk(segments, depth + 1, literal, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(patterns: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::default();
        for p in patterns {
            assert_eq!(tree.place(&parts(p).unwrap()).replace(*p), None);
        }
        tree
    }

    fn find(tree: &Tree<&'static str>, path: &str) -> Option<&'static str> {
        let path = super::super::canonical(path).unwrap();
        let segments: Vec<&str> = path.segments().collect();
        match tree.find(segments.into_iter()) {
            Match::One(p) => Some(p),
            Match::None | Match::Crossed => None,
        }
    }

    #[test]
    fn the_more_literal_pattern_has_the_path_and_crossed_ones_have_nothing() {
        let t = tree(&["/", "/i/{f}", "/i/aliases", "/i/aliases/{n}", "/i/{f}/export", "/x/{a}/{b}", "/x/y/z"]);
        assert_eq!(find(&t, "/"), Some("/"));
        assert_eq!(find(&t, "/i/aliases"), Some("/i/aliases"));
        assert_eq!(find(&t, "/i/abc"), Some("/i/{f}"));
        assert_eq!(find(&t, "/i/abc/export"), Some("/i/{f}/export"));
        assert_eq!(find(&t, "/i/aliases/abc"), Some("/i/aliases/{n}"));
        assert_eq!(
            find(&t, "/i/aliases/export"),
            None,
            "an alias named export, or the export of an image named aliases"
        );
        assert_eq!(find(&t, "/x/y/z"), Some("/x/y/z"));
        for none in ["/i", "/i/", "/i/abc/", "/i/abc/export/x", "/I/abc", "/i/abc/exportx", "/nothing"] {
            assert_eq!(find(&t, none), None, "{none}");
        }
    }

    #[test]
    fn a_part_with_its_mark_is_no_other_part() {
        let t = tree(&["/l/item", "/l/id:{l}", "/l/item/id:{i}", "/{x}/id:{y}/z"]);
        for (path, wanted) in [
            ("/l/id:7", Some("/l/id:{l}")),
            ("/l/item/id:7", Some("/l/item/id:{i}")),
            ("/q/id:a/z", Some("/{x}/id:{y}/z")),
            ("/l/7", None),
            ("/l/id:", None),
            ("/l/ID:7", None),
            ("/l/item/7", None),
        ] {
            assert_eq!(find(&t, path), wanted, "{path}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        for bad in [
            "",
            "a",
            "/a//b",
            "/a/",
            "/{}",
            "/{a",
            "/a}",
            "/{a}/{a}",
            "/a b",
            "/a*",
            "/id:",
            "/id:{}",
            "/id:a",
            "/x:{a}",
            "/{a}/id:{a}",
        ] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }
}
