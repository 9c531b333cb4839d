// SPDX-License-Identifier: Apache-2.0
//! `portcullis doctor` on a whole installation: what is well, what is wrong and what to do, and a hypervisor that lies.

use crate::support::{
    FakePve, TestGateway,
    fake::{Answer, listen_tls, secret_file},
    fake_pve::{CANARIES, CONSOLE_TOKEN, TOKEN},
    gateway::free_port,
    peers,
};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

/// What the doctor found, and how it ended.
fn examined(gateway: &TestGateway) -> (Option<i32>, Vec<Value>) {
    let (code, out) = gateway.shell(&["doctor", "--json"]);
    assert!(CANARIES.iter().all(|c| !out.contains(c)), "a secret came out: {out}");
    (code, out.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).expect("JSON")).collect())
}

/// How one thing is, and what is said of it.
fn of<'f>(all: &'f [Value], what: &str) -> (&'f str, String) {
    let found: Vec<&Value> = all.iter().filter(|f| f["what"] == what).collect();
    let worst = ["wrong", "doubtful", "well"].into_iter().find(|is| found.iter().any(|f| f["is"] == *is));
    (worst.unwrap_or_else(|| panic!("nothing about {what}: {all:#?}")), found.iter().map(ToString::to_string).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_well_is_said_and_what_a_credential_need_not_do() {
    let pve = FakePve::start(None).await;
    let dir = tempfile::tempdir().expect("a folder");
    let console = dir.path().join("console");
    secret_file(&console, CONSOLE_TOKEN);
    let credential = format!(
        "token_file = {:?}\n[[hypervisors.credentials]]\nfor = [\"power\"]\ntoken_file = {console:?}",
        pve.token_file()
    );
    let gateway = TestGateway::start(&pve.config_with("pve", free_port(), &credential)).await;
    let (code, all) = examined(&gateway);
    assert_eq!(code, Some(0), "{all:#?}");
    for what in ["configuration", "key file", "TLS key", "trail", "keys and store", "clock", "pve: certificate"] {
        assert_eq!(of(&all, what).0, "well", "{what}: {all:#?}");
    }
    assert_ne!(of(&all, "pve: machines").0, "wrong", "a row of another shape hides no machine");
    let (_, met) = of(&all, "pve: certificate");
    assert!(met.contains("SHA-256") && met.contains("by CN="), "{met}");
    let (is, said) = of(&all, "pve: credential default");
    assert!(is == "doubtful" && said.contains("Permissions.Modify") && said.contains("Sys.Console"), "{said}");
    assert!(!said.contains("VM.Console"), "that is what it is for: {said}");
    let (is, said) = of(&all, "pve: credential power");
    assert!(is == "doubtful" && said.contains("VM.Console"), "a token for consoles is none for power: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_with_what_to_do() {
    let (pve, other) = (FakePve::start(None).await, FakePve::start(None).await);
    let good = other.config("other", free_port());
    let gateway = TestGateway::start(&format!("{}{good}", pve.config("pve", free_port()))).await;
    let dir = gateway.dir.path().to_owned();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    pve.remove(TOKEN);
    mode("recordings", 0o755);
    let (code, all) = examined(&gateway);
    assert_eq!(code, Some(1), "{all:#?}");
    let (is, said) = of(&all, "recordings");
    assert!(is == "wrong" && said.contains("0755") && said.contains("chmod 0700"), "{said}");
    let (is, said) = of(&all, "pve: credential default");
    assert!(is == "wrong" && said.contains("invalid token") && said.contains("secrets rotate"), "{said}");
    assert_eq!(of(&all, "pve: machines").0, "wrong");
    assert_ne!(of(&all, "other: machines").0, "wrong");
    assert_eq!(of(&all, "other: certificate").0, "well");
    mode("recordings", 0o700);
    // Without its key nothing else can be looked at.
    mode("portcullis.key", 0o644);
    let (code, all) = examined(&gateway);
    assert_eq!((code, of(&all, "key file").0, of(&all, "keys and store").0), (Some(1), "wrong", "wrong"));
    mode("portcullis.key", 0o400);
    // A configuration that cannot be read is said with its line.
    let file = dir.join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{text}\ncolour = 1\n")).expect("written");
    let (code, all) = examined(&gateway);
    let (is, said) = of(&all, "configuration");
    assert!(code == Some(1) && is == "wrong" && said.contains("colour"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_of_the_policy_is_looked_at_as_a_start_looks_at_it_and_nothing_is_written_there() {
    let gateway = TestGateway::start("[policy]\nsource = \"files\"\ndirectory = \"policy\"\n").await;
    let folder = gateway.dir.path().join("policy");
    let mode = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).expect("chmod");
    let policy = || {
        let (_, all) = examined(&gateway);
        let (is, said) = of(&all, "policy");
        (is.to_owned(), said)
    };
    let (is, said) = policy();
    assert!(is == "wrong" && said.contains("No such file"), "{said}");
    std::fs::create_dir(&folder).expect("made");
    let file = folder.join("ours.csv");
    std::fs::write(&file, "p, person:ada, administrator, everything, , allow\n").expect("written");
    mode(0o755);
    assert_eq!(policy().0, "well", "{}", policy().1);
    // One that not even the gateway may write is as good.
    mode(0o555);
    assert_eq!(policy().0, "well", "{}", policy().1);
    mode(0o777);
    let (is, said) = policy();
    assert!(is == "wrong" && said.contains("written by everybody") && said.contains("chmod o-w"), "{said}");
    mode(0o755);
    std::fs::write(&file, "what is this\n").expect("written");
    assert_eq!(policy().0, "wrong");
    std::fs::write(&file, "p, person:ada, administrator, everything, , allow\n").expect("written");
    let left: Vec<_> =
        std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, ["ours.csv"], "nothing was written there");
    // Whoever owns it decides who may do what. Only root gives a folder away.
    if std::os::unix::fs::chown(&folder, Some(65_534), None).is_ok() {
        let (is, said) = policy();
        assert!(is == "doubtful" && said.contains("belongs to user 65534"), "{said}");
    }
}

async fn lies(request: Request<Incoming>) -> Answer {
    let host = request.headers()[header::HOST].to_str().expect("a host").to_owned();
    let mut answer = Response::new(Full::from("{\"data\": {\"vmid\": \"many\"}}"));
    if request.uri().path().ends_with("/permissions") {
        *answer.status_mut() = StatusCode::FOUND;
        answer.headers_mut().insert(header::LOCATION, format!("https://{host}/again").parse().expect("a value"));
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypervisor_that_lies_is_named_and_the_others_are_well() {
    let (pve, dir) = (FakePve::start(None).await, tempfile::tempdir().expect("a folder"));
    let tls = peers::certificates(&dir.path().join("certificates"));
    let port = listen_tls(&tls, lies).await;
    let liar = |name: &str, tls: &str| {
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = \"proxmox\"\naddress = \"https://localhost:{port}\"\n\
             token_file = {:?}\ntls = {tls}\n",
            pve.token_file()
        )
    };
    let ca = format!("{{ ca_file = {:?} }}", tls["CA_FILE"]);
    // The same place, where another certificate was met before.
    let pin = format!("{{ pin = [{:?}] }}", "ab".repeat(32));
    let all = [liar("liar", &ca), liar("changed", &pin), pve.config("pve", free_port())].concat();
    let gateway = TestGateway::start(&all).await;
    let (code, all) = examined(&gateway);
    assert_eq!(code, Some(1));
    let (is, said) = of(&all, "liar: machines");
    assert!(is == "wrong" && said.contains("another shape"), "{said}");
    let (is, said) = of(&all, "liar: credential default");
    assert!(is == "wrong" && said.contains("302"), "redirects are not followed: {said}");
    let (is, said) = of(&all, "changed: machines");
    assert!(is == "wrong" && said.contains("TLS check"), "{said}");
    let (_, met) = of(&all, "changed: certificate");
    assert!(met.contains("SHA-256") && !met.contains(&"ab".repeat(32)), "the one that is there is shown: {met}");
    assert_ne!(of(&all, "pve: machines").0, "wrong");
    assert_eq!(of(&all, "pve: certificate").0, "well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypervisor_is_added_after_its_certificate_was_agreed_to_and_its_credential_tried() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start("").await;
    let file = gateway.dir.path().join("portcullis.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    let (address, token) = (pve.address(), pve.token_file());
    let add = |more: &[&str]| {
        let base =
            ["hypervisor", "add", "pve", "--file", "--kind", "proxmox", "--address", &address, "--secret-file", &token];
        gateway.shell(&[&base[..], more].concat())
    };
    // Nobody is there to ask: it says what it met, and says nothing to whoever that is.
    let (code, out) = add(&[]);
    assert!(code == Some(2) && out.contains("--pin"), "{out}");
    let at = out.find("SHA-256 ").expect("a digest") + 8;
    let sha = out[at..at + 64].to_owned();
    let (code, out) = add(&["--pin", &"ab".repeat(32)]);
    assert!(code == Some(2) && out.contains("another certificate") && out.contains(&sha), "{out}");
    assert_eq!(pve.came("").len(), 0, "the credential was shown to nobody");
    // A credential that does not count.
    pve.remove(TOKEN);
    let (code, out) = add(&["--pin", &sha]);
    assert!(code == Some(2) && out.contains("nothing was changed"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).expect("the configuration"), before);
    pve.add(TOKEN, false);
    let colons: Vec<String> =
        sha.to_uppercase().as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into()).collect();
    let (code, out) = add(&["--pin", &colons.join(":")]);
    assert!(code == Some(0) && out.contains("web-1") && out.contains("payroll"), "{out}");
    assert!(out.contains("Permissions.Modify") && CANARIES.iter().all(|c| !out.contains(c)), "{out}");
    let mode = std::fs::metadata(&file).expect("the configuration").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(gateway.search(&["--kind", "configuration"]).iter().any(|e| e.to_string().contains(&sha)));
    gateway.restart().await;
    assert_eq!(gateway.shell(&["hypervisor", "list"]).0, Some(0));
    let (code, out) = add(&["--pin", &sha]);
    assert!(code == Some(2) && out.contains("already"), "{out}");
}
