// SPDX-License-Identifier: Apache-2.0
//! Accounts that a directory keeps: it makes them, names them, and takes them out. It sets no secret, gives no role, and
//! does not undo what an administrator did.

use crate::{Error, Identity, chance, rules};
use portcullis_domain::UserId;
use portcullis_store::{NewUser, Provisioned};

/// The longest id of a directory's own, in characters.
const LONGEST_ID: usize = 256;

fn check_external(id: Option<&str>) -> Result<Option<&str>, Error> {
    match id {
        Some(id) if id.chars().count() > LONGEST_ID || id.chars().any(char::is_control) => {
            Err(Error::Invalid(format!("an external id is at most {LONGEST_ID} characters on one line")))
        }
        id => Ok(id.filter(|id| !id.is_empty())),
    }
}

impl Identity {
    /// Adds a person whom a directory keeps. They have no way to sign in yet.
    pub async fn provision(&self, name: &str, display: &str, external_id: Option<&str>) -> Result<UserId, Error> {
        let now = self.0.clock.now();
        let (name, name_key) = rules::check_name(name)?;
        let display_name = rules::check_display(display, &name)?;
        let external_id = check_external(external_id)?;
        let id = UserId::new(chance::id(now)?);
        let new = NewUser { id, name, name_key, display_name };
        self.0.store.provision(&new, external_id, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok(id)
    }

    /// Everybody whom a directory keeps, by name.
    pub async fn provisioned(&self) -> Result<Vec<Provisioned>, Error> {
        self.0.store.provisioned().await.map_err(Error::store)
    }

    /// Changes what a directory calls somebody whom it keeps.
    pub async fn describe_provisioned(
        &self,
        of: &Provisioned,
        display: &str,
        external: Option<&str>,
    ) -> Result<(), Error> {
        let display = rules::check_display(display, &of.user.name)?;
        let external = check_external(external)?;
        self.0.store.describe_provisioned(of.user.id, &display, external).await.map_err(Error::store)
    }

    /// Takes somebody out whose directory says that they left: sessions, tokens and consoles end.
    pub async fn take_out(&self, user: UserId) -> Result<(), Error> {
        self.0.store.set_left(user, Some(self.0.clock.now())).await.map_err(Error::store)?;
        self.disable_user(user).await
    }

    /// Takes somebody back in whom the directory took out. What an administrator disabled stays disabled.
    pub async fn take_back(&self, of: &Provisioned) -> Result<(), Error> {
        if of.user.disabled_at.is_some() && of.left_at.is_none() {
            return Err(Error::Conflict("a decision of an administrator to disable this account, and it"));
        }
        self.0.store.set_left(of.user.id, None).await.map_err(Error::store)?;
        self.enable_user(of.user.id).await
    }

    /// Takes somebody out whom the directory deleted, and lets go of them.
    pub async fn let_go(&self, user: UserId) -> Result<(), Error> {
        self.take_out(user).await?;
        self.0.store.unprovision(user).await.map_err(Error::store)
    }
}
