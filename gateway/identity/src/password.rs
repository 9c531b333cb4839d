// SPDX-License-Identifier: Apache-2.0
//! Hashing passwords: peppered, then Argon2id (RFC 9106), a bounded number at once.

use crate::{Error, chance};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use aws_lc_rs::hmac;
use portcullis_domain::Secret;
use portcullis_store::Keys;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of memory, passes and lanes: the OWASP baseline.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

pub(crate) struct Passwords {
    pepper: hmac::Key,
    argon: Argon2<'static>,
    /// What the password of somebody who does not exist is compared with.
    dummy: String,
    places: Arc<Semaphore>,
    wait: Duration,
    done: AtomicU64,
}

/// A place among those who may hash now.
pub(crate) struct Place(OwnedSemaphorePermit);

impl Passwords {
    pub(crate) fn new(keys: &Keys, threads: usize, wait: Duration) -> Result<Self, Error> {
        Self::with_cost(keys, threads, wait, COST)
    }

    /// With hashes that cost next to nothing: for tests of what stands around them.
    #[cfg(test)]
    pub(crate) fn quick(keys: &Keys) -> Self {
        Self::with_cost(keys, 4, Duration::from_mins(1), (8, 1, 1)).unwrap()
    }

    fn with_cost(
        keys: &Keys,
        threads: usize,
        wait: Duration,
        (memory, passes, lanes): (u32, u32, u32),
    ) -> Result<Self, Error> {
        let params = Params::new(memory, passes, lanes, None).map_err(|_| Error::Crypto("Argon2 parameters"))?;
        let mut all = Self {
            pepper: hmac::Key::new(hmac::HMAC_SHA256, keys.derive("password pepper").expose()),
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            dummy: String::new(),
            places: Arc::new(Semaphore::new(threads)),
            wait,
            done: AtomicU64::new(0),
        };
        all.dummy = all.hash_now(&Secret::new(chance::bytes::<32>()?.to_vec()))?;
        Ok(all)
    }

    pub(crate) fn hashes_done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for a place, at most two seconds.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        let place = tokio::time::timeout(self.wait, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).map(Place).ok_or(Error::Busy)
    }

    /// Checks a new password under the rules and hashes it; the place is free again when that is done, even if
    /// nobody waits for the answer any more.
    pub(crate) async fn hash(
        self: &Arc<Self>,
        place: Place,
        password: Secret,
        rule: impl FnOnce(&Secret) -> Result<(), Error> + Send + 'static,
    ) -> Result<String, Error> {
        let this = Arc::clone(self);
        // The rules too: judging 100 characters takes longer than a reactor should wait.
        run(place, move || rule(&password).and_then(|()| this.hash_now(&password))).await?
    }

    /// Whether a password is behind one of these hashes. Without any, a hash that nothing is behind is used.
    pub(crate) async fn verify(
        self: &Arc<Self>,
        place: Place,
        password: Secret,
        hashes: Vec<String>,
    ) -> Result<bool, Error> {
        let this = Arc::clone(self);
        run(place, move || {
            let peppered = this.pepper(&password);
            if hashes.is_empty() {
                this.matches(peppered.expose(), &this.dummy);
                return false;
            }
            hashes.iter().any(|hash| this.matches(peppered.expose(), hash))
        })
        .await
    }

    fn pepper(&self, password: &Secret) -> Secret {
        Secret::new(hmac::sign(&self.pepper, password.expose()).as_ref().to_vec())
    }

    fn matches(&self, peppered: &[u8], hash: &str) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        let verified: argon2::password_hash::Result<()> = self.argon.verify_password(peppered, hash);
        verified.is_ok()
    }

    fn hash_now(&self, password: &Secret) -> Result<String, Error> {
        self.done.fetch_add(1, Ordering::Relaxed);
        let salt = chance::bytes::<16>()?;
        let hash = self.argon.hash_password_with_salt(self.pepper(password).expose(), salt.as_slice());
        hash.map(|h| h.to_string()).map_err(|_| Error::Crypto("Argon2"))
    }
}

/// Runs work beside the reactor, with its place held until it is done.
async fn run<T: Send + 'static>(place: Place, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(move || {
        let _place = place.0;
        work()
    })
    .await
    .map_err(|_| Error::Crypto("the thread that hashes ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn passwords(threads: usize, wait: u64) -> Arc<Passwords> {
        Arc::new(Passwords::new(&Keys::for_tests(), threads, Duration::from_millis(wait)).unwrap())
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_of_the_stated_cost_and_opens_under_the_same_pepper_only() {
        let ours = passwords(1, 2_000);
        let hash = ours.hash(ours.place().await.unwrap(), password("one"), |_| Ok(())).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check = async |who: &Arc<Passwords>, text: &str, hashes: Vec<String>| {
            who.verify(who.place().await.unwrap(), password(text), hashes).await.unwrap()
        };
        assert!(check(&ours, "one", vec![hash.clone()]).await);
        assert!(!check(&ours, "two", vec![hash.clone()]).await);
        assert!(!check(&passwords(1, 2_000), "one", vec![hash.clone()]).await, "another installation's pepper");
        assert!(!check(&ours, "one", vec!["$argon2id$broken".into()]).await);
        assert_ne!(ours.hash(ours.place().await.unwrap(), password("one"), |_| Ok(())).await.unwrap(), hash, "salted");
    }

    #[tokio::test]
    async fn somebody_unknown_costs_one_hash_like_somebody_known() {
        let ours = passwords(1, 2_000);
        let hash = ours.hash(ours.place().await.unwrap(), password("one"), |_| Ok(())).await.unwrap();
        for hashes in [vec![], vec![hash]] {
            let before = ours.hashes_done();
            ours.verify(ours.place().await.unwrap(), password("two"), hashes).await.unwrap();
            assert_eq!(ours.hashes_done(), before + 1);
        }
    }

    #[tokio::test]
    async fn who_finds_no_place_in_time_is_told_to_come_back() {
        let ours = passwords(2, 30);
        let held = [ours.place().await.unwrap(), ours.place().await.unwrap()];
        assert!(matches!(ours.place().await, Err(Error::Busy)));
        drop(held);
        assert!(ours.place().await.is_ok());
    }
}
