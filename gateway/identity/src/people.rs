// SPDX-License-Identifier: Apache-2.0
//! Making, inviting, disabling and resetting people; and what they change about themselves.

use crate::{
    Error, Identity, Inner, Why, chance,
    limit::subject_of_name,
    rules,
    stage::{Keep, Next, STAGE, Stage},
    webauthn::works_alone,
};
use portcullis_domain::{
    Conditions, Factor, Grant, GrantEffect, GrantId, GrantSource, Secret, Selector, SessionId, UserId,
};
use portcullis_store::{Backoff, FactorId, FirstUser, NewUser, Removal, SessionRow, Try, User, UserKind};
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

/// How long the set-up link of a new installation counts.
const SETUP: Duration = Duration::minutes(30);
/// How long an invitation counts.
const INVITE: Duration = Duration::minutes(15);
/// Tries at the old password before a new one is set.
const OLD_PASSWORD: Backoff =
    Backoff { free: 5, first: Duration::MINUTE, longest: Duration::minutes(30), forget: Duration::DAY };

/// What somebody sends with an invitation.
pub struct Redeem<'a> {
    /// The invitation's text.
    pub token: &'a str,
    /// The name to sign in with: for the first administrator only.
    pub name: Option<&'a str>,
    /// The name shown to people: for the first administrator only; may be empty.
    pub display_name: &'a str,
    /// The new password.
    pub password: Secret,
}

/// What a second factor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorKind {
    /// An authenticator app.
    App,
    /// A passkey that signs in by itself.
    Passkey,
    /// A key that is a second step only.
    SecurityKey,
}

impl FactorKind {
    /// The words shown to people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::App => "Authenticator app",
            Self::Passkey => "Passkey",
            Self::SecurityKey => "Security key",
        }
    }
}

/// A second factor as shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactorLine {
    /// Its id.
    pub id: FactorId,
    /// What it is.
    pub kind: FactorKind,
    /// What its owner calls it.
    pub name: String,
    /// When it was added.
    pub created_at: OffsetDateTime,
    /// When it was last used; of an app to the half minute.
    pub used_at: Option<OffsetDateTime>,
}

impl FactorLine {
    /// What it is and what its owner calls it, in words.
    pub fn words(&self) -> String {
        format!("{}: {}", self.kind.words(), self.name)
    }
}

/// A new password as it will be hashed.
fn new_password(typed: &Secret) -> Result<Secret, Error> {
    let long = || Error::Weak("the password is too long: use at most 256 characters".to_owned());
    typed.expose_text().and_then(rules::normalise).ok_or_else(long)
}

impl Inner {
    pub(crate) async fn person(&self, user: UserId) -> Result<User, Error> {
        self.store.user(user).await.map_err(Error::store)?.ok_or(Error::NotFound("this person"))
    }

    /// Checks a new password under the rules and hashes it.
    async fn new_hash(&self, password: Secret, name_key: String, display_name: String) -> Result<String, Error> {
        let place = self.passwords.place().await?;
        let (shortest, blocklist) = (self.settings.passwords.shortest, self.blocklist.clone());
        let rule = move |text: &Secret| {
            rules::check_strength(text, shortest, &name_key, &[&display_name])?;
            match &blocklist {
                Some(list) if list.holds(text)? => Err(Error::Weak(rules::BREACHED.to_owned())),
                _ => Ok(()),
            }
        };
        self.passwords.hash(place, password, rule).await
    }

    async fn remove_second(&self, user: UserId, factor: FactorId) -> Result<(), Error> {
        match self.store.remove_factor(user, factor).await.map_err(Error::store)? {
            Removal::Gone => Ok(()),
            Removal::Unknown => Err(Error::NotFound("this second factor")),
            Removal::Last => Err(Error::Invalid("the last second factor stays: add another one first".to_owned())),
        }
    }

    async fn invitation(&self, user: Option<UserId>, lasts: Duration) -> Result<Secret, Error> {
        let now = self.clock.now();
        let (text, hash) = chance::secret_text("pci_")?;
        self.store.create_invitation(&hash, user, now, now + lasts).await.map_err(Error::store)?;
        Ok(text)
    }
}

/// A role of the first administrator, on everything, until revoked.
fn first_grant(role: &str, now: OffsetDateTime) -> Result<Grant, Error> {
    Ok(Grant {
        id: GrantId::new(chance::id(now)?),
        role: role.parse().map_err(|_| Error::Crypto("role name"))?,
        selector: Selector::Everything,
        from: now,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Setup,
        effect: GrantEffect::Allow,
    })
}

impl Identity {
    /// Adds a person without a password; they come in with [`Identity::invite`].
    pub async fn create_user(&self, name: &str, display_name: &str) -> Result<UserId, Error> {
        let now = self.0.clock.now();
        let (name, name_key) = rules::check_name(name)?;
        let display_name = rules::check_display(display_name, &name)?;
        let id = UserId::new(chance::id(now)?);
        let new = NewUser { id, name, name_key, display_name };
        self.0.store.create_user(&new, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok(id)
    }

    /// The person with a name, however it is spelled.
    pub async fn find_user(&self, name: &str) -> Result<Option<User>, Error> {
        self.0.store.user_by_name(&rules::fold_name(name)).await.map_err(Error::store)
    }

    /// The right to become the first administrator, for 30 minutes. [`Error::Conflict`] when somebody exists.
    pub async fn invite_first(&self) -> Result<Secret, Error> {
        if !self.0.store.users().await.map_err(Error::store)?.is_empty() {
            return Err(Error::Conflict("an administrator"));
        }
        self.0.invitation(None, SETUP).await
    }

    /// The right to set this person's password, for 15 minutes. It does not lift the second factor.
    pub async fn invite(&self, user: UserId) -> Result<Secret, Error> {
        let found = self.0.person(user).await?;
        if found.disabled_at.is_some() {
            return Err(Error::Invalid("the account is disabled: enable it first".to_owned()));
        }
        if found.kind != UserKind::Person {
            return Err(Error::Invalid("nobody signs in with a password to this account".to_owned()));
        }
        self.0.invitation(Some(user), INVITE).await
    }

    /// Whether an invitation counts, and whose it is: `Some(None)` for the first administrator. It stays usable.
    pub async fn look_at_invitation(&self, token: &str, peer: IpAddr) -> Result<Option<User>, Error> {
        let now = self.0.clock.now();
        self.0.count_prefix(peer, now).await?;
        let hash = chance::sha256(token.as_bytes());
        let found = self.0.store.invitation(&hash, now).await.map_err(Error::store)?;
        let found = found.ok_or(Error::refused(Why::WrongInvitation, None))?;
        self.0.forgive_prefix(peer, now).await?;
        match found.user {
            None => Ok(None),
            Some(user) => self.0.person(user).await.map(Some),
        }
    }

    /// Uses an invitation: sets the password and goes on as after [`Identity::sign_in`]. A weak password or a wrong
    /// name leaves the invitation usable.
    pub async fn redeem_invitation(&self, session: &Session, redeem: Redeem<'_>, peer: IpAddr) -> Result<Next, Error> {
        let inner = &self.0;
        let now = inner.clock.now();
        let whose = self.look_at_invitation(redeem.token, peer).await?;
        let (name_key, display, first) = if let Some(user) = &whose {
            (user.name_key.clone(), user.display_name.clone(), None)
        } else {
            let (name, name_key) = rules::check_name(redeem.name.unwrap_or_default())?;
            let display_name = rules::check_display(redeem.display_name, &name)?;
            // Together they can run everything and give roles; each later person gets one of them.
            let grants = ["administrator", "security-lead"].map(|role| first_grant(role, now));
            let grants = grants.into_iter().collect::<Result<Vec<_>, _>>()?;
            let id = UserId::new(chance::id(now)?);
            let user = NewUser { id, name, name_key: name_key.clone(), display_name: display_name.clone() };
            (name_key, display_name, Some(FirstUser { user, grants }))
        };
        let hash = inner.new_hash(new_password(&redeem.password)?, name_key, display).await?;
        let token = chance::sha256(redeem.token.as_bytes());
        let user = inner.store.redeem_invitation(&token, now, &hash, first.as_ref()).await.map_err(Error::store)?;
        let user = user.ok_or(Error::refused(Why::WrongInvitation, whose.map(|u| u.id)))?;
        // As the row has it, however long ago: a sign-in that was given up half-way is this person's, too.
        let before = session.get::<Stage>(STAGE).await.map_err(Error::Session)?;
        if before.and_then(|stage| stage.user()) == Some(user) {
            // It ended with the other sessions of this person: the browser goes on with another one.
            session.flush().await.map_err(Error::Session)?;
        }
        self.refresh().await?;
        inner.after_password(session, user, now, peer).await
    }

    /// Takes a person's access away: sessions, tokens and tickets are worth nothing from here on.
    pub async fn disable_user(&self, user: UserId) -> Result<(), Error> {
        self.0.store.set_disabled(user, Some(self.0.clock.now())).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// Gives a person's access back. Sessions and tokens that were ended stay ended.
    pub async fn enable_user(&self, user: UserId) -> Result<(), Error> {
        self.0.store.set_disabled(user, None).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// Takes away password, authenticators, passkeys, recovery codes, sessions and tokens, and gives an invitation: an administrator
    /// can let somebody begin anew, and never chooses a secret for them.
    pub async fn reset(&self, user: UserId) -> Result<Secret, Error> {
        if self.0.person(user).await?.kind != UserKind::Person {
            return Err(Error::Invalid("there is nothing to reset: nobody signs in with a password to it".to_owned()));
        }
        self.0.store.reset_user(user, self.0.clock.now()).await.map_err(Error::store)?;
        self.refresh().await?;
        self.invite(user).await
    }

    /// Lifts the locks of a person after too many tries.
    pub async fn unlock(&self, user: UserId) -> Result<(), Error> {
        let key = self.0.person(user).await?.name_key;
        for (kind, subject) in
            [("password", subject_of_name(&key)), ("old-password", user.to_string()), ("second", user.to_string())]
        {
            self.0.store.clear(kind, &subject).await.map_err(Error::store)?;
        }
        // Those of passkeys are counted for each network.
        self.0.store.clear_all("passkey", &format!("{user} ")).await.map_err(Error::store)
    }

    /// Sets a new password for who is signed in, and ends their other sessions and their tokens. Needs a second factor of the last
    /// five minutes and the old password; the last five passwords are refused.
    pub async fn change_password(&self, session: &Session, old: Secret, new: Secret) -> Result<(), Error> {
        let inner = &self.0;
        let (user, id, mut assurance) = inner.signed_in_fresh(session).await?;
        let now = inner.clock.now();
        let found = inner.person(user).await?;
        let kept = found.password_hash.ok_or(Error::refused(Why::NoPassword, Some(user)))?;
        let place = inner.passwords.place().await?;
        let tried = inner.store.back_off("old-password", &user.to_string(), &OLD_PASSWORD, now).await;
        if let Try::Locked(until) = tried.map_err(Error::store)? {
            return Err(Error::Locked { until });
        }
        let typed = old.expose_text().and_then(rules::normalise).unwrap_or_else(|| Secret::new(Vec::new()));
        if !inner.passwords.verify(place, typed, vec![kept]).await? {
            return Err(Error::refused(Why::WrongPassword, Some(user)));
        }
        inner.store.clear("old-password", &user.to_string()).await.map_err(Error::store)?;
        let text = new_password(&new)?;
        let history = inner.store.password_history(user).await.map_err(Error::store)?;
        if inner.passwords.verify(inner.passwords.place().await?, text.clone(), history).await? {
            return Err(Error::Weak("this password was used before: choose another".to_owned()));
        }
        let hash = inner.new_hash(text, found.name_key, found.display_name).await?;
        // Sessions first: a crash between the two leaves the old password, never an old session beside a new one.
        let why = "the password was changed";
        inner.store.end_sessions_of(user, Some(id), now, why).await.map_err(Error::store)?;
        inner.store.set_password_hash(user, &hash, now).await.map_err(Error::store)?;
        assurance.prove(Factor::Password, now);
        let stage = Stage::SignedIn { user, session: id, assurance };
        inner.advance(session, stage, Keep::Same(id), None).await?;
        self.refresh().await
    }

    /// The second factors of a person that count: apps, then passkeys, each oldest first.
    pub async fn factors(&self, user: UserId) -> Result<Vec<FactorLine>, Error> {
        let apps = self.0.store.totp_factors(user).await.map_err(Error::store)?;
        let passkeys = self.0.store.passkeys(user).await.map_err(Error::store)?;
        let apps = apps.into_iter().filter(|f| f.confirmed_at.is_some()).map(|f| FactorLine {
            id: f.id,
            kind: FactorKind::App,
            name: f.name,
            created_at: f.created_at,
            used_at: OffsetDateTime::from_unix_timestamp(f.last_step.saturating_mul(30)).ok(),
        });
        let passkeys = passkeys.into_iter().map(|p| {
            let alone = self.0.open_credential(&p).is_ok_and(|c| works_alone(&c));
            let kind = if alone { FactorKind::Passkey } else { FactorKind::SecurityKey };
            FactorLine { id: p.id, kind, name: p.name, created_at: p.created_at, used_at: p.used_at }
        });
        Ok(apps.chain(passkeys).collect())
    }

    /// Removes one of several second factors of who is signed in, and ends their other sessions. Needs a second
    /// factor of the last five minutes; the last one stays.
    pub async fn remove_factor(&self, session: &Session, factor: FactorId) -> Result<(), Error> {
        let (user, id, _) = self.0.signed_in_fresh(session).await?;
        self.0.remove_second(user, factor).await?;
        let why = "a second factor was removed";
        self.0.store.end_sessions_of(user, Some(id), self.0.clock.now(), why).await.map_err(Error::store)?;
        Ok(())
    }

    /// Removes one of several second factors of a person, and ends their sessions: for whoever may do that to others.
    pub async fn remove_factor_of(&self, user: UserId, factor: FactorId) -> Result<(), Error> {
        self.0.remove_second(user, factor).await?;
        let why = "a second factor was removed by an administrator";
        self.0.store.end_sessions_of(user, None, self.0.clock.now(), why).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// How many recovery codes a person has left.
    pub async fn recovery_codes_left(&self, user: UserId) -> Result<u64, Error> {
        self.0.store.recovery_codes_left(user).await.map_err(Error::store)
    }

    /// The signed-in sessions of a person, newest first.
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<SessionRow>, Error> {
        self.0.store.sessions_of(user, self.0.clock.now()).await.map_err(Error::store)
    }

    /// Notes what the browser of a session calls itself.
    pub async fn describe_session(&self, session: SessionId, agent: &str) -> Result<(), Error> {
        self.0.store.describe_session(session, agent).await.map_err(Error::store)
    }

    /// Ends another session of who is signed in. [`Error::NotFound`] for one that is not theirs.
    pub async fn end_own_session(&self, session: &Session, other: SessionId) -> Result<(), Error> {
        let (user, ..) = self.0.signed_in(session).await?;
        if !self.sessions_of(user).await?.iter().any(|s| s.session == other) {
            return Err(Error::NotFound("this session"));
        }
        self.end_session(other, "you ended this session from another browser").await
    }

    /// Ends a session, whoever it belongs to: policy must have allowed it.
    pub async fn end_session(&self, session: SessionId, why: &str) -> Result<(), Error> {
        let ended = self.0.store.end_session(session, self.0.clock.now(), why).await.map_err(Error::store)?;
        self.refresh().await?;
        if ended { Ok(()) } else { Err(Error::NotFound("this session")) }
    }

    /// Ends every other session of who is signed in; gives how many there were.
    pub async fn end_others(&self, session: &Session) -> Result<u64, Error> {
        let (user, id, _) = self.0.signed_in(session).await?;
        let why = "you ended this session from another browser";
        let ended = self.0.store.end_sessions_of(user, Some(id), self.0.clock.now(), why).await;
        let ended = ended.map_err(Error::store)?;
        self.refresh().await?;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests;
