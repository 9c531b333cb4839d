// SPDX-License-Identifier: Apache-2.0
//! Signing out there and here: towards the provider (RP-Initiated Logout 1.0), and when it says so (Back-Channel
//! Logout 1.0).

use super::{
    Flaw, Provider, Trouble,
    token::{Kind, Parties, id},
};
use crate::{Error, Identity, chance};
use portcullis_domain::SessionId;
use portcullis_store::LoggedOut;
use serde_json::{Map, Value};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

/// The member of `events` that makes a token a logout token (section 2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How long the id of a used message is remembered: longer than any of them counts.
const REMEMBERED: Duration = Duration::hours(24);
/// A message that counts for longer than this is not one.
const LONGEST: Duration = Duration::hours(1);

/// What a logout message did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutNote {
    /// Which sessions here ended.
    pub ended: Vec<SessionId>,
    /// The same in words for the trail.
    pub words: String,
}

/// Whom a logout message is about.
struct Message {
    subject: Option<String>,
    sid: Option<String>,
    jti: String,
}

impl Message {
    /// Section 2.6, what is special about logout tokens.
    fn read(claims: &Map<String, Value>, now: OffsetDateTime) -> Result<Self, Flaw> {
        let has_event = claims.get("events").and_then(Value::as_object).and_then(|e| e.get(EVENT));
        if !has_event.is_some_and(Value::is_object) || claims.contains_key("nonce") {
            return Err(Flaw::Logout);
        }
        let named = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(_) => id(claims, name).map(|text| Some(text.to_owned())).ok_or(Flaw::Logout),
        };
        let (subject, sid) = (named("sub")?, named("sid")?);
        if subject.is_none() && sid.is_none() {
            return Err(Flaw::Logout);
        }
        let far = claims.get("exp").and_then(Value::as_i64).is_none_or(|exp| exp > (now + LONGEST).unix_timestamp());
        if far {
            return Err(Flaw::Expired);
        }
        let jti = id(claims, "jti").ok_or(Flaw::Logout)?.to_owned();
        Ok(Self { subject, sid, jti })
    }
}

impl Provider {
    async fn logout_message(&self, token: &str, now: OffsetDateTime) -> Result<Message, Trouble> {
        let document = self.document(now).await?;
        let proven = self.prove(&document, token, Kind::Logout, now).await?;
        proven.check(&Parties { issuer: &self.settings.issuer, client: &self.settings.client_id }, now)?;
        Ok(Message::read(&proven.claims, now)?)
    }
}

impl Identity {
    /// Ends the sessions that a provider's logout token names; whoever sends it is known by its signature alone.
    pub async fn log_out_by_provider(&self, provider: &str, token: &str) -> Result<LogoutNote, Error> {
        let inner = &self.0;
        let provider = Arc::clone(inner.provider(provider)?);
        let now = inner.clock.now();
        let message = provider.patiently(Box::pin(provider.logout_message(token, now))).await;
        let message = message.map_err(|trouble| provider.error(trouble, None))?;
        let title = &provider.settings.title;
        let out = LoggedOut {
            issuer: &provider.settings.issuer,
            subject: message.subject.as_deref(),
            sid: message.sid.as_deref(),
            jti: &message.jti,
            forget_at: now + REMEMBERED,
        };
        let why = format!("{title} ended the sign-in");
        let ended = inner.store.log_out(&out, now, &why).await.map_err(Error::store)?;
        let ended = ended.ok_or_else(|| provider.flaw(Flaw::Replay, None))?;
        self.refresh().await?;
        let words = format!("{why}; {} session{} ended", ended.len(), if ended.len() == 1 { "" } else { "s" });
        Ok(LogoutNote { ended, words })
    }

    /// Where a browser goes to sign out at the provider that it came from too, after what people call the provider; none
    /// when there is no such place. The session must still be there, and is signed out by the caller.
    pub async fn sign_out_address(&self, session: &Session) -> Result<Option<(String, String)>, Error> {
        let inner = &self.0;
        let Some(came) = inner.came(session).await? else { return Ok(None) };
        let Ok(provider) = inner.provider(&came.provider).map(Arc::clone) else { return Ok(None) };
        let Some(sign_in) = inner.store.provider_session(came.link).await.map_err(Error::store)? else {
            return Ok(None);
        };
        let now = inner.clock.now();
        // Somebody who wants out gets out here, whatever becomes of the provider.
        let Ok(document) = provider.patiently(provider.document(now)).await else { return Ok(None) };
        let Some(end_session) = &document.end_session else { return Ok(None) };
        let token = inner.open_token(sign_in.id, "id_token", &sign_in.id_token)?;
        let (state, _) = chance::secret_text("")?;
        let fields = [
            ("id_token_hint", token.expose_text().unwrap_or_default()),
            ("client_id", provider.settings.client_id.as_str()),
            ("post_logout_redirect_uri", provider.connection.after_logout.as_str()),
            ("state", state.expose_text().unwrap_or_default()),
        ];
        let mut address =
            openidconnect::url::Url::parse(end_session).map_err(|_| provider.flaw(Flaw::Discovery, None))?;
        address.query_pairs_mut().extend_pairs(fields);
        Ok(Some((provider.settings.title.clone(), address.to_string())))
    }
}
