// SPDX-License-Identifier: Apache-2.0
//! libvirt's own clients at a gateway's door: virsh and its Python module, with a token for a password.

use super::{TestGateway, gateway::free_port, peers::Peer};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::process::{Child, Command};

/// A hypervisor `kvm` over TLS, with a port of its own for clients.
pub(crate) struct Door {
    pub(crate) port: u16,
    /// `system` or `session`, as the daemon is.
    pub(crate) what: &'static str,
}

impl Door {
    pub(crate) fn new(libvirt: &Peer) -> Self {
        let what = if libvirt.get("URI").contains(":///session") { "session" } else { "system" };
        Self { port: free_port(), what }
    }

    /// Its part of the configuration.
    pub(crate) fn config(&self, libvirt: &Peer) -> String {
        format!(
            "[[hypervisors]]\nname = \"kvm\"\nkind = \"libvirt\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
             uri = \"qemu:///{}\"\n[hypervisors.tls]\nca_file = {:?}\n[hypervisors.console]\nhost = \"127.0.0.1\"\n\
             [hypervisors.rpc]\nport = {}\n",
            libvirt.get("TLS"),
            libvirt.get("CLIENT_CERT"),
            libvirt.get("CLIENT_KEY"),
            self.what,
            libvirt.get("CA_FILE"),
            self.port,
        )
    }

    /// What somebody needs to come in: the gateway's CA, and a file with their name and token.
    pub(crate) fn client(&self, gateway: &TestGateway, name: &str, token: &str) -> Client {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::copy(gateway.dir.path().join("tls/ca.pem"), dir.path().join("cacert.pem")).expect("the CA");
        let file = dir.path().join("auth.conf");
        let text = format!(
            "[credentials-me]\nauthname={name}\nusername={name}\npassword={token}\n\
             [auth-libvirt-localhost]\ncredentials=me\n"
        );
        std::fs::write(&file, text).expect("written");
        let pki = dir.path().display();
        let uri = format!("qemu+tls://localhost:{}/{}?pkipath={pki}&authfile={}", self.port, self.what, file.display());
        Client { uri, dir }
    }
}

/// Somebody's virsh.
pub(crate) struct Client {
    pub(crate) uri: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Client {
    fn command(&self, program: &str) -> Command {
        #[expect(clippy::disallowed_methods, reason = "tests run real clients")]
        let mut command = Command::new(program);
        command.env("HOME", self.dir.path()).env("XDG_CACHE_HOME", self.dir.path()).kill_on_drop(true);
        command.env("EDITOR", "sed -i s/131072/131073/");
        command.stdin(Stdio::null());
        command
    }

    /// Runs virsh; whether it succeeded, and all that it said.
    pub(crate) async fn try_virsh(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", &self.uri]).args(arguments);
        let out = tokio::time::timeout(Duration::from_mins(1), command.output()).await;
        let out = out.unwrap_or_else(|_| panic!("virsh {arguments:?} hangs")).expect("virsh runs");
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.success(), text)
    }

    /// Runs virsh, which must succeed.
    pub(crate) async fn virsh(&self, arguments: &[&str]) -> String {
        let (is_well, text) = self.try_virsh(arguments).await;
        assert!(is_well, "virsh {arguments:?}: {text}");
        text
    }

    /// Runs virsh, which must not succeed; gives what it said.
    pub(crate) async fn refused(&self, arguments: &[&str]) -> String {
        let (is_well, text) = self.try_virsh(arguments).await;
        assert!(!is_well, "virsh {arguments:?} went through: {text}");
        text
    }

    /// Begins a virsh that goes on; its output goes to a file.
    pub(crate) fn begin(&self, arguments: &[&str]) -> (Child, PathBuf) {
        let file = self.dir.path().join("out");
        let out = std::fs::File::create(&file).expect("a file");
        let mut command = self.command("virsh");
        command.args(["-q", "-c", &self.uri]).args(arguments);
        command.stdout(out.try_clone().expect("twice")).stderr(out);
        (command.spawn().expect("virsh runs"), file)
    }

    /// Runs Python with libvirt's module, the address as the first argument; it must succeed.
    pub(crate) async fn python(&self, text: &str) -> String {
        let mut command = self.command("/usr/bin/python3");
        command.args(["-c", text, &self.uri]);
        let out = tokio::time::timeout(Duration::from_mins(1), command.output()).await.expect("in time");
        let out = out.expect("python runs");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }
}
