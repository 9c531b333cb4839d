// SPDX-License-Identifier: Apache-2.0
//! Hashing passwords: peppered, then Argon2id (RFC 9106), a bounded number at once.

use crate::{Error, chance};
use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use aws_lc_rs::hmac;
use portcullis_domain::Secret;
use portcullis_store::Keys;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
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
    /// Who is let in: those who hash, and as many who have their try counted meanwhile, so that no thread waits for a
    /// commit with nothing to hash.
    places: Arc<Semaphore>,
    /// Who hashes.
    turns: Arc<Semaphore>,
    threads: usize,
    wait: Duration,
    done: AtomicU64,
    /// Memory to hash in, kept while others come: 19 MiB of fresh pages cost as much as the hash where memory is in
    /// pieces. What is left in it is worth nothing without the pepper, which is in memory too.
    spare: Mutex<Vec<Vec<Block>>>,
}

/// A place among those who hash now or next.
pub(crate) struct Place {
    place: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

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
            places: Arc::new(Semaphore::new(2 * threads)),
            turns: Arc::new(Semaphore::new(threads)),
            threads,
            wait,
            done: AtomicU64::new(0),
            spare: Mutex::default(),
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
        let place = place.ok().and_then(Result::ok).ok_or(Error::Busy)?;
        Ok(Place { place, turns: Arc::clone(&self.turns) })
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
        let Ok(kept) = PasswordHash::new(hash) else { return false };
        let (Some(salt), Some(output), Some(version)) = (kept.salt, kept.hash, kept.version) else { return false };
        let (algorithm, version) = (Algorithm::try_from(kept.algorithm.as_str()), Version::try_from(version));
        let (Ok(algorithm), Ok(version), Ok(params)) = (algorithm, version, Params::try_from(&kept)) else {
            return false;
        };
        // Outputs compare in constant time.
        self.digest(&Argon2::new(algorithm, version, params), peppered, &salt).is_some_and(|made| made == output)
    }

    fn hash_now(&self, password: &Secret) -> Result<String, Error> {
        let failed = || Error::Crypto("Argon2");
        let salt = Salt::new(chance::bytes::<16>()?.as_slice()).map_err(|_| failed())?;
        let output = self.digest(&self.argon, self.pepper(password).expose(), &salt).ok_or_else(failed)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(self.argon.params()).map_err(|_| failed())?,
            salt: Some(salt),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    /// One hash, in memory that was used before if there is some.
    fn digest(&self, argon: &Argon2<'_>, peppered: &[u8], salt: &Salt) -> Option<Output> {
        self.done.fetch_add(1, Ordering::Relaxed);
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = spare().pop().unwrap_or_default();
        memory.resize(argon.params().block_count(), Block::default());
        let mut out = [0; Output::MAX_LENGTH];
        let length = argon.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let output = out.get_mut(..length).and_then(|out| {
            argon.hash_password_into_with_memory(peppered, salt, out, memory.as_mut_slice()).ok()?;
            Output::new(out).ok()
        });
        let mut spare = spare();
        // Whoever is in last takes the memory along.
        if self.places.available_permits() + 1 < 2 * self.threads {
            spare.push(memory);
        } else {
            spare.clear();
        }
        output
    }
}

/// Runs work beside the reactor when it is its turn, with its place held until it is done.
async fn run<T: Send + 'static>(place: Place, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let reactor = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let Place { place: _place, turns } = place;
        // On its own thread: the next one begins when this one ends, whatever the reactor is busy with.
        let _turn = reactor.block_on(turns.acquire());
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
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(ours.place().await.unwrap());
        }
        assert!(matches!(ours.place().await, Err(Error::Busy)));
        drop(held);
        assert!(ours.place().await.is_ok());
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_hash_at_once_than_there_are_turns() {
        let ours = passwords(2, 10_000);
        let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let (ours, now, most) = (Arc::clone(&ours), Arc::clone(&now), Arc::clone(&most));
            all.spawn(async move {
                let place = ours.place().await.unwrap();
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    now.fetch_sub(1, Ordering::SeqCst);
                };
                run(place, work).await.unwrap();
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }
}
