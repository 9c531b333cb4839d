// SPDX-License-Identifier: Apache-2.0
//! To a provider, and back from it.

use super::{CAME, Came, Flaw, Provider, RoleRule, Trouble, exchange::Word, roles};
use crate::{
    Error, Identity, Inner, chance, rules,
    stage::{Keep, Next, Stage},
};
use openidconnect::{
    AuthenticationContextClass, AuthenticationFlow, CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier, Scope,
    core::{CoreAuthPrompt, CoreResponseType},
};
use portcullis_domain::{Assurance, Factor, Grant, GrantId, Intent, Secret, SessionId, UserId};
use portcullis_store::{NewUser, ProviderSession, ProviderSessionId, Vouched, Voucher};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt::Write as _, net::IpAddr, sync::Arc};
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

/// The key of the sign-ins that were begun in a session.
const BEGUN: &str = "begun";
/// How long a sign-in at a provider may take.
const LASTS: Duration = Duration::minutes(10);
/// So many may be under way in one browser: one a tab.
const MOST: usize = 4;
/// How many spellings of a name are tried before a first sign-in is given up.
const SPELLINGS: usize = 100;
/// The longest code that is sent on, in bytes.
const LONGEST_CODE: usize = 4096;

/// One sign-in under way. The state itself is not kept: whoever reads the store cannot finish it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    state: String,
    provider: String,
    issuer: String,
    at: OffsetDateTime,
    next: String,
    /// Somebody who is signed in confirms that it is them.
    confirms: bool,
    /// What they confirm it for.
    #[serde(default)]
    intent: Option<Intent>,
}

/// What a browser brings back from a provider, as it stands in the address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Returned<'a> {
    /// Which sign-in it belongs to.
    pub state: &'a str,
    /// The code.
    pub code: Option<&'a str>,
    /// Who answers (RFC 9207).
    pub iss: Option<&'a str>,
    /// Why there is no code (RFC 6749 section 4.1.2.1).
    pub error: Option<&'a str>,
    /// The same in words.
    pub error_description: Option<&'a str>,
}

/// Somebody whom a provider vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// What their browser does next.
    pub next: Next,
    /// Where they wanted to go.
    pub back: String,
    /// What happened, in words for the trail.
    pub words: String,
}

fn digest(state: &str) -> String {
    hex::encode(chance::sha256(state.as_bytes()))
}

/// A text of a provider as a person may read it: short, on one line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Names that a person could have here, by what the provider calls them; the best first.
fn candidates(claims: &Map<String, Value>, id: UserId) -> Vec<NewUser> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty());
    let fold = |text: &str| -> String {
        let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
        text.chars().map(|c| if c.is_whitespace() { '.' } else { c }).filter(|c| kept(*c)).take(56).collect()
    };
    let mut named = ["preferred_username", "name"].into_iter().filter_map(text).map(fold);
    let base = named.find(|n| rules::check_name(n).is_ok()).unwrap_or_else(|| "person".to_owned());
    let shown: String = text("name").unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect();
    let spelled = (1..=SPELLINGS).filter_map(|n| {
        let name = if n == 1 { base.clone() } else { format!("{base}-{n}") };
        let (name, name_key) = rules::check_name(&name).ok()?;
        let display_name = rules::check_display(&shown, &name).ok()?;
        Some(NewUser { id, name, name_key, display_name })
    });
    spelled.collect()
}

fn listed(grants: &[Grant]) -> String {
    grants.iter().map(|g| format!("{} on {}", g.role, g.selector)).collect::<Vec<_>>().join(", ")
}

/// What changed, in words for the trail.
pub(super) fn words(made: bool, given: &[Grant], taken: &[Grant]) -> String {
    let mut words = String::new();
    for (what, grants) in [("given", given), ("taken back", taken)] {
        if !grants.is_empty() {
            let _ = write!(words, "; {what}: {}", listed(grants));
        }
    }
    if made {
        words.push_str("; the account was made");
    }
    words
}

impl Provider {
    /// The address that a browser is sent to.
    async fn address(
        &self,
        state: String,
        nonce: String,
        verifier: String,
        confirms: bool,
        now: OffsetDateTime,
    ) -> Result<String, Trouble> {
        let document = self.document(now).await?;
        let client = self.client(&document)?;
        let (state, nonce) = (CsrfToken::new(state), Nonce::new(nonce));
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = client
            .authorize_url(flow, move || state, move || nonce)
            .add_scopes(self.settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier)));
        for acr in &self.settings.second_factor.acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        if confirms {
            request = request.add_prompt(CoreAuthPrompt::Login).set_max_age(std::time::Duration::ZERO);
        } else if let Some(seconds) = self.settings.max_age_seconds {
            request = request.set_max_age(std::time::Duration::from_secs(seconds.into()));
        }
        Ok(request.url().0.to_string())
    }

    /// Whether the answer is this provider's own (RFC 9207 section 2.4): before anything in it is used.
    async fn check_issuer(&self, returned: &Returned<'_>, now: OffsetDateTime) -> Result<(), Trouble> {
        let promised = self.document(now).await?.names_issuer;
        match returned.iss {
            Some(iss) if iss == self.settings.issuer => Ok(()),
            None if !promised => Ok(()),
            _ => Err(Flaw::Issuer.into()),
        }
    }

    /// When the second factor was proven at the provider, where the configuration believes it.
    fn second_at(&self, word: &Word) -> Option<OffsetDateTime> {
        let trusted = &self.settings.second_factor;
        let by_acr = word.how.acr.as_ref().is_some_and(|acr| trusted.acr.contains(acr));
        let by_amr = word.how.amr.iter().any(|amr| trusted.amr.contains(amr));
        // Without a time it could be of any day.
        word.how.at.filter(|_| by_acr || by_amr)
    }

    /// Whether they signed in at the provider as lately as was asked.
    fn check_age(&self, begun: &Begun, word: &Word, now: OffsetDateTime) -> Result<(), Flaw> {
        let oldest = match (begun.confirms, self.settings.max_age_seconds) {
            (true, _) => begun.at,
            (false, Some(seconds)) => now - Duration::seconds(i64::from(seconds)),
            (false, None) => return Ok(()),
        };
        let skew = super::token::SKEW;
        match word.how.at {
            Some(at) if at >= oldest - skew && at <= now + skew => Ok(()),
            _ => Err(Flaw::NotFresh),
        }
    }
}

impl Inner {
    /// The sign-in that a state belongs to, which is over with this.
    async fn take_begun(&self, session: &Session, provider: &Provider, state: &str) -> Result<Option<Begun>, Error> {
        let mut begun: Vec<Begun> = session.get(BEGUN).await.map_err(Error::Session)?.unwrap_or_default();
        let digest = digest(state);
        let Some(at) = begun.iter().position(|b| chance::equal(b.state.as_bytes(), digest.as_bytes())) else {
            return Ok(None);
        };
        let found = begun.remove(at);
        session.insert(BEGUN, &begun).await.map_err(Error::Session)?;
        // Now, not with the answer: nothing that follows gives it a second use.
        session.save().await.map_err(Error::Session)?;
        let now = self.clock.now();
        let in_time = found.at <= now + Duration::MINUTE && now < found.at + LASTS;
        let settings = &provider.settings;
        Ok(Some(found).filter(|b| in_time && b.provider == settings.name && b.issuer == settings.issuer))
    }

    /// Finds or makes the person and brings their roles in line.
    pub(super) async fn vouch(
        &self,
        provider: &Provider,
        subject: &str,
        claims: &Map<String, Value>,
        rules: &[&RoleRule],
    ) -> Result<Vouched, Error> {
        let now = self.clock.now();
        let id = UserId::new(chance::id(now)?);
        let voucher = Voucher {
            issuer: provider.settings.issuer.clone(),
            subject: subject.to_owned(),
            provider: provider.settings.name.clone(),
            candidates: candidates(claims, id),
            grants: roles::grants(rules, now, || Ok(GrantId::new(chance::id(now)?)))?,
            apart: self.apart.get().cloned(),
        };
        for _ in 0..3 {
            match self.store.vouch(&voucher, now).await {
                Err(portcullis_store::Error::Conflict(_)) => {}
                other => {
                    let vouched = other.map_err(Error::store)?;
                    if let Vouched::Person { user, .. } = &vouched {
                        self.keep_address(*user, claims).await?;
                    }
                    return Ok(vouched);
                }
            }
        }
        Err(Error::Conflict("a person with this name"))
    }

    async fn keep_sign_in(&self, provider: &Provider, user: UserId, word: &Word) -> Result<Came, Error> {
        let now = self.clock.now();
        let id = ProviderSessionId::new(chance::id(now)?);
        let id_token = word.id_token.as_ref().and_then(Secret::expose_text).unwrap_or_default();
        let refresh_token = word.refresh_token.as_ref().and_then(Secret::expose_text);
        let new = ProviderSession {
            id,
            provider: provider.settings.name.clone(),
            issuer: provider.settings.issuer.clone(),
            subject: word.subject.clone(),
            sid: word.how.sid.clone(),
            user,
            session: None,
            id_token: self.seal_token(id, "id_token", id_token)?,
            refresh_token: refresh_token.map(|t| self.seal_token(id, "refresh_token", t)).transpose()?,
            renewed_at: now,
        };
        self.store.add_provider_session(&new).await.map_err(Error::store)?;
        Ok(Came { provider: new.provider, link: id })
    }

    /// Where somebody stands whom a provider vouched for: as after a password, unless it proved a second factor too.
    async fn after_provider(
        &self,
        session: &Session,
        user: UserId,
        came: &Came,
        second_at: Option<OffsetDateTime>,
        peer: IpAddr,
    ) -> Result<Next, Error> {
        let now = self.clock.now();
        // What another person left in this browser stays with that person.
        if self.stage(session).await?.user().is_some_and(|before| before != user) {
            session.clear().await;
        }
        session.insert(CAME, came).await.map_err(Error::Session)?;
        if let Some(at) = second_at {
            let mut assurance = Assurance::default();
            assurance.prove(Factor::Provider, now);
            assurance.prove(Factor::ProviderSecond, at.min(now));
            self.enter(session, user, assurance, Some(peer)).await?;
            return Ok(Next::Done);
        }
        self.after_first(session, user, now, peer).await
    }

    /// Refuses the word about somebody else than who is signed in, before anything follows from it.
    async fn check_same(&self, provider: &Provider, before: &Stage, subject: &str) -> Result<(), Error> {
        let known = match before {
            Stage::SignedIn { user, .. } => self.store.provider_of(*user).await.map_err(Error::store)?,
            _ => None,
        };
        let same = known.is_some_and(|known| known.issuer == provider.settings.issuer && known.subject == subject);
        if same { Ok(()) } else { Err(provider.flaw(Flaw::OtherPerson, before.user())) }
    }

    /// Somebody who is signed in confirmed at their provider that it is them.
    async fn confirm(
        &self,
        session: &Session,
        user: UserId,
        second_at: OffsetDateTime,
        intent: Option<Intent>,
        peer: IpAddr,
    ) -> Result<(), Error> {
        let (_, id, mut assurance) = self.signed_in(session).await?;
        let at = second_at.min(self.clock.now());
        assurance.prove(Factor::ProviderSecond, at);
        if let Some(intent) = intent {
            assurance.prove_for(intent, at);
        }
        self.advance(session, Stage::SignedIn { user, session: id, assurance }, Keep::Same(id), Some(peer)).await
    }

    /// Which session a provider's sign-in became. False when the provider ended it meanwhile.
    pub(crate) async fn attach(&self, session: &Session, id: SessionId) -> Result<bool, Error> {
        match self.came(session).await? {
            Some(came) => self.store.attach_provider_session(came.link, id).await.map_err(Error::store),
            None => Ok(true),
        }
    }

    /// The first factor of a session: the provider's word, or a password.
    pub(crate) async fn first_factor(&self, session: &Session) -> Result<Factor, Error> {
        Ok(if self.came(session).await?.is_some() { Factor::Provider } else { Factor::Password })
    }

    /// A password was given instead of a provider's word.
    pub(crate) async fn forget_provider(&self, session: &Session) -> Result<(), Error> {
        session.remove_value(CAME).await.map(drop).map_err(Error::Session)
    }
}

impl Identity {
    /// Begins a sign-in at a provider; gives the address to send the browser to. Somebody who is signed in through it
    /// confirms that it is them, for an intent where there is one. `next` is where to go afterwards, checked by the
    /// caller.
    pub async fn begin_at_provider(
        &self,
        session: &Session,
        provider: &str,
        next: &str,
        intent: Option<Intent>,
        peer: IpAddr,
    ) -> Result<String, Error> {
        let inner = &self.0;
        let provider = Arc::clone(inner.provider(provider)?);
        let now = inner.clock.now();
        inner.look_at_network(peer, now).await?;
        let name = &provider.settings.name;
        let confirms = provider.settings.confirms()
            && matches!(inner.stage(session).await?, Stage::SignedIn { .. })
            && inner.came(session).await?.is_some_and(|came| came.provider == *name);
        let (state, _) = chance::secret_text("")?;
        let state = state.expose_text().unwrap_or_default().to_owned();
        let (nonce, verifier) = (inner.of_state("nonce", name, &state), inner.of_state("verifier", name, &state));
        let address = provider.address(state.clone(), nonce, verifier, confirms, now);
        let address = provider.patiently(address).await.map_err(|trouble| provider.error(trouble, None))?;
        let mut begun: Vec<Begun> = session.get(BEGUN).await.map_err(Error::Session)?.unwrap_or_default();
        begun.retain(|b| now < b.at + LASTS);
        let too_many = (begun.len() + 1).saturating_sub(MOST);
        begun.drain(..too_many);
        let issuer = provider.settings.issuer.clone();
        let next = next.to_owned();
        begun.push(Begun { state: digest(&state), provider: name.clone(), issuer, at: now, next, confirms, intent });
        session.insert(BEGUN, &begun).await.map_err(Error::Session)?;
        Ok(address)
    }

    /// Ends a sign-in at a provider: checks what came back, asks the provider, and goes on as after a password, unless
    /// the provider proved a second factor that the configuration believes. Nothing that fails here counts against
    /// anybody.
    pub async fn finish_at_provider(
        &self,
        session: &Session,
        provider: &str,
        returned: &Returned<'_>,
        peer: IpAddr,
    ) -> Result<Arrived, Error> {
        let inner = &self.0;
        let provider = Arc::clone(inner.provider(provider)?);
        let now = inner.clock.now();
        inner.look_at_network(peer, now).await?;
        let name = &provider.settings.name;
        let begun = inner.take_begun(session, &provider, returned.state).await?;
        let begun = begun.ok_or_else(|| provider.flaw(Flaw::State, None))?;
        let talk = async {
            provider.check_issuer(returned, now).await?;
            if returned.error.is_some() {
                return Ok(None);
            }
            let code = returned.code.filter(|c| (1..=LONGEST_CODE).contains(&c.len())).ok_or(Flaw::NoCode)?;
            let document = provider.document(now).await?;
            let nonce = inner.of_state("nonce", name, returned.state);
            let verifier = inner.of_state("verifier", name, returned.state);
            provider.exchange(&document, code, verifier, &nonce, now).await.map(Some)
        };
        let word = provider.patiently(Box::pin(talk)).await.map_err(|trouble| provider.error(trouble, None))?;
        let Some(word) = word else {
            let code = plain(returned.error.unwrap_or_default());
            let more = returned.error_description.map(|d| format!(": {}", plain(d))).unwrap_or_default();
            return Err(Error::ProviderSaid { title: provider.settings.title.clone(), words: format!("{code}{more}") });
        };
        // The time that the exchange took is not the person's to lose, nor to gain.
        let now = inner.clock.now();
        provider.check_age(&begun, &word, now).map_err(|flaw| provider.flaw(flaw, None))?;
        let second_at = provider.second_at(&word);
        let rules = provider.settings.roles_for(&word.claims).map_err(|flaw| provider.flaw(flaw, None))?;
        let before = inner.stage(session).await?;
        if begun.confirms {
            inner.check_same(&provider, &before, &word.subject).await?;
            if second_at.is_none() {
                return Err(provider.flaw(Flaw::NoSecond, before.user()));
            }
        }
        let (user, words) = match inner.vouch(&provider, &word.subject, &word.claims, &rules).await? {
            Vouched::Person { user, made, given, taken } => (user, words(made, &given, &taken)),
            Vouched::Disabled(user) => return Err(provider.flaw(Flaw::Disabled, Some(user))),
            Vouched::Nobody => return Err(provider.flaw(Flaw::NoRole, None)),
            Vouched::NotSetUp => return Err(provider.flaw(Flaw::NotSetUp, None)),
        };
        self.refresh().await?;
        let title = &provider.settings.title;
        if rules.is_empty() {
            let (title, flaw) = (title.clone(), Flaw::NoRole);
            return Err(Error::NotVouched { title, flaw, user: Some(user), changed: words });
        }
        if begun.confirms {
            let at = second_at.ok_or_else(|| provider.flaw(Flaw::NoSecond, Some(user)))?;
            inner.confirm(session, user, at, begun.intent, peer).await?;
            let words = format!("{title} confirmed that it is them{words}");
            return Ok(Arrived { next: Next::Done, back: begun.next, words });
        }
        let came = inner.keep_sign_in(&provider, user, &word).await?;
        let next = inner.after_provider(session, user, &came, second_at, peer).await?;
        let signed_in = if next == Next::Done { "with a second factor; signed in" } else { "for them" };
        Ok(Arrived { next, back: begun.next, words: format!("{title} vouched {signed_in}{words}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    fn first(claims: Value) -> String {
        let Value::Object(claims) = claims else { panic!("an object") };
        candidates(&claims, UserId::new(Uuid::from_u128(1)))[0].name.clone()
    }

    #[test]
    fn a_name_is_made_of_what_the_provider_calls_somebody() {
        assert_eq!(first(json!({"preferred_username": "ada", "name": "Ada L."})), "ada");
        assert_eq!(first(json!({"name": "Ada Lovelace"})), "Ada.Lovelace");
        assert_eq!(first(json!({"preferred_username": "<b>ada</b>\u{202e}"})), "badab");
        assert_eq!(first(json!({"preferred_username": 5, "name": " "})), "person");
        assert_eq!(first(json!({"preferred_username": "x".repeat(500)})).len(), 56);
        let Value::Object(claims) = json!({"preferred_username": "ada", "name": "Ada\n L."}) else { panic!() };
        let all = candidates(&claims, UserId::new(Uuid::from_u128(1)));
        assert_eq!((all.len(), all[1].name.as_str(), all[1].display_name.as_str()), (SPELLINGS, "ada-2", "Ada L."));
    }
}
