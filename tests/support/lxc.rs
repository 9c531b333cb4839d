// SPDX-License-Identifier: Apache-2.0
//! LXD's own client at a gateway's door, with a folder, and so a certificate, of its own.

use std::{path::PathBuf, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Somebody's lxc.
pub(crate) struct Lxc {
    dir: TempDir,
}

impl Lxc {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "tests run real clients")]
        let mut command = Command::new("lxc");
        command.env("HOME", self.dir.path()).env("LXD_CONF", self.dir.path().join("conf")).env_remove("LXD_DIR");
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs it; whether it succeeded, and all that it said.
    pub(crate) async fn try_run(&self, arguments: &[&str]) -> (bool, String) {
        let out = tokio::time::timeout(Duration::from_mins(1), self.command(arguments).output()).await;
        let out = out.unwrap_or_else(|_| panic!("lxc {arguments:?} hangs")).expect("lxc runs");
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.success(), text)
    }

    /// Runs it; it must succeed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let (is_well, text) = self.try_run(arguments).await;
        assert!(is_well, "lxc {arguments:?}: {text}");
        text
    }

    /// Runs it; it must not succeed. Gives what it said.
    pub(crate) async fn refused(&self, arguments: &[&str]) -> String {
        let (is_well, text) = self.try_run(arguments).await;
        assert!(!is_well, "lxc {arguments:?} went through: {text}");
        text
    }

    /// Adds a gateway's port as the remote `gw`, with a token for a password.
    pub(crate) async fn add(&self, port: u16, token: &str) -> (bool, String) {
        let address = format!("https://localhost:{port}");
        self.try_run(&["remote", "add", "gw", &address, "--accept-certificate", "--password", token]).await
    }

    /// Begins one that goes on; its output goes to a file.
    pub(crate) fn begin(&self, arguments: &[&str]) -> (Child, PathBuf) {
        let file = self.dir.path().join("out");
        let out = std::fs::File::create(&file).expect("a file");
        let mut command = self.command(arguments);
        command.stdout(out.try_clone().expect("twice")).stderr(out);
        (command.spawn().expect("lxc runs"), file)
    }

    /// Its certificate, or its key: `client.crt`, `client.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("conf").join(name)
    }
}
