// SPDX-License-Identifier: Apache-2.0
//! Tokens for tools: recognised in memory, rebuilt when the store's epoch moves.

use crate::{Error, Identity, chance, rules};
use arc_swap::ArcSwapOption;
use portcullis_domain::{Actor, Assurance, Factor, Grant, HypervisorName, Secret, TokenId, UserId, Via};
use portcullis_store::{Digest, LiveToken, NewToken, TokenRow};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

/// A node that has not heard from the store for so long knows nothing about revocations: it accepts no token.
const STALE: Duration = Duration::seconds(30);
/// How often uses are written down.
const TOUCH: Duration = Duration::MINUTE;
/// How often what is over is forgotten.
const SWEEP: Duration = Duration::HOUR;
/// The longest life of a token.
const LONGEST: Duration = Duration::days(366);

/// Roles whose holders' browsers are signed out sooner (security defaults: 15 minutes): left alone, they can do most.
const STRICT: [&str; 2] = ["administrator", "security-lead"];

type Table = HashMap<Digest, (OffsetDateTime, TokenId, Arc<Actor>)>;

#[derive(Default)]
pub(crate) struct Tokens {
    table: ArcSwapOption<Table>,
    /// When the store last answered, seconds since 1970.
    heard_at: AtomicI64,
    /// Uses that are not written down yet.
    used: Mutex<HashMap<TokenId, OffsetDateTime>>,
    touched_at: AtomicI64,
    swept_at: AtomicI64,
}

/// Whether it is time again, and notes that it was done.
fn due(last: &AtomicI64, every: Duration, now: OffsetDateTime) -> bool {
    let now = now.unix_timestamp();
    let before = last.load(Ordering::Relaxed);
    let due = now < before || now - before >= every.whole_seconds();
    if due {
        last.store(now, Ordering::Relaxed);
    }
    due
}

fn table(live: Vec<LiveToken>, grants: &HashMap<UserId, Arc<[Grant]>>) -> Table {
    let nothing: Arc<[Grant]> = Arc::from([]);
    live.into_iter()
        .map(|LiveToken { hash, user_name, token }| {
            let mut assurance = Assurance::default();
            assurance.prove(Factor::Token, token.created_at);
            let actor = Actor {
                user: token.user,
                name: Arc::from(user_name),
                via: Via::Token(token.id),
                // The owner's grants of now: a token is never stronger than its owner.
                grants: Arc::clone(grants.get(&token.user).unwrap_or(&nothing)),
                assurance,
                scope: token.hypervisor,
            };
            (hash, (token.expires_at, token.id, Arc::new(actor)))
        })
        .collect()
}

impl Identity {
    /// Who a tool acts as, by the token that it presented. Memory only; none for anything that does not count.
    pub fn token_actor(&self, bearer: &str, _peer: IpAddr) -> Option<Arc<Actor>> {
        let tokens = &self.0.tokens;
        let now = self.0.clock.now();
        let silence = now.unix_timestamp() - tokens.heard_at.load(Ordering::Relaxed);
        if silence > STALE.whole_seconds() || !bearer.starts_with("pct_") {
            return None;
        }
        let table = tokens.table.load();
        let (until, id, actor) = table.as_ref()?.get(&chance::sha256(bearer.as_bytes()))?;
        if now >= *until {
            return None;
        }
        tokens.used.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, now);
        Some(Arc::clone(actor))
    }

    /// Makes a token for a tool of a person; its text is given once. It lasts at most 366 days.
    pub async fn mint_token(
        &self,
        user: UserId,
        name: &str,
        hypervisor: Option<HypervisorName>,
        expires_at: OffsetDateTime,
    ) -> Result<(TokenId, Secret), Error> {
        let now = self.0.clock.now();
        let name = rules::check_label(name)?;
        if expires_at <= now || expires_at > now + LONGEST {
            return Err(Error::Invalid("a token ends in the future, within 366 days".to_owned()));
        }
        let (text, hash) = chance::secret_text("pct_")?;
        let id = TokenId::new(chance::id(now)?);
        let new = NewToken { id, hash, user, name, hypervisor, expires_at };
        self.0.store.add_token(&new, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok((id, text))
    }

    /// Takes a token of a person back. [`Error::NotFound`] when it is not theirs or was taken back before.
    pub async fn revoke_token(&self, user: UserId, token: TokenId) -> Result<(), Error> {
        let revoked = self.0.store.revoke_token(user, token, self.0.clock.now()).await.map_err(Error::store)?;
        self.refresh().await?;
        if revoked { Ok(()) } else { Err(Error::NotFound("this token")) }
    }

    /// Who a token acts as now, found without its text: for what outlives its request. None when it no longer counts,
    /// or when this node has not heard from the store for too long.
    pub fn token_owner(&self, token: TokenId) -> Option<Arc<Actor>> {
        let tokens = &self.0.tokens;
        let now = self.0.clock.now();
        if now.unix_timestamp() - tokens.heard_at.load(Ordering::Relaxed) > STALE.whole_seconds() {
            return None;
        }
        let table = tokens.table.load();
        let found = table.as_ref()?.values().find(|(until, id, _)| *id == token && now < *until);
        found.map(|(_, _, actor)| Arc::clone(actor))
    }

    /// The tokens of a person, newest first.
    pub async fn tokens_of(&self, user: UserId) -> Result<Vec<TokenRow>, Error> {
        self.0.store.tokens_of(user).await.map_err(Error::store)
    }

    /// Reads the store's epoch and, when it moved, everything that this node keeps in memory. The server calls it
    /// each second; whatever changes rights through this room calls it at once.
    pub async fn refresh(&self) -> Result<(), Error> {
        let inner = &self.0;
        let _one = inner.refreshing.lock().await;
        let now = inner.clock.now();
        // Before the rows: rows that are newer than the epoch are read again, rows that are older never count.
        let epoch = inner.store.epoch().await.map_err(Error::store)?.unsigned_abs();
        if inner.tokens.table.load().is_none() || *inner.epoch.borrow() != epoch {
            let live = inner.store.live_tokens(now).await.map_err(Error::store)?;
            let mut grants: HashMap<UserId, Vec<Grant>> = HashMap::new();
            let mut strict = HashSet::new();
            for holding in inner.store.grants().await.map_err(Error::store)? {
                if STRICT.contains(&holding.grant.role.as_str()) && holding.grant.until.is_none_or(|until| now < until)
                {
                    strict.insert(holding.user);
                }
                grants.entry(holding.user).or_default().push(holding.grant);
            }
            let grants = grants.into_iter().map(|(user, g)| (user, Arc::from(g))).collect();
            inner.rows.be_strict_with(strict);
            inner.tokens.table.store(Some(Arc::new(table(live, &grants))));
            inner.actors.clear();
            inner.epoch.send_replace(epoch);
        }
        inner.tokens.heard_at.store(now.unix_timestamp(), Ordering::Relaxed);
        if due(&inner.tokens.touched_at, TOUCH, now) {
            let used = std::mem::take(&mut *inner.tokens.used.lock().unwrap_or_else(PoisonError::into_inner));
            inner.store.drop_strangers(now).await.map_err(Error::store)?;
            for (token, at) in used {
                inner.store.touch_token(token, at).await.map_err(Error::store)?;
            }
        }
        if due(&inner.tokens.swept_at, SWEEP, now) {
            inner.store.drop_expired(now - Duration::DAY).await.map_err(Error::store)?;
            inner.store.drop_provider_sessions(now - Duration::DAY, now).await.map_err(Error::store)?;
            inner.store.drop_tickets(now).await.map_err(Error::store)?;
            inner.store.drop_ceremonies(now).await.map_err(Error::store)?;
            inner.store.drop_strikes(now - 2 * Duration::DAY).await.map_err(Error::store)?;
        }
        Ok(())
    }

    /// The epoch that this node knows; it changes when somebody's rights may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }
}

#[cfg(test)]
mod tests;
