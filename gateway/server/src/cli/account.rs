// SPDX-License-Identifier: Apache-2.0
//! The verbs of `portcullis user` that are about accounts which nobody signs in to every day, about locks and trainings,
//! and about the list of stolen passwords.

use super::{Answer, At, Out, say::say};
use anyhow::Context as _;
use clap::Args;
use portcullis_domain::{Conditions, MailAddress, RoleName, Selector};
use portcullis_governance::{By, NewGrant};
use portcullis_identity::sort_blocklist;
use portcullis_store::AddressSource;
use serde_json::json;
use std::{fs::File, io::BufReader, path::PathBuf};
use time::{Date, Time, macros::format_description};

/// Make an account for a machine: it never signs in, its tools present tokens
#[derive(Debug, Args)]
pub(super) struct Service {
    /// Its name
    name: String,
    /// What it is
    #[arg(long, default_value = "")]
    display_name: String,
    #[command(flatten)]
    at: At,
}

/// Make two sealed codes for emergencies and print them, once; those that were not used end
#[derive(Debug, Args)]
pub(super) struct BreakGlass {
    /// The account that they open; made when it is not there
    #[arg(long, default_value = "break-glass")]
    name: String,
    /// The role on everything that a new account gets
    #[arg(long, default_value = "administrator")]
    role: RoleName,
    #[command(flatten)]
    at: At,
}

/// Stop everything of somebody at once, without losing any of it
#[derive(Debug, Args)]
pub(super) struct Lock {
    /// Whom
    name: String,
    /// Why
    #[arg(long, default_value = "no reason was given")]
    reason: String,
    #[command(flatten)]
    at: At,
}

/// Show or change where mail reaches somebody
#[derive(Debug, Args)]
pub(super) struct MailOf {
    /// Whom
    name: String,
    /// The address from now on; left out, the present one is shown
    #[arg(conflicts_with = "none")]
    address: Option<MailAddress>,
    /// No address from now on, until a provider or a directory says one
    #[arg(long)]
    none: bool,
    #[command(flatten)]
    at: At,
}

/// Lift a lock, also the one after too many wrong passwords or codes
#[derive(Debug, Args)]
pub(super) struct Unlock {
    /// Whom
    name: String,
    #[command(flatten)]
    at: At,
}

/// Note that somebody did the training that consoles may ask for
#[derive(Debug, Args)]
pub(super) struct Training {
    /// Who
    name: String,
    /// The first day on which it no longer counts, as year-month-day
    until: String,
    #[command(flatten)]
    at: At,
}

/// Make a sorted list for [identity.passwords] blocklist from lines of text: passwords, or HASH:COUNT as published
#[derive(Debug, Args)]
pub(super) struct Blocklist {
    /// The lines
    from: PathBuf,
    /// The list to write; it must not be there yet
    to: PathBuf,
    #[command(flatten)]
    out: Out,
}

impl Service {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let identity = desk.identity()?;
        let make = async { Ok(identity.create_service(&self.name, &self.display_name).await?) };
        let id = desk.act("user", &self.name, "a service account is made", make).await?;
        let words = format!("{} is there. Give it a role with: portcullis grant add", self.name);
        self.at.out.tell(&json!({ "user": self.name, "id": id.to_string() }), &words);
        Ok(Answer::Yes)
    }
}

impl BreakGlass {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let (identity, engine) = (desk.identity()?, desk.engine().await?);
        let make = async {
            let account = identity.break_glass_account(&self.name).await?;
            if desk.store.grants_of(account).await?.is_empty() {
                let conditions = Conditions::default();
                let (role, selector) = (self.role.clone(), Selector::Everything);
                let new = NewGrant { user: account, role, selector, hours: None, conditions };
                desk.grants(&engine)?.give(&engine, By::Shell, new).await?;
            }
            Ok(identity.break_glass_codes(account).await?)
        };
        let words = "two sealed codes for emergencies are made; those before them end";
        let codes = Box::pin(desk.act("break-glass", &self.name, words, make)).await?;
        if self.at.out.json {
            let codes: Vec<&str> = codes.iter().map(|c| c.as_str()).collect();
            say!(
                "{}",
                json!({ "user": self.name, "codes": codes, "address": format!("{}/break-glass", desk.config.portal.origin()) })
            );
        } else {
            for (number, code) in codes.iter().enumerate() {
                say!("Code {}: {}", number + 1, code.as_str());
            }
            say!(
                "Each works once, for an hour, at {}/break-glass. Write each on paper, seal it, and lock it away in \
                 another place. They are not shown again.",
                desk.config.portal.origin()
            );
        }
        Ok(Answer::Yes)
    }
}

impl Lock {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let user = desk.find(&self.name).await?;
        let engine = desk.engine().await?;
        let (identity, grants) = (desk.identity()?, desk.grants(&engine)?);
        let deed = identity.lock_user(user.id, &self.reason, None);
        let lock = async { Ok(Box::pin(grants.change_account(&engine, By::Shell, user.id, deed)).await??) };
        let words = format!("is locked: {}", self.reason);
        Box::pin(desk.act("user", &user.name, &words, lock)).await?;
        let words = format!("{} is locked.", user.name);
        self.at.out.tell(&json!({ "user": user.name, "state": "locked" }), &words);
        Ok(Answer::Yes)
    }
}

impl Unlock {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let user = desk.find(&self.name).await?;
        let identity = desk.identity()?;
        let unlock = async { Ok(identity.unlock_user(user.id).await?) };
        desk.act("user", &user.name, "is unlocked", unlock).await?;
        let words = format!("{} can sign in again.", user.name);
        self.at.out.tell(&json!({ "user": user.name, "state": "unlocked" }), &words);
        Ok(Answer::Yes)
    }
}

impl MailOf {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let desk = self.at.open().await?;
        let user = desk.find(&self.name).await?;
        let identity = desk.identity()?;
        if self.address.is_some() || self.none {
            let change = async {
                let by = AddressSource::Administrator;
                Ok(identity.set_address(user.id, self.address.as_ref(), by).await?)
            };
            let words =
                if self.none { "has no address for mail any more" } else { "an address for mail is written down" };
            desk.act("user", &user.name, words, change).await?;
        }
        let known = identity.address_of(user.id).await?;
        let words = match &known {
            Some(known) => format!("{}: {}, {}.", user.name, known.address, known.by.words()),
            None => format!("{} has no address for mail.", user.name),
        };
        let (address, by) = known.map(|k| (k.address, k.by)).unzip();
        let is_there = address.is_some();
        self.at.out.tell(&json!({ "user": user.name, "address": address, "by": by }), &words);
        Ok(if is_there || self.none { Answer::Yes } else { Answer::No })
    }
}

impl Training {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let day = Date::parse(&self.until, format_description!("[year]-[month]-[day]"))
            .with_context(|| format!("{}: write the day as year-month-day", self.until))?;
        let desk = self.at.open().await?;
        let user = desk.find(&self.name).await?;
        let identity = desk.identity()?;
        let until = day.with_time(Time::MIDNIGHT).assume_utc();
        let note = async { Ok(identity.attest_training(user.id, until, None).await?) };
        let words = format!("a training is noted that counts until {day}");
        desk.act("user", &user.name, &words, note).await?;
        let words = format!("{}: the training counts until {day}.", user.name);
        self.at.out.tell(&json!({ "user": user.name, "until": day.to_string() }), &words);
        Ok(Answer::Yes)
    }
}

impl Blocklist {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let named = |path: &PathBuf| path.display().to_string();
        let from = File::open(&self.from).with_context(|| named(&self.from))?;
        let to = File::create_new(&self.to).with_context(|| named(&self.to))?;
        let count = sort_blocklist(BufReader::new(from), &to).with_context(|| named(&self.to))?;
        to.sync_all()?;
        let words = format!("{count} passwords are on {}.", named(&self.to));
        self.out.tell(&json!({ "file": named(&self.to), "passwords": count }), &words);
        Ok(Answer::Yes)
    }
}
