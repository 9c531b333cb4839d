// SPDX-License-Identifier: Apache-2.0
//! Passkeys and security keys (WebAuthn Level 3).
//!
//! In: what a browser's authenticator answered, as the JSON that `PublicKeyCredential` has. Out: a proof, or a new
//! second factor. Everything that an answer is held against stays here: the origin and the name come from the
//! configuration, the challenge from the store, the key and its counter from its row, sealed to it.
//!
//! ```text
//!  begin_… ──> challenge (32 bytes, 5 min), kept under (session, purpose) ──> browser ──> authenticator
//!                          │ taken once, right or wrong                                      │
//!  proof <── counter goes up <── signature, flags, origin, owner <── answer ─────────────────┘
//! ```
//!
//! What must never happen here:
//! - an answer to one purpose, session or moment that counts for another;
//! - a touch that counts as two factors: alone, a passkey must have checked a PIN, a finger or a face;
//! - an answer or a cost that tells a stranger whether a passkey or its person exists;
//! - a password's lockout, or tries from another network, that close this way.
//!
//! Decisions
//! - 2026-11-28: after a password, and to confirm, a touch is enough unless `user_verification = "always"`; the library
//!   remembers how a key was registered and would insist, so what it remembers is set aside for that step.
//! - 2026-11-28: tries count against (person, network) and against the network, so that somebody far away who has an
//!   old credential id cannot lock its owner out.
//! - 2026-11-28: a counter that went back is refused and said in the trail; counters of synced passkeys stay at 0.

mod assert;
mod ceremony;
mod credential;
mod register;
mod relying;
mod settings;

pub use settings::{AllowedModel, PasskeySettings, UserVerification};

pub(crate) use ceremony::Purpose;
pub(crate) use credential::works_alone;
pub(crate) use relying::Passkeys;

use crate::{Error, Identity};
use portcullis_domain::UserId;

/// What somebody can prove themselves with beside a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proofs {
    /// An authenticator app.
    pub code: bool,
    /// A passkey or security key, where this gateway takes them.
    pub passkey: bool,
}

impl Identity {
    /// Why passkeys do not work here, in a sentence; none when they do.
    pub fn passkeys_off(&self) -> Option<&'static str> {
        self.0.passkeys.off()
    }

    /// What a person can prove themselves with beside a password.
    pub async fn proofs_of(&self, user: UserId) -> Result<Proofs, Error> {
        let apps = self.0.store.totp_factors(user).await.map_err(Error::store)?;
        let code = apps.iter().any(|f| f.confirmed_at.is_some());
        let passkey = self.passkeys_off().is_none() && self.0.has_passkey(user).await?;
        Ok(Proofs { code, passkey })
    }
}

#[cfg(test)]
mod tests;
