// SPDX-License-Identifier: Apache-2.0
//! From a stranger to somebody: password, second factor, recovery code; and step-up and leaving.

use crate::{
    Error, Identity, Inner, Why, chance,
    limit::subject_of_name,
    rules,
    stage::{Keep, Next, Stage},
    webauthn::Purpose,
};
use portcullis_domain::{Assurance, Factor, Intent, Secret, SessionId, UserId};
use portcullis_store::User;
use std::net::IpAddr;
use time::OffsetDateTime;
use tower_sessions::Session;
use unicode_normalization::UnicodeNormalization;

/// A recovery code as it is compared. None when it is none.
pub(crate) fn fold_recovery(code: &str) -> Option<String> {
    fold_code(code, 16)
}

/// A code from paper as it is compared: so many letters of base32, without blanks and hyphens. None when it is none.
pub(crate) fn fold_code(code: &str, letters: usize) -> Option<String> {
    if code.len() > 128 {
        return None;
    }
    let folded: String = code
        .nfkc()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| match c.to_ascii_uppercase() {
            // digits that base32 does not have, for the letters they look like
            '0' => 'O',
            '1' => 'I',
            '8' => 'B',
            other => other,
        })
        .collect();
    (folded.len() == letters && folded.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))).then_some(folded)
}

impl Inner {
    /// Checks a name and a password under the limits. The work is the same for every name and every reason.
    async fn check_password(&self, name: &str, password: Secret, peer: IpAddr) -> Result<User, Error> {
        let now = self.clock.now();
        let name_key = rules::fold_name(name);
        let user = self.store.user_by_name(&name_key).await.map_err(Error::store)?;
        let subject = if user.is_some() { subject_of_name(&name_key) } else { self.subject_of_unknown(&name_key) };
        self.look_before_password(&subject, peer, now).await?;
        let place = self.passwords.place().await?;
        self.count_password(&subject, peer, now).await?;
        let kept = user.as_ref().and_then(|u| u.password_hash.clone());
        // A password that no one can have is compared as an empty one, which no one can have either.
        let typed = password.expose_text().and_then(rules::normalise).unwrap_or_else(|| Secret::new(Vec::new()));
        let verified = self.passwords.verify(place, typed, kept.into_iter().collect()).await?;
        let refuse = |why, user: Option<&User>| Err(Error::refused(why, user.map(|u| u.id)));
        match user {
            None => refuse(Why::UnknownName, None),
            Some(u) if u.password_hash.is_none() => refuse(Why::NoPassword, Some(&u)),
            Some(u) if !verified => refuse(Why::WrongPassword, Some(&u)),
            Some(u) if u.disabled_at.is_some() => refuse(Why::Disabled, Some(&u)),
            Some(u) if !u.is_open() => refuse(Why::Locked, Some(&u)),
            Some(u) => {
                self.forget_password(&subject, peer, now).await?;
                Ok(u)
            }
        }
    }

    /// Where somebody stands whose password was right.
    pub(crate) async fn after_password(
        &self,
        session: &Session,
        user: UserId,
        since: OffsetDateTime,
        peer: IpAddr,
    ) -> Result<Next, Error> {
        self.forget_provider(session).await?;
        self.after_first(session, user, since, peer).await
    }

    /// Where somebody stands whose first factor was proven.
    pub(crate) async fn after_first(
        &self,
        session: &Session,
        user: UserId,
        since: OffsetDateTime,
        peer: IpAddr,
    ) -> Result<Next, Error> {
        let apps = self.store.totp_factors(user).await.map_err(Error::store)?;
        // A passkey counts as one although passkeys may be off: whoever has a second factor does not get by without.
        let second = apps.iter().any(|f| f.confirmed_at.is_some()) || self.has_passkey(user).await?;
        let (stage, next) = if second {
            (Stage::NeedsSecond { user, since }, Next::SecondFactor)
        } else {
            (Stage::MustEnrol { user, since }, Next::Enrol)
        };
        let id = SessionId::new(chance::id(since)?);
        self.advance(session, stage, Keep::New(id), Some(peer)).await?;
        Ok(next)
    }

    /// The person, if they may be here at all.
    async fn allowed(&self, user: UserId) -> Result<User, Error> {
        let found = self.store.user(user).await.map_err(Error::store)?;
        found.filter(User::is_open).ok_or_else(|| Error::refused(Why::Disabled, Some(user)))
    }
}

impl Identity {
    /// How a typed name stands in the trail: as the person's own when there is one. Anything else may be a password in
    /// the wrong field, and the trail forgets nothing: then a short keyed digest, by which tries at one name are told
    /// from tries at many.
    pub async fn name_for_trail(&self, typed: &str) -> Result<String, Error> {
        if let Some(user) = self.find_user(typed).await? {
            return Ok(user.name);
        }
        let [a, b, c, d, ..] = self.0.tag_of_unknown("trail", &rules::fold_name(typed));
        Ok(format!("unknown name #{}", hex::encode([a, b, c, d])))
    }

    /// The first step. Whoever was signed in with this browser is signed out by a successful one.
    pub async fn sign_in(&self, session: &Session, name: &str, password: Secret, peer: IpAddr) -> Result<Next, Error> {
        let user = self.0.check_password(name, password, peer).await?;
        self.0.after_password(session, user.id, self.0.clock.now(), peer).await
    }

    /// The second step: an authenticator code, used once over all nodes, or the answer of a passkey.
    pub async fn second_factor(&self, session: &Session, code: &str, peer: IpAddr) -> Result<SessionId, Error> {
        let Stage::NeedsSecond { user, since } = self.0.stage(session).await? else { return Err(Error::Expired) };
        let now = self.0.clock.now();
        self.0.allowed(user).await?;
        let factor = self.0.accept_second(session, Purpose::SecondStep, user, code, peer).await?;
        let mut assurance = Assurance::default();
        assurance.prove(self.0.first_factor(session).await?, since);
        assurance.prove(factor, now);
        self.0.enter(session, user, assurance, Some(peer)).await
    }

    /// The second step without the authenticator: a recovery code, used once, leads to enrolment only.
    pub async fn recover(&self, session: &Session, code: &str, peer: IpAddr) -> Result<Next, Error> {
        let Stage::NeedsSecond { user, .. } = self.0.stage(session).await? else { return Err(Error::Expired) };
        let now = self.0.clock.now();
        self.0.allowed(user).await?;
        self.0.count_second(user, now).await?;
        let hash = fold_recovery(code).map(|c| chance::sha256(c.as_bytes()));
        let used = match hash {
            Some(hash) => self.0.store.use_recovery_code(user, &hash, peer, now).await.map_err(Error::store)?,
            None => false,
        };
        if !used {
            return Err(Error::refused(Why::WrongRecoveryCode, Some(user)));
        }
        self.0.forgive_second(user, now).await?;
        let id = SessionId::new(chance::id(now)?);
        self.0.advance(session, Stage::RecoveryOnly { user, since: now }, Keep::New(id), Some(peer)).await?;
        Ok(Next::Enrol)
    }

    /// Proves the second factor again, by a code or the answer of a passkey; the session stays the same under a new
    /// cookie. Gives which factor it was.
    pub async fn step_up(&self, session: &Session, code: &str, peer: IpAddr) -> Result<Factor, Error> {
        self.step_up_for(session, code, None, peer).await
    }

    /// The same for one intent, where there is one: grants may ask for that.
    pub async fn step_up_for(
        &self,
        session: &Session,
        code: &str,
        intent: Option<Intent>,
        peer: IpAddr,
    ) -> Result<Factor, Error> {
        let (user, id, mut assurance) = self.0.signed_in(session).await?;
        let now = self.0.clock.now();
        self.0.allowed(user).await?;
        let factor = self.0.accept_second(session, Purpose::StepUp, user, code, peer).await?;
        assurance.prove(factor, now);
        if let Some(intent) = intent {
            assurance.prove_for(intent, now);
        }
        let stage = Stage::SignedIn { user, session: id, assurance };
        self.0.advance(session, stage, Keep::Same(id), Some(peer)).await?;
        Ok(factor)
    }

    /// Ends the session of this browser, whatever its stage.
    pub async fn sign_out(&self, session: &Session) -> Result<(), Error> {
        session.flush().await.map_err(Error::Session)?;
        self.refresh().await
    }
}

#[cfg(test)]
mod tests;
