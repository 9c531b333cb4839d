// SPDX-License-Identifier: Apache-2.0
//! Calls to services that are no hypervisors: who is believed, and what an answer may be.

use crate::support::{pki::Pki, spawn};
use http::{Request, StatusCode};
use portcullis_upstream::{Fault, Outbound};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers each request over TLS with the same bytes, then waits or closes; gives its port.
async fn serve(pki: &Pki, answer: &'static [u8], waits: bool) -> u16 {
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
                let _ = stream.write_all(answer).await;
                if waits {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                }
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

fn get(address: String) -> Request<Vec<u8>> {
    Request::builder().uri(address).body(Vec::new()).unwrap()
}

// SEC-101, SEC-152
#[tokio::test]
async fn only_the_configured_authority_is_believed_and_only_for_the_name_that_was_asked() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::new(folder.path(), &["localhost"]);
    let stranger = Pki::new(other.path(), &["localhost"]);
    let port = serve(&pki, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await;
    let right = Outbound::new("ca_file", Some(&pki.ca)).unwrap();
    let answer = right.fetch(get(format!("https://localhost:{port}/x?y")), 10, PATIENCE).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_slice()), (StatusCode::OK, b"ok".as_slice()));
    for (outbound, host) in [
        (Outbound::new("ca_file", Some(&stranger.ca)).unwrap(), "localhost"),
        (Outbound::new("ca_file", None).unwrap(), "localhost"),
        (right, "127.0.0.1"),
    ] {
        let refused = outbound.fetch(get(format!("https://{host}:{port}/")), 10, PATIENCE).await;
        assert!(matches!(refused, Err(Fault::Untrusted(_))), "{refused:?}");
    }
    let missing = Outbound::new("identity.providers.corp.ca_file", Some(&folder.path().join("none"))).err().unwrap();
    assert!(missing.to_string().contains("identity.providers.corp"), "{missing}");
}

// SEC-101
#[tokio::test]
async fn an_answer_that_is_too_large_too_slow_or_elsewhere_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let outbound = Outbound::new("ca_file", Some(&pki.ca)).unwrap();
    let ask = async |answer, waits, patience| {
        let port = serve(&pki, answer, waits).await;
        outbound.fetch(get(format!("https://localhost:{port}/")), 16, patience).await
    };
    let moved = b"HTTP/1.1 302 Found\r\nLocation: https://localhost:1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(moved, false, PATIENCE).await.unwrap().status(), StatusCode::FOUND, "it is not followed");
    let exact = ask(b"HTTP/1.1 200 OK\r\n\r\n0123456789abcdef", false, PATIENCE).await.unwrap();
    assert_eq!(exact.body().len(), 16);
    let large = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n0123456789abcdefg", false, PATIENCE).await;
    assert!(matches!(large, Err(Fault::Protocol(_))), "{large:?}");
    let endless = ask(b"HTTP/1.1 200 OK\r\n\r\n0123456789abcdefg", true, PATIENCE).await;
    assert!(matches!(endless, Err(Fault::Protocol(_))), "{endless:?}");
    let short = Duration::from_millis(200);
    for slow in [b"".as_slice(), b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n01"] {
        let began = std::time::Instant::now();
        let refused = ask(slow, true, short).await;
        assert!(matches!(refused, Err(Fault::TooSlow(_))), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let broken = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n01", false, PATIENCE).await;
    assert!(broken.is_err(), "{broken:?}");
    let other = outbound.fetch(get("ftp://localhost/".to_owned()), 16, PATIENCE).await;
    assert!(matches!(other, Err(Fault::Protocol(_))), "{other:?}");
}
