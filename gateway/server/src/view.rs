// SPDX-License-Identifier: Apache-2.0
//! What each page shows: one struct a page, filled by a handler, turned into HTML by the template of the same name.
//!
//! In: plain values that a handler has already been allowed to show. Out: HTML, through `askama`, which escapes every
//! value. What must never happen here: a decision, a query, a clock, `|safe`, or a secret that was not made to be
//! shown once (a set-up link, an enrolment key, recovery codes, a new token).
//!
//! ```text
//! handler ── Shell (csrf, who, notices) ──┐
//!         ── rows, form as posted ────────┴─> struct X ── templates/pages/x.html ─> HTML
//! ```
//!
//! Decisions (2026-11-21): every page owns its values, because pages are small and a borrow from a handler's five
//! sources buys nothing; instants are shown as words with the exact time in UTC beside them, because evidence needs one
//! clock; a form that failed comes back with what was typed (never a password) and its [`Problems`] next to the fields.

/// Says for each page which entry of the menu it belongs to; empty when to none.
macro_rules! places {
    ($($page:ident = $place:literal,)*) => {$(
        impl $page {
            /// Its entry in the menu.
            pub(crate) const PLACE: &'static str = $place;
        }
    )*};
}
use places;

mod access;
mod adding;
mod effective;
mod grants;
mod history;
mod machines;
mod me;
mod people;
mod reply;
mod running;
mod sign_in;
mod trail;
mod words;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub(crate) use access::{
    LockRow, LocksPage, ProposalPage, ProposalRow, RequestForm, RequestMoves, RequestPage, RequestRow, RequestStep,
    RequestUse, RequestsPage,
};
pub(crate) use adding::{
    AddedFacts, AgreeHypervisor, ApiDraft, CertificateRow, Field, HypervisorPage, KindRow, NewHypervisor, Written,
};
pub(crate) use effective::{Effective, ReachRow};
pub(crate) use grants::{
    GrantForm, GrantRow, GrantState, Grants, GroupPage, GroupRow, Groups, OtherwiseRow, Preview, RoleCard, Roles,
    ShiftRow,
};
pub(crate) use history::{ChangeRow, History, Version, VersionRow};
pub(crate) use machines::{ConsoleDoor, ConsolePage, MachineRow, Machines, Notice, Power, Recorded};
pub(crate) use me::{FactorRow, KeyRow, Me, SessionRow, TokenDraft, TokenRow, TokenState, device};
pub(crate) use people::{Choice, Emergencies, EmergencyRow, OneTimeLink, PersonPage, UserRow, UserState, Users};
pub(crate) use reply::ErrorPage;
pub(crate) use running::{
    HypervisorRow, HypervisorState, Hypervisors, LiveConsoles, LiveRow, RecordingRow, RecordingState, Recordings,
};
pub(crate) use sign_in::{
    Banner, BreakGlass, Code, Enrol, EnrolReason, Recovery, RecoveryCodes, SetUp, SetUpKind, SignIn, SignedOut, StepUp,
};
pub(crate) use trail::{Trail, TrailEvent, TrailFilter, TrailRow, Verified};
pub(crate) use words::{Shut, given, verb};

use portcullis_identity::Proofs;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What stands around every page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shell {
    /// The session's CSRF token, for the hidden field of each form and for scripts. Empty: the page has no form.
    pub(crate) csrf: String,
    /// Who is signed in, if anybody.
    pub(crate) who: Option<Who>,
    /// Messages from the request before this one.
    pub(crate) flashes: Vec<Flash>,
    /// Uses of sealed codes that nobody has written about yet, for those who can.
    pub(crate) emergencies: u64,
    /// Access requests that wait for this person's decision.
    pub(crate) to_decide: usize,
    /// When a recovery code of theirs was used, and from where: told until they have new ones.
    pub(crate) recovery: Option<(When, String)>,
}

impl Shell {
    /// For somebody who is not signed in.
    pub(crate) fn stranger(csrf: impl Into<String>) -> Self {
        Self { csrf: csrf.into(), ..Self::default() }
    }

    /// For somebody who is.
    pub(crate) fn signed_in(csrf: impl Into<String>, who: Who) -> Self {
        Self { csrf: csrf.into(), who: Some(who), ..Self::default() }
    }

    /// The same with messages.
    #[must_use]
    pub(crate) fn with(mut self, flashes: Vec<Flash>) -> Self {
        self.flashes = flashes;
        self
    }
}

/// Who is signed in, and which parts of the house are open to them.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// The name they sign in with.
    pub(crate) name: String,
    /// The name shown to people.
    pub(crate) display_name: String,
    /// Which administration pages they may read.
    pub(crate) doors: Doors,
    /// Until when no fresh code is asked for, if one was given lately.
    pub(crate) fresh_until: Option<When>,
    /// What they can confirm themselves with.
    pub(crate) proofs: Proofs,
}

/// The administration pages that a person may read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doors {
    /// `gateway:users`.
    pub(crate) users: bool,
    /// `gateway:policy`: roles and grants.
    pub(crate) policy: bool,
    /// `gateway:hypervisors`.
    pub(crate) hypervisors: bool,
    /// `gateway:sessions`.
    pub(crate) sessions: bool,
    /// `gateway:recordings`.
    pub(crate) recordings: bool,
    /// `gateway:audit`.
    pub(crate) trail: bool,
}

impl Doors {
    /// Whether any of them is open.
    pub(crate) fn any(self) -> bool {
        self.users || self.policy || self.hypervisors || self.sessions || self.recordings || self.trail
    }
}

/// How a message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something worked.
    Good,
    /// Something to know.
    Note,
    /// Something to look at.
    Warn,
    /// Something did not work.
    Bad,
}

impl Tone {
    /// The word read out before the message, and the class of its look.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Good => "done",
            Self::Note => "note",
            Self::Warn => "warning",
            Self::Bad => "error",
        }
    }

    /// Reads what [`Tone::word`] wrote, for messages that wait in a session; anything else is a note.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "done" => Self::Good,
            "warning" => Self::Warn,
            "error" => Self::Bad,
            _ => Self::Note,
        }
    }
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Flash {
    /// How it is meant.
    pub(crate) tone: Tone,
    /// What it says.
    pub(crate) text: String,
}

impl Flash {
    /// A message.
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }
}

/// What is wrong with a form: a field's name and words on what to do. The empty name is the form as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems(Vec<(&'static str, String)>);

impl Problems {
    /// No problem.
    pub(crate) const fn none() -> Self {
        Self(Vec::new())
    }

    /// One problem of one field; `""` for the form as a whole.
    pub(crate) fn one(field: &'static str, text: impl Into<String>) -> Self {
        Self(vec![(field, text.into())])
    }

    /// Adds a problem.
    pub(crate) fn add(&mut self, field: &'static str, text: impl Into<String>) {
        self.0.push((field, text.into()));
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problem of a field; empty when it has none.
    pub(crate) fn of(&self, field: &str) -> &str {
        self.0.iter().find(|(f, _)| *f == field).map_or("", |(_, text)| text)
    }

    /// The first problem; empty when there is none.
    pub(crate) fn first(&self) -> &str {
        self.0.first().map_or("", |(_, text)| text)
    }

    /// The problems that belong to none of a form's fields.
    pub(crate) fn whole(&self) -> &str {
        self.of("")
    }
}

/// An instant, and the instant from which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    at: OffsetDateTime,
    now: OffsetDateTime,
}

impl When {
    /// `at`, told at `now`.
    pub(crate) const fn new(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        Self { at, now }
    }

    /// As RFC 3339 in UTC, to the second.
    pub(crate) fn iso(&self) -> String {
        let at = self.at.to_offset(time::UtcOffset::UTC);
        at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
    }

    /// As a person writes it, in UTC: `2026-11-21 04:24:07`.
    pub(crate) fn text(&self) -> String {
        let at = self.at.to_offset(time::UtcOffset::UTC);
        let (date, clock) = (at.date(), at.time());
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second()
        )
    }

    /// As a distance from now: `3 minutes ago`, `in 2 hours`.
    pub(crate) fn ago(&self) -> String {
        let seconds = (self.at - self.now).whole_seconds();
        let far = seconds.unsigned_abs();
        let (count, unit) = match far {
            0..=44 => return if seconds > 0 { "in a moment".to_owned() } else { "just now".to_owned() },
            45..=5_399 => (far.div_ceil(60).max(1), "minute"),
            5_400..=129_599 => ((far + 1_800) / 3_600, "hour"),
            _ => ((far + 43_200) / 86_400, "day"),
        };
        let plural = if count == 1 { "" } else { "s" };
        if seconds > 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
    }
}

/// A number of bytes as people read it: `1.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, step) in UNITS {
        if bytes >= step {
            return format!("{}.{} {unit}", bytes / step, bytes % step * 10 / step);
        }
    }
    format!("{bytes} bytes")
}

/// A length of time as people read it: `1 h 04 min`, `3 min 20 s`.
pub(crate) fn span(length: time::Duration) -> String {
    let seconds = length.whole_seconds().max(0);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}
