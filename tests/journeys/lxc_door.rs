// SPDX-License-Identifier: Apache-2.0
//! What a client certificate gives at the doors of LXD and Incus, and what it does not. The calls are those of `incus
//! remote add`, which this system has no package of.

use crate::support::{FakeLxd, FakePve, Person, TestGateway, gateway::free_port};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Identity, Method, StatusCode};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// The fingerprint of a certificate in PEM, as LXD writes it.
pub(super) fn fingerprint_of(pem: &[u8]) -> String {
    let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der))
}

/// A client's certificate and key, in PEM.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "tests run openssl")]
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let [certificate, key] = ["crt", "key"].map(|n| dir.path().join(n));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-subj"])
            .args(["/O=linuxcontainers.org/CN=root@laptop", "-days", "1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let [certificate, key] = [certificate, key].map(|p| std::fs::read_to_string(p).expect("made"));
        Self { certificate, key }
    }

    fn print(&self) -> String {
        fingerprint_of(self.certificate.as_bytes())
    }
}

struct Tool {
    client: Client,
    port: u16,
}

impl Tool {
    fn new(gateway: &TestGateway, port: u16, pair: Option<&Pair>) -> Self {
        let mut client = Client::builder().tls_certs_only([gateway.ca()]);
        if let Some(pair) = pair {
            let pem = format!("{}{}", pair.certificate, pair.key);
            client = client.identity(Identity::from_pem(pem.as_bytes()).expect("an identity"));
        }
        Self { client: client.build().expect("a client"), port }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("https://localhost:{}{path}", self.port))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.request(Method::GET, path).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The sign-in as `incus` sends it.
    async fn sign_in(&self, token: &str) -> (u16, Value) {
        let body = json!({"name": "", "type": "client", "restricted": false, "projects": [], "description": "",
            "certificate": "", "trust_token": token, "token": false});
        let answer = self.request(Method::POST, "/1.0/certificates").json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn auth(&self) -> String {
        let (status, said) = self.get("/1.0").await;
        assert_eq!(status, 200, "{said}");
        said["metadata"]["auth"].as_str().expect("a word").to_owned()
    }
}

struct Lab {
    ports: [u16; 3],
    gateway: TestGateway,
    _incus: FakeLxd,
    _lxd: FakeLxd,
    _pve: FakePve,
}

/// An Incus, an LXD and a Proxmox VE, each with a port of its own; the first two have host names as well.
async fn lab() -> Lab {
    let (incus, lxd, pve) = (FakeLxd::start(&["c1"]), FakeLxd::start(&["c9"]), FakePve::start(None).await);
    let ports = [free_port(), free_port(), free_port()];
    let config = [
        incus.config_of_incus("incus", &format!("port = {}\nhost = \"incus.example.test\"", ports[0])),
        lxd.config("lxd", &format!("port = {}\nhost = \"lxd.example.test\"", ports[1])),
        pve.config("pve", ports[2]),
    ];
    Lab { gateway: TestGateway::start(&config.concat()).await, ports, _incus: incus, _lxd: lxd, _pve: pve }
}

async fn sees(person: &Person<'_>) {
    for _ in 0..100 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|m| m.len() >= 2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} sees no machines", person.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_stands_for_its_token_and_for_nothing_else() {
    let lab = lab().await;
    let [at_incus, at_lxd, at_pve] = lab.ports;
    let gateway = &lab.gateway;
    let ada = Person::first_administrator(gateway, "ada").await;
    sees(&ada).await;
    let (mine, other) = (Pair::new(), Pair::new());
    let tool = Tool::new(gateway, at_incus, Some(&mine));

    // A stranger with a certificate hears that it is not known; one without is told as ever.
    assert_eq!(tool.auth().await, "untrusted");
    let (_, said) = tool.get("/1.0").await;
    assert_eq!(said["metadata"]["auth_methods"], json!(["tls"]));
    assert_eq!(said["metadata"].as_object().map(serde_json::Map::len), Some(6), "nothing of the hypervisor: {said}");
    assert_eq!(Tool::new(gateway, at_incus, None).get("/1.0").await.0, 401);
    for path in ["/1.0/instances", "/1.0/certificates", "/"] {
        assert_eq!(tool.get(path).await.0, 401, "{path}");
    }

    // Every token that does not count is refused in one and the same way.
    let (everywhere, elsewhere) = (ada.token("").await, ada.token("lxd").await);
    let answer = ada
        .submit("/me/tokens", &[("name", "far"), ("hypervisor", "incus"), ("networks", "192.0.2.0/24"), ("days", "1")])
        .await;
    let page = answer.text().await.expect("a page");
    let far: String = page[page.find("pct_").expect("a token")..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect();
    let mut refusals = Vec::new();
    for token in ["pct_unheard-of", "secret", &elsewhere, &far, &everywhere[..everywhere.len() - 1]] {
        let (status, mut said) = tool.sign_in(token).await;
        assert_eq!(
            (status, &said["type"], &said["error_code"]),
            (403, &json!("error"), &json!(403)),
            "{token}: {said}"
        );
        said["request"] = json!(null);
        refusals.push(said);
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(tool.auth().await, "untrusted");

    // A token without a certificate binds none, and a certificate in the body is not one whose key was proven.
    let (status, _) = Tool::new(gateway, at_incus, None).sign_in(&everywhere).await;
    assert_eq!(status, 401);
    let theirs: String = other.certificate.lines().filter(|l| !l.starts_with('-')).collect();
    assert!(STANDARD.decode(&theirs).is_ok());
    let body = json!({"type": "client", "certificate": theirs, "password": everywhere});
    let answer = tool.request(Method::POST, "/1.0/certificates").json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let long = tool.sign_in(&format!("pct_{}", "x".repeat(5000))).await;
    assert_eq!(long.0, 413, "{}", long.1);

    // With both it counts from the next request on.
    let (status, said) = tool.sign_in(&everywhere).await;
    assert_eq!((status, &said["type"]), (201, &json!("sync")), "{said}");
    assert_eq!(tool.auth().await, "trusted");
    assert_eq!(tool.get("/1.0/instances/c1").await.0, 200);
    let bound = |e: &Value| e.to_string().contains(&mine.print());
    let event = gateway.find_event(&["--kind", "api", "--user", "ada"], bound).await;
    assert_eq!(event["outcome"], "done", "{event}");

    // Whoever shows a token as well is who the token says, or nobody.
    for (name, value) in [
        ("authorization", "Bearer pct_wrong"),
        ("authorization", "Basic YTpi"),
        ("authorization", ""),
        // A page in a browser that has the certificate.
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let answer =
            tool.request(Method::GET, "/1.0/instances/c1").header(name, value).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{name}: {value}");
    }
    // Another certificate is another one, another door is another door, and no other API looks at it.
    assert_eq!(Tool::new(gateway, at_incus, Some(&other)).auth().await, "untrusted");
    assert_eq!(Tool::new(gateway, at_incus, None).get("/1.0/instances").await.0, 401);
    let at_other = Tool::new(gateway, at_lxd, Some(&mine));
    assert_eq!(at_other.auth().await, "untrusted");
    assert_eq!(at_other.get("/1.0/instances").await.0, 401);
    assert_eq!(Tool::new(gateway, at_pve, Some(&mine)).get("/api2/json/version").await.0, 401);
    // Once known, the same address is the hypervisor's list of certificates, and asks for the right to it.
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "machine", "incus/default:c1").await;
    let viewer = Tool::new(gateway, at_incus, Some(&other));
    assert_eq!(viewer.sign_in(&bob.token("incus").await).await.0, 201);
    assert_eq!(viewer.sign_in(&everywhere).await.0, 403);
    assert_eq!(viewer.get("/1.0/instances").await.1["metadata"][0]["name"], "c1");
    assert_eq!(viewer.get("/1.0/certificates").await.0, 403);
    // With the bearer token alone nothing is bound: it is a call as ever.
    let bearer = Tool::new(gateway, at_incus, Some(&Pair::new()));
    let call =
        bearer.request(Method::POST, "/1.0/certificates").bearer_auth(&everywhere).json(&json!({"type": "client"}));
    assert_eq!(call.send().await.expect("an answer").status(), StatusCode::OK, "it went to the hypervisor");
    assert_eq!(bearer.auth().await, "untrusted");

    // A token is over for its certificates, too.
    gateway.clock.advance(time::Duration::days(1));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(tool.auth().await, "untrusted");
    assert_eq!(tool.get("/1.0/instances").await.0, 401);
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_takes_five_certificates_and_gives_them_all_up_at_once() {
    let lab = lab().await;
    let gateway = &lab.gateway;
    let ada = Person::first_administrator(gateway, "ada").await;
    sees(&ada).await;
    let token = ada.token("").await;
    let mut tools = Vec::new();
    for _ in 0..5 {
        let pair = Pair::new();
        let tool = Tool::new(gateway, lab.ports[0], Some(&pair));
        assert_eq!(tool.sign_in(&token).await.0, 201);
        // The same one at another door is not one more.
        assert_eq!(Tool::new(gateway, lab.ports[1], Some(&pair)).sign_in(&token).await.0, 201);
        tools.push(tool);
    }
    let sixth = Tool::new(gateway, lab.ports[0], Some(&Pair::new()));
    let (status, said) = sixth.sign_in(&token).await;
    assert!(status == 403 && said["error"].as_str().is_some_and(|e| e.contains("5 certificates")), "{said}");
    assert_eq!(sixth.auth().await, "untrusted");
    // All of them outlive a restart, and none its token.
    gateway.restart().await;
    for tool in &tools {
        assert_eq!(tool.auth().await, "trusted");
    }
    let (_, listed) = gateway.shell(&["token", "list", "--json"]);
    let line: Value = listed.lines().find_map(|l| serde_json::from_str(l).ok()).expect("JSON");
    let rows = line.as_array().map_or(&line, |rows| &rows[0]);
    assert_eq!(rows["certificates"].as_array().map(Vec::len), Some(10), "{listed}");
    let (code, said) = gateway.shell(&["token", "revoke", rows["id"].as_str().expect("an id")]);
    assert_eq!(code, Some(0), "{said}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for tool in &tools {
        assert_eq!(tool.auth().await, "untrusted");
        assert_eq!(tool.get("/1.0/instances").await.0, 401);
    }
    lab.gateway.stop().await;
}

/// Shows a certificate, and counts how often it was asked for one.
#[derive(Debug)]
struct Asked {
    shows: Arc<CertifiedKey>,
    times: Arc<AtomicUsize>,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.times.fetch_add(1, Ordering::SeqCst);
        Some(Arc::clone(&self.shows))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whatever certificate the gateway has: here only its name is not that of the door.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// One request on a connection to the shared port, with names of its own in the handshake and in the request: how often
/// a certificate was asked for, and the answer; none where the handshake failed.
async fn on_shared_port(
    gateway: &TestGateway,
    pair: &Pair,
    sni: &str,
    host: &str,
    path: &str,
) -> (usize, Option<String>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("a certificate")];
    let times = Arc::new(AtomicUsize::new(0));
    let asked = Asked { shows: Arc::new(CertifiedKey::new(chain, key)), times: Arc::clone(&times) };
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(Arc::new(asked));
    let tcp = TcpStream::connect(gateway.portal).await.expect("a connection");
    let name = ServerName::try_from(sni.to_owned()).expect("a name");
    let talk = async {
        let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok().filter(|_| !answer.is_empty())?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), talk).await.expect("in time");
    (times.load(Ordering::SeqCst), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_shared_port_only_clients_of_lxd_are_asked_and_no_other_name_gains_by_it() {
    let lab = lab().await;
    let gateway = &lab.gateway;
    let ada = Person::first_administrator(gateway, "ada").await;
    sees(&ada).await;
    let (mine, portal) = (Pair::new(), format!("localhost:{}", gateway.portal.port()));
    let tool = Tool::new(gateway, lab.ports[0], Some(&mine));
    assert_eq!(tool.sign_in(&ada.token("").await).await.0, 201);
    let at = |sni: &'static str, host: String, path: &'static str| {
        let mine = mine.clone();
        async move {
            let (asked, answer) = on_shared_port(gateway, &mine, sni, &host, path).await;
            let answer = answer.expect("an answer");
            (asked, answer.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok()).expect("a status"), answer)
        }
    };
    let (asked, status, answer) = at("incus.example.test", "incus.example.test".into(), "/1.0/instances/c1").await;
    assert_eq!((asked, status), (1, 200), "{answer}");
    // A browser at the portal is not asked, nor whoever names nothing that is here.
    let (asked, status, answer) = at("localhost", portal.clone(), "/sign-in").await;
    assert_eq!((asked, status), (0, 200), "{answer}");
    for sni in ["elsewhere.example.test", "pve.example.test", "127.0.0.1"] {
        assert_eq!(at(sni, portal.clone(), "/sign-in").await.0, 0, "{sni}");
    }
    // A connection that was opened for another name: nothing was shown on it.
    let (asked, status, answer) = at("localhost", "incus.example.test".into(), "/1.0/instances/c1").await;
    assert_eq!((asked, status), (0, 401), "{answer}");
    // One that was opened for one door counts at no other than where it is bound, and nothing at the portal.
    let (asked, status, answer) = at("incus.example.test", "lxd.example.test".into(), "/1.0/instances/c9").await;
    assert_eq!((asked, status), (1, 401), "{answer}");
    let (_, status, answer) = at("incus.example.test", portal.clone(), "/api/v1/machines").await;
    assert_eq!(status, 401, "{answer}");
    let (_, status, answer) = at("lxd.example.test", "incus.example.test".into(), "/1.0/instances/c1").await;
    assert_eq!(status, 200, "the key was proven, and is bound there: {answer}");

    // Copied without its key, a certificate opens nothing.
    let thief = Pair { key: Pair::new().key, ..mine.clone() };
    let (asked, answer) =
        on_shared_port(gateway, &thief, "incus.example.test", "incus.example.test", "/1.0/instances/c1").await;
    assert_eq!((asked, answer), (1, None));
    lab.gateway.stop().await;
}
