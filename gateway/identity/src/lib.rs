// SPDX-License-Identifier: Apache-2.0
//! Who is it, and how sure are we.
//!
//! In: what a browser or a tool presents (a session, a password, a code, a token, an invitation, a provider's answer)
//! and where it comes from. Out: a [`Stage`], an [`Actor`](portcullis_domain::Actor) for policy, or an [`Error`] whose text is the same
//! for every reason that a stranger must not learn, with the true reason beside it for the trail ([`Refusal`]).
//!
//! ```text
//!             sign_in, redeem_invitation           second_factor
//!  Stranger ────────────┬──────────────> NeedsSecond ─────────────> SignedIn ─┐ step_up,
//!                       │                     │ recover               ^   ^   <┘ change_password
//!                       │                     v                       │   │
//!                       │                RecoveryOnly ────────────────┘   │
//!                       v                       confirm_enrolment,        │
//!                   MustEnrol ──────────────────confirm_passkey───────────┘
//!  finish_at_provider: as sign_in, or straight to SignedIn where the provider's second factor counts
//!  Stranger ── break_glass ──> SignedIn, for an hour, without any way to change how somebody signs in
//!  any stage ── sign_in, redeem_invitation ──> as from Stranger       any stage ── sign_out ──> Stranger
//!  any stage ── sign_in_with_passkey ──> SignedIn
//! ```
//!
//! Each arrow gives the browser a new session id; the row in the store moves to it in one conditional statement, so
//! that a session that was ended meanwhile cannot take the step.
//!
//! What must never happen here:
//! - `SignedIn` without a first factor (a password, or the word of a provider) and a second one that were both proven
//!   for this session, or a passkey that checked its person, or a sealed code for emergencies;
//! - an emergency code that counts twice, from a network that is not allowed, or for longer than an hour;
//! - a try that is not counted before its work: limits are checked, then counted, then the password is hashed;
//! - an answer, a number of hashes or a number of writes that tells whether a name exists;
//! - a code, ticket or invitation that counts twice, on one node or on several (the store decides).
//!
//! Decisions
//! - 2026-11-21: passwords go through HMAC-SHA-256 under a key of the installation before Argon2id, so that a copy of
//!   the database alone cannot be tried against word lists.
//! - 2026-11-21: cookie ids are 128 random bits, the size that tower-sessions has; drawn from aws-lc-rs at `create`.
//! - 2026-11-28: who holds what is told to policy row by row as it changes, before the epoch that brought it is known
//!   here; what cannot be read shuts out whom it concerns.
//! - 2026-11-21: tokens are a table in memory, rebuilt when the store's epoch moves; a node
//!   that has not reached the store for 30 s accepts no token.
//! - 2026-11-28: a token that is presented from a network that it is not bound to is answered like an unknown one; whose
//!   it is stands in the trail only.
//! - 2026-11-28: a TLS client certificate stands for one token at one hypervisor's door, with all limits of the token and
//!   no rights of its own; whoever shows it has proven its key in the handshake.
//! - 2026-11-28: a sealed emergency code counts as fresh for its whole hour, because what a step-up would ask for may be
//!   what is broken; it opens an account of its own, so that what was done in an emergency is told from what people did.
//! - 2026-11-28: each sign-in of a tool makes another pass, and one that is ended is kept in the store until it would be
//!   over; nodes read the list again when its counter moves, and nobody else's rights are read again for it.
//! - 2026-11-28: signed-in sessions are kept in memory. Our own changes count at once, those of other nodes when the
//!   epoch is read again, each second; what changes how somebody signs in always asks the store.
//! - 2026-11-28: what a form carries is worked out from the cookie's id, not kept: no page writes for it, and every
//!   node knows it at once.
//! - 2026-11-21: a failed or undecided try counts against the name as typed, known or not, and against its network
//!   prefix; a successful one is taken back.

mod accounts;
mod actor;
mod address;
mod blocklist;
mod break_glass;
mod chance;
mod enrol;
mod error;
mod feed;
mod key;
mod limit;
mod live;
mod oidc;
mod pass;
mod password;
mod people;
mod proof;
mod provision;
mod rows;
mod rules;
mod settings;
mod sign_in;
mod stage;
mod ticket;
mod token;
mod totp;
mod webauthn;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use accounts::SessionLine;
pub use blocklist::{Blocklist, sort_blocklist};
pub use enrol::Enrolment;
pub use error::{Error, Refusal, Why};
pub use feed::{Feed, Scope};
pub use key::fingerprint;
pub use oidc::{
    Arrived, Connection, Fetch, FetchError, Fetched, Flaw, LARGEST_ANSWER, LogoutNote, On, ProviderSettings, Renewal,
    Renewed, Returned, RoleRule, SecondFactor,
};
pub use pass::PASS_LIFE;
pub use people::{FactorKind, FactorLine, Redeem};
pub use rows::SessionRows;
pub use settings::{BreakGlassSettings, PasswordSettings, Settings};
pub use stage::{Next, Stage};
pub use token::{Maker, TokenWish};
pub use webauthn::{AllowedModel, PasskeySettings, Proofs, UserVerification};

use actor::Actors;
use aws_lc_rs::hmac;
use password::Passwords;
use portcullis_domain::{Clock, Secret};
use portcullis_store::{Keys, Store};
use std::{sync::Arc, time::Duration};
use token::Tokens;
use tokio::sync::watch;
use tower_sessions::{Expiry, SessionManagerLayer, cookie::SameSite};
use webauthn::Passkeys;

/// Everything that knows who somebody is. A cheap handle: clones share one table of tokens and one cache.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    passwords: Arc<Passwords>,
    blocklist: Option<Arc<Blocklist>>,
    actors: Actors,
    tokens: Tokens,
    /// Sign-ins of tools that were ended before their time.
    ended: pass::EndedList,
    told: feed::Told,
    passkeys: Passkeys,
    rows: SessionRows,
    epoch: watch::Sender<u64>,
    providers: Vec<Arc<oidc::Provider>>,
    /// What turns a session's id into the text that its forms carry.
    forms: hmac::Key,
    /// What keeps roles apart; nothing does before it is known.
    apart: std::sync::OnceLock<portcullis_store::Apart>,
    /// The key of the digests that stand for names that nobody has.
    unknown_names: Secret,
    /// One refresh at a time.
    refreshing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Identity {
    /// What keeps roles apart from now on, also where an identity provider's word would give them.
    pub fn keep_apart(&self, apart: portcullis_store::Apart) {
        // Set once, when the house is put together; a second one would be a mistake and changes nothing.
        self.0.apart.set(apart).ok();
    }

    /// Checks the settings and makes ready; hashes one password to have something to compare unknown names with.
    pub fn new(store: Store, keys: Arc<Keys>, clock: Arc<dyn Clock>, settings: Settings) -> Result<Self, Error> {
        let passwords = Passwords::new(&keys, settings.hash_threads, Duration::from_secs(2))?;
        Self::with(store, keys, clock, settings, passwords, Vec::new())
    }

    /// The same with a connection to each identity provider of the settings, in their order.
    pub fn with_providers(
        store: Store,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        connections: Vec<Connection>,
    ) -> Result<Self, Error> {
        let passwords = Passwords::new(&keys, settings.hash_threads, Duration::from_secs(2))?;
        Self::with(store, keys, clock, settings, passwords, connections)
    }

    fn with(
        store: Store,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        passwords: Passwords,
        connections: Vec<Connection>,
    ) -> Result<Self, Error> {
        settings.check()?;
        let passwords = Arc::new(passwords);
        let blocklist = settings.passwords.blocklist.as_deref().map(Blocklist::open).transpose()?.map(Arc::new);
        let epoch = watch::Sender::new(0);
        let rows = SessionRows::new(store.clone(), Arc::clone(&clock), &settings, epoch.subscribe());
        let passkeys = Passkeys::new(&settings)?;
        Ok(Self(Arc::new(Inner {
            passwords,
            blocklist,
            passkeys,
            rows,
            actors: Actors::default(),
            tokens: Tokens::default(),
            ended: pass::EndedList::default(),
            told: feed::Told::default(),
            epoch,
            forms: hmac::Key::new(hmac::HMAC_SHA256, keys.derive("forms of a session").expose()),
            providers: oidc::providers(&settings.providers, connections),
            unknown_names: keys.derive("names that nobody has"),
            apart: std::sync::OnceLock::new(),
            refreshing: tokio::sync::Mutex::new(()),
            store,
            keys,
            clock,
            settings,
        })))
    }

    /// The settings in use.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// How many passwords were hashed since the start, dummies among them.
    pub fn hashes_done(&self) -> u64 {
        self.0.passwords.hashes_done()
    }

    /// Where the sessions are kept, for whoever makes one without the layer.
    pub fn session_rows(&self) -> SessionRows {
        self.0.rows.clone()
    }

    /// The layer that gives each request its `tower_sessions::Session`: cookie `__Host-sid`, `Secure`, `HttpOnly`,
    /// `SameSite=Lax`, `Path=/`, no `Domain`, until the browser closes.
    pub fn session_layer(&self) -> SessionManagerLayer<SessionRows> {
        SessionManagerLayer::new(self.0.rows.clone())
            .with_name("__Host-sid")
            .with_secure(true)
            .with_http_only(true)
            .with_same_site(SameSite::Lax)
            .with_path("/")
            .with_expiry(Expiry::OnSessionEnd)
    }
}
