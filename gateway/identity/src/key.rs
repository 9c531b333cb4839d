// SPDX-License-Identifier: Apache-2.0
//! TLS client certificates that stand for tokens: for tools that show nothing else. A certificate is bound to a token by
//! whoever shows both once; after that it counts where and for as long as the token counts, at the one hypervisor's door
//! where it was bound. It has no rights of its own, and ends with its token. That its owner holds the key is proven by the
//! handshake, before anything here is asked.

use crate::{Error, Identity, chance, token::Known};
use portcullis_domain::{Actor, HypervisorName, TokenId, Via};
use portcullis_store::{Binding, Digest, TokenKey};
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use time::OffsetDateTime;

/// How many different certificates one token may have.
const MOST_KEYS: u32 = 5;

/// The fingerprint of a certificate: SHA-256 of it (DER).
pub fn fingerprint(certificate: &[u8]) -> Digest {
    chance::sha256(certificate)
}

/// Which token a certificate stands for, by door: as a node keeps it.
#[derive(Default)]
pub(crate) struct Keys(HashMap<Digest, Vec<Bound>>);

struct Bound {
    hypervisor: HypervisorName,
    /// The digest of the token's text.
    token: Digest,
}

impl Keys {
    /// Those of tokens that count; `tokens` are their digests.
    pub(crate) fn new(keys: Vec<TokenKey>, tokens: &HashMap<TokenId, Digest>) -> Self {
        let mut all: HashMap<Digest, Vec<Bound>> = HashMap::new();
        for TokenKey { fingerprint, hypervisor, token, .. } in keys {
            if let Some(token) = tokens.get(&token) {
                all.entry(fingerprint).or_default().push(Bound { hypervisor, token: *token });
            }
        }
        Self(all)
    }

    /// The digest of the token that a certificate stands for at a hypervisor's door.
    fn token_at(&self, fingerprint: &Digest, hypervisor: &HypervisorName) -> Option<&Digest> {
        self.0.get(fingerprint)?.iter().find(|b| b.hypervisor == *hypervisor).map(|b| &b.token)
    }
}

impl Identity {
    /// Who a tool acts as at a hypervisor's door, by the certificate whose key it proved and where it comes from. Memory
    /// only; none for anything that does not count.
    pub fn key_actor(&self, fingerprint: &Digest, at: &HypervisorName, peer: IpAddr) -> Option<Arc<Actor>> {
        self.find_key(fingerprint, at, |known, now| self.use_token(known, now, peer))
    }

    /// Whose token a certificate stands for that would count, but not from there: for the trail.
    pub fn key_elsewhere(&self, fingerprint: &Digest, at: &HypervisorName, peer: IpAddr) -> Option<Arc<Actor>> {
        self.find_key(fingerprint, at, |known, _| (!known.counts_from(peer)).then(|| Arc::clone(&known.actor)))
    }

    fn find_key<T>(
        &self,
        fingerprint: &Digest,
        at: &HypervisorName,
        then: impl FnOnce(&Known, OffsetDateTime) -> Option<T>,
    ) -> Option<T> {
        self.find_known(|table| table.token(table.keys.token_at(fingerprint, at)?), then)
    }

    /// Lets a certificate stand for the token that somebody came with, at one hypervisor's door, instead of whatever it
    /// stood for there. [`Error::Invalid`] where the token has as many as it may have, [`Error::NotFound`] where it does
    /// not count any more or was not made for that hypervisor.
    pub async fn bind_key(&self, actor: &Actor, fingerprint: &Digest, at: &HypervisorName) -> Result<(), Error> {
        const TOKEN: Error = Error::NotFound("this token");
        let Via::Token(token) = actor.via else { return Err(TOKEN) };
        if actor.scope.as_ref().is_some_and(|only| only != at) {
            return Err(TOKEN);
        }
        let now = self.0.clock.now();
        let key = TokenKey { fingerprint: *fingerprint, hypervisor: at.clone(), token, bound_at: now };
        match self.0.store.bind_key(&key, MOST_KEYS).await.map_err(Error::store)? {
            Binding::Bound => self.refresh().await,
            Binding::Gone => Err(TOKEN),
            Binding::Full => Err(Error::Invalid(format!(
                "this token stands for {MOST_KEYS} certificates already: make another one for this client"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Bench, peer, text},
        token::{Maker, tests::wish},
    };
    use portcullis_domain::Clock;
    use time::Duration;

    const LAPTOP: Digest = [7; 32];

    #[tokio::test]
    async fn a_certificate_counts_at_its_door_where_and_while_its_token_counts() {
        let b = Bench::new().await;
        let (ada, _) = b.person("ada").await;
        let [lab, other]: [HypervisorName; 2] = ["lab", "other"].map(|n| n.parse().unwrap());
        let end = b.clock.now() + Duration::DAY;
        let mut limited = wish(ada.user, "lxc", None, end);
        limited.networks = vec!["192.0.2.0/24".parse().unwrap()];
        let (id, token) = b.id.mint_token(limited).await.unwrap();
        let [inside, outside]: [IpAddr; 2] = ["192.0.2.7", "198.51.100.1"].map(|ip| ip.parse().unwrap());
        let actor = b.id.token_actor(&text(&token), inside).unwrap();
        assert!(b.id.key_actor(&LAPTOP, &lab, inside).is_none(), "it stands for nothing yet");
        b.id.bind_key(&actor, &LAPTOP, &lab).await.unwrap();
        assert_eq!(b.id.key_actor(&LAPTOP, &lab, inside).unwrap().via, Via::Token(id));
        assert!(b.id.key_actor(&LAPTOP, &other, inside).is_none(), "it was bound at another door");
        assert!(b.id.key_actor(&[8; 32], &lab, inside).is_none(), "another certificate");
        assert!(b.id.key_actor(&LAPTOP, &lab, outside).is_none(), "the token's networks are its own");
        assert_eq!(b.id.key_elsewhere(&LAPTOP, &lab, outside).unwrap().user, ada.user);
        assert!(b.id.key_elsewhere(&LAPTOP, &lab, inside).is_none());
        // Another node learns of it with the epoch, and of the token's end as well.
        assert!(b.other.key_actor(&LAPTOP, &lab, inside).is_none());
        b.other.refresh().await.unwrap();
        assert!(b.other.key_actor(&LAPTOP, &lab, inside).is_some());
        b.clock.advance(Duration::minutes(1));
        assert!(b.id.key_actor(&LAPTOP, &lab, inside).is_none(), "nothing was heard of the store for a minute");
        b.id.refresh().await.unwrap();
        assert!(b.id.key_actor(&LAPTOP, &lab, inside).is_some());
        // Whoever renews a token gives up what stood for the old one.
        let (renewed, text_of_new) = b.id.renew_token(ada.user, id, Maker::Owner).await.unwrap();
        assert!(b.id.key_actor(&LAPTOP, &lab, inside).is_none());
        let actor = b.id.token_actor(&text(&text_of_new), inside).unwrap();
        b.id.bind_key(&actor, &LAPTOP, &lab).await.unwrap();
        b.id.revoke_token(ada.user, renewed).await.unwrap();
        assert!(b.id.key_actor(&LAPTOP, &lab, inside).is_none(), "revoked");
        assert!(matches!(b.id.bind_key(&actor, &LAPTOP, &lab).await, Err(Error::NotFound(_))), "nor again");
    }

    #[tokio::test]
    async fn a_token_has_few_certificates_and_each_ends_with_its_owner_or_its_time() {
        let b = Bench::new().await;
        let (ada, _) = b.person("ada").await;
        let [lab, other]: [HypervisorName; 2] = ["lab", "other"].map(|n| n.parse().unwrap());
        let end = b.clock.now() + Duration::DAY;
        let (_, token) = b.id.mint_token(wish(ada.user, "lxc", Some(lab.clone()), end)).await.unwrap();
        let actor = b.id.token_actor(&text(&token), peer()).unwrap();
        assert!(b.id.bind_key(&actor, &LAPTOP, &other).await.is_err(), "the token does not reach that one");
        for n in 0..5 {
            b.id.bind_key(&actor, &[n; 32], &lab).await.unwrap();
        }
        let full = b.id.bind_key(&actor, &LAPTOP, &lab).await;
        assert!(matches!(&full, Err(Error::Invalid(why)) if why.contains('5')), "{full:?}");
        assert!(b.id.key_actor(&LAPTOP, &lab, peer()).is_none());
        b.id.bind_key(&actor, &[0; 32], &lab).await.unwrap();
        // Whoever came in another way has no token that a certificate could stand for.
        let shell = Actor { via: Via::CommandLine, ..Actor::clone(&actor) };
        assert!(matches!(b.id.bind_key(&shell, &LAPTOP, &lab).await, Err(Error::NotFound(_))));
        b.clock.advance(Duration::DAY);
        b.id.refresh().await.unwrap();
        assert!(b.id.key_actor(&[0; 32], &lab, peer()).is_none(), "the token is over");

        let end = b.clock.now() + Duration::DAY;
        let (_, token) = b.id.mint_token(wish(ada.user, "lxc", None, end)).await.unwrap();
        let actor = b.id.token_actor(&text(&token), peer()).unwrap();
        b.id.bind_key(&actor, &LAPTOP, &lab).await.unwrap();
        b.id.disable_user(ada.user).await.unwrap();
        assert!(b.id.key_actor(&LAPTOP, &lab, peer()).is_none(), "its owner is disabled");
    }
}
