// SPDX-License-Identifier: Apache-2.0
//! Who is believed to be the hypervisor: right CA and name, pin, or nobody.

use crate::support::{
    Client, config, fleet,
    pki::{Pki, pin},
    spawn,
};
use portcullis_domain::SystemClock;
use portcullis_upstream::{Error, Fault, Fleet};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers every request over TLS; gives its port.
async fn serve(pki: &Pki) -> u16 {
    let key = PrivateKeyDer::try_from(pki.server_key.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(pki.server_der.clone())], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

#[tokio::test]
async fn only_the_right_certificate_opens_the_door() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::new(folder.path(), &["localhost"]);
    let stranger = Pki::new(other.path(), &["localhost"]);
    let port = serve(&pki).await;
    let good = pin(&pki.server_der);
    let bad = pin(&stranger.server_der);
    let colons = good.as_bytes().chunks(2).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join(":");
    let cases = [
        ("localhost", json!({ "ca_file": pki.ca }), true),
        ("localhost", json!({ "ca_file": stranger.ca }), false),
        ("127.0.0.1", json!({ "ca_file": pki.ca }), false),
        ("127.0.0.1", json!({ "ca_file": pki.ca, "server_name": "localhost" }), true),
        ("127.0.0.1", json!({ "pin": [good] }), true),
        ("127.0.0.1", json!({ "pin": [bad, colons.to_uppercase()] }), true),
        ("127.0.0.1", json!({ "pin": [bad] }), false),
        ("localhost", json!({ "ca_file": pki.ca, "pin": [good] }), true),
        ("localhost", json!({ "ca_file": pki.ca, "pin": [bad] }), false),
        ("localhost", json!({ "ca_file": stranger.ca, "pin": [good] }), false),
        ("127.0.0.1", json!({ "ca_file": pki.ca, "pin": [good] }), false),
        ("localhost", json!({}), false),
        ("127.0.0.1", json!({ "verify": "none" }), true),
    ];
    for (host, tls, is_good) in cases {
        let json = json!({ "kind": "lxd", "name": "lab", "address": format!("https://{host}:{port}"), "cert_file": pki.client.0,
            "key_file": pki.client.1, "tls": tls });
        let fleet = fleet(vec![config(json)]);
        let is_loud = fleet.health()[0].notes.iter().any(|n| n.contains("verify"));
        assert_eq!(is_loud, tls["verify"] == "none");
        let answer = Client::new(&fleet, "lab").await.get("/").await;
        match answer {
            Ok((_, body)) => assert!(is_good && &body[..] == b"ok", "{host} {tls}"),
            Err(Error::Upstream { fault: Fault::Untrusted(why), .. }) => assert!(!is_good, "{host} {tls}: {why}"),
            Err(other) => panic!("{host} {tls}: {other}"),
        }
    }
}

type Change<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_configuration_that_cannot_be_used_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let open = folder.path().join("open-key.pem");
    std::fs::copy(&pki.client.1, &open).unwrap();
    run_chmod(&open);
    let lxd = |change: &dyn Fn(&mut Value)| {
        let mut json = json!({ "kind": "lxd", "name": "lab", "address": "https://h:8443", "cert_file": pki.client.0,
            "key_file": pki.client.1, "tls": { "ca_file": pki.ca } });
        change(&mut json);
        Fleet::new(vec![config(json)], Arc::new(SystemClock)).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(lxd(&|_| ()), Ok(()));
    let cases: [(Change<'_>, &str); 12] = [
        (&|j| j["key_file"] = json!(open), "hypervisors.lab.key_file"),
        (&|j| j["key_file"] = json!(pki.server.1), "hypervisors.lab.key_file"),
        (&|j| j["key_file"] = json!(pki.ca), "hypervisors.lab.key_file"),
        (&|j| j["key_file"] = json!("/missing"), "hypervisors.lab.key_file"),
        (&|j| j["key_file"] = Value::Null, "hypervisors.lab.cert_file"),
        (&|j| j["tls"]["ca_file"] = json!(pki.client.1), "hypervisors.lab.tls.ca_file"),
        (&|j| j["tls"]["pin"] = json!(["abcd"]), "hypervisors.lab.tls.pin"),
        (&|j| j["tls"]["verify"] = json!("none"), "hypervisors.lab.tls.verify"),
        (&|j| j["address"] = json!("http://h:8443"), "hypervisors.lab.address"),
        (&|j| j["address"] = json!("https://h"), "hypervisors.lab.address"),
        (&|j| j["socket"] = json!("/s"), "hypervisors.lab"),
        (&|j| j["connections"] = json!(0), "hypervisors.lab.connections"),
    ];
    for (change, key) in cases {
        let error = lxd(change).unwrap_err();
        assert!(error.starts_with(&format!("{key}: ")), "{error} instead of {key}");
    }
    let libvirt =
        |json: Value| Fleet::new(vec![config(json)], Arc::new(SystemClock)).map(|_| ()).unwrap_err().to_string();
    let error = libvirt(json!({ "kind": "libvirt", "name": "v", "address": "h:16514" }));
    assert!(error.starts_with("hypervisors.v.cert_file: "), "{error}");
    let error = libvirt(json!({ "kind": "qemu", "name": "q", "guests": [{ "id": "a" }, { "id": "a" }] }));
    assert!(error.starts_with("hypervisors.q.guests.a: "), "{error}");
    let error = libvirt(json!({ "kind": "qemu", "name": "q", "guests": [{ "id": "a", "vnc": "nowhere" }] }));
    assert!(error.starts_with("hypervisors.q.guests.a.vnc: "), "{error}");
    let two = [json!({ "kind": "qemu", "name": "q" }), json!({ "kind": "qemu", "name": "q" })].map(config).to_vec();
    let error = Fleet::new(two, Arc::new(SystemClock)).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("hypervisors.q: "), "{error}");
}

fn run_chmod(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}
