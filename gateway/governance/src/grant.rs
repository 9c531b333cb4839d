// SPDX-License-Identifier: Apache-2.0
//! Giving and taking roles, and the rules about other people's accounts.

use crate::{
    duty::Duties,
    guard::{Guard, Hands},
    sentence::Sentence,
};
use portcullis_domain::{
    Action, Actor, Clock, Conditions, Grant, GrantEffect, GrantId, GrantSource, GroupId, Holder, OwnObject, RoleName,
    Selector, UserId,
};
use portcullis_policy::{Engine, Kind};
use portcullis_store::{Holding, Store, User};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use uuid::Uuid;

/// Longest grant that has an end, in hours: ten years.
pub(crate) const LONGEST_HOURS: i64 = 24 * 3653;

/// Why something was not done.
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
    /// There is no such group.
    #[error("There is no such group.")]
    UnknownGroup,
    /// No thing was named, or too many at once.
    #[error("Name one to {} things that the role is for.", crate::sentence::MOST_THINGS)]
    BadThings,
    /// A name that a group cannot have.
    #[error("A group's name is 1 to 64 characters on one line, without a comma, a quote or a slash.")]
    BadName,
    /// Another group has the name.
    #[error("There is a group with this name.")]
    NameTaken,
    /// A set of policy files is wrong; the words say where.
    #[error("{0}")]
    BadPolicy(String),
    /// It is so already.
    #[error("That is so already.")]
    NoChange,
    /// The time makes no sense.
    #[error("A grant lasts from one hour to ten years, or until it is revoked.")]
    BadTime,
    /// A step-up window out of range.
    #[error("A code may be at most a day old where one is asked for.")]
    BadWindow,
    /// Hours in a time zone that this machine does not know would never come.
    #[error("This machine does not know that time zone. Use a name such as Europe/Berlin, or UTC.")]
    BadZone,
    /// There is no such grant, or it was revoked.
    #[error("There is no such grant, or it was revoked before.")]
    UnknownGrant,
    /// What is done in an emergency says why.
    #[error("Say why, in at most 128 characters.")]
    NoReason,
    /// The time of a lock makes no sense.
    #[error("A lock lasts from one minute to 30 days.")]
    BadLock,
    /// There is no such lock, or it is over.
    #[error("There is no such lock, or it is over.")]
    UnknownLock,
    /// There is no such proposal, or it does not wait any more.
    #[error("There is no such change, or it does not wait any more.")]
    UnknownProposal,
    /// The change needs a second person; the words say why. It can be proposed.
    #[error("This needs a second person: {0}")]
    Waits(String),
    /// A change would do something else by now than what whoever approves it has seen.
    #[error("It would do something else by now than when you looked at it. Look at what it would do, then decide.")]
    Changed,
    /// Whoever decides may not decide on this; the words say why.
    #[error("{0}")]
    Forbidden(String),
    /// A rule of this room keeps things as they are: the last who can run the gateway, rights beyond one's own, one's
    /// own account, a grant from a file. The words say which, and what to do.
    #[error("{0}")]
    Kept(String),
    /// The store could not do it.
    #[error("the store could not answer")]
    Store(#[from] portcullis_store::Error),
}

impl Error {
    /// Whether another process made a change first.
    pub(crate) const fn is_overtaken(&self) -> bool {
        matches!(self, Self::Store(portcullis_store::Error::Overtaken))
    }
}

/// Who makes a change.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// A person, who gets no further than their own rights.
    Person(&'a Actor),
    /// Whoever has a shell on the gateway's own machine: they could change the store itself, so only the rules that
    /// keep the gateway in somebody's hands hold for them.
    Shell,
}

impl By<'_> {
    /// The person, where it is one.
    pub(crate) const fn user(self) -> Option<UserId> {
        match self {
            Self::Person(actor) => Some(actor.user),
            Self::Shell => None,
        }
    }

    /// The name under which it stands in a history.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Person(actor) => actor.name.to_string(),
            Self::Shell => "a shell on the gateway".to_owned(),
        }
    }

    /// Whether they may give what these grants give.
    pub(crate) fn outranks(self, engine: &Engine, grants: &[Grant], now: OffsetDateTime) -> bool {
        match self {
            Self::Person(actor) => outranks(engine, actor, grants, now),
            Self::Shell => true,
        }
    }
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

/// How often a change is looked at again that another process overtook.
pub(crate) const TRIES: usize = 8;

/// Does a change of rights that follows from looking at what others hold: one at a time in this process, and looked at
/// again when another process changed something meanwhile.
macro_rules! in_turn {
    ($grants:expr, $change:expr) => {{
        let grants = $grants;
        let _turn = grants.turn.lock().await;
        let mut tries = crate::grant::TRIES;
        loop {
            tries -= 1;
            let turn = grants.store.turn().await?;
            match grants.store.in_turn(turn, $change).await {
                Err(error) if error.is_overtaken() && tries > 0 => {}
                done => break done,
            }
        }
    }};
}
pub(crate) use in_turn;

/// Gives and takes roles. Changes are made one at a time: clones share a lock, and the store orders those of several
/// processes on one database.
#[derive(Clone)]
pub struct Grants {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) turn: Arc<Mutex<()>>,
    duties: Duties,
    pub(crate) guard: Arc<Guard>,
}

impl Grants {
    /// On a store and a clock.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, turn: Arc::default(), duties: Duties::default(), guard: Arc::default() }
    }

    /// The same, where some roles are kept apart.
    #[must_use]
    pub fn keeping_apart(self, duties: Duties) -> Self {
        Self { duties, ..self }
    }

    /// The same, where some changes are made in files only, or take two people.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Arc::new(guard), ..self }
    }

    /// Refuses a role that may not be held beside what a person holds.
    pub(crate) async fn apart(&self, engine: &Engine, user: UserId, role: &RoleName) -> Result<(), Error> {
        let held = self.store.grants_of(user).await?;
        match self.duties.objection(engine, &held, role, self.clock.now()) {
            Some(why) => Err(Error::Kept(why)),
            None => Ok(()),
        }
    }

    /// Why somebody who holds these grants may not be given another one, if so. For what gives grants without asking here.
    pub fn objection(&self, engine: &Engine, held: &[Grant], new: &Grant) -> Option<String> {
        self.duties.objection(engine, held, &new.role, self.clock.now())
    }

    /// Refuses a person in a group whose roles may not be held beside theirs.
    pub async fn may_join(&self, engine: &Engine, user: UserId, group: GroupId) -> Result<(), Error> {
        let now = self.clock.now();
        let mut held = self.store.grants_of(user).await?;
        let all = self.store.grants().await?;
        let of_group = all.iter().filter(|h| h.holder == Holder::Group(group) && h.grant.effect == GrantEffect::Allow);
        for new in of_group {
            if let Some(why) = self.duties.objection(engine, &held, &new.grant.role, now) {
                return Err(Error::Kept(why));
            }
            // What the group gives already is held beside the rest of it.
            held.push(new.grant.clone());
        }
        Ok(())
    }

    /// Gives a role. The caller holds the permit to write `gateway:policy` and closes its event with the words of the
    /// grant that comes back.
    pub async fn give(&self, engine: &Engine, giver: By<'_>, new: NewGrant) -> Result<Grant, Error> {
        if new.hours.is_some_and(|h| !(1..=LONGEST_HOURS).contains(&h)) {
            return Err(Error::BadTime);
        }
        let sentence = Sentence {
            holder: new.user.into(),
            effect: GrantEffect::Allow,
            role: new.role,
            on: vec![new.selector],
            until: new.hours.map(|h| self.clock.now() + Duration::hours(h)),
            conditions: new.conditions,
        };
        self.say(engine, giver, &sentence).await?.pop().ok_or(Error::BadThings)
    }

    /// Writes a grant for somebody who is there, unless it would join what is kept apart.
    async fn add(&self, engine: &Engine, user: UserId, grant: &Grant, by: Option<UserId>) -> Result<(), Error> {
        in_turn!(self, self.add_once(engine, user, grant, by))
    }

    async fn add_once(&self, engine: &Engine, user: UserId, grant: &Grant, by: Option<UserId>) -> Result<(), Error> {
        self.store.user(user).await?.filter(|u| u.disabled_at.is_none()).ok_or(Error::UnknownPerson)?;
        self.apart(engine, user, &grant.role).await?;
        Ok(self.store.add_grant(user, grant, by, self.clock.now()).await?)
    }

    /// Gives a role because of a group of a directory: the configuration says which. Until it is taken back.
    pub async fn give_from_directory(
        &self,
        engine: &Engine,
        user: UserId,
        role: RoleName,
        selector: Selector,
    ) -> Result<Grant, Error> {
        let now = self.clock.now();
        if !engine.has_role(&role) {
            return Err(Error::UnknownRole(role));
        }
        let grant = Grant {
            id: GrantId::new(Uuid::now_v7()),
            role,
            selector,
            from: now,
            until: None,
            conditions: Conditions::default(),
            source: GrantSource::IdentityProvider,
            effect: GrantEffect::Allow,
        };
        self.add(engine, user, &grant, None).await?;
        Ok(grant)
    }

    /// Takes a grant back; gives what it was. What it opened is cut within seconds. The caller holds the permit to
    /// write `gateway:policy`.
    pub async fn revoke(&self, engine: &Engine, taker: By<'_>, id: GrantId) -> Result<Holding, Error> {
        in_turn!(self, self.take(engine, taker, id, Hands::One))
    }

    pub(crate) async fn take(
        &self,
        engine: &Engine,
        taker: By<'_>,
        id: GrantId,
        hands: Hands,
    ) -> Result<Holding, Error> {
        let held = self.may_take(engine, taker, id).await?;
        hands.hold(|| self.guard.revoking(engine, &held.grant))?;
        if !self.store.revoke_grant(id, taker.user(), self.clock.now()).await? {
            return Err(Error::UnknownGrant);
        }
        Ok(held)
    }

    /// The grant that somebody may take back, or why they may not.
    pub(crate) async fn may_take(&self, engine: &Engine, taker: By<'_>, id: GrantId) -> Result<Holding, Error> {
        let now = self.clock.now();
        let all = self.store.grants().await?;
        let held = all.iter().find(|h| h.grant.id == id).cloned().ok_or(Error::UnknownGrant)?;
        if matches!(held.grant.source, GrantSource::Administrator | GrantSource::Setup) {
            self.guard.only_files()?;
        }
        if held.grant.source == GrantSource::PolicyFile {
            return Err(Error::Kept("This grant comes from a policy file: change the file.".to_owned()));
        }
        if held.grant.source == GrantSource::IdentityProvider && taker.user().is_some() {
            let why = "This grant follows from a group at the identity provider and would come back: take the person \
                       out of the group there, or disable the account.";
            return Err(Error::Kept(why.to_owned()));
        }
        if !taker.outranks(engine, std::slice::from_ref(&held.grant), now) {
            return Err(Error::Kept(
                "That role goes beyond your own rights. Ask a security lead to take it.".to_owned(),
            ));
        }
        if held.grant.effect == GrantEffect::Deny && self.concerns(taker, held.holder).await? {
            let why = "This forbids something to yourself: somebody else must take it back.";
            return Err(Error::Kept(why.to_owned()));
        }
        let before = self.held().await?;
        let mut after = before.clone();
        for all in after.values_mut() {
            all.retain(|g| g.id != id);
        }
        if let Some(why) = lost(engine, &before, &after, now) {
            return Err(Error::Kept(why));
        }
        Ok(held)
    }

    /// Every grant that was not revoked, of people whose account is not disabled.
    pub async fn all(&self) -> Result<Vec<Holding>, Error> {
        let disabled: BTreeSet<_> =
            self.store.users().await?.into_iter().filter(|u| u.disabled_at.is_some()).map(|u| u.id).collect();
        Ok(self
            .store
            .grants()
            .await?
            .into_iter()
            .filter(|h| h.holder.person().is_none_or(|u| !disabled.contains(&u)))
            .collect())
    }

    /// Why a person's account cannot be disabled or reset by anybody: they are the last who can run the gateway.
    pub async fn keeps(&self, engine: &Engine, user: UserId) -> Result<Option<String>, Error> {
        let before = self.held().await?;
        let mut after = before.clone();
        after.remove(&user);
        Ok(lost(engine, &before, &after, self.clock.now()))
    }

    /// Why one person cannot disable, enable, reset or invite another, if they cannot: it is their own account, the
    /// last one that can run the gateway, or one with rights beyond theirs. For what a page offers; to do it, use
    /// [`Grants::change_account`].
    pub async fn objects(&self, engine: &Engine, by: By<'_>, user: UserId) -> Result<Option<String>, Error> {
        if by.user() == Some(user) {
            return Ok(Some("This is your own account: someone else must do it.".to_owned()));
        }
        if let Some(why) = self.keeps(engine, user).await? {
            return Ok(Some(why));
        }
        let theirs = self.store.grants_of(user).await?;
        let allowed = by.outranks(engine, &theirs, self.clock.now());
        Ok((!allowed).then(|| "This person has rights beyond your own. Ask a security lead to do it.".to_owned()))
    }

    /// Does something to another person's account (disable, enable, reset, invite) unless [`Grants::objects`] does. No
    /// other change is made between the question and the deed.
    pub async fn change_account<T>(
        &self,
        engine: &Engine,
        by: By<'_>,
        user: UserId,
        change: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let _turn = self.turn.lock().await;
        let turn = self.store.turn().await?;
        match self.objects(engine, by, user).await? {
            Some(why) => Err(Error::Kept(why)),
            None => Ok(Box::pin(self.store.in_turn(turn, change)).await),
        }
    }

    /// The grants of everybody who can sign in: neither disabled nor locked nor yet to choose a password.
    pub(crate) async fn held(&self) -> Result<BTreeMap<UserId, Vec<Grant>>, Error> {
        let people = self.open_people().await?;
        let all = self.store.grants_by_person().await?;
        Ok(all.into_iter().filter(|(user, _)| people.contains(user)).collect())
    }

    /// Everybody who can sign in.
    pub(crate) async fn open_people(&self) -> Result<BTreeSet<UserId>, Error> {
        let can = |u: &User| u.is_open() && u.password_hash.is_some();
        Ok(self.store.users().await?.iter().filter(|u| can(u)).map(|u| u.id).collect())
    }

    /// What is kept apart.
    pub(crate) const fn duties(&self) -> &Duties {
        &self.duties
    }

    /// Whether whoever makes a change is the holder, or in the group that is.
    pub(crate) async fn concerns(&self, by: By<'_>, holder: Holder) -> Result<bool, Error> {
        let Some(me) = by.user() else { return Ok(false) };
        Ok(match holder {
            Holder::Person(user) => user == me,
            Holder::Group(id) => self.store.group(id).await?.is_some_and(|g| g.members.contains(&me)),
        })
    }
}

/// Whether a person may hand out, take back or take over what these grants give: they may give roles, or hold as much.
fn outranks(engine: &Engine, actor: &Actor, grants: &[Grant], now: OffsetDateTime) -> bool {
    let mine = engine.grants_of(actor.user);
    let active = mine.iter().filter(|g| g.is_active(now));
    let gives = actor.scope.is_none() && engine.allows_everywhere(active, Kind::Own(OwnObject::Policy), Action::Write);
    gives || engine.covers(actor, grants, now)
}

/// What somebody could do before, and nobody could afterwards.
pub(crate) fn lost(
    engine: &Engine,
    before: &BTreeMap<UserId, Vec<Grant>>,
    after: &BTreeMap<UserId, Vec<Grant>>,
    now: OffsetDateTime,
) -> Option<String> {
    lost_between((engine, before), (engine, after), now)
}

/// The same where what the roles allow changes too.
pub(crate) fn lost_between(
    before: (&Engine, &BTreeMap<UserId, Vec<Grant>>),
    after: (&Engine, &BTreeMap<UserId, Vec<Grant>>),
    now: OffsetDateTime,
) -> Option<String> {
    // Without an end in sight, if it gives; what a person is forbidden by another grant of theirs does not count.
    let lasting = |g: &&Grant| g.is_active(now) && (g.until.is_none() || g.effect == GrantEffect::Deny);
    let rights = [(OwnObject::Users, "manage people"), (OwnObject::Policy, "give roles")];
    rights.into_iter().find_map(|(object, words)| {
        let anybody = |(engine, held): (&Engine, &BTreeMap<UserId, Vec<Grant>>)| {
            held.values()
                .any(|all| engine.allows_everywhere(all.iter().filter(lasting), Kind::Own(object), Action::Write))
        };
        let gone = anybody(before) && !anybody(after);
        gone.then(|| format!("This is the last one who can {words}. Give somebody else the role first."))
    })
}

#[cfg(test)]
pub(crate) mod tests;
