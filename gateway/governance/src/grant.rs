// SPDX-License-Identifier: Apache-2.0
//! Giving and taking roles.

use portcullis_domain::{
    Action, Actor, Clock, Conditions, Grant, GrantId, GrantSource, OwnObject, RoleName, Selector, UserId,
};
use portcullis_policy::{Engine, Kind};
use portcullis_store::{Holding, Store};
use std::{collections::BTreeSet, sync::Arc};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Longest grant that has an end, in hours: ten years.
const LONGEST_HOURS: i64 = 24 * 3653;

/// Why a grant was not given or taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody gives themselves anything.
    #[error("Nobody gives themselves a role. Ask another security lead.")]
    ToOneself,
    /// There is no such role.
    #[error("There is no role called {0}. The roles are listed on the page of roles.")]
    UnknownRole(RoleName),
    /// There is no such person, or the account is disabled.
    #[error("There is no such person, or the account is disabled.")]
    UnknownPerson,
    /// The time makes no sense.
    #[error("A grant lasts from one hour to ten years, or until it is revoked.")]
    BadTime,
    /// A step-up window out of range.
    #[error("A code may be at most a day old where one is asked for.")]
    BadWindow,
    /// There is no such grant, or it was revoked.
    #[error("There is no such grant, or it was revoked before.")]
    UnknownGrant,
    /// The last person who can run the gateway keeps what that takes.
    #[error("{0}")]
    Kept(String),
    /// The store could not do it.
    #[error("the store could not answer")]
    Store(#[from] portcullis_store::Error),
}

/// A grant that somebody wants to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// To whom.
    pub user: UserId,
    /// Which role.
    pub role: RoleName,
    /// On what.
    pub selector: Selector,
    /// For how many hours from now; none means until revoked.
    pub hours: Option<i64>,
    /// What must hold while it is used.
    pub conditions: Conditions,
}

/// Gives and takes roles.
#[derive(Clone)]
pub struct Grants {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Grants {
    /// On a store and a clock.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Gives a role. The caller holds the permit to write `gateway:policy` and closes its event with the words of the
    /// grant that comes back.
    pub async fn give(&self, engine: &Engine, giver: &Actor, new: NewGrant) -> Result<Grant, Error> {
        let now = self.clock.now();
        if new.user == giver.user {
            return Err(Error::ToOneself);
        }
        if !engine.has_role(&new.role) {
            return Err(Error::UnknownRole(new.role));
        }
        if new.hours.is_some_and(|h| !(1..=LONGEST_HOURS).contains(&h)) {
            return Err(Error::BadTime);
        }
        if new.conditions.step_up_seconds > 86_400 {
            return Err(Error::BadWindow);
        }
        self.store.user(new.user).await?.filter(|u| u.disabled_at.is_none()).ok_or(Error::UnknownPerson)?;
        let grant = Grant {
            id: GrantId::new(Uuid::now_v7()),
            role: new.role,
            selector: new.selector,
            from: now,
            until: new.hours.map(|h| now + Duration::hours(h)),
            conditions: new.conditions,
            source: GrantSource::Administrator,
        };
        self.store.add_grant(new.user, &grant, Some(giver.user), now).await?;
        Ok(grant)
    }

    /// Takes a grant back; gives what it was. What it opened is cut within seconds.
    pub async fn revoke(&self, engine: &Engine, taker: &Actor, id: GrantId) -> Result<Holding, Error> {
        let now = self.clock.now();
        let all = self.all().await?;
        let held = all.iter().find(|h| h.grant.id == id).ok_or(Error::UnknownGrant)?;
        let without: Vec<_> = all.iter().filter(|h| h.grant.id != id).cloned().collect();
        if let Some(why) = lost(engine, &all, &without, now) {
            return Err(Error::Kept(why));
        }
        if !self.store.revoke_grant(id, Some(taker.user), now).await? {
            return Err(Error::UnknownGrant);
        }
        Ok(held.clone())
    }

    /// Every grant that was not revoked, of people who can sign in.
    pub async fn all(&self) -> Result<Vec<Holding>, Error> {
        let disabled: BTreeSet<_> =
            self.store.users().await?.into_iter().filter(|u| u.disabled_at.is_some()).map(|u| u.id).collect();
        Ok(self.store.grants().await?.into_iter().filter(|h| !disabled.contains(&h.user)).collect())
    }

    /// Why a person's account cannot be disabled or reset, if it cannot: they are the last who can run the gateway.
    pub async fn keeps(&self, engine: &Engine, user: UserId) -> Result<Option<String>, Error> {
        let all = self.all().await?;
        let without: Vec<_> = all.iter().filter(|h| h.user != user).cloned().collect();
        Ok(lost(engine, &all, &without, self.clock.now()))
    }
}

/// What nobody could do any more, if `before` became `after`.
fn lost(engine: &Engine, before: &[Holding], after: &[Holding], now: OffsetDateTime) -> Option<String> {
    let rights = [
        (OwnObject::Users, "manage people"),
        (OwnObject::Policy, "give roles"),
    ];
    rights.into_iter().find_map(|(object, words)| {
        let could = |set: &[Holding]| set.iter().any(|h| opens(engine, h, object, now));
        (could(before) && !could(after))
            .then(|| format!("This is the last one who can {words}. Give somebody else the role first."))
    })
}

/// Whether a grant lets its holder write one of the gateway's own things, without an end in sight.
fn opens(engine: &Engine, held: &Holding, object: OwnObject, now: OffsetDateTime) -> bool {
    let grant = &held.grant;
    grant.selector == Selector::Everything
        && grant.is_active(now)
        && grant.until.is_none()
        && engine.role_allows(&grant.role, Kind::Own(object), Action::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{Assurance, Factor, ManualClock, Via};
    use portcullis_store::NewUser;
    use time::macros::datetime;

    struct Scene {
        grants: Grants,
        engine: Engine,
        store: Store,
        clock: Arc<ManualClock>,
        _dir: tempfile::TempDir,
    }

    async fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/p.db", dir.path().display())).await.unwrap();
        let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
        let grants = Grants::new(store.clone(), clock.clone());
        Scene { grants, engine: Engine::builtin().await.unwrap(), store, clock, _dir: dir }
    }

    impl Scene {
        async fn person(&self, name: &str) -> UserId {
            let id = UserId::new(Uuid::now_v7());
            let new = NewUser { id, name: name.into(), name_key: name.into(), display_name: name.into() };
            self.store.create_user(&new, self.clock.now()).await.unwrap();
            id
        }

        fn actor(&self, user: UserId) -> Actor {
            let mut assurance = Assurance::default();
            assurance.prove(Factor::Passkey, self.clock.now());
            let via = Via::CommandLine;
            Actor { user, name: "x".into(), via, grants: Arc::new([]), assurance, scope: None }
        }

        async fn give(&self, giver: UserId, user: UserId, role: &str) -> Result<Grant, Error> {
            let selector = Selector::Everything;
            let conditions = Conditions::default();
            let new = NewGrant { user, role: role.parse().unwrap(), selector, hours: None, conditions };
            self.grants.give(&self.engine, &self.actor(giver), new).await
        }
    }

    #[tokio::test]
    async fn nobody_gives_themselves_a_role() {
        let s = scene().await;
        let (ada, bob) = (s.person("ada").await, s.person("bob").await);
        assert!(matches!(s.give(ada, ada, "viewer").await, Err(Error::ToOneself)));
        assert!(s.give(ada, bob, "viewer").await.is_ok());
        assert!(matches!(s.give(ada, bob, "emperor").await, Err(Error::UnknownRole(_))));
        let nobody = UserId::new(Uuid::now_v7());
        assert!(matches!(s.give(ada, nobody, "viewer").await, Err(Error::UnknownPerson)));
    }

    #[tokio::test]
    async fn a_grant_has_a_time_that_makes_sense() {
        let s = scene().await;
        let (ada, bob) = (s.person("ada").await, s.person("bob").await);
        for hours in [0, -1, LONGEST_HOURS + 1] {
            let new = NewGrant {
                user: bob,
                role: "viewer".parse().unwrap(),
                selector: Selector::Everything,
                hours: Some(hours),
                conditions: Conditions::default(),
            };
            assert!(matches!(s.grants.give(&s.engine, &s.actor(ada), new).await, Err(Error::BadTime)), "{hours}");
        }
    }

    #[tokio::test]
    async fn the_last_who_can_run_the_gateway_keeps_what_that_takes() {
        let s = scene().await;
        let (ada, bob) = (s.person("ada").await, s.person("bob").await);
        let lead = s.give(bob, ada, "security-lead").await.unwrap();
        assert!(matches!(s.grants.revoke(&s.engine, &s.actor(bob), lead.id).await, Err(Error::Kept(_))));
        assert!(s.grants.keeps(&s.engine, ada).await.unwrap().is_some());
        assert_eq!(s.grants.keeps(&s.engine, bob).await.unwrap(), None);
        // A second one who could, but whose account is disabled, does not count.
        s.give(ada, bob, "security-lead").await.unwrap();
        s.store.set_disabled(bob, Some(s.clock.now())).await.unwrap();
        assert!(matches!(s.grants.revoke(&s.engine, &s.actor(bob), lead.id).await, Err(Error::Kept(_))));
        s.store.set_disabled(bob, None).await.unwrap();
        assert!(s.grants.revoke(&s.engine, &s.actor(bob), lead.id).await.is_ok());
        assert!(matches!(s.grants.revoke(&s.engine, &s.actor(bob), lead.id).await, Err(Error::UnknownGrant)));
    }
}
