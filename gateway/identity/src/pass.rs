// SPDX-License-Identifier: Apache-2.0
//! Passes: what stands for a token for two hours, for tools that sign in first and then show what they were given. A
//! pass holds no token, so it opens nothing else when it is lost; it counts for one hypervisor, for as long as its token
//! counts, from where its token counts. Nothing of it is kept: it proves itself.

use crate::Identity;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis_domain::{Actor, HypervisorName, Secret, TokenId, Via};
use std::{net::IpAddr, sync::Arc};
use time::Duration;

/// How long a pass counts.
pub const PASS_LIFE: Duration = Duration::hours(2);

impl Identity {
    /// A pass for whoever came with a token; none for anybody else.
    pub fn mint_pass(&self, actor: &Actor, hypervisor: &HypervisorName) -> Option<Secret> {
        let Via::Token(token) = actor.via else { return None };
        let head = format!("{:08x}.{token}", self.0.clock.now().unix_timestamp());
        let proof = self.proof("pass", hypervisor, &head);
        Some(Secret::from(format!("{head}.{proof}")))
    }

    /// Who a tool acts as by a pass. None for anything that does not count.
    pub fn pass_actor(&self, pass: &str, hypervisor: &HypervisorName, peer: IpAddr) -> Option<Arc<Actor>> {
        let (head, proof) = pass.rsplit_once('.')?;
        self.is_proof("pass", hypervisor, head, proof).then_some(())?;
        let (time, token) = head.split_once('.')?;
        let age = self.0.clock.now().unix_timestamp() - i64::from_str_radix(time, 16).ok()?;
        let counts = (0..PASS_LIFE.whole_seconds()).contains(&age);
        let token: TokenId = token.parse().ok()?;
        if counts { self.token_from(token, peer) } else { None }
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
        let pass = text(&b.id.mint_pass(&actor, &lab).unwrap());
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
        let again = text(&b.id.mint_pass(&actor, &lab).unwrap());
        assert!(b.id.pass_actor(&again, &lab, inside).is_some());
        b.id.revoke_token(ada.user, id).await.unwrap();
        assert!(b.id.pass_actor(&again, &lab, inside).is_none(), "its token was taken back");
    }
}
