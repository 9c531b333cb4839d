// SPDX-License-Identifier: Apache-2.0
use super::*;
use portcullis_domain::{Action, ManualClock, OwnObject, Selector};
use portcullis_policy::Kind;
use portcullis_store::{NewUser, Store};
use std::sync::Arc;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);
const ROLES: &str = "g2, machine/view, watcher\ng2, gateway:users/write, boss\ng2, gateway:policy/write, boss\n";

struct Scene {
    grants: Grants,
    engine: Engine,
    store: Store,
    _dir: tempfile::TempDir,
}

async fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/p.db", dir.path().display())).await.unwrap();
    let grants = Grants::new(store.clone(), Arc::new(ManualClock::new(NOW)));
    Scene { grants, engine: Engine::builtin().await.unwrap(), store, _dir: dir }
}

impl Scene {
    async fn person(&self, name: &str) -> UserId {
        let id = UserId::new(Uuid::now_v7());
        let new = NewUser { id, name: name.into(), name_key: name.into(), display_name: name.into() };
        self.store.create_user(&new, NOW).await.unwrap();
        self.store.set_password_hash(id, "$argon2id$", NOW).await.unwrap();
        id
    }

    async fn apply(&self, files: &Files) -> Result<PolicyVersion, Error> {
        self.grants.apply(&self.engine, By::Shell, files, "test").await
    }

    async fn told(&self, user: UserId) -> Vec<String> {
        let held = self.store.grants_of(user).await.unwrap();
        held.iter().map(|g| format!("{} {} on {}", g.effect.word(), g.role, g.selector)).collect()
    }
}

fn files(rules: &str) -> Files {
    Files(BTreeMap::from([("grants.csv".to_owned(), rules.to_owned())]))
}

#[tokio::test]
async fn a_set_is_taken_over_whole_and_the_next_one_changes_only_what_differs() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada").await, s.person("bob").await);
    let first = "p, person:ada, operator, tag:web, , allow\n\
                 p, group:night, viewer, hypervisor:lab, passkey, allow\ng, person:bob, group:night\n";
    let version = s.apply(&files(first)).await.unwrap();
    assert_eq!((version.number, version.hash.len()), (1, 64));
    assert_eq!(s.told(ada).await, ["allow operator on tag web"]);
    assert_eq!(s.told(bob).await, ["allow viewer on hypervisor lab"]);
    let kept = s.store.grants_of(ada).await.unwrap()[0].id;
    let second = "p, person:ada, operator, tag:web, , allow\np, person:bob, viewer, machine:lab/1, , deny\n";
    let plan = s.grants.plan(&s.engine, &files(second)).await.unwrap();
    assert_eq!((plan.revoke.len(), plan.change.add.len(), plan.change.leave.len()), (1, 1, 1));
    assert_eq!(s.apply(&files(second)).await.unwrap().number, 2);
    assert_eq!(s.store.grants_of(ada).await.unwrap()[0].id, kept, "what stays the same is the same grant");
    assert_eq!(s.told(bob).await, ["deny viewer on machine lab/1"]);
    // Back: what an older version says is a new version.
    let versions = s.store.policy_versions().await.unwrap();
    let old = Files::of(versions.last().unwrap()).unwrap();
    assert_eq!(s.apply(&old).await.unwrap().number, 3);
    assert_eq!(s.told(bob).await, ["allow viewer on hypervisor lab"]);
    assert_eq!(s.apply(&old).await.unwrap().number, 4, "the same again changes nothing but the number");
    assert_eq!(s.told(bob).await.len(), 1);
}

#[tokio::test]
async fn a_bad_set_changes_nothing_and_says_where() {
    let s = scene().await;
    let ada = s.person("ada").await;
    s.apply(&files("p, person:ada, viewer, tag:web, , allow\n")).await.unwrap();
    for (rules, says) in [
        ("p, person:ada, viewer, tag:web, , maybe\n", "grants.csv:1"),
        ("\np, person:ada, viewer, tag:web\n", "grants.csv:2"),
        ("p, person:eve, viewer, tag:web, , allow\n", "grants.csv:1: there is no person called eve"),
        ("p, person:ada, emperor, tag:web, , allow\n", "there is no role emperor"),
        ("g2, machine/fly, viewer\n", "grants.csv:1"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("p, person:ada, viewer, tag:web, , allow\np, person:ada, viewer, tag:web, , allow\n", "repeats"),
        ("p, person:ada, viewer, \"tag:web\nx\", , allow\n", "grants.csv:1"),
    ] {
        let refused = s.apply(&files(rules)).await;
        assert!(matches!(&refused, Err(Error::BadPolicy(why)) if why.contains(says)), "{rules:?}: {refused:?}");
    }
    assert_eq!((s.told(ada).await.len(), s.store.policy_number().await.unwrap()), (1, 1));
    // What was changed in the store is not what was taken over.
    let forged =
        PolicyVersion { files: r#"{"grants.csv":"x"}"#.into(), ..s.store.policy_version().await.unwrap().unwrap() };
    assert!(matches!(Files::of(&forged), Err(Error::BadPolicy(_))));
    let engine = Engine::builtin().await.unwrap();
    assert!(take_rights(&engine, Some(&forged)).await.is_err());
    assert!(engine.has_role(&"operator".parse().unwrap()), "the last good one stays");
}

#[tokio::test]
async fn roles_of_a_set_replace_those_of_the_gateway_and_leave_somebody_to_run_it() {
    let s = scene().await;
    let ada = s.person("ada").await;
    for role in ["security-lead", "administrator"] {
        let given = Given::read(role, "everything", "", "allow").unwrap().grant(GrantId::new(Uuid::now_v7()), NOW);
        s.store.add_grant(ada, &Grant { source: GrantSource::Setup, ..given }, None, NOW).await.unwrap();
    }
    // With other roles, what ada holds gives nothing any more.
    let refused = s.apply(&files(ROLES)).await;
    assert!(matches!(&refused, Err(Error::Kept(why)) if why.contains("last one")), "{refused:?}");
    let whole = format!("{ROLES}p, person:ada, boss, everything, , allow\n");
    let version = s.apply(&files(&whole)).await.unwrap();
    take_rights(&s.engine, Some(&version)).await.unwrap();
    assert!(!s.engine.has_role(&"operator".parse().unwrap()));
    assert!(s.engine.role_allows(&"boss".parse().unwrap(), Kind::Own(OwnObject::Policy), Action::Write));
    let refused = s.apply(&files(&format!("{ROLES}p, person:ada, watcher, everything, , allow\n"))).await;
    assert!(matches!(refused, Err(Error::Kept(_))), "the last one who can give roles");
    // A person who is only forbidden is no administrator.
    let refused = s.apply(&files(&format!("{whole}p, person:ada, boss, everything, , deny\n"))).await;
    assert!(matches!(refused, Err(Error::Kept(_))));
    let held = s.store.grants_of(ada).await.unwrap();
    assert!(held.iter().any(|g| g.selector == Selector::Everything && g.source == GrantSource::PolicyFile));
}
