// SPDX-License-Identifier: Apache-2.0
//! `portcullis user`: people, from a shell on the gateway's own machine.

use super::{Answer, At, Desk};
use crate::start::{invitation_link, set_up_link};
use clap::Subcommand;
use portcullis_domain::SystemClock;
use portcullis_identity::Identity;
use portcullis_store::User as Row;
use serde::Serialize;
use std::sync::Arc;
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
    /// Take password and factors away and print a link that works once
    Reset {
        /// Whose
        name: String,
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
    /// Let somebody sign in again
    Enable {
        /// Whom
        name: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    name: String,
    display_name: String,
    state: &'static str,
    since: String,
    id: String,
}

impl User {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => {
                let desk = at.open().await?;
                let rows: Vec<Line> = desk.store.users().await?.into_iter().map(line).collect();
                at.print(&rows, &["name", "display_name", "state", "since", "id"])?;
            }
            Self::Invite { name, display_name, at, .. } => {
                let desk = at.open().await?;
                let identity = desk.identity()?;
                let link = if let Some(name) = name {
                    let user = identity.create_user(&name, &display_name).await?;
                    let token = identity.invite(user).await?;
                    desk.note("user", &name, "an account was made and a one-time link given").await?;
                    invitation_link(&desk.config, &token)
                } else {
                    let token = identity.invite_first().await?;
                    desk.note("user", "", "a set-up link for the first administrator was made").await?;
                    set_up_link(&desk.config, &token)
                };
                if at.json {
                    println!("{}", serde_json::json!({ "link": link }));
                } else {
                    println!("{link}");
                }
            }
            Self::Reset { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                let identity = desk.identity()?;
                let token = identity.reset(user.id).await?;
                desk.note("user", &user.name, "password and factors reset; a one-time link was given").await?;
                println!("{}", invitation_link(&desk.config, &token));
            }
            Self::Disable { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                desk.note("user", &user.name, "disabled").await?;
                desk.identity()?.disable_user(user.id).await?;
                println!("{} can no longer sign in.", user.name);
            }
            Self::Enable { name, at } => {
                let desk = at.open().await?;
                let user = desk.find(&name).await?;
                desk.note("user", &user.name, "enabled").await?;
                desk.identity()?.enable_user(user.id).await?;
                println!("{} can sign in again.", user.name);
            }
        }
        Ok(Answer::Yes)
    }
}

fn line(user: Row) -> Line {
    Line {
        state: match (user.disabled_at, user.password_hash) {
            (Some(_), _) => "disabled",
            (None, None) => "invited",
            (None, Some(_)) => "active",
        },
        since: user.created_at.format(&Rfc3339).unwrap_or_default(),
        id: user.id.to_string(),
        name: user.name,
        display_name: user.display_name,
    }
}

impl Desk {
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
