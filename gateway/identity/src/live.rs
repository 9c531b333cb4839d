// SPDX-License-Identifier: Apache-2.0
//! Signed-in sessions in memory, so that a request does not ask the store who it comes from.
//!
//! An entry is found by SHA-256 of the cookie's id and counts only as long as nothing that could end it can have
//! happened: at the epoch and the number of our own moves at which its row was read, while this node hears from the
//! store, before the session's own end, and until its use has to be written down again. Anything else asks the store.

use crate::Stage;
use portcullis_store::Digest;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

/// Parts that are locked apart: readers of one do not meet those of another.
const PARTS: usize = 16;
/// Most sessions in a part; beyond it those that no longer count are left out, or all.
const MOST: usize = 8_192;
/// A node that has not heard from the store for so long asks it: something may have ended meanwhile.
const HEARD: Duration = Duration::seconds(3);

/// What was read of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// How far it has come: signed in.
    pub(crate) stage: Stage,
    /// The banner that was confirmed in it.
    pub(crate) banner: Option<String>,
    /// First instant at which a use has to be written down again.
    pub(crate) touch_at: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub(crate) expires_at: OffsetDateTime,
}

/// What the store was like when a row was read. Taken before the row: what happens meanwhile makes the entry worthless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Then {
    epoch: u64,
    moves: u64,
}

/// A digest, whose own bits are as good as any hash of it.
#[derive(PartialEq, Eq)]
struct Key(Digest);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(bits) = self.0.first_chunk() {
            state.write_u64(u64::from_le_bytes(*bits));
        }
    }
}

#[derive(Default)]
struct Bits(u64);

impl Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for completeness: a key writes one number.
        self.0 = bytes.iter().fold(self.0, |bits, byte| bits.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}

type Part = HashMap<Key, (Then, Arc<Live>), BuildHasherDefault<Bits>>;

/// The sessions that this node has seen of late.
pub(crate) struct Sessions {
    parts: [RwLock<Part>; PARTS],
    epoch: watch::Receiver<u64>,
    /// When the store last told its epoch, in seconds since 1970.
    heard_at: AtomicI64,
}

impl Sessions {
    pub(crate) fn new(epoch: watch::Receiver<u64>) -> Self {
        Self { parts: Default::default(), epoch, heard_at: AtomicI64::new(i64::MIN) }
    }

    /// What the store is like now, by what this node knows.
    pub(crate) fn now(&self, moves: u64) -> Then {
        Then { epoch: *self.epoch.borrow(), moves }
    }

    /// The store told its epoch at an instant.
    pub(crate) fn heard(&self, at: OffsetDateTime) {
        self.heard_at.store(at.unix_timestamp(), Ordering::Relaxed);
    }

    /// The store did not answer.
    pub(crate) fn unheard(&self) {
        self.heard_at.store(i64::MIN, Ordering::Relaxed);
    }

    fn part(&self, key: &Digest) -> Option<&RwLock<Part>> {
        let [.., last] = key;
        self.parts.get(usize::from(*last) % PARTS)
    }

    /// A session that counts, if that is known without the store.
    pub(crate) fn find(&self, key: Digest, moves: u64, now: OffsetDateTime) -> Option<Arc<Live>> {
        let silence = now.unix_timestamp().saturating_sub(self.heard_at.load(Ordering::Relaxed));
        if !(0..=HEARD.whole_seconds()).contains(&silence) {
            return None;
        }
        let known = self.now(moves);
        let part = self.part(&key)?.read().unwrap_or_else(PoisonError::into_inner);
        let (_, live) = part.get(&Key(key)).filter(|(then, _)| *then == known)?;
        (now < live.touch_at && now < live.expires_at).then(|| Arc::clone(live))
    }

    /// Keeps what was read of a session.
    pub(crate) fn keep(&self, key: Digest, then: Then, live: Live) {
        let Some(part) = self.part(&key) else { return };
        let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= MOST && !part.contains_key(&Key(key)) {
            part.retain(|_, (at, _)| *at == then);
            if part.len() >= MOST {
                part.clear();
            }
        }
        part.insert(Key(key), (then, Arc::new(live)));
    }

    /// Forgets a session: what it is now has to be read.
    pub(crate) fn forget(&self, key: &Digest) {
        if let Some(part) = self.part(key) {
            part.write().unwrap_or_else(PoisonError::into_inner).remove(&Key(*key));
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        for part in &self.parts {
            part.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// How many there are, those that no longer count among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests;
