// SPDX-License-Identifier: Apache-2.0
//! What an identity provider, or somebody who plays one, can send, module by module: those of the OpenID foundation's
//! conformance suite for relying parties under their own names, and more of ours. Each ends in one verdict and in one
//! event.

use crate::support::{
    Person, TestGateway,
    person::location,
    played::{CLIENT, Play, Played, Sign},
    trail::{Left, Log},
};
use portcullis_domain::Outcome;
use reqwest::{Response, StatusCode};
use serde_json::json;

/// How a module ends.
#[derive(Clone, Copy)]
enum Ends {
    /// Somebody came in.
    In,
    /// Nobody did; the words in the trail.
    Out(&'static str),
}
use Ends::{In, Out};

/// One module.
struct Module {
    name: &'static str,
    play: fn(&mut Play),
    ends: Ends,
}

const fn module(name: &'static str, ends: Ends, play: fn(&mut Play)) -> Module {
    Module { name, play, ends }
}

const UNREADABLE: Ends = Out("the token answer cannot be read");
const SIGNATURE: Ends = Out("the token's signature is wrong");
const ALGORITHM: Ends = Out("not signed with an algorithm that is accepted");
const FORM: Ends = Out("not of a form that is accepted");
const EXPIRED: Ends = Out("has expired, or does not say when");
const ISSUED: Ends = Out("from the future, or does not say when it was issued");
const AUDIENCE: Ends = Out("the token is not for this gateway");
const NOBODY: Ends = Out("the token names nobody");
const DISCOVERY: Ends = Out("discovery document or keys cannot be used");

macro_rules! claim {
    ($name:literal = $($value:tt)+) => {
        |play| play.claims = |claims| drop(claims.insert($name.into(), json!($($value)+)))
    };
}

macro_rules! without {
    ($name:literal) => {
        |play| play.claims = |claims| drop(claims.remove($name))
    };
}

// SEC-090, SEC-091, SEC-092, SEC-094, SEC-095, SEC-096, SEC-099, SEC-101, SEC-102
#[rustfmt::skip]
const MODULES: &[Module] = &[
    // oidcc-client-basic-certification-test-plan
    module("oidcc-client-test", In, |_| {}),
    module("oidcc-client-test-invalid-iss", Out("the token is of another issuer"), claim!("iss" = "https://other.example")),
    module("oidcc-client-test-missing-sub", UNREADABLE, without!("sub")),
    module("oidcc-client-test-invalid-aud", AUDIENCE, claim!("aud" = "another")),
    module("oidcc-client-test-missing-iat", UNREADABLE, without!("iat")),
    module("oidcc-client-test-kid-absent-single-jwks", In, |play| {
        play.header = |header| drop(header.remove("kid"));
        play.keys = |keys| keys.truncate(1);
    }),
    module("oidcc-client-test-kid-absent-multiple-jwks", Out("does not say which of the provider's keys"), |play| {
        play.header = |header| drop(header.remove("kid"));
        play.keys = |keys| {
            let mut more = keys[0].clone();
            more["kid"] = json!("rsa-more");
            keys.push(more);
        };
    }),
    module("oidcc-client-test-idtoken-sig-rs256", In, |play| play.sign = Sign::Rs256),
    module("oidcc-client-test-idtoken-sig-none", ALGORITHM, |play| play.sign = Sign::Nothing),
    module("oidcc-client-test-invalid-sig-rs256", SIGNATURE, |play| play.sign = Sign::Stranger),
    module("oidcc-client-test-userinfo-invalid-sub", Out("userinfo answer is of somebody else"), |play| {
        play.groups_in_userinfo = true;
        play.userinfo = |claims| drop(claims.insert("sub".into(), json!("u-2")));
    }),
    module("oidcc-client-test-nonce-invalid", Out("the nonce is wrong"), claim!("nonce" = "another")),
    module("oidcc-client-test-scope-userinfo-claims", In, |play| play.groups_in_userinfo = true),
    module("oidcc-client-test-client-secret-basic", In, |_| {}),
    // oidcc-client-config-certification-test-plan
    module("oidcc-client-test-discovery-openid-config", In, |_| {}),
    module("oidcc-client-test-discovery-jwks-uri-keys", In, |play| play.sign = Sign::Es256),
    module("oidcc-client-test-discovery-issuer-mismatch", DISCOVERY,
        |play| play.discovery = |d| drop(d.insert("issuer".into(), json!("https://other.example")))),
    module("oidcc-client-test-signing-key-rotation-just-before-signing", In, |play| play.rotates = true),
    module("oidcc-client-test-signing-key-rotation", In, |play| play.rotates = true),
    // oidcc-client-comprehensive, what of it is in a code flow
    module("oidcc-client-test-missing-aud", AUDIENCE, without!("aud")),
    module("oidcc-client-test-invalid-sig-hs256", ALGORITHM, |play| play.sign = Sign::ClientSecret),
    module("oidcc-client-test-invalid-sig-es256", SIGNATURE, |play| {
        play.sign = Sign::Es256;
        play.keys = |keys| {
            let (x, y) = (keys[1]["y"].clone(), keys[1]["x"].clone());
            // No point of the curve: the key cannot be right, and neither can what it signs.
            keys[1]["x"] = x;
            keys[1]["y"] = y;
        };
    }),
    module("oidcc-client-test-userinfo-bearer-header", In, |play| play.groups_in_userinfo = true),
    module("oidcc-client-test-userinfo-signed", In, |play| {
        play.groups_in_userinfo = true;
        play.signs_userinfo = true;
    }),
    module("oidcc-client-test-invalid-athash", Out("does not fit the access token"), claim!("at_hash" = "AAAAAAAAAAAAAAAAAAAAAA")),
    module("oidcc-client-test-missing-athash", In, without!("at_hash")),
    module("oidcc-client-test-nonce-missing", Out("the nonce is wrong"), without!("nonce")),
    // Ours: signatures and keys.
    module("sig-ps256", In, |play| play.sign = Sign::Ps256),
    module("public-key-as-a-shared-secret", ALGORITHM, |play| play.sign = Sign::PublicKeyAsSecret),
    module("algorithm-that-is-not-promised", ALGORITHM, |play| {
        play.sign = Sign::Es256;
        play.discovery = |d| drop(d.insert("id_token_signing_alg_values_supported".into(), json!(["RS256"])));
    }),
    module("no-asymmetric-algorithm-promised", DISCOVERY,
        |play| play.discovery = |d| drop(d.insert("id_token_signing_alg_values_supported".into(), json!(["none", "HS256"])))),
    module("header-jku", FORM, |play| play.header = |h| drop(h.insert("jku".into(), json!("https://other.example/keys")))),
    module("header-jwk", FORM, |play| play.header = |h| drop(h.insert("jwk".into(), json!({"kty": "RSA", "n": "AQ", "e": "AQAB"})))),
    module("header-x5u", FORM, |play| play.header = |h| drop(h.insert("x5u".into(), json!("https://other.example/cert")))),
    module("header-crit", FORM, |play| play.header = |h| drop(h.insert("crit".into(), json!(["exp"])))),
    module("header-of-a-logout-token", FORM, |play| play.header = |h| drop(h.insert("typ".into(), json!("logout+jwt")))),
    module("unknown-kid", Out("a key that the provider does not publish"), |play| play.header = |h| drop(h.insert("kid".into(), json!("nobody's")))),
    module("key-for-encryption", Out("a key that the provider does not publish"), |play| play.keys = |keys| keys[0]["use"] = json!("enc")),
    module("key-of-another-algorithm", Out("a key that the provider does not publish"), |play| play.keys = |keys| keys[0]["alg"] = json!("PS512")),
    // Ours: types and times.
    module("exp-a-text", UNREADABLE, claim!("exp" = "4102444800")),
    module("exp-beyond-numbers", UNREADABLE, claim!("exp" = "1e400")),
    module("exp-a-fraction", EXPIRED, claim!("exp" = 4_102_444_800.5)),
    module("exp-negative", EXPIRED, claim!("exp" = -1)),
    module("exp-null", UNREADABLE, claim!("exp" = null)),
    module("exp-missing", UNREADABLE, without!("exp")),
    module("exp-past", EXPIRED, claim!("exp" = 1_700_000_000)),
    module("iat-a-text", UNREADABLE, claim!("iat" = "1700000000")),
    module("iat-null", UNREADABLE, claim!("iat" = null)),
    module("iat-future", ISSUED, claim!("iat" = 4_102_444_800_i64)),
    module("nbf-a-text", ISSUED, claim!("nbf" = "1700000000")),
    module("nbf-null", ISSUED, claim!("nbf" = null)),
    module("nbf-future", ISSUED, claim!("nbf" = 4_102_444_800_i64)),
    module("nbf-past", In, claim!("nbf" = 1_700_000_000)),
    module("iss-a-list", UNREADABLE, claim!("iss" = ["https://other.example"])),
    module("aud-a-number", UNREADABLE, claim!("aud" = 5)),
    module("aud-a-list-of-us", In, claim!("aud" = [CLIENT])),
    module("aud-others-too", AUDIENCE, claim!("aud" = [CLIENT, "another"])),
    module("aud-others-too-made-for-us", In, |play| play.claims = |claims| {
        claims.insert("aud".into(), json!([CLIENT, "another"]));
        claims.insert("azp".into(), json!(CLIENT));
    }),
    module("azp-another", AUDIENCE, claim!("azp" = "another")),
    module("aud-empty", AUDIENCE, claim!("aud" = [])),
    module("sub-null", UNREADABLE, claim!("sub" = null)),
    module("sub-empty", NOBODY, claim!("sub" = "")),
    module("sub-a-number", UNREADABLE, claim!("sub" = 0)),
    module("sub-a-list", UNREADABLE, claim!("sub" = ["u-1"])),
    module("sub-of-10-kib", NOBODY, |play| play.claims = |claims| drop(claims.insert("sub".into(), json!("u".repeat(10 * 1024))))),
    module("sub-with-a-line-end", NOBODY, claim!("sub" = "u-1\n")),
    module("amr-a-text", UNREADABLE, claim!("amr" = "mfa")),
    module("acr-a-number", UNREADABLE, claim!("acr" = 2)),
    module("auth-time-a-text", UNREADABLE, claim!("auth_time" = "now")),
    // Ours: roles.
    module("groups-missing", Out("nothing that the provider says gives them a role"), |play| {
        play.claims = |claims| drop(claims.remove("groups"));
        play.userinfo = |claims| drop(claims.remove("groups"));
    }),
    module("groups-of-somebody-else", Out("nothing that the provider says gives them a role"), claim!("groups" = ["VM-ADMINS", "vm-admins2"])),
    module("groups-a-map", Out("neither a text nor a list of texts"), claim!("groups" = {"vm-admins": true})),
    module("groups-kept-elsewhere", Out("left the list of groups out"), claim!("_claim_names" = {"groups": "src1"})),
    module("groups-too-many", Out("left the list of groups out"), |play| {
        play.claims = |claims| {
            claims.remove("groups");
            claims.insert("hasgroups".into(), json!(true));
        };
        play.userinfo = |claims| drop(claims.remove("groups"));
    }),
    module("groups-too-many-and-told-when-asked", In, |play| {
        play.claims = |claims| {
            claims.remove("groups");
            claims.insert("hasgroups".into(), json!(true));
        };
    }),
    // Ours: the way there and back.
    module("answer-of-another-issuer", Out("names another issuer"), |play| play.back = |b| drop(b.insert("iss".into(), "https://other.example".into()))),
    module("answer-without-the-promised-issuer", Out("names another issuer"), |play| play.back = |b| drop(b.remove("iss"))),
    module("answer-without-issuer-where-none-is-promised", In, |play| {
        play.back = |b| drop(b.remove("iss"));
        play.discovery = |d| drop(d.remove("authorization_response_iss_parameter_supported"));
    }),
    module("answer-of-another-issuer-with-an-error", Out("names another issuer"), |play| play.back = |b| {
        b.insert("iss".into(), "https://other.example".into());
        b.insert("error".into(), "access_denied".into());
    }),
    module("answer-without-code", Out("holds no code"), |play| play.back = |b| drop(b.remove("code"))),
    module("answer-with-a-foreign-state", Out("no such sign-in was begun in this browser"), |play| play.back = |b| drop(b.insert("state".into(), "x".repeat(43)))),
    module("answer-without-state", Out("no such sign-in was begun in this browser"), |play| play.back = |b| drop(b.remove("state"))),
    module("answer-with-an-error", Out("Example Corp answered: access_denied: <b>no</b>"), |play| play.back = |b| {
        b.remove("code");
        b.insert("error".into(), "access_denied".into());
        b.insert("error_description".into(), "<b>no</b>".into());
    }),
    module("code-that-it-does-not-know", Out("did not accept the code"), |play| play.back = |b| drop(b.insert("code".into(), "stolen".into()))),
    module("challenge-taken-out-on-the-way", Out("did not accept the code"), |play| play.loses_challenge = true),
    module("no-id-token", Out("holds no ID token"), |play| play.tokens = |t| drop(t.remove("id_token"))),
    module("id-token-that-is-no-token", UNREADABLE, |play| play.tokens = |t| drop(t.insert("id_token".into(), json!("a.b")))),
    module("redirect-at-discovery", Out("answered with status 307"), |play| play.redirects = "/openid-configuration"),
    module("redirect-at-the-keys", Out("answered with status 307"), |play| play.redirects = "/jwks"),
    module("redirect-at-the-token-endpoint", Out("token endpoint gave no usable answer"), |play| play.redirects = "/token"),
    module("redirect-at-userinfo", Out("answered with status 307"), |play| {
        play.groups_in_userinfo = true;
        play.redirects = "/userinfo";
    }),
    module("discovery-too-large", Out("larger than 256 KiB"), |play| play.floods = "/openid-configuration"),
    module("keys-too-large", Out("larger than 256 KiB"), |play| play.floods = "/jwks"),
    module("tokens-too-large", Out("larger than 256 KiB"), |play| play.floods = "/token"),
    module("token-endpoint-without-tls", DISCOVERY, |play| play.discovery = |d| drop(d.insert("token_endpoint".into(), json!("http://id.example/token")))),
    module("keys-without-tls", DISCOVERY, |play| play.discovery = |d| drop(d.insert("jwks_uri".into(), json!("http://id.example/keys")))),
];

/// Tries one module; gives what the gateway answers in the end, and what that left in the trail.
async fn try_one(gateway: &TestGateway, played: &Played, log: &mut Log) -> (Response, Left, String) {
    let browser = Person::stranger(gateway, "alice");
    log.settle().await;
    let expected = Left::Bracket { kind: "sign-in".to_owned() };
    let mut answer = browser.get("/sign-in/with/corp?next=%2Fme").await;
    let mut left = log.left(&expected).await;
    if answer.status() == StatusCode::SEE_OTHER {
        assert_eq!(left, expected, "the way there is one event");
        log.settle().await;
        answer = browser.get(&played.visit(&answer)).await;
        left = log.left(&expected).await;
    }
    let words = log.last_words(if answer.status() == StatusCode::SEE_OTHER { Outcome::Done } else { Outcome::Denied });
    (answer, left, words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_module_ends_in_its_verdict_and_in_one_event() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let mut log = Log::of(&gateway);
    let expected = Left::Bracket { kind: "sign-in".to_owned() };
    let mut wrong = Vec::new();
    for module in MODULES {
        // What was learnt of the provider is forgotten, so that the module plays all of it.
        gateway.clock.advance(time::Duration::minutes(61));
        played.play(module.play);
        let (answer, left, words) = try_one(&gateway, &played, &mut log).await;
        let (status, to) = (answer.status(), location(&answer));
        let html = answer.text().await.unwrap_or_default();
        let right = match module.ends {
            In => status == StatusCode::SEE_OTHER && to == "/enrol" && words.contains("Example Corp vouched"),
            // A stranger hears nothing of the reason, and sees no markup of somebody else's.
            Out(why) => {
                status == StatusCode::UNPROCESSABLE_ENTITY && words.contains(why) && !html.contains("<b>no</b>")
            }
        };
        if !right || left != expected {
            wrong.push(format!("{}: {status} {to} {words:?} {left:?}", module.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MODULES.len(), wrong.join("\n"));
    gateway.stop().await;
}

// SEC-098
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_works_once_in_the_browser_that_went_and_only_for_ten_minutes() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = Person::stranger(&gateway, "alice");
    let back = played.visit(&alice.get("/sign-in/with/corp").await);
    let before = alice.cookie();
    let eve = Person::stranger(&gateway, "eve");
    assert_eq!(eve.get(&back).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "another browser");
    assert_eq!(played.asked("/token"), 0, "it is refused before the provider is asked");
    assert_eq!(location(&alice.get(&back).await), "/enrol");
    assert_ne!(alice.cookie(), before, "a new session");
    assert_eq!(played.asked("/token"), 1);
    assert_eq!(alice.get(&back).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "again");
    assert_eq!(played.asked("/token"), 0);
    // What somebody planted is not what somebody signs in with.
    let planted = reqwest::Client::builder().tls_certs_only([gateway.ca()]).redirect(reqwest::redirect::Policy::none());
    let planted = planted.build().expect("a browser").get(format!("{}/enrol", gateway.url()));
    let answer = planted.header(reqwest::header::COOKIE, before).send().await.expect("an answer");
    assert_eq!(location(&answer), "/sign-in?next=%2Fenrol");
    let late = Person::stranger(&gateway, "alice");
    let back = played.visit(&late.get("/sign-in/with/corp").await);
    gateway.clock.advance(time::Duration::seconds(601));
    assert_eq!(late.get(&back).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "too late");
    gateway.stop().await;
}

// SEC-091
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_one_provider_is_not_taken_to_another() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = Person::stranger(&gateway, "alice");
    let back = played.visit(&alice.get("/sign-in/with/corp").await);
    let elsewhere = back.replace("/callback/corp?", "/callback/other?");
    assert_ne!(elsewhere, back);
    assert_eq!(alice.get(&elsewhere).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(played.asked("/token"), 0, "no code was sent anywhere");
    assert_eq!(alice.get(&back).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "that sign-in is over");
    assert_eq!(alice.get("/sign-in/callback/none?state=x").await.status(), StatusCode::NOT_FOUND);
    gateway.stop().await;
}

// SEC-101
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_unknown_keys_is_one_question_a_minute() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    played.play(|play| play.header = |h| drop(h.insert("kid".into(), json!("nobody's"))));
    for _ in 0..10 {
        let browser = Person::stranger(&gateway, "alice");
        let back = played.visit(&browser.get("/sign-in/with/corp").await);
        assert_eq!(browser.get(&back).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(played.asked("/jwks"), 2, "once to know them, once to look again");
    // Keys that really changed are found when the minute is over.
    played.play(|_| {});
    played.rotate();
    gateway.clock.advance(time::Duration::seconds(61));
    let browser = Person::stranger(&gateway, "alice");
    let back = played.visit(&browser.get("/sign-in/with/corp").await);
    assert_eq!(location(&browser.get(&back).await), "/enrol");
    gateway.stop().await;
}

// SEC-102
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_factor_of_the_provider_counts_as_configured_and_with_its_time_only() {
    let settings = "max_age_seconds = 600\n[identity.providers.second_factor]\namr = [\"otp\"]\nacr = [\"gold\"]";
    let (gateway, played) = Played::company(settings).await;
    Person::first_administrator(&gateway, "ada").await;
    let come = async |play: fn(&mut Play)| {
        played.play(play);
        let browser = Person::stranger(&gateway, "alice");
        let there = browser.get("/sign-in/with/corp?next=%2Fme").await;
        assert!(location(&there).contains("max_age=600") && location(&there).contains("acr_values=gold"));
        let answer = browser.get(&played.visit(&there)).await;
        (answer.status(), location(&answer), browser)
    };
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    assert_eq!(come(without!("auth_time")).await.0, refused, "no time");
    assert_eq!(come(claim!("auth_time" = 1_700_000_000)).await.0, refused, "too old");
    assert_eq!(come(claim!("auth_time" = 4_102_444_800_i64)).await.0, refused, "from the future");
    for weaker in [claim!("amr" = ["pwd"]) as fn(&mut Play), claim!("acr" = "silver"), claim!("amr" = ["OTP"]), |_| {}]
    {
        assert_eq!(come(weaker).await.1, "/enrol", "the gateway asks for its own");
    }
    for (proven, old) in [(claim!("amr" = ["pwd", "otp"]) as fn(&mut Play), false), (claim!("acr" = "gold"), true)] {
        let (_, to, browser) = come(proven).await;
        assert_eq!(to, "/me");
        assert_eq!(browser.get("/me").await.status(), StatusCode::OK);
        if !old {
            continue;
        }
        // It is as fresh as the provider says, no fresher: later the person confirms there, and nobody else does.
        gateway.clock.advance(time::Duration::seconds(301));
        let page = browser.page("/step-up?next=%2Fme").await;
        assert!(page.contains("Confirm with <bdi>Example Corp</bdi>"), "{page}");
        let there = browser.get("/sign-in/with/corp?next=%2Fme").await;
        assert!(location(&there).contains("max_age=0") && location(&there).contains("prompt=login"));
        played.play(|play| {
            play.claims = |claims| {
                claims.insert("acr".into(), json!("gold"));
                claims.insert("sub".into(), json!("u-2"));
            };
        });
        assert_eq!(browser.get(&played.visit(&there)).await.status(), StatusCode::BAD_REQUEST, "somebody else");
        let (_, people) = gateway.shell(&["user", "list", "--json"]);
        assert_eq!(people.lines().count(), 2, "and no account is made for them: {people}");
        played.play(claim!("acr" = "silver"));
        let there = browser.get("/sign-in/with/corp?next=%2Fme").await;
        assert_eq!(browser.get(&played.visit(&there)).await.status(), StatusCode::BAD_REQUEST, "weaker than asked");
        played.play(claim!("acr" = "gold"));
        let there = browser.get("/sign-in/with/corp?next=%2Fme").await;
        assert_eq!(location(&browser.get(&played.visit(&there)).await), "/me");
    }
    gateway.stop().await;
}

/// Somebody of the played company who is signed in with both factors.
async fn signed_in<'g>(gateway: &'g TestGateway, played: &Played) -> Person<'g> {
    let mut alice = Person::stranger(gateway, "alice");
    let there = alice.get("/sign-in/with/corp").await;
    assert_eq!(location(&alice.get(&played.visit(&there)).await), "/enrol");
    alice.enrol().await;
    alice
}

async fn is_out(alice: &Person<'_>) -> bool {
    location(&alice.get("/me").await).starts_with("/sign-in")
}

// oidcc-client-refreshtoken-test-plan
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_believed_of_the_same_person_and_issuer_only() {
    // Side by side: most of it is waiting for the next question.
    let cases = [
        ("oidcc-client-test-refresh-token", (|_| {}) as fn(&mut Play), true),
        ("renewal without an ID token", |play| play.renews_silently = true, true),
        ("oidcc-client-test-refresh-token-invalid-issuer", claim!("iss" = "https://other.example"), false),
        ("oidcc-client-test-refresh-token-invalid-sub", claim!("sub" = "u-2"), false),
        ("renewal that takes the last role", claim!("groups" = ["none"]), false),
        ("renewal that is refused", |play| play.fails = Some((400, r#"{"error":"invalid_grant"}"#)), false),
        ("answer that is too large", |play| play.floods = "/token", true),
        ("page of a proxy", |play| play.fails = Some((502, "<html>Bad gateway</html>")), true),
        ("page of a captive portal", |play| play.fails = Some((200, "<html>Pay here</html>")), true),
        ("server in trouble", |play| play.fails = Some((503, r#"{"error":"temporarily_unavailable"}"#)), true),
    ];
    let tries = cases.map(|(name, play, stays)| async move {
        let (gateway, played) = Played::company("").await;
        Person::first_administrator(&gateway, "ada").await;
        let alice = signed_in(&gateway, &played).await;
        played.play(play);
        played.asked("/token");
        gateway.clock.advance(time::Duration::seconds(61));
        let mut asked = 0;
        for _ in 0..80 {
            asked += played.asked("/token");
            if asked > 0 && (stays || is_out(&alice).await) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(asked > 0, "{name}: it was not asked");
        assert_eq!(is_out(&alice).await, !stays, "{name}");
        gateway.stop().await;
    });
    futures_util::future::join_all(tries).await;
}

// oidcc-client-back-channel-logout-rp-basic, SEC-100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_message_counts_when_everything_in_it_is_right_and_once() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = signed_in(&gateway, &played).await;
    let mut log = Log::of(&gateway);
    let service = reqwest::Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let post = async |token: &str| {
        let request = service.post(format!("{}/sign-in/backchannel/corp", gateway.url()));
        let answer = request.header("origin", "http://127.0.0.1").form(&[("logout_token", token)]).send().await;
        answer.expect("an answer").status()
    };
    let expected = Left::Bracket { kind: "sign-out".to_owned() };
    let set = |name: &'static str, value: serde_json::Value| {
        move |claims: &mut serde_json::Map<String, serde_json::Value>| drop(claims.insert(name.into(), value))
    };
    let remove =
        |name: &'static str| move |claims: &mut serde_json::Map<String, serde_json::Value>| drop(claims.remove(name));
    let event = "http://schemas.openid.net/event/backchannel-logout";
    for (name, token) in [
        ("-alg-none", played.logout_token(Sign::Nothing, |_| {})),
        ("-no-event", played.logout_token(Sign::Rs256, remove("events"))),
        ("-with-nonce", played.logout_token(Sign::Rs256, set("nonce", json!("n")))),
        ("-wrong-alg", played.logout_token(Sign::ClientSecret, |_| {})),
        ("-wrong-aud", played.logout_token(Sign::Rs256, set("aud", json!("another")))),
        ("-wrong-event", played.logout_token(Sign::Rs256, set("events", json!({"http://other.example": {}})))),
        ("-wrong-iss", played.logout_token(Sign::Rs256, set("iss", json!("https://other.example")))),
        ("signed by a stranger", played.logout_token(Sign::Stranger, |_| {})),
        ("an event that is no object", played.logout_token(Sign::Rs256, set("events", json!({event: true})))),
        ("about nobody", played.logout_token(Sign::Rs256, remove("sub"))),
        ("without an id", played.logout_token(Sign::Rs256, remove("jti"))),
        ("over", played.logout_token(Sign::Rs256, set("exp", json!(1_700_000_000)))),
        ("for ever", played.logout_token(Sign::Rs256, set("exp", json!(4_102_444_800_i64)))),
        ("from the future", played.logout_token(Sign::Rs256, set("iat", json!(4_102_444_800_i64)))),
        ("no token", "x".to_owned()),
    ] {
        log.settle().await;
        assert_eq!(post(&token).await, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(log.left(&expected).await, expected, "{name}");
        assert!(!is_out(&alice).await, "{name}");
    }
    // Somebody else's, and another session's, end nothing of hers.
    let other = played.logout_token(Sign::Rs256, set("sub", json!("u-2")));
    assert_eq!(post(&other).await, StatusCode::OK);
    let elsewhere = played.logout_token(Sign::Es256, set("sid", json!("s-2")));
    assert_eq!(post(&elsewhere).await, StatusCode::OK);
    assert!(!is_out(&alice).await);
    // oidcc-client-test-rp-backchannel-rpinitlogout
    let right = played.logout_token(Sign::Rs256, |claims| {
        claims.remove("sub");
        claims.insert("sid".into(), json!("s-1"));
    });
    log.settle().await;
    assert_eq!(post(&right).await, StatusCode::OK);
    assert_eq!(log.left(&expected).await, expected);
    assert!(is_out(&alice).await);
    assert_eq!(post(&right).await, StatusCode::BAD_REQUEST, "it counts once");
    gateway.stop().await;
}

// oidcc-client-rp-init-logout, -other-state, -no-state
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_leads_to_the_provider_and_whatever_comes_back_signs_nobody_in() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = signed_in(&gateway, &played).await;
    let there = alice.sign_out_to().await;
    let address = reqwest::Url::parse(&there).expect("an address");
    let asked: std::collections::BTreeMap<_, _> = address.query_pairs().into_owned().collect();
    assert!(there.starts_with(&format!("http://127.0.0.1:{}/id/end?", played.port)), "{there}");
    assert_eq!(asked["post_logout_redirect_uri"], format!("{}/sign-in", gateway.url()));
    assert_eq!(asked["id_token_hint"].split('.').count(), 3);
    assert!(is_out(&alice).await, "before the provider is asked");
    for state in [format!("?state={}", asked["state"]), "?state=another".to_owned(), String::new()] {
        let answer = alice.get(&format!("/sign-in{state}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{state}");
        assert!(is_out(&alice).await, "{state}");
    }
    gateway.stop().await;
}

// SEC-147, SEC-177
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_provider_lends_stands_anywhere_in_the_clear() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = signed_in(&gateway, &played).await;
    let half = Person::stranger(&gateway, "alice");
    let there = location(&half.get("/sign-in/with/corp").await);
    let state = reqwest::Url::parse(&there).expect("an address");
    let state = state.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    assert!(!is_out(&alice).await);
    let id_token = played.last_token();
    let (signed, _) = id_token.rsplit_once('.').expect("a token");
    let folder = gateway.stop().await;
    let mut files = vec![folder.path().to_owned()];
    let mut bytes = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).expect("a folder").map(|e| e.expect("an entry").path()));
        } else {
            bytes.extend(std::fs::read(path).expect("readable"));
        }
    }
    let found = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(found("u-1"), "what is kept is looked at");
    for secret in ["refresh-1", "access-1", "code-1", signed, &state, "p@ss word:of-a-test"] {
        assert!(!found(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_there_ends_a_sign_in_that_is_half_done_here() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let alice = signed_in(&gateway, &played).await;
    let half = Person::with_key(&gateway, "alice", alice.key());
    let there = half.get("/sign-in/with/corp").await;
    assert_eq!(location(&half.get(&played.visit(&there)).await), "/sign-in/code");
    let service = reqwest::Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let token = played.logout_token(Sign::Rs256, |_| {});
    let post = service.post(format!("{}/sign-in/backchannel/corp", gateway.url())).form(&[("logout_token", token)]);
    assert_eq!(post.send().await.expect("an answer").status(), StatusCode::OK);
    assert!(is_out(&alice).await);
    let answer = half.give_code().await;
    assert_eq!(location(&answer), "/sign-in");
    assert!(is_out(&half).await);
    gateway.stop().await;
}

// SEC-132
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_guesses_passwords_does_not_get_in_by_the_provider_either() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    let eve = Person::stranger(&gateway, "eve");
    let back = played.visit(&eve.get("/sign-in/with/corp").await);
    for n in 0..50 {
        let fields = [("name", &*format!("name{n}")), ("password", "wrong wrong wrong"), ("next", "/")];
        assert!(eve.post("/sign-in", &fields).await.status().is_client_error());
    }
    played.asked("/token");
    for path in ["/sign-in/with/corp", &back] {
        let answer = eve.get(path).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(answer.text().await.expect("a page").contains("Wait"), "{path}");
    }
    assert_eq!(played.asked("/token"), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_verified_address_is_kept_and_it_joins_nobody_to_an_account() {
    let (gateway, played) = Played::company("").await;
    Person::first_administrator(&gateway, "ada").await;
    // The same address as somebody else's, who is here already.
    let (code, text) = gateway.shell(&["user", "mail", "ada", "shared@example.org"]);
    assert_eq!(code, Some(0), "{text}");
    let signs_in = async || {
        let alice = Person::stranger(&gateway, "alice");
        let there = alice.get("/sign-in/with/corp").await;
        assert_eq!(location(&alice.get(&played.visit(&there)).await), "/enrol");
        let (_, text) = gateway.shell(&["user", "mail", "alice"]);
        text
    };
    played.play(|play| play.claims = |c| drop(c.insert("email".into(), json!("shared@example.org"))));
    assert!(signs_in().await.contains("alice has no address for mail"), "nobody verified it");
    played.play(|play| {
        play.claims = |c| {
            c.insert("email".into(), json!("shared@example.org"));
            c.insert("email_verified".into(), json!(true));
        }
    });
    let text = signs_in().await;
    assert!(text.contains("alice: shared@example.org, as their identity provider says"), "{text}");
    assert_ne!(gateway.user_id("alice").await, gateway.user_id("ada").await);
    // What is not said takes nothing away; what is taken back is.
    played.play(|_| {});
    assert!(signs_in().await.contains("shared@example.org"));
    played.play(|play| play.claims = |c| drop(c.insert("email".into(), json!("other@example.org"))));
    assert!(signs_in().await.contains("alice has no address for mail"));
    let (_, text) = gateway.shell(&["user", "mail", "ada"]);
    assert!(text.contains("ada: shared@example.org, written by an administrator"), "{text}");
    gateway.stop().await;
}
