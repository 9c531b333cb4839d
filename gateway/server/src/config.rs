// SPDX-License-Identifier: Apache-2.0
//! The configuration file: every key typed, an unknown key refused, every message naming the file and the key.
//!
//! `PORTCULLIS__SECTION__KEY=value` in the environment overrides `[section] key`. Relative paths count from the
//! folder of the file. Secrets never stand in the file: keys name files.

mod access;
mod adding;
mod mail;

pub(crate) use access::{PolicySection, Requests};
pub(crate) use adding::Adding;
pub(crate) use mail::{MailSection, MailTlsWord};

use portcullis_domain::{Network, RoleName, Selector};
use portcullis_identity::Settings as IdentitySettings;
use portcullis_upstream::{HypervisorConfig, VaultConfig};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// A configuration that cannot be used: one line that names the file and the key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", file.display())]
pub struct ConfigError {
    file: PathBuf,
    message: String,
}

impl ConfigError {
    /// For a file and what is wrong in it.
    pub fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), message: message.into() }
    }
}

/// Everything that the file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this configuration was read; set by [`Config::read`].
    #[serde(skip)]
    pub file: PathBuf,
    /// The pages and the gateway's own API.
    pub portal: Portal,
    /// The certificate of every HTTPS listener.
    pub tls: Tls,
    /// The key file.
    pub keys: Keys,
    /// The database.
    pub store: StoreSection,
    /// The audit trail.
    pub trail: TrailSection,
    /// Console recordings.
    pub recordings: Recordings,
    /// Health and metrics.
    #[serde(default)]
    pub health: Health,
    /// Sign-in and sessions.
    #[serde(default)]
    pub identity: IdentitySettings,
    /// Networks by the names that people know them under.
    #[serde(default)]
    pub zones: BTreeMap<String, Vec<Network>>,
    /// Accounts that a directory keeps.
    #[serde(default)]
    pub scim: Scim,
    /// Roles that are kept apart.
    #[serde(default)]
    pub policy: PolicySection,
    /// Access requests.
    #[serde(default)]
    pub requests: Requests,
    /// The server that takes mail. None: nobody is told by mail.
    pub mail: Option<MailSection>,
    /// Limits of every listener.
    #[serde(default)]
    pub limits: Limits,
    /// Console sessions.
    #[serde(default)]
    pub consoles: Consoles,
    /// Where secrets of hypervisors come from that are in no file.
    #[serde(default)]
    pub vault: Option<VaultConfig>,
    /// Adding hypervisors while the gateway runs.
    #[serde(default)]
    pub adding: Adding,
    /// The hypervisors behind this gateway.
    #[serde(default)]
    pub hypervisors: Vec<HypervisorConfig>,
}

/// `[portal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    /// The address people type: `https://console.example.org`, no path. Its host decides which `Host` is answered,
    /// its origin which requests may change something.
    pub external_url: String,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Where hypervisor APIs live: `<name>.<api_domain>` by `Host`, on the portal's listeners. Empty: by own ports only.
    #[serde(default)]
    pub api_domain: String,
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate, then its issuers.
    pub cert_file: PathBuf,
    /// PEM file with its private key; not readable by others.
    pub key_file: PathBuf,
}

/// `[keys]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The key file that `portcullis init` made, mode 0400.
    pub file: PathBuf,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// `sqlite:///path/to/file.db` or `postgres://user@host/database`.
    pub url: String,
}

/// `[trail]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailSection {
    /// Folder of this node's log.
    pub dir: PathBuf,
}

/// `[recordings]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recordings {
    /// Folder of the recordings.
    pub dir: PathBuf,
    /// Free space below which no recorded console opens, in MiB.
    #[serde(default = "two_gib")]
    pub min_free_mib: u64,
}

/// `[health]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Address of `/healthz`, `/readyz` and `/metrics`; loopback is advised. None: not served.
    pub listen: Option<SocketAddr>,
}

/// `[scim]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scim {
    /// The service account whose tokens a directory presents at `/scim/v2`. None: nothing is answered there.
    pub account: Option<String>,
    /// What a group gives to those who are in it. A group that is not here gives nothing.
    #[serde(default)]
    pub groups: Vec<DirectoryGroup>,
}

/// `[[scim.groups]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGroup {
    /// What the directory calls the group.
    pub name: String,
    /// The role that it gives.
    pub role: RoleName,
    /// On what: `everything`, `hypervisor:NAME`, `pool:HYPERVISOR/POOL`, `tag:TAG` or `machine:HYPERVISOR/ID`.
    pub on: String,
}

impl DirectoryGroup {
    /// What it gives the role on; none when that cannot be read.
    pub fn selector(&self) -> Option<Selector> {
        let (kind, value) = self.on.split_once(':').unwrap_or((&self.on, ""));
        Selector::parse(kind, value).ok()
    }

    /// The same in words, by which a grant that it gave is known again.
    pub fn words(&self) -> String {
        format!("{} on {}", self.role, self.on)
    }
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Worker threads, each with its own listeners; 0 means one a core.
    pub shards: usize,
    /// Connections open at once, over all listeners.
    pub connections: usize,
    /// Connections open at once from one network (/24, /64), so that one cannot keep everybody else out.
    pub connections_per_network: usize,
    /// Requests a second and address prefix (/24, /64) before sign-in.
    pub stranger_per_second: u32,
    /// The burst on top of it.
    pub stranger_burst: u32,
    /// Requests a second that one token may make.
    pub token_per_second: u32,
    /// How many of them may come at once.
    pub token_burst: u32,
    /// Passwords that may be tried in a minute from one address prefix, right ones too.
    pub sign_in_per_minute: u32,
    /// Passkeys that may be asked for in a minute from one address prefix, before sign-in.
    pub passkey_per_minute: u32,
    /// Calls a second of the directory that speaks SCIM.
    pub directory_per_second: u32,
    /// People whom one administrator may reset in an hour.
    pub reset_per_hour: u32,
}

impl Config {
    /// The address of a hypervisor's own API port: on the same interface as the portal.
    pub fn api_listen(&self, hypervisor: &HypervisorConfig) -> Option<SocketAddr> {
        let port = hypervisor.api()?.port?;
        self.portal.listen.first().map(|at| SocketAddr::new(at.ip(), port))
    }

    /// The address of a hypervisor's own RPC port: on the same interface as the portal.
    pub fn rpc_listen(&self, hypervisor: &HypervisorConfig) -> Option<SocketAddr> {
        let port = hypervisor.rpc()?.port;
        self.portal.listen.first().map(|at| SocketAddr::new(at.ip(), port))
    }
}

/// `[consoles]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consoles {
    /// Seconds without key or pointer input after which a console ends.
    pub idle_seconds: u32,
    /// Longest console session, in seconds.
    pub longest_seconds: u32,
    /// Live consoles a person may have.
    pub per_person: usize,
    /// Live consoles a hypervisor may have through this node.
    pub per_hypervisor: usize,
    /// Whether people need a training that still counts before a console opens.
    pub training: bool,
}

const fn two_gib() -> u64 {
    2048
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shards: 0,
            connections: 10_000,
            connections_per_network: 2_000,
            stranger_per_second: 20,
            stranger_burst: 60,
            token_per_second: 50,
            token_burst: 100,
            sign_in_per_minute: 10,
            passkey_per_minute: 30,
            directory_per_second: 25,
            reset_per_hour: 5,
        }
    }
}

impl Default for Consoles {
    fn default() -> Self {
        Self { idle_seconds: 900, longest_seconds: 12 * 3600, per_person: 10, per_hypervisor: 50, training: false }
    }
}

impl Config {
    /// Reads and checks a file, with the overrides of `environment`.
    pub fn read(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            ConfigError::new(file, format!("cannot be read: {e}. Make one with: portcullis init --dir DIR"))
        })?;
        Self::parse(file, &text, environment)
    }

    fn parse(
        file: &Path,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let wrong = |e: toml::de::Error| ConfigError::new(file, one_line(&e.to_string()));
        // Without overrides the file is read directly, so that a mistake is shown with its line.
        let overrides: Vec<_> =
            environment.filter_map(|(k, v)| Some((k.strip_prefix("PORTCULLIS__")?.to_lowercase(), v))).collect();
        let mut config: Self = toml::from_str(text).map_err(wrong)?;
        if !overrides.is_empty() {
            let mut table: toml::Table = toml::from_str(text).map_err(wrong)?;
            for (key, value) in overrides {
                let Some((section, key)) = key.split_once("__") else {
                    return Err(ConfigError::new(file, format!("PORTCULLIS__{key}: write PORTCULLIS__SECTION__KEY")));
                };
                let value = value.parse::<toml::Value>().unwrap_or(toml::Value::String(value));
                let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                let toml::Value::Table(entry) = entry else {
                    return Err(ConfigError::new(file, format!("[{section}] cannot be set from the environment")));
                };
                entry.insert(key.to_owned(), value);
            }
            config = Self::deserialize(table).map_err(|e| {
                ConfigError::new(file, format!("with PORTCULLIS__ overrides: {}", one_line(&e.to_string())))
            })?;
        }
        config.file = file.to_path_buf();
        config.identity.portal = config.portal.origin();
        config.resolve_paths();
        config.check()?;
        Ok(config)
    }

    fn resolve_paths(&mut self) {
        // The file may be named from where the program was started; what it names stays where it is.
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let base = file.parent().map(Path::to_owned).unwrap_or_default();
        for path in [
            &mut self.tls.cert_file,
            &mut self.tls.key_file,
            &mut self.keys.file,
            &mut self.trail.dir,
            &mut self.recordings.dir,
        ] {
            if path.is_relative() {
                *path = base.join(&*path);
            }
        }
        if let Some(list) = self.identity.passwords.blocklist.as_mut().filter(|p| p.is_relative()) {
            *list = base.join(&*list);
        }
        if let Some(relative) = self.store.url.strip_prefix("sqlite://").filter(|p| !p.starts_with('/')) {
            self.store.url = format!("sqlite://{}", base.join(relative).display());
        }
        self.identity.rebase(&base);
        for model in &mut self.identity.passkeys.allowed {
            model.ca_file = base.join(&model.ca_file);
        }
        let hook = [&mut self.requests.webhook_secret_file, &mut self.requests.webhook_ca_file];
        for path in hook.into_iter().flatten().filter(|p| p.is_relative()) {
            *path = base.join(&*path);
        }
        if let Some(folder) = self.policy.directory.as_mut().filter(|p| p.is_relative()) {
            *folder = base.join(&*folder);
        }
        if let Some(mail) = &mut self.mail {
            mail.rebase(&base);
        }
        for hypervisor in &mut self.hypervisors {
            hypervisor.rebase(&base);
        }
        if let Some(vault) = &mut self.vault {
            vault.rebase(&base);
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |message: String| Err(ConfigError::new(&self.file, message));
        if self.portal.host().is_none() {
            return wrong(format!(
                "portal.external_url: {:?} is not an address like https://console.example.org",
                self.portal.external_url
            ));
        }
        if self.portal.listen.is_empty() {
            return wrong("portal.listen: name at least one address, such as 127.0.0.1:8443".into());
        }
        if !self.store.url.starts_with("sqlite://") && !self.store.url.starts_with("postgres://") {
            return wrong("store.url: use sqlite://FILE or postgres://…".into());
        }
        if let Some(group) = self.scim.groups.iter().find(|g| g.selector().is_none()) {
            return wrong(format!(
                "scim.groups: {:?}: on: {:?} is nothing that a role is given on",
                group.name, group.on
            ));
        }
        if let Err(why) = self.requests.read().and_then(|_| self.requests.otherwise()) {
            return wrong(format!("requests: {why}"));
        }
        if let Some(Err(why)) = self.mail.as_ref().map(MailSection::check) {
            return wrong(format!("mail.{why}"));
        }
        let named = |name: &str| (1..=32).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if let Some(zone) = self.zones.keys().find(|name| !named(name)) {
            return wrong(format!("zones.{zone:?}: a name is 1 to 32 characters on one line"));
        }
        if self.adding.per_minute == 0 {
            return wrong("adding.per_minute: 0 would let nobody add one".into());
        }
        let limits = &self.limits;
        for (key, n) in [
            ("connections", limits.connections),
            ("connections_per_network", limits.connections_per_network),
            ("stranger_per_second", limits.stranger_per_second as usize),
            ("stranger_burst", limits.stranger_burst as usize),
            ("token_per_second", limits.token_per_second as usize),
            ("token_burst", limits.token_burst as usize),
            ("sign_in_per_minute", limits.sign_in_per_minute as usize),
            ("passkey_per_minute", limits.passkey_per_minute as usize),
            ("directory_per_second", limits.directory_per_second as usize),
            ("reset_per_hour", limits.reset_per_hour as usize),
        ] {
            if n == 0 {
                return wrong(format!("limits.{key}: 0 would let nobody in"));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Where an address is, as people know it: its zone, and the address.
    pub fn place_of(&self, address: IpAddr) -> String {
        let address = address.to_canonical();
        match self.zones.iter().find(|(_, networks)| networks.iter().any(|n| n.contains(address))) {
            Some((zone, _)) => format!("{zone} ({address})"),
            None => address.to_string(),
        }
    }
}

impl Portal {
    /// The host (and port, unless 443) of the external address, lower case.
    pub fn authority(&self) -> Option<String> {
        let rest = self.external_url.strip_prefix("https://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let ok = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'));
        ok.then(|| rest.strip_suffix(":443").unwrap_or(rest).to_ascii_lowercase())
    }

    /// The host of the external address, without its port.
    pub fn host(&self) -> Option<String> {
        let authority = self.authority()?;
        let host = authority.split_once(':').map_or(authority.as_str(), |(h, _)| h);
        (!host.is_empty()).then(|| host.to_owned())
    }

    /// The origin that requests which change something must come from: `https://host[:port]`.
    pub fn origin(&self) -> String {
        format!("https://{}", self.authority().unwrap_or_default())
    }
}

/// A message of several lines as one: what a log and a terminal can both show.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('|')).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        portal = { external_url = "https://localhost:8443", listen = ["127.0.0.1:8443"] }
        tls = { cert_file = "tls/cert.pem", key_file = "tls/key.pem" }
        keys = { file = "portcullis.key" }
        store = { url = "sqlite://portcullis.db" }
        trail = { dir = "trail" }
        recordings = { dir = "recordings" }
    "#;

    fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/p/portcullis.toml"), text, env.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let c = parse(GOOD, &[]).expect("good");
        assert_eq!(c.tls.cert_file, Path::new("/etc/p/tls/cert.pem"));
        assert_eq!(c.store.url, "sqlite:///etc/p/portcullis.db");
        assert_eq!(c.portal.origin(), "https://localhost:8443");
    }

    #[test]
    fn a_file_may_be_named_from_where_the_program_was_started() {
        for file in ["portcullis.toml", "./portcullis.toml"] {
            let c = Config::parse(Path::new(file), GOOD, std::iter::empty()).expect("good");
            let here = std::env::current_dir().expect("a folder");
            assert_eq!(c.keys.file, here.join("portcullis.key"), "{file}");
            assert_eq!(c.store.url, format!("sqlite://{}", here.join("portcullis.db").display()), "{file}");
        }
    }

    #[test]
    fn a_place_is_told_by_the_name_of_its_zone() {
        let zones = "[zones]\noffice = [\"10.1.0.0/16\", \"2001:db8::/32\"]\n";
        let c = parse(&format!("{GOOD}{zones}"), &[]).expect("good");
        let told = |ip: &str| c.place_of(ip.parse().expect("an address"));
        assert_eq!(told("::ffff:10.1.2.3"), "office (10.1.2.3)");
        assert_eq!(told("192.0.2.1"), "192.0.2.1");
        let e = parse(&format!("{GOOD}[zones]\noffice = [\"10.1.2.3/16\"]\n"), &[]).expect_err("wrong").to_string();
        assert!(e.contains("10.1.2.3/16") && !e.contains('\n'), "{e}");
    }

    #[test]
    fn an_address_without_a_name_is_taken_and_passkeys_are_bound_to_what_the_portal_is_called() {
        let c = parse(&GOOD.replace("localhost:8443", "192.0.2.7"), &[]).expect("good");
        assert_eq!(c.identity.portal, "https://192.0.2.7");
        let keys =
            "\n[[identity.passkeys.allowed]]\naaguid = \"00000000-0000-0000-0000-000000001234\"\nca_file = \"a.pem\"\n";
        let c =
            parse(&format!("{GOOD}{keys}"), &[("PORTCULLIS__PORTAL__EXTERNAL_URL", "https://Console.example.org/")]);
        let c = c.expect("good");
        assert_eq!(c.identity.portal, "https://console.example.org");
        assert_eq!(c.identity.passkeys.allowed[0].ca_file, Path::new("/etc/p/a.pem"));
        let e = parse(&format!("{GOOD}{keys}model = 1\n"), &[]).expect_err("unknown key").to_string();
        assert!(e.contains("model") && !e.contains('\n'), "{e}");
    }

    #[test]
    fn the_environment_overrides_a_key() {
        let c = parse(GOOD, &[("PORTCULLIS__LIMITS__SHARDS", "3"), ("PORTCULLIS__STORE__URL", "postgres://db/p")])
            .expect("good");
        assert_eq!((c.limits.shards, c.store.url.as_str()), (3, "postgres://db/p"));
        let e = parse(GOOD, &[("PORTCULLIS__LIMITS__SHARD", "3")]).expect_err("unknown key").to_string();
        assert!(e.contains("shard") && !e.contains('\n'), "{e}");
    }

    #[test]
    fn a_mistake_is_one_line_that_names_file_and_key() {
        for (text, words) in [
            (GOOD.replace("trail =", "trial ="), "trial"),
            (GOOD.replace("https://localhost:8443", "http://localhost"), "portal.external_url"),
            (GOOD.replace("https://localhost:8443", "https://"), "portal.external_url"),
            (GOOD.replace("[\"127.0.0.1:8443\"]", "[]"), "portal.listen"),
            (GOOD.replace("sqlite://", "mysql://"), "store.url"),
        ] {
            let e = parse(&text, &[]).expect_err("wrong").to_string();
            assert!(e.contains("/etc/p/portcullis.toml") && e.contains(words) && !e.contains('\n'), "{e}");
        }
    }
}
