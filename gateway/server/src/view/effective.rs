// SPDX-License-Identifier: Apache-2.0
//! Who may do what, both ways: all that a person may do, and all who may touch one thing.

use super::{Choice, Problems, Shell, When};
use askama::Template;

/// One thing that a person may touch, or one person who may touch a thing.
#[derive(Debug, Clone)]
pub(crate) struct ReachRow {
    /// The person's name, or the thing in words.
    pub(crate) what: String,
    /// The page about it, where there is one.
    pub(crate) href: String,
    /// The actions, in words and as policies call them, each with when it was used last.
    pub(crate) actions: Vec<(&'static str, &'static str, Option<When>)>,
}

/// Effective access, at `/access`. Asks with `user` or `on`; `as=csv` gives the same as a file.
#[derive(Template)]
#[template(path = "pages/effective.html")]
pub(crate) struct Effective {
    /// Around it.
    pub(crate) shell: Shell,
    /// Of whom, or to what; none until something is chosen.
    pub(crate) about: Option<String>,
    /// Whether the rows are things, or people.
    pub(crate) things: bool,
    /// What was found.
    pub(crate) rows: Vec<ReachRow>,
    /// Where the same can be had as a file.
    pub(crate) file: String,
    /// Everybody who can be chosen.
    pub(crate) people: Vec<Choice>,
    /// Things that can be chosen.
    pub(crate) choices: Vec<Choice>,
    /// The person who was chosen.
    pub(crate) user: String,
    /// The thing that was typed.
    pub(crate) on: String,
    /// What went wrong; fields `user` and `on`.
    pub(crate) problems: Problems,
}

super::places! { Effective = "grants", }
