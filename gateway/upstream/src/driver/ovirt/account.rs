// SPDX-License-Identifier: Apache-2.0
//! Signing in at the engine's single sign-on (OAuth 2.0's password grant), again when the engine says that the token no
//! longer counts, and every half hour. The token is shown as `Authorization: Bearer`, by the driver and for people's calls.

use crate::{
    badge::Renewed,
    driver::{
        LIST, clean_text,
        rest::{Call, Told, encoded},
    },
    error::Fault,
    secret::Held,
    wire::Dialer,
};
use http::{HeaderValue, Method};
use serde::Deserialize;
use std::sync::Arc;

/// The longest token, bytes: the engine's have 86.
const MAX_TOKEN: usize = 4 * 1024;
const TOKEN: &str = "/ovirt-engine/sso/oauth/token";

/// The way to the sign-on.
pub(super) struct Account {
    pub(super) dialer: Dialer,
    pub(super) host: HeaderValue,
    pub(super) username: String,
    pub(super) password: Arc<Held>,
    pub(super) token: Arc<Renewed>,
}

/// What is answered. No `Debug`: it holds a token.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: String,
    /// Why there is none.
    #[serde(default)]
    error: Option<String>,
}

impl Account {
    /// Signs in, and shows the new token from now on.
    pub(super) async fn sign_in(&self) -> Result<(), Fault> {
        let password = self.password.value()?;
        let password = password.expose_text().ok_or_else(|| Fault::Refused("the password is no text".to_owned()))?;
        let (name, password) = (encoded(&self.username), encoded(password));
        let form = format!("grant_type=password&scope=ovirt-app-api&username={name}&password={password}");
        let body = Some(("application/x-www-form-urlencoded", form));
        let call = Call { method: Method::POST, target: TOKEN, body, patience: LIST };
        let said = call.send_with(&self.dialer, &self.host, &[("accept", "application/json")]).await?;
        let (Told { status, text, .. }, _) = said;
        let answer: Option<Answer> = serde_json::from_slice(&text).ok();
        if status.as_u16() != 200 || answer.as_ref().is_some_and(|a| a.error.is_some()) {
            let why = answer.and_then(|a| a.error).map(|e| clean_text(&e)).filter(|e| !e.is_empty());
            return Err(Fault::Refused(format!(
                "the gateway's sign-in: {}",
                why.unwrap_or_else(|| format!("status {status}"))
            )));
        }
        let token = answer.map(|a| a.access_token).unwrap_or_default();
        let is_token = |t: &str| (16..=MAX_TOKEN).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
        let shown =
            Some(&token).filter(|t| is_token(t)).and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok());
        let shown = shown.ok_or_else(|| Fault::Protocol("a sign-in without a proper token".to_owned()))?;
        self.token.set(Some(shown), None);
        Ok(())
    }
}
