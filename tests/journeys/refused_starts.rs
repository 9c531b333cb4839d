// SPDX-License-Identifier: Apache-2.0
//! A wrong configuration is one clear line that names the key and the file, exit code 2, and nothing half-started.

use crate::support::{TestGateway, gateway::free_port, peers::program_path};
use portcullis_domain::SystemClock;
use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

fn installation() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    portcullis_server::init(dir.path(), "localhost", at, &SystemClock).expect("init");
    dir
}

#[expect(clippy::disallowed_methods, reason = "tests run the program")]
fn serve(dir: &Path) -> Output {
    let config = dir.join("portcullis.toml");
    // A start that should be refused and is not would run for ever.
    Command::new("timeout")
        .arg("20")
        .arg(program_path())
        .args(["serve", "--config"])
        .arg(config)
        .output()
        .expect("the program runs")
}

fn refused(dir: &TempDir, words: &[&str]) {
    let out = serve(dir.path());
    let text = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("portcullis: ")).collect();
    assert_eq!(out.status.code(), Some(2), "{text}{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!(lines.len(), 1, "{text}");
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is not in {:?}", lines[0]);
    }
    assert!(out.stdout.is_empty(), "nothing was promised: {}", String::from_utf8_lossy(&out.stdout));
}

fn edit(dir: &TempDir, from: &str, to: &str) {
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    assert!(text.contains(from), "{from}");
    std::fs::write(&file, text.replace(from, to)).expect("written");
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn an_unknown_key_is_named() {
    let dir = installation();
    edit(&dir, "[trail]\n", "[trail]\ncolour = \"red\"\n");
    refused(&dir, &["portcullis.toml", "colour"]);
}

#[test]
fn a_missing_configuration_says_how_to_make_one() {
    let dir = tempfile::tempdir().expect("a folder");
    refused(&dir, &["portcullis.toml", "portcullis init"]);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_no_key_is_refused() {
    let dir = installation();
    let key = dir.path().join("portcullis.key");
    mode(&key, 0o444);
    refused(&dir, &["keys.file", "portcullis.key"]);
    for text in ["", "v1:AAAA\n", &format!("v1:{}=\n", "A".repeat(43)), "hello\n"] {
        mode(&key, 0o600);
        std::fs::write(&key, text).expect("written");
        mode(&key, 0o400);
        refused(&dir, &["keys.file", "portcullis.key"]);
    }
    std::fs::remove_file(&key).expect("removed");
    refused(&dir, &["keys.file", "portcullis.key", "portcullis init"]);
}

#[test]
fn a_bad_certificate_is_refused() {
    let dir = installation();
    let cert = dir.path().join("tls/cert.pem");
    std::fs::write(&cert, "no certificate").expect("written");
    refused(&dir, &["tls.cert_file", "cert.pem"]);
    std::fs::remove_file(&cert).expect("removed");
    refused(&dir, &["tls.cert_file", "cert.pem"]);
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_refused() {
    let (dir, other) = (installation(), installation());
    let key = dir.path().join("tls/key.pem");
    mode(&key, 0o600);
    std::fs::copy(other.path().join("tls/key.pem"), &key).expect("copied");
    refused(&dir, &["tls.key_file", "key.pem"]);
}

#[test]
fn a_port_in_use_is_named_even_by_another_gateway() {
    let dir = installation();
    let text = std::fs::read_to_string(dir.path().join("portcullis.toml")).expect("read");
    let listen =
        text.lines().find_map(|l| l.strip_prefix("listen = [\"")).and_then(|l| l.strip_suffix("\"]")).expect("listen");
    // With SO_REUSEPORT, as a gateway listens: a second one must not share the port silently.
    let socket = std::net::TcpListener::bind(listen).expect("bound");
    refused(&dir, &["portal.listen", listen]);
    drop(socket);
}

#[test]
fn a_health_address_that_is_taken_is_named() {
    let dir = installation();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = socket.local_addr().expect("an address").to_string();
    edit(&dir, "[trail]\n", &format!("[health]\nlisten = \"{at}\"\n\n[trail]\n"));
    refused(&dir, &["portcullis.toml", "health.listen", &at]);
    assert!(!dir.path().join("trail/server").exists(), "nothing was begun");
    drop(socket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_folder_or_port_is_refused() {
    let gateway = TestGateway::start("").await;
    let out = serve(gateway.dir.path());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_newer_than_the_program_is_refused() {
    let dir = TestGateway::start("").await.stop().await;
    let file = dir.path().join("portcullis.db");
    crate::support::gateway::pretend_newer(&file);
    refused(&dir, &["store.url", "newer"]);
}

#[test]
fn a_hypervisor_that_cannot_be_used_is_named_with_its_key() {
    let dir = installation();
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    let secret = dir.path().join("vnc.password");
    std::fs::write(&secret, "secret").expect("written");
    mode(&secret, 0o644);
    let guest = format!(
        "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"a\"\nvnc = \"127.0.0.1:1\"\npassword_file = {secret:?}\n"
    );
    std::fs::write(&file, format!("{text}\n{guest}")).expect("written");
    refused(&dir, &["hypervisors.lab", "password_file", "vnc.password"]);
    std::fs::write(&file, format!("{text}\n[[hypervisors]]\nname = \"lab\"\nkind = \"vmware\"\n")).expect("written");
    refused(&dir, &["vmware"]);
}
