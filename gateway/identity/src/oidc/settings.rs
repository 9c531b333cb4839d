// SPDX-License-Identifier: Apache-2.0
//! `[[identity.providers]]`: which providers there are, and what their word is worth here.

use portcullis_domain::{Conditions, RoleName, Selector};
use serde::Deserialize;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// One identity provider (OpenID Connect Core 1.0).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Its name in addresses and events: 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// What people call it: 1 to 64 characters.
    pub title: String,
    /// Its identifier, exactly as it writes it: an https address without query and fragment. Plain http only on
    /// loopback, for tests.
    pub issuer: String,
    /// What the provider calls this gateway.
    pub client_id: String,
    /// A file with the client's secret, readable by its owner only; none for a public client.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// PEM file with the authorities of the provider's certificate; none: those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    #[serde(default = "profile")]
    pub scopes: Vec<String>,
    /// The claim that `roles` look at unless they name another.
    #[serde(default = "groups")]
    pub groups_claim: String,
    /// What proves a second factor there; empty: nothing does, and the gateway asks for its own.
    #[serde(default)]
    pub second_factor: SecondFactor,
    /// How long ago the person may have signed in at the provider, in seconds, 0 to 86,400; none: as long as the
    /// provider likes.
    #[serde(default)]
    pub max_age_seconds: Option<u32>,
    /// Which value of which claim gives which role on what. What stands in no row gives nothing.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
}

/// Values of `acr` and `amr` (OpenID Connect Core 1.0 section 2) that prove a second factor: any one is enough.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecondFactor {
    /// Values of `acr`.
    pub acr: Vec<String>,
    /// Values of `amr`.
    pub amr: Vec<String>,
}

/// One row of the table of roles.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// The claim; none: the provider's `groups_claim`.
    #[serde(default)]
    pub claim: Option<String>,
    /// The value, exactly: the claim is it, or is a list that holds it.
    pub value: String,
    /// The role that it gives.
    pub role: RoleName,
    /// On what: `everything`, `hypervisor lab`, `pool lab/web`, `tag web` or `machine lab/web-1`.
    pub on: On,
    /// How old a fresh factor may be where one is needed, in seconds.
    #[serde(default = "five_minutes")]
    pub step_up_seconds: u32,
    /// Whether consoles must be recorded.
    #[serde(default = "yes")]
    pub record: bool,
}

impl RoleRule {
    /// What must hold while the role is used.
    pub fn conditions(&self) -> Conditions {
        Conditions { step_up_seconds: self.step_up_seconds, record: self.record, ..Conditions::default() }
    }
}

/// A selector as the configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct On(pub Selector);

impl TryFrom<String> for On {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (kind, value) = text.split_once(' ').unwrap_or((&text, ""));
        Selector::parse(kind, value).map(Self).map_err(|_| {
            format!(
                "{text:?} is nothing that a role can be given on: write everything, hypervisor NAME, \
                 pool HYPERVISOR/POOL, tag TAG or machine HYPERVISOR/MACHINE"
            )
        })
    }
}

fn profile() -> Vec<String> {
    vec!["profile".to_owned()]
}

fn groups() -> String {
    "groups".to_owned()
}

const fn five_minutes() -> u32 {
    300
}

const fn yes() -> bool {
    true
}

/// Whether an address may be spoken to: https, or http to this machine itself (tests and development).
pub(super) fn is_safe_address(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let Some(host) = uri.host().filter(|h| !h.is_empty()) else { return false };
    // Credentials in an address have no place in a configuration or a discovery document.
    let plain = !text.contains(['@', '#', '\\']) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    plain && matches!((uri.scheme_str(), loopback), (Some("https"), _) | (Some("http"), true))
}

impl ProviderSettings {
    /// The claim that a row looks at.
    pub(super) fn claim_of<'a>(&'a self, rule: &'a RoleRule) -> &'a str {
        rule.claim.as_deref().unwrap_or(&self.groups_claim)
    }

    /// Whether the provider can confirm again who somebody is: its second factor counts here.
    pub(super) fn confirms(&self) -> bool {
        !self.second_factor.acr.is_empty() || !self.second_factor.amr.is_empty()
    }

    /// Makes relative paths count from a folder.
    pub(crate) fn rebase(&mut self, base: &Path) {
        for path in [&mut self.client_secret_file, &mut self.ca_file].into_iter().flatten() {
            if path.is_relative() {
                *path = base.join(&*path);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let slug = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let plain =
            |text: &str, most: usize| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let token = |text: &String| plain(text, 64) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        let name = &self.name;
        if !(1..=32).contains(&name.len()) || !name.bytes().all(slug) {
            return Err(format!("name: {name:?} must be 1 to 32 of a-z 0-9 -"));
        }
        let rules = [
            (plain(&self.title, 64), "title must be 1 to 64 characters"),
            (
                is_safe_address(&self.issuer) && !self.issuer.contains('?') && self.issuer.len() <= 255,
                "issuer must be an https address without query and fragment",
            ),
            (plain(&self.client_id, 255), "client_id must be 1 to 255 characters"),
            (self.scopes.iter().all(token), "scopes must be words without blanks"),
            (plain(&self.groups_claim, 128), "groups_claim must be 1 to 128 characters"),
            (self.max_age_seconds.is_none_or(|s| s <= 86_400), "max_age_seconds must be 0 to 86400"),
            (
                self.second_factor.acr.iter().chain(&self.second_factor.amr).all(|v| plain(v, 255)),
                "second_factor.acr and second_factor.amr must hold values of 1 to 255 characters",
            ),
            (self.roles.iter().all(|r| plain(&r.value, 255)), "roles.value must be 1 to 255 characters"),
            (
                self.roles.iter().all(|r| r.claim.as_ref().is_none_or(|c| plain(c, 128))),
                "roles.claim must be 1 to 128 characters",
            ),
            (self.roles.iter().all(|r| r.step_up_seconds <= 86_400), "roles.step_up_seconds must be 0 to 86400"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => Err(format!("{name}: {rule}")),
            None => self.check_roles(),
        }
    }

    /// The table on what nobody should get anything for: what answers to everything would be no restriction.
    fn check_roles(&self) -> Result<(), String> {
        let mut samples = vec![serde_json::Map::new()];
        for rule in &self.roles {
            let mut claims = serde_json::Map::new();
            claims.insert(self.claim_of(rule).to_owned(), format!("{}\u{0}", rule.value).into());
            samples.push(claims);
        }
        if samples.iter().all(|claims| self.roles_for(claims).is_ok_and(|roles| roles.is_empty())) {
            Ok(())
        } else {
            Err(format!("{}: roles give something to somebody without any of their values", self.name))
        }
    }
}

/// Checks all of them together.
pub(crate) fn check(providers: &[ProviderSettings]) -> Result<(), String> {
    let (mut names, mut issuers) = (HashSet::new(), HashSet::new());
    for provider in providers {
        provider.check().map_err(|why| format!("providers.{why}"))?;
        if !names.insert(&provider.name) {
            return Err(format!("providers.name: {:?} stands twice", provider.name));
        }
        if !issuers.insert(&provider.issuer) {
            return Err(format!("providers.issuer: {:?} stands twice", provider.issuer));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(more: &str) -> Result<ProviderSettings, String> {
        let text = format!(
            r#"{{"name": "corp", "title": "Example", "issuer": "https://id.example", "client_id": "g"{more}}}"#
        );
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    #[test]
    fn each_wrong_value_is_named() {
        assert_eq!(check(&[provider("").unwrap()]), Ok(()));
        let base = || provider("").unwrap();
        for (bad, word) in [
            (ProviderSettings { name: "Corp".into(), ..base() }, "name"),
            (ProviderSettings { name: String::new(), ..base() }, "name"),
            (ProviderSettings { title: "a\nb".into(), ..base() }, "title"),
            (ProviderSettings { issuer: "http://id.example".into(), ..base() }, "issuer"),
            (ProviderSettings { issuer: "https://id.example?x".into(), ..base() }, "issuer"),
            (ProviderSettings { issuer: "https://u@id.example".into(), ..base() }, "issuer"),
            (ProviderSettings { issuer: "id.example".into(), ..base() }, "issuer"),
            (ProviderSettings { client_id: String::new(), ..base() }, "client_id"),
            (ProviderSettings { scopes: vec!["a b".into()], ..base() }, "scopes"),
            (ProviderSettings { max_age_seconds: Some(86_401), ..base() }, "max_age_seconds"),
            (
                ProviderSettings { second_factor: SecondFactor { acr: vec![String::new()], amr: vec![] }, ..base() },
                "second_factor",
            ),
            (provider(r#", "roles": [{"value": "", "role": "viewer", "on": "everything"}]"#).unwrap(), "roles.value"),
        ] {
            let why = check(std::slice::from_ref(&bad)).unwrap_err();
            assert!(why.starts_with("providers.") && why.contains(word), "{why}");
        }
        assert!(check(&[base(), base()]).unwrap_err().contains("twice"));
        let other = ProviderSettings { name: "two".into(), ..base() };
        assert!(check(&[base(), other]).unwrap_err().contains("issuer"));
        assert!(check(&[ProviderSettings { issuer: "http://localhost:9/x".into(), ..base() }]).is_ok());
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for bad in [
            r#", "colour": 1"#,
            r#", "second_factor": {"acrs": []}"#,
            r#", "roles": [{"value": "v", "role": "viewer", "on": "everyone"}]"#,
            r#", "roles": [{"value": "v", "role": "viewer"}]"#,
            r#", "roles": [{"value": "v", "role": "viewer", "on": "everything", "until": 1}]"#,
        ] {
            assert!(provider(bad).is_err(), "{bad}");
        }
        for (text, on) in [
            ("everything", Selector::Everything),
            ("hypervisor lab", Selector::Hypervisor("lab".parse().unwrap())),
            ("pool lab/web tier", Selector::Pool("lab".parse().unwrap(), "web tier".into())),
            ("tag web", Selector::Tag("web".into())),
            ("machine lab/web-1", Selector::Machine("lab/web-1".parse().unwrap())),
        ] {
            assert_eq!(On::try_from(text.to_owned()), Ok(On(on)));
        }
    }
}
