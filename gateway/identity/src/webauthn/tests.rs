// SPDX-License-Identifier: Apache-2.0
//! Passkeys on a real store, with an authenticator in software that signs whatever a test wants signed.

use super::{AllowedModel, PasskeySettings, UserVerification};
use crate::{
    Error, FactorKind, Next, Redeem, Settings, Stage, Why,
    testing::{
        Bench, PASSWORD, Person,
        authenticator::{Authenticator, Draft, Maker},
        full_or, peer,
        samples::{Watch, assert_alike, settle},
        secret, text,
    },
    tests::Dice,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use portcullis_domain::{Factor, UserId};
use serde_json::Value;
use std::net::IpAddr;
use time::Duration;
use tower_sessions::Session;
use uuid::Uuid;

const ORIGIN: &str = "https://console.example.org:8443";

fn settings() -> Settings {
    Settings { portal: ORIGIN.to_owned(), ..Settings::default() }
}

async fn bench() -> Bench {
    Bench::with(settings()).await
}

fn elsewhere() -> IpAddr {
    "198.51.100.7".parse().unwrap()
}

/// A person who was invited and set a password, before their second factor.
async fn invited(b: &Bench, name: &str) -> (UserId, Session) {
    let user = b.id.create_user(name, "").await.unwrap();
    let token = text(&b.id.invite(user).await.unwrap());
    let session = b.browser();
    let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(PASSWORD) };
    assert_eq!(b.id.redeem_invitation(&session, redeem, peer()).await.unwrap(), Next::Enrol);
    (user, session)
}

/// Adds a passkey in a session that may; gives the recovery codes.
async fn add(b: &Bench, session: &Session, key: &mut Authenticator) -> Result<usize, Error> {
    let options = b.id.begin_passkey(session).await?;
    let answer = key.create(&options).to_string();
    Ok(b.id.confirm_passkey(session, &answer, "laptop", peer()).await?.len())
}

/// A person whose only second factor is a passkey, signed in.
async fn with_passkey(b: &Bench, name: &str) -> (UserId, Session, Authenticator) {
    let (user, session) = invited(b, name).await;
    let mut key = Authenticator::new(ORIGIN);
    assert_eq!(add(b, &session, &mut key).await.unwrap(), 10);
    (user, session, key)
}

async fn sign_in(b: &Bench, session: &Session, key: &mut Authenticator) -> Result<(), Error> {
    let options = b.id.begin_passkey_sign_in(session).await?;
    let answer = key.get(&options).to_string();
    b.id.sign_in_with_passkey(session, &answer, peer()).await.map(drop)
}

/// Past the password, before the second factor.
async fn half_way(b: &Bench, name: &str) -> Session {
    let session = b.browser();
    assert_eq!(b.id.sign_in(&session, name, secret(PASSWORD), peer()).await.unwrap(), Next::SecondFactor);
    session
}

async fn count_of(b: &Bench, key: &Authenticator) -> (u32, Option<time::OffsetDateTime>) {
    let kept = b.store.passkey_by_credential(&key.credential_id).await.unwrap().unwrap();
    (kept.sign_count, kept.used_at)
}

async fn proofs(b: &Bench, session: &Session) -> Vec<Factor> {
    let Stage::SignedIn { assurance, .. } = b.id.stage(session).await.unwrap() else { return Vec::new() };
    assurance.proofs().iter().map(|(f, _)| *f).collect()
}

fn why<T: std::fmt::Debug>(done: Result<T, Error>) -> Why {
    match done {
        Err(Error::Refused(refusal)) => refusal.noted,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_passkey_enrols_signs_in_without_a_name_and_confirms() {
    let b = bench().await;
    let (user, first, mut key) = with_passkey(&b, "ada").await;
    assert_eq!(proofs(&b, &first).await, [Factor::Password, Factor::Passkey]);
    let session = b.browser();
    sign_in(&b, &session, &mut key).await.unwrap();
    assert_eq!(proofs(&b, &session).await, [Factor::Passkey], "it is both factors");
    assert_eq!(b.id.stage(&session).await.unwrap().user(), Some(user));
    assert_eq!(b.id.actor(&session).await.unwrap().unwrap().user, user);

    b.clock.advance(Duration::minutes(6));
    assert!(matches!(b.id.begin_passkey(&session).await, Err(Error::NotFresh)));
    let options = b.id.begin_passkey_step_up(&session).await.unwrap();
    let answer = key.get(&options).to_string();
    assert_eq!(b.id.step_up(&session, &answer, peer()).await.unwrap(), Factor::Passkey);
    assert_eq!(
        add(&b, &session, &mut Authenticator::new(ORIGIN)).await.unwrap(),
        0,
        "recovery codes stay what they are"
    );
    let factors = b.id.factors(user).await.unwrap();
    assert_eq!(factors.iter().map(|f| f.kind).collect::<Vec<_>>(), [FactorKind::Passkey; 2]);
    assert_eq!(factors[0].words(), "Passkey: laptop");
    assert!(!b.is_signed_in(&b.again(&first)).await, "another factor ends the other sessions");
}

#[tokio::test]
async fn a_passkey_is_the_second_step_after_a_password() {
    let b = bench().await;
    let (_, _, mut key) = with_passkey(&b, "ada").await;
    let session = half_way(&b, "ada").await;
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    let asked: Value = serde_json::from_str(&options).unwrap();
    assert_eq!(asked["publicKey"]["allowCredentials"].as_array().unwrap().len(), 1, "one of theirs is asked for");
    b.id.second_factor(&session, &key.get(&options).to_string(), peer()).await.unwrap();
    assert_eq!(proofs(&b, &session).await, [Factor::Password, Factor::Passkey]);
}

// SEC-118
#[tokio::test]
async fn a_touch_alone_is_no_sign_in_and_after_a_password_it_is_one() {
    let b = bench().await;
    let (user, session) = invited(&b, "ada").await;
    let mut key = Authenticator { verifies: false, ..Authenticator::new(ORIGIN) };
    add(&b, &session, &mut key).await.unwrap();
    assert_eq!(proofs(&b, &session).await, [Factor::Password, Factor::SecurityKey]);
    assert_eq!(b.id.factors(user).await.unwrap()[0].kind, FactorKind::SecurityKey);
    let before = count_of(&b, &key).await;
    assert_eq!(why(sign_in(&b, &b.browser(), &mut key).await), Why::UnverifiedPasskey);
    assert_eq!(count_of(&b, &key).await, before);
    let session = half_way(&b, "ada").await;
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    b.id.second_factor(&session, &key.get(&options).to_string(), peer()).await.unwrap();
    assert_eq!(proofs(&b, &session).await, [Factor::Password, Factor::SecurityKey]);
    assert!(b.id.actor(&session).await.unwrap().is_some());

    // One that checked its person when it was added may only be touched later.
    let (_, _, mut other) = with_passkey(&b, "bob").await;
    other.verifies = false;
    let session = half_way(&b, "bob").await;
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    b.id.second_factor(&session, &other.get(&options).to_string(), peer()).await.unwrap();
    assert_eq!(proofs(&b, &session).await, [Factor::Password, Factor::SecurityKey]);
    assert_eq!(why(sign_in(&b, &b.browser(), &mut other).await), Why::UnverifiedPasskey);
}

// SEC-118
#[tokio::test]
async fn where_policy_says_so_a_touch_is_never_enough() {
    let passkeys = PasskeySettings { user_verification: UserVerification::Always, ..PasskeySettings::default() };
    let b = Bench::with(Settings { passkeys, ..settings() }).await;
    let (_, session) = invited(&b, "ada").await;
    let mut key = Authenticator { verifies: false, ..Authenticator::new(ORIGIN) };
    let refused = add(&b, &session, &mut key).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(words) if words.contains("PIN")), "{refused}");
    key.verifies = true;
    add(&b, &session, &mut key).await.unwrap();
    let before = count_of(&b, &key).await;
    for (begun, step) in [(half_way(&b, "ada").await, "second step"), (session, "step-up")] {
        let options = match step {
            "step-up" => b.id.begin_passkey_step_up(&begun).await.unwrap(),
            _ => b.id.begin_passkey_sign_in(&begun).await.unwrap(),
        };
        let asked: Value = serde_json::from_str(&options).unwrap();
        assert_eq!(asked["publicKey"]["userVerification"], "required");
        key.verifies = false;
        let answer = key.get(&options).to_string();
        let done = match step {
            "step-up" => b.id.step_up(&begun, &answer, peer()).await.map(drop),
            _ => b.id.second_factor(&begun, &answer, peer()).await.map(drop),
        };
        assert_eq!(why(done), Why::UnverifiedPasskey, "{step}");
        assert_eq!(count_of(&b, &key).await, before, "{step}");
    }
}

type Before = fn(&mut Draft);
type After = fn(&mut Value);

/// What must not hold, changed before it is signed.
const SIGNED: &[(&str, Before)] = &[
    ("type", |d| d.kind = "webauthn.create"),
    ("challenge", |d| d.challenge = BASE64.encode([7; 32])),
    ("challenge cut", |d| d.challenge.truncate(20)),
    ("origin", |d| d.origin = "https://evil.example.org:8443".to_owned()),
    ("origin's port", |d| d.origin = "https://console.example.org".to_owned()),
    ("origin's scheme", |d| d.origin = "http://console.example.org:8443".to_owned()),
    ("origin below ours", |d| d.origin = "https://a.console.example.org:8443".to_owned()),
    ("origin above ours", |d| d.origin = "https://example.org:8443".to_owned()),
    ("crossOrigin", |d| d.cross_origin = true),
    ("rpIdHash", |d| d.rp_id = "example.org".to_owned()),
    ("flags: not present", |d| d.flags &= !1),
    ("flags: backed up, and not eligible for it", |d| d.flags |= 0x10),
    ("flags: eligible for backup, and was not", |d| d.flags |= 0x08),
];

/// What must not hold, changed after it was signed.
const UNSIGNED: &[(&str, After)] = &[
    ("id", |a| a["id"] = Value::from(BASE64.encode([9; 32]))),
    ("rawId", |a| a["rawId"] = Value::from(BASE64.encode([9; 32]))),
    ("id in another alphabet", |a| a["id"] = Value::from(format!("{}=", a["id"].as_str().unwrap()))),
    ("both ids", |a| {
        for name in ["id", "rawId"] {
            a[name] = Value::from(BASE64.encode([9; 32]));
        }
    }),
    ("type of credential", |a| a["type"] = Value::from("password")),
    ("signature", |a| flip(&mut a["response"]["signature"], 20)),
    ("signature cut", |a| a["response"]["signature"] = Value::from("MEUCIQ")),
    ("signature of nothing", |a| a["response"]["signature"] = Value::from("")),
    ("clientDataJSON", |a| flip(&mut a["response"]["clientDataJSON"], 1)),
    ("authenticatorData", |a| flip(&mut a["response"]["authenticatorData"], 36)),
    ("authenticatorData cut", |a| a["response"]["authenticatorData"] = Value::from(BASE64.encode([0; 36]))),
    ("no response", |a| a["response"] = Value::Null),
];

fn flip(field: &mut Value, at: usize) {
    let mut bytes = BASE64.decode(field.as_str().unwrap()).unwrap();
    bytes[at] ^= 1;
    *field = Value::from(BASE64.encode(bytes));
}

/// Where an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Alone,
    Second,
    Again,
}

struct Tried<'a> {
    b: &'a Bench,
    name: &'static str,
    signed_in: Session,
    step: Step,
    networks: std::cell::Cell<u8>,
}

impl Tried<'_> {
    async fn begin(&self) -> (Session, String) {
        let session = match self.step {
            Step::Alone => self.b.browser(),
            Step::Second => half_way(self.b, self.name).await,
            Step::Again => self.signed_in.clone(),
        };
        let options = match self.step {
            Step::Again => self.b.id.begin_passkey_step_up(&session).await.unwrap(),
            Step::Alone | Step::Second => self.b.id.begin_passkey_sign_in(&session).await.unwrap(),
        };
        (session, options)
    }

    /// Answers, each time from another network: how many tries there may be is not what is being tried.
    async fn answer(&self, session: &Session, answer: &str) -> Result<(), Error> {
        let network = self.networks.get();
        self.networks.set(network + 1);
        let from = IpAddr::from([10, self.step as u8, network, 1]);
        match self.step {
            Step::Alone => self.b.id.sign_in_with_passkey(session, answer, from).await.map(drop),
            Step::Second => self.b.id.second_factor(session, answer, from).await.map(drop),
            Step::Again => self.b.id.step_up(session, answer, from).await.map(drop),
        }
    }
}

// SEC-117, SEC-118
#[tokio::test]
async fn an_answer_with_anything_changed_is_refused_and_its_counter_stays() {
    let b = bench().await;
    let (_, signed_in, mut key) = with_passkey(&b, "ada").await;
    let stage = b.id.stage(&signed_in).await.unwrap();
    for step in [Step::Alone, Step::Second, Step::Again] {
        let t = Tried { b: &b, name: "ada", signed_in: signed_in.clone(), step, networks: 0.into() };
        let mut refused = 0;
        for (what, change) in SIGNED {
            let (session, options) = t.begin().await;
            let answer = key.get_with(&options, change).to_string();
            check_refused(&t, &session, &answer, &mut key, what).await;
            refused += 1;
        }
        for (what, change) in UNSIGNED {
            let (session, options) = t.begin().await;
            let mut answer = key.get(&options);
            change(&mut answer);
            check_refused(&t, &session, &answer.to_string(), &mut key, what).await;
            refused += 1;
        }
        for (what, handle) in [("userHandle of somebody else", Some(vec![1; 16])), ("userHandle missing", None)] {
            // Whoever is known already need not be named.
            if handle.is_none() && step != Step::Alone {
                continue;
            }
            let (session, options) = t.begin().await;
            let answer = key.get_with(&options, |d| d.handle = handle).to_string();
            check_refused(&t, &session, &answer, &mut key, what).await;
            refused += 1;
        }
        assert_eq!(refused, SIGNED.len() + UNSIGNED.len() + if step == Step::Alone { 2 } else { 1 });
        if step == Step::Again {
            assert_eq!(b.id.stage(&signed_in).await.unwrap(), stage, "nothing was proven again");
        }
        // And unchanged it is accepted.
        let (session, options) = t.begin().await;
        let answer = key.get(&options).to_string();
        t.answer(&session, &answer).await.unwrap();
    }
}

async fn check_refused(t: &Tried<'_>, session: &Session, answer: &str, key: &mut Authenticator, what: &str) {
    let before = count_of(t.b, key).await;
    let done = t.answer(session, answer).await;
    assert!(matches!(done, Err(Error::Refused(_))), "{:?} {what}: {done:?}", t.step);
    assert_eq!(count_of(t.b, key).await, before, "{:?} {what}", t.step);
    if t.step != Step::Again {
        assert!(!t.b.is_signed_in(session).await, "{:?} {what}", t.step);
    }
}

// SEC-117, SEC-118
#[tokio::test]
async fn a_new_passkey_with_anything_changed_is_not_added() {
    let b = bench().await;
    let (user, session) = invited(&b, "ada").await;
    let mut key = Authenticator::new(ORIGIN);
    for (what, change) in SIGNED {
        // A new key says for the first time whether it can be copied.
        if what.contains("was not") {
            continue;
        }
        let options = b.id.begin_passkey(&session).await.unwrap();
        let answer = match *what {
            "type" => key.create_with(&options, |d| d.kind = "webauthn.get"),
            _ => key.create_with(&options, change),
        };
        let done = b.id.confirm_passkey(&session, &answer.to_string(), "key", peer()).await;
        assert!(matches!(done, Err(Error::Refused(_))), "{what}: {done:?}");
    }
    for (what, change) in UNSIGNED {
        if what.starts_with("signature") || what.starts_with("authenticatorData") {
            continue;
        }
        let options = b.id.begin_passkey(&session).await.unwrap();
        let mut answer = key.create(&options);
        change(&mut answer);
        let done = b.id.confirm_passkey(&session, &answer.to_string(), "key", peer()).await;
        assert!(matches!(done, Err(Error::Refused(_))), "{what}: {done:?}");
    }
    for name in ["", "a\nb", &"x".repeat(65)] {
        let options = b.id.begin_passkey(&session).await.unwrap();
        let answer = key.create(&options).to_string();
        let done = b.id.confirm_passkey(&session, &answer, name, peer()).await;
        assert!(matches!(done, Err(Error::Invalid(_))), "{name:?}");
    }
    assert!(b.id.factors(user).await.unwrap().is_empty());
    assert!(!b.is_signed_in(&session).await);
}

// SEC-120
#[tokio::test]
async fn an_answer_counts_once_in_its_session_for_its_purpose_and_for_five_minutes() {
    let b = bench().await;
    let (_, signed_in, mut key) = with_passkey(&b, "ada").await;
    let session = b.browser();
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    let asked: Value = serde_json::from_str(&options).unwrap();
    assert_eq!(BASE64.decode(asked["publicKey"]["challenge"].as_str().unwrap()).unwrap().len(), 32);
    assert_eq!(asked["publicKey"]["rpId"], "console.example.org");
    assert_eq!(asked["publicKey"]["userVerification"], "required");
    assert_eq!(asked["publicKey"]["allowCredentials"], Value::Array(vec![]));
    let answer = key.get(&options).to_string();

    // Another session that was asked as well, and one that was not.
    let other = b.browser();
    assert_eq!(why(b.id.sign_in_with_passkey(&other, &answer, peer()).await), Why::NotAsked);
    b.id.begin_passkey_sign_in(&other).await.unwrap();
    assert_eq!(why(b.id.sign_in_with_passkey(&other, &answer, peer()).await), Why::WrongPasskey);
    // Another purpose: what signs in does not confirm, in the session that was asked and in another.
    assert_eq!(why(b.id.step_up(&signed_in, &answer, peer()).await), Why::NotAsked);
    let mine = b.id.begin_passkey_sign_in(&signed_in).await.unwrap();
    let mine = key.get(&mine).to_string();
    assert_eq!(why(b.id.step_up(&signed_in, &mine, peer()).await), Why::NotAsked);
    let step_up = b.id.begin_passkey_step_up(&signed_in).await.unwrap();
    assert_eq!(why(b.id.step_up(&signed_in, &mine, peer()).await), Why::WrongPasskey);
    let confirms = key.get(&step_up).to_string();
    assert_eq!(why(b.id.sign_in_with_passkey(&session, &confirms, peer()).await), Why::WrongPasskey, "it used its up");
    // What registers signs nobody in, and what signs in registers nothing.
    let registers = b.id.begin_passkey(&signed_in).await.unwrap();
    let made = Authenticator::new(ORIGIN).create(&registers).to_string();
    assert_eq!(why(b.id.step_up(&signed_in, &made, peer()).await), Why::NotAsked);
    let answered = key.get(&registers.replace("\"user\"", "\"rpId\":\"console.example.org\",\"user\"")).to_string();
    assert_eq!(why(b.id.confirm_passkey(&signed_in, &answered, "x", peer()).await), Why::WrongPasskey);

    // In time, once, on whatever node.
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    let answer = key.get(&options).to_string();
    b.clock.advance(Duration::minutes(5) - Duration::SECOND);
    b.id.sign_in_with_passkey(&session, &answer, peer()).await.unwrap();
    assert_eq!(why(b.other.sign_in_with_passkey(&session, &answer, peer()).await), Why::NotAsked, "a replay");
    let late = b.browser();
    let options = b.id.begin_passkey_sign_in(&late).await.unwrap();
    let answer = key.get(&options).to_string();
    b.clock.advance(Duration::minutes(5));
    assert_eq!(why(b.id.sign_in_with_passkey(&late, &answer, peer()).await), Why::NotAsked, "too late");
}

// SEC-120
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_replays_at_once_one_counts() {
    let b = bench().await;
    let (_, _, mut key) = with_passkey(&b, "ada").await;
    let session = half_way(&b, "ada").await;
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    let answer = key.get(&options).to_string();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..50 {
        let node = if n % 2 == 0 { b.id.clone() } else { b.other.clone() };
        let (session, answer) = (b.again(&session), answer.clone());
        all.spawn(async move { node.second_factor(&session, &answer, peer()).await.is_ok() });
    }
    assert_eq!(all.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

// SEC-119
#[tokio::test]
async fn a_counter_that_goes_back_is_refused_by_name_and_none_at_all_is_fine() {
    let b = bench().await;
    let (user, _, mut key) = with_passkey(&b, "ada").await;
    sign_in(&b, &b.browser(), &mut key).await.unwrap();
    assert_eq!(count_of(&b, &key).await.0, 1);
    key.counter = Some(40);
    sign_in(&b, &b.browser(), &mut key).await.unwrap();
    let kept = count_of(&b, &key).await;
    assert_eq!(kept.0, 41);
    for back in [0, 1, 39, 40] {
        key.counter = Some(back);
        match sign_in(&b, &b.browser(), &mut key).await {
            Err(Error::Refused(refusal)) => {
                assert_eq!((refusal.noted, refusal.user), (Why::PasskeyCounter, Some(user)), "{back}");
            }
            other => panic!("{back}: {other:?}"),
        }
        assert_eq!(count_of(&b, &key).await, kept);
    }
    let (_, session) = invited(&b, "bob").await;
    let mut synced = Authenticator { counter: None, synced: true, ..Authenticator::new(ORIGIN) };
    add(&b, &session, &mut synced).await.unwrap();
    for _ in 0..3 {
        sign_in(&b, &b.browser(), &mut synced).await.unwrap();
        assert_eq!(count_of(&b, &synced).await.0, 0);
    }
}

// SEC-131
#[tokio::test]
async fn a_stranger_cannot_tell_a_passkey_that_nobody_has() {
    let b = bench().await;
    let (_, _, mut key) = with_passkey(&b, "ada").await;
    let mut nobodys = Authenticator::new(ORIGIN);
    let made = b.id.begin_passkey(&invited(&b, "bob").await.1).await.unwrap();
    nobodys.create(&made);
    let mut texts = Vec::new();
    for key in [&mut key, &mut nobodys] {
        let session = b.browser();
        let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
        let mut answer = key.get(&options);
        flip(&mut answer["response"]["signature"], 20);
        let refused = b.id.sign_in_with_passkey(&session, &answer.to_string(), peer()).await.unwrap_err();
        texts.push(refused.to_string());
    }
    assert_eq!(texts[0], texts[1]);
    // A good signature of a key that nobody has is no more.
    assert_eq!(why(sign_in(&b, &b.browser(), &mut nobodys).await), Why::UnknownPasskey);
}

// SEC-131
#[tokio::test]
async fn a_passkey_that_nobody_has_takes_as_long_to_be_refused() {
    let b = bench().await;
    let (_, _, key) = with_passkey(&b, "ada").await;
    let nobodys = Authenticator { handle: key.handle.clone(), ..Authenticator::new(ORIGIN) };
    let mut keys = [key, nobodys];
    let (samples, mut round) = (full_or(150, 1_000), 0);
    let mut dice = Dice(131);
    assert_alike(async |times| {
        let mut took = [Vec::new(), Vec::new()];
        for n in 0..times * samples {
            let [high, low] = n.to_be_bytes();
            // Each goes first as often: what the one leaves behind would be counted with the other.
            let first = dice.index(2);
            for turn in [first, 1 - first] {
                let (key, took) = (&mut keys[turn], &mut took[turn]);
                let session = b.browser();
                let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
                let mut answer = key.get(&options);
                flip(&mut answer["response"]["authenticatorData"], 36);
                let (answer, from) = (answer.to_string(), IpAddr::from([10 + round, high, low, 1]));
                settle().await;
                let begun = Watch::start();
                let refused = b.id.sign_in_with_passkey(&session, &answer, from).await;
                took.push(begun.stop());
                assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
            }
        }
        round += 1;
        took
    })
    .await;
}

// SEC-132, SEC-133
#[tokio::test]
async fn wrong_passwords_never_close_the_way_of_a_passkey() {
    let b = bench().await;
    let (user, _, mut key) = with_passkey(&b, "ada").await;
    for n in 0..10_000 {
        let from = if n % 2 == 0 { peer() } else { elsewhere() };
        let tried = b.id.sign_in(&b.browser(), "ada", secret("wrong wrong wrong"), from).await;
        assert!(tried.is_err());
    }
    assert!(matches!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await, Err(Error::Locked { .. })));
    sign_in(&b, &b.browser(), &mut key).await.unwrap();
    // A lock by somebody who may is another thing.
    b.id.disable_user(user).await.unwrap();
    let before = count_of(&b, &key).await;
    assert_eq!(why(sign_in(&b, &b.browser(), &mut key).await), Why::Disabled);
    assert_eq!(count_of(&b, &key).await, before);
}

// SEC-111, SEC-132
#[tokio::test]
async fn wrong_answers_lock_their_network_and_nobody_elsewhere() {
    let b = bench().await;
    let (user, _, mut key) = with_passkey(&b, "ada").await;
    let wrong = async |key: &mut Authenticator, from: IpAddr| {
        let session = b.browser();
        let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
        let mut answer = key.get(&options);
        flip(&mut answer["response"]["signature"], 20);
        b.id.sign_in_with_passkey(&session, &answer.to_string(), from).await
    };
    for _ in 0..10 {
        assert!(matches!(wrong(&mut key, elsewhere()).await, Err(Error::Refused(_))));
    }
    assert!(matches!(wrong(&mut key, elsewhere()).await, Err(Error::Locked { .. })));
    sign_in(&b, &b.browser(), &mut key).await.unwrap();
    // Whoever lifts a person's locks lifts this one too.
    b.id.unlock(user).await.unwrap();
    assert!(matches!(wrong(&mut key, elsewhere()).await, Err(Error::Refused(_))));
    // Nobody's are counted alike, and all of a network together.
    let mut nobodys = Authenticator::new(ORIGIN);
    for _ in 0..10 {
        assert!(matches!(wrong(&mut nobodys, elsewhere()).await, Err(Error::Refused(_))));
    }
    assert!(matches!(wrong(&mut nobodys, elsewhere()).await, Err(Error::Locked { .. })));
    let mut locked = 0;
    for _ in 0..40 {
        let mut another = Authenticator::new(ORIGIN);
        locked += usize::from(matches!(wrong(&mut another, elsewhere()).await, Err(Error::Locked { .. })));
    }
    assert!((5..40).contains(&locked), "{locked}");
    sign_in(&b, &b.browser(), &mut key).await.unwrap();
}

#[tokio::test]
async fn codes_that_were_tried_too_often_leave_the_passkey() {
    let b = bench().await;
    let (Person { .. }, session) = b.person("ada").await;
    let mut key = Authenticator::new(ORIGIN);
    add(&b, &session, &mut key).await.unwrap();
    let session = half_way(&b, "ada").await;
    while !matches!(b.id.second_factor(&session, "000000", peer()).await, Err(Error::Locked { .. })) {}
    let options = b.id.begin_passkey_sign_in(&session).await.unwrap();
    b.id.second_factor(&session, &key.get(&options).to_string(), peer()).await.unwrap();
}

// SEC-125
#[tokio::test]
async fn the_last_factor_stays_and_a_removed_passkey_is_worth_nothing() {
    let b = bench().await;
    let (user, session, mut key) = with_passkey(&b, "ada").await;
    let only = b.id.factors(user).await.unwrap()[0].id;
    assert!(matches!(b.id.remove_factor(&session, only).await, Err(Error::Invalid(_))));
    b.enrol(&session).await;
    let begun = half_way(&b, "ada").await;
    let options = b.id.begin_passkey_sign_in(&begun).await.unwrap();
    b.id.remove_factor(&session, only).await.unwrap();
    assert!(b.id.second_factor(&begun, &key.get(&options).to_string(), peer()).await.is_err(), "its session ended");
    assert_eq!(why(sign_in(&b, &b.browser(), &mut key).await), Why::UnknownPasskey);
    b.clock.advance(Duration::minutes(6));
    let other = b.id.factors(user).await.unwrap()[0].id;
    assert!(matches!(b.id.remove_factor(&session, other).await, Err(Error::NotFresh)));
}

#[tokio::test]
async fn a_recovery_code_leads_to_a_passkey_as_well_and_the_old_ones_go() {
    let b = bench().await;
    let (ada, session) = b.person("ada").await;
    let mut old = Authenticator::new(ORIGIN);
    add(&b, &session, &mut old).await.unwrap();
    let lost = half_way(&b, "ada").await;
    b.id.recover(&lost, &ada.codes[0], peer()).await.unwrap();
    let mut new = Authenticator::new(ORIGIN);
    assert_eq!(add(&b, &lost, &mut new).await.unwrap(), 10, "new recovery codes");
    let left = b.id.factors(ada.user).await.unwrap();
    assert_eq!(left.iter().map(|f| f.kind).collect::<Vec<_>>(), [FactorKind::Passkey]);
    assert_eq!(why(sign_in(&b, &b.browser(), &mut old).await), Why::UnknownPasskey);
    sign_in(&b, &b.browser(), &mut new).await.unwrap();
    // A reset takes it, too.
    b.id.reset(ada.user).await.unwrap();
    assert_eq!(why(sign_in(&b, &b.browser(), &mut new).await), Why::UnknownPasskey);
}

#[tokio::test]
async fn a_passkey_belongs_to_one_person() {
    let b = bench().await;
    let (_, _, mut key) = with_passkey(&b, "ada").await;
    let (_, session) = invited(&b, "bob").await;
    let options = b.id.begin_passkey(&session).await.unwrap();
    let answer = key.create(&options).to_string();
    let done = b.id.confirm_passkey(&session, &answer, "mine now", peer()).await;
    assert!(matches!(done, Err(Error::Conflict(_))), "{done:?}");
    // Nor does it stand for somebody else's second step.
    let (_, signed_in, mut bobs) = with_passkey(&b, "carol").await;
    let options = b.id.begin_passkey_step_up(&signed_in).await.unwrap();
    assert!(b.id.step_up(&signed_in, &key.get(&options).to_string(), peer()).await.is_err());
    let options = b.id.begin_passkey_step_up(&signed_in).await.unwrap();
    b.id.step_up(&signed_in, &bobs.get(&options).to_string(), peer()).await.unwrap();
}

#[tokio::test]
async fn a_row_that_was_moved_to_somebody_else_in_the_database_opens_nothing() {
    let b = bench().await;
    let (_, _, mut key) = with_passkey(&b, "mallory").await;
    let ada = b.id.create_user("ada", "").await.unwrap();
    let kept = b.store.passkey_by_credential(&key.credential_id).await.unwrap().unwrap();
    b.store.reset_user(kept.user, b.clock_now()).await.unwrap();
    let moved = portcullis_store::NewPasskey {
        id: kept.id,
        user: ada,
        name: kept.name,
        credential_id: kept.credential_id,
        sealed: kept.sealed,
        sign_count: 0,
    };
    assert!(b.store.add_passkey(&moved, portcullis_store::Others::Keep, b.clock_now()).await.unwrap());
    assert!(matches!(sign_in(&b, &b.browser(), &mut key).await, Err(Error::Crypto(_))));
}

#[tokio::test]
async fn without_a_name_passkeys_are_off_and_codes_go_on() {
    for (origin, says) in [
        ("https://192.0.2.7:8443", "IP address"),
        ("https://[2001:db8::1]", "IP address"),
        ("", "has none"),
        ("http://console.example.org", "has none"),
    ] {
        let b = Bench::with(Settings { portal: origin.to_owned(), ..Settings::default() }).await;
        assert!(b.id.passkeys_off().unwrap().contains(says), "{origin}");
        let (ada, _) = b.person("ada").await;
        let session = b.signed_in(&ada).await;
        assert!(b.is_signed_in(&session).await);
        for refused in [b.id.begin_passkey(&session).await, b.id.begin_passkey_sign_in(&b.browser()).await] {
            assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("passkeys are off")), "{refused:?}");
        }
        assert!(!b.id.proofs_of(ada.user).await.unwrap().passkey);
    }
    for origin in ["https://console.example.org", "https://localhost:8443", "https://console"] {
        let b = Bench::with(Settings { portal: origin.to_owned(), ..Settings::default() }).await;
        assert_eq!(b.id.passkeys_off(), None, "{origin}");
    }
}

/// A maker of keys: its authority as PEM, and what a key of one model is made with.
fn maker(dir: &std::path::Path, name: &str) -> (std::path::PathBuf, Maker) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, format!("{name} root"));
    let ca_key = KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    // WebAuthn Level 3, 8.2.1: what an attestation certificate must say.
    let mut leaf = CertificateParams::default();
    for (kind, value) in [
        (DnType::CountryName, "SE"),
        (DnType::OrganizationName, name),
        (DnType::OrganizationalUnitName, "Authenticator Attestation"),
        (DnType::CommonName, "model"),
    ] {
        leaf.distinguished_name.push(kind, value);
    }
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, ca_certificate.pem()).unwrap();
    (file, Maker { certificate: certificate.der().to_vec(), pkcs8: key.serialize_der() })
}

// SEC-118
#[tokio::test]
async fn where_models_are_listed_only_they_are_added_and_their_maker_must_vouch() {
    let dir = tempfile::tempdir().unwrap();
    let ((good, makes), (_, makes_others)) = (maker(dir.path(), "good"), maker(dir.path(), "other"));
    let model = Uuid::from_u128(0x1234);
    let allowed = |ca_file| vec![AllowedModel { aaguid: model, ca_file }];
    let passkeys = PasskeySettings { allowed: allowed(good), ..PasskeySettings::default() };
    let b = Bench::with(Settings { passkeys, ..settings() }).await;
    let (user, session) = invited(&b, "ada").await;
    let mut key = Authenticator { aaguid: *model.as_bytes(), ..Authenticator::new(ORIGIN) };
    let not_allowed = async |key: &mut Authenticator, what: &str| {
        let done = add(&b, &session, key).await;
        assert!(matches!(&done, Err(Error::Invalid(why)) if why.contains("not allowed")), "{what}: {done:?}");
    };
    not_allowed(&mut key, "nobody vouches").await;
    key.maker = Some(makes_others);
    not_allowed(&mut key, "another maker vouches").await;
    key.maker = Some(makes);
    key.aaguid = [7; 16];
    not_allowed(&mut key, "another model of the same maker").await;
    assert!(b.id.factors(user).await.unwrap().is_empty());
    key.aaguid = *model.as_bytes();
    add(&b, &session, &mut key).await.unwrap();
    sign_in(&b, &b.browser(), &mut key).await.unwrap();

    for (file, says) in [("missing.pem", "No such file"), ("empty.pem", "no certificate")] {
        std::fs::write(dir.path().join("empty.pem"), "x").unwrap();
        let passkeys = PasskeySettings { allowed: allowed(dir.path().join(file)), ..PasskeySettings::default() };
        let refused = super::Passkeys::new(&Settings { passkeys, ..settings() }).err().unwrap().to_string();
        assert!(refused.contains("passkeys.allowed.ca_file") && refused.contains(says), "{refused}");
    }
}

#[test]
fn settings_name_what_is_wrong_in_them() {
    let read = |text: &str| serde_json::from_str::<Settings>(text);
    assert!(read(r#"{"passkeys": {"user_verification": "always"}}"#).is_ok());
    for bad in [
        r#"{"passkeys": {"user_verification": "never"}}"#,
        r#"{"passkeys": {"user_verify": "always"}}"#,
        r#"{"passkeys": {"allowed": [{"aaguid": "x", "ca_file": "a.pem"}]}}"#,
        r#"{"passkeys": {"allowed": [{"aaguid": "00000000-0000-0000-0000-000000001234"}]}}"#,
        r#"{"portal": "https://evil.example"}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
