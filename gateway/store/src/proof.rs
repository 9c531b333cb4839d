// SPDX-License-Identifier: Apache-2.0
//! Confirmations that count once: used over all nodes.

use crate::{
    Digest, Error, Store,
    tx::{execute, read},
};
use portcullis_domain::{SessionId, micros};
use time::OffsetDateTime;

/// A confirmation, by what it was given for and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofOf {
    /// In which session.
    pub session: SessionId,
    /// SHA-256 of what it was given for.
    pub intent: Digest,
    /// When it was given.
    pub proven_at: OffsetDateTime,
}

impl Store {
    /// Spends a confirmation: whoever gets true is the only one, over all nodes.
    pub async fn spend_proof(&self, proof: &ProofOf, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let spent = execute!(
            tx,
            "insert into spent_proofs (session_id, intent_hash, proven_at, spent_at) values ($1, $2, $3, $4) \
             on conflict do nothing",
            proof.session.to_string(),
            proof.intent.as_slice(),
            micros(proof.proven_at),
            micros(now)
        )?;
        tx.commit().await?;
        Ok(spent == 1)
    }

    /// Whether a confirmation was spent.
    pub async fn is_proof_spent(&self, proof: &ProofOf) -> Result<bool, Error> {
        let rows = read!(
            self,
            (i64,),
            "select spent_at from spent_proofs where session_id = $1 and intent_hash = $2 and proven_at = $3",
            proof.session.to_string(),
            proof.intent.as_slice(),
            micros(proof.proven_at)
        )?;
        Ok(!rows.is_empty())
    }

    /// Forgets the confirmations that were spent before an instant.
    pub async fn drop_spent_proofs(&self, before: OffsetDateTime) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from spent_proofs where spent_at <= $1", micros(before))?;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both};
    use time::Duration;
    use uuid::Uuid;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_confirmation_is_spent_once_over_all_nodes() {
        on_both(async |b| {
            let proof = ProofOf { session: SessionId::new(Uuid::new_v4()), intent: [7; 32], proven_at: NOON };
            let mut all = tokio::task::JoinSet::new();
            assert!(!b.open().await.is_proof_spent(&proof).await.unwrap());
            for _ in 0..4 {
                let store = b.open().await;
                all.spawn(async move { store.spend_proof(&proof, NOON + Duration::SECOND).await.unwrap() });
            }
            let won = all.join_all().await.into_iter().filter(|won| *won).count();
            assert_eq!(won, 1);
            let store = b.open().await;
            assert!(store.is_proof_spent(&proof).await.unwrap());
            for other in [
                ProofOf { proven_at: NOON + Duration::MICROSECOND, ..proof },
                ProofOf { intent: [8; 32], ..proof },
                ProofOf { session: SessionId::new(Uuid::new_v4()), ..proof },
            ] {
                assert!(store.spend_proof(&other, NOON).await.unwrap(), "another confirmation");
            }
            assert_eq!(store.drop_spent_proofs(NOON).await.unwrap(), 3);
            assert!(store.is_proof_spent(&proof).await.unwrap());
        })
        .await;
    }
}
