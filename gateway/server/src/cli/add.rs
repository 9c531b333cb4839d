// SPDX-License-Identifier: Apache-2.0
//! `portcullis hypervisor add`: meets a hypervisor, shows its certificate and asks, tries the credential, lists the
//! machines, and keeps it in the store, or writes its section into the configuration. Nothing is written before all of
//! that went well, and the credential is shown only to whoever holds the certificate that was agreed to.

use super::{
    Answer, At, Desk,
    claim::by,
    say::{self, say},
    secrets::given,
};
use crate::{
    adding::{ApiWish, Done, Ground, Keeper, NotAdded, Wish, agreed, prints, words},
    config::{Config, ConfigError},
    roster::{Agreed, Roster},
};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use portcullis_domain::{HypervisorName, Secret, SystemClock, counted};
use portcullis_upstream::{AskForm, Dial, Draft, HypervisorConfig, Tried, Wrong};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{File, Metadata},
    io::{IsTerminal as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name: small letters, digits and dashes
    name: HypervisorName,
    /// proxmox, lxd, incus, xapi, vsphere, openstack, ovirt, kubevirt or libvirt
    #[arg(long)]
    kind: String,
    /// https://host:port; host:port of libvirt; for OpenStack use --set identity=… --set compute=…
    #[arg(long)]
    address: Option<String>,
    /// The gateway's user there, where the kind has users
    #[arg(long)]
    username: Option<String>,
    /// Another key of its kind, as in the configuration: --set project=ops, --set screen_hosts=esx1,esx2
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The gateway's client certificate, where the kind knows it by one
    #[arg(long)]
    cert_file: Option<PathBuf>,
    /// A file that only its owner may read with the token, the password or the certificate's key, or - for standard input
    #[arg(long)]
    secret_file: PathBuf,
    /// Clients of its API reach it through the gateway, at <name>.<api domain>
    #[arg(long)]
    api: bool,
    /// The same at a host name of its own
    #[arg(long)]
    api_host: Option<String>,
    /// The same on a port of its own: with --file only
    #[arg(long, requires = "file")]
    api_port: Option<u16>,
    /// The SHA-256 of its certificate, learned in another way: then nothing is asked. Several with commas between, where it
    /// shows several
    #[arg(long)]
    pin: Option<String>,
    /// In the place of the one of that name that was added: all is said anew, the credential too, and the one before stays
    /// until the new one was tried
    #[arg(long, conflicts_with = "file")]
    replace: bool,
    /// Write its section into the configuration file, which a restart takes over; the credential stays in its own file
    #[arg(long)]
    file: bool,
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

/// What is wrong with what was written, as a shell reads it.
fn said(wrong: &Wrong) -> anyhow::Error {
    if wrong.key.is_empty() {
        return anyhow!("{}", wrong.why);
    }
    let option = match wrong.key {
        "name" => "NAME".to_owned(),
        "secret" => "--secret-file".to_owned(),
        key @ ("kind" | "address" | "username") => format!("--{key}"),
        "api_host" => "--api-host".to_owned(),
        key => format!("--set {key}=…"),
    };
    anyhow!("{option}: {}", wrong.why)
}

impl Add {
    fn wish(&self, replaces: Option<Uuid>) -> anyhow::Result<Wish> {
        let mut given = BTreeMap::new();
        for pair in &self.set {
            let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write KEY=VALUE"))?;
            given.insert(key.to_owned(), value.to_owned());
        }
        given.extend(self.address.clone().map(|a| ("address".to_owned(), a)));
        given.extend(self.username.clone().map(|u| ("username".to_owned(), u)));
        let api = match (&self.api_host, self.api) {
            (Some(host), _) => ApiWish::ByHost(host.clone()),
            (None, true) => ApiWish::ByName,
            (None, false) => ApiWish::Closed,
        };
        Ok(Wish { name: self.name.to_string(), kind: self.kind.clone(), given, api, replaces })
    }

    /// What it shows: the certificate in front of the key, where the kind knows the gateway by one.
    fn secret(&self, draft: &Draft) -> anyhow::Result<Secret> {
        let own = given(&self.secret_file)?;
        let Some(file) = &self.cert_file else { return Ok(own) };
        if draft.of.secret.form != AskForm::Pem {
            bail!("--cert-file: {} knows the gateway by no certificate", draft.of.title);
        }
        let mut both = std::fs::read(file).with_context(|| file.display().to_string())?;
        both.push(b'\n');
        both.extend_from_slice(own.expose());
        Ok(Secret::new(both))
    }

    /// The section of one that goes into the configuration file.
    fn section(&self, draft: &Draft, pins: &[&str]) -> anyhow::Result<String> {
        let mut text = format!("\n[[hypervisors]]\nname = \"{}\"\nkind = \"{}\"\n", self.name, draft.of.kind.word());
        for (key, value) in draft.settings.iter().filter(|(key, _)| *key != "api") {
            let written = match value {
                serde_json::Value::String(one) => quoted(one)?,
                serde_json::Value::Array(all) => {
                    let all: Vec<String> =
                        all.iter().filter_map(|v| v.as_str()).map(quoted).collect::<anyhow::Result<_>>()?;
                    format!("[{}]", all.join(", "))
                }
                _ => bail!("{key} cannot be written"),
            };
            writeln!(text, "{key} = {written}")?;
        }
        if let Some(file) = &self.cert_file {
            writeln!(text, "cert_file = {}", path(file)?)?;
        }
        if self.secret_file.as_os_str() == "-" {
            bail!("--secret-file: with --file the credential stays in a file of its own");
        }
        writeln!(text, "{}_file = {}", draft.of.secret.key, path(&self.secret_file)?)?;
        let pins: Vec<String> = pins.iter().map(|pin| format!("\"{pin}\"")).collect();
        writeln!(text, "tls = {{ pin = [{}] }}", pins.join(", "))?;
        let port = self.api_port.map(|port| format!("port = {port}"));
        let host = self.api_host.as_deref().map(quoted).transpose()?.map(|host| format!("host = {host}"));
        let door: Vec<String> = port.into_iter().chain(host).collect();
        if self.api || !door.is_empty() {
            writeln!(text, "api = {{ {} }}", door.join(", "))?;
        }
        Ok(text)
    }

    /// Whether these are the certificates that are meant.
    fn agreed(&self, shown: &[Agreed]) -> anyhow::Result<bool> {
        let all = prints(shown);
        if let Some(pin) = &self.pin {
            if !crate::adding::is_agreed(pin, shown) {
                let subject = shown.first().map_or("", |a| a.subject.as_str());
                bail!("it shows another certificate: SHA-256 {all}, {subject}");
            }
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() || self.secret_file.as_os_str() == "-" {
            let pin = all.replace(' ', ",");
            bail!("it shows a certificate with SHA-256 {all}: compare it there, and say --pin {pin}");
        }
        say::ask(format_args!(
            "Is that what it shows on its own screen? Its credential goes to whoever holds it. [yes/no] "
        ))?;
        let mut said = String::new();
        std::io::stdin().read_line(&mut said)?;
        Ok(said.trim().eq_ignore_ascii_case("yes"))
    }

    fn show(&self, shown: &[Agreed]) {
        if self.at.out.json {
            return;
        }
        for Agreed { address, subject, issuer, from, until, sha256 } in shown {
            say!("{address} shows a certificate of {subject}\n  signed by {issuer}");
            say!("  good from {from} until {until}\n  SHA-256 {sha256}");
        }
    }

    fn tell(&self, draft: &Draft, tried: &Tried, shown: &[Agreed], closing: &str) {
        if !self.at.out.json {
            say!("It knows the gateway as {}, and has {}:", tried.who, counted(tried.machines, "machine", "machines"));
            for machine in &tried.first {
                say!("  {}  {}  {}", machine.at.machine, machine.name, machine.state.word());
            }
            for word in &tried.beyond {
                say!("It may also do what it need not: {word}");
            }
        }
        let told = json!({
            "name": draft.name.as_str(), "added": true, "sha256": prints(shown), "known_as": tried.who,
            "beyond": tried.beyond, "machines": tried.machines,
        });
        self.at.out.tell(&told, closing);
    }

    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let file = self.at.read()?;
        let replaces = self.replaced(&desk).await?;
        let draft = {
            let roster = Roster::of_file(&desk.config);
            // Whoever has a shell here could write a section as well: any address may be dialled.
            let ground = Ground { config: &file, dial: Dial::Anywhere, roll: &roster.load() };
            self.wish(replaces)?.read(&ground).map_err(|wrong| said(&wrong))?
        };
        let about = format!("hypervisor {}", self.name);
        let meeting = async { Ok(agreed(&draft.meet().await?)) };
        let told = format!("is met at {}", draft.address());
        let shown = Box::pin(desk.act("hypervisor", &about, &told, meeting)).await?;
        self.show(&shown);
        if !self.agreed(&shown)? {
            self.at.out.tell(&json!({ "added": false }), "Nothing was changed.");
            return Ok(Answer::No);
        }
        let secret = self.secret(&draft)?;
        if self.file {
            self.write(&desk, &draft, &shown, secret).await
        } else {
            self.keep(&desk, &draft, &shown, secret, replaces).await
        }
    }

    /// The adding whose place it is to take.
    async fn replaced(&self, desk: &Desk) -> anyhow::Result<Option<Uuid>> {
        if !self.replace {
            return Ok(None);
        }
        let found = desk.store.added_hypervisor_id(&self.name).await?;
        let none = || {
            format!(
                "--replace: no hypervisor called {} was added; leave it out, or look: portcullis hypervisor list",
                self.name
            )
        };
        found.with_context(none).map(Some)
    }

    /// Into the store: every gateway uses it within seconds.
    async fn keep(
        &self,
        desk: &Desk,
        draft: &Draft,
        shown: &[Agreed],
        secret: Secret,
        replaces: Option<Uuid>,
    ) -> anyhow::Result<Answer> {
        let keeper = Keeper { store: &desk.store, keys: &desk.keys, clock: Arc::new(SystemClock), by: &by() };
        let deed = async {
            keeper.add(draft, &prints(shown), secret, replaces).await.map_err(|why| match why {
                NotAdded::Wrong(wrong) => said(&wrong),
                NotAdded::Other(now) => anyhow!("it shows another certificate now, SHA-256 {}", prints(&now)),
                NotAdded::Unusable(_, detail) => anyhow!("its credential was tried, and nothing was changed: {detail}"),
                NotAdded::Conflict(why) => anyhow!("nothing was changed: {why}"),
                NotAdded::Store(error) => error.into(),
            })
        };
        let rows = if replaces.is_some() { desk.store.added_hypervisors().await? } else { Vec::new() };
        let before = rows.iter().find(|row| Some(row.id) == replaces);
        let what = before.map_or_else(|| "added".to_owned(), crate::adding::in_place_of);
        let words = format!("is tried and {what}: {}", words(draft, shown));
        let about = format!("hypervisor {}", self.name);
        let Done { tried, .. } = Box::pin(desk.act("hypervisor", &about, &words, deed)).await?;
        let done = if self.replace { "changed" } else { "added" };
        let closing = format!("{} is {done}: every gateway that runs uses it within seconds.", self.name);
        self.tell(draft, &tried, shown, &closing);
        Ok(Answer::Yes)
    }

    /// Into the configuration file.
    async fn write(&self, desk: &Desk, draft: &Draft, shown: &[Agreed], secret: Secret) -> anyhow::Result<Answer> {
        let text = prints(shown);
        let pins: Vec<&str> = text.split(' ').collect();
        let section = self.section(draft, &pins)?;
        // As the file will be read: what is wrong is told before anything is asked there.
        toml::from_str::<Section>(&section).map(|read| drop(read.hypervisors))?;
        draft.check_secret(&secret).map_err(|wrong| said(&wrong))?;
        let pins: Vec<String> = pins.into_iter().map(str::to_owned).collect();
        let about = format!("hypervisor {}", self.name);
        let deed = async {
            let tried = draft.try_out(&pins, secret, Arc::new(SystemClock)).await;
            let tried = tried.context("its credential was tried, and nothing was changed")?;
            append(&desk.config, &section)?;
            Ok(tried)
        };
        let words = format!("is tried and added to the configuration: {}", words(draft, shown));
        let tried = Box::pin(desk.act("configuration", &about, &words, deed)).await?;
        let file = desk.config.file.display();
        self.tell(draft, &tried, shown, &format!("{} stands in {file} now. Restart the gateway to use it.", self.name));
        Ok(Answer::Yes)
    }
}

/// Adds a section to the configuration file: whole and readable as a configuration, or not at all.
fn append(config: &Config, section: &str) -> Result<(), ConfigError> {
    let wrong = |e: std::io::Error| ConfigError::new(&config.file, format!("cannot be written: {e}"));
    let text = std::fs::read_to_string(&config.file).map_err(wrong)?;
    let meta = std::fs::metadata(&config.file).map_err(wrong)?;
    // In the same folder: relative paths mean the same there, and the rename is one step.
    let mut next = config.file.clone().into_os_string();
    next.push(".next");
    let next = PathBuf::from(next);
    let _ = std::fs::remove_file(&next);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&next).map_err(wrong)?;
    let written = file
        .write_all(format!("{}\n{section}", text.trim_end()).as_bytes())
        .and_then(|()| keep(&file, &meta))
        .and_then(|()| file.sync_all());
    let checked = written.map_err(wrong).and_then(|()| Config::read(&next, std::env::vars()).map(drop));
    let done = checked.and_then(|()| std::fs::rename(&next, &config.file).map_err(wrong));
    if done.is_err() {
        let _ = std::fs::remove_file(&next);
    }
    done
}

/// Whoever may read the file may read the one in its place, and nobody else.
fn keep(file: &File, was: &Metadata) -> std::io::Result<()> {
    let is = file.metadata()?;
    if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
        std::os::unix::fs::fchown(file, Some(was.uid()), Some(was.gid()))?;
    }
    // After the owner: a change of owner takes bits away.
    file.set_permissions(was.permissions())
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
    }

    #[test]
    fn the_file_keeps_its_mode_and_one_that_cannot_be_read_back_is_not_put_in_place() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        crate::init(dir.path(), "localhost", at, &SystemClock).unwrap();
        let file = dir.path().join("portcullis.toml");
        let config = Config::read(&file, std::iter::empty()).unwrap();
        for mode in [0o640, 0o600] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let before = std::fs::metadata(&file).unwrap();
            append(&config, &format!("\n[zones]\nz{mode} = [\"10.0.0.0/8\"]\n")).unwrap_or_else(|e| panic!("{e}"));
            let now = std::fs::metadata(&file).unwrap();
            assert_eq!((now.mode(), now.uid(), now.gid()), (before.mode(), before.uid(), before.gid()));
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(append(&config, "\n[nothing]\nx = 1\n").is_err());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert!(!dir.path().join("portcullis.toml.next").exists());
            std::fs::write(&file, text.split("\n[zones]").next().unwrap()).unwrap();
        }
    }
}
