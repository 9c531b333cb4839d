// SPDX-License-Identifier: Apache-2.0
//! How the policy came to be what it is: versions of its files, and changes by pages and shells.

use super::{Preview, Problems, Shell, ShiftRow, When};
use askama::Template;

/// One version of the policy files.
#[derive(Debug, Clone)]
pub(crate) struct VersionRow {
    /// Its number.
    pub(crate) number: u32,
    /// When it was taken over.
    pub(crate) at: When,
    /// By whom.
    pub(crate) by: String,
    /// Why.
    pub(crate) why: String,
    /// SHA-256 of its files, in hexadecimal.
    pub(crate) hash: String,
    /// Whether it is in effect.
    pub(crate) newest: bool,
}

/// One change that was no version, as the trail tells it.
#[derive(Debug, Clone)]
pub(crate) struct ChangeRow {
    /// When.
    pub(crate) at: When,
    /// Who made it.
    pub(crate) by: String,
    /// About whom or what.
    pub(crate) about: String,
    /// What was done, or why not.
    pub(crate) words: String,
    /// Its event, for those who may read the trail.
    pub(crate) link: Option<String>,
}

/// The history, at `/policy/history`. Posts `csrf rows` to `/policy/try`.
#[derive(Template)]
#[template(path = "pages/history.html")]
pub(crate) struct History {
    /// Around it.
    pub(crate) shell: Shell,
    /// The versions, newest first.
    pub(crate) versions: Vec<VersionRow>,
    /// Changes by pages and shells, newest first.
    pub(crate) changes: Vec<ChangeRow>,
    /// Rows to try, as typed before or as they are now.
    pub(crate) rows: String,
    /// What those rows would do.
    pub(crate) preview: Option<Preview>,
    /// What is wrong with them; field `rows`.
    pub(crate) problems: Problems,
}

/// One version, at `/policy/history/{version}`. Posts `csrf why` to `/policy/history/{version}/rollback`.
#[derive(Template)]
#[template(path = "pages/version.html")]
pub(crate) struct Version {
    /// Around it.
    pub(crate) shell: Shell,
    /// The version.
    pub(crate) row: VersionRow,
    /// Who gained and lost what by it.
    pub(crate) shifts: Vec<ShiftRow>,
    /// How many lines of that are not shown.
    pub(crate) more_shifts: usize,
    /// Rows that came with it.
    pub(crate) came: Vec<String>,
    /// Rows that went with it.
    pub(crate) went: Vec<String>,
    /// Its files, by name.
    pub(crate) files: Vec<(String, String)>,
    /// What taking it over again would do now; none for the one in effect, and for those who may not.
    pub(crate) preview: Option<Preview>,
    /// Why it cannot be taken over again by this person, where it is not in effect.
    pub(crate) kept: Option<String>,
    /// What went wrong; field `why`.
    pub(crate) problems: Problems,
}

super::places! { History = "history", Version = "history", }
