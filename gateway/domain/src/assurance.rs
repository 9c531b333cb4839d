// SPDX-License-Identifier: Apache-2.0
//! How sure the gateway is of a person: which factors, and when.

use crate::intent::Intent;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// How long a sealed code for emergencies counts, and counts as fresh: nothing else may be there to prove.
pub const EMERGENCY: Duration = Duration::HOUR;

/// One proof of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// A password.
    Password,
    /// A code of RFC 6238.
    Totp,
    /// A single-use recovery code: leads to enrolment only.
    RecoveryCode,
    /// A passkey that also checked a PIN, a finger or a face: two factors in one.
    Passkey,
    /// A passkey or security key that was only touched.
    SecurityKey,
    /// A sign-in at an identity provider.
    Provider,
    /// A token that the gateway minted for a tool.
    Token,
    /// A second factor that an identity provider asked for, where the configuration says that its word counts.
    ProviderSecond,
    /// A sealed code for emergencies.
    BreakGlass,
}

impl Factor {
    /// The word shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "authenticator code",
            Self::RecoveryCode => "recovery code",
            Self::Passkey => "passkey",
            Self::SecurityKey => "security key",
            Self::Provider => "company sign-in",
            Self::Token => "token",
            Self::ProviderSecond => "second factor of the company sign-in",
            Self::BreakGlass => "sealed emergency code",
        }
    }
}

/// How much was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing.
    None,
    /// One factor.
    One,
    /// Two different factors.
    Two,
}

/// How many intents are kept that something was proven for: the newest.
const MOST_INTENTS: usize = 8;

/// The proofs of one session. The newest proof of each factor counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assurance {
    proofs: Vec<(Factor, OffsetDateTime)>,
    /// What a strong factor was proven for alone, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    intents: Vec<(Intent, OffsetDateTime)>,
}

impl Assurance {
    /// Adds a proof; an older one of the same factor is replaced.
    pub fn prove(&mut self, factor: Factor, at: OffsetDateTime) {
        self.proofs.retain(|(f, _)| *f != factor);
        self.proofs.push((factor, at));
    }

    /// Notes what a strong factor was proven for at an instant.
    pub fn prove_for(&mut self, intent: Intent, at: OffsetDateTime) {
        self.intents.retain(|(i, _)| *i != intent);
        let too_many = (self.intents.len() + 1).saturating_sub(MOST_INTENTS);
        self.intents.drain(..too_many);
        self.intents.push((intent, at));
    }

    /// When a strong factor was proven for an intent, if that is at most `window` ago.
    pub fn proven_for(&self, intent: &Intent, window: Duration, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let at = self.intents.iter().find(|(i, _)| i == intent).map(|(_, at)| *at)?;
        (at <= now && now - at <= window).then_some(at)
    }

    /// Whether a sealed code for emergencies still counts.
    pub fn is_emergency(&self, now: OffsetDateTime) -> bool {
        self.emergency_at().is_some_and(|at| at <= now && now - at <= EMERGENCY)
    }

    /// The proofs, oldest first.
    pub fn proofs(&self) -> &[(Factor, OffsetDateTime)] {
        &self.proofs
    }

    /// Whether a factor was proven, whenever that was.
    pub fn has(&self, factor: Factor) -> bool {
        self.proofs.iter().any(|(f, _)| *f == factor)
    }

    /// How much was proven, whenever that was. A passkey alone counts as two: something held, and a PIN, finger or face.
    /// One that was only touched is what is held, and no more. A token counts as what its maker proved: two. So does a
    /// sealed code: it was made at the gateway's own machine, and the network it is used from is checked.
    pub fn level(&self) -> Level {
        let has = |f| self.has(f);
        if has(Factor::Passkey)
            || has(Factor::Token)
            || has(Factor::BreakGlass)
            || (has(Factor::Password) || has(Factor::Provider)) && (has(Factor::Totp) || has(Factor::SecurityKey))
            || has(Factor::Provider) && has(Factor::ProviderSecond)
        {
            Level::Two
        } else if self.proofs.is_empty() {
            Level::None
        } else {
            Level::One
        }
    }

    /// When a second factor (or a passkey) was last proven.
    pub fn stepped_up_at(&self) -> Option<OffsetDateTime> {
        let strong = |f| matches!(f, Factor::Totp | Factor::Passkey | Factor::SecurityKey | Factor::ProviderSecond);
        self.proofs.iter().filter(|(f, _)| strong(*f)).map(|(_, at)| *at).max()
    }

    /// Whether two factors were proven and the strong one is at most `window` old. A proof from the future
    /// (a clock that was set back) is not fresh.
    pub fn is_fresh(&self, window: Duration, now: OffsetDateTime) -> bool {
        let within = |at: OffsetDateTime| at <= now && now - at <= window;
        self.level() == Level::Two && (self.stepped_up_at().is_some_and(within) || self.is_emergency(now))
    }

    /// Until when a fresh factor is not asked for, with a window.
    pub fn fresh_until(&self, window: Duration) -> Option<OffsetDateTime> {
        self.stepped_up_at().map(|at| at + window).max(self.emergency_at().map(|at| at + EMERGENCY))
    }

    /// When a sealed code for emergencies was used.
    fn emergency_at(&self) -> Option<OffsetDateTime> {
        self.proofs.iter().find(|(f, _)| *f == Factor::BreakGlass).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_proof_is_fresh_inside_its_window_only() {
        let t = datetime!(2026-01-01 00:00 UTC);
        let mut a = Assurance::default();
        a.prove(Factor::Password, t);
        assert_eq!(a.level(), Level::One);
        assert!(!a.is_fresh(Duration::minutes(5), t));
        a.prove(Factor::Totp, t);
        assert_eq!(a.level(), Level::Two);
        assert!(a.is_fresh(Duration::minutes(5), t + Duration::minutes(5)));
        assert!(!a.is_fresh(Duration::minutes(5), t + Duration::minutes(5) + Duration::SECOND));
        assert!(!a.is_fresh(Duration::minutes(5), t - Duration::SECOND));
    }

    #[test]
    fn a_provider_is_one_factor_unless_its_second_counts_too() {
        let t = datetime!(2026-01-01 00:00 UTC);
        let mut a = Assurance::default();
        a.prove(Factor::ProviderSecond, t);
        assert_eq!(a.level(), Level::One);
        a.prove(Factor::Provider, t + Duration::HOUR);
        assert_eq!(a.level(), Level::Two);
        assert!(a.is_fresh(Duration::minutes(5), t) && !a.is_fresh(Duration::minutes(5), t + Duration::HOUR));
        let mut b = Assurance::default();
        b.prove(Factor::Provider, t);
        assert_eq!((b.level(), b.stepped_up_at()), (Level::One, None));
    }

    #[test]
    fn a_sealed_code_counts_for_an_hour_whatever_the_window() {
        let t = datetime!(2026-01-01 00:00 UTC);
        let mut a = Assurance::default();
        a.prove(Factor::BreakGlass, t);
        assert_eq!(a.level(), Level::Two);
        assert!(a.is_fresh(Duration::ZERO, t + Duration::HOUR));
        assert!(!a.is_fresh(Duration::ZERO, t + Duration::HOUR + Duration::SECOND));
        assert!(!a.is_fresh(Duration::HOUR, t - Duration::SECOND));
        assert_eq!(a.fresh_until(Duration::MINUTE), Some(t + Duration::HOUR));
    }

    #[test]
    fn a_passkey_that_checked_its_person_is_two_factors_and_a_touch_is_one() {
        let t = datetime!(2026-01-01 00:00 UTC);
        let mut verified = Assurance::default();
        verified.prove(Factor::Passkey, t);
        assert!(verified.is_fresh(Duration::minutes(5), t));
        let mut touched = Assurance::default();
        touched.prove(Factor::SecurityKey, t);
        assert_eq!(touched.level(), Level::One);
        assert!(!touched.is_fresh(Duration::minutes(5), t));
        touched.prove(Factor::Password, t);
        assert!(touched.is_fresh(Duration::minutes(5), t));
    }

    #[test]
    fn a_recovery_code_is_no_second_factor() {
        let t = datetime!(2026-01-01 00:00 UTC);
        let mut a = Assurance::default();
        a.prove(Factor::Password, t);
        a.prove(Factor::RecoveryCode, t);
        assert_eq!(a.level(), Level::One);
    }
}
