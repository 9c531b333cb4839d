// SPDX-License-Identifier: Apache-2.0
//! Emergency locks: what is locked stops within seconds, whatever anybody was granted, until the lock ends by itself.
//!
//! Decisions read a table in memory. It is read from the store each second and at once after a change here; when it
//! could not be read for a while nothing is let through, because it might hold a lock that is not known.

use crate::grant::{By, Error};
use arc_swap::ArcSwapOption;
use portcullis_domain::{Clock, LockId, MachineRef, Resource, Via};
use portcullis_store::{Lock, LockOf, Store};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The longest time for which something is locked.
pub const LONGEST_LOCK: Duration = Duration::days(30);
/// The longest reason, in characters.
const REASON: usize = 128;

/// The locks of machines, hypervisors and tokens. A cheap handle; clones share the table.
#[derive(Clone)]
pub struct Locks {
    store: Store,
    clock: Arc<dyn Clock>,
    /// None: it is not known what is locked.
    table: Arc<ArcSwapOption<Vec<Lock>>>,
}

impl Locks {
    /// On a store and a clock. Nothing is let through before the first [`Locks::refresh`].
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, table: Arc::default() }
    }

    /// Reads again what is locked.
    pub async fn refresh(&self) -> Result<(), portcullis_store::Error> {
        let locks = self.store.locks(self.clock.now()).await?;
        self.table.store(Some(Arc::new(locks)));
        Ok(())
    }

    /// It is no longer known what is locked: nothing is let through until it is.
    pub fn lose(&self) {
        self.table.store(None);
    }

    /// Why something may not be done under a credential to a resource, if a lock stands against it. For those who may
    /// know of the resource.
    pub fn against(&self, via: Via, resource: &Resource, now: OffsetDateTime) -> Option<String> {
        let table = self.table.load();
        let Some(locks) = table.as_deref() else {
            return Some(
                "It is not known what is locked, so nothing is let through. Tell an administrator.".to_owned(),
            );
        };
        let lock = locks.iter().find(|l| now < l.until && stands(&l.of, via, resource))?;
        Some(words(lock))
    }

    /// Locks something from now on. The caller holds the permit to lock and closes its event with the words of what comes
    /// back.
    pub async fn add(&self, by: By<'_>, of: LockOf, reason: &str, lasts: Duration) -> Result<Lock, Error> {
        let now = self.clock.now();
        let reason: String = reason.trim().chars().filter(|c| !c.is_control()).take(REASON).collect();
        if reason.is_empty() {
            return Err(Error::NoReason);
        }
        if !(Duration::MINUTE..=LONGEST_LOCK).contains(&lasts) {
            return Err(Error::BadLock);
        }
        let id = LockId::new(Uuid::now_v7());
        let lock = Lock { id, of, reason, from: now, until: now + lasts, by: by.user(), by_name: by.name() };
        self.store.add_lock(&lock).await?;
        self.refresh().await?;
        Ok(lock)
    }

    /// Ends a lock before its time; gives what it was.
    pub async fn end(&self, by: By<'_>, id: LockId) -> Result<Lock, Error> {
        let lock = self.find(id).await?;
        if !self.store.end_lock(id, &by.name(), self.clock.now()).await? {
            return Err(Error::UnknownLock);
        }
        self.refresh().await?;
        Ok(lock)
    }

    /// A lock that counts now.
    pub async fn find(&self, id: LockId) -> Result<Lock, Error> {
        self.list().await?.into_iter().find(|l| l.id == id).ok_or(Error::UnknownLock)
    }

    /// What is locked now, newest first.
    pub async fn list(&self) -> Result<Vec<Lock>, Error> {
        Ok(self.store.locks(self.clock.now()).await?)
    }
}

/// Whether a lock stands against what somebody does. That of a machine stands against every request that names it, also
/// among others; that of a hypervisor against everything on it.
fn stands(of: &LockOf, via: Via, resource: &Resource) -> bool {
    match of {
        LockOf::Token(token) => via == Via::Token(*token),
        LockOf::Hypervisor(name) => resource.hypervisor() == Some(name),
        LockOf::Machine(at) => match resource {
            Resource::Machine(machine) => machine == at,
            Resource::Machines(hypervisor, machines) => {
                let MachineRef { hypervisor: on, machine } = at;
                hypervisor == on && machines.contains(machine)
            }
            Resource::Hypervisor(_) | Resource::Own(_) => false,
        },
    }
}

fn words(lock: &Lock) -> String {
    let what = match &lock.of {
        LockOf::Machine(_) => "This machine",
        LockOf::Hypervisor(_) => "This hypervisor",
        LockOf::Token(_) => "This token",
    };
    let until = lock.until.to_offset(time::UtcOffset::UTC);
    let (date, hour, minute) = (until.date(), until.hour(), until.minute());
    format!("{what} is locked until {date} {hour:02}:{minute:02} UTC by {}: {}", lock.by_name, lock.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ManualClock, OwnObject, SessionId, TokenId};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    struct Scene {
        locks: Locks,
        clock: Arc<ManualClock>,
        store: Store,
        _dir: tempfile::TempDir,
    }

    async fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/p.db", dir.path().display())).await.unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let locks = Locks::new(store.clone(), clock.clone());
        locks.refresh().await.unwrap();
        Scene { locks, clock, store, _dir: dir }
    }

    fn session() -> Via {
        Via::Session(SessionId::new(Uuid::from_u128(1)))
    }

    #[tokio::test]
    async fn a_lock_stands_against_what_it_names_and_nothing_else_until_it_ends() {
        let s = scene().await;
        let token = TokenId::new(Uuid::from_u128(7));
        let machine = |at: &str| Resource::Machine(at.parse().unwrap());
        let both = Resource::Machines("lab".parse().unwrap(), vec!["b".parse().unwrap(), "a".parse().unwrap()]);
        let (lab, own) = (Resource::Hypervisor("lab".parse().unwrap()), Resource::Own(OwnObject::Policy));
        let stops = |via, resource: &Resource| s.locks.against(via, resource, s.clock.now()).is_some();
        let add = async |of| s.locks.add(By::Shell, of, "stolen", Duration::HOUR).await.unwrap();

        let lock = add(LockOf::Machine("lab/a".parse().unwrap())).await;
        assert!(stops(session(), &machine("lab/a")) && stops(session(), &both));
        assert!(!stops(session(), &machine("lab/b")) && !stops(session(), &machine("other/a")));
        assert!(!stops(session(), &lab) && !stops(session(), &own));
        let words = s.locks.against(session(), &machine("lab/a"), NOW).unwrap();
        assert_eq!(words, "This machine is locked until 2026-11-28 13:00 UTC by a shell on the gateway: stolen");
        s.locks.end(By::Shell, lock.id).await.unwrap();
        assert!(!stops(session(), &machine("lab/a")));
        assert!(matches!(s.locks.end(By::Shell, lock.id).await, Err(Error::UnknownLock)));

        add(LockOf::Hypervisor("lab".parse().unwrap())).await;
        assert!(stops(session(), &machine("lab/b")) && stops(session(), &lab) && stops(session(), &both));
        assert!(!stops(session(), &own) && !stops(session(), &machine("other/a")));

        add(LockOf::Token(token)).await;
        assert!(stops(Via::Token(token), &machine("other/a")) && stops(Via::Token(token), &own));
        assert!(!stops(session(), &own));
        // It ends by itself, without being read again.
        s.clock.advance(Duration::HOUR);
        assert!(!stops(Via::Token(token), &machine("lab/a")));
    }

    // SEC-010
    #[tokio::test]
    async fn what_is_not_known_to_be_open_is_locked() {
        let s = scene().await;
        let at = Resource::Machine("lab/a".parse().unwrap());
        assert!(s.locks.against(session(), &at, NOW).is_none());
        s.locks.lose();
        assert!(s.locks.against(session(), &at, NOW).is_some());
        let fresh = Locks::new(s.store.clone(), s.clock.clone());
        assert!(fresh.against(session(), &at, NOW).is_some(), "before the first look");
        s.locks.refresh().await.unwrap();
        assert!(s.locks.against(session(), &at, NOW).is_none());
    }

    #[tokio::test]
    async fn a_lock_has_a_reason_and_an_end() {
        let s = scene().await;
        let of = || LockOf::Hypervisor("lab".parse().unwrap());
        for reason in ["", "  ", "\n\t"] {
            let refused = s.locks.add(By::Shell, of(), reason, Duration::HOUR).await;
            assert!(matches!(refused, Err(Error::NoReason)), "{reason:?}");
        }
        for lasts in [Duration::ZERO, -Duration::HOUR, Duration::seconds(59), LONGEST_LOCK + Duration::SECOND] {
            assert!(matches!(s.locks.add(By::Shell, of(), "x", lasts).await, Err(Error::BadLock)), "{lasts}");
        }
        assert!(s.locks.list().await.unwrap().is_empty());
    }
}
