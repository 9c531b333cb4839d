// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    DirectoryGroup,
    testing::{Bench, NOON, on_both, person},
};
use portcullis_domain::GroupId;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_transaction_that_is_dropped_never_happened() {
    on_both(async |b| {
        let store = b.open().await;
        let before = store.epoch().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.bump().await.unwrap();
        drop(tx);
        assert_eq!(store.epoch().await.unwrap(), before);
    })
    .await;
}

#[tokio::test]
async fn a_database_newer_than_the_program_is_refused_and_left_alone() {
    on_both(async |b| {
        let store = b.open().await;
        let insert = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                      values (9000, 'from the future', true, $1, 0)";
        let mut tx = store.begin().await.unwrap();
        execute!(tx, insert, b"x".as_slice()).unwrap();
        tx.commit().await.unwrap();
        store.close().await;
        let known = SQLITE.iter().map(|m| m.version).max().unwrap();
        match Store::open(&b.url).await {
            Err(Error::Newer { found: 9000, known: k }) => assert_eq!(k, known),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_open_at_once_migrate_once() {
    on_both(async |b| {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let url = b.url.clone();
            opening.spawn(async move { Store::open(&url).await });
        }
        while let Some(store) = opening.join_next().await {
            let store = store.unwrap().expect("every node opens");
            let applied = read!(store, (i64,), "select count(*) from _sqlx_migrations").unwrap();
            assert_eq!(applied[0].0, i64::try_from(SQLITE.iter().count()).unwrap());
            store.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn both_databases_have_the_same_migrations() {
    let names = |m: &Migrator| m.iter().map(|m| (m.version, m.description.to_string())).collect::<Vec<_>>();
    assert_eq!(names(&SQLITE), names(&POSTGRES));
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    on_both(async |b: &Bench| {
        let store = b.open().await;
        let id = person(&store, "Ada").await;
        store.close().await;
        let again = b.open().await;
        again.ping().await.unwrap();
        assert_eq!(again.user(id).await.unwrap().unwrap().created_at, NOON);
    })
    .await;
}

#[tokio::test]
async fn sqlite_is_durable_private_and_keeps_references() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
    let Db::Sqlite { read, write } = &store.db else { panic!("SQLite") };
    for pool in [read, write] {
        let (journal,): (String,) = sqlx::query_as("pragma journal_mode").fetch_one(pool).await.unwrap();
        let (full,): (i64,) = sqlx::query_as("pragma synchronous").fetch_one(pool).await.unwrap();
        let (keys,): (i64,) = sqlx::query_as("pragma foreign_keys").fetch_one(pool).await.unwrap();
        assert_eq!((journal.as_str(), full, keys), ("wal", 2, 1));
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn addresses_that_name_no_database_are_refused_without_repeating_them() {
    for bad in ["", "mysql://root:hunter2@x/y", "sqlite://relative.db", "postgres://u:hunter2@h:port/x", "hunter2"] {
        let error = Store::open(bad).await.unwrap_err();
        assert!(matches!(error, Error::Address(_)), "{bad}: {error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_server_is_unavailable() {
    let error = Store::open("postgres://nobody@127.0.0.1:1/x").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn on_sqlite_what_a_transaction_read_cannot_change_before_it_commits() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("test.db").display());
    let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
    let mut first = one.begin().await.unwrap();
    let seen = fetch!(first, (i64,), "select value from epoch").unwrap();
    let mut other = tokio::task::JoinSet::new();
    other.spawn(async move { two.bump_epoch().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.bump().await.expect("nobody wrote in between");
    first.commit().await.unwrap();
    let last = other.join_next().await.unwrap().unwrap().expect("it waited");
    assert_eq!(last, seen[0].0 + 2);
}

// SEC-125: two nodes that look at the same state cannot both change it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_change_rights_at_once_one_changes_nothing() {
    Box::pin(on_both(async |b| {
        let (one, other) = (b.open().await, b.open().await);
        let (ada, bob) = (person(&one, "ada").await, person(&one, "bob").await);
        for _ in 0..10 {
            let (first, second) = (one.turn().await.unwrap(), other.turn().await.unwrap());
            let (x, y) = tokio::join!(
                one.in_turn(first, one.set_disabled(ada, Some(NOON))),
                other.in_turn(second, other.set_disabled(bob, Some(NOON))),
            );
            let lost = if x.is_ok() { &y } else { &x };
            assert!(x.is_ok() != y.is_ok() && matches!(lost, Err(Error::Overtaken)), "{x:?} {y:?}");
            let disabled = one.users().await.unwrap().iter().filter(|u| u.disabled_at.is_some()).count();
            assert_eq!(disabled, 1);
            for user in [ada, bob] {
                one.set_disabled(user, None).await.unwrap();
            }
        }
        // What a directory or a provider changes has its place in that order, though nobody looked before it.
        let group = GroupId::new(uuid::Uuid::from_u128(9));
        let put = DirectoryGroup {
            id: group,
            name: "ops".into(),
            external_id: None,
            created_at: NOON,
            members: [bob].into(),
        };
        other.put_group(&put).await.unwrap();
        for n in 0..4 {
            let turn = one.turn().await.unwrap();
            match n {
                0 => other.put_group(&put).await.unwrap(),
                1 => drop(other.join_group(group, ada, None).await.unwrap()),
                2 => drop(other.leave_group(group, ada).await.unwrap()),
                _ => other.remove_group(group).await.unwrap(),
            }
            let late = one.in_turn(turn, one.set_disabled(ada, None)).await;
            assert!(matches!(late, Err(Error::Overtaken)), "{n}: {late:?}");
        }
        // Within one turn, the first change takes it, and those that follow it go on.
        let turn = one.turn().await.unwrap();
        let both = async {
            one.set_disabled(ada, Some(NOON)).await?;
            one.set_disabled(ada, None).await
        };
        one.in_turn(turn, both).await.unwrap();
    }))
    .await;
}
