// SPDX-License-Identifier: Apache-2.0
//! Authenticator codes (RFC 6238): SHA-1, six digits, 30 seconds, as every app reads them.

use crate::{Error, Inner, Why, chance};
use portcullis_domain::{Secret, UserId};
use portcullis_store::{FactorId, Place, TotpFactor};
use time::OffsetDateTime;
use totp_rs::{Algorithm, Builder, Totp};
use unicode_normalization::UnicodeNormalization;

const STEP_SECONDS: u64 = 30;
const DIGITS: u8 = 6;
/// RFC 4226 section 4, R6: 160 bits.
const SECRET_LEN: usize = 20;

/// A code as it is compared: full-width digits folded, blanks and hyphens gone. None when it is no six digits.
pub(crate) fn fold_code(code: &str) -> Option<String> {
    if code.len() > 128 {
        return None;
    }
    let digits: String =
        code.nfkc().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{200b}' | '\u{feff}')).collect();
    (digits.len() == usize::from(DIGITS) && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

pub(crate) fn new_secret() -> Result<Secret, Error> {
    Ok(Secret::new(chance::bytes::<SECRET_LEN>()?.to_vec()))
}

pub(crate) fn build(secret: &Secret, skew: u8, issuer: &str, account: &str) -> Result<Totp, Error> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(u16::from(skew))
        .with_step_duration(STEP_SECONDS)
        .with_secret(secret.expose().to_vec())
        .with_issuer(Some(issuer))
        .with_account_name(account)
        .build()
        .map_err(|_| Error::Crypto("authenticator secret"))
}

/// The time step whose code this is, if it is that of one around now.
pub(crate) fn matching_step(totp: &Totp, code: &str, now: OffsetDateTime) -> Option<i64> {
    let code = fold_code(code)?;
    let step = totp.check(&code, u64::try_from(now.unix_timestamp()).ok()?)?;
    i64::try_from(step).ok()
}

impl Inner {
    /// The secret of an authenticator, opened from its row.
    pub(crate) fn open_factor(&self, factor: &TotpFactor) -> Result<Secret, Error> {
        let row = factor.id.to_string();
        let place = Place { table: "totp_factors", row: &row, column: "secret" };
        self.keys.open(&place, &factor.sealed).map_err(Error::store)
    }

    pub(crate) fn seal_factor(&self, id: FactorId, secret: &Secret) -> Result<Vec<u8>, Error> {
        let row = id.to_string();
        self.keys.seal(&Place { table: "totp_factors", row: &row, column: "secret" }, secret).map_err(Error::store)
    }

    /// Counts a try, then accepts a code of any confirmed authenticator of a person, once.
    pub(crate) async fn accept_code(&self, user: UserId, code: &str, now: OffsetDateTime) -> Result<(), Error> {
        self.count_second(user, now).await?;
        let mut why = Why::WrongCode;
        for factor in self.store.totp_factors(user).await.map_err(Error::store)? {
            if factor.confirmed_at.is_none() {
                continue;
            }
            let totp = build(&self.open_factor(&factor)?, self.settings.totp_skew, &self.settings.issuer, "")?;
            let Some(step) = matching_step(&totp, code, now) else { continue };
            if self.store.use_totp_step(factor.id, step).await.map_err(Error::store)? {
                return self.forgive_second(user, now).await;
            }
            why = Why::UsedCode;
        }
        Err(Error::refused(why, Some(user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_6238_are_accepted() {
        let totp = build(&Secret::new(b"12345678901234567890".to_vec()), 0, "x", "x").unwrap();
        // Appendix B, SHA-1: the last six of the eight digits.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(matching_step(&totp, code, at(seconds)), Some(seconds / 30), "{seconds}");
            assert_eq!(matching_step(&totp, code, at(seconds + 30)), None);
        }
    }

    // SEC-112
    #[test]
    fn a_clock_may_be_off_by_one_step_and_no_more() {
        let totp = build(&Secret::new(b"12345678901234567890".to_vec()), 1, "x", "x").unwrap();
        for (off, accepted) in [(-60, false), (-30, true), (0, true), (30, true), (60, false)] {
            let found = matching_step(&totp, "050471", at(1_111_111_111 + off));
            assert_eq!(found, accepted.then_some(1_111_111_111 / 30), "{off}");
        }
    }

    #[test]
    fn spellings_of_a_code_fold_to_one_and_nothing_else_does() {
        for spelling in ["123456", " 123456 ", "123 456", "123-456", "１２３４５６", "1２3\u{a0}456", "\u{feff}123456"]
        {
            assert_eq!(fold_code(spelling).as_deref(), Some("123456"), "{spelling:?}");
        }
        for bad in ["", "12345", "1234567", "12345a", "+12345", "１２３４５", &"1".repeat(4_000), "١٢٣٤٥٦"] {
            assert_eq!(fold_code(bad), None, "{bad:?}");
        }
    }
}
