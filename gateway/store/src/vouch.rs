// SPDX-License-Identifier: Apache-2.0
//! What follows from a provider's word for a person: an account, and grants that are brought in line each time.

use crate::{
    Error, NewUser, Store,
    grant::{grants_from, grants_held, insert_grant, revoke},
    tx::{Tx, execute, fetch, parse},
    user::{UserKind, insert_user},
};
use portcullis_domain::{Grant, GrantSource, UserId, micros};
use std::{fmt, sync::Arc};
use time::OffsetDateTime;

type MayHold = dyn Fn(UserId, &[Grant], &Grant) -> bool + Send + Sync;

/// Whether somebody who holds grants may be given another one: asked inside the transaction that would give it.
#[derive(Clone)]
pub struct Apart(pub Arc<MayHold>);

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apart")
    }
}

/// What a provider says of somebody.
#[derive(Debug, Clone)]
pub struct Voucher {
    /// The provider's identifier.
    pub issuer: String,
    /// Its word for the person: 1 to 255 characters.
    pub subject: String,
    /// What the configuration calls the provider.
    pub provider: String,
    /// Who they become if they were never here: the same person under several names; the first that is free is taken.
    pub candidates: Vec<NewUser>,
    /// What the provider's word gives them now. Others that it gave before are taken back.
    pub grants: Vec<Grant>,
    /// What keeps roles apart: a grant that it refuses is not given.
    pub apart: Option<Apart>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// Somebody who may come in; what they were given and what was taken back.
    Person {
        /// Who.
        user: UserId,
        /// Whether the account was made just now.
        made: bool,
        /// New grants.
        given: Vec<Grant>,
        /// Grants that no longer follow.
        taken: Vec<Grant>,
    },
    /// The account is disabled; nothing was changed.
    Disabled(UserId),
    /// Never here before, and nothing would be given: no account was made.
    Nobody,
    /// Nobody has an account yet: the first administrator comes first.
    NotSetUp,
}

/// Whether two grants give the same: role, place and conditions.
fn same(a: &Grant, b: &Grant) -> bool {
    a.role == b.role && a.selector == b.selector && a.conditions == b.conditions && a.until == b.until
}

/// Brings what the provider gave a person in line; grants of other sources stay what they are.
async fn align(
    tx: &mut Tx,
    user: UserId,
    Voucher { grants: wanted, apart, .. }: &Voucher,
    now: OffsetDateTime,
) -> Result<(Vec<Grant>, Vec<Grant>), Error> {
    let held = grants_from(tx, user, GrantSource::IdentityProvider).await?;
    let mut taken = Vec::new();
    for grant in &held {
        if !wanted.iter().any(|w| same(w, grant)) {
            revoke(tx, grant.id, None, now).await?;
            taken.push(grant.clone());
        }
    }
    let mut given = Vec::new();
    for grant in wanted {
        if !held.iter().any(|h| same(h, grant)) {
            if let Some(Apart(may)) = apart
                && !may(user, &grants_held(tx, user).await?, grant)
            {
                continue;
            }
            insert_grant(tx, user.into(), grant, None, now).await?;
            given.push(grant.clone());
        }
    }
    if !given.is_empty() || !taken.is_empty() {
        tx.bump().await?;
    }
    Ok((given, taken))
}

async fn make(tx: &mut Tx, voucher: &Voucher, now: OffsetDateTime) -> Result<UserId, Error> {
    for candidate in &voucher.candidates {
        if fetch!(*tx, (String,), "select id from users where name_key = $1", &candidate.name_key)?.is_empty() {
            insert_user(tx, candidate, UserKind::Person, now).await?;
            execute!(
                *tx,
                "insert into provider_people (issuer, subject, provider, user_id, linked_at, seen_at) \
                 values ($1, $2, $3, $4, $5, $5)",
                &voucher.issuer,
                &voucher.subject,
                &voucher.provider,
                candidate.id.to_string(),
                micros(now)
            )
            .map_err(|e| e.or_conflict("this person of the identity provider"))?;
            return Ok(candidate.id);
        }
    }
    Err(Error::Conflict("a person with this name"))
}

impl Store {
    /// Finds or makes the person whom a provider vouches for and brings their grants of that source in line, in one
    /// transaction. [`Error::Conflict`] when somebody else made the same person at the same time: try again.
    pub async fn vouch(&self, voucher: &Voucher, now: OffsetDateTime) -> Result<Vouched, Error> {
        let mut tx = self.begin().await?;
        // First a write, so that two sign-ins of one person take turns on PostgreSQL too.
        execute!(
            tx,
            "update provider_people set seen_at = $3, provider = $4, refused_at = null \
             where issuer = $1 and subject = $2",
            &voucher.issuer,
            &voucher.subject,
            micros(now),
            &voucher.provider
        )?;
        let known = fetch!(
            tx,
            (String, Option<i64>),
            "select u.id, u.disabled_at from provider_people p join users u on u.id = p.user_id \
             where p.issuer = $1 and p.subject = $2",
            &voucher.issuer,
            &voucher.subject
        )?;
        let (user, made) = match known.into_iter().next() {
            Some((id, disabled_at)) => {
                let user = parse("provider_people", "user_id", &id)?;
                if disabled_at.is_some() {
                    return Ok(Vouched::Disabled(user));
                }
                (user, false)
            }
            None if voucher.grants.is_empty() => return Ok(Vouched::Nobody),
            None if fetch!(tx, (String,), "select id from users limit 1")?.is_empty() => return Ok(Vouched::NotSetUp),
            None => (make(&mut tx, voucher, now).await?, true),
        };
        let (given, taken) = align(&mut tx, user, voucher, now).await?;
        if made && given.is_empty() {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(Vouched::Person { user, made, given, taken })
    }
}
