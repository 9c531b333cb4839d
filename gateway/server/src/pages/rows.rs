// SPDX-License-Identifier: Apache-2.0
//! Sessions and tokens of somebody as lists, for their own page and for that of an administrator; and the training that
//! consoles may ask for.

use crate::{
    reply::{self, Refusal},
    state::House,
    view::{KeyRow, SessionRow, TokenRow, TokenState, device},
};
use portcullis_domain::{Network, SessionId, UserId};
use portcullis_identity::SessionLine;
use portcullis_store::{Digest, TokenKey, TokenRow as Token, UserKind};
use time::OffsetDateTime;

impl House {
    /// The signed-in browsers of somebody, this one first.
    pub(crate) async fn session_rows(&self, user: UserId, own: Option<SessionId>) -> Result<Vec<SessionRow>, Refusal> {
        let lines = self.identity.session_lines(user).await.map_err(|e| self.unavailable(&e))?;
        let mut rows: Vec<_> = lines.into_iter().map(|line| self.session_row(line, own)).collect();
        rows.sort_by_key(|s| !s.current);
        Ok(rows)
    }

    fn session_row(&self, SessionLine { row, factors, ends_at }: SessionLine, own: Option<SessionId>) -> SessionRow {
        SessionRow {
            id: row.session.to_string(),
            device: device(row.agent.as_deref().unwrap_or_default()),
            place: row.peer.map_or_else(|| "unknown".to_owned(), |p| self.config.place_of(p)),
            started: self.when(row.created_at),
            seen: self.when(row.seen_at),
            ends: self.when(ends_at),
            proven: factors.into_iter().map(|(factor, at)| (factor.word(), self.when(at))).collect(),
            current: Some(row.session) == own,
        }
    }

    /// The tokens of somebody, live ones first.
    pub(crate) async fn token_rows(&self, user: UserId) -> Result<Vec<TokenRow>, Refusal> {
        let tokens = self.store.tokens_of(user).await.map_err(|e| self.unavailable(&e))?;
        let keys = self.store.token_keys_of(user).await.map_err(|e| self.unavailable(&e))?;
        let mut rows: Vec<_> = tokens.into_iter().map(|token| self.token_row(token, &keys)).collect();
        rows.sort_by_key(|t| t.state != TokenState::Live);
        Ok(rows)
    }

    fn token_row(&self, token: Token, keys: &[TokenKey]) -> TokenRow {
        let state = match token.revoked_at {
            Some(_) => TokenState::Revoked,
            None if token.expires_at <= self.clock.now() => TokenState::Expired,
            None => TokenState::Live,
        };
        let keys = keys.iter().filter(|key| key.token == token.id && state == TokenState::Live);
        TokenRow {
            keys: keys
                .map(|key| KeyRow {
                    print: start_of(&key.fingerprint),
                    hypervisor: key.hypervisor.to_string(),
                    since: self.when(key.bound_at),
                })
                .collect(),
            id: token.id.to_string(),
            name: token.name,
            hypervisor: token.hypervisor.map(|h| h.to_string()),
            networks: token.networks.iter().map(ToString::to_string).collect(),
            created: self.when(token.created_at),
            expires: self.when(token.expires_at),
            used: token.last_used_at.map(|at| self.when(at)),
            used_from: token.last_used_from.map(|p| self.config.place_of(p)),
            state,
        }
    }

    /// Refuses somebody a console whose training is missing or over, where consoles ask for one; otherwise gives until
    /// when theirs counts. Machines have none, and emergencies wait for none.
    pub(crate) async fn trained(&self, user: UserId) -> Result<Option<OffsetDateTime>, Refusal> {
        if !self.config.consoles.training {
            return Ok(None);
        }
        let person = self.store.user(user).await.map_err(|e| self.unavailable(&e))?.ok_or(Refusal::Unknown)?;
        if person.kind != UserKind::Person {
            return Ok(None);
        }
        let now = self.clock.now();
        let said = self.identity.training_of(user).await.map_err(|e| reply::identity(&e, now))?;
        match said {
            Some(said) if now < said.until => Ok(Some(said.until)),
            Some(said) => Err(Refusal::Forbidden(format!(
                "Consoles are open to people whose training counts, and yours ended on {}. Repeat it, then ask an \
                 administrator to note it.",
                said.until.date()
            ))),
            None => Err(Refusal::Forbidden(
                "Consoles are open to people who did the training, and yours is not noted. Do it, then ask an \
                 administrator to note it."
                    .into(),
            )),
        }
    }
}

/// The beginning of a certificate's fingerprint, as people compare it.
pub(crate) fn start_of(fingerprint: &Digest) -> String {
    let mut text = hex::encode(fingerprint);
    text.truncate(12);
    text
}

/// Networks as somebody types them: prefixes, with blanks, commas or new lines between them.
pub(crate) fn networks(text: &str) -> Result<Vec<Network>, String> {
    let parts = text.split(|c: char| c.is_whitespace() || c == ',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|e: portcullis_domain::ParseIdError| e.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_however_they_are_set_apart() {
        let read = networks(" 10.1.0.0/16,192.0.2.7\r\n2001:db8::/32 ").map(|n| n.len());
        assert_eq!(read, Ok(3));
        assert_eq!(networks(""), Ok(vec![]));
        assert!(networks("10.1.0.0/16 office").is_err_and(|why| why.contains("office")));
    }
}
