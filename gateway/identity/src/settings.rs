// SPDX-License-Identifier: Apache-2.0
//! What an operator may choose about signing in.

use crate::{
    Error,
    oidc::{self, ProviderSettings},
    webauthn::PasskeySettings,
};
use portcullis_domain::Network;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use time::Duration;

/// The longest banner, in characters.
const LONGEST_BANNER: usize = 4_000;

/// What a password has to be: `[identity.passwords]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordSettings {
    /// The shortest password, in code points. 8 to 64; 8 by default, because a second factor is always asked for beside
    /// it (NIST SP 800-63B-4 3.1.1.2). 15 where it should hold alone.
    pub shortest: usize,
    /// A file of SHA-1 digests of stolen passwords, sorted; see the `blocklist` module. None: only the common ones that
    /// the program knows are refused.
    pub blocklist: Option<PathBuf>,
}

impl Default for PasswordSettings {
    fn default() -> Self {
        Self { shortest: 8, blocklist: None }
    }
}

/// Sealed codes for emergencies: `[identity.break_glass]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakGlassSettings {
    /// The networks from which alone a code counts. The machine itself by default; none: nobody can use one.
    pub networks: Vec<Network>,
}

impl Default for BreakGlassSettings {
    fn default() -> Self {
        let own = ["127.0.0.0/8", "::1"].iter().filter_map(|n| n.parse().ok()).collect();
        Self { networks: own }
    }
}

/// Settings of sign-in; the defaults are the secure ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many passwords may be hashed at the same time, 19 MiB of memory each. 1 to 64; half the cores by default.
    pub hash_threads: usize,
    /// A session ends after so many seconds without a request. 60 to 86,400; 1,800 by default.
    pub idle_seconds: u32,
    /// The same for people who hold administrator or security-lead, where it is shorter. 60 to 86,400; 900 by default.
    pub strict_idle_seconds: u32,
    /// A session ends so many seconds after sign-in, whatever happens. 300 to 604,800; 43,200 by default.
    pub absolute_seconds: u32,
    /// How many time steps of 30 s an authenticator's clock may be off. 0 or 1; 1 by default.
    pub totp_skew: u8,
    /// What authenticator apps show beside the name. 1 to 64 characters without a colon.
    pub issuer: String,
    /// How many sessions a person may have at once; the oldest ends. 1 to 100; 5 by default.
    pub sessions_per_user: u32,
    /// Identity providers that people can sign in at.
    pub providers: Vec<ProviderSettings>,
    /// What everybody reads and has to confirm after signing in, at most 4,000 characters. Empty: nothing.
    pub banner: String,
    /// What a password has to be.
    pub passwords: PasswordSettings,
    /// Sealed codes for emergencies.
    pub break_glass: BreakGlassSettings,
    /// Passkeys.
    pub passkeys: PasskeySettings,
    /// The portal's own origin, `https://host[:port]`, which passkeys are bound to. Set by whoever reads the
    /// configuration; without it there are none.
    #[serde(skip)]
    pub portal: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hash_threads: std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)).min(64),
            idle_seconds: 30 * 60,
            strict_idle_seconds: 15 * 60,
            absolute_seconds: 12 * 60 * 60,
            totp_skew: 1,
            issuer: "Portcullis".to_owned(),
            sessions_per_user: 5,
            providers: Vec::new(),
            banner: String::new(),
            passwords: PasswordSettings::default(),
            break_glass: BreakGlassSettings::default(),
            passkeys: PasskeySettings::default(),
            portal: String::new(),
        }
    }
}

impl Settings {
    /// Refuses what is out of range, naming the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let issuer = self.issuer.chars().count();
        let rules = [
            ((1..=64).contains(&self.hash_threads), "hash_threads must be 1 to 64"),
            ((60..=86_400).contains(&self.idle_seconds), "idle_seconds must be 60 to 86400"),
            ((60..=86_400).contains(&self.strict_idle_seconds), "strict_idle_seconds must be 60 to 86400"),
            ((300..=604_800).contains(&self.absolute_seconds), "absolute_seconds must be 300 to 604800"),
            (self.totp_skew <= 1, "totp_skew must be 0 or 1"),
            (
                (1..=64).contains(&issuer) && !self.issuer.contains(|c: char| c == ':' || c.is_control()),
                "issuer must be 1 to 64 characters without a colon",
            ),
            ((1..=100).contains(&self.sessions_per_user), "sessions_per_user must be 1 to 100"),
            (self.banner.chars().count() <= LONGEST_BANNER, "banner must be at most 4000 characters"),
            ((8..=64).contains(&self.passwords.shortest), "passwords.shortest must be 8 to 64"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => Err(Error::Settings((*rule).to_owned())),
            None => oidc::check(&self.providers).map_err(Error::Settings),
        }
    }

    /// Makes relative paths count from a folder.
    pub fn rebase(&mut self, base: &Path) {
        self.providers.iter_mut().for_each(|provider| provider.rebase(base));
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::seconds(i64::from(self.idle_seconds))
    }

    pub(crate) fn strict_idle(&self) -> Duration {
        Duration::seconds(i64::from(self.strict_idle_seconds)).min(self.idle())
    }

    pub(crate) fn absolute(&self) -> Duration {
        Duration::seconds(i64::from(self.absolute_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_everything_out_of_range_is_named() {
        assert!(Settings::default().check().is_ok());
        let d = Settings::default;
        for (bad, key) in [
            (Settings { hash_threads: 0, ..d() }, "hash_threads"),
            (Settings { idle_seconds: 59, ..d() }, "idle_seconds"),
            (Settings { strict_idle_seconds: 59, ..d() }, "strict_idle_seconds"),
            (Settings { absolute_seconds: 604_801, ..d() }, "absolute_seconds"),
            (Settings { totp_skew: 2, ..d() }, "totp_skew"),
            (Settings { issuer: "a:b".into(), ..d() }, "issuer"),
            (Settings { issuer: String::new(), ..d() }, "issuer"),
            (Settings { sessions_per_user: 0, ..d() }, "sessions_per_user"),
            (Settings { banner: "x".repeat(4_001), ..d() }, "banner"),
            (Settings { passwords: PasswordSettings { shortest: 7, blocklist: None }, ..d() }, "passwords.shortest"),
        ] {
            assert!(bad.check().unwrap_err().to_string().contains(key), "{key}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(serde_json::from_str::<Settings>(r#"{"idle_second": 60}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"break_glass": {"networks": ["10.1.2.3/8"]}}"#).is_err());
        assert_eq!(serde_json::from_str::<Settings>(r#"{"idle_seconds": 60}"#).unwrap().idle(), Duration::MINUTE);
    }
}
