// SPDX-License-Identifier: Apache-2.0
//! What a browser was asked to sign: kept in the store for its session and one purpose, for five minutes, taken once.

use crate::{Error, Inner, Why, rows};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

/// How long an answer may take.
const LASTS: Duration = Duration::minutes(5);
/// What makes a session out of a visit that has none: an empty one gets no cookie.
const ASKED: &str = "asked";
/// Longest answer that is read, in bytes: attestations are a few thousand.
const LONGEST: usize = 32 * 1024;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To add a passkey.
    Register,
    /// To sign in with nothing else.
    SignIn,
    /// To sign in, after a password.
    SecondStep,
    /// To confirm that it is still them.
    StepUp,
}

impl Purpose {
    /// The word in the store.
    const fn word(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::SignIn => "sign-in",
            Self::SecondStep => "second-step",
            Self::StepUp => "step-up",
        }
    }
}

impl Inner {
    /// Keeps what this session is being asked. A visit without a session gets one.
    pub(crate) async fn ask(&self, session: &Session, purpose: Purpose, state: &impl Serialize) -> Result<(), Error> {
        if session.id().is_none() {
            session.insert(ASKED, purpose.word()).await.map_err(Error::Session)?;
            session.save().await.map_err(Error::Session)?;
        }
        let id = session.id().ok_or(Error::Expired)?;
        let state = serde_json::to_string(state).map_err(|_| Error::Crypto("passkey challenge"))?;
        let until = self.clock.now() + LASTS;
        self.store.begin_ceremony(&rows::hash(id), purpose.word(), &state, until).await.map_err(Error::store)
    }

    /// Takes what this session was asked for a purpose: an answer, right or wrong, uses it up.
    pub(crate) async fn asked<T: DeserializeOwned>(
        &self,
        session: &Session,
        purpose: Purpose,
        now: OffsetDateTime,
    ) -> Result<T, Error> {
        // Loads the record, so that an id that is worth nothing counts as none.
        let stage = self.stage(session).await?;
        let nothing = || Error::refused(Why::NotAsked, stage.user());
        let id = session.id().ok_or_else(nothing)?;
        let state = self.store.take_ceremony(&rows::hash(id), purpose.word(), now).await.map_err(Error::store)?;
        serde_json::from_str(&state.ok_or_else(nothing)?).map_err(|_| Error::Crypto("passkey challenge"))
    }
}

/// The part of the client data that the library does not hold against every answer (WebAuthn Level 3, 5.8.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Framed {
    cross_origin: Option<bool>,
    top_origin: Option<String>,
}

/// Whether an answer names its credential in one way only, and was given on a page of ours that stood in no other's.
pub(crate) fn is_plain(id: &str, raw_id: &[u8], kind: &str, client_data: &[u8]) -> bool {
    let alone = serde_json::from_slice::<Framed>(client_data)
        .is_ok_and(|framed| !framed.cross_origin.unwrap_or(false) && framed.top_origin.is_none());
    kind == "public-key" && id == URL_SAFE_NO_PAD.encode(raw_id) && alone
}

/// Reads an answer; none when it is none.
pub(crate) fn read<T: DeserializeOwned>(answer: &str) -> Option<T> {
    (answer.len() <= LONGEST).then(|| serde_json::from_str(answer).ok()).flatten()
}
