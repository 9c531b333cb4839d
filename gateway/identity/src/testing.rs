// SPDX-License-Identifier: Apache-2.0
//! A whole sign-in on a real store: nodes, a clock, browsers, and people with their apps.

pub(crate) mod authenticator;
pub(crate) mod samples;

use crate::{Identity, Next, Redeem, Settings, Stage, password::Passwords, totp};
use base64::Engine;
use portcullis_domain::{Clock, ManualClock, Secret, UserId};
use portcullis_store::{Keys, Store};
use std::{net::IpAddr, sync::Arc};
use tempfile::TempDir;
use time::{Duration, macros::datetime};
use tower_sessions::Session;

pub(crate) const PASSWORD: &str = "coral bicycle umbrella thirteen";

pub(crate) fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

pub(crate) fn peer() -> IpAddr {
    "192.0.2.10".parse().unwrap()
}

pub(crate) fn text(secret: &Secret) -> String {
    secret.expose_text().unwrap().to_owned()
}

pub(crate) struct Bench {
    pub(crate) id: Identity,
    /// Another node on the same database.
    pub(crate) other: Identity,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    pub(crate) keys: Arc<Keys>,
    pub(crate) url: String,
    _dir: TempDir,
}

/// How many of something: all of them in the full run.
pub(crate) fn full_or(few: u16, all: u16) -> u16 {
    if std::env::var("PORTCULLIS_TEST_FULL").is_ok_and(|v| v == "1") { all } else { few }
}

/// A person with both factors, and the secret in their app.
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) app: Secret,
    pub(crate) codes: Vec<String>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let node = |store, keys, clock, settings| Identity::new(store, keys, clock, settings).unwrap();
        Self::on(tempfile::tempdir().unwrap(), settings, Arc::new(Keys::for_tests()), node).await
    }

    /// One for very many calls: passwords are hashed at next to no cost, and the database lies in memory where it can.
    pub(crate) async fn quick(settings: Settings) -> Self {
        Self::on(Self::in_memory(), settings, Arc::new(Keys::for_tests()), Self::quick_node).await
    }

    /// The same, on a copy of a database that was left behind by another.
    pub(crate) async fn quick_from(settings: Settings, keys: Arc<Keys>, database: &std::path::Path) -> Self {
        let dir = Self::in_memory();
        std::fs::copy(database, dir.path().join("test.db")).unwrap();
        Self::on(dir, settings, keys, Self::quick_node).await
    }

    fn in_memory() -> TempDir {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        dir.unwrap()
    }

    fn quick_node(store: Store, keys: Arc<Keys>, clock: Arc<dyn Clock>, settings: Settings) -> Identity {
        let passwords = Passwords::quick(&keys);
        Identity::with(store, keys, clock, settings, passwords, Vec::new()).unwrap()
    }

    async fn on(
        dir: TempDir,
        settings: Settings,
        keys: Arc<Keys>,
        make: impl Fn(Store, Arc<Keys>, Arc<dyn Clock>, Settings) -> Identity,
    ) -> Self {
        let url = format!("sqlite://{}", dir.path().join("test.db").display());
        let store = Store::open(&url).await.unwrap();
        let clock = Arc::new(ManualClock::new(datetime!(2026-11-21 12:00 UTC)));
        let node = |store: Store| {
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            make(store, Arc::clone(&keys), clock, settings.clone())
        };
        let id = node(store.clone());
        let other = node(Store::open(&url).await.unwrap());
        id.refresh().await.unwrap();
        other.refresh().await.unwrap();
        Self { id, other, clock, store, keys, url, _dir: dir }
    }

    /// Closes what both nodes hold open.
    pub(crate) async fn close(&self) {
        self.store.close().await;
        self.other.0.store.close().await;
    }

    /// One with real hashes on a database in memory, where it can be: for what is told by the clock.
    pub(crate) async fn steady() -> Self {
        let node = |store, keys, clock, settings| Identity::new(store, keys, clock, settings).unwrap();
        Self::on(Self::in_memory(), Settings::default(), Arc::new(Keys::for_tests()), node).await
    }

    /// A node on the same database with other settings.
    pub(crate) fn with_settings(&self, settings: Settings) -> Identity {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        Identity::new(self.store.clone(), Arc::new(Keys::for_tests()), clock, settings).unwrap()
    }

    pub(crate) fn clock_now(&self) -> time::OffsetDateTime {
        self.clock.now()
    }

    /// A browser that was never here.
    pub(crate) fn browser(&self) -> Session {
        Session::new(None, Arc::new(self.id.0.rows.clone()), None)
    }

    /// The next request of a browser: with its cookie, and nothing in memory.
    pub(crate) fn again(&self, session: &Session) -> Session {
        Session::new(session.id(), Arc::new(self.id.0.rows.clone()), None)
    }

    /// The code that an app shows now.
    pub(crate) fn code(&self, app: &Secret) -> String {
        let now = u64::try_from(self.clock.now().unix_timestamp()).unwrap();
        totp::build(app, 1, "x", "x").unwrap().generate(now).to_string()
    }

    /// Moves on to the next step of all apps, so that a code is new.
    pub(crate) fn next_step(&self) {
        self.clock.advance(Duration::seconds(30));
    }

    /// A person who was invited, set a password and enrolled; their browser is signed in.
    pub(crate) async fn person(&self, name: &str) -> (Person, Session) {
        let user = self.id.create_user(name, "").await.unwrap();
        let token = self.id.invite(user).await.unwrap();
        let session = self.browser();
        let (password, token) = (secret(PASSWORD), text(&token));
        let redeem = Redeem { token: &token, name: None, display_name: "", password };
        assert_eq!(self.id.redeem_invitation(&session, redeem, peer()).await.unwrap(), Next::Enrol);
        let (app, codes) = self.enrol(&session).await;
        (Person { user, name: name.to_owned(), app, codes }, session)
    }

    /// Enrols an app from what the page shows.
    pub(crate) async fn enrol(&self, session: &Session) -> (Secret, Vec<String>) {
        let shown = self.id.begin_enrolment(session).await.unwrap();
        let app = totp_rs::Secret::try_from_base32(shown.secret_text.replace(' ', "")).unwrap();
        let app = Secret::new(app.as_bytes().to_vec());
        assert!(shown.uri.starts_with("otpauth://totp/Portcullis:"), "{}", *shown.uri);
        let codes = self.id.confirm_enrolment(session, &self.code(&app), peer()).await.unwrap();
        (app, codes.iter().map(|c| c.to_string()).collect())
    }

    /// Signs a person in with a new browser.
    pub(crate) async fn signed_in(&self, person: &Person) -> Session {
        let session = self.browser();
        self.next_step();
        let next = self.id.sign_in(&session, &person.name, secret(PASSWORD), peer()).await.unwrap();
        assert_eq!(next, Next::SecondFactor);
        self.id.second_factor(&session, &self.code(&person.app), peer()).await.unwrap();
        session
    }

    pub(crate) async fn is_signed_in(&self, session: &Session) -> bool {
        matches!(self.id.stage(session).await.unwrap(), Stage::SignedIn { .. })
    }

    /// Every byte that the database holds.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let path = self.url.strip_prefix("sqlite://").unwrap();
        let mut all = std::fs::read(path).unwrap();
        all.extend(std::fs::read(format!("{path}-wal")).unwrap_or_default());
        all
    }
}

/// Whether a text, or the bytes behind its base64, are in a dump.
pub(crate) fn is_in(dump: &[u8], text: &str) -> bool {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.rsplit('_').next().unwrap_or(text));
    let has = |needle: &[u8]| needle.len() >= 8 && dump.windows(needle.len()).any(|w| w == needle);
    has(text.as_bytes()) || bytes.is_ok_and(|b| has(&b))
}
