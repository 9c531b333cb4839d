// SPDX-License-Identifier: Apache-2.0
//! The strict reader of files. It takes the whole set or nothing.
//!
//! Casbin's own reader is not used: it takes a quote, a newline or a misspelt `deny` for what it is not, and a rule
//! with too few columns would fail only when somebody is refused because of it.

use super::{Given, GrantRow, IncludeRow, Line, LineError, MemberRow, RightRow, Set, Who};
use crate::{Error, Kind};
use ahash::AHashMap;
use portcullis_domain::{Action, RoleName};
use std::sync::Arc;

/// Largest set, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most wrong lines that are told at once.
const MAX_WRONG: usize = 50;
/// Longest name of a person or a group, in bytes.
const MAX_NAME: usize = 256;

pub(super) fn read<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Set, Error> {
    let mut reader = Reader::default();
    let mut size = 0usize;
    for (file, text) in files {
        size = size.saturating_add(text.len());
        if size > MAX_BYTES {
            return Err(Error::Set(format!("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)));
        }
        let file: Arc<str> = Arc::from(file);
        for (number, line) in text.lines().enumerate() {
            let at = Line { file: Arc::clone(&file), number: number + 1 };
            if let Err(what) = reader.take(&at, line)
                && reader.wrong.len() < MAX_WRONG
            {
                reader.wrong.push(LineError { line: at, what });
            }
        }
    }
    if reader.wrong.is_empty() { Ok(reader.set) } else { Err(Error::Rules(reader.wrong)) }
}

#[derive(Default)]
struct Reader {
    set: Set,
    seen: AHashMap<Vec<String>, Line>,
    wrong: Vec<LineError>,
}

impl Reader {
    fn take(&mut self, at: &Line, line: &str) -> Result<(), String> {
        // The two separators of Unicode end a line for some readers and not for others.
        if let Some(c) = line.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
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
        let columns = columns(line)?;
        if let Some(first) = self.seen.get(&columns) {
            return Err(format!("it repeats {first}"));
        }
        let words: Vec<&str> = columns.iter().map(String::as_str).collect();
        let line = at.clone();
        match words.as_slice() {
            ["g2", held, role] => self.right(line, held, named(role)?)?,
            ["p", who, role, on, when, effect] => {
                self.set.grants.push(GrantRow { line, who: holder(who)?, given: Given::read(role, on, when, effect)? });
            }
            ["g", person, group] => match (holder(person)?, holder(group)?) {
                (Who::Person(person), Who::Group(group)) => self.set.members.push(MemberRow { line, person, group }),
                _ => return Err("a member is a person in a group: g, person:NAME, group:NAME".to_owned()),
            },
            ["p", rest @ ..] => {
                return Err(format!("{} columns after p, not 5: p, who, role, on, when, allow|deny", rest.len()));
            }
            ["g", rest @ ..] => {
                return Err(format!("{} columns after g, not 2: g, person:NAME, group:NAME", rest.len()));
            }
            ["g2", rest @ ..] => {
                return Err(format!("{} columns after g2, not 2: g2, right or role, role that has it", rest.len()));
            }
            _ => {
                return Err("a row begins with g2 (what a role has), p (a grant) or g (a member of a group)".to_owned());
            }
        }
        self.seen.insert(columns, at.clone());
        Ok(())
    }

    /// A right has a slash, a role has none: the two cannot be taken for each other.
    fn right(&mut self, line: Line, held: &str, role: RoleName) -> Result<(), String> {
        let Some((kind, action)) = held.split_once('/') else {
            let included = named(held)?;
            if included == role {
                return Err(format!("the role {role} includes itself"));
            }
            self.set.includes.push(IncludeRow { line, included, role });
            return Ok(());
        };
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
        self.set.rights.push(RightRow { line, role, kind, action });
        Ok(())
    }

    /// `# role: words` describes a role.
    fn describe(&mut self, comment: &str) {
        if let Some((name, words)) = comment.split_once(": ")
            && let Ok(name) = name.trim_matches(' ').parse::<RoleName>()
        {
            self.set.words.entry(name).or_insert_with(|| words.trim().to_owned());
        }
    }
}

/// The role that a row of roles speaks of: a right by itself is held by grants alone.
fn named(text: &str) -> Result<RoleName, String> {
    let wrong = || format!("{text:?} is no role name: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends");
    text.parse::<RoleName>().ok().filter(|name| name.right().is_none()).ok_or_else(wrong)
}

/// What a grant gives: a role, or one right.
pub(crate) fn check_role(text: &str) -> Result<RoleName, String> {
    if !text.contains('/') {
        return named(text);
    }
    let name: RoleName = text.parse().map_err(|_| format!("{text:?} is no right such as machine/power"))?;
    let asked = name.right().and_then(|(kind, action)| Some((kind.parse::<Kind>().ok()?, action)));
    match asked {
        Some((kind, action)) if kind.answers(action) => Ok(name),
        _ => Err(format!("{text:?}: that cannot be asked of it")),
    }
}

fn holder(text: &str) -> Result<Who, String> {
    let (who, name): (fn(String) -> Who, _) = if let Some(name) = text.strip_prefix("person:") {
        (Who::Person, name)
    } else if let Some(name) = text.strip_prefix("group:") {
        (Who::Group, name)
    } else {
        return Err(format!("{text:?} is neither person:NAME nor group:NAME"));
    };
    if name.is_empty() || name.len() > MAX_NAME || name.trim() != name {
        return Err(format!("{text:?} holds no name: 1 to {MAX_NAME} bytes without spaces at the ends"));
    }
    Ok(who(name.to_owned()))
}

/// The columns of a row by RFC 4180, spaces around them left out. A quote belongs to the ends of a column, and a `#`
/// into quotes: other readers of CSV take them for different things elsewhere.
fn columns(line: &str) -> Result<Vec<String>, String> {
    let mut columns = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(' ');
        let (column, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let (column, after) = quoted_column(quoted)?;
            let after = after.trim_start_matches(' ');
            if !after.is_empty() && !after.starts_with(',') {
                return Err("a quote ends a column, and something follows it".to_owned());
            }
            (column, after)
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (column, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if let Some(c) = column.chars().find(|c| matches!(c, '"' | '#')) {
                return Err(format!(
                    "{c:?} is not allowed here: put the whole column in quotes, and a comment on a line of its own"
                ));
            }
            (column.trim_end_matches(' ').to_owned(), after)
        };
        columns.push(column);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(columns),
        }
    }
}

/// What stands before the closing quote, and what follows it; two quotes mean one.
fn quoted_column(text: &str) -> Result<(String, &str), String> {
    let mut column = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote is not closed")?;
        column.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                column.push('"');
                rest = more;
            }
            None => return Ok((column, after)),
        }
    }
}
