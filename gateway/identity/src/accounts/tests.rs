// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    PasswordSettings, Settings, TokenWish, Why, sort_blocklist,
    testing::{Bench, PASSWORD, peer, secret, text},
    token::Maker,
};
use portcullis_domain::Clock as _;

fn tool(user: UserId, b: &Bench, by: Maker) -> TokenWish<'static> {
    let expires_at = b.clock.now() + Duration::DAY;
    TokenWish { user, name: "tool", hypervisor: None, networks: vec![], expires_at, by }
}

// SEC-141
#[tokio::test]
async fn a_lock_stops_everything_at_once_and_loses_nothing() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let (_, token) = b.id.mint_token(tool(ada.user, &b, Maker::Owner)).await.unwrap();
    let token = text(&token);
    let id = b.id.sessions_of(ada.user).await.unwrap()[0].session;
    b.id.lock_user(ada.user, "stolen\nlaptop", None).await.unwrap();
    assert!(!b.is_signed_in(&b.again(&session)).await && b.id.token_actor(&token, peer()).is_none());
    assert_eq!(b.id.why_ended(id).await.unwrap().as_deref(), Some("the account was locked"));
    b.other.refresh().await.unwrap();
    assert!(b.other.token_actor(&token, peer()).is_none());
    b.next_step();
    let refused = b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.unwrap_err();
    assert_eq!(refused.noted().unwrap().noted, Why::Locked);
    assert_eq!(refused.to_string(), Error::refused(Why::WrongPassword, None).to_string(), "a stranger learns nothing");
    b.id.unlock_user(ada.user).await.unwrap();
    assert!(!b.is_signed_in(&b.again(&session)).await, "what ended stays ended");
    assert!(b.id.token_actor(&token, peer()).is_some());
    b.signed_in(&ada).await;
}

#[tokio::test]
async fn a_lock_between_password_and_code_holds() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let session = b.browser();
    b.next_step();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    b.id.lock_user(ada.user, "", None).await.unwrap();
    assert!(b.id.second_factor(&b.again(&session), &b.code(&ada.app), peer()).await.is_err());
    let token = b.id.invite(ada.user).await.unwrap();
    let redeem =
        crate::Redeem { token: &text(&token), name: None, display_name: "", password: secret("another coral bicycle") };
    assert!(b.id.redeem_invitation(&b.browser(), redeem, peer()).await.is_err(), "a link opens no locked account");
}

#[tokio::test]
async fn a_service_account_has_tokens_and_nothing_else() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let robot = b.id.create_service("robot", "").await.unwrap();
    assert!(matches!(b.id.invite(robot).await, Err(Error::Invalid(_))));
    assert!(matches!(b.id.reset(robot).await, Err(Error::Invalid(_))));
    let refused = b.id.sign_in(&b.browser(), "robot", secret(PASSWORD), peer()).await.unwrap_err();
    assert_eq!(refused.noted().unwrap().noted, Why::NoPassword);
    let (_, token) = b.id.mint_token(tool(robot, &b, Maker::Administrator(ada.user))).await.unwrap();
    assert_eq!(b.id.token_actor(&text(&token), peer()).unwrap().user, robot);
    assert_eq!(b.id.tokens_of(robot).await.unwrap()[0].made_by, Some(ada.user));
    // Nobody makes a token of a person for them.
    for by in [Maker::Administrator(ada.user), Maker::Shell] {
        assert!(matches!(b.id.mint_token(tool(ada.user, &b, by)).await, Err(Error::Invalid(_))), "{by:?}");
    }
    assert!(matches!(b.id.mint_token(tool(robot, &b, Maker::Owner)).await, Err(Error::Invalid(_))));
    b.id.disable_user(robot).await.unwrap();
    assert!(b.id.token_actor(&text(&token), peer()).is_none());
    assert!(matches!(b.id.mint_token(tool(robot, &b, Maker::Shell)).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_session_is_listed_with_what_was_proven_in_it_and_when() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let session = b.signed_in(&ada).await;
    let signed_in = b.clock.now();
    b.clock.advance(Duration::minutes(7));
    b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    let lines = b.id.session_lines(ada.user).await.unwrap();
    assert_eq!(lines[0].factors, [(Factor::Password, signed_in), (Factor::Totp, b.clock.now())]);
    assert_eq!(lines[0].ends_at, signed_in + Duration::hours(12));
    assert_eq!((lines[0].row.peer, lines[0].row.created_at), (Some(peer()), signed_in));
}

#[tokio::test]
async fn a_banner_is_confirmed_once_a_session_and_again_when_it_changes() {
    let with = |banner: &str| Settings { banner: banner.to_owned(), ..Settings::default() };
    let b = Bench::with(with("Authorised use only.")).await;
    let (ada, _) = b.person("ada").await;
    let session = b.signed_in(&ada).await;
    assert_eq!(b.id.banner_to_confirm(&session).await.unwrap(), Some("Authorised use only."));
    assert!(matches!(b.id.confirm_banner(&b.browser()).await, Err(Error::Expired)), "nobody confirms it unknown");
    b.id.confirm_banner(&session).await.unwrap();
    assert_eq!(b.id.banner_to_confirm(&b.again(&session)).await.unwrap(), None);
    b.next_step();
    b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    assert_eq!(b.id.banner_to_confirm(&b.again(&session)).await.unwrap(), None, "a step keeps it");
    let other = b.signed_in(&ada).await;
    assert!(b.id.banner_to_confirm(&other).await.unwrap().is_some(), "each session for itself");
    let changed = b.with_settings(with("Something else."));
    assert_eq!(changed.banner_to_confirm(&b.again(&session)).await.unwrap(), Some("Something else."));
    let none = b.with_settings(with("  "));
    assert_eq!(none.banner_to_confirm(&b.again(&session)).await.unwrap(), None);
}

#[tokio::test]
async fn a_training_counts_until_its_day() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let now = b.clock.now();
    for until in [now, now + Duration::days(2_000)] {
        assert!(matches!(b.id.attest_training(ada.user, until, None).await, Err(Error::Invalid(_))), "{until}");
    }
    assert!(b.id.training_of(ada.user).await.unwrap().is_none());
    b.id.attest_training(ada.user, now + Duration::days(365), None).await.unwrap();
    assert_eq!(b.id.training_of(ada.user).await.unwrap().unwrap().until, now + Duration::days(365));
}

// SEC-134
#[tokio::test]
async fn a_stolen_password_is_refused_with_the_reason() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stolen = "seventeen violet trombones asleep";
    sort_blocklist(format!("{stolen}\nanother\n").as_bytes(), std::fs::File::create(file.path()).unwrap()).unwrap();
    let passwords = PasswordSettings { shortest: 15, blocklist: Some(file.path().to_owned()) };
    let b = Bench::with(Settings { passwords, ..Settings::default() }).await;
    let (ada, session) = b.person("ada").await;
    b.next_step();
    for (new, says) in [(stolen, "stolen elsewhere"), ("qz7w kx2v gh", "at least 15 characters")] {
        let error = b.id.change_password(&session, secret(PASSWORD), secret(new)).await.unwrap_err();
        assert!(matches!(error, Error::Weak(_)) && error.to_string().contains(says), "{new}: {error}");
    }
    let fine = "eighteen violet trombones asleep";
    b.id.change_password(&session, secret(PASSWORD), secret(fine)).await.unwrap();
    // A list that goes bad while the gateway runs lets no password through.
    std::fs::write(file.path(), "").unwrap();
    let session = b.browser();
    b.next_step();
    b.id.sign_in(&session, "ada", secret(fine), peer()).await.unwrap();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    let error = b.id.change_password(&session, secret(fine), secret("nineteen violet trombones asleep")).await;
    assert!(matches!(error, Err(Error::Settings(_))), "{error:?}");
}

#[tokio::test]
async fn a_session_that_ran_out_says_which_limit_it_reached() {
    let b = Bench::with(Settings { idle_seconds: 900, absolute_seconds: 43_200, ..Settings::default() }).await;
    let (ada, _) = b.person("ada").await;
    let session = b.signed_in(&ada).await;
    let id = b.id.sessions_of(ada.user).await.unwrap()[0].session;
    assert_eq!(b.id.why_ended(id).await.unwrap(), None, "it counts");
    b.clock.advance(Duration::minutes(15));
    assert!(!b.is_signed_in(&b.again(&session)).await);
    assert_eq!(b.id.why_ended(id).await.unwrap().as_deref(), Some("you did nothing for 15 minutes"));
    let session = b.signed_in(&ada).await;
    let id = b.id.sessions_of(ada.user).await.unwrap()[0].session;
    while b.is_signed_in(&b.again(&session)).await {
        b.clock.advance(Duration::minutes(10));
    }
    let words = b.id.why_ended(id).await.unwrap();
    assert_eq!(words.as_deref(), Some("you were signed in for 12 hours, which is the longest"));
}
