// SPDX-License-Identifier: Apache-2.0
//! `portcullis grant`: roles for people, from a shell on the gateway's own machine.

use super::{Answer, At};
use clap::Subcommand;
use portcullis_domain::{Conditions, GrantId, GrantSource, RoleName, Selector};
use portcullis_governance::{By, Error, NewGrant};
use portcullis_policy::Engine;
use serde::Serialize;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List every grant that was not revoked
    List {
        #[command(flatten)]
        at: At,
    },
    /// Give a role to somebody
    Add {
        /// Whom
        user: String,
        /// The role; see: portcullis policy roles
        role: RoleName,
        /// On what: everything, hypervisor:NAME, pool:HYPERVISOR/POOL, tag:TAG or machine:HYPERVISOR/ID
        on: String,
        /// For how many hours; left out means until revoked
        #[arg(long)]
        hours: Option<u32>,
        /// How old a code may be where one is asked for, in seconds
        #[arg(long, default_value_t = 300)]
        step_up_seconds: u32,
        #[command(flatten)]
        at: At,
    },
    /// Take a grant back
    Revoke {
        /// Its id
        id: GrantId,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    user: String,
    role: String,
    on: String,
    from: String,
    until: String,
    source: GrantSource,
    id: String,
}

impl Grant {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => {
                let desk = at.open().await?;
                let names = desk.store.holder_names().await?;
                let rows: Vec<Line> = desk
                    .store
                    .grants()
                    .await?
                    .into_iter()
                    .map(|h| Line {
                        user: names.get(&h.holder).cloned().unwrap_or_default(),
                        role: h.grant.role.to_string(),
                        on: h.grant.selector.to_string(),
                        from: h.grant.from.format(&Rfc3339).unwrap_or_default(),
                        until: h.grant.until.and_then(|u| u.format(&Rfc3339).ok()).unwrap_or_default(),
                        source: h.grant.source,
                        id: h.grant.id.to_string(),
                    })
                    .collect();
                at.print(&rows, &["user", "role", "on", "from", "until", "source", "id"])?;
            }
            Self::Add { user, role, on, hours, step_up_seconds, at } => {
                let desk = at.open().await?;
                let user = desk.find(&user).await?;
                let engine = Engine::builtin().await?;
                let (kind, value) = on.split_once(':').unwrap_or((&on, ""));
                let selector = Selector::parse(kind, value)?;
                let conditions = Conditions { step_up_seconds, ..Conditions::default() };
                let new = NewGrant { user: user.id, role, selector, hours: hours.map(i64::from), conditions };
                let words = format!("{} is given to {} on {}", new.role, user.name, new.selector);
                let give = async { Ok(desk.grants(&engine)?.give(&engine, By::Shell, new).await?) };
                let grant = Box::pin(desk.act("grant", &user.name, &words, give)).await?;
                let words =
                    format!("{} was given to {} on {}. Its id is {}", grant.role, user.name, grant.selector, grant.id);
                at.out.tell(&json!({ "user": user.name, "id": grant.id.to_string() }), &words);
            }
            Self::Revoke { id, at } => {
                let desk = at.open().await?;
                let engine = Engine::builtin().await?;
                let take = async {
                    match desk.grants(&engine)?.revoke(&engine, By::Shell, id).await {
                        Ok(held) => Ok(Some(held)),
                        Err(Error::UnknownGrant) => Ok(None),
                        Err(error) => Err(error.into()),
                    }
                };
                if Box::pin(desk.act("grant", &id.to_string(), "is taken back", take)).await?.is_none() {
                    let words = format!("{id}: there is no such grant, or it was revoked before.");
                    at.out.tell(&json!({ "id": id.to_string(), "revoked": false }), &words);
                    return Ok(Answer::No);
                }
                at.out.tell(&json!({ "id": id.to_string(), "revoked": true }), "Revoked.");
            }
        }
        Ok(Answer::Yes)
    }
}
