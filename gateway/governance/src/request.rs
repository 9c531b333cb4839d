// SPDX-License-Identifier: Apache-2.0
//! Access requests: somebody asks, owners decide, what comes of it is an ordinary grant with an end.
//!
//! ```text
//! ask ─▶ asked ─approve (n of m, or a rule)─▶ approved ─activate, or the wished start─▶ active ─its end─▶ over
//!          ├──── refuse, withdraw, expire ────┤                                          └─give back, end─▶ ended
//! ```
//!
//! Which rule speaks of a request is worked out anew at each step, from the configuration and the inventory of that
//! moment: a rule that was made stricter meanwhile counts.

mod rule;
mod told;

pub use rule::{Auto, Owner, Rule};

use crate::grant::{By, Grants, in_turn};
use portcullis_domain::{
    AccessId, Action, Actor, Clock, Effect, Grant, GrantEffect, GrantId, GrantSource, Inventory, Operation, OwnObject,
    Resource, RoleName, Selector, UserId,
};
use portcullis_policy::{Decision, Engine};
use portcullis_store::{
    AccessRequest, AccessState, AccessStep, Approval, NewAccess, StepWhat, Stepped, Store, UserKind,
};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How long a request waits for approval, and an approved one to begin after its wished start.
const WAITS: Duration = Duration::days(3);
const BEGINS: Duration = Duration::days(1);
/// How far ahead a request may begin.
const AHEAD: Duration = Duration::days(90);
/// The longest that any rule can allow: what fits in the store.
const LONGEST: Duration = Duration::days(366);
/// Requests of one person that may wait at once: who is asked often enough says yes at some time.
const WAITING: usize = 5;
/// How long what was refused is not asked again.
const COOL: Duration = Duration::minutes(10);
/// The longest reason, in characters.
const REASON: usize = 512;

/// What somebody wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which role.
    pub role: RoleName,
    /// On what.
    pub selector: Selector,
    /// Why.
    pub reason: String,
    /// For how long, from when it begins.
    pub lasts: Duration,
    /// When it begins by itself; none: when they begin it.
    pub start: Option<OffsetDateTime>,
}

/// Who takes a step, with what a decision about it needs.
#[derive(Clone, Copy)]
pub struct Decider<'a> {
    /// The policy.
    pub engine: &'a Engine,
    /// The machines that are known.
    pub inventory: &'a Inventory,
    /// Who.
    pub by: By<'a>,
}

/// What an approval came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// The request is approved.
    Approved,
    /// So many of so many approved it.
    Counted(i64, u32),
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Something that was typed makes no sense: the field, and what to do.
    #[error("{1}")]
    Bad(&'static str, String),
    /// There is no such request, or they may not know of it.
    #[error("There is no such request.")]
    Unknown,
    /// They may not take this step; the words say why.
    #[error("{0}")]
    Forbidden(String),
    /// It came too late: the request stands otherwise by now.
    #[error("That came too late: look at how the request stands now.")]
    Late,
    /// Roles are kept apart, or the account is closed.
    #[error("{0}")]
    Kept(String),
    /// The store could not do it.
    #[error("the store could not answer")]
    Store(#[from] portcullis_store::Error),
}

impl RequestError {
    const fn is_overtaken(&self) -> bool {
        matches!(self, Self::Store(portcullis_store::Error::Overtaken))
    }
}

/// Asks, decides, begins and ends. A cheap handle.
#[derive(Clone)]
pub struct Requests {
    store: Store,
    clock: Arc<dyn Clock>,
    grants: Grants,
    rules: Arc<[Rule]>,
    otherwise: Arc<Rule>,
}

impl Requests {
    /// On a store and a clock, with the rules of the configuration: the first that speaks of a request counts, and the
    /// last argument where none does.
    pub fn new(store: Store, clock: Arc<dyn Clock>, grants: Grants, rules: Vec<Rule>, otherwise: Rule) -> Self {
        Self { store, clock, grants, rules: rules.into(), otherwise: Arc::new(otherwise) }
    }

    /// The rule that speaks of a role on something.
    pub fn rule(&self, role: &RoleName, on: &Selector, inventory: &Inventory) -> &Rule {
        self.rules.iter().find(|rule| rule.speaks_of(role, on, inventory)).unwrap_or(&self.otherwise)
    }

    /// The longest time that any rule gives, for a form.
    pub fn longest(&self) -> Duration {
        self.rules.iter().map(|rule| rule.longest).chain([self.otherwise.longest]).max().unwrap_or(LONGEST).min(LONGEST)
    }

    /// Asks for access. Whether the machine exists makes no difference to who may not see it: what its rule says is
    /// looked at when somebody decides. A rule that approves by itself does so at once, and the access begins.
    pub async fn ask(
        &self,
        engine: &Engine,
        actor: &Actor,
        wish: Wish,
        inventory: &Inventory,
    ) -> Result<AccessRequest, RequestError> {
        let now = self.clock.now();
        let bad = |field, words: &str| Err(RequestError::Bad(field, words.to_owned()));
        let reason: String =
            wish.reason.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(REASON).collect();
        if reason.chars().filter(|c| c.is_alphanumeric()).count() < 3 {
            return bad("reason", "Say why you need it: whoever decides reads this.");
        }
        if !engine.has_role(&wish.role) {
            return bad("role", "There is no such role.");
        }
        if wish.lasts < Duration::minutes(5) || wish.lasts > self.longest() {
            return bad("hours", "That is longer, or shorter, than access can be asked for.");
        }
        if wish.start.is_some_and(|at| at <= now || at > now + AHEAD) {
            return bad("start", "Choose a time within the next 90 days, or leave it empty.");
        }
        let mine = self.store.accesses(Some(actor.user), 200).await?;
        let same = |r: &&AccessRequest| r.role == wish.role && r.selector == wish.selector;
        if mine.iter().filter(same).any(|r| r.state.is_open()) {
            return bad("", "You have asked for this already: look at your requests.");
        }
        // Each one writes letters: who asks and withdraws in turn waits, too; and who gives back in turn what a rule approves.
        let lately = mine.iter().filter(|r| now - r.changed < COOL);
        if lately.filter(|r| matches!(r.state, AccessState::Withdrawn | AccessState::Ended(_))).count() >= WAITING {
            let words = "You have withdrawn five requests, or given their access back, in the last minutes. Wait a while \
                         before you ask again.";
            return bad("", words);
        }
        if mine.iter().filter(same).any(|r| r.state == AccessState::Refused && now - r.changed < COOL) {
            return bad("", "This was refused a moment ago. Talk to whoever refused it before you ask again.");
        }
        if mine.iter().filter(|r| matches!(r.state, AccessState::Asked(_))).count() >= WAITING {
            return bad("", "Five requests of yours are waiting already. Withdraw one first.");
        }
        let id = AccessId::new(Uuid::now_v7());
        let new = NewAccess {
            id,
            user: actor.user,
            role: wish.role,
            selector: wish.selector,
            reason,
            seconds: wish.lasts.whole_seconds(),
            start: wish.start,
            expires: wish.start.unwrap_or(now).max(now) + WAITS,
        };
        let most = i64::try_from(WAITING).unwrap_or(i64::MAX);
        if self.store.add_access(&new, &step(StepWhat::Asked, now, Some(actor), ""), most).await? != Stepped::Done {
            return bad("", "Five requests of yours are waiting already, or this one is. Look at your requests.");
        }
        let asked = self.find(id).await?;
        self.approve_by_rule(engine, actor, asked, inventory).await
    }

    async fn approve_by_rule(
        &self,
        engine: &Engine,
        actor: &Actor,
        asked: AccessRequest,
        inventory: &Inventory,
    ) -> Result<AccessRequest, RequestError> {
        let now = self.clock.now();
        let rule = self.rule(&asked.role, &asked.selector, inventory);
        let Some(auto) = &rule.auto else { return Ok(asked) };
        // Hours of a zone that this machine has lost are nobody's.
        let on_duty = auto.hours.as_ref().is_none_or(|hours| portcullis_policy::in_hours(hours, now) == Some(true));
        // No rule stands in for the second person.
        if self.grants.guard.named(engine, &asked.role, &asked.selector).is_some() {
            return Ok(asked);
        }
        if !on_duty || !self.store.groups_of(actor.user).await?.contains(&auto.group) {
            return Ok(asked);
        }
        let words = format!("the rule {} approves what {} asks for", rule.name, auto.group);
        let step = AccessStep {
            what: StepWhat::Approved,
            at: now,
            by: None,
            by_name: format!("the rule {}", rule.name),
            words,
        };
        self.store.approve_access(asked.id, &step, approval(rule, &asked, now)).await?;
        if asked.start.is_none() {
            let decider = Decider { engine, inventory, by: By::Person(actor) };
            return self.activate(decider, asked.id).await;
        }
        self.find(asked.id).await
    }

    /// A request, whoever asks about it.
    pub async fn find(&self, id: AccessId) -> Result<AccessRequest, RequestError> {
        self.store.access(id).await?.ok_or(RequestError::Unknown)
    }

    /// Why somebody may not decide on a request, if they may not. An owner by its rule may, and whoever may approve by
    /// policy and could give the role themselves; nobody decides on their own.
    pub async fn objection(
        &self,
        decider: Decider<'_>,
        request: &AccessRequest,
    ) -> Result<Option<String>, RequestError> {
        let By::Person(actor) = decider.by else { return Ok(None) };
        let groups = self.store.groups_of(actor.user).await?;
        Ok(self.objects(decider, actor, &groups, request))
    }

    fn objects(
        &self,
        decider: Decider<'_>,
        actor: &Actor,
        groups: &[String],
        request: &AccessRequest,
    ) -> Option<String> {
        if actor.user == request.user {
            return Some("Nobody decides on their own request.".to_owned());
        }
        let rule = self.rule(&request.role, &request.selector, decider.inventory);
        if actor.scope.is_none() && rule.owners.iter().any(|owner| owner.is(&actor.name, groups)) {
            return None;
        }
        let now = self.clock.now();
        let approves =
            Operation { action: Action::Approve, resource: Resource::Own(OwnObject::Requests), effect: Effect::Unsafe };
        match decider.engine.decide(actor, &approves, decider.inventory, now) {
            Decision::Deny(_) => return Some("Whoever owns it decides, and you do not.".to_owned()),
            Decision::Permit(_) | Decision::StepUp(_) => {}
        }
        let would = grant_of(request, rule, now);
        let could = decider.by.outranks(decider.engine, std::slice::from_ref(&would), now);
        (!could).then(|| "That role goes beyond what you could give yourself.".to_owned())
    }

    /// What waits for somebody's decision, oldest first.
    pub async fn to_decide(&self, decider: Decider<'_>) -> Result<Vec<AccessRequest>, RequestError> {
        let mut open = self.open().await?;
        open.retain(|request| matches!(request.state, AccessState::Asked(_)));
        if let By::Person(actor) = decider.by
            && !open.is_empty()
        {
            let groups = self.store.groups_of(actor.user).await?;
            open.retain(|request| self.objects(decider, actor, &groups, request).is_none());
        }
        Ok(open)
    }

    async fn may_decide(&self, decider: Decider<'_>, id: AccessId) -> Result<AccessRequest, RequestError> {
        let request = self.find(id).await?;
        match self.objection(decider, &request).await? {
            Some(why) => Err(RequestError::Forbidden(why)),
            None => Ok(request),
        }
    }

    /// Approves a request.
    pub async fn approve(&self, decider: Decider<'_>, id: AccessId, words: &str) -> Result<Decided, RequestError> {
        let request = self.may_decide(decider, id).await?;
        let now = self.clock.now();
        self.grants.apart(decider.engine, request.user, &request.role).await.map_err(kept)?;
        let rule = self.rule(&request.role, &request.selector, decider.inventory);
        // Whoever is at the shell is nobody in particular, so they are no second person either.
        if matches!(decider.by, By::Shell) {
            // It knows no machines, so it may not know which rule speaks of them.
            let all = self.rules.iter().map(|r| r.approvals).chain([self.otherwise.approvals]).max();
            let knows = decider.inventory.iter().next().is_some();
            let needed = if knows { rule.approvals } else { all.unwrap_or(rule.approvals) };
            if needed > 1 {
                let why = "It may take several people, on the request's page: a shell is none of them.".to_owned();
                return Err(RequestError::Forbidden(why));
            }
            if let Some(why) = self.grants.guard.named(decider.engine, &request.role, &request.selector) {
                let why = format!("{why} That takes a second person, on the request's page: a shell is none.");
                return Err(RequestError::Forbidden(why));
            }
        }
        let step = taken(StepWhat::Approved, now, decider.by, words);
        match self.store.approve_access(id, &step, approval(rule, &request, now)).await? {
            Stepped::Done => Ok(Decided::Approved),
            Stepped::Counted(given) => Ok(Decided::Counted(given, rule.approvals)),
            Stepped::Again => Err(RequestError::Forbidden("You approved it already: somebody else must, too.".into())),
            Stepped::Late => Err(RequestError::Late),
        }
    }

    /// Refuses a request, also one that was approved and has not begun.
    pub async fn refuse(&self, decider: Decider<'_>, id: AccessId, words: &str) -> Result<(), RequestError> {
        self.may_decide(decider, id).await?;
        done(self.store.close_access(id, &taken(StepWhat::Refused, self.clock.now(), decider.by, words)).await?)
    }

    /// Takes one's own request back.
    pub async fn withdraw(&self, actor: &Actor, id: AccessId) -> Result<(), RequestError> {
        self.own(actor, id).await?;
        done(self.store.close_access(id, &step(StepWhat::Withdrawn, self.clock.now(), Some(actor), "")).await?)
    }

    async fn own(&self, actor: &Actor, id: AccessId) -> Result<AccessRequest, RequestError> {
        let request = self.find(id).await?;
        if request.user == actor.user { Ok(request) } else { Err(RequestError::Unknown) }
    }

    /// Begins what was approved: the clock of the grant starts now. By whoever asked, or by the gateway at the wished
    /// start.
    pub async fn activate(&self, decider: Decider<'_>, id: AccessId) -> Result<AccessRequest, RequestError> {
        let request = match decider.by {
            By::Person(actor) => self.own(actor, id).await?,
            By::Shell => self.find(id).await?,
        };
        in_turn!(&self.grants, self.activate_once(decider, &request))?;
        self.find(id).await
    }

    async fn activate_once(&self, decider: Decider<'_>, request: &AccessRequest) -> Result<(), RequestError> {
        let now = self.clock.now();
        let person = self.store.user(request.user).await?;
        if !person.is_some_and(|u| u.is_open() && u.kind != UserKind::BreakGlass) {
            return Err(RequestError::Kept("The account is disabled or locked.".to_owned()));
        }
        if !decider.engine.has_role(&request.role) {
            return Err(RequestError::Kept("There is no such role any more.".to_owned()));
        }
        self.grants.apart(decider.engine, request.user, &request.role).await.map_err(kept)?;
        let rule = self.rule(&request.role, &request.selector, decider.inventory);
        let grant = grant_of(request, rule, now);
        let step = match decider.by {
            By::Person(actor) => step(StepWhat::Active, now, Some(actor), ""),
            By::Shell => step(StepWhat::Active, now, None, "the wished time has come"),
        };
        done(self.store.begin_access(request.id, request.user, &grant, &step).await?)
    }

    /// Ends access before its time: given back by whoever asked, or taken by whoever could decide on it.
    pub async fn end(&self, decider: Decider<'_>, id: AccessId, words: &str) -> Result<(), RequestError> {
        let request = match decider.by {
            By::Person(actor) if self.own(actor, id).await.is_ok() => self.find(id).await?,
            By::Person(_) | By::Shell => self.may_decide(decider, id).await?,
        };
        let AccessState::Active(grant, _) = request.state else { return Err(RequestError::Late) };
        done(self.store.end_access(id, grant, &taken(StepWhat::Ended, self.clock.now(), decider.by, words)).await?)
    }

    /// What the clock does to a request: one step that is due, or none.
    pub fn due(&self, request: &AccessRequest, held: &[GrantId], now: OffsetDateTime) -> Option<StepWhat> {
        match request.state {
            AccessState::Asked(until) | AccessState::Approved(until) if until <= now => Some(StepWhat::Expired),
            AccessState::Approved(_) if request.start.is_some_and(|at| at <= now) => Some(StepWhat::Active),
            AccessState::Active(_, ends) if ends <= now => Some(StepWhat::Over),
            // It was taken as any other grant.
            AccessState::Active(grant, _) if !held.contains(&grant) => Some(StepWhat::Ended),
            _ => None,
        }
    }

    /// Takes a step that is due; false when something stands against it, or another node took it.
    pub async fn take_due(
        &self,
        decider: Decider<'_>,
        request: &AccessRequest,
        what: StepWhat,
    ) -> Result<bool, RequestError> {
        let step = step(what, self.clock.now(), None, "");
        let done = |stepped| Ok(stepped == Stepped::Done);
        match (what, request.state) {
            (StepWhat::Active, _) => match self.activate(decider, request.id).await {
                // It stays as it is until it expires: what stands against it may end.
                Err(RequestError::Kept(_) | RequestError::Late) => Ok(false),
                other => other.map(|_| true),
            },
            (StepWhat::Over | StepWhat::Ended, AccessState::Active(grant, _)) => {
                done(self.store.end_access(request.id, grant, &step).await?)
            }
            _ => done(self.store.close_access(request.id, &step).await?),
        }
    }

    /// Every request of which something can still come, oldest first.
    pub async fn open(&self) -> Result<Vec<AccessRequest>, RequestError> {
        Ok(self.store.open_accesses().await?)
    }

    /// The newest requests, of one person or of all.
    pub async fn list(&self, user: Option<UserId>, most: u32) -> Result<Vec<AccessRequest>, RequestError> {
        Ok(self.store.accesses(user, most).await?)
    }

    /// The history of a request.
    pub async fn steps(&self, id: AccessId) -> Result<Vec<AccessStep>, RequestError> {
        Ok(self.store.access_steps(id).await?)
    }
}

fn approval(rule: &Rule, request: &AccessRequest, now: OffsetDateTime) -> Approval {
    Approval {
        needed: i64::from(rule.approvals.max(1)),
        seconds: request.seconds.min(rule.longest.whole_seconds()),
        expires: request.start.unwrap_or(now).max(now) + BEGINS,
    }
}

/// The grant that would come of a request if it began now.
fn grant_of(request: &AccessRequest, rule: &Rule, now: OffsetDateTime) -> Grant {
    Grant {
        id: GrantId::new(Uuid::now_v7()),
        role: request.role.clone(),
        selector: request.selector.clone(),
        effect: GrantEffect::Allow,
        from: now,
        until: Some(now + Duration::seconds(request.seconds.min(rule.longest.whole_seconds()))),
        conditions: rule.conditions.clone(),
        source: GrantSource::AccessRequest,
    }
}

fn kept(error: crate::Error) -> RequestError {
    match error {
        crate::Error::Store(error) => RequestError::Store(error),
        other => RequestError::Kept(other.to_string()),
    }
}

fn done(stepped: Stepped) -> Result<(), RequestError> {
    match stepped {
        Stepped::Done => Ok(()),
        Stepped::Counted(_) | Stepped::Again | Stepped::Late => Err(RequestError::Late),
    }
}

fn step(what: StepWhat, at: OffsetDateTime, by: Option<&Actor>, words: &str) -> AccessStep {
    let by_name = by.map_or_else(|| "the gateway".to_owned(), |actor| actor.name.to_string());
    AccessStep { what, at, by: by.map(|actor| actor.user), by_name, words: words.to_owned() }
}

fn taken(what: StepWhat, at: OffsetDateTime, by: By<'_>, words: &str) -> AccessStep {
    let words = words.trim().chars().filter(|c| !c.is_control()).take(REASON).collect();
    AccessStep { what, at, by: by.user(), by_name: by.name(), words }
}

#[cfg(test)]
mod tests;
