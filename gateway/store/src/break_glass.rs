// SPDX-License-Identifier: Apache-2.0
//! Sealed codes for emergencies: each counts once, and a row stays until its use was reviewed, and after it.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{UserId, micros};
use std::net::IpAddr;
use time::OffsetDateTime;
use uuid::Uuid;

/// A code to be.
#[derive(Debug, Clone)]
pub struct NewBreakGlassCode {
    /// Its id; no secret.
    pub id: Uuid,
    /// SHA-256 of its text.
    pub hash: Digest,
    /// What stands on its envelope: 1, 2 …
    pub number: u32,
}

/// What was written about a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// When.
    pub at: OffsetDateTime,
    /// By whom, by name.
    pub by: String,
    /// Who used the code.
    pub who: String,
    /// What for.
    pub why: String,
}

/// A code as shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassCode {
    /// Its id.
    pub id: Uuid,
    /// Whose account it opens.
    pub user: UserId,
    /// What stands on its envelope.
    pub number: u32,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When newer codes took its place.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was used, and from where.
    pub used: Option<(OffsetDateTime, IpAddr)>,
    /// What was written about its use.
    pub review: Option<Review>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    number: i64,
    created_at: i64,
    revoked_at: Option<i64>,
    used_at: Option<i64>,
    used_from: Option<String>,
    reviewed_at: Option<i64>,
    reviewed_by: Option<String>,
    review_who: Option<String>,
    review_why: Option<String>,
}

const T: &str = "break_glass";

macro_rules! columns {
    () => {
        "id, user_id, number, created_at, revoked_at, used_at, used_from, reviewed_at, reviewed_by, review_who, review_why"
    };
}

impl TryFrom<Row> for BreakGlassCode {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let used = row.used_at.zip(row.used_from);
        Ok(Self {
            user: parse(T, "user_id", &row.user_id)?,
            number: u32::try_from(row.number).map_err(|e| Error::corrupt(T, &row.id, e))?,
            created_at: from_micros(row.created_at),
            revoked_at: row.revoked_at.map(from_micros),
            used: used
                .map(|(at, from)| Ok::<_, Error>((from_micros(at), parse(T, "used_from", &from)?)))
                .transpose()?,
            review: row.reviewed_at.map(|at| Review {
                at: from_micros(at),
                by: row.reviewed_by.unwrap_or_default(),
                who: row.review_who.unwrap_or_default(),
                why: row.review_why.unwrap_or_default(),
            }),
            id: parse(T, "id", &row.id)?,
        })
    }
}

impl Store {
    /// Puts new codes in the place of those of an account that were not used.
    pub async fn replace_break_glass(
        &self,
        user: UserId,
        codes: &[NewBreakGlassCode],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update break_glass set revoked_at = $2 where user_id = $1 and used_at is null and revoked_at is null",
            user.to_string(),
            micros(now)
        )?;
        for code in codes {
            execute!(
                tx,
                "insert into break_glass (hash, id, user_id, number, created_at) values ($1, $2, $3, $4, $5)",
                code.hash.as_slice(),
                code.id.to_string(),
                user.to_string(),
                i64::from(code.number),
                micros(now)
            )
            .map_err(|e| e.or_conflict("this code").or_missing("this account"))?;
        }
        tx.bump().await?;
        tx.commit().await
    }

    /// Uses a code up: whoever gets its row is the only one. None when it does not count, or its account is closed.
    pub async fn use_break_glass(
        &self,
        hash: &Digest,
        from: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Option<BreakGlassCode>, Error> {
        // Whoever guesses does not make others wait for the one writer.
        let sql = "select id from break_glass where hash = $1 and used_at is null and revoked_at is null";
        if read!(self, (String,), sql, hash.as_slice())?.is_empty() {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            Row,
            concat!(
                "update break_glass set used_at = $2, used_from = $3 where hash = $1 and used_at is null \
                 and revoked_at is null and user_id in \
                 (select id from users where kind = 'break-glass' and disabled_at is null and locked_at is null) returning ",
                columns!()
            ),
            hash.as_slice(),
            micros(now),
            from.to_canonical().to_string()
        )?;
        let used = rows.into_iter().next().map(BreakGlassCode::try_from).transpose()?;
        if used.is_some() {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(used)
    }

    /// Every code, the last used ones first.
    pub async fn break_glass(&self) -> Result<Vec<BreakGlassCode>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from break_glass order by coalesce(used_at, 0) desc, created_at desc, number"
            )
        )?;
        rows.into_iter().map(BreakGlassCode::try_from).collect()
    }

    /// How many uses nobody has written about yet.
    pub async fn break_glass_unreviewed(&self) -> Result<u64, Error> {
        let sql = "select count(*) from break_glass where used_at is not null and reviewed_at is null";
        let rows = read!(self, (i64,), sql)?;
        Ok(rows.first().map_or(0, |row| row.0.unsigned_abs()))
    }

    /// Writes about a use; false when there is no such use, or somebody wrote before.
    pub async fn review_break_glass(&self, id: Uuid, review: &Review) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update break_glass set reviewed_at = $2, reviewed_by = $3, review_who = $4, review_why = $5 \
             where id = $1 and used_at is not null and reviewed_at is null",
            id.to_string(),
            micros(review.at),
            &review.by,
            &review.who,
            &review.why
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        NewUser, UserKind,
        testing::{NOON, digest, on_both, person},
    };

    async fn account(store: &Store) -> UserId {
        let id = UserId::new(Uuid::now_v7());
        let new = NewUser { id, name: "glass".into(), name_key: "glass".into(), display_name: "glass".into() };
        store.create_account(&new, UserKind::BreakGlass, NOON).await.unwrap();
        id
    }

    fn code(n: u8) -> NewBreakGlassCode {
        NewBreakGlassCode { id: Uuid::from_u128(n.into()), hash: digest(n), number: n.into() }
    }

    // SEC-133
    #[tokio::test]
    async fn a_code_counts_once_until_newer_ones_take_its_place_and_waits_for_its_review() {
        on_both(async |b| {
            let (store, other) = (b.open().await, b.open().await);
            let glass = account(&store).await;
            let from: IpAddr = "192.0.2.7".parse().unwrap();
            store.replace_break_glass(glass, &[code(1), code(2)], NOON).await.unwrap();
            let hash = digest(1);
            let (one, two) =
                tokio::join!(store.use_break_glass(&hash, from, NOON), other.use_break_glass(&hash, from, NOON));
            let won: Vec<_> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
            assert_eq!(won.len(), 1);
            assert_eq!((won[0].number, won[0].user, won[0].used), (1, glass, Some((NOON, from))));
            assert_eq!(store.break_glass_unreviewed().await.unwrap(), 1);
            store.replace_break_glass(glass, &[code(3), code(4)], NOON).await.unwrap();
            for (n, counts) in [(2, false), (9, false), (3, true)] {
                let used = store.use_break_glass(&digest(n), from, NOON).await.unwrap();
                assert_eq!(used.is_some(), counts, "{n}");
            }
            let review = Review { at: NOON, by: "ada".into(), who: "bob".into(), why: "the provider was down".into() };
            let id = |n: u8| Uuid::from_u128(n.into());
            assert!(store.review_break_glass(id(1), &review).await.unwrap());
            assert!(!store.review_break_glass(id(1), &review).await.unwrap(), "once");
            assert!(!store.review_break_glass(id(4), &review).await.unwrap(), "it was not used");
            assert_eq!(store.break_glass_unreviewed().await.unwrap(), 1);
            let all = store.break_glass().await.unwrap();
            assert_eq!(all.iter().find(|c| c.id == id(1)).unwrap().review.as_ref(), Some(&review));
            store.set_disabled(glass, Some(NOON)).await.unwrap();
            assert!(store.use_break_glass(&digest(4), from, NOON).await.unwrap().is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_code_opens_no_account_of_a_person() {
        on_both(async |b| {
            let store = b.open().await;
            let ada = person(&store, "Ada").await;
            store.replace_break_glass(ada, &[code(1)], NOON).await.unwrap();
            let from: IpAddr = "::1".parse().unwrap();
            assert!(store.use_break_glass(&digest(1), from, NOON).await.unwrap().is_none());
        })
        .await;
    }
}
