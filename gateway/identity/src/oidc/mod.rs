// SPDX-License-Identifier: Apache-2.0
//! Signing in at an identity provider (OpenID Connect Core 1.0, code flow with PKCE).
//!
//! In: what a browser brings back from a provider, and what the provider answers when it is asked. Out: a person by
//! (issuer, sub) with the roles that the table of the configuration gives them, or a [`Flaw`].
//!
//! ```text
//! begin ── state, nonce, PKCE ──> provider ── code, state, iss ──> finish ── exchange, ID token, userinfo ──> roles
//!   '── digest of the state in the session: one use, ten minutes, this provider, this issuer ──'               |
//!                        renew (each minute), back-channel logout ── end the session <── session <── person <──'
//! ```
//!
//! What must never happen here:
//! - a word of a provider that counts without a signature by a key that its own discovery document leads to;
//! - somebody taken for somebody else because a name or an e-mail address is the same;
//! - a role that stands in no row of the table, or that stays when its row no longer answers;
//! - a provider that is slow, down or hostile and costs a local account anything: every call has an end, every answer a
//!   size, and nothing that goes wrong here counts as a try of anybody.
//!
//! Decisions
//! - 2026-11-28: requests go through a function that the server gives (it is `upstream`'s client): identity owns no
//!   sockets, and the tests' provider is asked without any.
//! - 2026-11-28: nonce and PKCE verifier are keyed digests of the state, so that no usable half of a sign-in is stored.
//! - 2026-11-28: the library keeps keys and signatures and speaks the token endpoint; claims are checked on the JSON
//!   itself, because the library reads a fractional or missing time where a whole number belongs.

mod arrive;
mod discovery;
mod exchange;
mod flaw;
mod logout;
mod renew;
mod roles;
mod settings;
mod token;

pub use arrive::{Arrived, Returned};
pub use flaw::Flaw;
pub use logout::LogoutNote;
pub use renew::{Renewal, Renewed};
pub(crate) use settings::check;
pub use settings::{On, ProviderSettings, RoleRule, SecondFactor};

use crate::{Error, Identity, Inner};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use discovery::Known;
use portcullis_domain::{Secret, UserId};
use portcullis_store::{Place, ProviderSessionId};
use serde::{Deserialize, Serialize};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tower_sessions::Session;

/// How long everything that a browser waits for may take at a provider.
const PATIENCE: Duration = Duration::from_secs(9);
/// The largest answer of a provider, in bytes.
pub const LARGEST_ANSWER: usize = 256 * 1024;

/// The key of what a session knows about the provider that it came from.
pub(crate) const CAME: &str = "came";

/// An answer of a provider, or why there is none, in words.
pub type Fetched = Result<http::Response<Vec<u8>>, FetchError>;

/// Sends one request to a provider: no redirects, one answer of at most [`LARGEST_ANSWER`] bytes, an end to waiting.
pub type Fetch = Arc<dyn Fn(http::Request<Vec<u8>>) -> Pin<Box<dyn Future<Output = Fetched> + Send>> + Send + Sync>;

/// Why a provider gave no answer. The words hold no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// What a provider of the configuration needs beside its settings.
#[derive(Clone)]
pub struct Connection {
    /// How it is asked.
    pub fetch: Fetch,
    /// The client's secret; none for a public client.
    pub secret: Option<Secret>,
    /// Where it sends browsers back to: an address of ours.
    pub redirect: String,
    /// Where it sends browsers after signing out: an address of ours.
    pub after_logout: String,
}

/// One provider at work.
pub(crate) struct Provider {
    settings: ProviderSettings,
    connection: Connection,
    known: Mutex<Known>,
}

/// What a session knows about the provider that it came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Came {
    provider: String,
    pub(crate) link: ProviderSessionId,
}

/// What is wrong with an attempt: the provider cannot be asked, or what it says does not count.
#[derive(Debug)]
enum Trouble {
    Down(String),
    Flaw(Flaw),
}

impl From<Flaw> for Trouble {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl Provider {
    /// An error that a person can be told.
    fn error(&self, trouble: Trouble, user: Option<UserId>) -> Error {
        let title = self.settings.title.clone();
        match trouble {
            Trouble::Down(why) => Error::ProviderDown { title, why },
            Trouble::Flaw(flaw) => Error::NotVouched { title, flaw, user, changed: String::new() },
        }
    }

    fn flaw(&self, flaw: Flaw, user: Option<UserId>) -> Error {
        self.error(Trouble::Flaw(flaw), user)
    }

    /// Waits for something of the provider, but not for ever.
    async fn patiently<T>(&self, work: impl Future<Output = Result<T, Trouble>> + Send) -> Result<T, Trouble> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done,
            Err(_) => Err(Trouble::Down("it took too long to answer".to_owned())),
        }
    }
}

/// Makes the providers of the settings ready. Without connections (on the command line) none can be asked.
pub(crate) fn providers(settings: &[ProviderSettings], connections: Vec<Connection>) -> Vec<Arc<Provider>> {
    let ready = |(settings, connection): (&ProviderSettings, Connection)| {
        Arc::new(Provider { settings: settings.clone(), connection, known: Mutex::default() })
    };
    settings.iter().zip(connections).map(ready).collect()
}

impl Inner {
    fn provider(&self, name: &str) -> Result<&Arc<Provider>, Error> {
        self.providers.iter().find(|p| p.settings.name == name).ok_or(Error::NotFound("this identity provider"))
    }

    /// A value that only this installation can work out again from the state of a sign-in.
    fn of_state(&self, purpose: &str, provider: &str, state: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.keys.derive("sign-in at identity providers").expose());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, format!("{purpose}\n{provider}\n{state}").as_bytes()))
    }

    fn seal_token(&self, id: ProviderSessionId, column: &str, token: &str) -> Result<Vec<u8>, Error> {
        let row = id.to_string();
        let place = Place { table: "provider_sessions", row: &row, column };
        self.keys.seal(&place, &Secret::from(token.to_owned())).map_err(Error::store)
    }

    fn open_token(&self, id: ProviderSessionId, column: &str, sealed: &[u8]) -> Result<Secret, Error> {
        let row = id.to_string();
        self.keys.open(&Place { table: "provider_sessions", row: &row, column }, sealed).map_err(Error::store)
    }

    /// The provider that a session came from; none after a password.
    pub(crate) async fn came(&self, session: &Session) -> Result<Option<Came>, Error> {
        session.get::<Came>(CAME).await.map_err(Error::Session)
    }
}

impl Identity {
    /// Name and title of each provider that can be signed in at.
    pub fn providers(&self) -> Vec<(&str, &str)> {
        self.0.providers.iter().map(|p| (p.settings.name.as_str(), p.settings.title.as_str())).collect()
    }

    /// Name and title of the provider that a session came from and that can confirm again who it is: one whose second
    /// factor counts.
    pub async fn can_confirm(&self, session: &Session) -> Result<Option<(&str, &str)>, Error> {
        let Some(came) = self.0.came(session).await? else { return Ok(None) };
        let found = self.0.providers.iter().find(|p| p.settings.name == came.provider && p.settings.confirms());
        Ok(found.map(|p| (p.settings.name.as_str(), p.settings.title.as_str())))
    }
}
