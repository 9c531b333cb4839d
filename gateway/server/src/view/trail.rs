// SPDX-License-Identifier: Apache-2.0
//! The trail: search, one event, and whether it is whole.

use super::{Problems, Shell, When};
use askama::Template;
use portcullis_domain::Outcome;

/// What is searched for, as typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrailFilter {
    /// A name, or a part of it.
    pub(crate) who: String,
    /// An action's word or a kind of event.
    pub(crate) what: String,
    /// A machine, hypervisor or other resource, or a part of it.
    pub(crate) machine: String,
    /// An outcome's word; empty means any.
    pub(crate) outcome: String,
    /// First day, `YYYY-MM-DD` in UTC.
    pub(crate) from: String,
    /// Last day, `YYYY-MM-DD` in UTC.
    pub(crate) to: String,
}

impl TrailFilter {
    /// Whether anything is searched for.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.who, &self.what, &self.machine, &self.outcome, &self.from, &self.to].iter().all(|f| f.is_empty())
    }
}

/// One event in the list.
#[derive(Debug, Clone)]
pub(crate) struct TrailRow {
    /// Its own page: `/trail/{node}/{number}`.
    pub(crate) href: String,
    /// Its number in its node's trail.
    pub(crate) number: u64,
    /// When.
    pub(crate) at: When,
    /// Who; empty when nobody was known.
    pub(crate) who: String,
    /// What, in words: `console.control`, `sign-in`.
    pub(crate) what: String,
    /// On what; empty when on nothing.
    pub(crate) on: String,
    /// How it came out.
    pub(crate) outcome: Outcome,
    /// Why, or what else matters.
    pub(crate) reason: String,
}

impl TrailRow {
    /// How the outcome looks beside its word.
    pub(crate) const fn outcome_class(&self) -> &'static str {
        match self.outcome {
            Outcome::Done => "good",
            Outcome::Pending => "note",
            Outcome::StepUp | Outcome::Abandoned => "warn",
            Outcome::Denied | Outcome::Failed => "bad",
        }
    }
}

/// Whether the trail is whole.
#[derive(Debug, Clone)]
pub(crate) enum Verified {
    /// It was not looked at since the program started.
    NotYet,
    /// It is whole.
    Whole {
        /// When that was found.
        at: When,
        /// How many events were read.
        events: u64,
    },
    /// It is not; what was found, one line each.
    Broken {
        /// When that was found.
        at: When,
        /// What and where.
        findings: Vec<String>,
    },
}

/// Search, at `/trail`: `GET` with `who what machine outcome from to before`.
#[derive(Template)]
#[template(path = "pages/trail.html")]
pub(crate) struct Trail {
    /// Around it.
    pub(crate) shell: Shell,
    /// What is searched for.
    pub(crate) filter: TrailFilter,
    /// The events, newest first.
    pub(crate) rows: Vec<TrailRow>,
    /// The page with older ones, if there are any.
    pub(crate) older: Option<String>,
    /// The first page, when this is not it.
    pub(crate) newest: Option<String>,
    /// Whether it is whole.
    pub(crate) verified: Verified,
    /// What went wrong; fields as in the filter.
    pub(crate) problems: Problems,
}

impl Trail {
    /// The outcomes to choose from.
    pub(crate) const OUTCOMES: [Outcome; 6] =
        [Outcome::Done, Outcome::Denied, Outcome::StepUp, Outcome::Failed, Outcome::Abandoned, Outcome::Pending];
}

/// One event, at `/trail/{node}/{number}`.
#[derive(Template)]
#[template(path = "pages/trail_event.html")]
pub(crate) struct TrailEvent {
    /// Around it.
    pub(crate) shell: Shell,
    /// What the list shows of it.
    pub(crate) row: TrailRow,
    /// `opened`, `closed` or `noted`.
    pub(crate) phase: String,
    /// The other end of the bracket: its page and what it is called.
    pub(crate) pair: Option<(String, String)>,
    /// The node that wrote it.
    pub(crate) node: String,
    /// The request it belongs to.
    pub(crate) request: String,
    /// Every other detail, by name.
    pub(crate) details: Vec<(String, String)>,
}

super::places! { Trail = "trail", TrailEvent = "trail", }
