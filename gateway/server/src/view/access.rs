// SPDX-License-Identifier: Apache-2.0
//! Access requests and locks.

use super::{Choice, Preview, Problems, Shell, When};
use askama::Template;

/// One request in a list.
#[derive(Debug, Clone)]
pub(crate) struct RequestRow {
    /// Its id.
    pub(crate) id: String,
    /// Who asks.
    pub(crate) who: String,
    /// For which role.
    pub(crate) role: String,
    /// On what, in words.
    pub(crate) on: String,
    /// Why.
    pub(crate) reason: String,
    /// For how long.
    pub(crate) lasts: String,
    /// How it stands, and how that looks.
    pub(crate) state: &'static str,
    /// How its state looks.
    pub(crate) class: &'static str,
    /// When it was asked.
    pub(crate) asked: When,
    /// When it ends, or what has to happen before: words, and the instant.
    pub(crate) ends: Option<(&'static str, When)>,
}

/// Requests, at `/requests`.
#[derive(Template)]
#[template(path = "pages/requests.html")]
pub(crate) struct RequestsPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// Changes of rights that take two people: those that wait, then the last ones; for those who may read the policy.
    pub(crate) changes: Vec<ProposalRow>,
    /// What waits for this person's decision.
    pub(crate) to_decide: Vec<RequestRow>,
    /// Their own.
    pub(crate) mine: Vec<RequestRow>,
    /// Everybody's, for those who may read them.
    pub(crate) all: Option<Vec<RequestRow>>,
}

/// A change of rights that takes two people.
#[derive(Debug, Clone)]
pub(crate) struct ProposalRow {
    /// Its id.
    pub(crate) id: String,
    /// The change.
    pub(crate) words: String,
    /// Why.
    pub(crate) why: String,
    /// Who proposed it.
    pub(crate) by: String,
    /// When.
    pub(crate) at: When,
    /// How it stands.
    pub(crate) state: &'static str,
    /// How that looks.
    pub(crate) class: &'static str,
    /// Until when it waits.
    pub(crate) expires: Option<When>,
    /// When it was decided, by whom, and what was said.
    pub(crate) decided: Option<(When, String, String)>,
}

/// One change that takes two people, at `/proposals/{id}`. Posts `csrf reason seen` to `/proposals/{id}/approve` and
/// `csrf reason` to `/proposals/{id}/refuse`.
#[derive(Template)]
#[template(path = "pages/proposal.html")]
pub(crate) struct ProposalPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The change.
    pub(crate) row: ProposalRow,
    /// Whether the person proposed it.
    pub(crate) own: bool,
    /// Whether they may approve it.
    pub(crate) approves: bool,
    /// Whether they may refuse it or take it back.
    pub(crate) ends: bool,
    /// They have a passkey and have not shown it lately: approving asks for it first.
    pub(crate) passkey_first: bool,
    /// Why they may not approve it.
    pub(crate) objection: Option<String>,
    /// Why it can no longer be made.
    pub(crate) void: Option<String>,
    /// What it would do.
    pub(crate) preview: Option<Preview>,
    /// A digest of that, which comes back with the approval.
    pub(crate) seen: String,
}

/// A form that asks for access, at `/requests/new`. Posts `csrf role on reason hours start` to `/requests`.
#[derive(Template)]
#[template(path = "pages/request_form.html")]
pub(crate) struct RequestForm {
    /// Around it.
    pub(crate) shell: Shell,
    /// The roles that can be asked for, each with what it is for.
    pub(crate) roles: Vec<Choice>,
    /// How long access can be asked for.
    pub(crate) times: Vec<Choice>,
    /// The role, as asked before.
    pub(crate) role: String,
    /// On what, such as `machine:lab/web-1`.
    pub(crate) on: String,
    /// Why.
    pub(crate) reason: String,
    /// For how many hours.
    pub(crate) hours: String,
    /// When it begins, in UTC; empty: when the person begins it.
    pub(crate) start: String,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// One thing that happened to a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestStep {
    /// When.
    pub(crate) at: When,
    /// What, in a word.
    pub(crate) what: &'static str,
    /// Who did it.
    pub(crate) by: String,
    /// What they said.
    pub(crate) words: String,
}

/// One thing that was done under a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestUse {
    /// When.
    pub(crate) at: When,
    /// What, as policy calls it.
    pub(crate) what: String,
    /// On what.
    pub(crate) on: String,
    /// How it came out.
    pub(crate) outcome: &'static str,
    /// Its event in the trail, for those who may read it.
    pub(crate) link: Option<String>,
}

/// What somebody can do about a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestMoves {
    /// Approve it.
    pub(crate) approve: bool,
    /// Refuse it.
    pub(crate) refuse: bool,
    /// Take it back.
    pub(crate) withdraw: bool,
    /// Begin what was approved.
    pub(crate) begin: bool,
    /// End it before its time.
    pub(crate) end: bool,
    /// They have a passkey and have not shown it lately: approving asks for it first.
    pub(crate) passkey_first: bool,
}

/// One request, at `/requests/{id}`. Posts `csrf` to `/requests/{id}/withdraw` and `/requests/{id}/begin`, `csrf reason` to
/// `/requests/{id}/approve`, `/requests/{id}/refuse` and `/requests/{id}/end`.
#[derive(Template)]
#[template(path = "pages/request.html")]
pub(crate) struct RequestPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The request.
    pub(crate) row: RequestRow,
    /// Whether it is the person's own.
    pub(crate) own: bool,
    /// How many approvals it needs, and how many were given; for those who decide.
    pub(crate) needs: Option<(u32, usize)>,
    /// What they can do.
    pub(crate) moves: RequestMoves,
    /// Its history.
    pub(crate) steps: Vec<RequestStep>,
    /// What was done under it; none before it began.
    pub(crate) uses: Option<Vec<RequestUse>>,
}

/// One lock.
#[derive(Debug, Clone)]
pub(crate) struct LockRow {
    /// Its id; empty for the lock of a person, which ends on their page.
    pub(crate) id: String,
    /// What is locked.
    pub(crate) what: String,
    /// The page of a person.
    pub(crate) href: Option<String>,
    /// Why.
    pub(crate) reason: String,
    /// Who locked it.
    pub(crate) by: String,
    /// Since when.
    pub(crate) since: When,
    /// When it ends by itself.
    pub(crate) until: Option<When>,
}

/// What is locked, at `/locks`. Posts `csrf kind value reason hours next` to `/locks` and `csrf id` to `/locks/end`.
#[derive(Template)]
#[template(path = "pages/locks.html")]
pub(crate) struct LocksPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The locks.
    pub(crate) rows: Vec<LockRow>,
    /// Whether the person may lock and end locks.
    pub(crate) may_lock: bool,
    /// The kind, as asked before.
    pub(crate) kind: String,
    /// Its name, as typed before.
    pub(crate) value: String,
    /// Why, as typed before.
    pub(crate) reason: String,
    /// What went wrong.
    pub(crate) problems: Problems,
}

impl LocksPage {
    /// What can be locked here.
    pub(crate) const KINDS: [(&'static str, &'static str); 3] =
        [("machine", "machine"), ("hypervisor", "hypervisor"), ("token", "token")];
    /// For how long.
    pub(crate) const HOURS: [(&'static str, &'static str); 5] =
        [("1", "1 hour"), ("4", "4 hours"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days")];
}

super::places! { RequestsPage = "requests", RequestForm = "requests", RequestPage = "requests", ProposalPage = "requests", LocksPage = "locks", }
