// SPDX-License-Identifier: Apache-2.0
use crate::{
    Settings, Stage,
    testing::{Bench, is_in, peer, secret},
};
use portcullis_domain::{Clock, Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
use time::{Duration, OffsetDateTime};

#[tokio::test]
async fn a_saved_session_never_revives_an_ended_one() {
    let b = Bench::new().await;
    let (_, session) = b.person("ada").await;
    // a request in flight: it has read the session
    let flight = b.again(&session);
    assert!(b.is_signed_in(&flight).await);
    flight.insert("note", 1).await.unwrap();
    b.id.sign_out(&b.again(&session)).await.unwrap();
    flight.save().await.unwrap();
    assert_eq!(b.id.stage(&b.again(&session)).await.unwrap(), Stage::Stranger);
    // nor by a step, nor under a new id
    assert!(flight.cycle_id().await.is_ok());
    assert!(flight.save().await.is_err(), "only a step makes somebody out of a stranger");
    assert!(b.id.actor(&b.again(&session)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_step_that_comes_after_the_end_fails_and_leaves_a_stranger() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let session = b.browser();
    b.next_step();
    b.id.sign_in(&session, "ada", secret(crate::testing::PASSWORD), peer()).await.unwrap();
    let flight = b.again(&session);
    assert!(matches!(b.id.stage(&flight).await.unwrap(), Stage::NeedsSecond { .. }));
    b.store.end_sessions_of(ada.user, None, portcullis_domain::Clock::now(&*b.clock), "locked").await.unwrap();
    let done = b.id.second_factor(&flight, &b.code(&ada.app), peer()).await;
    assert!(matches!(done, Err(crate::Error::Expired)), "{done:?}");
    assert_eq!(b.id.stage(&flight).await.unwrap(), Stage::Stranger);
    assert!(flight.is_empty().await, "the layer takes the cookie back");
    assert!(b.id.sessions_of(ada.user).await.unwrap().is_empty());
}

fn grant_of(role: &str) -> Grant {
    Grant {
        id: GrantId::new(uuid::Uuid::new_v4()),
        role: role.parse().unwrap(),
        selector: Selector::Everything,
        from: OffsetDateTime::UNIX_EPOCH,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

#[tokio::test]
async fn who_can_do_most_is_signed_out_sooner() {
    let b = Bench::new().await;
    for (name, role, minutes) in
        [("ada", "administrator", 15), ("sam", "security-lead", 15), ("ona", "operator", 30), ("tom", "auditor", 30)]
    {
        let (person, _) = b.person(name).await;
        let grant = grant_of(role);
        b.store.add_grant(person.user, &grant, None, b.clock.now()).await.unwrap();
        b.id.refresh().await.unwrap();
        let session = b.signed_in(&person).await;
        b.clock.advance(Duration::minutes(minutes) - Duration::seconds(1));
        assert!(b.is_signed_in(&b.again(&session)).await, "{role}: use moves the limit");
        b.clock.advance(Duration::minutes(minutes));
        assert!(!b.is_signed_in(&b.again(&session)).await, "{role}");
        // Taken back: like everybody else again.
        b.store.revoke_grant(grant.id, None, b.clock.now()).await.unwrap();
        b.id.refresh().await.unwrap();
        let session = b.signed_in(&person).await;
        b.clock.advance(Duration::minutes(29));
        assert!(b.is_signed_in(&b.again(&session)).await, "{role}");
    }
}

#[tokio::test]
async fn a_session_ends_when_idle_and_at_its_absolute_limit_in_use() {
    let b = Bench::with(Settings { idle_seconds: 1_800, absolute_seconds: 43_200, ..Settings::default() }).await;
    let (ada, session) = b.person("ada").await;
    b.clock.advance(Duration::minutes(29));
    assert!(b.is_signed_in(&b.again(&session)).await);
    b.clock.advance(Duration::minutes(29));
    assert!(b.is_signed_in(&b.again(&session)).await, "use moves the idle limit");
    b.clock.advance(Duration::minutes(30));
    assert!(!b.is_signed_in(&b.again(&session)).await);

    let session = b.signed_in(&ada).await;
    let mut minutes = 0;
    while b.is_signed_in(&b.again(&session)).await {
        b.clock.advance(Duration::minutes(20));
        minutes += 20;
    }
    assert_eq!(minutes, 12 * 60);
}

#[tokio::test]
async fn a_step_up_does_not_move_the_absolute_limit() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    for _ in 0..35 {
        b.clock.advance(Duration::minutes(20));
        b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    }
    b.clock.advance(Duration::minutes(20));
    assert!(!b.is_signed_in(&b.again(&session)).await);
}

#[tokio::test]
async fn use_is_written_down_once_a_minute() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let seen = async || b.id.sessions_of(ada.user).await.unwrap()[0].seen_at;
    let begun = seen().await;
    b.clock.advance(Duration::seconds(59));
    assert!(b.is_signed_in(&b.again(&session)).await);
    assert_eq!(seen().await, begun);
    b.clock.advance(Duration::seconds(1));
    assert!(b.is_signed_in(&b.again(&session)).await);
    assert_eq!(seen().await, begun + Duration::MINUTE);
}

// SEC-147
#[tokio::test]
async fn the_cookie_is_not_in_the_database() {
    let b = Bench::new().await;
    let (_, session) = b.person("ada").await;
    let id = session.id().unwrap();
    let dump = b.dump();
    assert!(is_in(&dump, "Authenticator"), "the dump holds what is stored");
    assert!(!is_in(&dump, &id.to_string()));
    assert!(!dump.windows(16).any(|w| w == id.0.to_le_bytes() || w == id.0.to_be_bytes()));
}

#[tokio::test]
async fn a_row_whose_content_names_another_person_is_refused() {
    let b = Bench::new().await;
    let (_, ada) = b.person("ada").await;
    let (_, bob) = b.person("bob").await;
    let hash = |s: &tower_sessions::Session| super::hash(s.id().unwrap());
    let now = portcullis_domain::Clock::now(&*b.clock);
    let theirs = b.store.load_session(&hash(&ada), now).await.unwrap().unwrap().data;
    assert!(b.store.update_session(&hash(&bob), &theirs, now).await.unwrap());
    assert!(b.id.stage(&b.again(&bob)).await.is_err());
}

// SEC-098
#[tokio::test]
async fn an_id_that_a_stranger_brings_is_never_taken_over() {
    let b = Bench::new().await;
    let planted = tower_sessions::session::Id(42);
    let session = tower_sessions::Session::new(Some(planted), std::sync::Arc::new(b.id.0.rows.clone()), None);
    b.id.csrf(&session).await.unwrap();
    session.save().await.unwrap();
    assert_ne!(session.id(), Some(planted));
}

#[tokio::test]
async fn the_cookie_is_host_only_secure_and_out_of_reach_of_scripts() {
    use tower::{ServiceBuilder, ServiceExt};
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    b.next_step();
    let (id, code) = (b.id.clone(), b.code(&ada.app));
    // a page that signs in, in two requests
    let page = ServiceBuilder::new().layer(b.id.session_layer()).service_fn(move |r: http::Request<String>| {
        let (id, code) = (id.clone(), code.clone());
        async move {
            let session = r.extensions().get::<tower_sessions::Session>().unwrap().clone();
            match r.uri().path() {
                "/password" => {
                    id.sign_in(&session, "ada", secret(crate::testing::PASSWORD), peer()).await.unwrap();
                }
                "/code" => {
                    id.second_factor(&session, &code, peer()).await.unwrap();
                }
                "/out" => id.sign_out(&session).await.unwrap(),
                _ => {}
            }
            let body = format!("{:?}", id.stage(&session).await.unwrap().next());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    let ask = async |path: &str, cookie: &str| {
        let request = http::Request::get(path).header("cookie", cookie).body(String::new()).unwrap();
        let answer = page.clone().oneshot(request).await.unwrap();
        let set = answer.headers().get("set-cookie").map(|v| v.to_str().unwrap().to_owned());
        (answer.into_body(), set)
    };
    assert_eq!(ask("/", "").await.1, None, "looking makes no session");
    let mut cookies: Vec<String> = Vec::new();
    for (path, then) in [("/password", "Some(SecondFactor)"), ("/code", "Some(Done)")] {
        let before = cookies.last().cloned().unwrap_or_default();
        let (stage, set) = ask(path, &before).await;
        assert_eq!(stage, then);
        let set = set.expect("a new cookie at each step");
        let (pair, attributes) = set.split_once("; ").unwrap();
        let mut attributes: Vec<_> = attributes.split("; ").collect();
        attributes.sort_unstable();
        assert!(pair.starts_with("__Host-sid="), "{pair}");
        assert_eq!(attributes, ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]);
        cookies.push(pair.to_owned());
    }
    assert_eq!(ask("/", &cookies[1]).await, ("Some(Done)".to_owned(), None), "reading writes no cookie");
    assert_eq!(ask("/", &cookies[0]).await.0, "None", "the cookie from before the step");
    let (stage, set) = ask("/out", &cookies[1]).await;
    assert_eq!(stage, "None");
    assert!(set.unwrap().contains("Max-Age=0"), "the cookie is taken back");
    assert_eq!(ask("/", &cookies[1]).await.0, "None");
}

// SEC-199
#[tokio::test]
async fn a_browser_that_nobody_signed_in_with_is_forgotten_after_ten_minutes() {
    let b = Bench::new().await;
    let (user, signed_in) = b.person("ada").await;
    for _ in 0..5 {
        let stranger = b.browser();
        stranger.insert("begun", "at a provider").await.unwrap();
        stranger.save().await.unwrap();
    }
    let later = b.clock.now() + Duration::DAY;
    b.clock.advance(Duration::minutes(9));
    b.id.refresh().await.unwrap();
    let kept = b.browser();
    kept.insert("begun", "at a provider").await.unwrap();
    kept.save().await.unwrap();
    b.clock.advance(Duration::minutes(2));
    b.id.refresh().await.unwrap();
    assert!(b.again(&kept).get::<String>("begun").await.unwrap().is_some(), "this one is young");
    assert_eq!(b.store.drop_strangers(later).await.unwrap(), 1, "the five are gone, the young one was left");
    assert!(b.is_signed_in(&b.again(&signed_in)).await, "{}", user.name);
}
