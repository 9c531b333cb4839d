// SPDX-License-Identifier: Apache-2.0
//! Confirmations that were given for one intent: used once over all nodes, or until what they opened has ended.

use crate::{Error, Identity, chance};
use portcullis_domain::{Intent, SessionId};
use portcullis_store::ProofOf;
use time::OffsetDateTime;

fn of(session: SessionId, intent: &Intent, proven_at: OffsetDateTime) -> Result<ProofOf, Error> {
    let text = serde_json::to_vec(intent).map_err(|_| Error::Crypto("an intent could not be written"))?;
    Ok(ProofOf { session, intent: chance::sha256(&text), proven_at })
}

impl Identity {
    /// Spends the confirmation that was given for an intent at an instant; false when it was spent before.
    pub async fn spend(&self, session: SessionId, intent: &Intent, at: OffsetDateTime) -> Result<bool, Error> {
        self.0.store.spend_proof(&of(session, intent, at)?, self.0.clock.now()).await.map_err(Error::store)
    }

    /// Whether the confirmation that was given for an intent at an instant was spent.
    pub async fn is_spent(&self, session: SessionId, intent: &Intent, at: OffsetDateTime) -> Result<bool, Error> {
        self.0.store.is_proof_spent(&of(session, intent, at)?).await.map_err(Error::store)
    }
}
