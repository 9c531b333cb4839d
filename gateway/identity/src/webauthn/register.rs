// SPDX-License-Identifier: Apache-2.0
//! Adding a passkey: at first enrolment, after a recovery code, or as one more.

use super::{
    Purpose,
    ceremony::{is_plain, read},
};
use crate::{Error, Identity, Why, chance, enrol::From, rules};
use portcullis_domain::Factor;
use portcullis_store::{FactorId, NewPasskey, Others};
use std::net::IpAddr;
use tower_sessions::Session;
use webauthn_rs::prelude::{Credential, RegisterPublicKeyCredential, SecurityKeyRegistration, WebauthnError};
use webauthn_rs_proto::{ResidentKeyRequirement, UserVerificationPolicy};
use zeroize::Zeroizing;

/// How many one person may have.
const MOST: usize = 20;
/// Longest name that an authenticator gives a credential, in bytes (WebAuthn Level 3, 4 "Credential ID").
const LONGEST_ID: usize = 1023;

impl Identity {
    /// What the browser is asked, to make a passkey: JSON for `navigator.credentials.create`. Needs what
    /// [`Identity::begin_enrolment`] needs.
    pub async fn begin_passkey(&self, session: &Session) -> Result<String, Error> {
        let inner = &self.0;
        let relying = inner.passkeys.relying()?;
        let (user, _) = inner.enrolling(session).await?;
        let found = inner.store.user(user).await.map_err(Error::store)?.ok_or(Error::Expired)?;
        let there = inner.store.passkeys(user).await.map_err(Error::store)?;
        if there.len() >= MOST {
            return Err(Error::Invalid(format!("{MOST} passkeys are enough: remove one first")));
        }
        let there = there.into_iter().map(|p| p.credential_id).collect();
        let (mut options, state) = relying
            .webauthn
            .start_securitykey_registration(
                user.uuid(),
                &found.name,
                &found.display_name,
                Some(there),
                relying.allowed.clone(),
                None,
            )
            .map_err(|_| Error::Crypto("passkey challenge"))?;
        // Asked for here and held against the answer in confirm_passkey: options are the browser's to ignore.
        if relying.allowed.is_none() {
            options.public_key.hints = None;
        }
        if let Some(extensions) = options.public_key.extensions.as_mut().filter(|_| !relying.always_verify) {
            // A key that protects itself so would not do for a touch; Chromium refuses to be asked for both.
            extensions.cred_protect = None;
        }
        if let Some(selection) = &mut options.public_key.authenticator_selection {
            selection.resident_key = Some(ResidentKeyRequirement::Preferred);
            if relying.always_verify {
                selection.user_verification = UserVerificationPolicy::Required;
            }
        }
        inner.ask(session, Purpose::Register, &state).await?;
        serde_json::to_string(&options).map_err(|_| Error::Crypto("passkey challenge"))
    }

    /// Accepts a new passkey under a name of 1 to 64 characters. At sign-in this completes it and gives ten recovery
    /// codes, to be shown once; for one more the codes stay what they are and the list is empty.
    pub async fn confirm_passkey(
        &self,
        session: &Session,
        answer: &str,
        name: &str,
        peer: IpAddr,
    ) -> Result<Vec<Zeroizing<String>>, Error> {
        let inner = &self.0;
        let relying = inner.passkeys.relying()?;
        let (user, from) = inner.enrolling(session).await?;
        let now = inner.clock.now();
        let name = rules::check_label(name)?;
        let asked: SecurityKeyRegistration = inner.asked(session, Purpose::Register, now).await?;
        let refused = |why| Error::refused(why, Some(user));
        let answer: RegisterPublicKeyCredential = read(answer).ok_or_else(|| refused(Why::WrongPasskey))?;
        if !is_plain(&answer.id, &answer.raw_id, &answer.type_, &answer.response.client_data_json) {
            return Err(refused(Why::WrongPasskey));
        }
        let made = relying.webauthn.finish_securitykey_registration(&answer, &asked);
        let made: Credential = made.map_err(|error| refuse(&error, user))?.into();
        if made.cred_id != answer.raw_id || !(1..=LONGEST_ID).contains(&made.cred_id.len()) {
            return Err(refused(Why::WrongPasskey));
        }
        if relying.always_verify && !made.user_verified {
            let what = "this key did not ask for a PIN, a finger or a face: set one up on it, then add it";
            return Err(Error::Invalid(what.to_owned()));
        }
        let id = FactorId::new(chance::id(now)?);
        let factor = if made.user_verified { Factor::Passkey } else { Factor::SecurityKey };
        let new = NewPasskey {
            id,
            user,
            name,
            credential_id: made.cred_id.clone(),
            sign_count: made.counter,
            sealed: inner.seal_credential(id, user, made)?,
        };
        let others = match from {
            From::Nothing { .. } => Others::None,
            From::Recovery { .. } => Others::Remove,
            From::SignedIn => Others::Keep,
        };
        if !inner.store.add_passkey(&new, others, now).await.map_err(Error::store)? {
            return Err(Error::Expired);
        }
        self.enrolled(session, user, from, factor, peer).await
    }
}

/// Why a new passkey was not accepted. Its person is known, and is told what they can do about it.
fn refuse(error: &WebauthnError, user: portcullis_domain::UserId) -> Error {
    match error {
        WebauthnError::AttestationNotVerifiable
        | WebauthnError::AttestationUntrustedAaguid
        | WebauthnError::AttestationFormatMissingAaguid
        | WebauthnError::AttestationChainNotTrusted(_)
        | WebauthnError::AttestationNotSupported => {
            Error::Invalid("this model of key is not allowed here: ask an administrator which ones are".to_owned())
        }
        _ => Error::refused(Why::WrongPasskey, Some(user)),
    }
}
