// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    BreakGlassSettings, Settings, Stage, TokenWish,
    testing::{Bench, PASSWORD, is_in, peer, secret},
    token::Maker,
};
use portcullis_domain::{Clock as _, Level};
use time::Duration;

async fn bench() -> (Bench, UserId, Vec<String>) {
    let networks = vec!["192.0.2.0/24".parse().unwrap()];
    let b = Bench::with(Settings { break_glass: BreakGlassSettings { networks }, ..Settings::default() }).await;
    let account = b.id.break_glass_account("break-glass").await.unwrap();
    let codes = b.id.break_glass_codes(account).await.unwrap();
    let codes = codes.iter().map(|c| c.to_string()).collect();
    (b, account, codes)
}

fn why(error: &Error) -> Option<Why> {
    error.noted().map(|r| r.noted)
}

// SEC-133
#[tokio::test]
async fn a_sealed_code_opens_its_account_once_for_an_hour_from_allowed_networks() {
    let (b, account, codes) = bench().await;
    assert!(codes.len() == 2 && codes.iter().all(|c| c.len() == 39 && !is_in(&b.dump(), c)), "hashed at rest");
    let outside: IpAddr = "198.51.100.7".parse().unwrap();
    let session = b.browser();
    let refused = b.id.break_glass(&session, &codes[0], outside).await.unwrap_err();
    assert_eq!(why(&refused), Some(Why::WrongNetwork));
    let unknown = b.id.break_glass(&session, "AAAA-AAAA", peer()).await.unwrap_err();
    assert_eq!((why(&unknown), unknown.to_string()), (Some(Why::WrongBreakGlass), refused.to_string()));
    // A code that came from a wrong network is not spent by it; however it is typed, it counts.
    let used = b.id.break_glass(&session, &codes[0].to_lowercase().replace('-', " "), peer()).await.unwrap();
    assert_eq!((used.number, used.user, used.used.unwrap().1), (1, account, peer()));
    let session = b.again(&session);
    let actor = b.id.actor(&session).await.unwrap().unwrap();
    assert_eq!((actor.user, actor.assurance.level()), (account, Level::Two));
    let again = b.id.break_glass(&b.browser(), &codes[0], peer()).await.unwrap_err();
    assert_eq!(why(&again), Some(Why::WrongBreakGlass));
    // It is fresh for its hour, is used all the time, and then it is over.
    let began = b.clock.now();
    for _ in 0..59 {
        b.clock.advance(Duration::MINUTE);
        let actor = b.id.actor(&b.again(&session)).await.unwrap().expect("within the hour");
        assert!(actor.assurance.is_fresh(Duration::minutes(5), b.clock.now()));
    }
    b.clock.advance(began + Duration::HOUR - b.clock.now());
    assert_eq!(b.id.stage(&b.again(&session)).await.unwrap(), Stage::Stranger);
}

#[tokio::test]
async fn a_browser_that_a_provider_sent_half_way_can_still_open_the_envelope() {
    let (b, account, codes) = bench().await;
    let session = b.browser();
    // What is left of a sign-in whose provider ended it, or is gone.
    let came = serde_json::json!({ "provider": "corp", "link": "00000000-0000-7000-8000-000000000001" });
    session.insert(crate::oidc::CAME, came).await.unwrap();
    let used = b.id.break_glass(&session, &codes[0], peer()).await.unwrap();
    assert_eq!(used.user, account);
    assert!(b.id.actor(&b.again(&session)).await.unwrap().is_some());
}

#[tokio::test]
async fn an_emergency_leaves_no_way_to_stay() {
    let (b, account, codes) = bench().await;
    let session = b.browser();
    b.id.break_glass(&session, &codes[1], peer()).await.unwrap();
    let wish = TokenWish {
        user: account,
        name: "stay",
        hypervisor: None,
        networks: vec![],
        expires_at: b.clock.now() + Duration::DAY,
        by: Maker::Owner,
    };
    assert!(matches!(b.id.mint_token(wish).await, Err(Error::Invalid(_))));
    assert!(matches!(b.id.begin_enrolment(&session).await.err(), Some(Error::Invalid(_))));
    assert!(matches!(b.id.regenerate_recovery_codes(&session).await, Err(Error::Invalid(_))));
    let changed = b.id.change_password(&session, secret("x"), secret(PASSWORD)).await;
    assert!(matches!(changed, Err(Error::Invalid(_))));
    assert!(matches!(b.id.invite(account).await, Err(Error::Invalid(_))));
    assert!(matches!(b.id.reset(account).await, Err(Error::Invalid(_))));
    let refused = b.id.sign_in(&b.browser(), "break-glass", secret(PASSWORD), peer()).await.unwrap_err();
    assert_eq!(why(&refused), Some(Why::NoPassword));
}

#[tokio::test]
async fn a_use_asks_for_a_review_by_somebody_else() {
    let (b, account, codes) = bench().await;
    let (ada, _) = b.person("ada").await;
    let used = b.id.break_glass(&b.browser(), &codes[0], peer()).await.unwrap();
    assert_eq!(b.id.break_glass_unreviewed().await.unwrap(), 1);
    let own = b.id.review_break_glass(used.id, account, "me", "because").await;
    assert!(matches!(own, Err(Error::Invalid(_))));
    for (who, why) in [("", "x"), ("x", " "), ("a\nb", "x"), ("x", &"y".repeat(513))] {
        assert!(matches!(b.id.review_break_glass(used.id, ada.user, who, why).await, Err(Error::Invalid(_))));
    }
    b.id.review_break_glass(used.id, ada.user, "Bob", "the provider was down").await.unwrap();
    assert_eq!(b.id.break_glass_unreviewed().await.unwrap(), 0);
    let again = b.id.review_break_glass(used.id, ada.user, "Eve", "something else").await;
    assert!(matches!(again, Err(Error::NotFound(_))));
    let review = b.id.break_glass_uses().await.unwrap().remove(0).review.unwrap();
    assert_eq!((&*review.by, &*review.who), ("ada", "Bob"));
}

#[tokio::test]
async fn new_codes_end_the_old_ones_and_another_kind_of_account_has_none() {
    let (b, account, codes) = bench().await;
    let (ada, _) = b.person("ada").await;
    assert!(matches!(b.id.break_glass_account("Ada").await, Err(Error::Conflict(_))));
    assert!(matches!(b.id.break_glass_codes(ada.user).await, Err(Error::Invalid(_))));
    assert_eq!(b.id.break_glass_account("BREAK-GLASS").await.unwrap(), account);
    let new = b.id.break_glass_codes(account).await.unwrap();
    assert!(b.id.break_glass(&b.browser(), &codes[0], peer()).await.is_err());
    assert!(b.id.break_glass(&b.browser(), &new[0], peer()).await.is_ok());
}

// SEC-133
#[tokio::test]
async fn nobody_locks_the_emergency_out_by_guessing() {
    let (b, _, codes) = bench().await;
    let (ada, _) = b.person("ada").await;
    for _ in 0..60 {
        assert!(b.id.break_glass(&b.browser(), "AAAA", peer()).await.is_err());
        assert!(b.id.sign_in(&b.browser(), &ada.name, secret("wrong wrong wrong"), peer()).await.is_err());
    }
    b.next_step();
    let locked = b.id.sign_in(&b.browser(), &ada.name, secret(PASSWORD), peer()).await;
    assert!(matches!(locked, Err(Error::Locked { .. })), "the person and the network are locked");
    assert!(b.id.break_glass(&b.browser(), &codes[0], peer()).await.is_ok());
}
