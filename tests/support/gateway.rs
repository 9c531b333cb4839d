// SPDX-License-Identifier: Apache-2.0
//! A whole gateway in this process: its own folder, key file, CA, SQLite, trail and ports.

use portcullis_domain::{Clock, ManualClock, SystemClock};
use portcullis_server::{Config, Running, Transport};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tempfile::TempDir;

/// A gateway that is stopped by [`TestGateway::stop`] (or left to the end of the process).
pub(crate) struct TestGateway {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) portal: SocketAddr,
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) set_up: Option<String>,
    running: Running,
}

impl TestGateway {
    /// Starts one with these hypervisors (TOML, may be empty).
    pub(crate) async fn start(hypervisors: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), hypervisors).await
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
        let listening = running.listening.clone();
        Self { clock, portal: listening[0], set_up: running.set_up.clone(), listening, running, dir }
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

    /// Stops it and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.running.stop().await;
        self.dir
    }
}

fn config(file: &Path, port: u16, hypervisors: &str) -> Config {
    let text = std::fs::read_to_string(file).expect("the configuration");
    let mut kept: String = text.lines().take_while(|l| *l != "# hypervisors").map(|l| format!("{l}\n")).collect();
    for line in text.lines().filter(|l| l.starts_with("external_url") || l.starts_with("listen")) {
        let new = if line.starts_with("external") {
            format!("external_url = \"https://localhost:{port}\"")
        } else {
            format!("listen = [\"127.0.0.1:{port}\"]")
        };
        kept = kept.replace(line, &new);
    }
    std::fs::write(file, format!("{kept}# hypervisors\n{hypervisors}")).expect("written");
    Config::read(file, std::iter::empty()).expect("a good configuration")
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port()
}
