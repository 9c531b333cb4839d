// SPDX-License-Identifier: Apache-2.0
//! Proving oneself with a passkey: alone, after a password, or again.

use super::{
    Purpose,
    ceremony::{is_plain, read},
    relying::Relying,
};
use crate::{Error, Identity, Inner, Stage, Why};
use portcullis_domain::{Assurance, Factor, SessionId, UserId};
use portcullis_store::Passkey;
use std::net::IpAddr;
use time::OffsetDateTime;
use tower_sessions::Session;
use uuid::Uuid;
use webauthn_rs::prelude::{
    AuthenticationResult, Credential, DiscoverableAuthentication, PublicKeyCredential, RequestChallengeResponse,
    SecurityKey, SecurityKeyAuthentication, WebauthnError,
};
use webauthn_rs_proto::UserVerificationPolicy;

/// What an answer proved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proven {
    pub(crate) user: UserId,
    /// With its person checked, or only touched.
    pub(crate) factor: Factor,
}

/// What is held against an answer, by its purpose.
enum Asked {
    Alone(Box<DiscoverableAuthentication>),
    Known(Box<SecurityKeyAuthentication>, UserId),
}

/// Whether what was sent in place of a code is a passkey's answer: no code begins so, however it is typed.
pub(crate) fn is_answer(text: &str) -> bool {
    text.starts_with('{')
}

fn to_json(options: &RequestChallengeResponse) -> Result<String, Error> {
    serde_json::to_string(options).map_err(|_| Error::Crypto("passkey challenge"))
}

impl Asked {
    fn owner(&self) -> Option<UserId> {
        match self {
            Self::Alone(_) => None,
            Self::Known(_, user) => Some(*user),
        }
    }
}

impl Inner {
    pub(crate) async fn has_passkey(&self, user: UserId) -> Result<bool, Error> {
        Ok(!self.store.passkeys(user).await.map_err(Error::store)?.is_empty())
    }

    /// Asks a known person for one of their passkeys.
    async fn ask_known(&self, session: &Session, user: UserId, purpose: Purpose) -> Result<String, Error> {
        let relying = self.passkeys.relying()?;
        let there = self.store.passkeys(user).await.map_err(Error::store)?;
        let keys = there.iter().map(|p| self.open_for_second_step(p).map(SecurityKey::from));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(Error::NotFound("a passkey of yours"));
        }
        let asked = relying.webauthn.start_securitykey_authentication(&keys);
        let (mut options, state) = asked.map_err(|_| Error::Crypto("passkey challenge"))?;
        options.public_key.hints = None;
        if relying.always_verify {
            options.public_key.user_verification = UserVerificationPolicy::Required;
        }
        self.ask(session, purpose, &state).await?;
        to_json(&options)
    }

    /// What stands in place of a code: an authenticator app's code, or a passkey's answer to what this session was
    /// asked. Gives the factor that was proven.
    pub(crate) async fn accept_second(
        &self,
        session: &Session,
        purpose: Purpose,
        user: UserId,
        text: &str,
        peer: IpAddr,
    ) -> Result<Factor, Error> {
        if !is_answer(text) {
            self.accept_code(user, text, self.clock.now()).await?;
            return Ok(Factor::Totp);
        }
        let asked = self.asked(session, purpose, self.clock.now()).await?;
        Ok(self.prove(Asked::Known(Box::new(asked), user), text, peer).await?.factor)
    }

    /// Holds an answer against everything that it must be. Tries are counted first; whoever the answer names, and
    /// whether anybody has that passkey, the work is the same: where nobody has it, somebody's is read, opened and held
    /// against it in its place, and what comes of that counts for nothing.
    async fn prove(&self, asked: Asked, answer: &str, peer: IpAddr) -> Result<Proven, Error> {
        let relying = self.passkeys.relying()?;
        let now = self.clock.now();
        let owner = asked.owner();
        self.count_passkey_network(peer, now).await?;
        let Some(answer) = read::<PublicKeyCredential>(answer) else {
            return Err(Error::refused(Why::WrongPasskey, owner));
        };
        let found = self.store.passkey_or_another(&answer.raw_id).await.map_err(Error::store)?;
        let named = found.as_ref().map_or(UserId::new(Uuid::nil()), |k| k.user);
        let person = self.store.user(named).await.map_err(Error::store)?;
        let opened = found.as_ref().map(|k| self.open_credential(k)).transpose();
        let is_theirs = found.as_ref().is_some_and(|k| answer.raw_id == k.credential_id);
        let holder = is_theirs.then_some(named);
        let subject = self.passkey_subject(holder, &answer.raw_id, peer);
        self.count_passkey(&subject, now).await?;
        let refused = |why| Error::refused(why, holder.or(owner));

        let credential = match opened {
            Ok(opened) => opened.unwrap_or_else(|| relying.nobodys.clone()),
            // Somebody else's that cannot be opened is no matter of this answer.
            Err(_) if !is_theirs => relying.nobodys.clone(),
            Err(error) => return Err(error),
        };
        let result = check(relying, &asked, &answer, &Credential { cred_id: answer.raw_id.clone(), ..credential });
        let Some(kept) = found.filter(|_| is_theirs) else { return Err(refused(Why::UnknownPasskey)) };
        let result = result.map_err(refused)?;
        let theirs = owner.is_none_or(|owner| owner == kept.user);
        if !theirs || !names(&answer, kept.user, owner) {
            return Err(refused(Why::WrongPasskey));
        }
        if person.is_none_or(|p| !p.is_open()) {
            return Err(refused(Why::Disabled));
        }
        self.use_up(&kept, &result, now).await?;
        self.forgive_passkey(&subject, peer, now).await?;
        let factor = if result.user_verified() { Factor::Passkey } else { Factor::SecurityKey };
        Ok(Proven { user: kept.user, factor })
    }

    /// The counter goes up, or the answer does not count.
    async fn use_up(&self, kept: &Passkey, result: &AuthenticationResult, now: OffsetDateTime) -> Result<(), Error> {
        if self.store.use_passkey(kept.id, result.counter(), now).await.map_err(Error::store)? {
            return Ok(());
        }
        let there = self.store.passkey_by_credential(&kept.credential_id).await.map_err(Error::store)?;
        let why = if there.is_some() { Why::PasskeyCounter } else { Why::UnknownPasskey };
        Err(Error::refused(why, Some(kept.user)))
    }
}

/// Whether an answer names its owner: it must where nobody was known before, and may otherwise.
fn names(answer: &PublicKeyCredential, holder: UserId, owner: Option<UserId>) -> bool {
    answer.get_user_unique_id().map_or(owner.is_some(), |handle| handle == holder.uuid().as_bytes())
}

/// Everything about an answer that its credential and what was asked decide.
fn check(
    relying: &Relying,
    asked: &Asked,
    answer: &PublicKeyCredential,
    credential: &Credential,
) -> Result<AuthenticationResult, Why> {
    let verified = match asked {
        Asked::Alone(state) => {
            relying.webauthn.finish_discoverable_authentication_v2(answer, (**state).clone(), credential)
        }
        Asked::Known(state, _) => relying.webauthn.finish_securitykey_authentication(answer, state),
    };
    let verified = verified.map_err(|error| match error {
        WebauthnError::UserNotVerified => Why::UnverifiedPasskey,
        WebauthnError::CredentialPossibleCompromise => Why::PasskeyCounter,
        WebauthnError::CredentialNotFound => Why::UnknownPasskey,
        _ => Why::WrongPasskey,
    })?;
    // What the library leaves to its caller.
    if !is_plain(&answer.id, &answer.raw_id, &answer.type_, &answer.response.client_data_json) {
        return Err(Why::WrongPasskey);
    }
    let alone = matches!(asked, Asked::Alone(_));
    if (alone || relying.always_verify) && !verified.user_verified() {
        return Err(Why::UnverifiedPasskey);
    }
    Ok(verified)
}

impl Identity {
    /// What the browser is asked: JSON for `navigator.credentials.get`. After a password, for one of that person's
    /// passkeys; at any other stage, for any passkey of this gateway, whoever has it.
    pub async fn begin_passkey_sign_in(&self, session: &Session) -> Result<String, Error> {
        let inner = &self.0;
        let relying = inner.passkeys.relying()?;
        if let Stage::NeedsSecond { user, .. } = inner.stage(session).await? {
            return inner.ask_known(session, user, Purpose::SecondStep).await;
        }
        let asked = relying.webauthn.start_discoverable_authentication();
        let (mut options, state) = asked.map_err(|_| Error::Crypto("passkey challenge"))?;
        // A button asks for it, not the browser's list of names.
        options.mediation = None;
        inner.ask(session, Purpose::SignIn, &state).await?;
        to_json(&options)
    }

    /// Signs in with a passkey and nothing else: it must have checked its person. Whoever was signed in with this
    /// browser is signed out by it.
    pub async fn sign_in_with_passkey(
        &self,
        session: &Session,
        answer: &str,
        peer: IpAddr,
    ) -> Result<SessionId, Error> {
        let now = self.0.clock.now();
        let asked = self.0.asked(session, Purpose::SignIn, now).await?;
        let proven = self.0.prove(Asked::Alone(asked), answer, peer).await?;
        let mut assurance = Assurance::default();
        assurance.prove(proven.factor, now);
        self.0.forget_provider(session).await?;
        self.0.enter(session, proven.user, assurance, Some(peer)).await
    }

    /// What the browser is asked to confirm that it is still them: JSON for `navigator.credentials.get`. The answer is
    /// given in place of a code to [`Identity::step_up`].
    pub async fn begin_passkey_step_up(&self, session: &Session) -> Result<String, Error> {
        let (user, ..) = self.0.signed_in(session).await?;
        self.0.ask_known(session, user, Purpose::StepUp).await
    }
}
