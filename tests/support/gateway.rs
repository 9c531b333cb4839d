// SPDX-License-Identifier: Apache-2.0
//! A whole gateway in this process: its own folder, key file, CA, SQLite, trail and ports. It can move out into the real
//! program, for what only a process of its own can show.

use portcullis_domain::{Clock, ManualClock, SystemClock};
use portcullis_server::{Config, Running, Transport};
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

/// A gateway that is stopped by [`TestGateway::stop`] (or left to the end of the process).
pub(crate) struct TestGateway {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) portal: SocketAddr,
    pub(crate) set_up: Option<String>,
    engine: Mutex<Engine>,
}

/// What answers at the gateway's address.
enum Engine {
    Inside(Box<Running>),
    Program(Child),
    Nothing,
}

impl TestGateway {
    /// Starts one with these hypervisors (TOML, may be empty).
    pub(crate) async fn start(hypervisors: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), hypervisors).await
    }

    /// Starts one whose state is in the database at an address.
    pub(crate) async fn start_on(store: &str, hypervisors: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        portcullis_server::init(dir.path(), "localhost", at, &SystemClock).expect("init");
        let file = dir.path().join("portcullis.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        let was = text.lines().find(|l| l.starts_with("url = \"sqlite:")).expect("a store").to_owned();
        std::fs::write(&file, text.replace(&was, &format!("url = {store:?}"))).expect("written");
        Self::start_in(dir, hypervisors).await
    }

    /// Starts one in a folder; a second start in the same folder finds what the first left.
    pub(crate) async fn start_in(dir: TempDir, hypervisors: &str) -> Self {
        let port = free_port();
        let file = dir.path().join("portcullis.toml");
        if !file.exists() {
            portcullis_server::init(dir.path(), "localhost", SocketAddr::from(([127, 0, 0, 1], port)), &SystemClock)
                .expect("init");
        }
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let config = config(&file, port, hypervisors);
        let running = Running::start(config, clock.clone(), Transport::Tls).await.expect("the gateway starts");
        let (portal, set_up) = (running.listening[0], running.set_up.clone());
        let engine = Mutex::new(Engine::Inside(Box::new(running)));
        Self { dir, clock, portal, set_up, engine }
    }

    /// Stops it here and starts the program on the same folder and ports: sessions, tokens and addresses stay. Time is
    /// then the machine's own.
    pub(crate) async fn move_out(&self) {
        let mut engine = self.engine.lock().await;
        if let Engine::Inside(running) = std::mem::replace(&mut *engine, Engine::Nothing) {
            running.stop().await;
        }
        self.clock.advance(SystemClock.now() - self.clock.now());
        drop(engine);
        self.start_program(Duration::from_secs(20)).await.expect("the program starts");
    }

    /// Stops it here and starts it again on the same folder, ports and clock.
    pub(crate) async fn restart(&self) {
        let mut engine = self.engine.lock().await;
        if let Engine::Inside(running) = std::mem::replace(&mut *engine, Engine::Nothing) {
            running.stop().await;
        }
        let config = Config::read(&self.dir.path().join("portcullis.toml"), std::iter::empty()).expect("as before");
        let running = Running::start(config, self.clock.clone(), Transport::Tls).await.expect("the gateway starts");
        *engine = Engine::Inside(Box::new(running));
    }

    /// Starts the program. Gives how long that took; none when it was killed because it took longer than it may.
    #[expect(clippy::disallowed_methods, reason = "tests run the program")]
    pub(crate) async fn start_program(&self, may_take: Duration) -> Option<Duration> {
        let began = Instant::now();
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("serve.log"));
        let mut child = Command::new(super::peers::program_path())
            .args(["serve", "--config"])
            .arg(self.dir.path().join("portcullis.toml"))
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let Ok(line) = tokio::time::timeout(may_take, lines.next_line()).await else {
            child.kill().await.expect("killed");
            return None;
        };
        let log = || std::fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default();
        let line = line.expect("readable").unwrap_or_else(|| panic!("the program does not start:\n{}", log()));
        assert!(line.starts_with("Portcullis answers"), "{line}");
        *self.engine.lock().await = Engine::Program(child);
        Some(began.elapsed())
    }

    /// Kills the program: SIGKILL, and it is gone when this returns.
    pub(crate) async fn kill(&self) {
        let mut engine = self.engine.lock().await;
        if let Engine::Program(mut child) = std::mem::replace(&mut *engine, Engine::Nothing) {
            child.kill().await.expect("killed");
        }
    }

    /// The process of the program.
    pub(crate) async fn process(&self) -> u32 {
        match &*self.engine.lock().await {
            Engine::Program(child) => child.id().expect("it runs"),
            Engine::Inside(_) | Engine::Nothing => panic!("there is no program"),
        }
    }

    /// `https://localhost:PORT`
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.portal.port())
    }

    /// The CA that browsers of this gateway trust.
    pub(crate) fn ca(&self) -> reqwest::Certificate {
        let pem = std::fs::read(self.dir.path().join("tls/ca.pem")).expect("ca.pem");
        reqwest::Certificate::from_pem(&pem).expect("a certificate")
    }

    /// TLS for streams that reqwest cannot open.
    pub(crate) fn tls(&self) -> rustls::ClientConfig {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.path().join("tls/ca.pem")).expect("ca.pem")).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.expect("versions").with_root_certificates(roots).with_no_client_auth()
    }

    /// How many recordings were begun.
    pub(crate) fn count_recordings(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("recordings")).map_or(0, Iterator::count)
    }

    /// Every recording as the store knows it.
    pub(crate) async fn recording_ends(&self) -> Vec<portcullis_store::Recording> {
        let store = self.store().await;
        let all = store.recordings(&portcullis_store::RecordingFilter::default(), 1000).await.expect("read");
        store.close().await;
        all
    }

    /// Waits until so many recordings have no ending (10 s at most).
    pub(crate) async fn settled_recordings(&self, open: usize) {
        let mut now = 0;
        for _ in 0..50 {
            now = self.recording_ends().await.iter().filter(|r| r.ended_at.is_none()).count();
            if now == open {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        panic!("{now} recordings have no ending, and not {open}");
    }

    async fn store(&self) -> portcullis_store::Store {
        let file = self.dir.path().join("portcullis.toml");
        let config = Config::read(&file, std::iter::empty()).expect("a good configuration");
        portcullis_store::Store::open(&config.store.url).await.expect("the store")
    }

    /// Somebody's id.
    pub(crate) async fn user_id(&self, name: &str) -> String {
        let store = self.store().await;
        let user = store.user_by_name(name).await.expect("read").expect("the person").id;
        store.close().await;
        user.to_string()
    }

    /// The ids of somebody's grants.
    pub(crate) async fn grants_of(&self, name: &str) -> Vec<String> {
        let store = self.store().await;
        let user = store.user_by_name(name).await.expect("read").expect("the person").id;
        let grants = store.grants_of(user).await.expect("read");
        store.close().await;
        grants.into_iter().map(|g| g.id.to_string()).collect()
    }

    /// Makes every grant of somebody ask for a confirmation of each intent, as another node would.
    pub(crate) async fn ask_each(&self, name: &str) {
        let store = self.store().await;
        let user = store.user_by_name(name).await.expect("read").expect("the person").id;
        let now = self.clock.now();
        for mut grant in store.grants_of(user).await.expect("read") {
            store.revoke_grant(grant.id, None, now).await.expect("revoked");
            grant.id = portcullis_domain::GrantId::new(uuid::Uuid::new_v4());
            grant.conditions.step_up_each = true;
            store.add_grant(user, &grant, None, now).await.expect("granted");
        }
        store.close().await;
    }

    /// Gives somebody a grant behind the gateway's back, as another node would.
    pub(crate) async fn add_grant(&self, name: &str, grant: &portcullis_domain::Grant) {
        let store = self.store().await;
        let user = store.user_by_name(name).await.expect("read").expect("the person").id;
        store.add_grant(user, grant, None, self.clock.now()).await.expect("written");
        store.close().await;
    }

    /// How many of somebody's tokens count.
    pub(crate) async fn count_tokens(&self, name: &str) -> usize {
        let store = self.store().await;
        let user = store.user_by_name(name).await.expect("read").expect("the person").id;
        let live = store.live_tokens(self.clock.now()).await.expect("read");
        store.close().await;
        live.into_iter().filter(|t| t.token.user == user).count()
    }

    /// The event that `portcullis audit search` finds, as soon as it is there and in the index (10 s at most).
    pub(crate) async fn find_event(
        &self,
        arguments: &[&str],
        test: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        for _ in 0..50 {
            if let Some(event) = self.search(arguments).into_iter().find(&test) {
                return event;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        panic!("no such event: {:#?}", self.search(arguments));
    }

    /// The program's command line on this installation, however it ends: exit code, and what it printed.
    pub(crate) fn shell(&self, verb: &[&str]) -> (Option<i32>, String) {
        shell(self.dir.path(), verb)
    }

    /// The command line begins, and goes on beside the test.
    #[expect(clippy::disallowed_methods, reason = "tests run the program")]
    pub(crate) fn begin_shell(&self, verb: &[&str]) -> Child {
        let config = self.dir.path().join("portcullis.toml").display().to_string();
        let mut command = Command::new(super::peers::program_path());
        command.args(verb).args(["--config", &config]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().expect("the program runs")
    }

    /// The same, with what it prints going elsewhere: exit code, and what it complains of.
    #[expect(clippy::disallowed_methods, reason = "tests run the program")]
    pub(crate) async fn shell_into(&self, verb: &[&str], out: impl Into<Stdio>) -> (Option<i32>, String) {
        let config = self.dir.path().join("portcullis.toml").display().to_string();
        let mut command = Command::new(super::peers::program_path());
        command.args(verb).args(["--config", &config]).stdout(out).stderr(Stdio::piped()).kill_on_drop(true);
        let done = command.spawn().expect("the program runs").wait_with_output().await.expect("it ends");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// Another node of the same installation: with the same keys, on the same store.
    pub(crate) async fn beside(&self, hypervisors: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        portcullis_server::init(dir.path(), "localhost", at, &SystemClock).expect("init");
        std::fs::copy(self.dir.path().join("portcullis.key"), dir.path().join("portcullis.key")).expect("the keys");
        let config = Config::read(&self.dir.path().join("portcullis.toml"), std::iter::empty()).expect("read");
        let file = dir.path().join("portcullis.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        let was = text.lines().find(|l| l.starts_with("url = \"sqlite:")).expect("a store").to_owned();
        std::fs::write(&file, text.replace(&was, &format!("url = {:?}", config.store.url))).expect("written");
        Self::start_in(dir, hypervisors).await
    }

    /// What `portcullis audit search` finds now.
    pub(crate) fn search(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let config = self.dir.path().join("portcullis.toml").display().to_string();
        let mut all = vec!["audit", "search", "--json", "--config", &config];
        all.extend_from_slice(arguments);
        let out = super::peers::program(&all);
        out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    }

    /// Stops it and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        match self.engine.into_inner() {
            Engine::Inside(running) => running.stop().await,
            Engine::Program(mut child) => child.kill().await.expect("killed"),
            Engine::Nothing => {}
        }
        self.dir
    }
}

fn config(file: &Path, port: u16, hypervisors: &str) -> Config {
    let text = std::fs::read_to_string(file).expect("the configuration");
    let mut kept: String = text.lines().take_while(|l| *l != "# hypervisors").flat_map(|l| [l, "\n"]).collect();
    for line in text.lines().filter(|l| l.starts_with("external_url") || l.starts_with("listen")) {
        let new = if line.starts_with("external") {
            format!("external_url = \"https://localhost:{port}\"")
        } else {
            format!("listen = [\"127.0.0.1:{port}\"]")
        };
        kept = kept.replace(line, &new);
    }
    // Everybody in a test comes from one network, and tries more passwords than people do.
    let limits = if hypervisors.contains("[limits]") { "" } else { "[limits]\nsign_in_per_minute = 600\n" };
    std::fs::write(file, format!("{kept}# hypervisors\n{limits}\n{hypervisors}")).expect("written");
    Config::read(file, std::iter::empty()).expect("a good configuration")
}

/// The program's command line on an installation in a folder.
pub(crate) fn shell(dir: &Path, verb: &[&str]) -> (Option<i32>, String) {
    let config = dir.join("portcullis.toml").display().to_string();
    let out = super::peers::try_program(&[verb, &["--config", &config]].concat());
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Writes into a SQLite database past the gateway.
pub(crate) fn sql(file: &Path, statement: &str) {
    let out = super::peers::python(&format!(
        "import sqlite3; d = sqlite3.connect({:?}, timeout=10); d.execute({statement:?}); d.commit()",
        file.display().to_string()
    ));
    assert!(out.is_empty(), "{out}");
}

/// Makes a database look as if a later program had migrated it.
pub(crate) fn pretend_newer(file: &Path) {
    let out = super::peers::python(&format!(
        "import sqlite3; d = sqlite3.connect({:?}); \
         d.execute(\"insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'later', 1, x'00', 0)\"); d.commit()",
        file.display().to_string()
    ));
    assert!(out.is_empty(), "{out}");
}

/// Ports that this process holds: whoever locks the file of a port may use it, until the process ends.
static HELD: std::sync::Mutex<Vec<std::fs::File>> = std::sync::Mutex::new(Vec::new());
/// Where they are taken from. The kernel gives these to no connection that goes out (`ip_local_port_range`), and
/// `free_port` of `peers/process.sh` gives others.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// A port that is free and stays so until the process ends: between asking for one and listening there nobody gets it.
pub(crate) fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("portcullis-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut held = HELD.lock().expect("no test panics here");
    // Each process begins at another place.
    let first = std::process::id().wrapping_mul(101) as usize % PORTS.len();
    for port in PORTS.skip(first).chain(PORTS.take(first)) {
        let open = std::fs::File::options().create(true).append(true).open(folder.join(port.to_string()));
        let file = open.expect("a file");
        if file.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(file);
            return port;
        }
    }
    panic!("all ports are held");
}

/// Every file below a folder.
pub(crate) fn files(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry")) {
        if entry.path().is_dir() {
            files(&entry.path(), into);
        } else {
            let mut bytes = std::fs::read(entry.path()).expect("read");
            // Segments of the trail are filled with zeros in advance.
            bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
            into.push((entry.path().display().to_string(), bytes));
        }
    }
}

/// Bytes as text, one letter each: the standard library finds a text in megabytes of it at once.
pub(crate) fn letters(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests run scripts")]
fn no_port_is_given_twice_nor_to_a_connection_that_goes_out() {
    let own: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(own.len(), 50);
    for port in &own {
        // As another process would ask for it.
        let folder = std::env::temp_dir().join("portcullis-test-ports");
        let file = std::fs::File::options().append(true).open(folder.join(port.to_string())).expect("a file");
        assert!(file.try_lock().is_err(), "{port} is not held");
    }
    let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("a range");
    let first: u16 = outgoing.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a port");
    assert!(first >= 29_200, "the kernel takes ports from {first} on for connections that go out");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/peers/process.sh");
    // All begin at the same place.
    let line = format!(". {}; for n in {{1..30}}; do (RANDOM=7; free_port) & done; wait", script.display());
    let out = std::process::Command::new("bash").args(["-c", &line]).output().expect("it runs");
    let said = String::from_utf8(out.stdout).expect("text");
    let others: std::collections::BTreeSet<&str> = said.lines().collect();
    assert_eq!((others.len(), said.lines().count()), (30, 30), "{said}");
}
