// SPDX-License-Identifier: Apache-2.0
//! People.

use super::{GrantRow, Problems, SessionRow, Shell, TokenDraft, TokenRow, When};
use askama::Template;

/// One entry of a list to choose from.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// What is posted.
    pub(crate) value: String,
    /// What is shown.
    pub(crate) label: String,
}

impl Choice {
    /// An entry.
    pub(crate) fn new(value: impl Into<String>, label: impl Into<String>) -> Self {
        Self { value: value.into(), label: label.into() }
    }
}

/// A link that works once, shown once to the administrator who made it.
#[derive(Debug, Clone)]
pub(crate) struct OneTimeLink {
    /// The whole address, with the token in its fragment.
    pub(crate) url: String,
    /// For whom.
    pub(crate) who: String,
    /// Until when it works.
    pub(crate) expires: When,
}

/// How somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserState {
    /// Can sign in.
    Active,
    /// Has not used the link yet.
    Invited,
    /// Cannot sign in until a second factor is added.
    NoFactor,
    /// Disabled by an administrator.
    Disabled,
    /// Locked by a security lead.
    Locked,
    /// A machine: never signs in.
    Service,
    /// For emergencies: entered with a sealed code.
    Emergency,
}

impl UserState {
    /// The word shown to people.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Invited => "invited",
            Self::NoFactor => "no second factor yet",
            Self::Disabled => "disabled",
            Self::Locked => "locked",
            Self::Service => "service account",
            Self::Emergency => "emergency access",
        }
    }

    /// How it looks beside its word.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Active => "good",
            Self::Invited | Self::NoFactor => "warn",
            Self::Disabled | Self::Locked => "off",
            Self::Service | Self::Emergency => "note",
        }
    }
}

/// One person in the list.
#[derive(Debug, Clone)]
pub(crate) struct UserRow {
    /// Their id.
    pub(crate) id: String,
    /// The name they sign in with.
    pub(crate) name: String,
    /// The name shown to people.
    pub(crate) display_name: String,
    /// How they stand.
    pub(crate) state: UserState,
    /// Their roles in words.
    pub(crate) roles: Vec<String>,
    /// When they last signed in.
    pub(crate) seen: Option<When>,
}

/// Everyone, at `/users`. Posts `csrf name display_name` to `/users` and to `/service-accounts`.
#[derive(Template)]
#[template(path = "pages/users.html")]
pub(crate) struct Users {
    /// Around it.
    pub(crate) shell: Shell,
    /// Everyone.
    pub(crate) rows: Vec<UserRow>,
    /// Whether the person may change them.
    pub(crate) may_write: bool,
    /// A link that was made just now.
    pub(crate) link: Option<OneTimeLink>,
    /// The form as typed before.
    pub(crate) name: String,
    /// The form as typed before.
    pub(crate) display_name: String,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// One person, at `/users/{id}`. Posts `csrf` to `/users/{id}/disable`, `/users/{id}/enable`, `/users/{id}/reset` (new
/// one-time link; password and factors go), `/users/{id}/sign-out` (ends every session), `/users/{id}/unlock`; `csrf
/// reason` to `/users/{id}/lock`; `csrf id` to `/users/{id}/sessions/end` and `/users/{id}/tokens/revoke`; `csrf name
/// hypervisor networks days` to `/users/{id}/tokens` (service accounts); `csrf until` to `/users/{id}/training`; `csrf address` to
/// `/users/{id}/mail`; and `csrf
/// grant next` to `/grants/revoke`.
#[derive(Template)]
#[template(path = "pages/person.html")]
pub(crate) struct PersonPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// Who.
    pub(crate) user: UserRow,
    /// Since when.
    pub(crate) created: When,
    /// The identity provider that they come from: what people call it, its own word for them, when it said so last.
    pub(crate) provider: Option<(String, String, When)>,
    /// Their second factors in words.
    pub(crate) factors: Vec<String>,
    /// The browsers of theirs that are signed in.
    pub(crate) sessions: Vec<SessionRow>,
    /// The tokens, live ones first.
    pub(crate) tokens: Vec<TokenRow>,
    /// Whether it is a service account, for which tokens are made here.
    pub(crate) service: bool,
    /// Whether it is a person, who can be reset.
    pub(crate) person: bool,
    /// Since when the account is locked, why, and when that ends by itself.
    pub(crate) locked: Option<(When, String, Option<When>)>,
    /// Until when their training counts, and whether that is still to come.
    pub(crate) training: Option<(When, bool)>,
    /// Whether consoles ask for a training.
    pub(crate) asks_training: bool,
    /// Whether this gateway sends mail.
    pub(crate) sends_mail: bool,
    /// Where mail reaches them, and who says so.
    pub(crate) mail: Option<(String, &'static str)>,
    /// A token that was made just now: shown once, never again.
    pub(crate) minted: Option<String>,
    /// The hypervisors that a token can be limited to.
    pub(crate) hypervisors: Vec<Choice>,
    /// What was typed for a token that was not made.
    pub(crate) typed: TokenDraft,
    /// Whether the person who looks may end sessions and revoke tokens.
    pub(crate) may_end: bool,
    /// Whether the person who looks may lock and unlock.
    pub(crate) may_lock: bool,
    /// Their grants.
    pub(crate) grants: Vec<GrantRow>,
    /// Whether the person who looks may change them.
    pub(crate) may_write: bool,
    /// Whether the person who looks may change grants.
    pub(crate) may_grant: bool,
    /// Why this account cannot be disabled or reset here: the last administrator, or oneself.
    pub(crate) kept: Option<String>,
    /// A link that was made just now.
    pub(crate) link: Option<OneTimeLink>,
    /// What went wrong; fields `token_name`, `networks`, `days`, `until`, `address`.
    pub(crate) problems: Problems,
}

/// One use of a sealed code.
#[derive(Debug, Clone)]
pub(crate) struct EmergencyRow {
    /// The code's id.
    pub(crate) id: String,
    /// What stood on its envelope.
    pub(crate) number: u32,
    /// When it was used.
    pub(crate) used: When,
    /// From where.
    pub(crate) place: String,
    /// Who it was, what for, and who wrote that when.
    pub(crate) review: Option<(String, String, String, When)>,
}

/// The uses of sealed codes, at `/break-glass/uses`. Posts `csrf id who why` to `/break-glass/review`.
#[derive(Template)]
#[template(path = "pages/emergencies.html")]
pub(crate) struct Emergencies {
    /// Around it.
    pub(crate) shell: Shell,
    /// The uses, newest first.
    pub(crate) rows: Vec<EmergencyRow>,
    /// How many codes are ready for use.
    pub(crate) ready: usize,
    /// Whether the person who looks may write.
    pub(crate) may_write: bool,
    /// The form as typed before.
    pub(crate) typed_who: String,
    /// The form as typed before.
    pub(crate) typed_why: String,
    /// What went wrong.
    pub(crate) problems: Problems,
}

super::places! { Users = "users", PersonPage = "users", Emergencies = "users", }
