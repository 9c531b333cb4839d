// SPDX-License-Identifier: Apache-2.0
//! The page that says no.

use super::Shell;
use askama::Template;

/// What went wrong, and what the person can do. For 403 the detail names the role that would open the door.
#[derive(Template)]
#[template(path = "pages/error_page.html")]
pub(crate) struct ErrorPage {
    /// Around it.
    pub(crate) shell: Shell,
    /// The status of the answer.
    pub(crate) status: u16,
    /// What went wrong, in a few words.
    pub(crate) title: String,
    /// What went wrong, in a sentence.
    pub(crate) detail: String,
    /// The correlation id.
    pub(crate) request: String,
    /// Where the person can ask for what is closed to them.
    pub(crate) ask: Option<String>,
}

impl ErrorPage {
    /// For somebody of whom nothing is known.
    pub(crate) fn new(status: u16, title: &str, detail: &str, request: &str) -> Self {
        Self {
            shell: Shell::default(),
            status,
            title: title.to_owned(),
            detail: detail.to_owned(),
            request: request.to_owned(),
            ask: None,
        }
    }

    /// What the person can do about it.
    pub(crate) const fn advice(&self) -> &'static str {
        match self.status {
            401 => "Sign in, and you are brought to the page that you wanted.",
            403 => {
                "If a role is missing, ask an administrator for it and give them the number below. Otherwise open the \
                 page again and retry; a fresh code may be asked for."
            }
            404 | 405 => "Check the address. A machine that you may not see looks the same as one that does not exist.",
            400 | 409 | 413 | 422 | 431 => "Go back, change what the message names and try again.",
            421 => "Use the address that your administrator gave you.",
            429 => "Wait a little. Trying more often makes the wait longer.",
            502 | 504 => {
                "The gateway itself works. Try again in a minute; if it stays so, tell who runs the hypervisor."
            }
            _ => {
                "Nothing was changed. Try again in a minute; if it stays so, give the number below to who runs this gateway."
            }
        }
    }
}

super::places! { ErrorPage = "", }
