// SPDX-License-Identifier: Apache-2.0
//! An ESXi host as far as its screens go: `wss://host/ticket/…` with subprotocol `binary`, a ticket good once, and a
//! certificate that nobody signed, known by its thumbprint. The screen behind is a real QEMU's.
//!
//! Known differences: any ticket of the simulated vCenter is taken, whatever machine it was for; its RFB is QEMU's own,
//! without VMware's messages.

use super::{fake::carry, peers::Peer};
use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::handshake::server::{ErrorResponse, Request, Response},
};

/// It runs until the test ends.
pub(crate) struct FakeEsx {
    _dir: TempDir,
    port: u16,
    thumbprint: String,
    came: Arc<Mutex<Vec<String>>>,
}

impl FakeEsx {
    /// Starts one whose screens are a guest's, which asks for no password.
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    pub(crate) async fn start(guest: &Peer) -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let tls = super::peers::certificates(&dir.path().join("certificates"));
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(&tls["SERVER_CERT"]).expect("PEM").map(|c| c.expect("PEM")).collect();
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &chain[0]);
        let thumbprint = sha1.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        let key = PrivateKeyDer::from_pem_file(&tls["SERVER_KEY"]).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("TLS");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (vnc, came) = (guest.get("VNC").to_owned(), Arc::new(Mutex::new(Vec::new())));
        let (noted, spent) = (Arc::clone(&came), Arc::new(Mutex::new(HashSet::new())));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, vnc) = (acceptor.clone(), vnc.clone());
                let (noted, spent) = (Arc::clone(&noted), Arc::clone(&spent));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let check = |request: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
                        let path = request.uri().path().to_owned();
                        let protocol = request.headers().get("sec-websocket-protocol").and_then(|p| p.to_str().ok());
                        let is_ticket = path.strip_prefix("/ticket/canaryticket").is_some();
                        let is_new = spent.lock().expect("whole").insert(path.clone());
                        noted.lock().expect("whole").push(path);
                        if protocol != Some("binary") || !is_ticket || !is_new {
                            let mut refused = ErrorResponse::new(None);
                            *refused.status_mut() = http::StatusCode::FORBIDDEN;
                            return Err(refused);
                        }
                        answer.headers_mut().insert("sec-websocket-protocol", "binary".parse().expect("a value"));
                        Ok(answer)
                    };
                    let Ok(socket) = accept_hdr_async(stream, check).await else { return };
                    carry(socket, TcpStream::connect(&vnc).await.expect("a screen")).await;
                });
            }
        });
        Self { _dir: dir, port, thumbprint, came }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The SHA-1 of its certificate.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// What was asked of it.
    pub(crate) fn came(&self) -> Vec<String> {
        self.came.lock().expect("whole").clone()
    }
}
