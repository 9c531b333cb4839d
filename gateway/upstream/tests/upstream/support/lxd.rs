// SPDX-License-Identifier: Apache-2.0
//! A real LXD of the test's own, with one busybox container `c1`.

use super::{command, end, need, need_root, pki::Pki, run};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const PACKAGES: &str = "lxd lxd-client busybox-static";

pub(crate) struct Lxd {
    child: Child,
    /// Short: unix socket names hold 107 bytes.
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Lxd {
    pub(crate) fn start(pki: &Pki) -> Self {
        for program in ["lxd", "lxc", "busybox"] {
            need(program, PACKAGES);
        }
        need_root("LXD");
        let folder = tempfile::Builder::new().prefix("pclxd").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.path().join("out.log");
        let out = std::fs::File::create(&log).unwrap();
        let child = command("lxd")
            .args(["--group", "root"])
            .env("LXD_DIR", folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let lxd = Self { child, folder, port };
        let began = Instant::now();
        while !lxd.command(&["query", "/1.0"]).output().unwrap().status.success() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_mins(1), "LXD does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        lxd.lxc(&["storage", "create", "default", "dir"]);
        lxd.lxc(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=default"]);
        lxd.lxc(&["config", "set", "core.https_address", &format!("127.0.0.1:{port}")]);
        lxd.lxc(&["config", "set", "images.auto_update_interval", "0"]);
        lxd.lxc(&["config", "trust", "add", pki.client.0.to_str().unwrap(), "--name", "gateway"]);
        let image = image(lxd.folder.path(), 0);
        lxd.lxc(&["image", "import", image.to_str().unwrap(), "--alias", "bb"]);
        lxd.lxc(&["init", "bb", "c1", "-c", "security.privileged=true"]);
        lxd.lxc(&["start", "c1"]);
        lxd
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command("lxc");
        command.args(arguments).env("LXD_DIR", self.folder.path()).env("LXD_CONF", self.folder.path().join("client"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn lxc(&self, arguments: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(arguments)).stdout).unwrap()
    }

    /// The certificate that the server presents, DER.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let pem = self.folder.path().join("server.crt");
        run(command("openssl").args(["x509", "-outform", "DER", "-in"]).arg(pem)).stdout
    }

    /// What the gateway's configuration says about it.
    pub(crate) fn config(&self, pki: &Pki) -> serde_json::Value {
        serde_json::json!({
            "kind": "lxd", "name": "lab", "address": format!("https://127.0.0.1:{}", self.port), "cert_file": pki.client.0,
            "key_file": pki.client.1, "tls": { "pin": [super::pki::pin(&self.certificate())] },
        })
    }

    pub(crate) fn stop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            for name in ["c1", "c2"] {
                let _ = self.command(&["stop", "-f", name]).output();
            }
            let _ = command("lxd").args(["shutdown", "-t", "10"]).env("LXD_DIR", self.folder.path()).output();
        }
        end(&mut self.child);
        for mount in ["devlxd", "shmounts", "guestapi"] {
            let _ = command("umount").arg("-l").arg(self.folder.path().join(mount)).output();
        }
    }
}

impl Drop for Lxd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Packs busybox into an image, with a file of so many MiB that does not compress.
pub(crate) fn image(folder: &Path, ballast: usize) -> PathBuf {
    let script = r"set -e; cd $1; rm -rf img; mkdir -p img/rootfs/bin img/rootfs/sbin img/rootfs/dev img/rootfs/proc img/rootfs/sys img/rootfs/etc img/rootfs/tmp img/rootfs/root
cp $(command -v busybox) img/rootfs/bin/busybox; for a in sh ls cat echo mount sleep hostname ps; do ln -s busybox img/rootfs/bin/$a; done
ln -s ../bin/busybox img/rootfs/sbin/init; echo '::respawn:/bin/sh' > img/rootfs/etc/inittab; echo 'root:x:0:0::/root:/bin/sh' > img/rootfs/etc/passwd
head -c ${2}M /dev/urandom > img/rootfs/root/ballast
printf 'architecture: x86_64\ncreation_date: 1700000000\nproperties: {description: busybox, os: busybox, release: x}\n' > img/metadata.yaml
tar -C img -cf image.tar metadata.yaml rootfs; rm -rf img";
    run(command("sh").args(["-c", script, "sh"]).arg(folder).arg(ballast.to_string()));
    folder.join("image.tar")
}
