// SPDX-License-Identifier: Apache-2.0
//! Real peers, by the scripts beside this file: each is started in a folder of its own and stopped when dropped.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A peer that runs.
pub(crate) struct Peer {
    script: PathBuf,
    stop: Vec<String>,
    dir: TempDir,
    printed: BTreeMap<String, String>,
}

impl Peer {
    /// A QEMU guest with a VNC screen: `none`, `password`, `x509` or `x509-password`.
    pub(crate) fn qemu(name: &str, security: &str) -> Self {
        Self::start("qemu.sh", &[name], &["--security", security])
    }

    /// A real LXD with the running container `c1`.
    pub(crate) fn lxd() -> Self {
        Self::start("lxd.sh", &[], &[])
    }

    /// A real libvirtd.
    pub(crate) fn libvirt() -> Self {
        Self::start("libvirt.sh", &[], &[])
    }

    /// A simulated Proxmox VE with machines of two tenants.
    pub(crate) fn proxmox() -> Self {
        Self::start("proxmox.sh", &[], &[])
    }

    /// A real Keystone and Nova, with a server whose screen is at an address.
    pub(crate) fn cloud(vnc: &str) -> Self {
        Self::start("cloud.sh", &[], &[vnc])
    }

    /// Unchanged clients of OpenStack.
    pub(crate) fn openstack_clients() -> Self {
        Self::start("openstack.sh", &[], &[])
    }

    /// A simulated XCP-ng pool, whose machine `web-1` has the screen that listens there.
    pub(crate) fn xapi(screen: &str) -> Self {
        Self::start("xapi.sh", &[screen], &[])
    }

    /// A simulated oVirt engine, whose machine `web-1` has the screen that listens there, with the password in a file.
    pub(crate) fn ovirt(screen: &str, password_file: &str) -> Self {
        Self::start("ovirt.sh", &[screen, password_file], &[])
    }

    /// A simulated vCenter with machines of two tenants. `more` says where its machines' screens are.
    pub(crate) fn vsphere(more: &[&str]) -> Self {
        Self::start("vsphere.sh", &[], more)
    }

    /// A simulated cluster with KubeVirt and machines of two tenants, whose screens are the one that listens there.
    pub(crate) fn kubevirt(screen: &str) -> Self {
        Self::start("kubevirt.sh", &[screen], &[])
    }

    /// A mail server: `implicit`, `starttls` or `none`; `open` for one without a name and a password.
    pub(crate) fn smtp(mode: &str, more: &[&str]) -> Self {
        Self::start("smtp.sh", &[mode], more)
    }

    /// Runs the client that belongs to it; gives what it says.
    pub(crate) fn client(&self, arguments: &[&str]) -> String {
        let all: Vec<String> = [&[self.get("CLIENT")], arguments].concat().iter().map(ToString::to_string).collect();
        run(Path::new(self.get("PYTHON")), &all)
    }

    /// Runs a tool that it printed, with variables of its own and no others of this kind; gives what it says.
    #[expect(clippy::disallowed_methods, reason = "tests run clients")]
    pub(crate) fn tool(&self, key: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let mut tool = Command::new(self.get(key));
        tool.args(arguments).env_clear().env("HOME", self.dir()).envs(variables.iter().copied());
        let out = tool.output().expect("it runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{key} {arguments:?}: {said}");
        String::from_utf8(out.stdout).expect("text")
    }

    /// A PostgreSQL server.
    pub(crate) fn postgres() -> Self {
        Self::start("postgres.sh", &[], &[])
    }

    /// A certified OpenID provider for one gateway.
    pub(crate) fn oidc(port: u16, gateway: &str, trust: &str, more: &[&str]) -> Self {
        let port = port.to_string();
        Self::start("oidc.sh", &[], &[&["--port", &port, "--gateway", gateway, "--trust", trust], more].concat())
    }

    fn start(script: &str, name: &[&str], options: &[&str]) -> Self {
        // Sockets have at most 107 bytes of path.
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/peers").join(script);
        // PostgreSQL runs as nobody where we are root, and has to reach its folder.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let place = dir.path().display().to_string();
        let mut stop = vec!["stop".to_owned(), place.clone()];
        stop.extend(name.iter().map(ToString::to_string));
        let mut start = vec!["start".to_owned(), place];
        start.extend(name.iter().chain(options).map(ToString::to_string));
        let printed = run(&script, &start);
        Self { script, stop, dir, printed: read(&printed) }
    }

    /// What it printed under a name.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.printed.get(key).unwrap_or_else(|| panic!("the peer printed no {key}: {:?}", self.printed))
    }

    /// What it printed under a name, if it did.
    pub(crate) fn maybe(&self, key: &str) -> Option<&str> {
        self.printed.get(key).map(String::as_str)
    }

    /// What stands on a QEMU guest's screen, from its own text memory.
    pub(crate) fn text(&self) -> String {
        let tool = self.script.with_file_name("qmp.mjs");
        run(Path::new("node"), &[tool.display().to_string(), self.get("WATCH").to_owned(), "text".to_owned()])
    }

    /// Waits until a text stands on a QEMU guest's screen.
    pub(crate) async fn wait_for_text(&self, text: &str) {
        for _ in 0..100 {
            if self.text().contains(text) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{text:?} does not stand on the screen:\n{}", self.text());
    }

    /// Stops it before its time.
    pub(crate) fn halt(&self) {
        run(&self.script, &self.stop);
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs another verb of its script, such as `domain`, and reads what it prints.
    pub(crate) fn ask(&self, verb: &str, arguments: &[&str]) -> BTreeMap<String, String> {
        let mut all = vec![verb.to_owned(), self.dir.path().display().to_string()];
        all.extend(arguments.iter().map(ToString::to_string));
        read(&run(&self.script, &all))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        run(&self.script, &self.stop);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start real peers")]
fn run(script: &Path, arguments: &[String]) -> String {
    let out = Command::new(script).args(arguments).output().expect("the script runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success() || arguments.first().is_some_and(|v| v == "stop" || v == "audit"),
        "{} {arguments:?}: {}{text}",
        script.display(),
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

/// A CA, a server's certificate and a client's in a folder, by the names that the script prints.
pub(crate) fn certificates(dir: &Path) -> BTreeMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/peers/certificates.sh");
    read(&run(&script, &[dir.display().to_string()]))
}

/// Runs the program itself with a command line; it must succeed.
pub(crate) fn program(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    run(Path::new(&program_path()), &arguments)
}

/// Runs the program itself with a command line, however it ends.
#[expect(clippy::disallowed_methods, reason = "tests run the program")]
pub(crate) fn try_program(arguments: &[&str]) -> Output {
    Command::new(program_path()).args(arguments).output().expect("the program runs")
}

/// Runs a journey in a browser; it must succeed. Gives what it says.
pub(crate) fn browser(journey: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/browser").join(journey).display().to_string();
    let arguments: Vec<String> = [&[script.as_str()], arguments].concat().iter().map(ToString::to_string).collect();
    run(Path::new("node"), &arguments)
}

/// Runs a line of Python.
pub(crate) fn python(line: &str) -> String {
    run(Path::new("python3"), &["-c".to_owned(), line.to_owned()])
}

/// Where the program is: beside the test binary's folder, built by the same cargo.
pub(crate) fn program_path() -> String {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(Path::parent).expect("target folder");
    folder.join("portcullis").display().to_string()
}

fn read(printed: &str) -> BTreeMap<String, String> {
    printed.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
