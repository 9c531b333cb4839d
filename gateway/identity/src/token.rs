// SPDX-License-Identifier: Apache-2.0
//! Tokens for tools: recognised in memory, rebuilt when the store's epoch moves.

use crate::{Error, Identity, chance, key::Keys, rows::Moved, rules};
use arc_swap::ArcSwapOption;
use portcullis_domain::{Actor, Assurance, Factor, HypervisorName, Network, Secret, TokenId, UserId, Via};
use portcullis_store::{Digest, LiveToken, NewToken, TokenKey, TokenRow, UserKind};
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

/// The most networks that a token is bound to.
const MOST_NETWORKS: usize = 16;

/// A token as a node keeps it.
pub(crate) struct Known {
    until: OffsetDateTime,
    id: TokenId,
    /// The networks from which alone it counts; none: from everywhere.
    networks: Vec<Network>,
    pub(crate) actor: Arc<Actor>,
}

impl Known {
    pub(crate) fn counts_from(&self, peer: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|n| n.contains(peer))
    }
}

/// Every token that counts, and every certificate that stands for one.
pub(crate) struct Table {
    /// By the digest of its text.
    tokens: HashMap<Digest, Known>,
    /// The digests by what outlives a request knows: a stream asks every second.
    digests: HashMap<TokenId, Digest>,
    pub(crate) keys: Keys,
}

impl Table {
    pub(crate) fn token(&self, digest: &Digest) -> Option<&Known> {
        self.tokens.get(digest)
    }

    fn token_of(&self, id: TokenId) -> Option<&Known> {
        self.token(self.digests.get(&id)?)
    }
}

/// A token that somebody wants to make.
#[derive(Debug, Clone)]
pub struct TokenWish<'a> {
    /// Whose it is to be.
    pub user: UserId,
    /// What it is called: 1 to 64 characters.
    pub name: &'a str,
    /// The only hypervisor that it reaches; none means all that its owner reaches.
    pub hypervisor: Option<HypervisorName>,
    /// The networks from which alone it counts, at most 16; none means from everywhere.
    pub networks: Vec<Network>,
    /// First instant at which it no longer counts: within 366 days.
    pub expires_at: OffsetDateTime,
    /// Who makes it.
    pub by: Maker,
}

/// Who makes a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// The person themselves, for their own tools.
    Owner,
    /// An administrator, for a service account.
    Administrator(UserId),
    /// The command line, for a service account.
    Shell,
}

#[derive(Default)]
pub(crate) struct Tokens {
    table: ArcSwapOption<Table>,
    /// When the store last answered, seconds since 1970.
    heard_at: AtomicI64,
    /// Uses that are not written down yet.
    used: Mutex<HashMap<TokenId, (OffsetDateTime, IpAddr)>>,
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

fn table(live: Vec<LiveToken>, keys: Vec<TokenKey>) -> Table {
    let digests: HashMap<TokenId, Digest> = live.iter().map(|l| (l.token.id, l.hash)).collect();
    let keys = Keys::new(keys, &digests);
    let tokens = live
        .into_iter()
        .map(|LiveToken { hash, user_name, token }| {
            let mut assurance = Assurance::default();
            assurance.prove(Factor::Token, token.created_at);
            let actor = Actor {
                user: token.user,
                name: Arc::from(user_name),
                via: Via::Token(token.id),
                assurance,
                scope: token.hypervisor,
                from: None,
                pass: None,
            };
            let known =
                Known { until: token.expires_at, id: token.id, networks: token.networks, actor: Arc::new(actor) };
            (hash, known)
        })
        .collect();
    Table { tokens, digests, keys }
}

impl Identity {
    /// Who a tool acts as, by the token that it presented and where it comes from. Memory only; none for anything that
    /// does not count.
    pub fn token_actor(&self, bearer: &str, peer: IpAddr) -> Option<Arc<Actor>> {
        self.find_token(bearer, |known, now| self.use_token(known, now, peer))
    }

    /// Who a token acts as from there; notes that it was used.
    pub(crate) fn use_token(&self, known: &Known, now: OffsetDateTime, peer: IpAddr) -> Option<Arc<Actor>> {
        known.counts_from(peer).then(|| {
            let mut used = self.0.tokens.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(known.id, (now, peer));
            Arc::clone(&known.actor)
        })
    }

    /// Whose a token is that would count, but not from there: for the trail. The answer to it is that to an unknown one.
    pub fn token_elsewhere(&self, bearer: &str, peer: IpAddr) -> Option<Arc<Actor>> {
        self.find_token(bearer, |known, _| (!known.counts_from(peer)).then(|| Arc::clone(&known.actor)))
    }

    fn find_token<T>(&self, bearer: &str, then: impl FnOnce(&Known, OffsetDateTime) -> Option<T>) -> Option<T> {
        if !bearer.starts_with("pct_") {
            return None;
        }
        self.find_known(|table| table.token(&chance::sha256(bearer.as_bytes())), then)
    }

    /// A token that counts now, however it is found; none when this node has not heard from the store for too long.
    pub(crate) fn find_known<T>(
        &self,
        find: impl FnOnce(&Table) -> Option<&Known>,
        then: impl FnOnce(&Known, OffsetDateTime) -> Option<T>,
    ) -> Option<T> {
        let tokens = &self.0.tokens;
        let now = self.0.clock.now();
        if now.unix_timestamp() - tokens.heard_at.load(Ordering::Relaxed) > STALE.whole_seconds() {
            return None;
        }
        let table = tokens.table.load();
        let known = find(table.as_ref()?).filter(|known| now < known.until)?;
        then(known, now)
    }

    /// Makes a token for a tool; its text is given once. People make their own; those of a service account are made for
    /// it; a break-glass account has none.
    pub async fn mint_token(&self, wish: TokenWish<'_>) -> Result<(TokenId, Secret), Error> {
        let now = self.0.clock.now();
        let name = rules::check_label(wish.name)?;
        if wish.expires_at <= now || wish.expires_at > now + LONGEST {
            return Err(Error::Invalid("a token ends in the future, within 366 days".to_owned()));
        }
        if wish.networks.len() > MOST_NETWORKS {
            return Err(Error::Invalid(format!("a token is bound to at most {MOST_NETWORKS} networks")));
        }
        let owner = self.0.store.user(wish.user).await.map_err(Error::store)?.filter(portcullis_store::User::is_open);
        let owner = owner.ok_or(Error::NotFound("this account, or it is closed: its token"))?;
        let made_by = match (owner.kind, wish.by) {
            (UserKind::Person, Maker::Owner) | (UserKind::Service, Maker::Shell) => None,
            (UserKind::Service, Maker::Administrator(by)) => Some(by),
            (UserKind::Person, _) => {
                return Err(Error::Invalid("people make their own tokens: nobody else may know one".to_owned()));
            }
            (UserKind::Service | UserKind::BreakGlass, _) => {
                return Err(Error::Invalid("this account cannot make tokens".to_owned()));
            }
        };
        let (text, hash) = chance::secret_text("pct_")?;
        let id = TokenId::new(chance::id(now)?);
        let TokenWish { user, hypervisor, networks, expires_at, .. } = wish;
        let new = NewToken { id, hash, user, name, hypervisor, networks, expires_at, made_by };
        self.0.store.add_token(&new, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok((id, text))
    }

    /// Gives a token another text, once, and takes the old one back. Everything that it is limited to stays: owner,
    /// hypervisor, networks, and its end.
    pub async fn renew_token(&self, user: UserId, token: TokenId, by: Maker) -> Result<(TokenId, Secret), Error> {
        let now = self.0.clock.now();
        let all = self.0.store.tokens_of(user).await.map_err(Error::store)?;
        let old = all.into_iter().find(|t| t.id == token && t.revoked_at.is_none() && now < t.expires_at);
        let old = old.ok_or(Error::NotFound("this token"))?;
        let TokenRow { user, hypervisor, networks, expires_at, .. } = old;
        let made = self.mint_token(TokenWish { user, name: &old.name, hypervisor, networks, expires_at, by }).await?;
        self.revoke_token(user, token).await?;
        Ok(made)
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
        self.find_known(|table| table.token_of(token), |known, _| Some(Arc::clone(&known.actor)))
    }

    /// Who a tool acts as by the id of its token, from where it comes.
    pub fn token_from(&self, token: TokenId, peer: IpAddr) -> Option<Arc<Actor>> {
        self.find_known(|table| table.token_of(token), |known, now| self.use_token(known, now, peer))
    }

    /// The tokens of a person, newest first.
    pub async fn tokens_of(&self, user: UserId) -> Result<Vec<TokenRow>, Error> {
        self.0.store.tokens_of(user).await.map_err(Error::store)
    }

    /// Reads the store's epoch and, when it moved, everything that this node keeps in memory. The server calls it
    /// each second; whatever changes rights through this room calls it at once.
    pub async fn refresh(&self) -> Result<(), Error> {
        let read = self.read_again().await;
        if read.is_err() {
            // A store that does not answer cannot be vouched for from memory.
            self.0.rows.unheard();
        }
        read
    }

    async fn read_again(&self) -> Result<(), Error> {
        let inner = &self.0;
        let _one = inner.refreshing.lock().await;
        let now = inner.clock.now();
        // Before the rows: rows that are newer than the epoch are read again, rows that are older never count.
        let epoch = inner.store.epoch().await.map_err(Error::store)?.unsigned_abs();
        self.read_ended(now).await?;
        let moved = inner.tokens.table.load().is_none() || *inner.epoch.borrow() != epoch || self.is_behind(epoch);
        if moved {
            self.tell(epoch).await?;
            let live = inner.store.live_tokens(now).await.map_err(Error::store)?;
            let mut strict = HashSet::new();
            for role in STRICT {
                strict.extend(inner.store.holders_of(role, now).await.map_err(Error::store)?);
            }
            inner.rows.be_strict_with(strict);
            let emergency = inner.store.accounts_of(UserKind::BreakGlass).await.map_err(Error::store)?;
            inner.rows.be_brief_with(emergency.into_iter().collect());
            let keys = inner.store.token_keys().await.map_err(Error::store)?;
            inner.tokens.table.store(Some(Arc::new(table(live, keys))));
            inner.actors.clear();
            inner.epoch.send_replace(epoch);
        }
        inner.rows.heard(now, if moved { Moved::Yes } else { Moved::No });
        inner.tokens.heard_at.store(now.unix_timestamp(), Ordering::Relaxed);
        if due(&inner.tokens.touched_at, TOUCH, now) {
            let used = std::mem::take(&mut *inner.tokens.used.lock().unwrap_or_else(PoisonError::into_inner));
            inner.store.drop_strangers(now).await.map_err(Error::store)?;
            for (token, (at, from)) in used {
                inner.store.touch_token(token, at, from).await.map_err(Error::store)?;
            }
        }
        if due(&inner.tokens.swept_at, SWEEP, now) {
            inner.store.drop_expired(now - Duration::DAY).await.map_err(Error::store)?;
            inner.store.drop_provider_sessions(now - Duration::DAY, now).await.map_err(Error::store)?;
            inner.store.drop_tickets(now).await.map_err(Error::store)?;
            inner.store.drop_ended_passes(now).await.map_err(Error::store)?;
            inner.store.drop_spent_proofs(now - 2 * Duration::DAY).await.map_err(Error::store)?;
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
pub(crate) mod tests;
