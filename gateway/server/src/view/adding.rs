// SPDX-License-Identifier: Apache-2.0
//! Adding a hypervisor, step by step, and the page of one.

use super::{HypervisorState, Problems, Shell, When};
use askama::Template;

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// In one line.
    Line,
    /// In one line that nobody reads over a shoulder.
    Hidden,
    /// In many lines.
    Lines,
}

/// One field that a kind asks for.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// Its name in the form.
    pub(crate) key: &'static str,
    /// What stands in front of it.
    pub(crate) label: &'static str,
    /// What it looks like.
    pub(crate) hint: &'static str,
    /// What was typed; never a secret.
    pub(crate) value: String,
    /// How it is written.
    pub(crate) written: Written,
    /// Whether it has to be there.
    pub(crate) needed: bool,
}

/// One kind that can be added.
#[derive(Debug, Clone)]
pub(crate) struct KindRow {
    /// The word in the configuration.
    pub(crate) word: &'static str,
    /// What people call it.
    pub(crate) title: &'static str,
}

/// What was typed about the API of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiDraft {
    /// Whether clients of its API reach it.
    pub(crate) open: bool,
    /// The host name of its own, if any.
    pub(crate) host: String,
}

/// What to add, at `/new-hypervisor`; `?kind=` when one was chosen, `?change=` for one that was added. Posts what was typed to `/new-hypervisor`.
#[derive(Template)]
#[template(path = "pages/new_hypervisor.html")]
pub(crate) struct NewHypervisor {
    /// Around it.
    pub(crate) shell: Shell,
    /// The kinds to choose from.
    pub(crate) kinds: Vec<KindRow>,
    /// The chosen one.
    pub(crate) chosen: Option<KindRow>,
    /// The name that was typed.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) fields: Vec<Field>,
    /// Its API; none where that is no HTTP.
    pub(crate) api: Option<ApiDraft>,
    /// The domain under which APIs have names; empty where there is none.
    pub(crate) domain: String,
    /// Which adding it takes the place of, where it is a change.
    pub(crate) replaces: Option<String>,
    /// Where it begins.
    pub(crate) back: String,
    /// What is wrong.
    pub(crate) problems: Problems,
}

/// A certificate that was shown.
#[derive(Debug, Clone)]
pub(crate) struct CertificateRow {
    /// Where.
    pub(crate) address: String,
    /// Whose it says it is.
    pub(crate) subject: String,
    /// Who signed it, by its own word.
    pub(crate) issuer: String,
    /// When it begins to count.
    pub(crate) from: When,
    /// When it ends.
    pub(crate) until: When,
    /// Its SHA-256, in groups.
    pub(crate) sha256: String,
    /// Why it does not count today; empty where it does.
    pub(crate) odd: String,
}

/// Whose certificate was met, and the credential. Posts everything that was typed, `sha256`, `agree` and `secret` to
/// `/hypervisors`.
#[derive(Template)]
#[template(path = "pages/agree_hypervisor.html")]
pub(crate) struct AgreeHypervisor {
    /// Around it.
    pub(crate) shell: Shell,
    /// What people call its kind.
    pub(crate) title: &'static str,
    /// The word of its kind.
    pub(crate) kind: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// What was typed before, and goes with the form.
    pub(crate) hidden: Vec<(&'static str, String)>,
    /// The certificates that it shows.
    pub(crate) shown: Vec<CertificateRow>,
    /// What is agreed to.
    pub(crate) prints: String,
    /// Whether it takes the place of one that was added.
    pub(crate) replaces: bool,
    /// Where it began.
    pub(crate) back: String,
    /// As whom the gateway is known there.
    pub(crate) fields: Vec<Field>,
    /// What it shows.
    pub(crate) secret: Field,
    /// What is wrong.
    pub(crate) problems: Problems,
}

/// How one was added.
#[derive(Debug, Clone)]
pub(crate) struct AddedFacts {
    /// Which adding it is.
    pub(crate) id: String,
    /// When.
    pub(crate) at: When,
    /// By whom.
    pub(crate) by: String,
    /// What was agreed to.
    pub(crate) shown: Vec<CertificateRow>,
    /// As whom the gateway was known there.
    pub(crate) who: String,
    /// What its credential could do that it need not.
    pub(crate) beyond: Vec<String>,
    /// Why that is not known, or not all of it.
    pub(crate) untold: Option<String>,
}

/// One hypervisor, at `/hypervisors/{name}`. Posts `csrf` and `id` to `/hypervisors/{name}/remove`.
#[derive(Template)]
#[template(path = "pages/hypervisor.html")]
pub(crate) struct HypervisorPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// Its name.
    pub(crate) name: String,
    /// What people call its kind.
    pub(crate) kind: String,
    /// Where it is.
    pub(crate) address: String,
    /// How it stands.
    pub(crate) state: HypervisorState,
    /// How many machines, in words.
    pub(crate) machines: String,
    /// The first of them that this person may see: id, name, state.
    pub(crate) first: Vec<(String, String, &'static str)>,
    /// Whose word is taken for it.
    pub(crate) trust: String,
    /// Where native clients reach it, if they can.
    pub(crate) api: Option<String>,
    /// How it was added; none where the configuration file names it.
    pub(crate) added: Option<AddedFacts>,
    /// Whether the person may remove it.
    pub(crate) may_remove: bool,
}

super::places! { NewHypervisor = "hypervisors", AgreeHypervisor = "hypervisors", HypervisorPage = "hypervisors", }
