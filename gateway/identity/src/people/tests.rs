// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{Bench, PASSWORD, is_in, peer, secret, text};
use portcullis_domain::Clock;

const OTHER: &str = "seven lanterns under the quiet harbour";

fn first<'a>(token: &'a str, name: &'a str, password: &str) -> Redeem<'a> {
    Redeem { token, name: Some(name), display_name: "", password: secret(password) }
}

#[tokio::test]
async fn the_first_administrator_names_themselves_once_within_half_an_hour() {
    let b = Bench::new().await;
    let early = text(&b.id.invite_first().await.unwrap());
    let token = text(&b.id.invite_first().await.unwrap());
    assert!(!is_in(&b.dump(), &token));
    let session = b.browser();
    let redeem = async |r: Redeem<'_>| b.id.redeem_invitation(&session, r, peer()).await;
    assert!(matches!(redeem(first(&early, "root", PASSWORD)).await, Err(Error::Refused(_))), "replaced by the second");
    assert!(matches!(redeem(first("pci_x", "root", PASSWORD)).await, Err(Error::Refused(_))));
    // what can be mended leaves the link usable
    assert!(matches!(redeem(first(&token, "", PASSWORD)).await, Err(Error::Invalid(_))));
    assert!(matches!(redeem(first(&token, "root", "12345678")).await, Err(Error::Weak(_))));
    assert!(b.id.look_at_invitation(&token, peer()).await.unwrap().is_none());
    assert_eq!(redeem(first(&token, "Root", PASSWORD)).await.unwrap(), Next::Enrol);
    b.enrol(&session).await;
    let actor = b.id.actor(&session).await.unwrap().unwrap();
    let grants = b.store.grants_of(actor.user).await.unwrap();
    let roles: std::collections::BTreeSet<_> = grants.iter().map(|g| g.role.as_str()).collect();
    assert_eq!((&*actor.name, roles.into_iter().collect::<Vec<_>>()), ("Root", vec!["administrator", "security-lead"]));
    assert!(grants.iter().all(|g| g.selector == Selector::Everything && g.source == GrantSource::Setup));
    assert!(matches!(redeem(first(&token, "eve", PASSWORD)).await, Err(Error::Refused(_))));
    assert!(matches!(b.id.invite_first().await, Err(Error::Conflict(_))));

    let b = Bench::new().await;
    let token = text(&b.id.invite_first().await.unwrap());
    b.clock.advance(Duration::minutes(30));
    let late = b.id.redeem_invitation(&b.browser(), first(&token, "root", PASSWORD), peer()).await;
    assert!(matches!(late, Err(Error::Refused(r)) if r.noted == Why::WrongInvitation));
}

// SEC-135
#[tokio::test]
async fn an_invitation_sets_a_password_and_does_not_lift_the_second_factor() {
    let b = Bench::new().await;
    let (ada, elsewhere) = b.person("ada").await;
    let token = text(&b.id.invite(ada.user).await.unwrap());
    assert_eq!(b.id.look_at_invitation(&token, peer()).await.unwrap().unwrap().id, ada.user);
    let session = b.browser();
    let redeem = Redeem { token: &token, name: Some("eve"), display_name: "", password: secret(OTHER) };
    assert_eq!(b.id.redeem_invitation(&session, redeem, peer()).await.unwrap(), Next::SecondFactor);
    assert!(!b.is_signed_in(&b.again(&elsewhere)).await);
    assert!(b.id.find_user("eve").await.unwrap().is_none(), "a name in the form changes nothing");
    b.next_step();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_err());
    b.id.disable_user(ada.user).await.unwrap();
    assert!(matches!(b.id.invite(ada.user).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_reset_takes_everything_and_chooses_nothing() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let (_, tool) =
        b.id.mint_token(crate::token::tests::wish(ada.user, "tool", None, b.clock.now() + Duration::DAY))
            .await
            .unwrap();
    let token = text(&b.id.reset(ada.user).await.unwrap());
    assert!(!b.is_signed_in(&b.again(&session)).await);
    assert!(b.id.token_actor(&text(&tool), peer()).is_none(), "a token is no way back in");
    assert!(b.id.factors(ada.user).await.unwrap().is_empty());
    assert_eq!(b.id.recovery_codes_left(ada.user).await.unwrap(), 0);
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_err());
    let session = b.browser();
    let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(OTHER) };
    assert_eq!(b.id.redeem_invitation(&session, redeem, peer()).await.unwrap(), Next::Enrol);
    b.enrol(&session).await;
    assert!(b.is_signed_in(&session).await);
    assert!(b.id.token_actor(&text(&tool), peer()).is_none(), "nor afterwards");
}

#[tokio::test]
async fn names_are_unique_in_every_spelling() {
    let b = Bench::new().await;
    b.id.create_user("Ada", "Ada Lovelace").await.unwrap();
    for twin in ["ada", "ADA", "ａｄａ"] {
        assert!(matches!(b.id.create_user(twin, "").await, Err(Error::Conflict(_))), "{twin}");
    }
    assert_eq!(b.id.find_user(" aDa ").await.unwrap().unwrap().display_name, "Ada Lovelace");
    assert!(matches!(b.id.create_user("a b", "").await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_a_fresh_factor_and_ends_other_sessions() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let elsewhere = b.signed_in(&ada).await;
    let change = async |old: &str, new: &str| b.id.change_password(&session, secret(old), secret(new)).await;
    assert!(matches!(change("wrong", OTHER).await, Err(Error::Refused(_))));
    assert!(matches!(change(PASSWORD, "short").await, Err(Error::Weak(_))));
    assert!(matches!(change(PASSWORD, &"x".repeat(257)).await, Err(Error::Weak(_))));
    let again = change(PASSWORD, PASSWORD).await.unwrap_err();
    assert!(again.to_string().contains("used before"), "{again}");
    let before = session.id();
    let (_, tool) =
        b.id.mint_token(crate::token::tests::wish(ada.user, "tool", None, b.clock.now() + Duration::DAY))
            .await
            .unwrap();
    change(PASSWORD, OTHER).await.unwrap();
    assert!(b.id.token_actor(&text(&tool), peer()).is_none(), "whoever stole the password may have made it");
    assert_ne!(session.id(), before);
    assert!(b.is_signed_in(&b.again(&session)).await);
    assert!(!b.is_signed_in(&b.again(&elsewhere)).await);
    assert!(change(OTHER, PASSWORD).await.unwrap_err().to_string().contains("used before"));
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_err());
    assert!(b.id.sign_in(&b.browser(), "ada", secret(OTHER), peer()).await.is_ok());

    b.clock.advance(Duration::minutes(6));
    assert!(matches!(change(OTHER, "another fine evening by the lake").await, Err(Error::NotFresh)));
    b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    for _ in 0..5 {
        assert!(matches!(change("wrong", OTHER).await, Err(Error::Refused(_))));
    }
    assert!(matches!(change(OTHER, "another fine evening by the lake").await, Err(Error::Locked { .. })));
}

#[tokio::test]
async fn a_second_authenticator_comes_and_goes_with_a_fresh_factor_and_the_last_stays() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let elsewhere = b.signed_in(&ada).await;
    let only = b.id.factors(ada.user).await.unwrap()[0].id;
    assert!(matches!(b.id.remove_factor(&session, only).await, Err(Error::Invalid(_))));
    let (second, codes) = b.enrol(&session).await;
    assert!(codes.is_empty(), "the recovery codes stay");
    assert_eq!(b.id.recovery_codes_left(ada.user).await.unwrap(), 10);
    assert!(b.is_signed_in(&b.again(&session)).await && !b.is_signed_in(&b.again(&elsewhere)).await);
    b.clock.advance(Duration::minutes(6));
    assert!(matches!(b.id.begin_enrolment(&session).await.map(drop), Err(Error::NotFresh)));
    assert!(matches!(b.id.remove_factor(&session, only).await, Err(Error::NotFresh)));
    b.id.step_up(&session, &b.code(&second), peer()).await.unwrap();
    b.id.remove_factor(&session, only).await.unwrap();
    assert_eq!(b.id.factors(ada.user).await.unwrap().len(), 1);
    let (bob, theirs) = b.person("bob").await;
    let foreign = b.id.factors(bob.user).await.unwrap()[0].id;
    assert!(matches!(b.id.remove_factor(&session, foreign).await, Err(Error::NotFound(_))));
    assert!(b.is_signed_in(&theirs).await);
}

#[tokio::test]
async fn of_two_who_know_a_new_password_one_enrols() {
    let b = Bench::new().await;
    let user = b.id.create_user("ada", "").await.unwrap();
    let token = text(&b.id.invite(user).await.unwrap());
    let (one, two) = (b.browser(), b.browser());
    let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(PASSWORD) };
    b.id.redeem_invitation(&one, redeem, peer()).await.unwrap();
    assert_eq!(b.id.sign_in(&two, "ada", secret(PASSWORD), peer()).await.unwrap(), Next::Enrol);
    let late = b.again(&two);
    b.id.stage(&late).await.unwrap();
    let shown = b.id.begin_enrolment(&one).await.unwrap();
    assert_eq!(*b.id.begin_enrolment(&one).await.unwrap().uri, *shown.uri, "shown again until it is confirmed");
    let wrong = b.id.confirm_enrolment(&one, "000000", peer()).await;
    assert!(matches!(wrong, Err(Error::Refused(_))));
    assert_eq!(*b.id.begin_enrolment(&one).await.unwrap().uri, *shown.uri);
    b.enrol(&one).await;
    assert!(matches!(b.id.begin_enrolment(&b.again(&two)).await.map(drop), Err(Error::Expired)), "its session ended");
    // a request of the other that was already on its way
    let shown = b.id.begin_enrolment(&late).await;
    assert!(shown.is_err() || b.id.confirm_enrolment(&late, "000000", peer()).await.is_err());
    assert_eq!(b.id.factors(user).await.unwrap().len(), 1);
}

#[tokio::test]
async fn people_end_their_own_sessions_and_no_other() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let second = b.signed_in(&ada).await;
    let third = b.signed_in(&ada).await;
    let (bob, theirs) = b.person("bob").await;
    let id = |stage| match stage {
        Stage::SignedIn { session, .. } => session,
        other => panic!("{other:?}"),
    };
    let foreign = id(b.id.stage(&theirs).await.unwrap());
    assert!(matches!(b.id.end_own_session(&session, foreign).await, Err(Error::NotFound(_))));
    b.id.end_own_session(&session, id(b.id.stage(&second).await.unwrap())).await.unwrap();
    assert!(!b.is_signed_in(&b.again(&second)).await && b.is_signed_in(&b.again(&third)).await);
    assert_eq!(b.id.end_others(&session).await.unwrap(), 1);
    assert!(!b.is_signed_in(&b.again(&third)).await && b.is_signed_in(&b.again(&session)).await);
    assert!(b.is_signed_in(&b.again(&theirs)).await);
    b.id.end_session(foreign, "an administrator ended it").await.unwrap();
    assert!(!b.is_signed_in(&b.again(&theirs)).await);
    assert!(matches!(b.id.end_session(foreign, "again").await, Err(Error::NotFound(_))));
    assert!(b.id.sessions_of(bob.user).await.unwrap().is_empty());
    let row = b.id.sessions_of(ada.user).await.unwrap().remove(0);
    b.id.describe_session(row.session, "Browser 1").await.unwrap();
    let row = b.id.sessions_of(ada.user).await.unwrap().remove(0);
    assert_eq!((row.peer, row.agent.as_deref()), (Some(peer()), Some("Browser 1")));
}

#[tokio::test]
async fn many_sessions_act_as_their_people_of_now() {
    let b = Bench::new().await;
    let mut sessions = std::collections::BTreeSet::new();
    let mut people = vec![];
    for name in ["ada", "bob", "eve"] {
        let (person, session) = b.person(name).await;
        let Stage::SignedIn { session: id, .. } = b.id.stage(&session).await.unwrap() else { panic!() };
        sessions.insert(id);
        people.push((person.user, id));
    }
    let grant = first_grant("operator", b.clock.now()).unwrap();
    b.store.add_grant(people[1].0, &grant, None, b.clock.now()).await.unwrap();
    b.id.refresh().await.unwrap();
    let actors = b.id.actors_of(&sessions).await.unwrap();
    assert_eq!(actors.len(), 3);
    for (user, session) in &people {
        let one = b.id.actor_of(*session).await.unwrap().unwrap();
        assert_eq!((actors[session].user, &actors[session].name), (*user, &one.name));
    }
    b.id.disable_user(people[0].0).await.unwrap();
    b.id.end_session(people[2].1, "an administrator ended it").await.unwrap();
    let actors = b.id.actors_of(&sessions).await.unwrap();
    assert_eq!(actors.into_keys().collect::<Vec<_>>(), [people[1].1]);
}

#[tokio::test]
async fn a_console_keeps_its_session_alive_until_it_ends() {
    let b = Bench::new().await;
    let (_, session) = b.person("ada").await;
    let Stage::SignedIn { session: id, .. } = b.id.stage(&session).await.unwrap() else { panic!() };
    for _ in 0..3 {
        b.clock.advance(Duration::minutes(20));
        assert!(b.id.keep_alive(id, b.clock.now()).await.unwrap());
    }
    // What comes late counts from when it was.
    let typed_at = b.clock.now();
    b.clock.advance(Duration::minutes(20));
    assert!(b.id.keep_alive(id, typed_at).await.unwrap());
    b.clock.advance(Duration::minutes(11));
    assert!(b.id.actor_of(id).await.unwrap().is_none());
    assert!(!b.id.keep_alive(id, b.clock.now()).await.unwrap());
}

#[tokio::test]
async fn a_link_that_is_used_in_a_browser_of_its_own_person_goes_on_there() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    // In one that gave a sign-in of theirs up, too, long enough ago to be a stranger's again.
    let half = b.browser();
    b.next_step();
    b.id.sign_in(&half, "ada", secret(PASSWORD), peer()).await.unwrap();
    b.clock.advance(Duration::minutes(11));
    let token = b.id.invite(ada.user).await.unwrap();
    let password = secret("eighteen violet trombones asleep");
    let redeem = Redeem { token: &text(&token), name: None, display_name: "", password };
    let half = b.again(&half);
    assert_eq!(b.id.stage(&half).await.unwrap(), Stage::Stranger);
    assert_eq!(b.id.redeem_invitation(&half, redeem, peer()).await.unwrap(), Next::SecondFactor);
    let session = {
        drop(session);
        b.next_step();
        b.id.second_factor(&half, &b.code(&ada.app), peer()).await.unwrap();
        half
    };
    let before = session.id();
    let token = b.id.invite(ada.user).await.unwrap();
    let password = secret("nineteen violet trombones asleep");
    let redeem = Redeem { token: &text(&token), name: None, display_name: "", password };
    let session = b.again(&session);
    b.id.stage(&session).await.unwrap();
    assert_eq!(b.id.redeem_invitation(&session, redeem, peer()).await.unwrap(), Next::SecondFactor);
    assert!(session.id() != before && !b.is_signed_in(&b.again(&session)).await);
    b.next_step();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    assert!(b.is_signed_in(&b.again(&session)).await);
}
