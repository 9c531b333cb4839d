// SPDX-License-Identifier: Apache-2.0
//! A real QEMU guest: the firmware's screen, no disk, VNC and QMP on unix sockets.

use super::{command, end, need};
use std::{
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct Qemu {
    child: Child,
    pub(crate) qmp: PathBuf,
    pub(crate) vnc: PathBuf,
}

impl Qemu {
    /// Starts a guest in a folder and returns when its sockets are there.
    pub(crate) fn start(folder: &std::path::Path, name: &str) -> Self {
        need("qemu-system-x86_64", "qemu-system-x86 seabios");
        let (qmp, vnc) = (folder.join(format!("{name}.qmp")), folder.join(format!("{name}.vnc")));
        for old in [&qmp, &vnc] {
            let _ = std::fs::remove_file(old);
        }
        // TCG on purpose: a /dev/kvm that opens may still hang.
        let child = command("qemu-system-x86_64")
            .args([
                "-name",
                name,
                "-machine",
                "pc,accel=tcg",
                "-cpu",
                "qemu64",
                "-m",
                "32",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-boot", "menu=on,splash-time=60000", "-vga", "std"])
            .args(["-object", "secret,id=pw0,data=secret12"])
            .arg("-vnc")
            .arg(format!("unix:{},password-secret=pw0", vnc.display()))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", qmp.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !(qmp.exists() && vnc.exists()) {
            assert!(began.elapsed() < Duration::from_secs(20), "QEMU did not open its sockets");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, qmp, vnc }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
