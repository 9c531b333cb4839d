// SPDX-License-Identifier: Apache-2.0
//! Adding an authenticator app, and the recovery codes that come with the first second factor.

use crate::{
    Error, Identity, Inner, Why, chance,
    stage::{PENDING, Stage},
    totp,
};
use portcullis_domain::{Assurance, Factor, UserId};
use portcullis_store::{Digest, FactorId, Others, TotpFactor};
use qrcode::{EcLevel, QrCode, render::svg};
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;
use zeroize::Zeroizing;

const CODES: usize = 10;
/// A secret that was shown and not confirmed is not shown again after this.
const SHOWN: Duration = Duration::minutes(30);
pub(crate) const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What a person needs to put an authenticator in place. Show it once, on a page that is not stored.
pub struct Enrolment {
    /// The secret in base32 (RFC 4648 section 6), in groups of four.
    pub secret_text: Zeroizing<String>,
    /// The same as an `otpauth://` address.
    pub uri: Zeroizing<String>,
    /// The address as a picture: an `svg` element, without an XML declaration.
    pub qr_svg: Zeroizing<String>,
}

/// Where an enrolment begins.
#[derive(Clone, Copy)]
pub(crate) enum From {
    /// Nothing there yet.
    Nothing { since: OffsetDateTime },
    /// A recovery code was used: the old authenticators go.
    Recovery { since: OffsetDateTime },
    /// One more, by somebody signed in with a fresh factor.
    SignedIn,
}

pub(crate) fn grouped(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    for (i, c) in text.chars().filter(|c| *c != '=').enumerate() {
        if i > 0 && i % 4 == 0 {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// 80 random bits as 16 letters of base32.
fn recovery_code() -> Result<Zeroizing<String>, Error> {
    let bits = chance::bytes::<16>()?;
    // 256 is a multiple of 32: the low five bits of a random byte are as random.
    Ok(Zeroizing::new(bits.iter().filter_map(|b| BASE32.get(usize::from(b & 31))).map(|b| char::from(*b)).collect()))
}

fn picture(uri: &str) -> Result<Zeroizing<String>, Error> {
    let code = QrCode::with_error_correction_level(uri, EcLevel::M).map_err(|_| Error::Crypto("QR code"))?;
    let svg = Zeroizing::new(code.render::<svg::Color<'_>>().min_dimensions(240, 240).build());
    let start = svg.find("<svg").ok_or(Error::Crypto("QR code"))?;
    svg.get(start..).map(|s| Zeroizing::new(s.to_owned())).ok_or(Error::Crypto("QR code"))
}

impl Inner {
    /// Whose second factor is being added, and why it may be.
    pub(crate) async fn enrolling(&self, session: &Session) -> Result<(UserId, From), Error> {
        match self.stage(session).await? {
            Stage::MustEnrol { user, since } => Ok((user, From::Nothing { since })),
            Stage::RecoveryOnly { user, since } => Ok((user, From::Recovery { since })),
            Stage::SignedIn { .. } => Ok((self.signed_in_fresh(session).await?.0, From::SignedIn)),
            Stage::Stranger | Stage::NeedsSecond { .. } => Err(Error::Expired),
        }
    }

    /// The authenticator that this session began to enrol.
    async fn pending(&self, session: &Session, user: UserId) -> Result<Option<TotpFactor>, Error> {
        let Some(id) = session.get::<FactorId>(PENDING).await.map_err(Error::Session)? else { return Ok(None) };
        let now = self.clock.now();
        let factors = self.store.totp_factors(user).await.map_err(Error::store)?;
        Ok(factors.into_iter().find(|f| f.id == id && f.confirmed_at.is_none() && now < f.created_at + SHOWN))
    }

    pub(crate) async fn new_codes(&self, user: UserId) -> Result<Vec<Zeroizing<String>>, Error> {
        let mut shown = Vec::with_capacity(CODES);
        let mut hashes: Vec<Digest> = Vec::with_capacity(CODES);
        for _ in 0..CODES {
            let code = recovery_code()?;
            hashes.push(chance::sha256(code.as_bytes()));
            shown.push(Zeroizing::new(grouped(&code).replace(' ', "-")));
        }
        self.store.replace_recovery_codes(user, &hashes, self.clock.now()).await.map_err(Error::store)?;
        Ok(shown)
    }
}

impl Identity {
    /// Makes a secret for an authenticator, or shows again the one that this session has not confirmed yet.
    pub async fn begin_enrolment(&self, session: &Session) -> Result<Enrolment, Error> {
        let inner = &self.0;
        let (user, _) = inner.enrolling(session).await?;
        let name = inner.store.user(user).await.map_err(Error::store)?.ok_or(Error::Expired)?.name;
        let secret = if let Some(factor) = inner.pending(session, user).await? {
            inner.open_factor(&factor)?
        } else {
            let now = inner.clock.now();
            let (id, secret) = (FactorId::new(chance::id(now)?), totp::new_secret()?);
            let sealed = inner.seal_factor(id, &secret)?;
            inner.store.add_totp(id, user, "Authenticator", &sealed, now).await.map_err(Error::store)?;
            session.insert(PENDING, id).await.map_err(Error::Session)?;
            session.save().await.map_err(Error::Session)?;
            secret
        };
        let app = totp::build(&secret, inner.settings.totp_skew, &inner.settings.issuer, &name)?;
        let uri = Zeroizing::new(app.to_url().map_err(|_| Error::Crypto("authenticator address"))?);
        let base32 = Zeroizing::new(app.secret().to_base32());
        Ok(Enrolment { secret_text: grouped(&base32), qr_svg: picture(&uri)?, uri })
    }

    /// Accepts the first code of the new authenticator. At sign-in this completes it and gives ten recovery codes,
    /// to be shown once; for one more authenticator the codes stay what they are and the list is empty.
    pub async fn confirm_enrolment(
        &self,
        session: &Session,
        code: &str,
        peer: IpAddr,
    ) -> Result<Vec<Zeroizing<String>>, Error> {
        let inner = &self.0;
        let (user, from) = inner.enrolling(session).await?;
        let factor = inner.pending(session, user).await?.ok_or(Error::Expired)?;
        let now = inner.clock.now();
        inner.count_second(user, now).await?;
        let app = totp::build(&inner.open_factor(&factor)?, inner.settings.totp_skew, &inner.settings.issuer, "")?;
        let step = totp::matching_step(&app, code, now).ok_or(Error::refused(Why::WrongCode, Some(user)))?;
        let others = match from {
            From::Nothing { .. } => Others::None,
            From::Recovery { .. } => Others::Remove,
            From::SignedIn => Others::Keep,
        };
        if !inner.store.confirm_totp(factor.id, step, others, now).await.map_err(Error::store)? {
            return Err(Error::refused(Why::UsedCode, Some(user)));
        }
        inner.forgive_second(user, now).await?;
        self.enrolled(session, user, from, Factor::Totp, peer).await
    }

    /// What follows when a second factor was added: at sign-in that is complete, and there are recovery codes; for one
    /// more, every other session of its owner ends.
    pub(crate) async fn enrolled(
        &self,
        session: &Session,
        user: UserId,
        from: From,
        factor: Factor,
        peer: IpAddr,
    ) -> Result<Vec<Zeroizing<String>>, Error> {
        let inner = &self.0;
        let now = inner.clock.now();
        let why = "a second factor was added";
        let mut assurance = Assurance::default();
        match from {
            From::SignedIn => {
                let (_, id, _) = inner.signed_in(session).await?;
                inner.store.end_sessions_of(user, Some(id), now, why).await.map_err(Error::store)?;
                session.remove_value(PENDING).await.map_err(Error::Session)?;
                return Ok(Vec::new());
            }
            From::Nothing { since } => assurance.prove(inner.first_factor(session).await?, since),
            From::Recovery { since } => {
                assurance.prove(inner.first_factor(session).await?, since);
                assurance.prove(Factor::RecoveryCode, since);
            }
        }
        assurance.prove(factor, now);
        let id = inner.enter(session, user, assurance, Some(peer)).await?;
        inner.store.end_sessions_of(user, Some(id), now, why).await.map_err(Error::store)?;
        inner.new_codes(user).await
    }

    /// Replaces the ten recovery codes. Needs a second factor of the last five minutes.
    pub async fn regenerate_recovery_codes(&self, session: &Session) -> Result<Vec<Zeroizing<String>>, Error> {
        let (user, ..) = self.0.signed_in_fresh(session).await?;
        self.0.new_codes(user).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign_in::fold_recovery;

    #[test]
    fn recovery_codes_have_80_bits_and_fold_however_they_are_typed() {
        let code = recovery_code().unwrap();
        assert_eq!(code.len() * 5, 80);
        let shown = grouped(&code).replace(' ', "-");
        for spelling in [shown.clone(), shown.to_lowercase(), shown.replace('-', " "), code.to_string()] {
            assert_eq!(fold_recovery(&spelling).as_deref(), Some(code.as_str()));
        }
        assert_eq!(fold_recovery("0188 AAAA AAAA AAAA").as_deref(), Some("OIBBAAAAAAAAAAAA"));
        for bad in ["", "AAAA", "AAAA-AAAA-AAAA-AAA9", "AAAA-AAAA-AAAA-AAAAA"] {
            assert_eq!(fold_recovery(bad), None, "{bad}");
        }
        assert_ne!(*code, *recovery_code().unwrap());
    }

    #[test]
    fn the_picture_is_one_element_that_can_stand_in_a_page() {
        let svg = picture("otpauth://totp/Portcullis:ada?secret=GEZDGNBVGY3TQOJQ&issuer=Portcullis").unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("style=") && !svg.contains("<script"));
    }
}
