// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{Bench, PASSWORD, is_in, peer, secret};
use portcullis_domain::{Clock, Level};
use std::sync::Arc;
use time::Duration;

fn noted<T>(result: Result<T, Error>) -> Why {
    match result {
        Err(e) => e.noted().map_or_else(|| panic!("{e:?}"), |r| r.noted),
        Ok(_) => panic!("it was accepted"),
    }
}

// SEC-098
#[tokio::test]
async fn the_walk_from_stranger_to_signed_in_changes_the_id_at_each_step() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let session = b.browser();
    b.next_step();
    b.id.csrf(&session).await.unwrap();
    session.save().await.unwrap();
    let mut ids = vec![session.id().unwrap()];
    assert_eq!(b.id.sign_in(&session, " ＡDA", secret(PASSWORD), peer()).await.unwrap(), Next::SecondFactor);
    ids.push(session.id().unwrap());
    assert!(b.id.actor(&session).await.unwrap().is_none());
    let entered = b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    ids.push(session.id().unwrap());
    let actor = b.id.actor(&session).await.unwrap().unwrap();
    assert_eq!((actor.user, &*actor.name, actor.assurance.level()), (ada.user, "ada", Level::Two));
    b.next_step();
    b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    ids.push(session.id().unwrap());
    assert!(matches!(b.id.stage(&session).await.unwrap(), Stage::SignedIn { session, .. } if session == entered));
    assert_eq!(b.id.actor_of(entered).await.unwrap().unwrap().user, ada.user);
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1);
        let old = tower_sessions::Session::new(Some(*id), Arc::new(b.id.0.rows.clone()), None);
        let stage = b.id.stage(&old).await.unwrap();
        assert_eq!(matches!(stage, Stage::SignedIn { .. }), i == 3, "id {i} is {stage:?}");
    }
}

#[tokio::test]
async fn every_refusal_looks_the_same_and_costs_the_same_hashes() {
    let b = Bench::new().await;
    let (_, _) = b.person("ada").await;
    let (gone, _) = b.person("gone").await;
    b.id.disable_user(gone.user).await.unwrap();
    b.id.create_user("invited", "").await.unwrap();
    let long = "x".repeat(300);
    let mut texts = std::collections::BTreeSet::new();
    for (name, password, why) in [
        ("ada", "wrong", Why::WrongPassword),
        ("ada", "", Why::WrongPassword),
        ("ada", &long, Why::WrongPassword),
        ("nobody", PASSWORD, Why::UnknownName),
        ("", PASSWORD, Why::UnknownName),
        (&long, PASSWORD, Why::UnknownName),
        ("gone", PASSWORD, Why::Disabled),
        ("gone", "wrong", Why::WrongPassword),
        ("invited", "", Why::NoPassword),
        ("invited", PASSWORD, Why::NoPassword),
    ] {
        let before = b.id.hashes_done();
        let session = b.browser();
        let error = b.id.sign_in(&session, name, secret(password), peer()).await.unwrap_err();
        texts.insert(error.to_string());
        assert_eq!(noted::<()>(Err(error)), why, "{name:.8}");
        assert_eq!(b.id.hashes_done(), before + 1, "{name:.8}: one hash, whoever it is");
        assert!(session.id().is_none(), "a refused try makes no session");
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn five_wrong_passwords_lock_a_name_in_every_spelling_known_or_not() {
    let b = Bench::new().await;
    b.person("ada").await;
    for name in ["ada", "nobody"] {
        let spellings = [name.to_owned(), name.to_uppercase(), format!(" {name} ")];
        for n in 0..5 {
            let tried = b.id.sign_in(&b.browser(), &spellings[n % 3], secret("wrong"), peer()).await;
            assert!(matches!(tried, Err(Error::Refused(_))));
        }
        for (node, spelling) in [(&b.id, &spellings[1]), (&b.other, &spellings[2])] {
            let before = node.hashes_done();
            let tried = node.sign_in(&b.browser(), spelling, secret(PASSWORD), peer()).await;
            let Err(Error::Locked { until }) = tried else { panic!("{tried:?}") };
            assert_eq!(until, b.clock.now() + Duration::MINUTE);
            assert_eq!(node.hashes_done(), before, "a locked name costs no hash");
        }
    }
    b.clock.advance(Duration::MINUTE);
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_ok());
    assert!(matches!(b.id.sign_in(&b.browser(), "ada", secret("wrong"), peer()).await, Err(Error::Refused(_))));
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_ok(), "success forgets failures");
}

#[tokio::test]
async fn fifty_failures_from_one_network_close_it_and_successes_do_not_count() {
    let b = Bench::new().await;
    b.person("ada").await;
    for _ in 0..3 {
        b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.unwrap();
    }
    for n in 0..50 {
        let from = format!("192.0.2.{n}").parse().unwrap();
        let tried = b.id.sign_in(&b.browser(), &format!("name{n}"), secret("wrong"), from).await;
        assert!(matches!(tried, Err(Error::Refused(_))), "{n}: {tried:?}");
    }
    assert!(matches!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await, Err(Error::Locked { .. })));
    assert!(matches!(b.id.look_at_invitation("pci_x", peer()).await, Err(Error::Locked { .. })));
    let elsewhere = "198.51.100.1".parse().unwrap();
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), elsewhere).await.is_ok());
    b.clock.advance(Duration::minutes(10));
    assert!(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await.is_ok());
}

// SEC-110
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_spellings_of_one_code_at_once_on_two_nodes_one_counts() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    b.next_step();
    let code = b.code(&ada.app);
    let wide: String = code.chars().map(|c| char::from_u32(c as u32 - 0x30 + 0xFF10).unwrap()).collect();
    let (head, tail) = code.split_at(3);
    let spellings = [code.clone(), format!(" {code}"), format!("{head} {tail}"), wide, format!("{head}-{tail}")];
    let mut sessions = Vec::new();
    for n in 0..50 {
        let session = b.browser();
        let from = format!("10.0.{n}.1").parse().unwrap();
        b.id.sign_in(&session, "ada", secret(PASSWORD), from).await.unwrap();
        sessions.push(session);
    }
    let mut trying = tokio::task::JoinSet::new();
    for (n, session) in sessions.into_iter().enumerate() {
        let node = if n % 2 == 0 { b.id.clone() } else { b.other.clone() };
        let spelling = spellings[n % spellings.len()].clone();
        trying.spawn(async move { node.second_factor(&session, &spelling, peer()).await });
    }
    let (mut done, mut used, mut locked) = (0, 0, 0);
    for result in trying.join_all().await {
        match result {
            Ok(_) => done += 1,
            Err(Error::Refused(r)) if r.noted == Why::UsedCode => used += 1,
            Err(Error::Locked { .. }) => locked += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((done, done + used + locked), (1, 50));
    assert!(used <= 10, "no more than ten tries were looked at: {used}");
}

#[tokio::test]
async fn a_step_that_was_used_is_over_for_sign_in_and_step_up() {
    let b = Bench::new().await;
    let (ada, enrolled) = b.person("ada").await;
    let used = b.code(&ada.app);
    assert_eq!(noted(b.id.step_up(&enrolled, &used, peer()).await), Why::UsedCode, "the enrolling code was used");
    b.next_step();
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    assert_eq!(noted(b.id.step_up(&session, &b.code(&ada.app), peer()).await), Why::UsedCode);
    assert_eq!(noted(b.id.step_up(&session, &used, peer()).await), Why::UsedCode, "the step before, too");
    b.next_step();
    assert!(b.id.step_up(&session, &b.code(&ada.app), peer()).await.is_ok());
}

#[tokio::test]
async fn codes_are_limited_per_person_over_sessions_nodes_and_kinds() {
    let b = Bench::new().await;
    let (ada, enrolled) = b.person("ada").await;
    b.next_step();
    for n in 0..10 {
        let node = if n % 2 == 0 { &b.id } else { &b.other };
        let session = b.browser();
        node.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
        let tried = if n % 3 == 0 {
            node.recover(&session, "AAAA-AAAA-AAAA-AAAA", peer()).await.map(drop)
        } else {
            node.second_factor(&session, "000000", peer()).await.map(drop)
        };
        assert!(matches!(tried, Err(Error::Refused(_))), "{n}: {tried:?}");
    }
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    let code = b.code(&ada.app);
    assert!(matches!(b.id.second_factor(&session, &code, peer()).await, Err(Error::Locked { .. })));
    assert!(matches!(b.id.recover(&session, &ada.codes[0], peer()).await, Err(Error::Locked { .. })));
    assert!(matches!(b.id.step_up(&enrolled, &code, peer()).await, Err(Error::Locked { .. })));

    // four more windows of ten fill the day
    for _ in 0..4 {
        b.clock.advance(Duration::minutes(15));
        let session = b.browser();
        b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
        for _ in 0..10 {
            assert_eq!(noted(b.id.second_factor(&session, "000000", peer()).await), Why::WrongCode);
        }
    }
    b.clock.advance(Duration::HOUR);
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    let tried = b.id.second_factor(&session, &b.code(&ada.app), peer()).await;
    assert!(matches!(tried, Err(Error::Locked { .. })), "{tried:?}");
    b.id.unlock(ada.user).await.unwrap();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
}

#[tokio::test]
async fn no_second_step_without_the_first_and_none_after_ten_minutes() {
    let b = Bench::new().await;
    let (ada, signed_in) = b.person("ada").await;
    b.next_step();
    let code = b.code(&ada.app);
    for session in [b.browser(), b.again(&signed_in)] {
        assert!(matches!(b.id.second_factor(&session, &code, peer()).await, Err(Error::Expired)));
        assert!(matches!(b.id.recover(&session, &ada.codes[0], peer()).await, Err(Error::Expired)));
    }
    let stranger = b.browser();
    assert!(matches!(b.id.step_up(&stranger, &code, peer()).await, Err(Error::Expired)));
    assert!(matches!(b.id.begin_enrolment(&stranger).await.map(drop), Err(Error::Expired)));
    assert!(matches!(b.id.confirm_enrolment(&stranger, &code, peer()).await, Err(Error::Expired)));
    assert!(matches!(b.id.regenerate_recovery_codes(&stranger).await, Err(Error::Expired)));

    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    assert!(matches!(b.id.step_up(&session, &code, peer()).await, Err(Error::Expired)));
    assert!(matches!(b.id.begin_enrolment(&session).await.map(drop), Err(Error::Expired)), "no way round the factor");
    b.clock.advance(Duration::minutes(10));
    assert!(matches!(b.id.second_factor(&session, &b.code(&ada.app), peer()).await, Err(Error::Expired)));
}

// SEC-122
#[tokio::test]
async fn a_recovery_code_works_once_leads_to_enrolment_only_and_replaces_the_authenticator() {
    let b = Bench::new().await;
    let (ada, elsewhere) = b.person("ada").await;
    assert_eq!(ada.codes.len(), 10);
    let dump = b.dump();
    for code in &ada.codes {
        assert!(!is_in(&dump, code) && !is_in(&dump, &code.replace('-', "")));
    }
    b.next_step();
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    let typed = ada.codes[0].to_lowercase().replace('-', " ");
    assert_eq!(b.id.recover(&session, &typed, peer()).await.unwrap(), Next::Enrol);
    assert!(matches!(b.id.stage(&session).await.unwrap(), Stage::RecoveryOnly { .. }));
    assert!(b.id.actor(&session).await.unwrap().is_none(), "no rights before enrolment");
    let (app, codes) = b.enrol(&session).await;
    assert!(b.is_signed_in(&session).await);
    assert!(!b.is_signed_in(&b.again(&elsewhere)).await, "other sessions end");

    b.next_step();
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    assert_eq!(noted(b.id.second_factor(&session, &b.code(&ada.app), peer()).await), Why::WrongCode);
    for old in &ada.codes[..2] {
        assert_eq!(noted(b.id.recover(&session, old, peer()).await), Why::WrongRecoveryCode);
    }
    b.id.second_factor(&session, &b.code(&app), peer()).await.unwrap();
    let newer = b.id.regenerate_recovery_codes(&session).await.unwrap();
    assert_eq!(b.id.recovery_codes_left(ada.user).await.unwrap(), 10);
    let session = b.browser();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    assert_eq!(noted(b.id.recover(&session, &codes[0], peer()).await), Why::WrongRecoveryCode);
    assert_eq!(b.id.recover(&session, &newer[0], peer()).await.unwrap(), Next::Enrol);
}

// SEC-098
#[tokio::test]
async fn signing_in_as_somebody_else_ends_the_session_before_and_keeps_nothing_of_it() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let (bob, _) = b.person("bob").await;
    let Stage::SignedIn { session: before, .. } = b.id.stage(&session).await.unwrap() else { panic!() };
    session.insert("return_to", "/c/lab/vm-1").await.unwrap();
    b.next_step();
    b.id.sign_in(&session, "bob", secret(PASSWORD), peer()).await.unwrap();
    assert!(b.id.actor_of(before).await.unwrap().is_none());
    assert!(b.id.sessions_of(ada.user).await.unwrap().is_empty());
    b.id.second_factor(&session, &b.code(&bob.app), peer()).await.unwrap();
    assert_eq!(session.get::<String>("return_to").await.unwrap(), None);
    assert_eq!(b.id.actor(&session).await.unwrap().unwrap().user, bob.user);
}

#[tokio::test]
async fn where_a_stranger_wanted_to_go_survives_signing_in() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let session = b.browser();
    b.next_step();
    session.insert("return_to", "/c/lab/vm-1").await.unwrap();
    b.id.sign_in(&session, "ada", secret(PASSWORD), peer()).await.unwrap();
    b.id.second_factor(&session, &b.code(&ada.app), peer()).await.unwrap();
    assert_eq!(b.again(&session).get::<String>("return_to").await.unwrap().as_deref(), Some("/c/lab/vm-1"));
}

#[tokio::test]
async fn a_sixth_session_ends_the_oldest() {
    let b = Bench::new().await;
    let (ada, first) = b.person("ada").await;
    let mut all = vec![first];
    for _ in 0..5 {
        all.push(b.signed_in(&ada).await);
    }
    let mut live = Vec::new();
    for s in &all {
        live.push(b.is_signed_in(&b.again(s)).await);
    }
    assert_eq!(live, [false, true, true, true, true, true]);
}

#[tokio::test]
async fn signing_out_ends_the_session_for_good() {
    let b = Bench::new().await;
    let (_, session) = b.person("ada").await;
    let cookie = b.again(&session);
    let mut changes = b.id.changes();
    changes.mark_unchanged();
    b.id.sign_out(&session).await.unwrap();
    assert!(changes.has_changed().unwrap(), "what lives on is told at once");
    assert_eq!(b.id.stage(&cookie).await.unwrap(), Stage::Stranger);
    assert_eq!(b.id.stage(&session).await.unwrap(), Stage::Stranger);
    assert!(session.is_empty().await, "the layer takes the cookie back");
    b.id.sign_out(&b.browser()).await.unwrap();
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once_and_cannot_come_back_in() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let half = b.browser();
    b.next_step();
    b.id.sign_in(&half, "ada", secret(PASSWORD), peer()).await.unwrap();
    let flight = b.again(&half);
    b.id.stage(&flight).await.unwrap();
    b.id.disable_user(ada.user).await.unwrap();
    assert!(b.id.actor(&b.again(&session)).await.unwrap().is_none());
    assert!(b.id.actor(&session).await.unwrap().is_none(), "even for a request that read its session before");
    assert_eq!(noted(b.id.second_factor(&flight, &b.code(&ada.app), peer()).await), Why::Disabled);
    assert_eq!(noted(b.id.sign_in(&b.browser(), "ada", secret(PASSWORD), peer()).await), Why::Disabled);
    b.id.enable_user(ada.user).await.unwrap();
    assert!(b.id.actor(&b.again(&session)).await.unwrap().is_none(), "ended sessions stay ended");
    b.signed_in(&ada).await;
}

#[tokio::test]
async fn a_form_belongs_to_its_session_and_step() {
    let b = Bench::new().await;
    b.person("ada").await;
    let (one, two) = (b.browser(), b.browser());
    let (form, other) = (b.id.csrf(&one).await.unwrap(), b.id.csrf(&two).await.unwrap());
    assert_ne!(form, other);
    assert_eq!(b.id.csrf(&one).await.unwrap(), form, "the same while the step is");
    b.id.check_csrf(&one, &form).await.unwrap();
    for wrong in ["", &other, &form[1..]] {
        assert_eq!(noted(b.id.check_csrf(&one, wrong).await), Why::WrongForm);
    }
    assert_eq!(noted(b.id.check_csrf(&b.browser(), "").await), Why::WrongForm);
    b.id.sign_in(&one, "ada", secret(PASSWORD), peer()).await.unwrap();
    assert_eq!(noted(b.id.check_csrf(&one, &form).await), Why::WrongForm);
}

#[tokio::test]
async fn authenticator_secrets_are_sealed_to_their_row() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (bob, _) = b.person("bob").await;
    let dump = b.dump();
    for app in [&ada.app, &bob.app] {
        assert!(!dump.windows(app.expose().len()).any(|w| w == app.expose()));
    }
    let one = b.store.totp_factors(ada.user).await.unwrap().remove(0);
    let two = b.store.totp_factors(bob.user).await.unwrap().remove(0);
    assert_eq!(b.id.0.open_factor(&one).unwrap().expose(), ada.app.expose());
    let swapped = portcullis_store::TotpFactor { sealed: two.sealed, ..one };
    assert!(matches!(b.id.0.open_factor(&swapped), Err(Error::Store(portcullis_store::Error::Sealed))));
}

// SEC-199
#[tokio::test]
async fn names_that_nobody_has_share_a_bounded_number_of_locks_and_no_account_shares_with_them() {
    let b = Bench::new().await;
    b.person("ada").await;
    let inner = &b.id.0;
    let subjects: std::collections::BTreeSet<_> =
        (0..200_000).map(|n| inner.subject_of_unknown(&format!("name{n}"))).collect();
    assert!(subjects.len() <= 65_536 && subjects.len() > 60_000, "{}", subjects.len());
    assert!(!subjects.contains(&crate::limit::subject_of_name("ada")));
    assert_ne!(inner.subject_of_unknown("a"), b.other.0.subject_of_unknown("b"));
    assert_eq!(inner.subject_of_unknown("a"), b.other.0.subject_of_unknown("a"), "the same on every node");
    // It locks as an account would.
    let tries = async |name: &str| {
        let mut locked = None;
        for n in 0..8 {
            if let Err(Error::Locked { .. }) = b.id.sign_in(&b.browser(), name, secret("wrong"), peer()).await {
                locked.get_or_insert(n);
            }
        }
        locked
    };
    assert_eq!(tries("nobody").await, tries("ada").await);
}

#[tokio::test]
async fn what_was_typed_for_a_name_stands_in_the_trail_only_when_somebody_has_that_name() {
    let b = Bench::new().await;
    b.person("Ada").await;
    let told = async |typed: &str| b.id.name_for_trail(typed).await.unwrap();
    assert_eq!(told(" aDA ").await, "Ada");
    let slip = told(PASSWORD).await;
    assert!(slip.starts_with("unknown name #") && slip.len() == 22 && !slip.contains(PASSWORD), "{slip}");
    assert_eq!(told(PASSWORD).await, slip, "tries at one name can be told");
    assert_eq!(b.other.name_for_trail(PASSWORD).await.unwrap(), slip, "on every node");
    assert_ne!(told("somebody else").await, slip);
}

// SEC-123
#[tokio::test]
async fn what_a_confirmation_was_for_is_known_to_every_node_and_used_once_over_all() {
    use portcullis_domain::{Action, Effect, Intent, Operation, Resource};
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let intent = |machine: &str| {
        let resource = Resource::Machine(machine.parse().unwrap());
        Intent::of(&Operation { action: Action::Destroy, resource, effect: Effect::Unsafe }).unwrap()
    };
    let (one, two) = (intent("lab/101"), intent("lab/102"));
    b.next_step();
    b.id.step_up_for(&session, &b.code(&ada.app), Some(one.clone()), peer()).await.unwrap();
    session.save().await.unwrap();
    let there = tower_sessions::Session::new(session.id(), std::sync::Arc::new(b.other.session_rows()), None);
    let actor = b.other.actor(&there).await.unwrap().unwrap();
    let now = b.clock_now();
    let window = Duration::minutes(5);
    let at = actor.assurance.proven_for(&one, window, now).expect("the other node knows");
    assert_eq!(actor.assurance.proven_for(&two, window, now), None);
    let portcullis_domain::Via::Session(id) = actor.via else { panic!("a session") };
    assert!(!b.id.is_spent(id, &one, at).await.unwrap());
    assert!(b.other.spend(id, &one, at).await.unwrap());
    assert!(b.id.is_spent(id, &one, at).await.unwrap());
    assert!(!b.id.spend(id, &one, at).await.unwrap());
    // A later confirmation is another one.
    b.next_step();
    b.id.step_up_for(&session, &b.code(&ada.app), Some(one.clone()), peer()).await.unwrap();
    let actor = b.id.actor(&session).await.unwrap().unwrap();
    let again = actor.assurance.proven_for(&one, window, b.clock_now()).unwrap();
    assert!(again > at && b.id.spend(id, &one, again).await.unwrap());
    // A plain one is for nothing in particular.
    b.next_step();
    b.id.step_up(&session, &b.code(&ada.app), peer()).await.unwrap();
    let actor = b.id.actor(&session).await.unwrap().unwrap();
    assert_eq!(actor.assurance.proven_for(&one, window, b.clock_now()), Some(again));
}

// SEC-131
#[tokio::test]
async fn a_name_that_nobody_has_takes_as_long_to_be_refused() {
    use crate::testing::{
        full_or,
        samples::{Watch, assert_alike, settle},
    };
    let b = Bench::steady().await;
    let samples = full_or(100, 1_000);
    // Each is tried once a round: what a second try meets is a limit. What somebody's password is does not matter.
    let hash =
        b.id.0.passwords.hash(b.id.0.passwords.place().await.unwrap(), secret(PASSWORD), |_| Ok(())).await.unwrap();
    for n in 0..4 * samples {
        let user = b.id.create_user(&format!("known-{n}"), "").await.unwrap();
        b.store.set_password_hash(user, &hash, b.clock.now()).await.unwrap();
    }
    let (mut round, mut dice) = (0_u8, crate::tests::Dice(131));
    assert_alike(async |times| {
        let mut took = [Vec::new(), Vec::new()];
        for n in 0..times * samples {
            let [high, low] = n.to_be_bytes();
            // Each goes first as often: what the one leaves behind would be counted with the other.
            let first = dice.index(2);
            for turn in [first, 1 - first] {
                let (who, took) = (["known", "never"][turn], &mut took[turn]);
                let session = b.browser();
                let from = IpAddr::from([10 + round, high, low, 1]);
                settle().await;
                let begun = Watch::start();
                let refused = b.id.sign_in(&session, &format!("{who}-{n}"), secret("wrong wrong wrong"), from).await;
                took.push(begun.stop());
                let expected = if who == "known" { Why::WrongPassword } else { Why::UnknownName };
                assert_eq!(noted(refused), expected);
            }
        }
        round += 1;
        took
    })
    .await;
}
