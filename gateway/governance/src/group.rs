// SPDX-License-Identifier: Apache-2.0
//! Groups that are kept here. Being in one gives what it holds: whoever changes that must be allowed to give it.

use crate::{
    grant::{By, Error, Grants, in_turn, lost},
    guard::Hands,
};
use portcullis_domain::{Grant, GroupId, Holder, UserId};
use portcullis_policy::Engine;
use portcullis_store::{Group, GroupSource};
use uuid::Uuid;

/// What happens to somebody's place in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// They come in.
    Join,
    /// They go.
    Leave,
}

impl Grants {
    /// Makes a group without members and grants; the name is 1 to 64 characters without `/` and control characters.
    pub async fn make_group(&self, name: &str, words: &str) -> Result<GroupId, Error> {
        self.guard.only_files()?;
        let plain = |text: &str| !text.chars().any(char::is_control);
        // Names stand in policy files, behind `group:`.
        let name = name.trim();
        let named = (1..=64).contains(&name.chars().count()) && plain(name) && !name.contains([',', '"', '/']);
        let words = words.trim();
        if !named || !plain(words) || words.chars().count() > 512 {
            return Err(Error::BadName);
        }
        let id = GroupId::new(Uuid::now_v7());
        self.store.add_group(id, name, words, self.clock.now()).await.map_err(|e| match e {
            portcullis_store::Error::Conflict(_) => Error::NameTaken,
            other => Error::Store(other),
        })?;
        Ok(id)
    }

    /// Removes a group that is kept here, once it holds no grant. Who was in it loses nothing by that.
    pub async fn drop_group(&self, id: GroupId) -> Result<Group, Error> {
        self.guard.only_files()?;
        let group = self.local(id).await?;
        if !self.store.remove_local_group(id).await? {
            return Err(Error::Kept("This group still holds grants. Take them back first.".to_owned()));
        }
        Ok(group)
    }

    /// Puts somebody into a group or takes them out; gives the group as it was. What that opened is cut within seconds.
    /// Nobody changes their own place, since a group may also forbid.
    pub async fn change_member(
        &self,
        engine: &Engine,
        by: By<'_>,
        id: GroupId,
        user: UserId,
        change: Membership,
    ) -> Result<Group, Error> {
        in_turn!(self, self.changed(engine, by, id, user, change, Hands::One))
    }

    pub(crate) async fn changed(
        &self,
        engine: &Engine,
        by: By<'_>,
        id: GroupId,
        user: UserId,
        change: Membership,
        hands: Hands,
    ) -> Result<Group, Error> {
        let (group, held) = self.may_change(engine, by, id, user, change).await?;
        hands.hold(|| self.guard.moving(engine, &held, change))?;
        let changed = match change {
            Membership::Join => self.store.join_group(id, user, by.user()).await?,
            Membership::Leave => self.store.leave_group(id, user).await?,
        };
        if changed { Ok(group) } else { Err(Error::NoChange) }
    }

    /// The group that somebody may change so, and what it holds; or why they may not.
    pub(crate) async fn may_change(
        &self,
        engine: &Engine,
        by: By<'_>,
        id: GroupId,
        user: UserId,
        change: Membership,
    ) -> Result<(Group, Vec<Grant>), Error> {
        self.guard.only_files()?;
        let now = self.clock.now();
        if by.user() == Some(user) {
            return Err(Error::Kept("Nobody changes their own groups. Ask another security lead.".to_owned()));
        }
        let group = self.local(id).await?;
        if change == Membership::Join {
            self.may_join(engine, user, id).await?;
            self.store.user(user).await?.filter(|u| u.disabled_at.is_none()).ok_or(Error::UnknownPerson)?;
        }
        let held: Vec<Grant> =
            self.store.grants().await?.into_iter().filter(|h| h.holder == Holder::Group(id)).map(|h| h.grant).collect();
        if !by.outranks(engine, &held, now) {
            let words = "This group holds rights beyond your own. Ask a security lead to change who is in it.";
            return Err(Error::Kept(words.to_owned()));
        }
        if group.members.contains(&user) == (change == Membership::Join) {
            return Err(Error::NoChange);
        }
        let before = self.held().await?;
        let mut after = before.clone();
        if let Some(theirs) = after.get_mut(&user) {
            theirs.retain(|g| !held.iter().any(|h| h.id == g.id));
            if change == Membership::Join {
                theirs.extend(held.iter().cloned());
            }
        }
        if let Some(why) = lost(engine, &before, &after, now) {
            return Err(Error::Kept(why));
        }
        Ok((group, held))
    }

    async fn local(&self, id: GroupId) -> Result<Group, Error> {
        let group = self.store.group(id).await?.ok_or(Error::UnknownGroup)?;
        match group.source {
            GroupSource::Local => Ok(group),
            GroupSource::Directory => {
                Err(Error::Kept("This group is kept by the company's directory: change it there.".to_owned()))
            }
        }
    }
}
