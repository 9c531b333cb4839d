// SPDX-License-Identifier: Apache-2.0
//! How often somebody may try.

use crate::{Error, Inner, chance::sha256};
use aws_lc_rs::hmac;
use portcullis_domain::UserId;
use portcullis_store::{Backoff, Limit, Try};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use time::{Duration, OffsetDateTime};

const PASSWORD: Backoff =
    Backoff { free: 5, first: Duration::MINUTE, longest: Duration::minutes(30), forget: Duration::DAY };
const SECOND: [Limit; 2] =
    [Limit { tries: 10, window: Duration::minutes(15) }, Limit { tries: 50, window: Duration::DAY }];
const PREFIX: [Limit; 1] = [Limit { tries: 50, window: Duration::minutes(10) }];
/// For each (person, network): somebody far away locks nobody out.
const PASSKEY: [Limit; 2] = SECOND;
const TICKETS: [Limit; 1] = [Limit { tries: 30, window: Duration::MINUTE }];

/// Who a password try counts against: a digest, so that a stranger's text is never stored and has one length.
pub(crate) fn subject_of_name(name_key: &str) -> String {
    hex::encode(sha256(name_key.as_bytes()))
}

/// The network that an address counts for: /24, or /64 of IPv6.
pub(crate) fn prefix(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(v4) => format!("{}/24", Ipv4Addr::from_bits(v4.to_bits() & 0xFFFF_FF00)),
        IpAddr::V6(v6) => format!("{}/64", Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

fn pass(tried: Try) -> Result<(), Error> {
    match tried {
        Try::Counted(_) => Ok(()),
        Try::Locked(until) => Err(Error::Locked { until }),
    }
}

fn open(until: Option<OffsetDateTime>) -> Result<(), Error> {
    until.map_or(Ok(()), |until| Err(Error::Locked { until }))
}

impl Inner {
    /// Who a password try at a name counts against that nobody has: one of 65,536, so that a flood of names fills no
    /// table. Which names share one cannot be known from outside, and no account shares with them.
    pub(crate) fn subject_of_unknown(&self, name_key: &str) -> String {
        let [a, b, ..] = self.tag_of_unknown("lockout", name_key);
        format!("unknown-{}", hex::encode([a, b]))
    }

    /// A keyed digest of a name that nobody has: what was typed may be a password in the wrong field.
    pub(crate) fn tag_of_unknown(&self, purpose: &str, name_key: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.unknown_names.expose());
        let tag = hmac::sign(&key, format!("{purpose}\n{name_key}").as_bytes());
        tag.as_ref().try_into().unwrap_or([0; 32])
    }

    /// Whether a password may be tried at all: reads only, so that a locked subject costs little.
    pub(crate) async fn look_before_password(
        &self,
        subject: &str,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        self.look_at_network(peer, now).await?;
        open(self.store.locked_until("password", subject, &PASSWORD, now).await.map_err(Error::store)?)
    }

    /// Whether a network may try to sign in at all.
    pub(crate) async fn look_at_network(&self, peer: IpAddr, now: OffsetDateTime) -> Result<(), Error> {
        open(self.store.struck_out("prefix", &prefix(peer), &PREFIX, now).await.map_err(Error::store)?)
    }

    /// Counts a password try, before it is hashed.
    pub(crate) async fn count_password(&self, subject: &str, peer: IpAddr, now: OffsetDateTime) -> Result<(), Error> {
        self.count_prefix(peer, now).await?;
        pass(self.store.back_off("password", subject, &PASSWORD, now).await.map_err(Error::store)?)
    }

    /// Takes back what [`Inner::count_password`] counted, and the failures before it.
    pub(crate) async fn forget_password(&self, subject: &str, peer: IpAddr, at: OffsetDateTime) -> Result<(), Error> {
        self.store.clear("password", subject).await.map_err(Error::store)?;
        self.forgive_prefix(peer, at).await
    }

    /// Counts a try from a network.
    pub(crate) async fn count_prefix(&self, peer: IpAddr, now: OffsetDateTime) -> Result<(), Error> {
        pass(self.store.strike("prefix", &prefix(peer), &PREFIX, now).await.map_err(Error::store)?)
    }

    /// Takes back one try from a network.
    pub(crate) async fn forgive_prefix(&self, peer: IpAddr, at: OffsetDateTime) -> Result<(), Error> {
        self.store.forgive("prefix", &prefix(peer), at).await.map_err(Error::store)
    }

    /// Counts a try at a second factor or a recovery code: one counter a person, whatever the session or node.
    pub(crate) async fn count_second(&self, user: UserId, now: OffsetDateTime) -> Result<(), Error> {
        pass(self.store.strike("second", &user.to_string(), &SECOND, now).await.map_err(Error::store)?)
    }

    /// Takes back one try at a second factor that succeeded.
    pub(crate) async fn forgive_second(&self, user: UserId, at: OffsetDateTime) -> Result<(), Error> {
        self.store.forgive("second", &user.to_string(), at).await.map_err(Error::store)
    }

    /// Who a try with a passkey counts against: its owner from this network, or, where nobody has it, one of 65,536.
    pub(crate) fn passkey_subject(&self, holder: Option<UserId>, credential_id: &[u8], peer: IpAddr) -> String {
        // Made for a known one, too: it costs as much.
        let [a, b, ..] = self.tag_of_unknown("passkey", &hex::encode(sha256(credential_id)));
        let unknown = format!("unknown-{}", hex::encode([a, b]));
        let whose = holder.map_or(unknown, |user| user.to_string());
        format!("{whose} {}", prefix(peer))
    }

    /// Counts an answer of a passkey against its network. Apart from passwords: their failures close no other way.
    pub(crate) async fn count_passkey_network(&self, peer: IpAddr, now: OffsetDateTime) -> Result<(), Error> {
        pass(self.store.strike("passkey-prefix", &prefix(peer), &PREFIX, now).await.map_err(Error::store)?)
    }

    /// Counts an answer of a passkey against its subject.
    pub(crate) async fn count_passkey(&self, subject: &str, now: OffsetDateTime) -> Result<(), Error> {
        pass(self.store.strike("passkey", subject, &PASSKEY, now).await.map_err(Error::store)?)
    }

    /// Takes back one answer of a passkey that held.
    pub(crate) async fn forgive_passkey(&self, subject: &str, peer: IpAddr, at: OffsetDateTime) -> Result<(), Error> {
        self.store.forgive("passkey", subject, at).await.map_err(Error::store)?;
        self.store.forgive("passkey-prefix", &prefix(peer), at).await.map_err(Error::store)
    }

    /// Counts a console ticket.
    pub(crate) async fn count_ticket(&self, user: UserId, now: OffsetDateTime) -> Result<(), Error> {
        pass(self.store.strike("ticket", &user.to_string(), &TICKETS, now).await.map_err(Error::store)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_prefix_and_mapped_addresses_are_folded() {
        let p = |t: &str| prefix(t.parse().unwrap());
        assert_eq!(p("192.0.2.7"), "192.0.2.0/24");
        assert_eq!(p("192.0.2.7"), p("::ffff:192.0.2.250"));
        assert_ne!(p("192.0.2.7"), p("192.0.3.7"));
        assert_eq!(p("2001:db8:0:1:aaaa::1"), p("2001:db8:0:1:bbbb::2"));
        assert_ne!(p("2001:db8:0:1::1"), p("2001:db8:0:2::1"));
    }
}
