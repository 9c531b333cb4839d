// SPDX-License-Identifier: Apache-2.0
//! Real guests: QEMU with its BIOS on the screen, no disk, no kernel.
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]

use crate::rfb::{BoxWire, TlsUpgrade};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream as StdUnixStream,
    path::PathBuf,
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::UnixStream;

/// The password of guests that have one.
pub(crate) const PASSWORD: &str = "secret12";

/// How a guest's screen is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    Open,
    Password,
    X509None,
    X509Vnc,
}

/// A certificate authority and a server certificate for `localhost`.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) server_pem: String,
    pub(crate) server: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = params.signed_by(&key, &ca).expect("a certificate");
        Self { ca_pem: ca.pem(), ca: ca.der().clone(), server_pem: server.pem(), server: server.der().clone(), key }
    }

    /// The upgrade that the owner of client TLS would give.
    pub(crate) fn upgrade(&self) -> TlsUpgrade {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Box::new(move |wire: BoxWire| {
            Box::pin(async move {
                let name = ServerName::try_from("localhost").expect("a name");
                let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, wire).await?;
                Ok(Box::new(stream) as BoxWire)
            })
        })
    }
}

/// A running guest; killed when dropped.
pub(crate) struct Guest {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) authority: Option<Authority>,
}

impl Guest {
    /// Starts one and waits until its screen can be reached.
    pub(crate) fn start(lock: Lock) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut vnc = format!("unix:{}", path("vnc"));
        let mut objects = Vec::new();
        let mut authority = None;
        if matches!(lock, Lock::X509None | Lock::X509Vnc) {
            let made = Authority::new();
            std::fs::write(path("ca-cert.pem"), &made.ca_pem).expect("written");
            std::fs::write(path("server-cert.pem"), &made.server_pem).expect("written");
            std::fs::write(path("server-key.pem"), made.key.serialize_pem()).expect("written");
            objects.push(format!("tls-creds-x509,id=tls0,dir={},endpoint=server,verify-peer=off", path("")));
            vnc.push_str(",tls-creds=tls0");
            authority = Some(made);
        }
        if matches!(lock, Lock::Password | Lock::X509Vnc) {
            objects.push(format!("secret,id=pw0,data={PASSWORD}"));
            vnc.push_str(",password-secret=pw0");
        }
        #[expect(clippy::disallowed_methods, reason = "tests start real peers")]
        let mut command = std::process::Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "pc,accel=tcg", "-cpu", "qemu64", "-m", "32", "-nodefaults", "-no-user-config"])
            .args(["-vga", "std", "-boot", "menu=on,splash-time=60000", "-name", "a \u{1b}[31mguest"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp")), "-vnc", &vnc])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        for object in &objects {
            command.args(["-object", object]);
        }
        let child = command.spawn().expect("QEMU starts: install the package qemu-system-x86 if it is missing");
        let guest = Self { child, folder, authority };
        let patience = Instant::now() + Duration::from_secs(30);
        while StdUnixStream::connect(guest.path("vnc")).is_err() {
            assert!(Instant::now() < patience, "QEMU did not open its screen");
            std::thread::sleep(Duration::from_millis(20));
        }
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A fresh connection to the screen.
    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("vnc")).await.expect("the screen is reachable")
    }

    /// The text on the guest's screen, from its own memory.
    pub(crate) fn text(&self) -> String {
        let stream = StdUnixStream::connect(self.path("qmp")).expect("QMP is reachable");
        let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
        let mut ask = |request: &str| {
            let mut line = String::new();
            if !request.is_empty() {
                (&stream).write_all(request.as_bytes()).expect("QMP listens");
            }
            loop {
                line.clear();
                lines.read_line(&mut line).expect("QMP answers");
                let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                if value.get("event").is_none() {
                    return value;
                }
            }
        };
        ask("");
        ask(r#"{"execute":"qmp_capabilities"}"#);
        let dump = ask(r#"{"execute":"human-monitor-command","arguments":{"command-line":"xp /2000hx 0xb8000"}}"#);
        let dump = dump["return"].as_str().expect("a dump").to_owned();
        let cells = dump.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, cells)| {
            cells
                .split_whitespace()
                .map(|cell| u16::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap_or(0) as u8)
                .collect::<Vec<_>>()
        });
        cells.map(|byte| if (32..127).contains(&byte) { char::from(byte) } else { ' ' }).collect()
    }

    /// Waits until the screen shows a text.
    pub(crate) async fn shows(&self, text: &str, within: Duration) -> bool {
        let patience = Instant::now() + within;
        loop {
            if self.text().contains(text) {
                return true;
            }
            if Instant::now() > patience {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
