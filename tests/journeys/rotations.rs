// SPDX-License-Identifier: Apache-2.0
//! Rotations of a hypervisor's secret that go wrong: two at once, one that breaks off between any two steps, a store that
//! does not answer at the very commit, gateways that do not take the new one. No secret that is in use is ever taken away,
//! and none that was made is forgotten.

use crate::support::{
    FakePve, Person, TestGateway,
    fake_pve::{Holds, Makes, TOKEN},
    gateway::{free_port, sql},
    peers::{Peer, python, try_program},
};
use portcullis_domain::{Clock as _, NodeId, SystemClock};
use portcullis_store::Store;
use serde_json::Value;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Child,
};

const LIST: &str = "GET /api2/json/cluster/resources";
const FIRST: &str = "gateway@pve!portcullis";
const ROTATE: [&str; 3] = ["secrets", "rotate", "pve"];
const FINISH: [&str; 4] = ["secrets", "rotate", "pve", "--finish"];

/// The tokens that a rotation made, and the first one.
fn tokens(pve: &FakePve) -> Vec<String> {
    pve.tokens().into_iter().filter(|id| id.starts_with(FIRST)).collect()
}

fn list(gateway: &TestGateway) -> Value {
    let (_, out) = gateway.shell(&["secrets", "list", "--json"]);
    serde_json::from_str(out.lines().find(|l| l.contains("\"default\"")).expect("a line")).expect("JSON")
}

/// The list of machines is read once more, whoever the gateway is known as.
async fn reads_again(pve: &FakePve) {
    let before = pve.came(LIST).len();
    // Each 5 s; later after a fault, such as that of a machine with much to do.
    for _ in 0..450 {
        if pve.came(LIST).len() > before + 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the list of machines is read no more");
}

/// As if the claim of a rotation that broke off were over.
fn wait_for_claim(gateway: &TestGateway) {
    sql(&gateway.dir.path().join("portcullis.db"), "update hypervisor_secrets set claim_ends_at = 1");
}

async fn kill(mut child: Child) {
    child.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_rotations_at_once_are_held_apart_and_one_that_broke_off_does_not_block_for_ever() {
    let (database, pve) = (Peer::postgres(), FakePve::start(None).await);
    let gateway = TestGateway::start_on(database.get("URL"), &pve.config("pve", free_port())).await;
    reads_again(&pve).await;
    // Both begin together, on two nodes: one after the other, or one is told to wait; never both.
    let other = gateway.beside(&pve.config("pve", free_port())).await;
    let both = [gateway.begin_shell(&ROTATE), other.begin_shell(&ROTATE)];
    let mut rotated = 0;
    for child in both {
        let done = child.wait_with_output().await.expect("it ends");
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        match done.status.code() {
            Some(0) => rotated += 1,
            Some(2) => assert!(said.contains("changes pve/default since"), "{said}"),
            code => panic!("{code:?}: {said}"),
        }
    }
    assert!(rotated >= 1);
    let left = tokens(&pve);
    assert!(left.len() == 1 && left[0] != FIRST, "one counts, which is the one in use: {left:?}");
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());

    // One is held while it tries its new token: the other one is told who it is and since when, and forgetting as well.
    let next = if rotated == 1 { "canary-made-1-" } else { "canary-made-2-" };
    pve.hold(Holds::Before, "GET /api2/json/access/permissions", next);
    let before = pve.count_held();
    let first = gateway.begin_shell(&ROTATE);
    pve.held(before).await;
    for verb in [&ROTATE[..], &FINISH, &["secrets", "forget", "pve"]] {
        let (code, said) = gateway.shell(verb);
        assert_eq!(code, Some(2), "{verb:?}: {said}");
        for word in ["nothing was changed", "command line, uid", "process", "since 20", "try again after 20"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    assert!(list(&gateway)["open"].as_str().expect("words").contains("changes it since"));
    // It is killed. What it held is free by itself, soon.
    kill(first).await;
    pve.let_go();
    let began = Instant::now();
    let said = loop {
        let (code, said) = gateway.shell(&ROTATE);
        if code == Some(0) {
            break said;
        }
        assert!(said.contains("changes pve/default since") && began.elapsed() < Duration::from_secs(40), "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(said.contains("is in use") && said.contains("counts no more"), "{said}");
    assert_eq!(tokens(&pve).len(), 1, "what the first one made is taken away: {:?}", tokens(&pve));
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());
    assert_eq!(list(&gateway)["open"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_breaks_off_between_any_two_steps_is_ended_by_the_next_one() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start(&pve.config("pve", free_port())).await;
    gateway.move_out().await;
    reads_again(&pve).await;

    // Made at the hypervisor, and not in the store yet: the old one goes on, and the one that was left is named.
    pve.hold(Holds::After, "POST /api2/json/access/users/", "");
    let child = gateway.begin_shell(&ROTATE);
    pve.held(0).await;
    kill(child).await;
    pve.let_go();
    wait_for_claim(&gateway);
    let lost = tokens(&pve).into_iter().find(|id| id != FIRST).expect("it was made");
    assert_eq!(list(&gateway)["in_use"], "source");
    let (code, said) = gateway.shell(&ROTATE);
    assert!(code == Some(0) && said.contains("counts no more") && said.contains(&lost), "{said}");
    assert!(!tokens(&pve).contains(&FIRST.to_owned()));
    pve.remove(&format!("{lost}=x"));
    assert_eq!(tokens(&pve).len(), 1);
    reads_again(&pve).await;

    // In the store as the next one, and not in place yet.
    let was = tokens(&pve);
    let before = pve.count_held();
    pve.hold(Holds::Before, "GET /api2/json/access/permissions", "canary-made-2-");
    let child = gateway.begin_shell(&ROTATE);
    pve.held(before).await;
    kill(child).await;
    pve.let_go();
    wait_for_claim(&gateway);
    assert_eq!(tokens(&pve).len(), 2);
    assert!(list(&gateway)["open"].as_str().expect("words").contains("broke off"), "{}", list(&gateway));
    reads_again(&pve).await;
    let (code, said) = gateway.shell(&FINISH);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((tokens(&pve), list(&gateway)["open"].clone()), (was.clone(), Value::from("")));

    // In place, and no gateway has taken it yet: the one that runs stands still for a while.
    let process = gateway.process().await;
    python(&format!("import os; os.kill({process}, 19)"));
    let child = gateway.begin_shell(&ROTATE);
    let mut is_kept = false;
    for _ in 0..100 {
        is_kept = list(&gateway)["by"].as_str().is_some_and(|by| !by.is_empty()) && tokens(&pve).len() == 2;
        if is_kept && list(&gateway)["open"].as_str().is_some_and(|open| open.contains("changes it since")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_kept);
    // It is in place when the store says so: what it waits for now is the gateway.
    tokio::time::sleep(Duration::from_secs(2)).await;
    kill(child).await;
    python(&format!("import os; os.kill({process}, 18)"));
    wait_for_claim(&gateway);
    assert_eq!(tokens(&pve).len(), 2, "the old one is not taken away before the new one is in use");
    assert!(list(&gateway)["open"].as_str().expect("words").contains("counts at the hypervisor still"));
    let (code, said) = gateway.shell(&FINISH);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    assert!(tokens(&pve).len() == 1 && tokens(&pve) != was, "the old one is away");
    reads_again(&pve).await;

    // About to be taken away, and taken away without anybody hearing of it.
    for when in [Holds::Before, Holds::After] {
        let before = pve.count_held();
        pve.hold(when, "DELETE /api2/json/access/users/", "");
        let child = gateway.begin_shell(&ROTATE);
        pve.held(before).await;
        kill(child).await;
        pve.let_go();
        wait_for_claim(&gateway);
        assert_eq!(tokens(&pve).len(), if when == Holds::Before { 2 } else { 1 });
        let (code, said) = gateway.shell(&FINISH);
        assert!(code == Some(0) && said.contains("counts no more"), "{when:?}: {said}");
        assert_eq!((tokens(&pve).len(), list(&gateway)["open"].clone()), (1, Value::from("")), "{when:?}");
        let (code, said) = gateway.shell(&FINISH);
        assert!(code == Some(0) && said.contains("Nothing was left"), "{said}");
        reads_again(&pve).await;
    }
    // The only wrong thing that was shown is the one that was asked for to see that it is gone.
    assert!(pve.wrongs().len() <= 1, "{:?}", pve.wrongs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_no_gateway_takes_leaves_the_old_secret_until_it_is_ended() {
    let pve = FakePve::start(None).await;
    let config = pve.config("pve", free_port());
    let gateway = TestGateway::start(&config).await;
    let dir = gateway.stop().await;
    let shell = |verb: &[&str]| crate::support::gateway::shell(dir.path(), verb);
    let (code, said) = shell(&ROTATE);
    assert!(code == Some(0) && said.contains("no running gateway") && said.contains("--finish"), "{said}");
    assert!(said.contains(FIRST) && !said.contains("canary"), "the old one is named: {said}");
    assert_eq!(tokens(&pve).len(), 2);
    // Neither is a second one made on top of it, nor the old one forgotten.
    let (code, said) = shell(&ROTATE);
    assert!(code == Some(2) && said.contains("nothing was changed") && said.contains(FIRST), "{said}");
    assert_eq!(tokens(&pve).len(), 2);
    let (_, out) = shell(&["doctor", "--json"]);
    assert!(out.contains("counts at the hypervisor still"), "{out}");
    let gateway = TestGateway::start_in(dir, &config).await;
    reads_again(&pve).await;
    // It cannot be taken away: that is said, and it is not forgotten.
    pve.make(Makes::Stuck);
    let (code, said) = gateway.shell(&FINISH);
    assert!(code == Some(2) && said.contains("take it away there") && said.contains("cfs-lock"), "{said}");
    assert!(list(&gateway)["open"].as_str().expect("words").contains("counts at the hypervisor still"));
    pve.make(Makes::Good);
    let (code, said) = gateway.shell(&FINISH);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    let left = tokens(&pve);
    assert!(left.len() == 1 && left[0] != FIRST, "{left:?}");
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn the_old_secret_is_taken_away_when_every_node_uses_the_new_one_and_one_that_is_gone_is_not_waited_for() {
    let (database, pve) = (Peer::postgres(), FakePve::start(None).await);
    let gateway = TestGateway::start_on(database.get("URL"), &pve.config("pve", free_port())).await;
    let other = gateway.beside(&pve.config("pve", free_port())).await;
    reads_again(&pve).await;
    for _ in 0..3 {
        let (code, said) = gateway.shell(&ROTATE);
        assert!(code == Some(0) && said.contains("counts no more"), "{said}");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    reads_again(&pve).await;
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new(), "no node shows one that was taken away");
    // A node that is killed is waited for a while, and not for ever.
    other.move_out().await;
    other.kill().await;
    let began = Instant::now();
    let (code, said) = gateway.shell(&ROTATE);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    let took = began.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(40)).contains(&took), "{took:?}");

    // A node that says that it runs, and takes nothing over: the old one stays for it, and the node is named.
    let store = Store::open(database.get("URL")).await.expect("the store");
    let node = NodeId::new(uuid::Uuid::from_u128(7));
    store.node_began(node, "other-host:/trail", SystemClock.now()).await.expect("written");
    let beats = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            store.node_runs(node, SystemClock.now()).await.expect("written");
        }
    });
    let was = tokens(&pve);
    let (code, said) = gateway.shell(&ROTATE);
    assert!(code == Some(0) && said.contains("other-host:/trail runs and has not taken it"), "{said}");
    assert!(said.contains("--finish") && !said.contains("counts no more"), "{said}");
    let now = tokens(&pve);
    assert!(now.len() == 2 && now.contains(&was[0]), "{now:?}");
    reads_again(&pve).await;
    beats.abort();
    let (code, said) = gateway.shell(&FINISH);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    assert!(!tokens(&pve).contains(&was[0]));
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());
}

/// What becomes of the commit that puts a new secret in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// The database does it, and nobody hears of it.
    Unheard,
    /// It never gets there.
    Lost,
}

/// A way to PostgreSQL that breaks at one commit.
struct Breaking {
    port: u16,
    commit: Arc<Mutex<Option<Commit>>>,
    is_away: Arc<AtomicBool>,
    /// Whether nothing gets through after that commit.
    then_away: Arc<AtomicBool>,
}

impl Breaking {
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    async fn start(database: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let commit = Arc::<Mutex<Option<Commit>>>::default();
        let (is_away, then_away) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (c, a, t) = (Arc::clone(&commit), Arc::clone(&is_away), Arc::clone(&then_away));
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                if a.load(Ordering::Relaxed) {
                    continue;
                }
                let server = TcpStream::connect(&database).await.expect("the database answers");
                tokio::spawn(carry(client, server, Arc::clone(&c), Arc::clone(&a), Arc::clone(&t)));
            }
        });
        Self { port, commit, is_away, then_away }
    }

    fn break_at(&self, commit: Commit, then_away: bool) {
        *self.commit.lock().expect("whole") = Some(commit);
        self.is_away.store(false, Ordering::Relaxed);
        self.then_away.store(then_away, Ordering::Relaxed);
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    commit: Arc<Mutex<Option<Commit>>>,
    is_away: Arc<AtomicBool>,
    then_away: Arc<AtomicBool>,
) {
    let has = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    let mut is_it = false;
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        if is_away.load(Ordering::Relaxed) {
            return;
        }
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                if is_away.load(Ordering::Relaxed) {
                    return;
                }
                let bytes = &from_client[..read];
                is_it |= has(bytes, "set sealed = $4, next = null");
                if is_it && has(bytes, "commit") {
                    if let Some(commit) = commit.lock().expect("whole").take() {
                        is_away.store(then_away.load(Ordering::Relaxed), Ordering::Relaxed);
                        if commit == Commit::Lost {
                            return;
                        }
                    } else {
                        is_it = false;
                    }
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if is_it && has(bytes, "commit") {
                    // It is done when the database says so.
                    server.readable().await.ok();
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&from_server[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_the_very_commit_of_a_rotation_takes_no_secret_away_that_is_in_use() {
    let (database, pve) = (Peer::postgres(), FakePve::start(None).await);
    let url = database.get("URL").to_owned();
    let address = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    let gateway = TestGateway::start_on(&url, &pve.config("pve", free_port())).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    reads_again(&pve).await;
    let breaking = Breaking::start(address.clone()).await;
    let file = gateway.dir.path().join("portcullis.toml");
    let other = gateway.dir.path().join("breaking.toml");
    std::fs::copy(&file, &other).expect("copied");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&other, text.replace(&address, &format!("127.0.0.1:{}", breaking.port))).expect("written");
    let rotate = |other: &Path| {
        let out = try_program(&[&ROTATE[..], &["--config", &other.display().to_string()]].concat());
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let now = || tokens(&pve);

    // It was done, and nobody heard of it: the new one is in use, and the old one is what is taken away.
    breaking.break_at(Commit::Unheard, false);
    let was = now();
    let (code, said) = rotate(&other);
    assert!(code == Some(0) && said.contains("is in use") && said.contains("counts no more"), "{said}");
    assert!(breaking.commit.lock().expect("whole").is_none(), "it broke there");
    assert!(now().len() == 1 && now() != was, "{:?}", now());
    reads_again(&pve).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());

    // It never got there, which the store proves: the new one is taken away, and the old one goes on.
    breaking.break_at(Commit::Lost, false);
    let was = now();
    let (code, said) = rotate(&other);
    assert!(code == Some(2) && said.contains("the old one stays in use"), "{said}");
    assert!(breaking.commit.lock().expect("whole").is_none(), "it broke there");
    assert_eq!((now(), list(&gateway)["open"].clone()), (was, Value::from("")));
    reads_again(&pve).await;

    // The store is away from there on: nobody knows, so nothing is taken away, and what to look at is said.
    for commit in [Commit::Unheard, Commit::Lost] {
        breaking.break_at(commit, true);
        let was = now();
        let (code, said) = rotate(&other);
        assert_eq!(code, Some(2), "{commit:?}: {said}");
        for word in ["nothing was taken away", "secrets list", "--finish", "the token gateway@pve!portcullis-"] {
            assert!(said.contains(word), "{commit:?}: {word}: {said}");
        }
        assert!(now().len() == 2 && now().contains(&was[0]), "{commit:?}: {:?}", now());
        reads_again(&pve).await;
        // When it answers again, the next one finds out; the claim of the one that could not let it go is over by then.
        let (code, said) = gateway.shell(&FINISH);
        assert_eq!(code, Some(0), "{commit:?}: {said}");
        let is_new = !now().contains(&was[0]);
        assert_eq!((now().len(), is_new), (1, commit == Commit::Unheard), "{commit:?}: {:?}", now());
        reads_again(&pve).await;
        assert_eq!(pve.wrongs(), Vec::<String>::new(), "{commit:?}");
    }
    assert!(!pve.tokens().contains(&TOKEN.split('=').next().expect("an id").to_owned()));
    drop(ada);
}
