// SPDX-License-Identifier: Apache-2.0
//! TLS client certificates that stand for tokens, by their fingerprints.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{HypervisorName, TokenId, UserId, micros};
use time::OffsetDateTime;

/// A certificate that stands for a token at one hypervisor's door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// The only hypervisor at whose door it counts.
    pub hypervisor: HypervisorName,
    /// The token that it stands for.
    pub token: TokenId,
    /// Since when.
    pub bound_at: OffsetDateTime,
}

/// What came of binding a certificate to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// It stands for the token now.
    Bound,
    /// The token has as many certificates as it may have.
    Full,
    /// The token is over, or was taken back.
    Gone,
}

#[derive(sqlx::FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    hypervisor: String,
    token_id: String,
    bound_at: i64,
}

const T: &str = "token_keys";

impl TryFrom<Row> for TokenKey {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let wrong = |_| Error::corrupt(T, &row.token_id, "the fingerprint is not 32 bytes");
        Ok(Self {
            fingerprint: row.fingerprint.try_into().map_err(wrong)?,
            hypervisor: parse(T, "hypervisor", &row.hypervisor)?,
            token: parse(T, "token_id", &row.token_id)?,
            bound_at: from_micros(row.bound_at),
        })
    }
}

impl Store {
    /// Lets a certificate stand for a token that counts, instead of whatever it stood for at that door. `most` is how
    /// many different certificates a token may have.
    pub async fn bind_key(&self, key: &TokenKey, most: u32) -> Result<Binding, Error> {
        let mut tx = self.begin().await?;
        let token = key.token.to_string();
        // Changes nothing, and holds the token's row: two at once cannot both be the last that fits, nor can the token
        // be taken back in between.
        let live = execute!(
            tx,
            "update tokens set revoked_at = null where id = $1 and revoked_at is null and expires_at > $2",
            &token,
            micros(key.bound_at)
        )?;
        if live == 0 {
            return Ok(Binding::Gone);
        }
        let others = fetch!(
            tx,
            (i64,),
            "select count(distinct fingerprint) from token_keys where token_id = $1 and fingerprint <> $2",
            &token,
            key.fingerprint.as_slice()
        )?;
        if others.first().is_none_or(|(n,)| *n >= i64::from(most)) {
            return Ok(Binding::Full);
        }
        execute!(
            tx,
            "insert into token_keys (fingerprint, hypervisor, token_id, bound_at) values ($1, $2, $3, $4) \
             on conflict (fingerprint, hypervisor) do update \
             set token_id = excluded.token_id, bound_at = excluded.bound_at",
            key.fingerprint.as_slice(),
            key.hypervisor.as_str(),
            &token,
            micros(key.bound_at)
        )?;
        tx.bump().await?;
        tx.commit().await?;
        Ok(Binding::Bound)
    }

    /// Every certificate that stands for a token, those of tokens that no longer count among them.
    pub async fn token_keys(&self) -> Result<Vec<TokenKey>, Error> {
        let rows = read!(
            self,
            Row,
            "select fingerprint, hypervisor, token_id, bound_at from token_keys order by bound_at, fingerprint, hypervisor"
        )?;
        rows.into_iter().map(TokenKey::try_from).collect()
    }

    /// Those that stand for a person's tokens.
    pub async fn token_keys_of(&self, user: UserId) -> Result<Vec<TokenKey>, Error> {
        let rows = read!(
            self,
            Row,
            "select k.fingerprint, k.hypervisor, k.token_id, k.bound_at from token_keys k \
             join tokens t on t.id = k.token_id where t.user_id = $1 \
             order by k.bound_at, k.fingerprint, k.hypervisor",
            user.to_string()
        )?;
        rows.into_iter().map(TokenKey::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        NewToken,
        testing::{NOON, digest, on_both, person},
    };
    use time::Duration;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_certificate_stands_for_one_token_at_a_door_and_a_token_has_few() {
        on_both(async |b| {
            let (store, other) = (b.open().await, b.open().await);
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let id = |n: u8| TokenId::new(Uuid::from_u128(n.into()));
            for (n, user) in [(1, ada), (2, bob)] {
                let new = NewToken {
                    id: id(n),
                    hash: digest(n),
                    user,
                    name: "lxc".into(),
                    hypervisor: None,
                    networks: vec![],
                    expires_at: NOON + Duration::DAY,
                    made_by: None,
                };
                store.add_token(&new, NOON).await.unwrap();
            }
            let key = |n: u8, at: &str, token: u8| TokenKey {
                fingerprint: digest(n),
                hypervisor: at.parse().unwrap(),
                token: id(token),
                bound_at: NOON,
            };
            let before = store.epoch().await.unwrap();
            assert_eq!(store.bind_key(&key(10, "lab", 1), 2).await.unwrap(), Binding::Bound);
            assert!(store.epoch().await.unwrap() > before, "other nodes have to hear of it");
            // The same one again, and at another door, is not one more.
            assert_eq!(store.bind_key(&key(10, "lab", 1), 2).await.unwrap(), Binding::Bound);
            assert_eq!(store.bind_key(&key(10, "edge", 1), 2).await.unwrap(), Binding::Bound);
            // Two at once want the last place.
            let (one, two) = tokio::join!(async { store.bind_key(&key(11, "lab", 1), 2).await.unwrap() }, async {
                other.bind_key(&key(12, "lab", 1), 2).await.unwrap()
            });
            assert!(
                matches!((one, two), (Binding::Bound, Binding::Full) | (Binding::Full, Binding::Bound)),
                "{one:?} {two:?}"
            );
            let before = store.epoch().await.unwrap();
            assert_eq!(store.bind_key(&key(13, "lab", 1), 2).await.unwrap(), Binding::Full);
            assert_eq!(store.epoch().await.unwrap(), before);
            assert_eq!(store.token_keys_of(ada).await.unwrap().len(), 3);

            // Whoever has the key signs in with another token: that one counts from then on, at that door.
            assert_eq!(store.bind_key(&key(10, "lab", 2), 2).await.unwrap(), Binding::Bound);
            assert_eq!(store.token_keys_of(bob).await.unwrap(), [key(10, "lab", 2)]);
            assert_eq!(store.token_keys_of(ada).await.unwrap().len(), 2);

            for (key, late) in [(key(14, "lab", 2), Duration::DAY), (key(14, "lab", 9), Duration::ZERO)] {
                let key = TokenKey { bound_at: NOON + late, ..key };
                assert_eq!(store.bind_key(&key, 2).await.unwrap(), Binding::Gone, "{key:?}");
            }
            store.revoke_token(bob, id(2), NOON).await.unwrap();
            assert_eq!(store.bind_key(&key(14, "lab", 2), 2).await.unwrap(), Binding::Gone);
            assert_eq!(store.token_keys().await.unwrap().len(), 3);
        })
        .await;
    }
}
