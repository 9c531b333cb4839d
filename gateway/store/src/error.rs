// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store could not do it. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, is locked, full or broke off: try later, deny meanwhile.
    #[error("the database cannot be reached or did not answer in time: {0}")]
    Unavailable(#[source] Source),
    /// It exists already; the text names what.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// Somebody else changed rights at the same moment, so nothing was changed: look again.
    #[error("somebody else made a change at the same moment")]
    Overtaken,
    /// It does not exist; the text names what.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The row breaks a rule that the database keeps.
    #[error("the database refused a row that breaks its rules: {0}")]
    Refused(#[source] Source),
    /// The database was migrated by a newer program: install that one.
    #[error(
        "the database is newer than this program: it has migration {found}, the program knows up to {known}; \
         use the newer program"
    )]
    Newer {
        /// The newest migration in the database.
        found: i64,
        /// The newest migration that this program knows.
        known: i64,
    },
    /// A migration failed or was edited after it was applied.
    #[error("the database could not be migrated: {0}")]
    Migration(#[source] Source),
    /// The address is not one of a database that this program can open.
    #[error("{0}: use sqlite:///absolute/path.db or postgres://user@host/database")]
    Address(String),
    /// A row that this program cannot read.
    #[error("table {table} holds a row that cannot be read: {row}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key, and what is wrong with it.
        row: String,
    },
    /// The key file cannot be used.
    #[error("key file {}: {why}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A sealed value that does not open: another key, another row, or changed bytes.
    #[error("a sealed value cannot be opened: it was sealed under another key, for another row, or it was changed")]
    Sealed,
    /// The system gives no random bytes: nothing that needs a key can be made.
    #[error("the system gives no random bytes")]
    Randomness,
}

impl Error {
    pub(crate) fn sql(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(e) if e.is_unique_violation() => Self::Conflict("such a row"),
            sqlx::Error::Database(e) if e.is_foreign_key_violation() => Self::NotFound("what the row refers to"),
            sqlx::Error::Database(e) if e.is_check_violation() => Self::Refused(Box::new(error)),
            sqlx::Error::ColumnDecode { index, .. } => Self::Corrupt { table: "?", row: format!("column {index}") },
            _ => Self::Unavailable(Box::new(error)),
        }
    }

    /// Names what exists already, where a unique rule was broken.
    pub(crate) fn or_conflict(self, what: &'static str) -> Self {
        if matches!(self, Self::Conflict(_)) { Self::Conflict(what) } else { self }
    }

    /// Names what is missing, where a reference led nowhere.
    pub(crate) fn or_missing(self, what: &'static str) -> Self {
        if matches!(self, Self::NotFound(_)) { Self::NotFound(what) } else { self }
    }

    pub(crate) fn corrupt(table: &'static str, row: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Corrupt { table, row: format!("{row}: {why}") }
    }
}
