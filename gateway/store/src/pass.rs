// SPDX-License-Identifier: Apache-2.0
//! Sign-ins of tools that were ended before their time. Passes themselves are kept nowhere: they prove themselves.

use crate::{
    Error, Store, from_micros,
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{Pass, PassId, TokenId, micros};
use time::OffsetDateTime;

/// The most ended passes of one token that are kept one by one. One more ends all that the token has, in one row: so the
/// list stays short whoever fills it, and nothing that was ended is forgotten before it is over by itself.
pub const MOST_ENDED: usize = 100;

/// What was ended, as far as it is not over by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedPasses {
    /// One by one.
    pub passes: Vec<PassId>,
    /// Tokens of which every pass that was made until an instant is ended.
    pub until: Vec<(TokenId, OffsetDateTime)>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    made_at: i64,
}

const T: &str = "ended_passes";

impl Store {
    /// Ends a pass that would count until an instant, and tells every node that there is one more.
    pub async fn end_pass(&self, pass: &Pass, expires_at: OffsetDateTime, now: OffsetDateTime) -> Result<(), Error> {
        let (id, token) = (pass.id.to_string(), pass.token.to_string());
        let mut tx = self.begin().await?;
        execute!(tx, "delete from ended_passes where token_id = $1 and expires_at <= $2", &token, micros(now))?;
        let ended = fetch!(tx, Row, "select id, made_at from ended_passes where token_id = $1", &token)?;
        if ended.len() < MOST_ENDED || ended.iter().any(|row| row.id == id) {
            execute!(
                tx,
                "insert into ended_passes (id, token_id, made_at, expires_at) values ($1, $2, $3, $4) \
                 on conflict (id) do nothing",
                &id,
                &token,
                micros(pass.made_at),
                micros(expires_at)
            )
            .map_err(|e| e.or_missing("this token"))?;
        } else {
            // A node whose clock is ahead may have made some of them after now.
            let made = ended.iter().map(|row| row.made_at).max().unwrap_or_default();
            let until = made.max(micros(pass.made_at)).max(micros(now));
            let life = micros(expires_at) - micros(pass.made_at);
            execute!(
                tx,
                "insert into ended_pass_marks (token_id, made_until, expires_at) values ($1, $2, $3) \
                 on conflict (token_id) do update set made_until = excluded.made_until, \
                 expires_at = excluded.expires_at where ended_pass_marks.made_until < excluded.made_until",
                &token,
                until,
                until.saturating_add(life)
            )
            .map_err(|e| e.or_missing("this token"))?;
            execute!(tx, "delete from ended_passes where token_id = $1 and made_at <= $2", &token, until)?;
        }
        execute!(tx, "update epoch set passes = passes + 1 where only_row = 1")?;
        tx.commit().await
    }

    /// How often a pass was ended so far: a node that knows another number reads them again.
    pub async fn passes_ended(&self) -> Result<i64, Error> {
        let rows = read!(self, (i64,), "select passes from epoch where only_row = 1")?;
        rows.first().map(|r| r.0).ok_or_else(|| Error::corrupt("epoch", "1", "the row is missing"))
    }

    /// Everything that was ended and would count otherwise.
    pub async fn ended_passes(&self, now: OffsetDateTime) -> Result<EndedPasses, Error> {
        let passes = read!(self, Row, "select id, made_at from ended_passes where expires_at > $1", micros(now))?;
        let until = read!(
            self,
            (String, i64),
            "select token_id, made_until from ended_pass_marks where expires_at > $1",
            micros(now)
        )?;
        Ok(EndedPasses {
            passes: passes.iter().map(|row| parse(T, "id", &row.id)).collect::<Result<_, _>>()?,
            until: until
                .iter()
                .map(|(token, until)| Ok((parse("ended_pass_marks", "token_id", token)?, from_micros(*until))))
                .collect::<Result<_, Error>>()?,
        })
    }

    /// Forgets what would be over by itself at an instant.
    pub async fn drop_ended_passes(&self, before: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "delete from ended_passes where expires_at <= $1", micros(before))?;
        execute!(tx, "delete from ended_pass_marks where expires_at <= $1", micros(before))?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        NewToken,
        testing::{NOON, digest, on_both, person},
    };
    use time::Duration;
    use uuid::Uuid;

    const LIFE: Duration = Duration::hours(2);

    fn pass(n: usize, token: TokenId, made_at: OffsetDateTime) -> Pass {
        Pass { id: PassId::new(Uuid::from_u128(n as u128)), token, made_at }
    }

    #[tokio::test]
    async fn an_ended_pass_is_known_to_every_node_and_too_many_of_them_end_all() {
        on_both(async |b| {
            let (store, other) = (b.open().await, b.open().await);
            let ada = person(&store, "Ada").await;
            let [one, two] = [1, 2].map(|n: u8| TokenId::new(Uuid::from_u128(n.into())));
            for (n, id) in [(1, one), (2, two)] {
                let expires_at = NOON + Duration::DAY;
                let token = NewToken {
                    id,
                    hash: digest(n),
                    user: ada,
                    name: "tool".into(),
                    hypervisor: None,
                    networks: vec![],
                    expires_at,
                    made_by: None,
                };
                store.add_token(&token, NOON).await.unwrap();
            }
            let (epoch, before) = (store.epoch().await.unwrap(), other.passes_ended().await.unwrap());
            let first = pass(1, one, NOON);
            store.end_pass(&first, NOON + LIFE, NOON).await.unwrap();
            store.end_pass(&first, NOON + LIFE, NOON).await.unwrap();
            assert!(other.passes_ended().await.unwrap() > before);
            assert_eq!(store.epoch().await.unwrap(), epoch, "nobody else's rights are read again");
            let ended = other.ended_passes(NOON).await.unwrap();
            assert_eq!((ended.passes.as_slice(), ended.until.len()), ([first.id].as_slice(), 0));
            // One that is over by itself is not kept; one of a token that is not there cannot be.
            assert_eq!(other.ended_passes(NOON + LIFE).await.unwrap(), EndedPasses::default());
            let nobody = pass(9, TokenId::new(Uuid::from_u128(9)), NOON);
            assert!(store.end_pass(&nobody, NOON + LIFE, NOON).await.is_err());

            for n in 2..=MOST_ENDED {
                store.end_pass(&pass(n, one, NOON), NOON + LIFE, NOON).await.unwrap();
            }
            assert_eq!(other.ended_passes(NOON).await.unwrap().passes.len(), MOST_ENDED);
            // One more, of a node whose clock is ahead: everything that was made until then.
            let ahead = NOON + Duration::SECOND;
            store.end_pass(&pass(1000, one, ahead), ahead + LIFE, NOON).await.unwrap();
            store.end_pass(&pass(1001, two, NOON), NOON + LIFE, NOON).await.unwrap();
            let ended = other.ended_passes(NOON).await.unwrap();
            assert_eq!(ended.until, [(one, ahead)]);
            assert_eq!(ended.passes, [pass(1001, two, NOON).id]);
            // What follows is kept one by one again, and a later mark takes the place of an earlier one, never the other
            // way round.
            for n in 0..=MOST_ENDED {
                let made = ahead + Duration::seconds(1 + i64::try_from(n).unwrap());
                store.end_pass(&pass(2000 + n, one, made), made + LIFE, NOON).await.unwrap();
            }
            let ended = other.ended_passes(NOON).await.unwrap();
            assert_eq!(ended.until, [(one, ahead + Duration::seconds(101))]);
            store.drop_ended_passes(NOON + Duration::DAY).await.unwrap();
            assert_eq!(other.ended_passes(NOON).await.unwrap(), EndedPasses::default());
        })
        .await;
    }
}
