// SPDX-License-Identifier: Apache-2.0
//! Changes that take two people: kept as they were proposed, and made by the one who approves.
//!
//! Never the same person, and never whom it would give something. What is approved is checked again as if the one who
//! approves made it now; what can no longer be made ends with the reason. A shell proposes, and approves nothing.
//! What somebody approves is what they have seen: when others came into a group meanwhile, or a role means something else,
//! they look once more.

use crate::{
    code::{Files, Plan, hash},
    grant::{By, Error, Grants, in_turn},
    group::Membership,
    guard::Hands,
    impact::Side,
    sentence::Sentence,
};
use portcullis_domain::{
    Action, Actor, Grant, GrantEffect, GrantId, GroupId, Holder, Inventory, OwnObject, ProposalId, RoleName, Selector,
    UserId,
};
use portcullis_policy::{Engine, Given, Kind, single_rights};
use portcullis_store::{Ended, Holding, NewProposal, Proposal, ProposalState};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// A change of rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Grants, as a sentence.
    Say(Sentence),
    /// A grant is taken back.
    Revoke(GrantId),
    /// Somebody comes into a group, or goes.
    Move(GroupId, UserId, Membership),
    /// Files are taken over, and why.
    Files(Files, String),
}

/// The same as it is kept: grants as the columns of their rows.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Body {
    Say { holder: Holder, rows: Vec<[String; 4]> },
    Revoke { grant: GrantId },
    Move { group: GroupId, user: UserId, change: Membership },
    Files { files: BTreeMap<String, String>, why: String },
}

impl Change {
    fn body(&self) -> String {
        let body = match self {
            Self::Say(sentence) => {
                let Sentence { holder, effect, role, on, until, conditions } = sentence;
                let row = |selector: &Selector| {
                    Given {
                        role: role.clone(),
                        selector: selector.clone(),
                        effect: *effect,
                        from: None,
                        until: *until,
                        conditions: conditions.clone(),
                    }
                    .columns()
                };
                Body::Say { holder: *holder, rows: on.iter().map(row).collect() }
            }
            Self::Revoke(grant) => Body::Revoke { grant: *grant },
            Self::Move(group, user, change) => Body::Move { group: *group, user: *user, change: *change },
            Self::Files(files, why) => Body::Files { files: files.0.clone(), why: why.clone() },
        };
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// Reads what a proposal keeps.
    pub fn of(proposal: &Proposal) -> Result<Self, Error> {
        let wrong = || Error::BadPolicy("this change cannot be read any more".to_owned());
        let body: Body = serde_json::from_str(&proposal.new.body).map_err(|_| wrong())?;
        Ok(match body {
            Body::Say { holder, rows } => {
                let read = |[role, on, when, effect]: &[String; 4]| Given::read(role, on, when, effect);
                let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
                let first = rows.first().ok_or_else(wrong)?;
                Self::Say(Sentence {
                    holder,
                    effect: first.effect,
                    role: first.role.clone(),
                    on: rows.iter().map(|g| g.selector.clone()).collect(),
                    until: first.until,
                    conditions: first.conditions.clone(),
                })
            }
            Body::Revoke { grant } => Self::Revoke(grant),
            Body::Move { group, user, change } => Self::Move(group, user, change),
            Body::Files { files, why } => Self::Files(Files(files), why),
        })
    }
}

/// What a change would come to if it were made now.
pub struct Outlook {
    /// Everybody's grants as they are.
    before: HashMap<UserId, Vec<Grant>>,
    /// As they would be.
    after: HashMap<UserId, Vec<Grant>>,
    /// What the roles would mean, where files say that.
    engine: Option<Engine>,
    /// A digest of all that: whoever approves names the one that they have seen.
    pub seen: String,
}

impl Outlook {
    /// Both sides of it, where the roles mean now what `engine` says.
    pub fn sides<'a>(&'a self, engine: &'a Engine) -> (Side<'a>, Side<'a>) {
        let after = self.engine.as_ref().unwrap_or(engine);
        (Side { engine, held: &self.before }, Side { engine: after, held: &self.after })
    }

    fn new(
        change: &Change,
        now: &Engine,
        members: &BTreeSet<UserId>,
        (before, after): (HashMap<UserId, Vec<Grant>>, HashMap<UserId, Vec<Grant>>),
        engine: Option<Engine>,
    ) -> Self {
        let then = engine.as_ref().unwrap_or(now);
        let mut meaning: BTreeMap<RoleName, [String; 2]> = BTreeMap::new();
        let mut text = format!("{}\n{members:?}\n", change.body());
        let people: BTreeSet<UserId> = before.keys().chain(after.keys()).copied().collect();
        let none = Vec::new();
        for user in people {
            let (was, is) = (before.get(&user).unwrap_or(&none), after.get(&user).unwrap_or(&none));
            for (sign, from, to) in [('-', is, was), ('+', was, is)] {
                let mut lines: Vec<String> = Vec::new();
                for grant in to {
                    let [old, new] = meaning
                        .entry(grant.role.clone())
                        .or_insert_with(|| [meaning_of(now, &grant.role), meaning_of(then, &grant.role)]);
                    let known = from.iter().any(|other| other.id == grant.id);
                    if !known || old != new {
                        // A grant that would be made now has no id nor beginning yet.
                        let said = Given { from: None, ..Given::of(grant) }.columns();
                        lines.push(format!("{sign} {user} {said:?} {old} {new}\n"));
                    }
                }
                lines.sort_unstable();
                text.extend(lines);
            }
        }
        Self { seen: hash(&text), before, after, engine }
    }
}

/// All that a role allows.
fn meaning_of(engine: &Engine, role: &RoleName) -> String {
    let rights = single_rights().filter(|(kind, action, _)| engine.role_allows(role, *kind, *action));
    rights.map(|(_, _, name)| name.to_string()).collect::<Vec<_>>().join(" ")
}

impl Grants {
    /// Looks machines up from now on, to tell what a grant reaches.
    pub fn look_up(&self, look: impl Fn() -> Arc<Inventory> + Send + Sync + 'static) {
        self.guard.look_up(look);
    }

    /// Whether anything takes two people here.
    pub fn has_four_eyes(&self) -> bool {
        self.guard.has_four_eyes()
    }

    /// Why nothing is changed here but in files, if so.
    pub fn only_files(&self) -> Option<String> {
        self.guard.only_files().err().map(|error| error.to_string())
    }

    /// Why a change takes two people, if it does.
    pub async fn needs_second(&self, engine: &Engine, change: &Change) -> Result<Option<String>, Error> {
        let guarded = match change {
            Change::Say(sentence) => self.guard.saying(engine, sentence),
            Change::Revoke(id) => {
                let all = self.store.grants().await?;
                let held = all.iter().find(|h| h.grant.id == *id).ok_or(Error::UnknownGrant)?;
                self.guard.revoking(engine, &held.grant)
            }
            Change::Move(group, _, change) => {
                let all = self.store.grants().await?.into_iter();
                let held: Vec<Grant> = all.filter(|h| h.holder == Holder::Group(*group)).map(|h| h.grant).collect();
                self.guard.moving(engine, &held, *change)
            }
            Change::Files(files, _) => self.guard.taking_over(engine, &self.plan(engine, files).await?),
        };
        match guarded {
            Ok(()) => Ok(None),
            Err(Error::Waits(why)) => Ok(Some(why)),
            Err(error) => Err(error),
        }
    }

    /// Keeps a change for a second person. It is checked as if it were made now; its event is durable before.
    pub async fn propose(
        &self,
        engine: &Engine,
        by: By<'_>,
        change: &Change,
        words: &str,
        why: &str,
    ) -> Result<Proposal, Error> {
        self.outlook(engine, by, change).await?;
        let now = self.clock.now();
        let short = |text: &str, most| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
        let new = NewProposal {
            id: ProposalId::new(Uuid::now_v7()),
            body: change.body(),
            words: short(words, 2_000),
            why: short(why, 512),
            by: by.user(),
            by_name: by.name(),
            expires: now + self.guard.lasts(),
        };
        self.store.add_proposal(&new, now).await?;
        Ok(Proposal { new, proposed: now, state: ProposalState::Waiting, decided: None })
    }

    /// What a change would come to if somebody made it now, or why they may not.
    pub async fn outlook(&self, engine: &Engine, by: By<'_>, change: &Change) -> Result<Outlook, Error> {
        let before = self.store.grants_by_person().await?;
        let mut after = before.clone();
        let mut members = BTreeSet::new();
        match change {
            Change::Say(sentence) => {
                let grants = self.check(engine, by, sentence).await?;
                members.extend(self.people_of(sentence.holder).await?);
                for user in &members {
                    after.entry(*user).or_default().extend(grants.iter().cloned());
                }
            }
            Change::Revoke(id) => {
                let Holding { grant, holder, .. } = self.may_take(engine, by, *id).await?;
                members.extend(self.people_of(holder).await?);
                for held in after.values_mut() {
                    held.retain(|g| g.id != grant.id);
                }
            }
            Change::Move(group, user, change) => {
                let (_, held) = self.may_change(engine, by, *group, *user, *change).await?;
                let theirs = after.entry(*user).or_default();
                theirs.retain(|g| !held.iter().any(|h| h.id == g.id));
                if *change == Membership::Join {
                    theirs.extend(held);
                }
            }
            Change::Files(files, _) => {
                let plan = self.plan(engine, files).await?;
                if let Some(why) = Self::favours(by.user(), engine, &plan) {
                    return Err(Error::Kept(why));
                }
                let Plan { before, after, engine: then, .. } = plan;
                return Ok(Outlook::new(change, engine, &members, (before, after), Some(then)));
            }
        }
        Ok(Outlook::new(change, engine, &members, (before, after), None))
    }

    async fn people_of(&self, holder: Holder) -> Result<Vec<UserId>, Error> {
        Ok(match holder {
            Holder::Person(user) => vec![user],
            Holder::Group(id) => self.store.group(id).await?.map_or_else(Vec::new, |g| g.members.into_iter().collect()),
        })
    }

    /// A proposal.
    pub async fn proposal(&self, id: ProposalId) -> Result<Proposal, Error> {
        self.store.proposal(id).await?.ok_or(Error::UnknownProposal)
    }

    /// Why somebody may not approve a change, if so: it is their own, or it would give them something.
    pub async fn objects_to(
        &self,
        engine: &Engine,
        actor: &Actor,
        proposal: &Proposal,
    ) -> Result<Option<String>, Error> {
        if proposal.new.by == Some(actor.user) {
            return Ok(Some("You proposed it: somebody else must approve it.".to_owned()));
        }
        let theirs = match Change::of(proposal)? {
            Change::Say(sentence) => {
                sentence.effect == GrantEffect::Allow && self.people_of(sentence.holder).await?.contains(&actor.user)
            }
            Change::Revoke(id) => {
                let all = self.store.grants().await?;
                let held = all.iter().find(|h| h.grant.id == id);
                match held {
                    Some(held) => self.concerns(By::Person(actor), held.holder).await?,
                    None => false,
                }
            }
            Change::Move(_, user, _) => user == actor.user,
            Change::Files(files, _) => match self.plan(engine, &files).await {
                Ok(plan) => Self::favours(Some(actor.user), engine, &plan).is_some(),
                Err(Error::Store(error)) => return Err(Error::Store(error)),
                Err(_) => false,
            },
        };
        Ok(theirs.then(|| "It would give something to yourself: somebody else must approve it.".to_owned()))
    }

    /// Approves a change and makes it, both in one transaction. `seen` is the digest of the outlook that was looked at:
    /// where it would come to anything else by now, nothing is made, it goes on waiting, and [`Error::Changed`] says so.
    /// What can no longer be made ends with the reason, which comes back as [`Error::Kept`]. The caller holds the permit
    /// to write `gateway:policy`, and has made the event durable.
    pub async fn carry_out(
        &self,
        engine: &Engine,
        actor: &Actor,
        id: ProposalId,
        said: &str,
        seen: &str,
    ) -> Result<Proposal, Error> {
        let proposal = self.proposal(id).await?;
        if proposal.state != ProposalState::Waiting || proposal.new.expires <= self.clock.now() {
            return Err(Error::UnknownProposal);
        }
        let end = self.ended(By::Person(actor), said);
        let change = Change::of(&proposal)?;
        let make = async || {
            let made = Box::pin(self.carry(engine, actor, &proposal, &change, seen));
            self.store.carrying_out(id, end.clone(), made).await
        };
        match in_turn!(self, make()) {
            Ok(()) => self.proposal(id).await,
            Err(Error::Store(portcullis_store::Error::NotFound(_))) => Err(Error::UnknownProposal),
            // It goes on waiting: for somebody else, or for another look.
            Err(error @ (Error::Store(_) | Error::Forbidden(_) | Error::Changed)) => Err(error),
            Err(why) => {
                let said = format!("It can no longer be made: {why}");
                let end = Ended { said: said.chars().take(512).collect(), ..end };
                self.store.end_proposal(id, ProposalState::Void, &end).await?;
                Err(Error::Kept(said))
            }
        }
    }

    /// One try of it, in its turn: all that is asked here holds while it is made.
    async fn carry(
        &self,
        engine: &Engine,
        actor: &Actor,
        proposal: &Proposal,
        change: &Change,
        seen: &str,
    ) -> Result<(), Error> {
        if let Some(why) = self.objects_to(engine, actor, proposal).await? {
            return Err(Error::Forbidden(why));
        }
        if let Some(why) = self.still_may(engine, proposal, change).await? {
            return Err(Error::Kept(why));
        }
        if self.outlook(engine, By::Shell, change).await?.seen != seen {
            return Err(Error::Changed);
        }
        self.make(engine, By::Person(actor), change).await
    }

    async fn make(&self, engine: &Engine, by: By<'_>, change: &Change) -> Result<(), Error> {
        match change {
            Change::Say(sentence) => self.say_once(engine, by, sentence, Hands::Two).await.map(drop),
            Change::Revoke(grant) => self.take(engine, by, *grant, Hands::Two).await.map(drop),
            Change::Move(group, user, change) => {
                self.changed(engine, by, *group, *user, *change, Hands::Two).await.map(drop)
            }
            Change::Files(files, why) => self.apply_once(engine, by, files, why, Hands::Two).await.map(drop),
        }
    }

    /// Why whoever proposed a change may not have it made any more, if so.
    async fn still_may(&self, engine: &Engine, proposal: &Proposal, change: &Change) -> Result<Option<String>, Error> {
        let Some(user) = proposal.new.by else { return Ok(None) };
        let now = self.clock.now();
        let held = self.store.grants_of(user).await?;
        let active = held.iter().filter(|g| g.is_active(now));
        // A member of a group is moved by those who manage people.
        let object = if matches!(change, Change::Move(..)) { OwnObject::Users } else { OwnObject::Policy };
        let may = engine.allows_everywhere(active, Kind::Own(object), Action::Write)
            && self.store.user(user).await?.is_some_and(|u| u.is_open());
        if !may {
            return Ok(Some("whoever proposed it may not change this any more.".to_owned()));
        }
        let theirs = match change {
            Change::Say(sentence) => {
                sentence.effect == GrantEffect::Allow && self.people_of(sentence.holder).await?.contains(&user)
            }
            Change::Move(_, moved, _) => *moved == user,
            Change::Files(files, _) => Self::favours(Some(user), engine, &self.plan(engine, files).await?).is_some(),
            Change::Revoke(_) => false,
        };
        Ok(theirs.then(|| "it would give something to whoever proposed it.".to_owned()))
    }

    fn ended(&self, by: By<'_>, said: &str) -> Ended {
        let said = said.chars().filter(|c| !c.is_control()).take(512).collect();
        Ended { at: self.clock.now(), by: by.user(), by_name: by.name(), said }
    }

    /// Refuses a change, or takes one's own back.
    pub async fn turn_down(&self, actor: &Actor, id: ProposalId, said: &str) -> Result<ProposalState, Error> {
        let proposal = self.proposal(id).await?;
        let own = proposal.new.by == Some(actor.user);
        let state = if own { ProposalState::Withdrawn } else { ProposalState::Refused };
        let end = self.ended(By::Person(actor), said);
        if self.store.end_proposal(id, state, &end).await? { Ok(state) } else { Err(Error::UnknownProposal) }
    }

    /// The changes that nobody decided on in time.
    pub async fn overdue(&self) -> Result<Vec<Proposal>, Error> {
        let now = self.clock.now();
        let mut waiting = self.store.waiting_proposals().await?;
        waiting.retain(|p| p.new.expires <= now);
        Ok(waiting)
    }

    /// Ends one of them. Its event is durable before.
    pub async fn let_expire(&self, id: ProposalId) -> Result<(), Error> {
        let end = Ended { by_name: "the gateway".to_owned(), ..self.ended(By::Shell, "") };
        self.store.end_proposal(id, ProposalState::Expired, &end).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
