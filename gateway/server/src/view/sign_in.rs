// SPDX-License-Identifier: Apache-2.0
//! From the front door to a session with two factors: sign-in, code, recovery, set-up, enrolment, step-up.

use super::{Problems, Shell};
use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use portcullis_identity::Proofs;

/// Name and password, posted as `csrf name password next` to `/sign-in`; or a passkey, as `csrf passkey next` to
/// `/sign-in/passkey`.
#[derive(Template)]
#[template(path = "pages/sign_in.html")]
pub(crate) struct SignIn {
    /// Around it.
    pub(crate) shell: Shell,
    /// The name as typed before.
    pub(crate) name: String,
    /// Where to go afterwards, already checked to be a path of ours.
    pub(crate) next: String,
    /// Identity providers: the address that leads there, and what people call it.
    pub(crate) providers: Vec<(String, String)>,
    /// Whether there are passkeys here.
    pub(crate) passkeys: bool,
    /// What went wrong; wrong name and wrong password are one problem of the whole form. Field `passkey`.
    pub(crate) problems: Problems,
}

/// The second factor. Posts `csrf code next` to `/sign-in/code`; a passkey's answer stands in place of the code.
#[derive(Template)]
#[template(path = "pages/code.html")]
pub(crate) struct Code {
    /// Around it.
    pub(crate) shell: Shell,
    /// The name that is signing in.
    pub(crate) name: String,
    /// Where to go afterwards.
    pub(crate) next: String,
    /// What they have.
    pub(crate) proofs: Proofs,
    /// What went wrong; fields `code`, `passkey`.
    pub(crate) problems: Problems,
}

/// A recovery code instead of the second factor. Posts `csrf code` to `/sign-in/recovery`.
#[derive(Template)]
#[template(path = "pages/recovery.html")]
pub(crate) struct Recovery {
    /// Around it.
    pub(crate) shell: Shell,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// A sealed code for emergencies. Posts `csrf code` to `/break-glass`.
#[derive(Template)]
#[template(path = "pages/break_glass.html")]
pub(crate) struct BreakGlass {
    /// Around it.
    pub(crate) shell: Shell,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// What has to be confirmed after signing in. Posts `csrf next` to `/banner`.
#[derive(Template)]
#[template(path = "pages/banner.html")]
pub(crate) struct Banner {
    /// Around it.
    pub(crate) shell: Shell,
    /// The words, with their line breaks.
    pub(crate) text: String,
    /// Where to go afterwards.
    pub(crate) next: String,
}

/// For whom a one-time link was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetUpKind {
    /// The first administrator, who chooses a name. At `/set-up`.
    FirstAdministrator,
    /// Somebody who was invited or reset; the name is fixed. At `/invitation`.
    Invited,
}

impl SetUpKind {
    /// Where the form posts to.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::FirstAdministrator => "/set-up",
            Self::Invited => "/invitation",
        }
    }

    /// Whether the person chooses a name.
    pub(crate) fn chooses_name(self) -> bool {
        self == Self::FirstAdministrator
    }
}

/// The page behind a one-time link. The token is in the link's fragment, which no server sees, and a script moves it
/// into the form. Posts `csrf token password`, and `name display_name` for the first administrator.
#[derive(Template)]
#[template(path = "pages/set_up.html")]
pub(crate) struct SetUp {
    /// Around it.
    pub(crate) shell: Shell,
    /// For whom.
    pub(crate) kind: SetUpKind,
    /// The fewest characters of a password.
    pub(crate) shortest: usize,
    /// The token as posted before, so that a weak password does not lose it.
    pub(crate) token: String,
    /// The name as typed before.
    pub(crate) name: String,
    /// The display name as typed before.
    pub(crate) display_name: String,
    /// What went wrong.
    pub(crate) problems: Problems,
}

/// Why a second factor is being added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnrolReason {
    /// There is none yet.
    First,
    /// A recovery code was used: the old ones go.
    Lost,
    /// The person asked for it.
    Another,
}

/// The key for an authenticator app, once, posted as `csrf code` to `/enrol`; or a passkey, as `csrf name passkey` to
/// `/enrol/passkey`.
#[derive(Template)]
#[template(path = "pages/enrol.html")]
pub(crate) struct Enrol {
    /// Around it.
    pub(crate) shell: Shell,
    /// Why.
    pub(crate) reason: EnrolReason,
    /// The key in groups of four.
    pub(crate) key: String,
    /// The account as the app will name it.
    pub(crate) account: String,
    /// The picture as an address of its own, so that no foreign markup stands in the page.
    pub(crate) picture: String,
    /// What a new passkey is called, unless its owner says otherwise.
    pub(crate) passkey: String,
    /// Why there are no passkeys here, if so.
    pub(crate) passkeys_off: Option<String>,
    /// What went wrong; fields `code`, `name`, `passkey`.
    pub(crate) problems: Problems,
}

impl Enrol {
    /// An SVG document as a `data:` address.
    pub(crate) fn picture_of(svg: &str) -> String {
        format!("data:image/svg+xml;base64,{}", STANDARD.encode(svg))
    }
}

/// Recovery codes, shown once.
#[derive(Template)]
#[template(path = "pages/recovery_codes.html")]
pub(crate) struct RecoveryCodes {
    /// Around it.
    pub(crate) shell: Shell,
    /// The codes.
    pub(crate) codes: Vec<String>,
    /// Whose they are and where they work, for the printed sheet: `ada at console.example.org`.
    pub(crate) account: String,
    /// Where to go afterwards.
    pub(crate) next: String,
}

/// A fresh factor is asked for. Posts `csrf code next` to `/step-up`; a passkey's answer stands in place of the code.
#[derive(Template)]
#[template(path = "pages/step_up.html")]
pub(crate) struct StepUp {
    /// Around it.
    pub(crate) shell: Shell,
    /// What needs it, in words that finish "You are about to": `open the console of web-1`.
    pub(crate) intent: String,
    /// The address where the person's identity provider confirms it instead, and what people call it.
    pub(crate) provider: Option<(String, String)>,
    /// For how many minutes it will then not be asked again; nought where it counts for this alone.
    pub(crate) minutes: u32,
    /// What it is for, where that is not the page that it leads back to.
    pub(crate) what: String,
    /// Where to go afterwards.
    pub(crate) next: String,
    /// What they have.
    pub(crate) proofs: Proofs,
    /// What went wrong; fields `code`, `passkey`.
    pub(crate) problems: Problems,
}

/// Signed out here, on the way to signing out at the provider.
#[derive(Template)]
#[template(path = "pages/signed_out.html")]
pub(crate) struct SignedOut {
    /// Around it.
    pub(crate) shell: Shell,
    /// What people call the provider.
    pub(crate) title: String,
    /// Where it signs people out.
    pub(crate) address: String,
}

super::places! {
    SignedOut = "",
    SignIn = "", Code = "", Recovery = "", SetUp = "", Enrol = "", RecoveryCodes = "", StepUp = "",
    BreakGlass = "", Banner = "",
}
