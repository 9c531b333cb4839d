// SPDX-License-Identifier: Apache-2.0
//! `portcullis grant`: roles for people, from a shell on the gateway's own machine.

use super::{Answer, At};
use clap::{Args, Subcommand};
use portcullis_domain::{
    Clock as _, Conditions, GrantEffect, GrantId, GrantSource, Holder, Hours, Network, RoleName, Selector, SystemClock,
};
use portcullis_governance::{By, Change, Error, Sentence};
use serde::Serialize;
use serde_json::json;
use time::{Duration, format_description::well_known::Rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List every grant that was not revoked
    List {
        #[command(flatten)]
        at: At,
    },
    /// Give a role to somebody, or forbid it, on one thing or on several at once
    Add {
        /// Whom: a person's name, or group:NAME
        user: String,
        /// The role; see: portcullis policy roles
        role: RoleName,
        /// On what: everything, hypervisor:NAME, pool:HYPERVISOR/POOL, tag:TAG, machine:HYPERVISOR/ID or
        /// pattern:HYPERVISOR/POOL/MACHINE with * for any of them
        #[arg(required = true)]
        on: Vec<String>,
        #[command(flatten)]
        with: With,
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

/// What must hold, and for how long.
#[derive(Debug, Args)]
pub(super) struct With {
    /// For how many hours; left out means until revoked
    #[arg(long)]
    hours: Option<u32>,
    /// Forbid the role instead of giving it
    #[arg(long)]
    forbid: bool,
    /// How old a code may be where one is asked for, in seconds
    #[arg(long, default_value_t = 300)]
    step_up_seconds: u32,
    /// Ask for a code each time
    #[arg(long)]
    step_up_each: bool,
    /// Do not record consoles
    #[arg(long)]
    unrecorded: bool,
    /// Only for people who signed in with a passkey
    #[arg(long)]
    passkey: bool,
    /// Only at these hours, such as "mon-fri 08:00-18:00 Europe/Berlin"
    #[arg(long)]
    week: Option<Hours>,
    /// Only from these networks
    #[arg(long)]
    from: Vec<Network>,
}

impl With {
    fn conditions(&self) -> Conditions {
        Conditions {
            step_up_seconds: self.step_up_seconds,
            step_up_each: self.step_up_each,
            record: !self.unrecorded,
            passkey: self.passkey,
            hours: self.week.clone(),
            networks: self.from.clone(),
            ..Conditions::default()
        }
    }
}

#[derive(Serialize)]
struct Line {
    user: String,
    effect: GrantEffect,
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
                        effect: h.grant.effect,
                        role: h.grant.role.to_string(),
                        on: h.grant.selector.to_string(),
                        from: h.grant.from.format(&Rfc3339).unwrap_or_default(),
                        until: h.grant.until.and_then(|u| u.format(&Rfc3339).ok()).unwrap_or_default(),
                        source: h.grant.source,
                        id: h.grant.id.to_string(),
                    })
                    .collect();
                at.print(&rows, &["user", "effect", "role", "on", "from", "until", "source", "id"])?;
            }
            Self::Add { user, role, on, with, at } => return Box::pin(add(&at, &user, role, &on, &with)).await,
            Self::Revoke { id, at } => {
                let desk = at.open().await?;
                let engine = desk.engine().await?;
                let grants = desk.seeing(&at, &engine).await?;
                let words = format!("the grant {id} is taken back");
                match desk.wait(&at, &grants, &engine, &Change::Revoke(id), &words, "").await {
                    Ok(Some(waits)) => return Ok(waits),
                    Ok(None) => {}
                    // Said below, as before.
                    Err(error) if matches!(error.downcast_ref(), Some(Error::UnknownGrant)) => {}
                    Err(error) => return Err(error),
                }
                let take = async {
                    match grants.revoke(&engine, By::Shell, id).await {
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

async fn add(at: &At, user: &str, role: RoleName, on: &[String], with: &With) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let (holder, name): (Holder, String) = if let Some(group) = user.strip_prefix("group:") {
        (desk.find_group(group).await?.id.into(), format!("group {group}"))
    } else {
        let user = desk.find(user).await?;
        (user.id.into(), user.name)
    };
    let engine = desk.engine().await?;
    let selector = |on: &String| {
        let (kind, value) = on.split_once(':').unwrap_or((on, ""));
        Selector::parse(kind, value)
    };
    let sentence = Sentence {
        holder,
        effect: if with.forbid { GrantEffect::Deny } else { GrantEffect::Allow },
        role,
        on: on.iter().map(selector).collect::<Result<_, _>>()?,
        until: with.hours.map(|h| SystemClock.now() + Duration::hours(i64::from(h))),
        conditions: with.conditions(),
    };
    let verb = if with.forbid { "forbidden" } else { "given" };
    let things = sentence.on.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let words = format!("{} is {verb} to {name} on {things}", sentence.role);
    let grants = desk.seeing(at, &engine).await?;
    let change = Change::Say(sentence.clone());
    if let Some(waits) = desk.wait(at, &grants, &engine, &change, &words, "").await? {
        return Ok(waits);
    }
    let say = async { Ok(grants.say(&engine, By::Shell, &sentence).await?) };
    for grant in Box::pin(desk.act("grant", &name, &words, say)).await? {
        let words = format!("{} was {verb} to {name} on {}. Its id is {}", grant.role, grant.selector, grant.id);
        at.out.tell(&json!({ "user": name, "id": grant.id.to_string() }), &words);
    }
    Ok(Answer::Yes)
}
