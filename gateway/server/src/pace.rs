// SPDX-License-Identifier: Apache-2.0
//! How fast somebody may go: tools by token, sign-ins by network, passwords and passkeys apart, resets by administrator. Each limit is one bucket a
//! subject; whoever runs into it waits, and leaves one event a minute and not one a request: a flood must not fill the
//! trail that is to tell of it.

use crate::{
    config::{Adding, Limits},
    layers::Peer,
    passage,
    reply::Refusal,
    state::{House, prefix},
};
use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock as _};
use portcullis_domain::{Actor, Event, HypervisorName, Outcome, Phase, Subject, TokenId, UserId, Via, micros};
use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};
use time::{Duration, OffsetDateTime};

/// How often a subject that goes on leaves an event.
const TOLD: Duration = Duration::MINUTE;

/// How long a tool waits for its turn where waiting is better than a refusal.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// One limit, for each of its subjects.
struct Pace<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    /// Who was turned away, and when that was last an event.
    told: Mutex<HashMap<K, OffsetDateTime>>,
}

/// Somebody goes too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TooFast {
    /// Seconds to wait.
    after: u32,
    /// Whether it is time for an event.
    tell: Tell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    Yes,
    No,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    fn new(quota: Quota) -> Self {
        Self { limiter: DefaultKeyedRateLimiter::keyed(quota), told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<K, OffsetDateTime>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long somebody has to wait; none when it is their turn, which is taken with it.
    fn wait(&self, key: &K) -> Option<std::time::Duration> {
        let until = self.limiter.check_key(key).err()?;
        Some(until.wait_time_from(self.limiter.clock().now()))
    }

    fn check(&self, key: &K, now: OffsetDateTime) -> Result<(), TooFast> {
        let Err(until) = self.limiter.check_key(key) else { return Ok(()) };
        let wait = until.wait_time_from(self.limiter.clock().now());
        let after = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let mut told = self.told();
        let tell = match told.get(key) {
            Some(at) if now - *at < TOLD => Tell::No,
            _ => Tell::Yes,
        };
        if tell == Tell::Yes {
            told.insert(key.clone(), now);
        }
        Err(TooFast { after, tell })
    }

    fn tidy(&self, now: OffsetDateTime) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.told().retain(|_, at| now - *at < TOLD);
    }
}

/// All of them.
pub(crate) struct Paces {
    tokens: Pace<TokenId>,
    sign_ins: Pace<IpAddr>,
    passkeys: Pace<IpAddr>,
    resets: Pace<UserId>,
    directory: Pace<TokenId>,
    adding: Pace<UserId>,
}

impl Paces {
    pub(crate) fn new(limits: &Limits, adding: Adding) -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let tokens = Quota::per_second(some(limits.token_per_second)).allow_burst(some(limits.token_burst));
        Self {
            tokens: Pace::new(tokens),
            sign_ins: Pace::new(Quota::per_minute(some(limits.sign_in_per_minute))),
            passkeys: Pace::new(Quota::per_minute(some(limits.passkey_per_minute))),
            resets: Pace::new(Quota::per_hour(some(limits.reset_per_hour))),
            directory: Pace::new(Quota::per_second(some(limits.directory_per_second))),
            adding: Pace::new(Quota::per_minute(some(adding.per_minute))),
        }
    }

    /// Forgets who has been quiet.
    pub(crate) fn tidy(&self, now: OffsetDateTime) {
        self.tokens.tidy(now);
        self.sign_ins.tidy(now);
        self.passkeys.tidy(now);
        self.resets.tidy(now);
        self.directory.tidy(now);
        self.adding.tidy(now);
    }
}

impl House {
    /// A tool may call once more with its token.
    pub(crate) fn pace_call(&self, actor: &Actor, name: &HypervisorName, peer: Peer) -> Result<(), Refusal> {
        let Via::Token(token) = actor.via else { return Ok(()) };
        let Err(fast) = self.paces.tokens.check(&token, peer.at) else { return Ok(()) };
        let reason = format!("more than {} requests a second with one token", self.config.limits.token_per_second);
        let subject = Subject { user: actor.user, name: actor.name.clone(), via: actor.via };
        self.too_fast(fast, "api", name.as_str(), Some(subject), peer, &reason)
    }

    /// A tool may call once more with its token, when its turn comes: for clients that ask for each property by itself,
    /// and take a refusal for the end. After ten seconds of waiting they are refused like others.
    pub(crate) async fn pace_call_patiently(
        &self,
        actor: &Actor,
        name: &HypervisorName,
        peer: Peer,
    ) -> Result<(), Refusal> {
        let Via::Token(token) = actor.via else { return Ok(()) };
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            match self.paces.tokens.wait(&token) {
                None => return Ok(()),
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
        self.pace_call(actor, name, peer)
    }

    /// A directory may call once more with its token: each call is an event, and most are changes.
    pub(crate) fn pace_directory(&self, actor: &Actor, peer: Peer) -> Result<(), Refusal> {
        let Via::Token(token) = actor.via else { return Ok(()) };
        let Err(fast) = self.paces.directory.check(&token, peer.at) else { return Ok(()) };
        let reason = format!("more than {} calls a second of the directory", self.config.limits.directory_per_second);
        let subject = Subject { user: actor.user, name: actor.name.clone(), via: actor.via };
        self.too_fast(fast, "scim", "", Some(subject), peer, &reason)
    }

    /// Somebody of this network may try one more password. What is tried does not matter: each try costs a hash.
    pub(crate) fn pace_sign_in(&self, peer: Peer) -> Result<(), Refusal> {
        let Err(fast) = self.paces.sign_ins.check(&prefix(peer.ip), self.clock.now()) else { return Ok(()) };
        let most = self.config.limits.sign_in_per_minute;
        self.too_fast(fast, "sign-in", "", None, peer, &format!("more than {most} tries a minute from one network"))
    }

    /// Somebody of this network may be asked once more for a passkey: what is asked is kept until it is answered or five
    /// minutes old. Passwords that are tried do not count here, or they would close this way.
    pub(crate) fn pace_passkey(&self, peer: Peer) -> Result<(), Refusal> {
        let Err(fast) = self.paces.passkeys.check(&prefix(peer.ip), self.clock.now()) else { return Ok(()) };
        let most = self.config.limits.passkey_per_minute;
        let reason = format!("a passkey was asked for more than {most} times a minute from one network");
        self.too_fast(fast, "sign-in", "", None, peer, &reason)
    }

    /// An administrator may reset one more person. A try is an event of its own: it has a door of its own.
    pub(crate) fn pace_reset(&self, actor: &Actor) -> Result<(), Refusal> {
        let checked = self.paces.resets.check(&actor.user, self.clock.now());
        checked.map_err(|fast| Refusal::TooMany(fast.after))
    }

    /// Somebody may have one more address dialled. A try is an event of its own: it has a door of its own.
    pub(crate) fn pace_adding(&self, actor: &Actor) -> Result<(), Refusal> {
        let checked = self.paces.adding.check(&actor.user, self.clock.now());
        checked.map_err(|fast| Refusal::TooMany(fast.after))
    }

    fn too_fast(
        &self,
        fast: TooFast,
        kind: &str,
        resource: &str,
        subject: Option<Subject>,
        peer: Peer,
        reason: &str,
    ) -> Result<(), Refusal> {
        if fast.tell == Tell::Yes {
            let event = Event {
                at_us: micros(self.clock.now()),
                request: peer.request,
                phase: Phase::Noted,
                kind: kind.into(),
                subject,
                peer: Some(peer.ip),
                action: None,
                resource: resource.into(),
                outcome: Outcome::Denied,
                reason: format!("{reason}; what follows within a minute is turned away without an event").into(),
                details: vec![],
            };
            self.trail.append(&event).map_err(|e| passage::closed(&e))?;
        }
        Err(Refusal::TooMany(fast.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_minute_and_slows_nobody_else() {
        let pace = Pace::new(Quota::per_hour(NonZeroU32::MIN).allow_burst(NonZeroU32::new(3).unwrap()));
        let now = OffsetDateTime::UNIX_EPOCH;
        let tell = |at| pace.check(&"a", at).map_err(|fast| fast.tell);
        assert_eq!([tell(now), tell(now), tell(now)], [Ok(()); 3]);
        assert_eq!([tell(now), tell(now)], [Err(Tell::Yes), Err(Tell::No)]);
        assert_eq!(tell(now + Duration::seconds(59)), Err(Tell::No));
        assert_eq!(pace.check(&"b", now), Ok(()));
        assert_eq!(tell(now + TOLD), Err(Tell::Yes));
        let after = pace.check(&"a", now).unwrap_err().after;
        assert!((3500..=3601).contains(&after), "{after}");
        pace.tidy(now + TOLD + TOLD);
        assert!(pace.told().is_empty());
    }
}
