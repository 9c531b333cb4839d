// SPDX-License-Identifier: Apache-2.0
//! `portcullis hypervisor add`: meets a hypervisor, shows its certificate and asks, tries the credential, lists the
//! machines, and writes its section into the configuration. Nothing is written before all of that went well, and the
//! credential is shown only to whoever holds the certificate that was agreed to.

use super::{Answer, At};
use crate::config::{Config, ConfigError};
use anyhow::{Context as _, bail};
use clap::Args;
use portcullis_domain::{HypervisorName, SystemClock};
use portcullis_upstream::{Fleet, HealthState, HypervisorConfig, Kind, Met, SecretName};
use serde::Deserialize;
use serde_json::json;
use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many machines are shown.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name: small letters, digits and dashes
    name: HypervisorName,
    /// lxd, incus, proxmox, xapi or vsphere; write the section of another kind by hand
    #[arg(long)]
    kind: String,
    /// https://host:port
    #[arg(long)]
    address: String,
    /// The gateway's user there, where the kind has users
    #[arg(long)]
    username: Option<String>,
    /// The gateway's client certificate, where the kind knows it by one
    #[arg(long)]
    cert_file: Option<PathBuf>,
    /// A file that only its owner may read with the token, the password or the certificate's key
    #[arg(long)]
    secret_file: PathBuf,
    /// A port on which clients of its API reach it through the gateway
    #[arg(long)]
    api_port: Option<u16>,
    /// The SHA-256 of its certificate, learned in another way: then nothing is asked
    #[arg(long)]
    pin: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Deserialize)]
struct Section {
    hypervisors: Vec<HypervisorConfig>,
}

/// A text as TOML writes it.
fn quoted(text: &str) -> anyhow::Result<String> {
    if text.chars().any(char::is_control) {
        bail!("{text:?} holds a control character");
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn path(path: &Path) -> anyhow::Result<String> {
    let whole = std::path::absolute(path)?;
    quoted(whole.to_str().with_context(|| format!("{} is no text", whole.display()))?)
}

/// SHA-256 in the one form that is compared.
fn plain(pin: &str) -> String {
    pin.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase()
}

impl Add {
    fn section(&self, kind: Kind, pin: &str) -> anyhow::Result<String> {
        let secret = match kind {
            Kind::Proxmox => "token_file",
            Kind::Xapi | Kind::Vsphere => "password_file",
            Kind::Lxd | Kind::Incus => "key_file",
            _ => bail!("{}: write its section by hand; every key is in portcullis.example.toml", self.kind),
        };
        let mut text = format!("\n[[hypervisors]]\nname = \"{}\"\nkind = \"{}\"\n", self.name, kind.word());
        writeln!(text, "address = {}", quoted(&self.address)?)?;
        if let Some(username) = &self.username {
            writeln!(text, "username = {}", quoted(username)?)?;
        }
        if let Some(file) = &self.cert_file {
            writeln!(text, "cert_file = {}", path(file)?)?;
        }
        writeln!(text, "{secret} = {}", path(&self.secret_file)?)?;
        writeln!(text, "tls = {{ pin = [\"{pin}\"] }}")?;
        if let Some(port) = self.api_port {
            writeln!(text, "api = {{ port = {port} }}")?;
        }
        Ok(text)
    }

    fn fleet(&self, kind: Kind, pin: &str) -> anyhow::Result<Fleet> {
        let section: Section = toml::from_str(&self.section(kind, pin)?)?;
        Ok(Fleet::new(section.hypervisors, Arc::new(SystemClock))?)
    }

    /// Whether this is the certificate that is meant.
    fn agreed(&self, met: &Met) -> anyhow::Result<bool> {
        if let Some(pin) = &self.pin {
            if plain(pin) != met.sha256 {
                bail!("{} shows another certificate: SHA-256 {}, {}", self.address, met.sha256, met.subject);
            }
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            bail!("it shows a certificate with SHA-256 {}: compare it there, and say --pin {0}", met.sha256);
        }
        print!("Is that what it shows on its own screen? Its credential goes to whoever holds it. [yes/no] ");
        std::io::stdout().flush()?;
        let mut said = String::new();
        std::io::stdin().read_line(&mut said)?;
        Ok(said.trim().eq_ignore_ascii_case("yes"))
    }

    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let kind = Kind::named(&self.kind).with_context(|| format!("{:?} is no kind of hypervisor", self.kind))?;
        let desk = self.at.open().await?;
        if desk.config.hypervisors.iter().any(|h| *h.name() == self.name) {
            bail!("there is a hypervisor called {} in {} already", self.name, desk.config.file.display());
        }
        // No certificate has this pin, so nothing can be said to anybody with it.
        let stranger = self.fleet(kind, &"0".repeat(64))?;
        let met = stranger.meet(&self.name).await?.context("it is reached without TLS")?;
        if !self.at.out.json {
            println!("It shows a certificate of {}\n  signed by {}", met.subject, met.issuer);
            println!("  good from {} until {}\n  SHA-256 {}", met.from.date(), met.until.date(), met.sha256);
        }
        if !self.agreed(&met)? {
            self.at.out.tell(&json!({ "added": false }), "Nothing was changed.");
            return Ok(Answer::No);
        }
        let fleet = self.fleet(kind, &met.sha256)?;
        let secret = SecretName::default_of(self.name.clone());
        let standing = fleet.known_as(&secret).await.context("its credential was tried, and nothing was changed")?;
        fleet.refresh_once().await;
        if let Some(HealthState::Down { why, .. }) = fleet.health().first().map(|h| h.state.clone()) {
            bail!("its machines cannot be listed, and nothing was changed: {why}");
        }
        let inventory = fleet.inventory();
        if !self.at.out.json {
            println!("It knows the gateway as {}, and has {} machines:", standing.who, inventory.iter().count());
            for machine in inventory.iter().take(SHOWN) {
                println!("  {}  {}  {}", machine.at.machine, machine.name, machine.state.word());
            }
            for word in standing.beyond(&secret.credential) {
                println!("It may also do what it need not: {word}");
            }
        }
        let section = self.section(kind, &met.sha256)?;
        let words = format!("is added to the configuration, at {}, SHA-256 {}", self.address, met.sha256);
        let write = async { Ok(append(&desk.config, &section)?) };
        let resource = format!("hypervisor {}", self.name);
        Box::pin(desk.act("configuration", &resource, &words, write)).await?;
        let told = json!({ "added": true, "sha256": met.sha256, "machines": inventory.iter().count() });
        let file = desk.config.file.display();
        self.at.out.tell(&told, &format!("{} stands in {file} now. Restart the gateway to use it.", self.name));
        Ok(Answer::Yes)
    }
}

/// Adds a section to the configuration file: whole and readable as a configuration, or not at all.
fn append(config: &Config, section: &str) -> Result<(), ConfigError> {
    let wrong = |e: std::io::Error| ConfigError::new(&config.file, format!("cannot be written: {e}"));
    let text = std::fs::read_to_string(&config.file).map_err(wrong)?;
    let mode = std::fs::metadata(&config.file).map_err(wrong)?.permissions().mode();
    // In the same folder: relative paths mean the same there, and the rename is one step.
    let mut next = config.file.clone().into_os_string();
    next.push(".next");
    let next = PathBuf::from(next);
    let _ = std::fs::remove_file(&next);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&next).map_err(wrong)?;
    let written = file.write_all(format!("{}\n{section}", text.trim_end()).as_bytes()).and_then(|()| file.sync_all());
    let checked = written.map_err(wrong).and_then(|()| Config::read(&next, std::env::vars()).map(drop));
    let done = checked.and_then(|()| std::fs::rename(&next, &config.file).map_err(wrong));
    if done.is_err() {
        let _ = std::fs::remove_file(&next);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_the_file_reads_back_as_it_was() {
        for text in ["https://a:1", "a \"b\" \\ c", "#", "é"] {
            let written = format!("x = {}", quoted(text).unwrap());
            assert_eq!(toml::from_str::<toml::Table>(&written).unwrap()["x"].as_str(), Some(text));
        }
        assert!(quoted("a\n[keys]").is_err());
        assert_eq!(plain("AB:cd"), "abcd");
    }
}
