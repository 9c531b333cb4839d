// SPDX-License-Identifier: Apache-2.0
//! A grant as people say it: who, may, on, until, with. One sentence may name several things; it becomes one grant for
//! each of them, all at once or none.

use crate::{
    grant::{By, Error, Grants, LONGEST_HOURS, in_turn, lost},
    guard::Hands,
};
use portcullis_domain::{Conditions, Grant, GrantEffect, GrantId, GrantSource, Holder, RoleName, Selector};
use portcullis_policy::Engine;
use portcullis_store::Group;
use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Most things that one sentence may name.
pub const MOST_THINGS: usize = 200;

/// What somebody wants to give or forbid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// To whom.
    pub holder: Holder,
    /// Whether it gives or forbids.
    pub effect: GrantEffect,
    /// Which role.
    pub role: RoleName,
    /// On what: one grant each.
    pub on: Vec<Selector>,
    /// First instant at which it no longer counts; none means until revoked.
    pub until: Option<OffsetDateTime>,
    /// What must hold while it is used.
    pub conditions: Conditions,
}

impl Sentence {
    /// The grants that it would become.
    pub fn grants(&self, now: OffsetDateTime) -> Vec<Grant> {
        let mut seen = BTreeSet::new();
        let things = self.on.iter().filter(|s| seen.insert((*s).clone()));
        let grant = |selector: &Selector| Grant {
            id: GrantId::new(Uuid::now_v7()),
            role: self.role.clone(),
            selector: selector.clone(),
            effect: self.effect,
            from: now,
            until: self.until,
            conditions: self.conditions.clone(),
            source: GrantSource::Administrator,
        };
        things.map(grant).collect()
    }
}

impl Grants {
    /// Why a sentence cannot be said by somebody, if it cannot; what a preview shows before anything is saved.
    pub async fn check(&self, engine: &Engine, giver: By<'_>, sentence: &Sentence) -> Result<Vec<Grant>, Error> {
        self.guard.only_files()?;
        let now = self.clock.now();
        if giver.user().is_some() && giver.user() == sentence.holder.person() {
            return Err(Error::ToOneself);
        }
        if !engine.has_role(&sentence.role) {
            return Err(Error::UnknownRole(sentence.role.clone()));
        }
        if sentence.on.is_empty() || sentence.on.len() > MOST_THINGS {
            return Err(Error::BadThings);
        }
        // An hour that was chosen on a page has begun to pass when it is said.
        let (soonest, latest) = (now + Duration::minutes(59), now + Duration::hours(LONGEST_HOURS));
        if sentence.until.is_some_and(|u| u < soonest || u > latest) {
            return Err(Error::BadTime);
        }
        if sentence.conditions.step_up_seconds > 86_400 {
            return Err(Error::BadWindow);
        }
        if sentence.conditions.hours.as_ref().is_some_and(|hours| !portcullis_policy::knows_zone(hours)) {
            return Err(Error::BadZone);
        }
        let grants = sentence.grants(now);
        if !giver.outranks(engine, &grants, now) {
            let words = "That role goes beyond your own rights. Ask a security lead to give it.";
            return Err(Error::Kept(words.to_owned()));
        }
        let members = match sentence.holder {
            Holder::Person(user) => {
                self.store.user(user).await?.filter(|u| u.disabled_at.is_none()).ok_or(Error::UnknownPerson)?;
                BTreeSet::from([user])
            }
            Holder::Group(id) => {
                let Group { members, .. } = self.store.group(id).await?.ok_or(Error::UnknownGroup)?;
                if giver.user().is_some_and(|u| members.contains(&u)) {
                    let words = "You are in this group, and nobody gives themselves a role. Ask another security lead.";
                    return Err(Error::Kept(words.to_owned()));
                }
                members
            }
        };
        if sentence.effect == GrantEffect::Allow {
            for user in &members {
                self.apart(engine, *user, &sentence.role).await?;
            }
        } else {
            let before = self.held().await?;
            let mut after = before.clone();
            for (user, held) in &mut after {
                if members.contains(user) {
                    held.extend(grants.iter().cloned());
                }
            }
            if let Some(why) = lost(engine, &before, &after, now) {
                return Err(Error::Kept(why));
            }
        }
        Ok(grants)
    }

    /// Gives or forbids what a sentence says. The caller holds the permit to write `gateway:policy` and closes its event
    /// with the words of the grants that come back.
    pub async fn say(&self, engine: &Engine, giver: By<'_>, sentence: &Sentence) -> Result<Vec<Grant>, Error> {
        in_turn!(self, self.say_once(engine, giver, sentence, Hands::One))
    }

    pub(crate) async fn say_once(
        &self,
        engine: &Engine,
        giver: By<'_>,
        sentence: &Sentence,
        hands: Hands,
    ) -> Result<Vec<Grant>, Error> {
        let grants = self.check(engine, giver, sentence).await?;
        hands.hold(|| self.guard.saying(engine, sentence))?;
        self.store.add_grants(sentence.holder, &grants, giver.user(), self.clock.now()).await?;
        Ok(grants)
    }
}
