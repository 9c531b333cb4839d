// SPDX-License-Identifier: Apache-2.0
//! Real databases for tests: a SQLite file, and PostgreSQL by a server that `PORTCULLIS_TEST_POSTGRES` names
//! (`postgres://user@host/database`, allowed to make databases) or one of our own in a temporary folder.

use crate::{NewSession, NewUser, Rotation, Store};
use portcullis_domain::{Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector, SessionId, UserId};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

/// Noon of some day; tests count from here.
pub(crate) const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// A viewer of everything, from noon on.
pub(crate) fn grant(n: u128) -> Grant {
    Grant {
        id: GrantId::new(Uuid::from_u128(n)),
        role: "viewer".parse().expect("a role"),
        selector: Selector::Everything,
        effect: GrantEffect::Allow,
        from: NOON,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
    }
}

/// An empty database, and how to open it.
pub(crate) struct Bench {
    pub(crate) url: String,
}

impl Bench {
    /// Another handle on the same database, as another node would have.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url).await.expect("the test database opens")
    }
}

/// Runs a test on an empty database of each kind.
pub(crate) async fn on_both(test: impl AsyncFn(&Bench)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    eprintln!("on SQLite");
    test(&Bench { url: format!("sqlite://{}", dir.path().join("test.db").display()) }).await;

    eprintln!("on PostgreSQL");
    if let Ok(server) = std::env::var("PORTCULLIS_TEST_POSTGRES") {
        in_own_database(&server, test).await;
    } else {
        let server = Server::start().await;
        in_own_database(&server.url, test).await;
    }
}

async fn in_own_database(server: &str, test: impl AsyncFn(&Bench)) {
    let name = format!("portcullis_test_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(server).await.expect("the test server answers");
    let make = AssertSqlSafe(format!("create database {name}"));
    sqlx::query(make).execute(&mut admin).await.expect("a database for the test");
    let (head, options) = server.split_once('?').map_or((server, ""), |(h, o)| (h, o));
    let authority = head.find("://").map_or(0, |i| i + 3);
    let end = head[authority..].find('/').map_or(head.len(), |i| authority + i);
    test(&Bench { url: format!("{}/{name}?{options}", &head[..end]) }).await;
    let drop = AssertSqlSafe(format!("drop database {name} with (force)"));
    sqlx::query(drop).execute(&mut admin).await.expect("the database of the test goes");
}

/// A PostgreSQL server that ends with the test, also when the test is killed.
struct Server {
    url: String,
    process: Child,
    _dir: TempDir,
}

impl Server {
    async fn start() -> Self {
        let bin = find_binaries();
        let dir = tempfile::Builder::new().prefix("portcullis-pg-").tempdir_in("/tmp").expect("a temporary folder");
        let root = rustix::process::geteuid().is_root();
        let data = dir.path().join("data");
        if root {
            run(command("chown").arg("nobody").arg(dir.path()));
        }
        run(as_server(root, &bin.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir("/"));
        let process = as_server(root, &bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        let url = format!("postgres://postgres@localhost/postgres?host={}", dir.path().display());
        let begun = Instant::now();
        while PgConnection::connect(&url).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the test's PostgreSQL does not answer at {url}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { url, process, _dir: dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        // SIGINT: end now, cleanly. SIGKILL would leave shared memory behind.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start a real PostgreSQL; the gateway starts nothing")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// PostgreSQL refuses to run as root, and must not outlive a test that is killed.
fn as_server(root: bool, program: &Path) -> Command {
    let mut c = command("setpriv");
    if root {
        c.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    c.args(["--pdeathsig", "INT", "--"]).arg(program);
    c
}

fn run(c: &mut Command) {
    let out = c.output().expect("the program starts");
    assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn find_binaries() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<_> = debian.chain(std::env::split_paths(&path)).filter(|d| d.join("initdb").exists()).collect();
    found.sort();
    found.pop().expect("PostgreSQL: install `postgresql`, or set PORTCULLIS_TEST_POSTGRES=postgres://…")
}

/// A person in the store.
pub(crate) async fn person(store: &Store, name: &str) -> UserId {
    let id = UserId::new(Uuid::now_v7());
    let new = NewUser { id, name: name.into(), name_key: name.to_lowercase(), display_name: name.into() };
    store.create_user(&new, NOON).await.expect("a new person");
    id
}

/// A digest that stands for the secret with this number.
pub(crate) fn digest(n: u8) -> crate::Digest {
    [n; 32]
}

/// A session of a person that counts for an hour from [`NOON`], under `digest(n)`.
pub(crate) async fn session(store: &Store, user: UserId, n: u8) -> SessionId {
    let session = SessionId::new(Uuid::now_v7());
    let expires_at = NOON + time::Duration::HOUR;
    let id_hash = digest(n.wrapping_add(100));
    let new = NewSession { id_hash, session, data: "{}".into(), created_at: NOON, expires_at };
    store.insert_session(&new).await.expect("a new session");
    let step = Rotation {
        from: id_hash,
        to: digest(n),
        session,
        user: Some(user),
        data: "{}".into(),
        created_at: NOON,
        now: NOON,
        expires_at,
        peer: None,
        signed_in_at: Some(NOON),
    };
    assert!(store.rotate_session(&step).await.expect("a step"));
    session
}
