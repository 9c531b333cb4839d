// SPDX-License-Identifier: Apache-2.0
//! `portcullis user`: people, from a shell on the gateway's own machine.

use super::{Answer, At, Desk, account};
use crate::start::{invitation_link, set_up_link};
use clap::Subcommand;
use portcullis_domain::SystemClock;
use portcullis_governance::{By, Grants};
use portcullis_identity::{FactorLine, Flaw, Identity};
use portcullis_policy::Engine;
use portcullis_store::{User as Row, UserKind};
use serde::Serialize;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// List everyone
    List {
        #[command(flatten)]
        at: At,
    },
    /// Make an account and print a link that works once
    Invite {
        /// The name to sign in with; left out with --first-administrator
        #[arg(required_unless_present = "first_administrator")]
        name: Option<String>,
        /// The name shown to people
        #[arg(long, default_value = "")]
        display_name: String,
        /// Print a set-up link for the first administrator, who chooses a name
        #[arg(long, conflicts_with = "name")]
        first_administrator: bool,
        #[command(flatten)]
        at: At,
    },
    /// Take password, passkeys and every other factor away and print a link that works once
    Reset {
        /// Whose
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// List somebody's second factors: authenticator apps, passkeys and security keys
    Factors {
        /// Whose
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Take one second factor away and end everything its owner has open; the last one stays
    RemoveFactor {
        /// Whose
        name: String,
        /// Its id, as `user factors` shows it
        id: String,
        #[command(flatten)]
        at: At,
    },
    /// End everything somebody has open, and let them sign in no more
    Disable {
        /// Whom
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Show which roles a set of claims of an identity provider gives
    Claims {
        /// The provider, as the configuration names it
        #[arg(long)]
        provider: String,
        /// A file with the claims as JSON, such as the payload of an ID token
        #[arg(long)]
        claims: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Let somebody sign in again
    Enable {
        /// Whom
        name: String,
        #[command(flatten)]
        at: At,
    },
    Lock(account::Lock),
    Unlock(account::Unlock),
    Service(account::Service),
    BreakGlass(account::BreakGlass),
    Training(account::Training),
    Mail(account::MailOf),
    Blocklist(account::Blocklist),
}

/// A role that follows from claims.
#[derive(Serialize)]
struct Mapped {
    role: String,
    on: String,
    claim: String,
    value: String,
}

/// What the table of roles makes of a file of claims: yes when somebody with them could come in.
fn preview(at: &At, name: &str, file: &Path) -> anyhow::Result<Answer> {
    let config = at.read()?;
    let provider = config.identity.providers.iter().find(|p| p.name == name);
    let provider = provider.ok_or_else(|| anyhow::anyhow!("{name}: no such provider in the configuration"))?;
    let text = std::fs::read_to_string(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    let claims: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| anyhow::anyhow!("{}: no JSON object: {e}", file.display()))?;
    let said = |words: &str| {
        at.out.tell(&json!({ "refused": words }), &format!("Nobody with these claims comes in: {words}."));
    };
    match provider.roles_for(&claims) {
        Ok(rules) if rules.is_empty() => {
            said(Flaw::NoRole.words());
            Ok(Answer::No)
        }
        Ok(rules) => {
            let row = |rule: &&portcullis_identity::RoleRule| Mapped {
                role: rule.role.to_string(),
                on: rule.on.0.to_string(),
                claim: rule.claim.clone().unwrap_or_else(|| provider.groups_claim.clone()),
                value: rule.value.clone(),
            };
            let rows: Vec<Mapped> = rules.iter().map(row).collect();
            at.print(&rows, &["role", "on", "claim", "value"])?;
            Ok(Answer::Yes)
        }
        Err(flaw) => {
            said(flaw.words());
            Ok(Answer::No)
        }
    }
}

#[derive(Serialize)]
struct Line {
    name: String,
    display_name: String,
    state: &'static str,
    since: String,
    id: String,
}

#[derive(Serialize)]
struct FactorRow {
    kind: &'static str,
    name: String,
    added: String,
    used: String,
    id: String,
}

impl User {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => {
                let desk = at.open().await?;
                let vouched = desk.store.provider_people().await?;
                let rows = desk.store.users().await?.into_iter();
                let rows: Vec<Line> = rows.map(|user| line(vouched.contains(&user.id), user)).collect();
                at.print(&rows, &["name", "display_name", "state", "since", "id"])?;
            }
            Self::Invite { name, display_name, at, .. } => {
                let desk = at.open().await?;
                let identity = desk.identity()?;
                let link = if let Some(name) = name {
                    let words = "an account is made and a one-time link given";
                    let invite = async {
                        let user = identity.create_user(&name, &display_name).await?;
                        Ok(identity.invite(user).await?)
                    };
                    invitation_link(&desk.config, &desk.act("user", &name, words, invite).await?)
                } else {
                    let words = "a set-up link for the first administrator is made";
                    let invite = async { Ok(identity.invite_first().await?) };
                    set_up_link(&desk.config, &desk.act("user", "", words, invite).await?)
                };
                at.out.tell(&json!({ "link": link }), &link);
            }
            Self::Reset { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let identity = desk.identity()?;
                let words = "password and factors are reset; a one-time link is given";
                // Even the last administrator's: this is the way back in for whoever lost their phone.
                let reset = async { Ok(identity.reset(user.id).await?) };
                let token = desk.act("user", &user.name, words, reset).await?;
                let link = invitation_link(&desk.config, &token);
                at.out.tell(&json!({ "user": user.name, "link": link }), &link);
            }
            Self::Factors { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let factors = desk.identity()?.factors(user.id).await?;
                let rows: Vec<FactorRow> = factors.into_iter().map(factor).collect();
                at.print(&rows, &["kind", "name", "added", "used", "id"])?;
            }
            Self::RemoveFactor { name, id, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let which = id
                    .parse()
                    .map_err(|_| anyhow::anyhow!("{id}: no such second factor; see: portcullis user factors {name}"))?;
                let identity = desk.identity()?;
                let remove = async { Ok(identity.remove_factor_of(user.id, which).await?) };
                desk.act("factor", &user.name, "a second factor is removed", remove).await?;
                let words = format!("{} no longer has it; everything that was open is ended.", user.name);
                at.out.tell(&json!({ "user": user.name, "removed": id }), &words);
            }
            Self::Disable { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let identity = desk.identity()?;
                let engine = desk.engine().await?;
                let grants = desk.grants(&engine)?;
                let deed = identity.disable_user(user.id);
                let disable = async { Ok(Box::pin(grants.change_account(&engine, By::Shell, user.id, deed)).await??) };
                Box::pin(desk.act("user", &user.name, "is disabled", disable)).await?;
                let words = format!("{} can no longer sign in.", user.name);
                at.out.tell(&json!({ "user": user.name, "state": "disabled" }), &words);
            }
            Self::Claims { provider, claims, at } => return preview(&at, &provider, &claims),
            Self::Enable { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let identity = desk.identity()?;
                let enable = async { Ok(identity.enable_user(user.id).await?) };
                desk.act("user", &user.name, "is enabled", enable).await?;
                let words = format!("{} can sign in again.", user.name);
                at.out.tell(&json!({ "user": user.name, "state": "enabled" }), &words);
            }
            Self::Lock(verb) => return verb.run().await,
            Self::Unlock(verb) => return verb.run().await,
            Self::Service(verb) => return verb.run().await,
            Self::BreakGlass(verb) => return Box::pin(verb.run()).await,
            Self::Training(verb) => return verb.run().await,
            Self::Mail(verb) => return verb.run().await,
            Self::Blocklist(verb) => return verb.run(),
        }
        Ok(Answer::Yes)
    }
}

fn factor(factor: FactorLine) -> FactorRow {
    FactorRow {
        kind: factor.kind.words(),
        name: factor.name,
        added: factor.created_at.format(&Rfc3339).unwrap_or_default(),
        used: factor.used_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
        id: factor.id.to_string(),
    }
}

fn line(vouched: bool, user: Row) -> Line {
    Line {
        state: match (user.disabled_at, vouched || user.password_hash.is_some()) {
            (Some(_), _) => "disabled",
            _ if user.locked.is_some() => "locked",
            _ if user.kind == UserKind::Service => "service",
            _ if user.kind == UserKind::BreakGlass => "emergency",
            (None, false) => "invited",
            (None, true) => "active",
        },
        since: user.created_at.format(&Rfc3339).unwrap_or_default(),
        id: user.id.to_string(),
        name: user.name,
        display_name: user.display_name,
    }
}

impl Desk {
    pub(super) fn grants(&self, engine: &Engine) -> anyhow::Result<Grants> {
        Ok(crate::requests::grants(&self.config, engine, self.store.clone(), Arc::new(SystemClock))?)
    }

    pub(super) fn identity(&self) -> anyhow::Result<Identity> {
        let (store, keys) = (self.store.clone(), Arc::clone(&self.keys));
        Ok(Identity::new(store, keys, Arc::new(SystemClock), self.config.identity.clone())?)
    }

    pub(super) async fn find(&self, name: &str) -> anyhow::Result<Row> {
        self.identity()?
            .find_user(name)
            .await?
            .ok_or_else(|| anyhow::anyhow!("{name}: no such person; see: portcullis user list"))
    }
}
