// SPDX-License-Identifier: Apache-2.0
//! Sealed codes for emergencies: made at the gateway's own machine, kept on paper, used once, from allowed networks, for
//! an hour. Nothing but this gateway and its store is needed to check one.

use crate::{
    Error, Identity, Why, chance,
    enrol::{BASE32, grouped},
    sign_in::fold_code,
};
use portcullis_domain::{Assurance, Factor, UserId};
use portcullis_store::{BreakGlassCode, NewBreakGlassCode, Review, UserKind};
use std::net::IpAddr;
use tower_sessions::Session;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How many envelopes there are.
const CODES: u32 = 2;
/// Letters of base32, 5 bits each: 160 bits.
const LETTERS: usize = 32;
/// The longest text of a review, in characters.
const LONGEST: usize = 512;

fn code() -> Result<Zeroizing<String>, Error> {
    let bits = chance::bytes::<LETTERS>()?;
    // 256 is a multiple of 32: the low five bits of a random byte are as random.
    Ok(Zeroizing::new(bits.iter().filter_map(|b| BASE32.get(usize::from(b & 31))).map(|b| char::from(*b)).collect()))
}

impl Identity {
    /// The account for emergencies with a name; made when it is not there. [`Error::Conflict`] when the name is that of
    /// somebody else.
    pub async fn break_glass_account(&self, name: &str) -> Result<UserId, Error> {
        match self.find_user(name).await? {
            Some(found) if found.kind == UserKind::BreakGlass => Ok(found.id),
            Some(_) => Err(Error::Conflict("an account of another kind with this name")),
            None => self.create_account(name, "Emergency access", UserKind::BreakGlass).await,
        }
    }

    /// Makes two sealed codes for an account for emergencies, to be shown once. Those of it that were not used end.
    pub async fn break_glass_codes(&self, account: UserId) -> Result<Vec<Zeroizing<String>>, Error> {
        let now = self.0.clock.now();
        if self.0.person(account).await?.kind != UserKind::BreakGlass {
            return Err(Error::Invalid("sealed codes are made for an account for emergencies".to_owned()));
        }
        let mut shown = Vec::new();
        let mut kept = Vec::new();
        for number in 1..=CODES {
            let code = code()?;
            kept.push(NewBreakGlassCode { id: chance::id(now)?, hash: chance::sha256(code.as_bytes()), number });
            shown.push(Zeroizing::new(grouped(&code).replace(' ', "-")));
        }
        self.0.store.replace_break_glass(account, &kept, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok(shown)
    }

    /// Signs in with a sealed code. It is spent by being right, whatever comes of it, and counts from allowed networks
    /// only; what does not count is answered alike.
    pub async fn break_glass(&self, session: &Session, typed: &str, peer: IpAddr) -> Result<BreakGlassCode, Error> {
        let inner = &self.0;
        let now = inner.clock.now();
        // No limit on tries, and no look at those of others: 160 bits need none, and a network that somebody had locked by
        // guessing passwords would be locked for the emergency, too. How often a stranger may knock is limited before.
        if !inner.settings.break_glass.networks.iter().any(|n| n.contains(peer)) {
            return Err(Error::refused(Why::WrongNetwork, None));
        }
        let wrong = || Error::refused(Why::WrongBreakGlass, None);
        let hash = chance::sha256(fold_code(typed, LETTERS).ok_or_else(wrong)?.as_bytes());
        let used = inner.store.use_break_glass(&hash, peer, now).await.map_err(Error::store)?.ok_or_else(wrong)?;
        // The account may be new to this node, which has to know that its sessions last an hour.
        self.refresh().await?;
        let mut assurance = Assurance::default();
        assurance.prove(Factor::BreakGlass, now);
        // The provider that this browser came from may be what is down; its word about somebody ends no emergency.
        inner.forget_provider(session).await?;
        inner.enter(session, used.user, assurance, Some(peer)).await?;
        Ok(used)
    }

    /// Every sealed code, the last used ones first.
    pub async fn break_glass_uses(&self) -> Result<Vec<BreakGlassCode>, Error> {
        self.0.store.break_glass().await.map_err(Error::store)
    }

    /// How many uses nobody has written about yet.
    pub async fn break_glass_unreviewed(&self) -> Result<u64, Error> {
        self.0.store.break_glass_unreviewed().await.map_err(Error::store)
    }

    /// Writes down who used a code and what for, once. An emergency session cannot write about itself.
    pub async fn review_break_glass(&self, id: Uuid, by: UserId, who: &str, why: &str) -> Result<(), Error> {
        let reviewer = self.0.person(by).await?;
        if reviewer.kind != UserKind::Person {
            return Err(Error::Invalid("somebody with an account of their own has to write this".to_owned()));
        }
        let line = |text: &str| {
            let text = text.trim();
            let good = (1..=LONGEST).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            good.then(|| text.to_owned()).ok_or_else(|| {
                Error::Invalid(format!("say who it was and what for, each in 1 to {LONGEST} characters on one line"))
            })
        };
        let (who, why) = (line(who)?, line(why)?);
        let review = Review { at: self.0.clock.now(), by: reviewer.name, who, why };
        let written = self.0.store.review_break_glass(id, &review).await.map_err(Error::store)?;
        if written { Ok(()) } else { Err(Error::NotFound("this use")) }
    }
}

#[cfg(test)]
mod tests;
