// SPDX-License-Identifier: Apache-2.0
//! `portcullis token`: tokens for tools, from a shell on the gateway's own machine. People make their own on their page:
//! nobody else may know one.

use super::{Answer, At, Desk};
use crate::pages::rows::start_of;
use clap::Subcommand;
use portcullis_domain::{Clock as _, HypervisorName, Network, SystemClock, TokenId, counted};
use portcullis_identity::{Maker, TokenWish};
use portcullis_store::{LiveToken, TokenKey};
use serde::Serialize;
use serde_json::json;
use time::{Duration, format_description::well_known::Rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// List the tokens of everybody, or of one account
    List {
        /// Whose
        #[arg(long)]
        user: Option<String>,
        /// Those that were revoked or are over, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        at: At,
    },
    /// Make a token for a service account and print it, once
    Mint {
        /// The service account; see: portcullis user service
        user: String,
        /// What it is for
        name: String,
        /// For how many days
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=365))]
        days: i64,
        /// The only hypervisor that it reaches
        #[arg(long)]
        hypervisor: Option<HypervisorName>,
        /// A network from which alone it counts, such as 10.1.0.0/16; may be given several times
        #[arg(long)]
        from: Vec<Network>,
        #[command(flatten)]
        at: At,
    },
    /// Give a token of a service account another text, with the same limits and the same end; the old one stops
    Renew {
        /// Its id
        id: TokenId,
        #[command(flatten)]
        at: At,
    },
    /// Take a token back, whoever it belongs to
    Revoke {
        /// Its id
        id: TokenId,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    user: String,
    name: String,
    state: &'static str,
    hypervisor: String,
    from: Vec<String>,
    until: String,
    used: String,
    used_from: String,
    /// Those that stand for it: the hypervisor, the beginning of the fingerprint, since when.
    certificates: Vec<String>,
    id: String,
}

impl Token {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { user, all, at } => {
                let desk = at.open().await?;
                let whose = match user {
                    Some(name) => Some(desk.find(&name).await?.id),
                    None => None,
                };
                let mut tokens = desk.store.tokens().await?;
                tokens.retain(|t| whose.is_none_or(|whose| t.token.user == whose));
                let keys = desk.store.token_keys().await?;
                let rows = tokens.into_iter().map(|token| line(token, &keys));
                let rows: Vec<Line> = rows.filter(|l| all || l.state == "live").collect();
                let columns =
                    ["user", "name", "state", "hypervisor", "from", "until", "used", "used_from", "certificates", "id"];
                at.print(&rows, &columns)?;
            }
            Self::Mint { user, name, days, hypervisor, from, at } => {
                let desk = at.open().await?;
                let user = desk.find(&user).await?;
                if let Some(name) = &hypervisor
                    && !desk.config.hypervisors.iter().any(|h| h.name() == name)
                {
                    anyhow::bail!("{name}: no such hypervisor; see: portcullis hypervisor list");
                }
                let identity = desk.identity()?;
                let words = format!("a token {name:?} is made, for {}", counted(days, "day", "days"));
                let expires_at = SystemClock.now() + Duration::days(days);
                let wish =
                    TokenWish { user: user.id, name: &name, hypervisor, networks: from, expires_at, by: Maker::Shell };
                let mint = async { Ok(identity.mint_token(wish).await?) };
                let (id, text) = Box::pin(desk.act("token", &user.name, &words, mint)).await?;
                tell(&at, &user.name, id, text.expose_text().unwrap_or_default());
            }
            Self::Renew { id, at } => {
                let desk = at.open().await?;
                let Some(found) = desk.token(id).await? else { return Ok(missing(&at, id)) };
                let identity = desk.identity()?;
                let renew = async { Ok(identity.renew_token(found.token.user, id, Maker::Shell).await?) };
                let words = format!("the token {id} is renewed");
                let (id, text) = Box::pin(desk.act("token", &found.user_name, &words, renew)).await?;
                tell(&at, &found.user_name, id, text.expose_text().unwrap_or_default());
            }
            Self::Revoke { id, at } => {
                let desk = at.open().await?;
                let found = desk.token(id).await?.filter(|t| t.token.revoked_at.is_none());
                let Some(found) = found else { return Ok(missing(&at, id)) };
                let identity = desk.identity()?;
                let words = format!("the token {id} is revoked");
                let revoke = async { Ok(identity.revoke_token(found.token.user, id).await?) };
                Box::pin(desk.act("token", &found.user_name, &words, revoke)).await?;
                at.out.tell(&json!({ "id": id.to_string(), "revoked": true }), "Revoked.");
            }
        }
        Ok(Answer::Yes)
    }
}

impl Desk {
    async fn token(&self, id: TokenId) -> anyhow::Result<Option<LiveToken>> {
        Ok(self.store.tokens().await?.into_iter().find(|t| t.token.id == id))
    }
}

fn tell(at: &At, user: &str, id: TokenId, text: &str) {
    at.out.tell(&json!({ "user": user, "id": id.to_string(), "token": text }), text);
}

fn missing(at: &At, id: TokenId) -> Answer {
    let words = format!("{id}: there is no such token, or it was revoked before.");
    at.out.tell(&json!({ "id": id.to_string(), "revoked": false }), &words);
    Answer::No
}

fn line(LiveToken { user_name, token, .. }: LiveToken, keys: &[TokenKey]) -> Line {
    let when = |at: Option<time::OffsetDateTime>| at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    let own = keys.iter().filter(|key| key.token == token.id);
    Line {
        certificates: own
            .map(|key| format!("{} {} {}", key.hypervisor, start_of(&key.fingerprint), when(Some(key.bound_at))))
            .collect(),
        user: user_name,
        name: token.name,
        state: match token.revoked_at {
            Some(_) => "revoked",
            None if token.expires_at <= SystemClock.now() => "ended",
            None => "live",
        },
        hypervisor: token.hypervisor.map(|h| h.to_string()).unwrap_or_default(),
        from: token.networks.iter().map(ToString::to_string).collect(),
        until: when(Some(token.expires_at)),
        used: when(token.last_used_at),
        used_from: token.last_used_from.map(|p| p.to_string()).unwrap_or_default(),
        id: token.id.to_string(),
    }
}
