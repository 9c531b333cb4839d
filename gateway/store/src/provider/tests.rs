// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    Apart, NewUser, Vouched, Voucher,
    testing::{NOON, on_both, person, session},
};
use portcullis_domain::{Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
use time::Duration;

fn grant(role: &str, on: Selector, source: GrantSource) -> Grant {
    Grant {
        id: GrantId::new(Uuid::now_v7()),
        role: role.parse().unwrap(),
        selector: on,
        from: NOON,
        until: None,
        conditions: Conditions::default(),
        source,
        effect: GrantEffect::Allow,
    }
}

fn given(role: &str) -> Grant {
    grant(role, Selector::Everything, GrantSource::IdentityProvider)
}

fn voucher(subject: &str, names: &[&str], grants: Vec<Grant>) -> Voucher {
    let candidate = |name: &&str| NewUser {
        id: UserId::new(Uuid::now_v7()),
        name: (*name).into(),
        name_key: name.to_lowercase(),
        display_name: (*name).into(),
    };
    Voucher {
        issuer: "https://id.example".into(),
        subject: subject.into(),
        provider: "corp".into(),
        candidates: names.iter().map(candidate).collect(),
        grants,
        apart: None,
    }
}

fn roles(grants: &[Grant]) -> Vec<&str> {
    grants.iter().map(|g| g.role.as_str()).collect()
}

// SEC-092
#[tokio::test]
async fn a_person_is_an_issuer_and_a_subject_and_a_name_is_never_taken_over() {
    on_both(async |bench| {
        let store = bench.open().await;
        let v = voucher("s1", &["ada", "ada-2"], vec![given("viewer")]);
        assert_eq!(store.vouch(&v, NOON).await.unwrap(), Vouched::NotSetUp);
        let local = person(&store, "ada").await;
        let Vouched::Person { user, made: true, .. } = store.vouch(&v, NOON).await.unwrap() else { panic!("made") };
        assert_ne!(user, local);
        assert_eq!(store.user(user).await.unwrap().unwrap().name, "ada-2");
        let other = Voucher { issuer: "https://other.example".into(), ..voucher("s1", &["x"], vec![given("viewer")]) };
        let Vouched::Person { user: second, .. } = store.vouch(&other, NOON).await.unwrap() else { panic!("made") };
        assert_ne!(second, user);
        let Vouched::Person { user: again, made: false, .. } = store.vouch(&v, NOON).await.unwrap() else {
            panic!("known")
        };
        assert_eq!(again, user);
        assert_eq!(store.provider_of(user).await.unwrap().unwrap().subject, "s1");
        assert_eq!(store.provider_of(local).await.unwrap(), None);
        assert_eq!(store.vouch(&voucher("s9", &["eve"], vec![]), NOON).await.unwrap(), Vouched::Nobody);
        assert!(store.user_by_name("eve").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn only_grants_of_the_provider_are_brought_in_line_and_somebody_disabled_keeps_theirs() {
    on_both(async |bench| {
        let store = bench.open().await;
        person(&store, "root").await;
        let first = voucher("s1", &["ada"], vec![given("viewer"), given("operator")]);
        let Vouched::Person { user, given: new, taken, .. } = store.vouch(&first, NOON).await.unwrap() else {
            panic!("made")
        };
        assert_eq!((roles(&new), roles(&taken)), (vec!["viewer", "operator"], vec![]));
        store
            .add_grant(user, &grant("auditor", Selector::Everything, GrantSource::Administrator), None, NOON)
            .await
            .unwrap();
        let before = store.epoch().await.unwrap();
        let Vouched::Person { given: new, taken, .. } = store.vouch(&first, NOON).await.unwrap() else { panic!() };
        assert!(new.is_empty() && taken.is_empty());
        assert_eq!(store.epoch().await.unwrap(), before, "nothing changed");
        let second = voucher("s1", &["ada"], vec![given("viewer"), given("console-user")]);
        let Vouched::Person { given: new, taken, .. } = store.vouch(&second, NOON).await.unwrap() else { panic!() };
        assert_eq!((roles(&new), roles(&taken)), (vec!["console-user"], vec!["operator"]));
        assert!(store.epoch().await.unwrap() > before);
        let mut held = roles(&store.grants_of(user).await.unwrap()).join(" ");
        assert_eq!(held, "viewer auditor console-user");
        store.set_disabled(user, Some(NOON)).await.unwrap();
        assert_eq!(store.vouch(&voucher("s1", &[], vec![]), NOON).await.unwrap(), Vouched::Disabled(user));
        held = roles(&store.grants_of(user).await.unwrap()).join(" ");
        assert_eq!(held, "viewer auditor console-user");
        store.set_disabled(user, None).await.unwrap();
        let Vouched::Person { taken, .. } = store.vouch(&voucher("s1", &[], vec![]), NOON).await.unwrap() else {
            panic!()
        };
        assert_eq!(roles(&taken), ["viewer", "console-user"]);
        assert_eq!(roles(&store.grants_of(user).await.unwrap()), ["auditor"]);
    })
    .await;
}

#[tokio::test]
async fn of_many_first_sign_ins_at_once_one_person_comes() {
    on_both(async |bench| {
        let store = bench.open().await;
        person(&store, "root").await;
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, v) = (bench.open().await, voucher("s1", &["ada", "ada-2"], vec![given("viewer")]));
            tries.spawn(async move {
                loop {
                    match store.vouch(&v, NOON).await {
                        Ok(Vouched::Person { user, .. }) => return user,
                        Err(Error::Conflict(_)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        let people: std::collections::HashSet<UserId> = tries.join_all().await.into_iter().collect();
        assert_eq!(people.len(), 1);
        let user = *people.iter().next().unwrap();
        assert_eq!(store.grants_of(user).await.unwrap().len(), 1);
    })
    .await;
}

fn sign_in(user: UserId, subject: &str, sid: Option<&str>, session: Option<SessionId>) -> ProviderSession {
    ProviderSession {
        id: ProviderSessionId::new(Uuid::now_v7()),
        provider: "corp".into(),
        issuer: "https://id.example".into(),
        subject: subject.into(),
        sid: sid.map(Into::into),
        user,
        session,
        id_token: vec![1],
        refresh_token: Some(vec![2]),
        renewed_at: NOON,
    }
}

#[tokio::test]
async fn a_logout_message_ends_what_it_names_once() {
    on_both(async |bench| {
        let store = bench.open().await;
        let ada = person(&store, "ada").await;
        let (first, second) = (session(&store, ada, 1).await, session(&store, ada, 2).await);
        let (a, b) = (sign_in(ada, "s1", Some("x"), None), sign_in(ada, "s1", Some("y"), Some(second)));
        store.add_provider_session(&a).await.unwrap();
        store.add_provider_session(&b).await.unwrap();
        assert!(store.attach_provider_session(a.id, first).await.unwrap());
        let forget_at = NOON + Duration::HOUR;
        let out = |jti, sid| LoggedOut { issuer: "https://id.example", subject: None, sid, jti, forget_at };
        let none = LoggedOut { issuer: "https://other.example", ..out("j0", Some("x")) };
        assert_eq!(store.log_out(&none, NOON, "away").await.unwrap(), Some(vec![]));
        assert_eq!(store.log_out(&out("j1", Some("x")), NOON, "away").await.unwrap(), Some(vec![first]));
        assert_eq!(store.log_out(&out("j1", Some("y")), NOON, "away").await.unwrap(), None, "used");
        assert_eq!(store.why_ended(first).await.unwrap().as_deref(), Some("away"));
        assert!(store.provider_session(a.id).await.unwrap().is_none());
        assert!(!store.attach_provider_session(a.id, second).await.unwrap());
        let both = LoggedOut { subject: Some("s1"), ..out("j2", None) };
        assert_eq!(store.log_out(&both, NOON, "away").await.unwrap(), Some(vec![second]));
        store.drop_provider_sessions(NOON, forget_at).await.unwrap();
        assert_eq!(store.log_out(&out("j1", Some("y")), NOON, "away").await.unwrap(), Some(vec![]), "forgotten");
    })
    .await;
}

#[tokio::test]
async fn one_node_asks_the_provider_about_a_live_session_when_it_is_due() {
    on_both(async |bench| {
        let store = bench.open().await;
        let ada = person(&store, "ada").await;
        let live = session(&store, ada, 1).await;
        let (a, half) = (sign_in(ada, "s1", None, Some(live)), sign_in(ada, "s2", None, None));
        store.add_provider_session(&a).await.unwrap();
        store.add_provider_session(&half).await.unwrap();
        let (earlier, later) = (NOON - Duration::SECOND, NOON + Duration::MINUTE);
        assert!(store.provider_sessions_due(earlier, later).await.unwrap().is_empty());
        let due = store.provider_sessions_due(NOON, later).await.unwrap();
        assert_eq!(due.iter().map(|d| d.id).collect::<Vec<_>>(), [a.id]);
        assert!(store.claim_renewal(a.id, NOON, later).await.unwrap());
        assert!(!store.claim_renewal(a.id, NOON, later).await.unwrap(), "another node has it");
        store.keep_renewed(a.id, None, Some(&[9])).await.unwrap();
        let kept = store.provider_session(a.id).await.unwrap().unwrap();
        assert_eq!((kept.id_token, kept.refresh_token), (vec![1], Some(vec![9])));
        store.end_provider_session(a.id, later, "no longer vouched for").await.unwrap();
        assert!(store.live_session(live, later).await.unwrap().is_none());
        assert!(store.provider_sessions_due(later, later).await.unwrap().is_empty());
    })
    .await;
}

// SEC-141
#[tokio::test]
async fn tokens_of_somebody_whom_their_provider_refused_wait_until_it_vouches_again() {
    on_both(async |bench| {
        let store = bench.open().await;
        person(&store, "root").await;
        let v = voucher("s1", &["ada"], vec![given("viewer")]);
        let Vouched::Person { user, .. } = store.vouch(&v, NOON).await.unwrap() else { panic!("made") };
        let token = crate::NewToken {
            id: portcullis_domain::TokenId::new(Uuid::now_v7()),
            hash: [7; 32],
            user,
            name: "tool".into(),
            hypervisor: None,
            networks: vec![],
            expires_at: NOON + Duration::DAY,
            made_by: None,
        };
        store.add_token(&token, NOON).await.unwrap();
        let count = async || store.live_tokens(NOON).await.unwrap().len();
        let other = session(&store, user, 1).await;
        let one = sign_in(user, "s1", None, Some(other));
        store.add_provider_session(&one).await.unwrap();
        // Another sign-in of theirs still holds.
        store.refuse_person(&one.issuer, "s1", NOON).await.unwrap();
        assert_eq!(count().await, 1);
        store.end_session(other, NOON, "x").await.unwrap();
        let before = store.epoch().await.unwrap();
        store.refuse_person(&one.issuer, "s1", NOON).await.unwrap();
        assert_eq!(count().await, 0);
        assert!(store.epoch().await.unwrap() > before, "every node hears of it");
        store.vouch(&v, NOON).await.unwrap();
        assert_eq!(count().await, 1);
    })
    .await;
}

// SEC-006
#[tokio::test]
async fn what_is_kept_apart_is_not_given_on_a_providers_word() {
    on_both(async |bench| {
        let store = bench.open().await;
        person(&store, "root").await;
        let one_role = |_: UserId, held: &[Grant], new: &Grant| held.iter().all(|h| h.role == new.role);
        let apart = Some(Apart(std::sync::Arc::new(one_role)));
        let v = Voucher { apart, ..voucher("s1", &["ada"], vec![given("viewer"), given("auditor")]) };
        for _ in 0..2 {
            let Vouched::Person { user, .. } = store.vouch(&v, NOON).await.unwrap() else { panic!("somebody") };
            let roles: Vec<String> = store.grants_of(user).await.unwrap().iter().map(|g| g.role.to_string()).collect();
            assert_eq!(roles, ["viewer"], "the first that was named");
        }
    })
    .await;
}
