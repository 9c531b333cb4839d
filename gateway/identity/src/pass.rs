// SPDX-License-Identifier: Apache-2.0
//! Passes: what stands for a token for two hours, for tools that sign in first and then show what they were given. A
//! pass holds no token, so it opens nothing else when it is lost; it counts for one hypervisor, for as long as its token
//! counts, from where its token counts. It proves itself, all of it: each sign-in gets another one, and nobody makes two
//! out of one.
//!
//! ```text
//! minted --counts--> over by itself after two hours
//!      \--end_pass--> ended: in the store's list until then, which every node reads within a second
//! ```
//!
//! Only what was ended is kept, for as long as it would count: at most [`portcullis_store::MOST_ENDED`] of one token, then
//! all that were made until then are ended in one row. A list that is full never forgets.

use crate::{Error, Identity, chance};
use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis_domain::{Actor, HypervisorName, Pass, PassId, Secret, TokenId, Via, micros};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use time::{Duration, OffsetDateTime};

/// How long a pass counts.
pub const PASS_LIFE: Duration = Duration::hours(2);
/// How far the clocks of nodes may be apart: a pass may have been made by one that is ahead.
const AHEAD: Duration = Duration::SECOND;

/// The passes that were ended, as this node knows them.
#[derive(Default)]
pub(crate) struct EndedList {
    /// None before they were read.
    known: ArcSwapOption<Ended>,
    /// The store's count when they were read.
    count: AtomicI64,
}

struct Ended {
    passes: HashSet<PassId>,
    until: HashMap<TokenId, OffsetDateTime>,
}

impl EndedList {
    /// The last instant until which all passes of a token are ended.
    fn until(&self, token: TokenId) -> Option<OffsetDateTime> {
        self.known.load().as_ref()?.until.get(&token).copied()
    }

    fn has(&self, pass: &Pass) -> bool {
        // What cannot be known counts as ended.
        self.known.load().as_ref().is_none_or(|known| {
            let is_before = known.until.get(&pass.token).is_some_and(|until| pass.made_at <= *until);
            is_before || known.passes.contains(&pass.id)
        })
    }
}

impl Identity {
    /// A pass for whoever came with a token, or with a pass that stands for one; none for anybody else. Each is another.
    pub fn mint_pass(&self, actor: &Actor, hypervisor: &HypervisorName) -> Result<Option<Secret>, Error> {
        let Via::Token(token) = actor.via else { return Ok(None) };
        let now = self.0.clock.now();
        // After everything that was ended together.
        let after = self.0.ended.until(token).map(|until| until + Duration::MICROSECOND);
        let made_at = after.map_or(now, |after| after.max(now));
        let head = format!("{:014x}.{token}.{}", micros(made_at), PassId::new(chance::id(now)?));
        let proof = self.proof("pass", hypervisor, &head);
        Ok(Some(Secret::from(format!("{head}.{proof}"))))
    }

    /// Who a tool acts as by a pass. None for anything that does not count.
    pub fn pass_actor(&self, pass: &str, hypervisor: &HypervisorName, peer: IpAddr) -> Option<Arc<Actor>> {
        let (head, proof) = pass.rsplit_once('.')?;
        self.is_proof("pass", hypervisor, head, proof).then_some(())?;
        let mut parts = head.split('.');
        let (Some(time), Some(token), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let made = i64::from_str_radix(time, 16).ok()?;
        let made_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(made) * 1000).ok()?;
        let pass = Pass { id: id.parse().ok()?, token: token.parse().ok()?, made_at };
        self.is_good(&pass).then_some(())?;
        let mut actor = self.token_from(pass.token, peer)?;
        // Here already, so that nobody copies it again.
        let own = Arc::make_mut(&mut actor);
        (own.pass, own.from) = (Some(pass), Some(peer));
        Some(actor)
    }

    /// Whether a pass counts: its token does, it is not over, and nobody ended it.
    pub fn pass_counts(&self, pass: &Pass) -> bool {
        self.is_good(pass) && self.token_owner(pass.token).is_some()
    }

    /// The same without its token.
    fn is_good(&self, pass: &Pass) -> bool {
        let age = self.0.clock.now() - pass.made_at;
        (-AHEAD..PASS_LIFE).contains(&age) && !self.is_pass_ended(pass)
    }

    /// Whether somebody ended a pass: signed out with it. What was opened by it ends as well.
    pub fn is_pass_ended(&self, pass: &Pass) -> bool {
        self.0.ended.has(pass)
    }

    /// Ends a pass. It counts for nothing on this node when this has come back, and on every other one within a second.
    pub async fn end_pass(&self, pass: &Pass) -> Result<(), Error> {
        let over = pass.made_at + PASS_LIFE + AHEAD;
        self.0.store.end_pass(pass, over, self.0.clock.now()).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// Reads again what was ended, where there is more of it than this node knows.
    pub(crate) async fn read_ended(&self, now: OffsetDateTime) -> Result<(), Error> {
        // The count before the rows: rows that are newer are read again.
        let count = self.0.store.passes_ended().await.map_err(Error::store)?;
        let list = &self.0.ended;
        if list.known.load().is_some() && list.count.load(Ordering::Acquire) == count {
            return Ok(());
        }
        let ended = self.0.store.ended_passes(now).await.map_err(Error::store)?;
        let (passes, until) = (ended.passes.into_iter().collect(), ended.until.into_iter().collect());
        list.known.store(Some(Arc::new(Ended { passes, until })));
        list.count.store(count, Ordering::Release);
        Ok(())
    }

    /// What a change has to bring beside a pass, so that a pass which something sends by itself changes nothing.
    pub fn guard_of(&self, pass: &str, hypervisor: &HypervisorName) -> String {
        self.proof("guard", hypervisor, pass)
    }

    /// Whether that is what belongs to a pass.
    pub fn is_guard(&self, guard: &str, pass: &str, hypervisor: &HypervisorName) -> bool {
        self.is_proof("guard", hypervisor, pass, guard)
    }

    fn pass_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.keys.derive("passes of tools").expose())
    }

    fn proof(&self, what: &str, hypervisor: &HypervisorName, text: &str) -> String {
        let said = format!("{what}\n{hypervisor}\n{text}");
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.pass_key(), said.as_bytes()))
    }

    fn is_proof(&self, what: &str, hypervisor: &HypervisorName, text: &str, proof: &str) -> bool {
        let said = format!("{what}\n{hypervisor}\n{text}");
        let Ok(tag) = URL_SAFE_NO_PAD.decode(proof) else { return false };
        hmac::verify(&self.pass_key(), said.as_bytes(), &tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Bench, text},
        token::tests::wish,
    };
    use portcullis_domain::Clock;

    #[tokio::test]
    async fn a_pass_counts_for_its_hypervisor_its_token_its_networks_and_two_hours() {
        let b = Bench::new().await;
        let (ada, _) = b.person("ada").await;
        let end = b.clock.now() + Duration::DAY;
        let [lab, other]: [HypervisorName; 2] = ["lab", "other"].map(|n| n.parse().unwrap());
        let here = vec!["192.0.2.0/24".parse().unwrap()];
        let mut wish = wish(ada.user, "tool", None, end);
        wish.networks = here;
        let (id, token) = b.id.mint_token(wish).await.unwrap();
        let inside: IpAddr = "192.0.2.7".parse().unwrap();
        let actor = b.id.token_actor(&text(&token), inside).unwrap();
        let pass = text(&b.id.mint_pass(&actor, &lab).unwrap().unwrap());
        assert!(!pass.contains(&text(&token)));
        assert_eq!(b.id.pass_actor(&pass, &lab, inside).unwrap().user, ada.user);
        assert!(b.id.pass_actor(&pass, &lab, "198.51.100.1".parse().unwrap()).is_none(), "from elsewhere");
        assert!(b.id.pass_actor(&pass, &other, inside).is_none(), "at another hypervisor");
        // No letter of it may differ.
        for at in 0..pass.len() {
            let mut bytes = pass.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(b.id.pass_actor(&changed, &lab, inside).is_none(), "{changed}");
        }
        for wrong in ["", ".", "..", "0.0.", &pass[1..], &format!("{pass}.x")] {
            assert!(b.id.pass_actor(wrong, &lab, inside).is_none(), "{wrong}");
        }
        // What guards it is neither the pass nor another one's.
        let guard = b.id.guard_of(&pass, &lab);
        assert!(b.id.is_guard(&guard, &pass, &lab));
        assert!(!b.id.is_guard(&guard, &pass, &other) && !b.id.is_guard(&pass, &pass, &lab));
        b.clock.advance(Duration::hours(2));
        b.id.refresh().await.unwrap();
        assert!(b.id.pass_actor(&pass, &lab, inside).is_none(), "it is over");
        let again = text(&b.id.mint_pass(&actor, &lab).unwrap().unwrap());
        assert!(b.id.pass_actor(&again, &lab, inside).is_some());
        b.id.revoke_token(ada.user, id).await.unwrap();
        assert!(b.id.pass_actor(&again, &lab, inside).is_none(), "its token was taken back");
    }
    #[tokio::test]
    async fn an_ended_pass_opens_nothing_on_any_node_and_a_full_list_forgets_none() {
        let b = Bench::new().await;
        let (ada, _) = b.person("ada").await;
        let lab: HypervisorName = "lab".parse().unwrap();
        let peer: IpAddr = "192.0.2.7".parse().unwrap();
        let (_, token) = b.id.mint_token(wish(ada.user, "tool", None, b.clock.now() + Duration::DAY)).await.unwrap();
        let actor = b.id.token_actor(&text(&token), peer).unwrap();
        let mint = || text(&b.id.mint_pass(&actor, &lab).unwrap().unwrap());
        let by = |pass: &str| b.id.pass_actor(pass, &lab, peer).and_then(|a| a.pass);
        // Two of one instant are two.
        let (first, second) = (mint(), mint());
        assert_ne!(first, second);
        b.other.refresh().await.unwrap();
        assert!(b.other.pass_actor(&first, &lab, peer).is_some());
        b.id.end_pass(&by(&first).unwrap()).await.unwrap();
        assert!(by(&first).is_none() && by(&second).is_some());
        b.other.refresh().await.unwrap();
        assert!(b.other.pass_actor(&first, &lab, peer).is_none(), "another node heard of it");
        assert!(b.other.pass_actor(&second, &lab, peer).is_some());
        // Neither a longer one nor one with another end comes out of it.
        let (head, proof) = first.rsplit_once('.').unwrap();
        let (rest, _) = head.rsplit_once('.').unwrap();
        let other = PassId::new(chance::id(b.clock.now()).unwrap());
        for forged in [format!("{first}~1"), format!("{rest}.{other}.{proof}"), format!("{rest}.{proof}")] {
            assert!(by(&forged).is_none(), "{forged}");
        }
        // More than the list takes: all of the token's, and those that are made after it count again.
        let many: Vec<String> = (0..=portcullis_store::MOST_ENDED).map(|_| mint()).collect();
        for pass in &many {
            if let Some(pass) = by(pass) {
                b.id.end_pass(&pass).await.unwrap();
            }
        }
        assert!(many.iter().chain([&first, &second]).all(|p| by(p).is_none()), "denied rather than forgotten");
        assert!(by(&mint()).is_some(), "at the very same instant");
        // A node that does not know what was ended lets nobody in.
        let new = b.with_settings(crate::Settings::default());
        assert!(new.is_pass_ended(&Pass { id: other, token: by(&mint()).unwrap().token, made_at: b.clock.now() }));
        b.clock.advance(PASS_LIFE - Duration::SECOND);
        b.id.refresh().await.unwrap();
        assert!(many.iter().all(|p| by(p).is_none()), "for as long as they would count");
    }
}
