// SPDX-License-Identifier: Apache-2.0
//! Sessions with the Automation API (`/api` since 7.0 U2, `/rest` before), which are of another kind than those of calls:
//! signing in with the stored credential gives a text that is shown in a header of each request.

use crate::{
    api::{Dialect, Length},
    desk::Center,
    driver::{LIST, clean_text, rest::Call},
    error::Fault,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method, StatusCode, header::AUTHORIZATION};
use serde_json::Value;
use tokio::time::Instant;

/// What a session is shown as.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("vmware-api-session-id");
/// The longest text of a session.
const MAX_ID: usize = 512;

/// How sessions are made and ended.
struct Form {
    path: &'static str,
    /// How one is asked for.
    ask: (Method, &'static str),
}

const NEW: Form = Form { path: "/api/session", ask: (Method::GET, "/api/session") };
const OLD: Form =
    Form { path: "/rest/com/vmware/cis/session", ask: (Method::POST, "/rest/com/vmware/cis/session?~action=get") };

/// One session. No `Debug`: it holds what it is shown by.
pub(crate) struct Automation {
    shown: HeaderValue,
    form: &'static Form,
}

impl Automation {
    /// What each request shows.
    pub(crate) const fn shown(&self) -> &HeaderValue {
        &self.shown
    }
}

pub(super) static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Any,
    rows: None,
    strip: super::rows::strip,
    task: super::rows::task,
};

/// Whether a release has the newer form.
fn is_new(release: &str) -> bool {
    let mut parts = release.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= (7, 0, 2)
}

impl Center {
    /// Signs in. `release` says which form is tried first; one that the server does not know is no answer.
    pub(crate) async fn open(&self, release: &str) -> Result<Automation, Fault> {
        self.may_try()?;
        let password = self.password()?;
        let password =
            password.expose_text().ok_or_else(|| Fault::Protocol("a password that is no text".to_owned()))?;
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{password}", self.username())));
        let forms: [&'static Form; 2] = if is_new(release) { [&NEW, &OLD] } else { [&OLD, &NEW] };
        for form in forms {
            let call = Call { method: Method::POST, target: form.path, body: None, patience: LIST };
            let headers = [(AUTHORIZATION.as_str(), basic.as_str()), ("vmware-use-header-authn", "true")];
            let (told, _) = call.send_with(&self.dialer, &self.host, &headers).await?;
            match told.status.as_u16() {
                404 => {}
                401 => {
                    self.tried(Some(Instant::now()));
                    return Err(Fault::Refused("its name or password is wrong".to_owned()));
                }
                200..300 => {
                    self.tried(None);
                    let shown = session(&told.text);
                    let shown = shown.ok_or_else(|| Fault::Protocol("a session without its text".to_owned()))?;
                    return Ok(Automation { shown, form });
                }
                status => return Err(Fault::Refused(clean_text(&format!("status {status}")))),
            }
        }
        Err(Fault::Unsupported("it has no Automation API (/api, /rest): an ESXi host has none".to_owned()))
    }

    /// Whether a session still counts there.
    pub(crate) async fn counts(&self, session: &Automation) -> Result<bool, Fault> {
        let (method, target) = session.form.ask.clone();
        Ok(self.show(session, method, target).await?.as_u16() != 401)
    }

    /// Ends a session there, as well as it goes.
    pub(crate) async fn close(&self, session: &Automation) {
        if let Err(fault) = self.show(session, Method::DELETE, session.form.path).await {
            tracing::debug!(%fault, "a session could not be ended");
        }
    }

    async fn show(&self, session: &Automation, method: Method, target: &str) -> Result<StatusCode, Fault> {
        let shown = session.shown.to_str().unwrap_or_default();
        let call = Call { method, target, body: None, patience: LIST };
        let (told, _) = call.send_with(&self.dialer, &self.host, &[(SESSION.as_str(), shown)]).await?;
        Ok(told.status)
    }
}

/// The text of a session: the answer, or what is in it.
fn session(answer: &[u8]) -> Option<HeaderValue> {
    let text = match serde_json::from_slice(answer).ok()? {
        Value::String(text) => text,
        Value::Object(mut map) => map.remove("value")?.as_str()?.to_owned(),
        _ => return None,
    };
    let is_plain = !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(|b| b.is_ascii_graphic());
    let mut shown = HeaderValue::from_str(&text).ok().filter(|_| is_plain)?;
    shown.set_sensitive(true);
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_form_came_with_7_0_2() {
        for new in ["7.0.2.0", "7.0.3.0", "8.0.1.0", "9.1"] {
            assert!(is_new(new), "{new}");
        }
        for old in ["", "6.5", "6.7.3", "7.0", "7.0.1.0", "x"] {
            assert!(!is_new(old), "{old}");
        }
    }

    #[test]
    fn a_session_is_a_text_of_plain_letters_in_either_form() {
        assert_eq!(session(b"\"a1-b2\"").unwrap(), "a1-b2");
        let shown = session(b"{\"value\": \"a1\"}").unwrap();
        assert!(shown.is_sensitive() && shown == "a1");
        for none in ["", "{}", "\"\"", "\"a b\"", "\"a\\u000d\\u000ab\"", "[\"a\"]", "{\"value\": 1}"] {
            assert!(session(none.as_bytes()).is_none(), "{none}");
        }
        assert!(session(format!("\"{}\"", "a".repeat(MAX_ID + 1)).as_bytes()).is_none());
    }
}
