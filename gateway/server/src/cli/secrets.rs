// SPDX-License-Identifier: Apache-2.0
//! `portcullis secrets`: what the gateway shows to hypervisors, without showing it to anybody.
//!
//! ```text
//! rotate: check the old one → make a new one → keep it sealed beside the old one → try it → put it in its place
//!         → wait until the running gateway uses it → take the old one away at the hypervisor
//! ```
//!
//! Whatever fails before the new one is in its place leaves the old one in use, and takes the new one away again.

use super::{Answer, At, Desk};
use crate::secrets::{self, Opened, kept, name_of};
use anyhow::{Context as _, bail};
use clap::Subcommand;
use portcullis_domain::{Clock as _, HypervisorName, Secret, SystemClock};
use portcullis_store::HypervisorSecret;
use portcullis_upstream::{Fleet, Form, Outbound, Rotation, SecretName, new_password};
use serde::Serialize;
use serde_json::json;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How long a running gateway is waited for.
const TAKEN: Duration = Duration::from_secs(10);
/// The longest secret that is read from standard input, bytes.
const LONGEST: u64 = 256 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// List them: where each comes from, how old it is and when it was used last, never what it is
    List {
        #[command(flatten)]
        at: At,
    },
    /// Replace one. Where the hypervisor can make or take a new one it is made there, tried, kept sealed in the store,
    /// taken into use and the old one is taken away; elsewhere give it with --from. From then on the store's is used, and
    /// not the one that the configuration names
    Rotate {
        /// The hypervisor
        hypervisor: HypervisorName,
        /// Which of its credentials, as `secrets list` shows it
        #[arg(long = "for", default_value = "default")]
        credential: String,
        /// A new one that was made by hand: a file that only its owner may read, or - for standard input
        #[arg(long)]
        from: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Forget a rotated one: what the configuration names is used again
    Forget {
        /// The hypervisor
        hypervisor: HypervisorName,
        /// Which of its credentials
        #[arg(long = "for", default_value = "default")]
        credential: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    hypervisor: String,
    credential: String,
    source: String,
    in_use: &'static str,
    days: Option<i64>,
    since: String,
    by: String,
    used: String,
    trouble: String,
}

fn when(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.replace_nanosecond(0).ok()).and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

impl Secrets {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => list(&at).await,
            Self::Rotate { hypervisor, credential, from, at } => {
                let name = SecretName { hypervisor, credential };
                let desk = at.open().await?;
                let new = from.as_deref().map(given).transpose()?;
                let rotation = Turn { desk: &desk, name: &name };
                let words = "its secret is rotated";
                let told = Box::pin(desk.act("secret", &name.to_string(), words, rotation.run(new))).await?;
                at.out.tell(&json!({ "secret": name.to_string(), "rotated": true, "notes": told }), &told.join(" "));
                Ok(Answer::Yes)
            }
            Self::Forget { hypervisor, credential, at } => {
                let name = SecretName { hypervisor, credential };
                let desk = at.open().await?;
                let words = "its rotated secret is forgotten, and the configuration's is used";
                let deed = async { Ok(desk.store.forget_secret(&name.hypervisor, &name.credential).await?) };
                let done = Box::pin(desk.act("secret", &name.to_string(), words, deed)).await?;
                let said = if done { "What the configuration names is used again." } else { "It was not rotated." };
                at.out.tell(&json!({ "secret": name.to_string(), "forgotten": done }), said);
                Ok(if done { Answer::Yes } else { Answer::No })
            }
        }
    }
}

async fn list(at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let Opened { fleet, .. } = secrets::open(&desk.config, &desk.keys, &desk.store, Arc::new(SystemClock)).await?;
    let rows = desk.store.hypervisor_secrets().await?;
    let now = SystemClock.now();
    let states = fleet.secrets().states();
    let is_well = states.iter().all(|s| s.is_there && s.trouble.is_none());
    let lines: Vec<Line> = states
        .into_iter()
        .map(|state| {
            let row = rows.iter().find(|row| name_of(row) == state.name);
            let made = row.and_then(|row| row.made.clone());
            let since = made.as_ref().map(|(at, _)| *at).or(state.since);
            Line {
                hypervisor: state.name.hypervisor.to_string(),
                credential: state.name.credential,
                source: state.source,
                in_use: match (made.is_some(), state.is_there) {
                    (true, _) => "store",
                    (false, true) => "source",
                    (false, false) => "none",
                },
                days: since.map(|at| (now - at).whole_days()),
                since: when(since),
                by: made.map(|(_, by)| by).unwrap_or_default(),
                used: when(row.and_then(|row| row.used_at)),
                trouble: state.trouble.unwrap_or_default(),
            }
        })
        .collect();
    at.print(&lines, &["hypervisor", "credential", "source", "in_use", "days", "by", "used", "trouble"])?;
    Ok(if is_well { Answer::Yes } else { Answer::No })
}

/// A secret that somebody brings.
fn given(from: &Path) -> anyhow::Result<Secret> {
    if from.as_os_str() != "-" {
        return Ok(Outbound::read_secret("--from", from)?);
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(LONGEST + 1).read_to_end(&mut bytes).context("standard input cannot be read")?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.len() as u64 > LONGEST {
        bail!("--from: there is no secret on standard input, or it is too long");
    }
    Ok(Secret::new(bytes))
}

/// One rotation.
struct Turn<'a> {
    desk: &'a Desk,
    name: &'a SecretName,
}

impl Turn<'_> {
    /// The hypervisor alone, with its secret or with another one in its place.
    async fn fleet(&self, other: Option<&Secret>) -> anyhow::Result<Fleet> {
        let Desk { config, keys, store, .. } = self.desk;
        let mut alone = config.clone();
        alone.hypervisors.retain(|h| *h.name() == self.name.hypervisor);
        if alone.hypervisors.is_empty() {
            bail!("there is no hypervisor called {}", self.name.hypervisor);
        }
        let Some(other) = other else {
            let opened = secrets::open(&alone, keys, store, Arc::new(SystemClock)).await?;
            return Ok(opened.fleet);
        };
        let mut kept = kept(keys, store).await?;
        kept.insert(self.name.clone(), other.clone());
        Ok(Fleet::with(alone.hypervisors, &kept, Arc::new(SystemClock))?)
    }

    async fn row(&self) -> anyhow::Result<Option<HypervisorSecret>> {
        Ok(self.desk.store.hypervisor_secrets().await?.into_iter().find(|row| name_of(row) == *self.name))
    }

    async fn run(&self, given: Option<Secret>) -> anyhow::Result<Vec<String>> {
        let Desk { keys, store, .. } = self.desk;
        let SecretName { hypervisor, credential } = self.name;
        let old = self.fleet(None).await?;
        let way =
            old.rotation(self.name).with_context(|| format!("see: portcullis secrets list; {} is none", self.name))?;
        let mut told: Vec<String> = Vec::new();
        // A rotation that a crash broke off: its secret may be the one that counts.
        let begun = self.row().await?.map(|row| row.open_next(keys)).transpose()?.flatten();
        if let (None, Some(begun)) = (&given, begun) {
            if old.known_as(self.name).await.is_err() {
                let tried = self.fleet(Some(&begun)).await?;
                tried
                    .known_as(self.name)
                    .await
                    .context("neither the secret nor the one of a rotation that broke off")?;
                store.keep_secret(keys, hypervisor, credential, &begun, (&by(), SystemClock.now())).await?;
                return Ok(vec!["An earlier rotation had broken off; its secret is in use now.".to_owned()]);
            }
            // It may count at the hypervisor all the same.
            if has_both(way) && old.retire_secret(self.name, &begun).await.is_err() {
                told.push(
                    "An earlier rotation had broken off: look at the hypervisor for a secret that it left.".into(),
                );
            }
            store.drop_next_secret(hypervisor, credential).await?;
        }
        if let Some(given) = given {
            let new = self.fleet(Some(&given)).await?;
            new.known_as(self.name).await.context("the new secret was tried, and the old one stays in use")?;
            self.take(&given).await?;
            let note = "The old one counts at the hypervisor still: take it away there.";
            told.extend([self.taken().await?.1.to_owned(), note.to_owned()]);
            return Ok(told);
        }
        if let Rotation::ByHand(why) = way {
            bail!("{why}: make a new one there and give it with --from");
        }
        let may_put = matches!(way, Rotation::Given(_));
        old.known_as(self.name).await.context("the secret in use was tried first; nothing was changed")?;
        let was = old.secret(self.name)?;
        let new = match way {
            Rotation::Made => old.make_secret(self.name).await?,
            Rotation::Given(form) => invent(form, &self.name.to_string())?,
            Rotation::ByHand(why) => bail!("{why}: make a new one there and give it with --from"),
        };
        // Before the hypervisor takes it, so that no crash loses it.
        if let Err(error) = store.keep_next_secret(keys, hypervisor, credential, &new).await {
            self.undo(way, &old, &new, &was).await;
            return Err(error.into());
        }
        let put = async {
            if may_put {
                old.put_secret(self.name, &new).await?;
            }
            let fleet = self.fleet(Some(&new)).await?;
            fleet.known_as(self.name).await.context("the new secret was tried")?;
            self.take(&new).await?;
            Ok::<_, anyhow::Error>(fleet)
        };
        let fleet = match put.await {
            Ok(fleet) => fleet,
            Err(why) => {
                let undone = self.undo(way, &old, &new, &was).await;
                return Err(why.context(undone));
            }
        };
        let (is_taken, words) = self.taken().await?;
        told.push(words.to_owned());
        if !is_taken && has_both(way) {
            told.push(
                "The old one counts at the hypervisor still: take it away there when the new one is in use.".into(),
            );
            return Ok(told);
        }
        match fleet.retire_secret(self.name, &was).await {
            Ok(()) => told.push("The old one counts no more.".to_owned()),
            Err(why) => told.push(format!("The old one counts at the hypervisor still, take it away there: {why}.")),
        }
        Ok(told)
    }

    /// Puts it in the place of the old one.
    async fn take(&self, new: &Secret) -> anyhow::Result<()> {
        let SecretName { hypervisor, credential } = self.name;
        let made = (by(), SystemClock.now());
        self.desk.store.keep_secret(&self.desk.keys, hypervisor, credential, new, (&made.0, made.1)).await?;
        Ok(())
    }

    /// Takes the new one away again: the words for whoever waits.
    async fn undo(&self, way: Rotation, old: &Fleet, new: &Secret, was: &Secret) -> &'static str {
        let undone = match way {
            // With a new password only that one counts: it puts the old one back.
            Rotation::Given(form) if !form.has_both() && old.known_as(self.name).await.is_err() => {
                match self.fleet(Some(new)).await {
                    Ok(fleet) => fleet.put_secret(self.name, was).await.is_ok(),
                    Err(_) => false,
                }
            }
            Rotation::Given(form) if !form.has_both() => true,
            Rotation::Made | Rotation::Given(_) => old.retire_secret(self.name, new).await.is_ok(),
            Rotation::ByHand(_) => true,
        };
        if old.known_as(self.name).await.is_err() {
            // Kept sealed beside it: the next rotation finds it.
            return "whether the old one counts still is not known; the new one is kept: run it again";
        }
        let SecretName { hypervisor, credential } = self.name;
        let dropped = self.desk.store.drop_next_secret(hypervisor, credential).await.is_ok();
        if undone && dropped {
            "the old one stays in use"
        } else {
            "the old one stays in use; the new one may be left at the hypervisor"
        }
    }

    /// Waits until a running gateway uses it.
    async fn taken(&self) -> anyhow::Result<(bool, &'static str)> {
        let until = std::time::Instant::now() + TAKEN;
        while std::time::Instant::now() < until {
            if self.row().await?.is_some_and(|row| row.taken_version >= row.version) {
                return Ok((true, "The new one is in use."));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok((false, "The new one is kept; no running gateway has taken it into use yet."))
    }
}

/// Whether an old secret counts beside a new one.
const fn has_both(way: Rotation) -> bool {
    match way {
        Rotation::Made => true,
        Rotation::Given(form) => form.has_both(),
        Rotation::ByHand(_) => false,
    }
}

/// A new secret that is given to a hypervisor.
fn invent(form: Form, name: &str) -> anyhow::Result<Secret> {
    match form {
        Form::Password => Ok(new_password()?),
        Form::Certificate => {
            let key = rcgen::KeyPair::generate()?;
            let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
            parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("portcullis {name}"));
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let now = SystemClock.now();
            // A clock over there may be behind; LXD looks at no end, and the next rotation comes before it.
            parameters.not_before = now - time::Duration::DAY;
            parameters.not_after = now + time::Duration::days(3650);
            let certificate = parameters.self_signed(&key)?;
            Ok(Secret::from(format!("{}{}", certificate.pem(), key.serialize_pem())))
        }
    }
}

/// Whose shell it is, for the list.
fn by() -> String {
    let of = |(name, value): (Arc<str>, Arc<str>)| format!("{name} {value}");
    format!("command line, {}", super::caller().into_iter().map(of).collect::<Vec<_>>().join(", "))
        .chars()
        .take(128)
        .collect()
}
