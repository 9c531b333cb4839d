// SPDX-License-Identifier: Apache-2.0
//! A wrong configuration is one clear line that names the key and the file, exit code 2, and nothing half-started.

use crate::support::{
    TestGateway,
    gateway::free_port,
    peers::{program_path, try_program},
};
use portcullis_domain::{Clock as _, ManualClock, SystemClock};
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

fn serve(dir: &Path) -> Output {
    // A start that should be refused and is not would run for ever.
    serve_for(dir, "20")
}

#[expect(clippy::disallowed_methods, reason = "tests run the program")]
fn serve_for(dir: &Path, seconds: &str) -> Output {
    let config = dir.join("portcullis.toml");
    Command::new("timeout")
        .arg(seconds)
        .arg(program_path())
        .args(["serve", "--config"])
        .arg(config)
        .output()
        .expect("the program runs")
}

pub(crate) fn refused(dir: &TempDir, words: &[&str]) {
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
fn an_identity_provider_that_cannot_be_trusted_is_refused_by_its_key() {
    let dir = installation();
    let secret = dir.path().join("corp.secret");
    std::fs::write(&secret, "a secret").expect("written");
    let table = |more: &str| {
        format!(
            "[[identity.providers]]\nname = \"corp\"\ntitle = \"Corp\"\nissuer = \"https://id.example\"\n\
             client_id = \"p\"\n{more}\n[limits]\n"
        )
    };
    let rule =
        |role: &str, on: &str| format!("[[identity.providers.roles]]\nvalue = \"v\"\nrole = {role:?}\non = {on:?}\n");
    let config = dir.path().join("portcullis.toml");
    let plain = std::fs::read_to_string(&config).expect("read");
    let base: String = plain.lines().filter(|l| !l.starts_with("[limits]")).flat_map(|l| [l, "\n"]).collect();
    let refuse = |table: String, words: &[&str]| {
        std::fs::write(&config, format!("{base}{table}")).expect("written");
        refused(&dir, words);
    };
    mode(&secret, 0o644);
    let keyed = "client_secret_file = \"corp.secret\"";
    refuse(table(keyed), &["identity.providers.corp.client_secret_file", "chmod 600"]);
    mode(&secret, 0o600);
    std::fs::write(&secret, "").expect("written");
    refuse(table(keyed), &["identity.providers.corp.client_secret_file", "empty"]);
    refuse(table("client_secret_file = \"none\""), &["identity.providers.corp.client_secret_file", "none"]);
    refuse(table("ca_file = \"tls/key.pem\""), &["identity.providers.corp", "ca_file"]);
    refuse(table(&rule("king", "everything")), &["identity.providers.corp.roles.role", "king"]);
    refuse(table(&rule("viewer", "everyone")), &["portcullis.toml", "everyone"]);
    refuse(table("colour = 1"), &["portcullis.toml", "colour"]);
    refuse(table("").replace("https://id", "http://id"), &["providers.corp", "issuer", "https"]);
    refuse(table("").replace("\"corp\"", "\"Corp\""), &["providers.name", "a-z"]);
    let twice = format!("{}{}", table("").replace("[limits]", ""), table(""));
    refuse(twice, &["providers.name", "twice"]);
}

#[test]
fn a_door_for_libvirts_clients_has_a_port_of_its_own_and_tls() {
    let dir = installation();
    let config = dir.path().join("portcullis.toml");
    let base = std::fs::read_to_string(&config).expect("read");
    let port: u16 =
        base.split("127.0.0.1:").nth(1).and_then(|t| t.split('"').next()).and_then(|t| t.parse().ok()).expect("a port");
    let with = |kind: &str, rpc: &str| {
        let more = if kind == "libvirt" { "socket = \"/run/none\"" } else { "" };
        let text =
            format!("{base}\n[[hypervisors]]\nname = \"kvm\"\nkind = {kind:?}\n{more}\n[hypervisors.rpc]\n{rpc}\n");
        std::fs::write(&config, text).expect("written");
    };
    with("libvirt", &format!("port = {port}"));
    refused(&dir, &["portal.listen", "hypervisors.kvm.rpc.port", "a port of its own"]);
    with("libvirt", "port = 70000");
    refused(&dir, &["portcullis.toml", "port"]);
    with("libvirt", "port = 16514\ncolour = 1");
    refused(&dir, &["portcullis.toml", "colour"]);
    with("libvirt", "");
    refused(&dir, &["portcullis.toml", "port"]);
    with("qemu", "port = 16514");
    refused(&dir, &["portcullis.toml", "rpc"]);
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
fn a_port_in_use_is_named() {
    let dir = installation();
    let listen = listen(&dir);
    let socket = std::net::TcpListener::bind(&listen).expect("bound");
    refused(&dir, &["portal.listen", &listen]);
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
    let at = gateway.portal.to_string();
    refused(&gateway.dir, &["portal.listen", &at, "in use"]);
    edit(&gateway.dir, &at, &format!("127.0.0.1:{}", free_port()));
    refused(&gateway.dir, &["trail.dir", "trail/server", "another process"]);
    gateway.stop().await;
}

fn listen(dir: &TempDir) -> String {
    let text = std::fs::read_to_string(dir.path().join("portcullis.toml")).expect("read");
    text.lines()
        .find_map(|l| l.strip_prefix("listen = [\""))
        .and_then(|l| l.strip_suffix("\"]"))
        .expect("listen")
        .into()
}

fn add(dir: &TempDir, more: &str) {
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, format!("{text}\n{more}\n")).expect("written");
}

fn lxd(name: &str, api_port: u16) -> String {
    format!(
        "[[hypervisors]]\nname = \"{name}\"\nkind = \"lxd\"\nsocket = \"/nowhere/lxd.socket\"\n\
         [hypervisors.api]\nport = {api_port}\n"
    )
}

#[test]
fn two_doors_on_one_port_are_named_both() {
    let dir = installation();
    let port = free_port();
    add(&dir, &[lxd("a", port), lxd("b", port)].concat());
    refused(&dir, &["portcullis.toml", "hypervisors.a.api.port", "hypervisors.b.api.port", &port.to_string()]);

    let dir = installation();
    let portal = listen(&dir);
    let port: u16 = portal.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    add(&dir, &lxd("a", port));
    refused(&dir, &["portal.listen", "hypervisors.a.api.port", &portal]);

    let dir = installation();
    let portal = listen(&dir);
    edit(&dir, "[trail]\n", &format!("[health]\nlisten = \"0.0.0.0:{port}\"\n\n[trail]\n", port = &portal[10..]));
    refused(&dir, &["portal.listen", "health.listen"]);

    let (dir, port) = (installation(), free_port());
    edit(&dir, "[trail]\n", &format!("[health]\nlisten = \"127.0.0.1:{port}\"\n\n[trail]\n"));
    add(&dir, &lxd("a", port));
    refused(&dir, &["hypervisors.a.api.port", "health.listen"]);

    let dir = installation();
    let portal = listen(&dir);
    edit(&dir, &format!("[\"{portal}\"]"), &format!("[\"{portal}\", \"{portal}\"]"));
    refused(&dir, &["portal.listen", "twice"]);
}

#[tokio::test]
async fn an_api_port_that_a_stranger_holds_is_named() {
    for shared in [false, true] {
        let (dir, port) = (installation(), free_port());
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        // One that would share its port, too: a program of the same user could take connections away.
        socket.set_reuseport(shared).expect("set");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).expect("bound");
        let held = socket.listen(1).expect("listening");
        add(&dir, &lxd("a", port));
        refused(&dir, &["portcullis.toml", "hypervisors.a.api.port", &format!("127.0.0.1:{port}"), "in use"]);
        drop(held);
    }
}

#[test]
fn a_tls_key_that_others_can_read_is_refused() {
    let dir = installation();
    let key = dir.path().join("tls/key.pem");
    for bad in [0o644, 0o640, 0o604] {
        mode(&key, bad);
        refused(&dir, &["tls.key_file", "key.pem", "chmod 0400", &format!("{bad:04o}")]);
    }
    mode(&dir.path().join("tls"), 0o755);
    mode(&key, 0o600);
    edit(&dir, "[recordings]\ndir = \"recordings\"", "[recordings]\ndir = \"portcullis.toml\"");
    refused(&dir, &["recordings.dir"]);
}

#[test]
fn folders_that_cannot_be_written_are_refused() {
    for (key, line) in [("recordings.dir", "dir = \"recordings\""), ("trail.dir", "dir = \"trail\"")] {
        // A file in the way, a place that cannot be made, and one where nobody can write, root included.
        for place in ["portcullis.toml", "portcullis.toml/below", "/proc/nothing", "/proc/self"] {
            let dir = installation();
            edit(&dir, line, &format!("dir = \"{place}\""));
            refused(&dir, &["portcullis.toml", key, place]);
        }
    }
}

/// What a start warns of, when it goes well.
fn warnings(dir: &TempDir) -> Vec<String> {
    let out = serve_for(dir.path(), "3");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(String::from_utf8_lossy(&out.stdout).contains("Portcullis answers"), "{text}");
    text.lines().filter(|l| l.contains(" WARN ")).map(str::to_owned).collect()
}

fn certificate(dir: &TempDir, clock: &ManualClock, name: &str) {
    let made = tempfile::tempdir().expect("a folder");
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    portcullis_server::init(made.path(), name, at, clock).expect("init");
    for file in ["cert.pem", "key.pem"] {
        let to = dir.path().join("tls").join(file);
        std::fs::remove_file(&to).expect("removed");
        std::fs::copy(made.path().join("tls").join(file), &to).expect("copied");
    }
}

#[test]
fn a_certificate_that_browsers_refuse_is_one_warning() {
    let dir = installation();
    assert_eq!(warnings(&dir), Vec::<String>::new());
    let now = SystemClock.now();
    for (made, name, words) in [
        (now - time::Duration::days(900), "localhost", "it has expired"),
        (now - time::Duration::days(820), "localhost", "it ends within 14 days"),
        (now + time::Duration::days(9), "localhost", "it is not valid yet"),
        (now, "elsewhere.example", "it is not for localhost"),
    ] {
        certificate(&dir, &ManualClock::new(made), name);
        let found = warnings(&dir);
        assert_eq!(found.len(), 1, "{words}: {found:?}");
        assert!(found[0].contains("tls.cert_file") && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_verb_of_the_command_line_names_the_key_file_and_the_configuration() {
    let dir = installation();
    mode(&dir.path().join("portcullis.key"), 0o444);
    let config = dir.path().join("portcullis.toml").display().to_string();
    for verb in [["user", "list"], ["audit", "verify"], ["recording", "list"]] {
        let out = try_program(&[verb[0], verb[1], "--config", &config]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{verb:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        for word in ["portcullis: ", &config, "keys.file", "portcullis.key", "chmod"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
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

#[test]
fn a_mail_server_that_cannot_be_used_as_it_is_said_is_refused_by_its_key() {
    let dir = installation();
    let (open, secret) = (dir.path().join("open.secret"), dir.path().join("mail.secret"));
    for (file, bits) in [(&open, 0o644), (&secret, 0o600)] {
        std::fs::write(file, "hunter2").expect("written");
        mode(file, bits);
    }
    let whole = std::fs::read_to_string(dir.path().join("portcullis.toml")).expect("read");
    let from = "from = \"portcullis@example.org\"";
    for (lines, words) in [
        (format!("host = \"mail.example.org\"\ntls = \"none\"\n{from}"), ["mail.tls", "this machine only"]),
        (format!("host = \"mail.example.org\"\ntls = \"tls\"\n{from}"), ["unknown variant", "implicit"]),
        ("host = \"mail.example.org\"\nfrom = \"Portcullis <x@example.org>\"".to_owned(), ["from", "Write an address"]),
        ("host = \"mail.example.org\"".to_owned(), ["missing field", "from"]),
        (format!("host = \"mail example.org\"\n{from}"), ["mail.host", "no valid host"]),
        (format!("host = \"mail.example.org\"\nuser = \"x\"\n{from}"), ["mail.user", "password_file"]),
        (
            format!("host = \"mail.example.org\"\npassword_file = \"mail.secret\"\n{from}"),
            ["mail.password_file", "user"],
        ),
        (
            format!("host = \"mail.example.org\"\nuser = \"x\"\npassword_file = \"open.secret\"\n{from}"),
            ["mail.password_file", "open.secret"],
        ),
        (format!("host = \"mail.example.org\"\nca_file = \"none.pem\"\n{from}"), ["mail.ca_file", "none.pem"]),
        (format!("host = \"mail.example.org\"\ncolour = \"red\"\n{from}"), ["colour", "unknown field"]),
    ] {
        std::fs::write(dir.path().join("portcullis.toml"), format!("{whole}\n[mail]\n{lines}\n")).expect("written");
        refused(&dir, &words);
    }
}
