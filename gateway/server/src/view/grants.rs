// SPDX-License-Identifier: Apache-2.0
//! Roles, grants and groups.

use super::{Choice, Problems, Shell, When};
use askama::Template;

/// One role.
#[derive(Debug, Clone)]
pub(crate) struct RoleCard {
    /// Its name as in the policy.
    pub(crate) name: String,
    /// What it is for, in one sentence.
    pub(crate) words: String,
    /// What it allows, one line each: `open consoles with keyboard and mouse`.
    pub(crate) may: Vec<String>,
    /// What is forbidden to it whatever else is allowed.
    pub(crate) must_not: Vec<String>,
    /// How many people hold it now.
    pub(crate) holders: usize,
}

/// Every role in words, at `/roles`.
#[derive(Template)]
#[template(path = "pages/roles.html")]
#[expect(clippy::struct_field_names, reason = "the page is called after what it lists")]
pub(crate) struct Roles {
    /// Around it.
    pub(crate) shell: Shell,
    /// The roles.
    pub(crate) roles: Vec<RoleCard>,
    /// The whole policy as the program prints it.
    pub(crate) matrix: String,
}

/// Whether a grant counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantState {
    /// Now.
    Active,
    /// Not yet.
    Coming,
    /// No longer.
    Ended,
}

impl GrantState {
    /// The word shown to people.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Coming => "not yet",
            Self::Ended => "ended",
        }
    }

    /// How it looks beside its word.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Active => "good",
            Self::Coming => "note",
            Self::Ended => "off",
        }
    }
}

/// One grant.
#[derive(Debug, Clone)]
pub(crate) struct GrantRow {
    /// Its id.
    pub(crate) id: String,
    /// The page of the person or the group.
    pub(crate) href: String,
    /// The person's or the group's name.
    pub(crate) user: String,
    /// The verb of its sentence: `may act as`, `must not`.
    pub(crate) verb: &'static str,
    /// The role, or what the one right means.
    pub(crate) role: String,
    /// On what, in words: `tag web`.
    pub(crate) on: String,
    /// How many machines that is now, when it selects machines.
    pub(crate) machines: Option<usize>,
    /// From when.
    pub(crate) from: When,
    /// Until when; none means until revoked.
    pub(crate) until: Option<When>,
    /// Conditions in words: `fresh code every 5 minutes`, `recorded`.
    pub(crate) with: Vec<String>,
    /// Where it came from, in words.
    pub(crate) source: String,
    /// Whether it counts.
    pub(crate) state: GrantState,
    /// Why it cannot be revoked here: the last administrator, or it comes from a file.
    pub(crate) kept: Option<String>,
}

/// The sentence as typed before.
#[derive(Debug, Clone)]
pub(crate) struct GrantForm {
    /// A user id, or `group:` and a group's id.
    pub(crate) user: String,
    /// A role name.
    pub(crate) role: String,
    /// What it is for, one thing a line.
    pub(crate) on: String,
    /// Hours from now; empty means until revoked.
    pub(crate) hours: String,
    /// The first day on which it no longer counts, instead of hours.
    pub(crate) until: String,
    /// Why, for the trail.
    pub(crate) note: String,
    /// Whether it forbids.
    pub(crate) forbid: bool,
    /// Seconds of the step-up window.
    pub(crate) step_up_seconds: String,
    /// Whether each action asks for its own code.
    pub(crate) step_up_each: bool,
    /// Whether consoles are recorded.
    pub(crate) record: bool,
    /// Whether a passkey must be among what was proven.
    pub(crate) passkey: bool,
    /// Hours of the week.
    pub(crate) week: String,
    /// Networks.
    pub(crate) networks: String,
    /// Whether virtual machines are meant, where not all kinds are.
    pub(crate) guests: bool,
    /// The same for containers.
    pub(crate) containers: bool,
    /// The same for templates.
    pub(crate) templates: bool,
    /// Most bytes into the clipboard at once.
    pub(crate) clipboard_in: String,
    /// The same out of it.
    pub(crate) clipboard_out: String,
}

impl Default for GrantForm {
    fn default() -> Self {
        Self {
            user: String::new(),
            role: String::new(),
            on: String::new(),
            hours: "336".to_owned(),
            until: String::new(),
            note: String::new(),
            forbid: false,
            step_up_seconds: "300".to_owned(),
            step_up_each: false,
            record: true,
            passkey: false,
            week: String::new(),
            networks: String::new(),
            guests: false,
            containers: false,
            templates: false,
            clipboard_in: String::new(),
            clipboard_out: String::new(),
        }
    }
}

impl GrantForm {
    /// What `hours` can be.
    pub(crate) const HOURS: [(&'static str, &'static str); 8] = [
        ("1", "1 hour"),
        ("8", "8 hours"),
        ("24", "1 day"),
        ("168", "7 days"),
        ("336", "14 days"),
        ("720", "30 days"),
        ("2160", "90 days"),
        ("", "until revoked"),
    ];
    /// What `step_up_seconds` can be.
    pub(crate) const WINDOWS: [(&'static str, &'static str); 5] = [
        ("0", "of the last 15 seconds"),
        ("300", "every 5 minutes"),
        ("900", "every 15 minutes"),
        ("1800", "every 30 minutes"),
        ("3600", "every hour"),
    ];

    /// Whether a condition differs from what it is when nobody touches it: then the conditions are shown open.
    pub(crate) fn is_special(&self) -> bool {
        let Self { until, week, networks, clipboard_in, clipboard_out, .. } = self;
        let typed = [until, week, networks, clipboard_in, clipboard_out].into_iter().any(|t| !t.is_empty());
        let plain = Self::default();
        typed
            || self.forbid
            || self.step_up_each
            || self.passkey
            || self.guests
            || self.containers
            || self.templates
            || self.record != plain.record
            || self.step_up_seconds != plain.step_up_seconds
    }
}

/// One line of what a change does: `Bob gains console.view on lab/1, lab/2`.
#[derive(Debug, Clone)]
pub(crate) struct ShiftRow {
    /// Who.
    pub(crate) who: String,
    /// Whether it is gained.
    pub(crate) gains: bool,
    /// The actions.
    pub(crate) actions: String,
    /// On how many things, and which.
    pub(crate) on: String,
}

/// One operation of the past that a change would decide otherwise.
#[derive(Debug, Clone)]
pub(crate) struct OtherwiseRow {
    /// When.
    pub(crate) at: When,
    /// Who asked.
    pub(crate) who: String,
    /// For what.
    pub(crate) what: String,
    /// Whether it would be let through.
    pub(crate) allowed: bool,
}

/// What a change would do, before it is saved.
#[derive(Debug, Clone)]
pub(crate) struct Preview {
    /// The sentence as it was understood.
    pub(crate) sentence: String,
    /// Who gains and loses what.
    pub(crate) shifts: Vec<ShiftRow>,
    /// How many lines are not shown.
    pub(crate) more_shifts: usize,
    /// Days of the trail that were looked at.
    pub(crate) days: i64,
    /// Operations that were looked at.
    pub(crate) asked: usize,
    /// Those of people or things that are not known any more.
    pub(crate) unknown: usize,
    /// Those that would be decided otherwise.
    pub(crate) otherwise: Vec<OtherwiseRow>,
    /// How many of them are not shown.
    pub(crate) more_otherwise: usize,
}

/// Every grant, at `/grants`. Posts `csrf user role on hours until note forbid step_up_seconds step_up_each record passkey
/// week networks guests containers templates clipboard_in clipboard_out` to `/grants` and `/grants/preview` (those from
/// `until` on may be absent; a box is `on` or absent; `hours` empty means until revoked) and `csrf grant next` to
/// `/grants/revoke`.
#[derive(Template)]
#[template(path = "pages/grants.html")]
pub(crate) struct Grants {
    /// Around it.
    pub(crate) shell: Shell,
    /// The grants, active ones first.
    pub(crate) rows: Vec<GrantRow>,
    /// Whether the person may change them.
    pub(crate) may_write: bool,
    /// The people to choose from.
    pub(crate) users: Vec<Choice>,
    /// The groups to choose from.
    pub(crate) groups: Vec<Choice>,
    /// The roles to choose from.
    pub(crate) roles: Vec<Choice>,
    /// The rights that can be given one by one.
    pub(crate) rights: Vec<Choice>,
    /// Things to suggest, as a line of the list with what it is.
    pub(crate) things: Vec<Choice>,
    /// The sentence as typed before.
    pub(crate) form: GrantForm,
    /// What it would do.
    pub(crate) preview: Option<Preview>,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// One group in the list.
#[derive(Debug, Clone)]
pub(crate) struct GroupRow {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) words: String,
    /// Whether a directory keeps it.
    pub(crate) directory: bool,
    /// How many are in it.
    pub(crate) members: usize,
    /// Its roles in words.
    pub(crate) roles: Vec<String>,
}

/// Every group, at `/groups`. Posts `csrf name words` to `/groups`.
#[derive(Template)]
#[template(path = "pages/groups.html")]
pub(crate) struct Groups {
    /// Around it.
    pub(crate) shell: Shell,
    /// The groups.
    pub(crate) rows: Vec<GroupRow>,
    /// Whether the person may change them.
    pub(crate) may_write: bool,
    /// The form as typed before.
    pub(crate) name: String,
    /// The form as typed before.
    pub(crate) words: String,
    /// What went wrong; fields `name`, `words`.
    pub(crate) problems: Problems,
}

/// One group, at `/groups/{id}`. Posts `csrf user` to `/groups/{id}/add` and `/groups/{id}/remove`, and `csrf` to
/// `/groups/{id}/delete`.
#[derive(Template)]
#[template(path = "pages/group.html")]
pub(crate) struct GroupPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The group.
    pub(crate) group: GroupRow,
    /// Since when.
    pub(crate) created: When,
    /// Who is in it: a user id, and a name.
    pub(crate) members: Vec<Choice>,
    /// Who could come in.
    pub(crate) others: Vec<Choice>,
    /// Its grants.
    pub(crate) grants: Vec<GrantRow>,
    /// Whether the person may change who is in it.
    pub(crate) may_write: bool,
    /// Whether the person may change its grants.
    pub(crate) may_grant: bool,
    /// What went wrong; field `user`.
    pub(crate) problems: Problems,
}

super::places! { Roles = "roles", Grants = "grants", Groups = "groups", GroupPage = "groups", }
