// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{Bench, is_in, peer, text};
use portcullis_domain::{Clock, Conditions, Grant, GrantEffect, GrantId, GrantSource, Level, Selector};
use uuid::Uuid;

pub(crate) fn wish(
    user: UserId,
    name: &str,
    hypervisor: Option<HypervisorName>,
    expires_at: OffsetDateTime,
) -> TokenWish<'_> {
    TokenWish { user, name, hypervisor, networks: vec![], expires_at, by: Maker::Owner }
}

fn grant() -> Grant {
    Grant {
        id: GrantId::new(Uuid::from_u128(1)),
        role: "operator".parse().unwrap(),
        selector: Selector::Everything,
        from: OffsetDateTime::UNIX_EPOCH,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

#[tokio::test]
async fn a_token_is_its_owner_of_now_limited_to_its_hypervisor() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let end = b.clock.now() + Duration::DAY;
    let lab: HypervisorName = "lab".parse().unwrap();
    let (id, token) = b.id.mint_token(wish(ada.user, "terraform", Some(lab.clone()), end)).await.unwrap();
    let token = text(&token);
    assert!(token.starts_with("pct_") && !is_in(&b.dump(), &token));
    let actor = b.id.token_actor(&token, peer()).unwrap();
    assert_eq!((actor.user, &*actor.name, actor.via), (ada.user, "ada", Via::Token(id)));
    assert_eq!((actor.scope.as_ref(), actor.assurance.level()), (Some(&lab), Level::Two));
    for wrong in ["", "pct_", &token[1..], &format!("{token}A"), &token.to_uppercase()] {
        assert!(b.id.token_actor(wrong, peer()).is_none(), "{wrong}");
    }
    // another node learns of the token when it asks for the epoch
    assert!(b.other.token_actor(&token, peer()).is_none());
    let mut changes = b.other.changes();
    changes.mark_unchanged();
    b.store.add_grant(ada.user, &grant(), None, b.clock.now()).await.unwrap();
    b.other.refresh().await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(b.other.token_actor(&token, peer()).unwrap().user, ada.user);
    b.clock.advance(Duration::DAY);
    b.id.refresh().await.unwrap();
    assert!(b.id.token_actor(&token, peer()).is_none(), "over");
}

#[tokio::test]
async fn revoking_and_disabling_end_tokens_on_every_node() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (bob, _) = b.person("bob").await;
    let end = b.clock.now() + Duration::DAY;
    let (one, first) = b.id.mint_token(wish(ada.user, "one", None, end)).await.unwrap();
    let (_, second) = b.id.mint_token(wish(ada.user, "two", None, end)).await.unwrap();
    let (first, second) = (text(&first), text(&second));
    b.other.refresh().await.unwrap();
    assert!(matches!(b.id.revoke_token(bob.user, one).await, Err(Error::NotFound(_))));
    b.id.revoke_token(ada.user, one).await.unwrap();
    assert!(matches!(b.id.revoke_token(ada.user, one).await, Err(Error::NotFound(_))));
    assert!(b.id.token_actor(&first, peer()).is_none() && b.id.token_actor(&second, peer()).is_some());
    b.id.disable_user(ada.user).await.unwrap();
    assert!(b.id.token_actor(&second, peer()).is_none());
    assert!(b.other.token_actor(&first, peer()).is_some(), "until it asks for the epoch");
    b.other.refresh().await.unwrap();
    assert!(b.other.token_actor(&first, peer()).is_none() && b.other.token_actor(&second, peer()).is_none());
    assert_eq!(b.id.tokens_of(ada.user).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_that_lost_the_store_accepts_no_token_after_half_a_minute() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (_, token) = b.id.mint_token(wish(ada.user, "tool", None, b.clock.now() + Duration::DAY)).await.unwrap();
    let token = text(&token);
    b.store.close().await;
    assert!(matches!(b.id.refresh().await, Err(Error::Store(_))));
    b.clock.advance(Duration::seconds(30));
    assert!(b.id.token_actor(&token, peer()).is_some());
    b.clock.advance(Duration::seconds(1));
    assert!(b.id.token_actor(&token, peer()).is_none());
}

#[tokio::test]
async fn uses_are_written_down_by_the_minute_without_moving_the_epoch() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (_, token) = b.id.mint_token(wish(ada.user, "tool", None, b.clock.now() + Duration::DAY)).await.unwrap();
    b.clock.advance(Duration::seconds(20));
    let used_at = b.clock.now();
    b.id.token_actor(&text(&token), peer()).unwrap();
    let epoch = b.store.epoch().await.unwrap();
    b.clock.advance(Duration::minutes(2));
    b.id.refresh().await.unwrap();
    let row = b.id.tokens_of(ada.user).await.unwrap().remove(0);
    assert_eq!((row.last_used_at, row.last_used_from), (Some(used_at), Some(peer())));
    assert_eq!(b.store.epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn tokens_without_a_name_or_without_an_end_are_refused() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let now = b.clock.now();
    for (name, end) in [("", now + Duration::DAY), ("x", now), ("x", now + Duration::days(367))] {
        assert!(
            matches!(b.id.mint_token(wish(ada.user, name, None, end)).await, Err(Error::Invalid(_))),
            "{name} {end}"
        );
    }
}

// SEC-011
#[tokio::test]
async fn a_token_counts_from_its_networks_only() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let networks = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let expires_at = b.clock.now() + Duration::DAY;
    let bound = TokenWish { networks, ..wish(ada.user, "bound", None, expires_at) };
    let (id, token) = b.id.mint_token(bound).await.unwrap();
    let token = text(&token);
    b.other.refresh().await.unwrap();
    for node in [&b.id, &b.other] {
        for (from, counts) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("10.2.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("2001:db9::1", false),
        ] {
            let from: IpAddr = from.parse().unwrap();
            assert_eq!(node.token_actor(&token, from).is_some(), counts, "{from}");
            // Whose it is stands in the trail, and only where it is the network that it fails on.
            assert_eq!(
                node.token_elsewhere(&token, from).map(|a| a.via),
                (!counts).then_some(Via::Token(id)),
                "{from}"
            );
        }
        assert!(node.token_elsewhere("pct_unknown", "10.2.0.1".parse().unwrap()).is_none());
    }
    b.clock.advance(Duration::DAY);
    b.id.refresh().await.unwrap();
    assert!(b.id.token_elsewhere(&token, "10.2.0.1".parse().unwrap()).is_none(), "one that is over is unknown");
    let crowd = (0..17).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    let crowd = TokenWish { networks: crowd, ..wish(ada.user, "crowd", None, b.clock.now() + Duration::DAY) };
    assert!(matches!(b.id.mint_token(crowd).await, Err(Error::Invalid(_))));
}

// SEC-146
#[tokio::test]
async fn a_token_that_is_renewed_keeps_everything_that_it_is_limited_to() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (bob, _) = b.person("bob").await;
    for round in 0_u8..24 {
        let hypervisor = (round % 2 == 0).then(|| "lab".parse().unwrap());
        let networks: Vec<Network> = (0..round % 4).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        let expires_at = b.clock.now() + Duration::hours(i64::from(round) + 2);
        let made = TokenWish { hypervisor, networks, ..wish(ada.user, "tool", None, expires_at) };
        let (old, old_text) = b.id.mint_token(made).await.unwrap();
        b.clock.advance(Duration::HOUR);
        b.id.refresh().await.unwrap();
        assert!(matches!(b.id.renew_token(bob.user, old, Maker::Owner).await, Err(Error::NotFound(_))), "not theirs");
        let (new, new_text) = b.id.renew_token(ada.user, old, Maker::Owner).await.unwrap();
        let all = b.id.tokens_of(ada.user).await.unwrap();
        let row = |id| all.iter().find(|t| t.id == id).unwrap();
        let limits = |t: &TokenRow| (t.user, t.hypervisor.clone(), t.networks.clone(), t.expires_at, t.name.clone());
        assert_eq!(limits(row(new)), limits(row(old)), "{round}");
        let inside: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(b.id.token_actor(&text(&old_text), inside).is_none(), "the old text is worth nothing");
        assert!(b.id.token_actor(&text(&new_text), inside).is_some());
        assert!(matches!(b.id.renew_token(ada.user, old, Maker::Owner).await, Err(Error::NotFound(_))), "once");
        b.clock.advance(Duration::hours(i64::from(round) + 1));
        b.id.refresh().await.unwrap();
        assert!(matches!(b.id.renew_token(ada.user, new, Maker::Owner).await, Err(Error::NotFound(_))), "it is over");
    }
}

#[tokio::test]
async fn what_outlives_a_request_finds_its_token_by_its_id() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let end = b.clock.now() + Duration::DAY;
    let mut limited = wish(ada.user, "lxc", None, end);
    limited.networks = vec!["192.0.2.0/24".parse().unwrap()];
    let (id, _) = b.id.mint_token(limited).await.unwrap();
    let (other, _) = b.id.mint_token(wish(ada.user, "other", None, end)).await.unwrap();
    let [inside, outside]: [IpAddr; 2] = ["192.0.2.7", "198.51.100.1"].map(|ip| ip.parse().unwrap());
    assert_eq!(b.id.token_owner(id).unwrap().via, Via::Token(id));
    assert_eq!(b.id.token_from(id, inside).unwrap().via, Via::Token(id));
    assert!(b.id.token_from(id, outside).is_none(), "its networks count");
    assert_eq!(b.id.token_from(other, outside).unwrap().via, Via::Token(other));
    b.id.revoke_token(ada.user, id).await.unwrap();
    assert!(b.id.token_owner(id).is_none() && b.id.token_from(id, inside).is_none());
    b.clock.advance(Duration::DAY);
    b.id.refresh().await.unwrap();
    assert!(b.id.token_owner(other).is_none(), "over");

    // Each stream asks every second: among many tokens it may not look at all of them.
    let now = b.clock.now();
    let live = |n: u128| {
        let token = TokenRow {
            id: TokenId::new(Uuid::from_u128(n)),
            user: ada.user,
            name: "t".to_owned(),
            hypervisor: None,
            networks: vec![],
            made_by: None,
            created_at: now,
            expires_at: now + Duration::DAY,
            last_used_at: None,
            last_used_from: None,
            revoked_at: None,
        };
        LiveToken { hash: chance::sha256(&n.to_be_bytes()), user_name: "ada".to_owned(), token }
    };
    let took = |many: u128| {
        b.id.0.tokens.table.store(Some(Arc::new(table((1..=many).map(live).collect(), vec![]))));
        let look = |_| {
            let began = std::time::Instant::now();
            for n in 0..1_000 {
                assert!(b.id.token_owner(TokenId::new(Uuid::from_u128(n * (many - 1) / 999 + 1))).is_some());
            }
            began.elapsed()
        };
        // Whatever else the machine does makes it longer, and never shorter.
        (0..5).map(look).min().unwrap()
    };
    let (few, all) = (took(100), took(20_000));
    assert!(all < few * 20, "{all:?} among 20,000, {few:?} among a hundred: 200 times as long where all are looked at");
}
