// SPDX-License-Identifier: Apache-2.0
//! A real libvirtd of the test's own, in a mount namespace of its own: it sees an empty `/run/libvirt`,
//! `/var/lib/libvirt` and `/etc/libvirt`, so that it shares nothing with another one on the machine.

use super::{command, end, kill, need, need_root, pki::Pki, run};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const PACKAGES: &str = "libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu qemu-system-x86 seabios";

pub(crate) struct Libvirtd {
    child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Libvirtd {
    pub(crate) fn start(folder: &Path, pki: &Pki) -> Self {
        for program in ["libvirtd", "virsh", "qemu-system-x86_64", "unshare"] {
            need(program, PACKAGES);
        }
        need_root("libvirtd");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let socket = folder.join("libvirt-sock");
        let config = format!(
            "listen_tls = 1\nlisten_tcp = 0\nlisten_addr = \"127.0.0.1\"\ntls_port = \"{port}\"\nunix_sock_dir = \"{}\"\n\
             unix_sock_rw_perms = \"0700\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nauth_tls = \"none\"\n\
             key_file = \"{}\"\ncert_file = \"{}\"\nca_file = \"{}\"\ncrl_file = \"\"\n\
             keepalive_interval = 1\n",
            folder.display(),
            pki.server.1.display(),
            pki.server.0.display(),
            pki.ca.display(),
        );
        std::fs::write(folder.join("libvirtd.conf"), config).unwrap();
        std::fs::write(
            folder.join("qemu.conf"),
            "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\n\
             cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\nvnc_listen = \"127.0.0.1\"\n\
             remote_display_port_min = 22000\nremote_display_port_max = 22999\n",
        )
        .unwrap();
        let script = format!(
            "set -e; mkdir -p /run/libvirt /etc/libvirt; for d in /run/libvirt /var/lib/libvirt /etc/libvirt; do mount -t tmpfs none $d; done; \
             cp {0}/qemu.conf /etc/libvirt/; exec libvirtd --listen -f {0}/libvirtd.conf -p {0}/libvirtd.pid",
            folder.display()
        );
        let log = std::fs::File::create(folder.join("libvirtd.log")).unwrap();
        let child = command("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let libvirtd = Self { child, socket, port, folder: folder.to_owned() };
        let began = Instant::now();
        while !libvirtd.virsh_output(&["version"]).status.success() {
            let log = std::fs::read_to_string(folder.join("libvirtd.log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_mins(1), "libvirtd does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        libvirtd
    }

    fn virsh_output(&self, arguments: &[&str]) -> std::process::Output {
        let uri = format!("qemu+unix:///system?socket={}", self.socket.display());
        command("virsh").args(["-c", &uri]).args(arguments).output().unwrap()
    }

    pub(crate) fn virsh(&self, arguments: &[&str]) -> String {
        let uri = format!("qemu+unix:///system?socket={}", self.socket.display());
        let output = run(command("virsh").args(["-c", &uri]).args(arguments));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Defines a domain with the firmware's screen.
    pub(crate) fn define(&self, name: &str, uuid: &str, graphics: &str, metadata: &str) {
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>{metadata}<memory unit='MiB'>32</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <video><model type='vga'/></video>{graphics}<memballoon model='none'/></devices></domain>"
        );
        let path = self.folder.join(format!("{name}.xml"));
        std::fs::write(&path, xml).unwrap();
        self.virsh(&["define", path.to_str().unwrap()]);
    }

    pub(crate) fn stop(&mut self) {
        // Domains outlive their daemon: their processes are in pid files that only its own namespace shows.
        let run = PathBuf::from(format!("/proc/{}/root/run/libvirt/qemu", self.child.id()));
        for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "pid") && !path.ends_with("driver.pid") {
                kill(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
        end(&mut self.child);
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        self.stop();
    }
}
