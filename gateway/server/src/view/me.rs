// SPDX-License-Identifier: Apache-2.0
//! What is mine: factors, sessions, tokens, password.

use super::{Choice, Problems, Shell, When};
use askama::Template;

/// One second factor.
#[derive(Debug, Clone)]
pub(crate) struct FactorRow {
    /// Its id, for removal.
    pub(crate) id: String,
    /// What it is: `Authenticator app`.
    pub(crate) what: String,
    /// Since when.
    pub(crate) added: When,
    /// When it was last used.
    pub(crate) used: Option<When>,
    /// Whether it may be removed: never the last one.
    pub(crate) removable: bool,
}

/// One signed-in browser.
#[derive(Debug, Clone)]
pub(crate) struct SessionRow {
    /// Its id.
    pub(crate) id: String,
    /// The browser in words; see [`device`].
    pub(crate) device: String,
    /// The address it came from.
    pub(crate) place: String,
    /// Since when.
    pub(crate) started: When,
    /// When it last asked for something.
    pub(crate) seen: When,
    /// When it ends at the latest.
    pub(crate) ends: When,
    /// What was proven in it, and when.
    pub(crate) proven: Vec<(&'static str, When)>,
    /// Whether it is this one.
    pub(crate) current: bool,
}

/// Whether a token works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// It works.
    Live,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// What was typed into the form for a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenDraft {
    /// What it is for.
    pub(crate) name: String,
    /// The hypervisor that it is limited to; empty for all.
    pub(crate) hypervisor: String,
    /// The networks that it is limited to.
    pub(crate) networks: String,
    /// After how many days it ends; empty where nothing was chosen.
    pub(crate) days: String,
}

impl TokenDraft {
    /// Whether so many days are chosen in the form; thirty where nothing was.
    pub(crate) fn lasts(&self, days: &str) -> bool {
        if self.days.is_empty() { days == "30" } else { self.days == days }
    }
}

/// One token for a tool.
#[derive(Debug, Clone)]
pub(crate) struct TokenRow {
    /// Its id.
    pub(crate) id: String,
    /// What its owner calls it.
    pub(crate) name: String,
    /// The hypervisor it is limited to; none means all.
    pub(crate) hypervisor: Option<String>,
    /// The networks it is limited to; none means everywhere.
    pub(crate) networks: Vec<String>,
    /// Since when.
    pub(crate) created: When,
    /// Until when.
    pub(crate) expires: When,
    /// When it was last used.
    pub(crate) used: Option<When>,
    /// From where it was last used.
    pub(crate) used_from: Option<String>,
    /// The certificates that stand for it; none where it does not work.
    pub(crate) keys: Vec<KeyRow>,
    /// Whether it works.
    pub(crate) state: TokenState,
}

/// One TLS client certificate that stands for a token.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    /// The beginning of its fingerprint.
    pub(crate) print: String,
    /// The hypervisor at whose door it counts.
    pub(crate) hypervisor: String,
    /// Since when.
    pub(crate) since: When,
}

/// My factors, sessions, tokens and password, at `/me`. Posts:
/// `/me/password` (`csrf old password`), `/me/factors/remove` (`csrf id`),
/// `/me/recovery-codes` (`csrf`), `/me/sessions/end` (`csrf id`), `/me/sessions/end-others` (`csrf`),
/// `/me/tokens` (`csrf name hypervisor networks days`; empty means all), `/me/tokens/revoke` (`csrf id`).
#[derive(Template)]
#[template(path = "pages/me.html")]
pub(crate) struct Me {
    /// Around it.
    pub(crate) shell: Shell,
    /// The second factors.
    pub(crate) factors: Vec<FactorRow>,
    /// How many recovery codes are left.
    pub(crate) recovery_left: u32,
    /// The signed-in browsers, this one first.
    pub(crate) sessions: Vec<SessionRow>,
    /// The tokens, live ones first.
    pub(crate) tokens: Vec<TokenRow>,
    /// A token that was made just now: shown once, never again.
    pub(crate) minted: Option<String>,
    /// The hypervisors that a token can be limited to.
    pub(crate) hypervisors: Vec<Choice>,
    /// What was typed for a token that was not made.
    pub(crate) typed: TokenDraft,
    /// What the person may do, one sentence a grant.
    pub(crate) grants: Vec<String>,
    /// Whether there is a password to change: who comes from a company's provider has none.
    pub(crate) has_password: bool,
    /// The fewest characters of a password.
    pub(crate) shortest: usize,
    /// What went wrong; fields `old`, `password`, `token_name`, `networks`, `days`.
    pub(crate) problems: Problems,
}

/// A browser's `User-Agent` in a few words; what is not known is said to be so.
pub(crate) fn device(agent: &str) -> String {
    let first = |table: &[(&str, &'static str)]| table.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, w)| *w);
    let browser = first(&[
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Chromium/", "Chromium"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = first(&[
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(b), Some(s)) => format!("{b} on {s}"),
        (Some(b), None) => b.to_owned(),
        (None, Some(s)) => format!("a browser on {s}"),
        (None, None) => "unknown browser".to_owned(),
    }
}

super::places! { Me = "me", }
